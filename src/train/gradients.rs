//! Gradients by parameter name, detached from the graph: they can be summed over the parts of a batch, clipped, and passed
//! to an optimiser.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{self, FloatDType, Tensor};
use rayon::prelude::*;

/// One flat gradient per parameter that has one, on a device without autodiff.
#[derive(Debug, Clone, Default)]
pub struct FlatGradients(BTreeMap<String, Tensor<1>>);

impl FlatGradients {
    /// Takes the gradients of `module`'s parameters from the result of a backward pass.
    pub fn take<M: Module>(module: &M, gradients: &mut tensor::Gradients) -> Self {
        let mut take = Take { gradients, path: Vec::new(), found: BTreeMap::new() };
        module.visit(&mut take);
        FlatGradients(take.found)
    }

    /// Adds the gradients of another pass.
    pub fn add(&mut self, mut other: Self) {
        let own = std::mem::take(&mut self.0);
        let pairs: Vec<_> = own
            .into_iter()
            .map(|(name, sum)| {
                let summand = other.0.remove(&name);
                (name, sum, summand)
            })
            .collect();
        let sum = |(name, sum, summand): (String, Tensor<1>, Option<Tensor<1>>)| match summand {
            Some(summand) => (name, sum + summand),
            None => (name, sum),
        };
        self.0 = pairs.into_par_iter().map(sum).collect();
        self.0.extend(other.0);
    }

    /// Returns the Euclidean norm over all gradients.
    pub fn norm(&self) -> f64 {
        let gradients: Vec<Tensor<1>> = self.0.values().cloned().collect();
        let squares: Vec<Tensor<1>> =
            gradients.into_par_iter().map(|gradient| (gradient.clone() * gradient).sum()).collect();
        if squares.is_empty() {
            return 0.0;
        }
        let squares = Tensor::cat(squares, 0).into_data().convert::<f32>().try_into_vec::<f32>();
        squares.expect("converted to float32").into_iter().map(f64::from).sum::<f64>().sqrt()
    }

    /// Scales the gradients down to the norm `longest` if they exceed it [torch.nn.utils.clip_grad_norm_].
    pub fn clip(&mut self, longest: f64) {
        let factor = longest / (self.norm() + 1e-6);
        // Not if the norm is NaN: PyTorch's weights become NaN as well.
        if factor >= 1.0 {
            return;
        }
        let gradients = std::mem::take(&mut self.0);
        self.0 = gradients.into_par_iter().map(|(name, gradient)| (name, gradient * factor)).collect();
    }

    /// Like [`FlatGradients::clip`], without waiting for the device: the factor stays there.
    pub fn clip_on_device(&mut self, longest: f64) {
        let squares: Vec<Tensor<1>> =
            self.0.values().map(|gradient| (gradient.clone() * gradient.clone()).sum()).collect();
        if squares.is_empty() {
            return;
        }
        let wide = Tensor::cat(squares, 0).cast(FloatDType::F64).sum();
        let norm = wide.sqrt() + 1e-6;
        // NaN stays NaN, as in PyTorch.
        let factor = (norm.recip() * longest).clamp_max(1.0).cast(FloatDType::F32);
        self.0.values_mut().for_each(|gradient| *gradient = gradient.clone() * factor.clone());
    }

    /// Removes and returns the gradient of one parameter.
    pub fn remove(&mut self, name: &str) -> Option<Tensor<1>> {
        self.0.remove(name)
    }
}

struct Take<'a> {
    gradients: &'a mut tensor::Gradients,
    path: Vec<String>,
    found: BTreeMap<String, Tensor<1>>,
}

impl ModuleVisitor for Take<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = param.val().grad_remove(self.gradients) {
            let length = gradient.shape().num_elements();
            self.found.insert(self.path.join("."), gradient.reshape([length]));
        }
    }
}
