//! What the tests of the zoo's models share: the golden numbers' formula, comparisons, gradients.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use ndarray::{Array3, ArrayD};
use terrabench::home::Home;
use terrabench::model::config::ModelConfig;
use terrabench::model::{Architecture, parameters};
use terrabench::task::bands::Band;
use terrabench::transform::resize;

use crate::golden;

use golden_formula::seed_of;
pub use golden_formula::{formula, formula_values, formula_weights};

/// The bands of Galileo's route: Sentinel-2's 13, in the order that its wrappers get.
pub const SLOTS: [Band; 13] = [
    Band::B01,
    Band::B02,
    Band::B03,
    Band::B04,
    Band::B05,
    Band::B06,
    Band::B07,
    Band::B08,
    Band::B8A,
    Band::B09,
    Band::B10,
    Band::B11,
    Band::B12,
];

pub fn device() -> Device {
    Device::flex()
}

/// Formula images as the wrappers of Galileo's route get them, as [n, band, row, column] per date.
///
/// `shape` is [n, rows, columns, dates, bands], the layout that the formula fills; `channels` are the bands to keep.
pub fn images_of_rows(seed: u64, shape: [usize; 5], channels: &[usize]) -> Vec<Tensor<4>> {
    let [n, rows, columns, dates, bands] = shape;
    let date = |date: usize| {
        let mut values = Vec::with_capacity(n * channels.len() * rows * columns);
        for image in 0..n {
            for channel in channels {
                for place in 0..rows * columns {
                    let index = ((image * rows * columns + place) * dates + date) * bands + channel;
                    values.push(formula(seed, index) as f32);
                }
            }
        }
        let shape = [n, channels.len(), rows, columns];
        Tensor::from_data(TensorData::new(values, shape), &device())
    };
    (0..dates).map(date).collect()
}

/// Formula images in the layout [n, band, row, column], with the bands at `channels` kept and resized to `side` as
/// Galileo's wrappers do.
pub fn resized_images(
    seed: u64,
    [n, bands, rows, columns]: [usize; 4],
    channels: &[usize],
    side: usize,
) -> Tensor<4> {
    let pixels = rows * columns;
    let mut values = Vec::with_capacity(n * channels.len() * side * side);
    for image in 0..n {
        let picked = channels.iter().flat_map(|channel| {
            (0..pixels).map(move |place| formula(seed, (image * bands + channel) * pixels + place) as f32)
        });
        let picked = Array3::from_shape_vec((channels.len(), rows, columns), picked.collect()).unwrap();
        values.extend(resize::bilinear(picked, side, side, false).unwrap());
    }
    Tensor::from_data(TensorData::new(values, [n, channels.len(), side, side]), &device())
}

/// The places of bands among [`SLOTS`].
pub fn slots(bands: &[Band]) -> Vec<usize> {
    bands.iter().map(|band| SLOTS.iter().position(|slot| slot == band).unwrap()).collect()
}

pub fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().unwrap()
}

/// The largest difference; NaN if there is a NaN.
pub fn difference(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let differences = found.iter().zip(expected).map(|(a, b)| f64::from((a - b).abs()));
    differences.fold(0.0, |worst, d| if d <= worst { worst } else { d })
}

#[track_caller]
pub fn assert_close(what: &str, found: &[f32], expected: &[f32], tolerance: f64) {
    let difference = difference(found, expected);
    crate::zoo_parity::note(difference);
    println!("{what}: {difference:.1e} of {tolerance:e}");
    assert!(difference <= tolerance, "{what} differs by {difference:e}, more than {tolerance:e}");
}

/// How far outputs may be from the golden ones.
#[derive(Clone, Copy)]
pub struct Tolerance {
    /// Of numbers.
    pub values: f64,
    /// Of means and standard deviations.
    pub summary: f64,
}

/// A file of golden outputs, and which of them were compared.
pub struct Golden {
    tensors: BTreeMap<String, ArrayD<f32>>,
    compared: RefCell<BTreeSet<String>>,
}

impl Golden {
    /// A file of `tests/fixtures/`, or an absolute path.
    pub fn open(file: &str) -> Self {
        Golden { tensors: golden::floats(file), compared: RefCell::default() }
    }

    /// The numbers of one tensor.
    #[track_caller]
    pub fn get(&self, name: &str) -> Vec<f32> {
        self.compared.borrow_mut().insert(name.to_owned());
        self.find(name).unwrap_or_else(|| panic!("no golden `{name}`"))
    }

    fn find(&self, name: &str) -> Option<Vec<f32>> {
        self.tensors.get(name).map(|tensor| tensor.iter().copied().collect())
    }

    /// Compares with everything stored of a tensor: the whole, its first values, its mean and standard deviation.
    #[track_caller]
    pub fn compare(&self, name: &str, found: &[f32], tolerance: Tolerance) {
        self.compare_within(name, found, tolerance, tolerance.values);
    }

    /// Like [`Golden::compare`], with another tolerance for whole tensors stored as `.full`.
    #[track_caller]
    pub fn compare_within(&self, name: &str, found: &[f32], tolerance: Tolerance, full: f64) {
        let n = found.len() as f64;
        let mean = found.iter().map(|value| f64::from(*value)).sum::<f64>() / n;
        let variance = found.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>() / n;
        let mut compared = 0;
        let mut compare = |name: String, found: &[f32], tolerance: f64| {
            if let Some(expected) = self.find(&name) {
                assert_close(&name, found, &expected, tolerance);
                self.compared.borrow_mut().insert(name);
                compared += 1;
            }
        };
        compare(name.to_owned(), found, tolerance.values);
        compare(format!("{name}.full"), found, full);
        compare(format!("{name}.first64"), &found[..found.len().min(64)], tolerance.values);
        compare(format!("{name}.mean"), &[mean as f32], tolerance.summary);
        compare(format!("{name}.std"), &[variance.sqrt() as f32], tolerance.summary);
        assert!(compared > 0, "nothing stored of {name}");
    }

    /// Fails if a stored tensor whose name `counts` was not compared.
    #[track_caller]
    pub fn assert_all_compared(&self, counts: impl Fn(&str) -> bool) {
        let compared = self.compared.borrow();
        let left: Vec<&String> =
            self.tensors.keys().filter(|name| counts(name) && !compared.contains(*name)).collect();
        assert!(left.is_empty(), "never compared: {left:?}");
    }
}

/// The model of `configs/models/<name>.toml`, without weights.
pub fn model(name: &str) -> Architecture {
    let config = ModelConfig::load(&Home::find().unwrap(), name).unwrap();
    Architecture::new(&config.architecture, &config.sensors, &device()).unwrap()
}

/// Checks that a model of `configs/models/` has the parameters of the official file, except those that `left_out`
/// names.
#[track_caller]
pub fn assert_parameters_of(name: &str, file: &str, left_out: impl Fn(&str) -> bool) {
    assert_same_parameters(model(name).parameters(), file, left_out);
}

/// Checks that a module has the parameters of the official file, except those that `left_out` names.
#[track_caller]
pub fn assert_parameters<M: Module>(module: &M, file: &str, left_out: impl Fn(&str) -> bool) {
    assert_same_parameters(parameters::list(module), file, left_out);
}

#[track_caller]
fn assert_same_parameters(found: Vec<(String, Vec<usize>)>, file: &str, left_out: impl Fn(&str) -> bool) {
    let text = std::fs::read_to_string(crate::common::fixture(file)).unwrap();
    let official: Vec<(String, Vec<usize>)> = serde_json::from_str(&text).unwrap();
    let expected: BTreeMap<String, Vec<usize>> =
        official.into_iter().filter(|(name, _)| !left_out(name)).collect();
    let found: BTreeMap<String, Vec<usize>> = found.into_iter().collect();
    assert_eq!(found, expected);
}

/// The weights of a safetensors file of `tests/fixtures/`, by name.
pub type StoredWeights = BTreeMap<String, Vec<f32>>;

pub fn stored_weights(file: &str) -> StoredWeights {
    golden::floats(file).into_iter().map(|(name, tensor)| (name, tensor.iter().copied().collect())).collect()
}

/// Fills a module with weights by name.
pub fn filled<M: Module>(module: M, weights: &StoredWeights) -> M {
    parameters::fill(module, |name, _| Ok(weights[name].clone())).unwrap()
}

/// Compares gradients with finite differences, along one direction per parameter of `names`.
///
/// `new` builds the empty module on a device; `outputs` are what the loss, a weighted sum, is of.
#[track_caller]
pub fn assert_gradients<M: Module>(
    new: impl Fn(&Device) -> M,
    weights: &StoredWeights,
    outputs: impl Fn(&M, &Device) -> Tensor<2>,
    names: &[&str],
) {
    // Far above the loss's rounding, with little curvature.
    assert_gradients_by(0.03, new, weights, outputs, names);
}

/// Like [`assert_gradients`], with steps that change the loss by about `change`: small ones where a ReLU bends it.
#[track_caller]
pub fn assert_gradients_by<M: Module>(
    change: f64,
    new: impl Fn(&Device) -> M,
    weights: &StoredWeights,
    outputs: impl Fn(&M, &Device) -> Tensor<2>,
    names: &[&str],
) {
    let plain = device();
    let autodiff = device().autodiff();
    let module = filled(new(&autodiff), weights);
    let found = outputs(&module, &autodiff);
    let shape = found.dims();
    let factors = formula_values(99, &shape);
    let loss = (found * Tensor::from_data(TensorData::new(factors.clone(), shape), &autodiff)).sum();
    let gradients = gradients(&module, &loss.backward());
    let loss_at = |weights: &StoredWeights| -> f64 {
        let found = numbers(outputs(&filled(new(&plain), weights), &plain));
        found.iter().zip(&factors).map(|(value, factor)| f64::from(*value) * f64::from(*factor)).sum()
    };
    for name in names {
        let gradient = gradients.get(*name).unwrap_or_else(|| panic!("{name} has no gradient"));
        let seed = seed_of(name);
        let direction = formula_values(seed, &[gradient.len()]);
        let analytic: f64 = gradient.iter().zip(&direction).map(|(g, d)| f64::from(*g) * f64::from(*d)).sum();
        let scale =
            gradient.iter().zip(&direction).map(|(g, d)| f64::from(g * d).powi(2)).sum::<f64>().sqrt();
        assert!(scale > 0.0, "{name}: the gradient is zero");
        let step = (change / analytic.abs().max(scale)).min(0.005) as f32;
        let moved = |steps: f32| {
            let mut weights = weights.clone();
            let values = weights.get_mut(*name).unwrap();
            values.iter_mut().zip(&direction).for_each(|(value, d)| *value += steps * step * d);
            loss_at(&weights)
        };
        let [near, far] = [1.0, 2.0].map(|steps| moved(steps) - moved(-steps));
        // Fourth order in the step.
        let numeric = (8.0 * near - far) / (12.0 * f64::from(step));
        println!("{name}: gradient {analytic:.5} (scale {scale:.3}), finite difference {numeric:.5}");
        let allowed = 1e-2 * (scale + analytic.abs());
        assert!(
            (numeric - analytic).abs() <= allowed,
            "{name}: gradient {analytic}, finite difference {numeric}"
        );
    }
}

/// Gradients by the names and in the layout of the official file.
fn gradients<M: Module>(module: &M, gradients: &Gradients) -> StoredWeights {
    collect(module, Some(gradients))
}

/// The parameters of a module by the names and in the layout of the official file.
pub fn weights_of<M: Module>(module: &M) -> StoredWeights {
    collect(module, None)
}

/// The parameters, or their gradients.
fn collect<M: Module>(module: &M, gradients: Option<&Gradients>) -> StoredWeights {
    struct Collect<'a> {
        gradients: Option<&'a Gradients>,
        path: Vec<(String, String)>,
        found: StoredWeights,
    }
    impl ModuleVisitor for Collect<'_> {
        fn enter_module(&mut self, name: &str, container: &str) {
            let name = match (container, name) {
                ("Struct:LayerNorm", "gamma") => "weight",
                ("Struct:LayerNorm", "beta") => "bias",
                _ => name,
            };
            self.path.push((name.to_owned(), container.to_owned()));
        }

        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let values = match self.gradients {
                None => Some(param.val()),
                Some(gradients) => param.val().grad(gradients),
            };
            let Some(mut values) = values else { return };
            if self.path.last().is_some_and(|(name, of)| name == "weight" && of == "Struct:Linear") {
                values = values.transpose();
            }
            let fields = self.path.iter().filter(|(_, of)| !of.starts_with("Enum:"));
            let name: Vec<&str> = fields.map(|(name, _)| name.as_str()).collect();
            self.found.insert(name.join("."), numbers(values));
        }
    }
    let mut collect = Collect { gradients, path: Vec::new(), found: BTreeMap::new() };
    module.visit(&mut collect);
    collect.found
}
