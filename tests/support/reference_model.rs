//! What tests against the numbers of a published model share: made-up inputs and weights, the preprocessing of
//! Galileo's evaluation, and comparison with every stored number.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use golden_formula::formula_values;
use ndarray::{Array3, Array4, ArrayD, Axis};
use terrabench::home::Home;
use terrabench::model::architecture::Architecture;
use terrabench::model::config::{ModelConfig, SensorInput};
use terrabench::model::encoder::{Batch, Encoder, Want};
use terrabench::model::parameters;
use terrabench::task::Sensor;
use terrabench::task::bands::Band;
use terrabench::train::state;
use terrabench::transform::resize;

use crate::common::fixture;
use crate::golden;

/// The made-up images [n, bands, h, w] with `seed`.
pub fn images(seed: u64, shape: [usize; 4]) -> Array4<f32> {
    let values = formula_values(seed, &shape);
    Array4::from_shape_vec(shape, values).unwrap()
}

/// The made-up values of a parameter by its name in the checkpoint.
pub fn formula_weights(name: &str, shape: &[usize]) -> Vec<f32> {
    let value: [f64; 2] = if name.ends_with("bias") {
        [0.0, 0.02]
    } else if shape.len() == 1 {
        [1.0, 0.1]
    } else {
        [0.0, 0.08]
    };
    golden_formula::formula_weights(name, shape, value)
}

/// The same sensor inputs as in a model's file.
pub fn sensors(sensors: &[(Sensor, &str)]) -> BTreeMap<Sensor, SensorInput> {
    let bands = |names: &str| names.split(' ').map(|band| band.parse().unwrap()).collect();
    sensors
        .iter()
        .map(|(sensor, names)| (*sensor, SensorInput { bands: bands(names), ..Default::default() }))
        .collect()
}

/// The bands of Galileo's Sentinel-2 images, in their order.
pub const SENTINEL2: &str = "B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B10 B11 B12";

/// What Galileo's evaluation does before a model: of images with the bands `stored` those of the sensor, resized to
/// `side` x `side`.
pub fn galileo(images: &Array4<f32>, stored: &str, input: &SensorInput, side: usize) -> Array4<f32> {
    let stored: Vec<Band> = stored.split(' ').map(|band| band.parse().unwrap()).collect();
    let places: Vec<usize> =
        input.bands.iter().map(|band| stored.iter().position(|other| other == band).unwrap()).collect();
    let resized: Vec<Array3<f32>> = images
        .outer_iter()
        .map(|image| resize::bilinear(image.select(Axis(0), &places), side, side, false).unwrap())
        .collect();
    let views: Vec<_> = resized.iter().map(|image| image.view()).collect();
    ndarray::stack(Axis(0), &views).unwrap()
}

/// Images of a sensor on a device.
pub fn batch(sensor: Sensor, input: &SensorInput, images: &Array4<f32>, device: &Device) -> Batch {
    Batch::single(sensor, Arc::from(input.bands.as_slice()), tensor(images, device))
}

pub fn tensor(images: &Array4<f32>, device: &Device) -> Tensor<4> {
    let (n, bands, h, w) = images.dim();
    Tensor::from_data(TensorData::new(images.iter().copied().collect(), [n, bands, h, w]), device)
}

pub fn array<const D: usize>(tensor: Tensor<D>) -> ArrayD<f32> {
    let shape = tensor.dims().to_vec();
    ArrayD::from_shape_vec(shape, tensor.into_data().try_into_vec().unwrap()).unwrap()
}

/// A module filled from a safetensors file of `tests/fixtures/` by names in the checkpoint.
pub fn filled<M: Module>(module: M, file: &str, checkpoint_name: fn(&str) -> String) -> M {
    let stored = golden::floats(file);
    parameters::fill(module, |name, shape| {
        let array = &stored[&checkpoint_name(name)];
        assert_eq!(array.shape(), shape, "{name}");
        Ok(array.iter().copied().collect())
    })
    .unwrap()
}

/// A module filled by the formula.
pub fn made_up<M: Module>(module: M, checkpoint_name: fn(&str) -> String) -> M {
    parameters::fill(module, |name, shape| Ok(formula_weights(&checkpoint_name(name), shape))).unwrap()
}

/// The parameters of the model of `configs/models/<name>.toml` are those of a JSON list, but for those below `left_out`.
/// Returns its configuration.
#[track_caller]
pub fn assert_parameters(name: &str, list: &str, left_out: &str) -> ModelConfig {
    let text = std::fs::read_to_string(fixture(list)).unwrap();
    let expected: Vec<(String, Vec<usize>)> = serde_json::from_str(&text).unwrap();
    let expected: BTreeMap<_, _> =
        expected.into_iter().filter(|(name, _)| !name.starts_with(left_out)).collect();
    let config = ModelConfig::load(&Home::find().unwrap(), name).unwrap();
    let network = Architecture::new(&config.architecture, &config.sensors, &Device::flex()).unwrap();
    assert_eq!(network.parameters().into_iter().collect::<BTreeMap<_, _>>(), expected, "{name}, {list}");
    config
}

/// The slope of a sum over the pooled features along each parameter's gradient is the gradient's length, for every
/// parameter whose checkpoint name is in `names`. `module` is on an autodiff device.
#[track_caller]
pub fn assert_gradients<M: Module + Encoder>(
    module: &M,
    checkpoint_name: fn(&str) -> String,
    batch: &Batch,
    want: Want,
    names: &[&str],
) {
    let loss = |module: &M| -> Tensor<1> {
        let pooled = module.encode(batch, want).unwrap().pooled().unwrap();
        let [n, d] = pooled.dims();
        let weights = formula_values(99, &[n, d]);
        (pooled.clone() * Tensor::from_data(TensorData::new(weights, [n, d]), &pooled.device())).sum()
    };
    let gradients = state::gradients(module, &loss(module).backward());
    let start = state::state(module);
    let mut checked = BTreeSet::new();
    for (name, gradient) in &gradients {
        let theirs = checkpoint_name(name);
        if !names.contains(&theirs.as_str()) {
            continue;
        }
        let length = gradient.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        assert!(length > 1e-2, "{theirs}: the gradient is {length:e}");
        // The sum moves by about a hundredth.
        let step = (1e-2 / length).min(1e-2);
        let at = |step: f64| {
            let mut moved = start.clone();
            let parameter = moved.get_mut(name).unwrap();
            parameter.zip_mut_with(gradient, |x, g| *x += (step * f64::from(*g) / length) as f32);
            let moved = state::load(module.clone(), &moved).unwrap();
            f64::from(loss(&moved).into_data().try_into_vec::<f32>().unwrap()[0])
        };
        let slope = (at(step) - at(-step)) / (2.0 * step);
        assert!((slope - length).abs() < 0.02 * length, "{theirs}: slope {slope}, gradient {length}");
        checked.insert(theirs);
    }
    assert_eq!(checked, names.iter().map(|name| (*name).to_owned()).collect());
}

/// The numbers of a file, and which of them were compared.
pub struct Golden {
    stored: BTreeMap<String, ArrayD<f32>>,
    unseen: BTreeSet<String>,
    /// The largest difference in units of its tolerance, by the first part of the name.
    worst: BTreeMap<String, (f64, f64)>,
}

impl Golden {
    pub fn open(file: &str) -> Self {
        let stored = golden::floats(file);
        Golden { unseen: stored.keys().cloned().collect(), stored, worst: BTreeMap::new() }
    }

    /// Compares with the whole array where that is stored, else with its mean, deviation and first 64 values.
    #[track_caller]
    pub fn check(&mut self, name: &str, found: &ArrayD<f32>, tolerance: f64, of_means: f64) {
        if let Some(expected) = self.stored.get(name).cloned() {
            assert_eq!(found.shape(), expected.shape(), "{name}");
            return self.compare(name, found.iter().copied(), &expected, tolerance);
        }
        let n = found.len() as f64;
        let mean = found.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
        let variance = found.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n;
        let first: Vec<f32> = found.iter().copied().take(64).collect();
        let parts = [
            ("mean", vec![mean as f32], of_means),
            ("std", vec![variance.sqrt() as f32], of_means),
            ("first64", first, tolerance),
        ];
        for (part, found, tolerance) in parts {
            let name = format!("{name}.{part}");
            let expected = self.stored.get(&name).unwrap_or_else(|| panic!("no {name}")).clone();
            self.compare(&name, found.into_iter(), &expected, tolerance);
        }
    }

    /// The root-mean-square difference stays below `tolerance`, too.
    #[track_caller]
    pub fn check_rms(&mut self, name: &str, found: &ArrayD<f32>, tolerance: f64) {
        let expected = &self.stored[name];
        let squares = found.iter().zip(expected).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
        let rms = (squares / expected.len() as f64).sqrt();
        self.note("rms", rms, tolerance);
        assert!(rms < tolerance, "{name} differs by {rms:e} (root mean square), tolerance {tolerance:e}");
    }

    #[track_caller]
    fn compare(
        &mut self,
        name: &str,
        found: impl ExactSizeIterator<Item = f32>,
        expected: &ArrayD<f32>,
        tolerance: f64,
    ) {
        assert_eq!(found.len(), expected.len(), "{name}");
        let differences = found.zip(expected).map(|(a, b)| f64::from((a - b).abs()));
        // Not f64::max, which would pass over a NaN.
        let difference = differences.fold(0.0, |worst, d| if d <= worst { worst } else { d });
        crate::zoo_parity::note(difference);
        self.unseen.remove(name);
        let group = name.split('.').next().unwrap().trim_end_matches(|c: char| c.is_ascii_digit());
        let part = name.rsplit('.').next().filter(|part| ["mean", "std"].contains(part));
        self.note(&[group, part.unwrap_or_default()].join(" "), difference, tolerance);
        assert!(difference <= tolerance, "{name} differs by {difference:e}, tolerance {tolerance:e}");
    }

    fn note(&mut self, group: &str, difference: f64, tolerance: f64) {
        let worst = self.worst.entry(group.trim_end().to_owned()).or_insert((difference, tolerance));
        if difference / tolerance > worst.0 / worst.1 {
            *worst = (difference, tolerance);
        }
    }

    /// Every stored number was compared, but for those whose name begins with `left_out` or has that part. Prints the
    /// largest differences.
    #[track_caller]
    pub fn finish(self, left_out: &str) {
        for (group, (difference, tolerance)) in &self.worst {
            println!("{group}: {difference:.1e} of {tolerance:.0e}");
        }
        let is_left_out =
            |name: &str| name.starts_with(left_out) || name.split('.').any(|part| part == left_out);
        let unseen: Vec<_> = self.unseen.iter().filter(|name| !is_left_out(name)).collect();
        assert!(unseen.is_empty(), "not compared: {unseen:?}");
    }
}

/// Mean and maximum of arrays of one shape: a series' temporal pooling.
pub fn over_dates(dates: &[ArrayD<f32>]) -> [(&'static str, ArrayD<f32>); 2] {
    let views: Vec<_> = dates.iter().map(|date| date.view()).collect();
    let stacked = ndarray::stack(Axis(0), &views).unwrap();
    let max = stacked.map_axis(Axis(0), |values| values.iter().copied().fold(f32::MIN, f32::max));
    [("mean", stacked.mean_axis(Axis(0)).unwrap()), ("max", max)]
}

/// The images of each date of a made-up series [n, dates, bands, h, w] with `seed`.
pub fn series(seed: u64, [n, dates, bands, h, w]: [usize; 5]) -> Vec<Array4<f32>> {
    let all = images(seed, [n * dates, bands, h, w]);
    let of_date = |date: usize| {
        let places: Vec<usize> = (0..n).map(|image| image * dates + date).collect();
        all.select(Axis(0), &places)
    };
    (0..dates).map(of_date).collect()
}
