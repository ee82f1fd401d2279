//! The optimisers of the reference protocols, with PyTorch's arithmetic, for all parameters of a module.
//!
//! They replace burn-optim for three reasons. There, a moment's decay is fixed when the optimiser is built, but a one-cycle
//! schedule changes it at every step. Its state belongs to a parameter's random id, whereas ours is stored by name, so that
//! another process can resume it. And its AdamW step takes about fourteen passes over memory on one thread (measured in
//! benches/NOTES.md).

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use ndarray::ArrayD;
use serde::{Deserialize, Serialize};

use super::gradients::FlatGradients;
use super::state::{LazyArray, State};
use crate::nn::kernels::{self, AdamwStep};
use crate::{Error, Result, config};

/// The update rule of an optimiser.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Rule {
    /// AdamW [torch.optim.AdamW, without amsgrad]. Weight decay applies to every parameter, including norms and biases.
    #[serde(rename_all = "kebab-case")]
    Adamw {
        /// Decay of the second moment; beta1 comes with each step.
        beta2: f64,
        /// Added to the root of the second moment.
        epsilon: f64,
        /// Decoupled weight decay, per unit of learning rate.
        weight_decay: f64,
    },
    /// Gradient descent with momentum [torch.optim.SGD, dampening 0, not Nesterov]. Weight decay is added to the gradient.
    #[serde(rename_all = "kebab-case")]
    Sgd {
        /// Weight decay, added to the gradient.
        weight_decay: f64,
    },
}

impl Rule {
    /// AdamW with PyTorch's defaults; beta1 is 0.9 (see [`Pace::momentum`]).
    pub const ADAMW: Rule = Rule::Adamw { beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01 };

    /// Returns the rule described in a protocol's file, and its momentum or beta1.
    pub fn of(optimizer: config::Optimizer) -> (Self, f64) {
        match optimizer {
            config::Optimizer::Adamw { betas: [beta1, beta2], eps, weight_decay } => {
                (Rule::Adamw { beta2, epsilon: eps, weight_decay }, beta1)
            }
            config::Optimizer::Sgd { momentum, weight_decay } => (Rule::Sgd { weight_decay }, momentum),
        }
    }
}

/// The schedule's values for one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// The learning rate of the step.
    pub learning_rate: f64,
    /// SGD's momentum, or AdamW's beta1.
    pub momentum: f64,
}

/// A rule and its state of each parameter.
#[derive(Debug, Clone)]
pub struct Optimizer {
    rule: Rule,
    memory: BTreeMap<String, Memory>,
}

/// The state of one parameter, on the parameter's device without autodiff.
#[derive(Debug, Clone)]
struct Memory {
    /// Number of steps taken.
    steps: u32,
    /// AdamW: both moments. SGD: the velocity.
    moments: Vec<Tensor<1>>,
}

impl Optimizer {
    /// Creates an optimiser without any state.
    pub fn new(rule: Rule) -> Self {
        Optimizer { rule, memory: BTreeMap::new() }
    }

    /// Updates every parameter that has a gradient and consumes the gradients.
    pub fn step<M: Module>(&mut self, module: M, gradients: &mut Gradients, pace: Pace) -> M {
        let gradients = FlatGradients::take(&module, gradients);
        self.apply(module, gradients, pace)
    }

    /// Updates every parameter that has a gradient in `gradients`.
    pub fn apply<M: Module>(&mut self, module: M, gradients: FlatGradients, pace: Pace) -> M {
        module.map(&mut Step { optimizer: self, gradients, pace, path: Vec::new() })
    }

    fn update(&mut self, name: String, parameter: Tensor<1>, gradient: Tensor<1>, pace: Pace) -> Tensor<1> {
        let memory = self.memory.entry(name).or_insert(Memory { steps: 0, moments: Vec::new() });
        memory.steps += 1;
        match self.rule {
            Rule::Adamw { beta2, epsilon, weight_decay } => {
                let moments = std::mem::take(&mut memory.moments);
                let moments: [Tensor<1>; 2] =
                    moments.try_into().unwrap_or_else(|_| [gradient.zeros_like(), gradient.zeros_like()]);
                let steps = f64::from(memory.steps);
                let step = AdamwStep {
                    beta1: pace.momentum,
                    beta2,
                    keep: 1.0 - pace.learning_rate * weight_decay,
                    rate: pace.learning_rate / (1.0 - pace.momentum.powf(steps)),
                    root: (1.0 - beta2.powf(steps)).sqrt(),
                    epsilon,
                };
                let (parameter, moments) = kernels::adamw(parameter, gradient, moments, step);
                memory.moments = moments.into();
                parameter
            }
            Rule::Sgd { weight_decay } => {
                let gradient = gradient + parameter.clone() * weight_decay;
                let velocity = match memory.moments.pop() {
                    Some(velocity) => velocity * pace.momentum + gradient,
                    None => gradient,
                };
                memory.moments.push(velocity.clone());
                parameter - velocity * pace.learning_rate
            }
        }
    }

    /// Returns the whole state: for each parameter, `<name>.steps` and `<name>.<i>` for its moments, flat.
    pub fn state(&self) -> State {
        self.lazy_state().into_iter().map(|(name, lazy)| (name, lazy.to_array())).collect()
    }

    /// Like [`Optimizer::state`], but copies each array off its device only on request.
    pub fn lazy_state(&self) -> BTreeMap<String, LazyArray> {
        let mut state = BTreeMap::new();
        for (name, memory) in &self.memory {
            let steps = ArrayD::from_elem(vec![1], memory.steps as f32);
            state.insert(format!("{name}.steps"), LazyArray::of(steps));
            for (i, moment) in memory.moments.iter().enumerate() {
                state.insert(format!("{name}.{i}"), LazyArray::flat(moment.clone()));
            }
        }
        state
    }

    /// Restores an optimiser from `state`, on the parameters' device without autodiff.
    ///
    /// # Errors
    /// If the state does not come from [`Optimizer::state`].
    pub fn resume(rule: Rule, state: &State, device: &Device) -> Result<Self> {
        let mut memory: BTreeMap<String, Memory> = BTreeMap::new();
        for (name, array) in state {
            let unknown = || Error::mismatch(format!("`{name}` is not part of an optimiser's state"));
            let (parameter, part) = name.rsplit_once('.').ok_or_else(unknown)?;
            let entry =
                memory.entry(parameter.to_owned()).or_insert(Memory { steps: 0, moments: Vec::new() });
            let values: Vec<f32> = array.iter().copied().collect();
            match part {
                "steps" => entry.steps = values.first().map(|steps| *steps as u32).ok_or_else(unknown)?,
                // Sorted by name, so moment 0 comes before moment 1.
                "0" | "1" => {
                    let length = values.len();
                    entry.moments.push(Tensor::from_data(TensorData::new(values, [length]), device));
                }
                _ => return Err(unknown()),
            }
        }
        Ok(Optimizer { rule, memory })
    }
}

struct Step<'a> {
    optimizer: &'a mut Optimizer,
    gradients: FlatGradients,
    pace: Pace,
    path: Vec<String>,
}

impl ModuleMapper for Step<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.join(".");
        let Some(gradient) = self.gradients.remove(&name) else {
            return param;
        };
        let (id, tensor, mapper) = param.consume();
        let (shape, strategy) = (tensor.shape(), tensor.gradient_checkpointing_strategy());
        let length = shape.num_elements();
        let updated = self.optimizer.update(name, tensor.inner().reshape([length]), gradient, self.pace);
        let mut updated = Tensor::from_inner(updated.reshape(shape));
        if let Some(strategy) = strategy {
            updated = updated.with_gradient_checkpointing_strategy(strategy);
        }
        Param::from_mapped_value(id, updated.require_grad(), mapper)
    }
}
