//! How fast a device does what the protocols do, each checked against the CPU first. For `benches/gpu.sh`.

use std::time::{Duration, Instant};

use burn::tensor::{DType, Device, Tensor, TensorData};
use ndarray::{Array2, s};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::Serialize;

use crate::config::{Distance, UperNetConfig};
use crate::data::{Sample, Target};
use crate::device::{self, Precision};
use crate::home::Home;
use crate::model::config::ModelConfig;
use crate::model::weights::Weights;
use crate::model::{self, Batch, InputSpec};
use crate::nn::heads::layers::Pass;
use crate::nn::heads::upernet::{MapLevel, UperNet};
use crate::nn::kernels::autocast;
use crate::nn::loss::PixelLabels;
use crate::protocol::finetune::Network;
use crate::protocol::knn::{predict, predict_on};
use crate::protocol::{Accelerator, ProtocolConfig};
use crate::score::Targets;
use crate::task::Sensor;
use crate::train::epoch;
use crate::train::gradients::FlatGradients;
use crate::train::optim::{Optimizer, Pace, Rule};
use crate::{Error, Result};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// 1,000 queries among so many train samples of 768 features.
    Neighbours(usize),
    /// Steps of UPerNet on maps of 768 channels, 14 x 14, with labels of 224 x 224 pixels, and so many images per batch.
    Upernet(usize),
    /// Steps of fine-tuning TerraFM-B on images of 224 x 224 pixels, with so many per batch.
    Finetune(usize),
}

/// A figure, and how far the device's result lies from the CPU's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rate {
    /// Queries or images per second.
    pub per_second: f64,
    /// The largest difference from the CPU's result, relative to it; 0 for equal neighbours.
    pub apart: f64,
}

const WIDTH: usize = 768;
const GRID: usize = 14;
const CLASSES: usize = 10;
const QUERIES: usize = 1000;
/// A figure is measured for so long at least, after a first round that is not counted.
const LONG: Duration = Duration::from_secs(3);

/// Measures on the device called `name`.
///
/// # Errors
/// If the device fails, or neighbours differ from the CPU's.
pub fn measure(home: &Home, name: &str, precision: Precision, work: Work) -> Result<Rate> {
    // Training keeps float32 weights.
    let precision = match (work, precision) {
        (Work::Neighbours(_), precision) => precision,
        (_, Precision::Bf16) => {
            autocast::switch(true);
            Precision::F32
        }
        (_, precision) => precision,
    };
    let device = device::with_precision(name, precision)?;
    match work {
        Work::Neighbours(samples) => neighbours(home, name, &device, samples),
        Work::Upernet(images) => upernet(&device, images),
        Work::Finetune(images) => finetune(home, &device, images),
    }
}

/// Numbers from -1 to 1, the same on every machine.
fn noise(rows: usize, seed: u64) -> Array2<f32> {
    let mut numbers = Array2::zeros((rows, WIDTH));
    let rows = numbers.axis_iter_mut(ndarray::Axis(0)).into_par_iter().enumerate();
    rows.for_each(|(row, mut numbers)| {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(row as u64);
        numbers.mapv_inplace(|_: f32| random.random_range(-1.0..1.0));
    });
    numbers
}

fn neighbours(home: &Home, name: &str, device: &Device, samples: usize) -> Result<Rate> {
    let ProtocolConfig::Knn(config) = ProtocolConfig::load(home, "knn")? else {
        return Err(Error::mismatch("the protocol knn is of another kind"));
    };
    let accelerator = Accelerator::always(name, device);
    let (train, queries) = (noise(samples, 1), noise(QUERIES, 2));
    let classes =
        |n: usize| Targets::Classes { classes: (0..n).map(|i| i % CLASSES).collect(), count: CLASSES };
    let few = samples.min(20_000);
    let some = train.slice(s![..few, ..]);
    for distance in [Distance::Cosine, Distance::Euclidean] {
        let config = crate::config::KnnConfig { distance, ..config.clone() };
        let queries = queries.slice(s![..100, ..]);
        let found = predict_on(Some(&accelerator), &config, some, &classes(few), queries)?;
        if found != predict(&config, some, &classes(few), queries)? {
            return Err(Error::device(format!("{name}: neighbours differ from the CPU's ({distance:?})")));
        }
    }
    let labels = classes(samples);
    let rate =
        timed(QUERIES, || predict_on(Some(&accelerator), &config, train.view(), &labels, queries.view()))?;
    Ok(Rate { per_second: rate, apart: 0.0 })
}

/// Things per second, of which a round has `count`.
fn timed<T>(count: usize, mut round: impl FnMut() -> Result<T>) -> Result<f64> {
    round()?;
    let (start, mut rounds) = (Instant::now(), 0);
    while start.elapsed() < LONG {
        round()?;
        rounds += 1;
    }
    Ok((rounds * count) as f64 / start.elapsed().as_secs_f64())
}

/// Steps between which the loss is looked at.
const STEPS: usize = 8;

fn upernet(device: &Device, images: usize) -> Result<Rate> {
    let start = |device: &Device, images: usize| Head::new(&device.clone().autodiff(), images);
    let expected = start(&Device::flex(), 2)?.steps(1)?;
    let found = start(device, 2)?.steps(1)?;
    let mut head = start(device, images)?;
    let rate = timed(STEPS * images, || head.steps(STEPS))?;
    Ok(Rate { per_second: rate, apart: ((found - expected) / expected).abs() })
}

/// A UPerNet in training on maps that stay on the device.
struct Head {
    network: Option<UperNet>,
    optimizer: Optimizer,
    maps: Vec<Tensor<4>>,
    labels: PixelLabels,
    dropout: ChaCha8Rng,
}

impl Head {
    fn new(device: &Device, images: usize) -> Result<Self> {
        let levels = [MapLevel { width: WIDTH, stride: 16 }; 4];
        let network = UperNet::new(&UperNetConfig::default(), &levels, CLASSES, 0, device)?;
        let map = |seed: u64| {
            let numbers = noise(images * GRID * GRID, seed).into_raw_vec_and_offset().0;
            let data = TensorData::new(numbers, [images, WIDTH, GRID, GRID]);
            Tensor::<4>::from_data(data, (device, DType::F32))
        };
        let side = 16 * GRID;
        let labels = ndarray::Array3::from_shape_fn((images, side, side), |(i, y, x)| {
            ((i + y / 32 + x / 32) % CLASSES) as i32
        });
        let labels = PixelLabels::new(labels.view(), CLASSES, Some(255), device)?;
        let (optimizer, dropout) = (Optimizer::new(Rule::ADAMW), ChaCha8Rng::seed_from_u64(0));
        Ok(Head { network: Some(network), optimizer, maps: (1..=4).map(map).collect(), labels, dropout })
    }

    /// Takes steps and returns the loss of the last.
    fn steps(&mut self, count: usize) -> Result<f64> {
        let mut last = None;
        for _ in 0..count {
            let network = self.network.take().ok_or_else(|| Error::mismatch("a step failed before"))?;
            let logits = network.forward(self.maps.clone(), &mut Pass::Train(&mut self.dropout))?;
            let loss = network.loss(logits, &self.labels);
            let mut gradients = loss.backward();
            last = Some(loss.inner());
            let pace = Pace { learning_rate: 1e-4, momentum: 0.9 };
            self.network = Some(self.optimizer.step(network, &mut gradients, pace));
        }
        value(last)
    }
}

/// Waits for the device.
fn value(loss: Option<Tensor<1>>) -> Result<f64> {
    let loss = loss.map(|loss| loss.into_data().convert::<f32>().try_into_vec::<f32>());
    match loss {
        Some(Ok(loss)) => Ok(loss.into_iter().map(f64::from).sum()),
        _ => Err(Error::device("the device returned no loss")),
    }
}

fn finetune(home: &Home, device: &Device, images: usize) -> Result<Rate> {
    let start = |device: &Device, images| Tuning::new(home, &device.clone().autodiff(), images);
    let expected = start(&Device::flex(), 2)?.steps(1)?;
    let found = start(device, 2)?.steps(1)?;
    let mut tuning = start(device, images)?;
    let rate = timed(STEPS * images, || tuning.steps(STEPS))?;
    Ok(Rate { per_second: rate, apart: ((found - expected) / expected).abs() })
}

/// An encoder in training on images that stay on the device.
struct Tuning {
    network: Option<Network>,
    optimizer: Optimizer,
    batch: Batch,
    samples: Vec<Sample>,
}

impl Tuning {
    fn new(home: &Home, device: &Device, images: usize) -> Result<Self> {
        let config = ModelConfig::load(home, super::self_test::MODEL)?;
        let encoder = model::trainable(&config, &Weights::Random(0), false, device)?;
        let bands = config.sensor(Sensor::S2_L1C)?.bands.as_slice().into();
        let spec = InputSpec::single(Sensor::S2_L1C, bands, config.pooling());
        let channels = spec.images.first().map_or(0, |image| image.channels);
        let side = super::self_test::SIDE;
        let numbers: Vec<f32> = noise((images * channels * side * side).div_ceil(WIDTH), 5)
            .into_raw_vec_and_offset()
            .0
            .into_iter()
            .take(images * channels * side * side)
            .collect();
        let pixels = TensorData::new(numbers, [images, channels, side, side]);
        let pixels = Tensor::<4>::from_data(pixels, (device, DType::F32));
        let batch = spec.batch(vec![(pixels, Default::default())]);
        let sample =
            |i: usize| Sample { name: String::new(), images: Vec::new(), target: Target::Class(i % CLASSES) };
        let network = Network::new(encoder, spec, CLASSES, 0, device);
        let samples = (0..images).map(sample).collect();
        Ok(Tuning { network: Some(network), optimizer: Optimizer::new(Rule::ADAMW), batch, samples })
    }

    /// Takes steps and returns the mean loss of the last.
    fn steps(&mut self, count: usize) -> Result<f64> {
        let mut last = None;
        for _ in 0..count {
            let network = self.network.take().ok_or_else(|| Error::mismatch("a step failed before"))?;
            let logits = network.forward(&self.batch)?;
            let loss = epoch::loss(logits, &self.samples, CLASSES)? / self.samples.len() as f64;
            let mut gradients = loss.backward();
            last = Some(loss.inner());
            let mut gradients = FlatGradients::take(&network, &mut gradients);
            gradients.clip_on_device(1.0);
            let pace = Pace { learning_rate: 1e-5, momentum: 0.9 };
            self.network = Some(self.optimizer.apply(network, gradients, pace));
        }
        value(last)
    }
}
