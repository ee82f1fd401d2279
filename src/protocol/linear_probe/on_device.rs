//! The training of all heads on a device, for many features: the arithmetic of [`super::group`] in tensors. Features, orders and
//! rates are uploaded once, or once per epoch; a step waits for nothing. Sums are rounded in another order.

use burn::tensor::{DType, Device, FloatDType, Int, Tensor, TensorData};
use ndarray::{Array1, Array2, ArrayView2, Axis, s};

use super::batches::{RunningStatistics, cut};
use super::heads::{HeadLayout, Heads, Linear, flat};
use super::{DrawnSample, Trained, TrainingSet, failure};
use crate::config::{LinearProbeConfig, Optimizer};
use crate::protocol::Accelerator;
use crate::protocol::on_device::download;
use crate::score::Targets;
use crate::train::schedule::Position;
use crate::{Error, Result, device};

/// Like [`super::train_from`] on a device.
///
/// # Errors
/// Like [`super::train_from`], or if the device fails.
pub(super) fn train_from(
    accelerator: &Accelerator,
    config: &LinearProbeConfig,
    rates: &[f64],
    training: TrainingSet,
    start: &Linear,
    order: impl Fn(usize) -> Vec<DrawnSample>,
    mut after_epoch: impl FnMut(usize, &Heads) -> Result<()>,
) -> Result<Trained> {
    training.check(config)?;
    let mut sweep = guarded(accelerator, || DeviceSweep::new(accelerator, config, rates, training, start))??;
    for epoch in 0..config.epochs {
        let order = order(epoch);
        let heads = guarded(accelerator, || {
            sweep.train(config, epoch, &order)?;
            sweep.heads()
        })??;
        after_epoch(epoch, &heads)?;
    }
    guarded(accelerator, || Ok(Trained { heads: sweep.heads()?, losses: sweep.losses_so_far()? }))?
}

/// Runs `work`; a panic of the device's driver becomes an error.
fn guarded<T>(accelerator: &Accelerator, work: impl FnOnce() -> T) -> Result<T> {
    device::quietly(work).map_err(|problem| {
        Error::device(format!("linear probe on {}: {problem}", accelerator.kind())).help("use --device flex")
    })
}

/// Features of a split on a device, to which heads are applied.
pub(super) struct DeviceSplit<'a> {
    accelerator: &'a Accelerator,
    /// [n, d].
    features: Tensor<2>,
}

impl<'a> DeviceSplit<'a> {
    /// Uploads features [n, d].
    ///
    /// # Errors
    /// If the device fails.
    pub(super) fn upload(accelerator: &'a Accelerator, features: ArrayView2<f32>) -> Result<Self> {
        let features = guarded(accelerator, || accelerator.upload(features))?;
        Ok(DeviceSplit { accelerator, features })
    }

    /// Logits [n, outputs] by each head.
    ///
    /// # Errors
    /// If the device fails.
    pub(super) fn logits(&self, heads: &Heads) -> Result<Vec<Array2<f32>>> {
        let HeadLayout { outputs, width, .. } = heads.layout;
        let columns = heads.len() * outputs;
        let (mut weights, mut biases) = (Array2::zeros((columns, width)), Array1::zeros(columns));
        let parts = flat(&mut weights).chunks_exact_mut(outputs * width);
        let parts = parts.zip(flat(&mut biases).chunks_exact_mut(outputs));
        for (head, (weight, bias)) in heads.parameters.iter().zip(parts) {
            heads.layout.fold(head, weight, bias);
        }
        let logits = guarded(self.accelerator, || {
            let up = |rows: ArrayView2<f32>| self.accelerator.upload(rows);
            let factor = heads.running.factor();
            let row = |values: &Array1<f32>| up(values.view().insert_axis(Axis(0)));
            let x = (self.features.clone() - row(&heads.running.mean)) * row(&factor);
            download(x.matmul(up(weights.view()).transpose()) + row(&biases))
        })??;
        let all = Array2::from_shape_vec((self.features.dims()[0], columns), logits).map_err(failure)?;
        let head = |first: usize| all.slice(s![.., first..first + outputs]).mapv(|logit| logit as f32);
        Ok((0..columns).step_by(outputs).map(head).collect())
    }
}

/// What each sample's loss needs.
enum DeviceTargets {
    /// [n]: classes.
    Classes(Tensor<1, Int>),
    /// [n, labels]: 1 where a label applies.
    Labels(Tensor<2>),
    /// [n, 1].
    Values(Tensor<2>),
}

/// A training under way.
struct DeviceSweep {
    device: Device,
    layout: HeadLayout,
    optimizer: Optimizer,
    rates: Vec<f64>,
    samples: usize,
    /// [variants * n, d].
    features: Tensor<2>,
    targets: DeviceTargets,
    /// One head per row, as in [`HeadLayout`].
    parameters: Tensor<2>,
    /// AdamW: the gradients' running means [heads, learnt]; SGD: the momentum buffers.
    first: Tensor<2>,
    /// AdamW: the squared gradients' running means.
    second: Tensor<2>,
    steps: i32,
    /// Mean and unbiased variance, [1, d].
    running: [Tensor<2>; 2],
    eps: f64,
    /// [1, heads] per step.
    losses: Vec<Tensor<2>>,
}

impl DeviceSweep {
    fn new(
        accelerator: &Accelerator,
        config: &LinearProbeConfig,
        rates: &[f64],
        training: TrainingSet,
        start: &Linear,
    ) -> Result<Self> {
        let (outputs, width) = (training.targets.outputs(), training.width());
        let layout = HeadLayout { outputs, width, affine: config.batch_norm.is_some_and(|norm| norm.affine) };
        if start.weight.dim() != (outputs, width) || start.bias.len() != outputs {
            let shape = start.weight.dim();
            return Err(failure(format!("initial weights {shape:?}, expected {:?}", (outputs, width))));
        }
        let device = accelerator.device().clone();
        let variants = training.features.axis_iter(Axis(0)).map(|variant| accelerator.upload(variant));
        let head = Array1::from(layout.head(start));
        let heads = head.broadcast((rates.len(), head.len())).map(|heads| heads.to_owned());
        let heads = heads.ok_or_else(|| failure("no learning rates"))?;
        let float = |shape: [usize; 2]| Tensor::<2>::zeros(shape, (&device, DType::F32));
        let memory = || float([rates.len(), layout.learnt()]);
        let targets = match training.targets {
            Targets::Classes { classes, .. } => {
                let classes: Vec<i64> = classes.iter().map(|class| *class as i64).collect();
                let shape = [classes.len()];
                DeviceTargets::Classes(Tensor::from_data(TensorData::new(classes, shape), &device))
            }
            Targets::Labels(labels) => {
                DeviceTargets::Labels(accelerator.upload(labels.mapv(f32::from).view()))
            }
            Targets::Values(values) => {
                let column = ArrayView2::from_shape((values.len(), 1), values).map_err(failure)?;
                DeviceTargets::Values(accelerator.upload(column))
            }
        };
        Ok(DeviceSweep {
            layout,
            optimizer: config.optimizer,
            rates: rates.to_vec(),
            samples: training.samples(),
            features: Tensor::cat(variants.collect(), 0),
            targets,
            parameters: accelerator.upload(heads.view()),
            first: memory(),
            second: memory(),
            steps: 0,
            running: [float([1, width]), float([1, width]) + 1.0],
            eps: config.batch_norm.map_or(0.0, |norm| norm.eps),
            losses: Vec::new(),
            device,
        })
    }

    fn train(&mut self, config: &LinearProbeConfig, epoch: usize, order: &[DrawnSample]) -> Result<()> {
        let batches = cut(order, config.batch_size, config.drop_last);
        if batches.is_empty() {
            let least = if config.drop_last { config.batch_size } else { 2 };
            return Err(failure(format!("{} training samples; a batch needs {least}", order.len()))
                .help("use a larger partition, or a protocol with smaller batches"));
        }
        let integers = |values: Vec<i64>| {
            let shape = [values.len()];
            Tensor::<1, Int>::from_data(TensorData::new(values, shape), &self.device)
        };
        // Batches follow one another in the order, so that an epoch's are uploaded at once.
        let samples = integers(order.iter().map(|drawn| drawn.sample as i64).collect());
        let row = |drawn: &DrawnSample| (drawn.variant * self.samples + drawn.sample) as i64;
        let rows = integers(order.iter().map(row).collect());
        let position = Position { epoch, epochs: config.epochs, batch: 0, batches: batches.len() };
        let rates = |batch: usize| {
            let position = Position { batch, ..position };
            self.rates.iter().map(move |rate| config.schedule.at(*rate, position))
        };
        let learning_rates: Vec<f64> =
            (0..batches.len()).flat_map(|batch| rates(batch).map(|rates| rates.learning_rate)).collect();
        let momenta: Vec<Option<f64>> =
            (0..batches.len()).map(|batch| rates(batch).next().and_then(|rates| rates.momentum)).collect();
        let shape = [batches.len(), self.rates.len()];
        let learning_rates =
            Tensor::<2>::from_data(TensorData::new(learning_rates, shape), (&self.device, DType::F64));
        for (batch, drawn) in batches.iter().enumerate() {
            let first = batch * config.batch_size;
            let samples = samples.clone().narrow(0, first, drawn.len());
            let x = self.features.clone().select(0, rows.clone().narrow(0, first, drawn.len()));
            let x = match config.batch_norm {
                Some(norm) => self.normalized(x, norm.eps, norm.momentum),
                None => x,
            };
            // [heads, 1].
            let rates = learning_rates.clone().narrow(0, batch, 1).transpose();
            self.step(x, samples, rates, momenta[batch]);
        }
        Ok(())
    }

    /// Normalises a batch [n, d] by its own statistics, and moves the running ones.
    fn normalized(&mut self, x: Tensor<2>, eps: f64, momentum: f64) -> Tensor<2> {
        let n = x.dims()[0] as f64;
        let mean = (x.clone().cast(FloatDType::F64).sum_dim(0) / n).cast(FloatDType::F32);
        let centred = x - mean.clone();
        let wide = centred.clone().cast(FloatDType::F64);
        let squares = (wide.clone() * wide).sum_dim(0);
        let factor = (squares.clone() / n + eps).sqrt().recip().cast(FloatDType::F32);
        let variance = (squares / (n - 1.0)).cast(FloatDType::F32);
        let (old, new) = ((1.0 - momentum) as f32, momentum as f32);
        let [running_mean, running_variance] = &self.running;
        self.running =
            [running_mean.clone() * old + mean * new, running_variance.clone() * old + variance * new];
        centred * factor
    }

    /// One step of all heads on the same normalised batch x [n, d]; `rates` are [heads, 1] in float64.
    fn step(&mut self, x: Tensor<2>, samples: Tensor<1, Int>, rates: Tensor<2>, momentum: Option<f64>) {
        let HeadLayout { outputs: o, width: d, affine } = self.layout;
        let (h, n) = (self.rates.len(), x.dims()[0]);
        let part = |first: usize, length: usize| self.parameters.clone().narrow(1, first, length);
        let weight = part(0, o * d).reshape([h, o, d]);
        let bias = part(o * d, o);
        let scale = part(o * d + o, d).reshape([h, 1, d]);
        let shift = part(o * d + o + d, d).reshape([h, 1, d]);
        let folded = (weight.clone() * scale.clone()).reshape([h * o, d]);
        let folded_bias = bias + (weight.clone() * shift.clone()).sum_dim(2).reshape([h, o]);
        let z = x.clone().matmul(folded.transpose()) + folded_bias.reshape([1, h * o]);
        let (loss, gradient) = self.losses(z.reshape([n, h, o]), samples);
        let loss = loss.cast(FloatDType::F64).sum_dim(0).reshape([1, h]) / n as f64;
        self.losses.push(loss.cast(FloatDType::F32));
        let gradient = gradient.reshape([n, h * o]);
        let m = gradient.clone().transpose().matmul(x).reshape([h, o, d]);
        let s = gradient.sum_dim(0).reshape([h, o]);
        let column = s.clone().reshape([h, o, 1]);
        let for_weight = (m.clone() * scale + column.clone() * shift).reshape([h, o * d]);
        let mut parts = vec![for_weight, s];
        if affine {
            parts.push((weight.clone() * m).sum_dim(1).reshape([h, d]));
            parts.push((weight * column).sum_dim(1).reshape([h, d]));
        }
        self.update(Tensor::cat(parts, 1), rates, momentum);
    }

    /// Per sample and head the loss [n, heads, 1], and the gradient of the batch's mean loss [n, heads, outputs].
    fn losses(&self, z: Tensor<3>, samples: Tensor<1, Int>) -> (Tensor<3>, Tensor<3>) {
        let [n, h, o] = z.dims();
        let weight = (1.0 / n as f64) as f32;
        match &self.targets {
            DeviceTargets::Classes(classes) => {
                let classes = classes.clone().select(0, samples).reshape([n, 1, 1]);
                let shifted = z.clone() - z.max_dim(2);
                let right = shifted.clone().gather(2, classes.clone().expand([n, h, 1]));
                let exponentials = shifted.exp();
                let sum = exponentials.clone().sum_dim(2);
                let places = Tensor::<1, Int>::arange(0..o as i64, &self.device).reshape([1, 1, o]);
                let is_right = places.expand([n, 1, o]).equal(classes.expand([n, 1, o]));
                let is_right = is_right.float().cast(FloatDType::F32) * weight;
                (sum.clone().log() - right, exponentials * (sum.recip() * weight) - is_right)
            }
            DeviceTargets::Labels(labels) => {
                let applies = labels.clone().select(0, samples).reshape([n, 1, o]);
                let small = z.clone().abs().neg().exp();
                let wrong = z.clone() * (applies.clone() * -2.0 + 1.0);
                let loss = (small.clone().log1p() + wrong.clamp_min(0.0)).sum_dim(2) / o as f32;
                let sigmoid = small.clone().mask_fill(z.greater_equal_elem(0.0), 1.0) / (small + 1.0);
                (loss, (sigmoid - applies) * weight / o as f32)
            }
            DeviceTargets::Values(values) => {
                let error = z.narrow(2, 0, 1) - values.clone().select(0, samples).reshape([n, 1, 1]);
                (error.clone() * error.clone(), error * (2.0 * weight))
            }
        }
    }

    /// Moves the parameters against gradients [heads, learnt], as [`Optimizer::step`] does.
    fn update(&mut self, gradient: Tensor<2>, rates: Tensor<2>, momentum: Option<f64>) {
        self.steps = self.steps.saturating_add(1);
        let (learnt, all) = (self.layout.learnt(), self.layout.len());
        let parameters = self.parameters.clone().narrow(1, 0, learnt);
        let single = |factor: Tensor<2>| factor.cast(FloatDType::F32);
        let moved = match self.optimizer {
            Optimizer::Adamw { betas, eps, weight_decay } => {
                let beta1 = momentum.unwrap_or(betas[0]);
                let [bias1, bias2] = [beta1, betas[1]].map(|beta| 1.0 - beta.powi(self.steps));
                let new1 = (1.0 - beta1) as f32;
                let (old2, new2) = (betas[1] as f32, (1.0 - betas[1]) as f32);
                self.first = self.first.clone() + (gradient.clone() - self.first.clone()) * new1;
                self.second = self.second.clone() * old2 + gradient.clone() * gradient * new2;
                let keep = single(rates.clone() * -weight_decay + 1.0);
                let size = single(rates / bias1);
                let root = bias2.sqrt().recip() as f32;
                let divisor = self.second.clone().sqrt() * root + eps as f32;
                parameters * keep - self.first.clone() / divisor * size
            }
            Optimizer::Sgd { momentum: usual, weight_decay } => {
                let momentum = momentum.unwrap_or(usual) as f32;
                let decayed = gradient + parameters.clone() * weight_decay as f32;
                self.first = self.first.clone() * momentum + decayed;
                parameters - self.first.clone() * single(rates)
            }
        };
        self.parameters = match learnt == all {
            true => moved,
            false => Tensor::cat(vec![moved, self.parameters.clone().narrow(1, learnt, all - learnt)], 1),
        };
    }

    fn heads(&self) -> Result<Heads> {
        let numbers = |tensor: &Tensor<2>| -> Result<Vec<f32>> {
            Ok(download(tensor.clone())?.into_iter().map(|number| number as f32).collect())
        };
        let parameters = numbers(&self.parameters)?;
        let mut running = RunningStatistics::new(self.layout.width, self.eps);
        running.mean = numbers(&self.running[0])?.into();
        running.variance = numbers(&self.running[1])?.into();
        let parameters = parameters.chunks_exact(self.layout.len()).map(<[f32]>::to_vec).collect();
        Ok(Heads { layout: self.layout, parameters, running })
    }

    /// [rates, steps].
    fn losses_so_far(&self) -> Result<Array2<f32>> {
        let (steps, heads) = (self.losses.len(), self.rates.len());
        if steps == 0 {
            return Ok(Array2::zeros((heads, 0)));
        }
        let losses = download(Tensor::cat(self.losses.clone(), 0))?;
        let losses = Array2::from_shape_vec((steps, heads), losses).map_err(failure)?;
        Ok(losses.t().mapv(|loss| loss as f32))
    }
}
