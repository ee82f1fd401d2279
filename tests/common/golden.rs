//! Reference numbers from files.

use std::collections::BTreeMap;

use ndarray::ArrayD;
use safetensors::{Dtype, SafeTensors};

use crate::common::fixture;

/// The float32 arrays of a `.safetensors` file of `tests/fixtures/`.
pub fn floats(name: &str) -> BTreeMap<String, ArrayD<f32>> {
    let bytes = std::fs::read(fixture(name)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let floats = file.tensors().into_iter().filter(|(_, view)| view.dtype() == Dtype::F32);
    let read = |view: safetensors::tensor::TensorView| {
        let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        ArrayD::from_shape_vec(view.shape().to_vec(), values).unwrap()
    };
    floats.map(|(name, view)| (name, read(view))).collect()
}

/// The int64 arrays of the same.
pub fn integers(name: &str) -> BTreeMap<String, ArrayD<i64>> {
    let bytes = std::fs::read(fixture(name)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let integers = file.tensors().into_iter().filter(|(_, view)| view.dtype() == Dtype::I64);
    let read = |view: safetensors::tensor::TensorView| {
        let values = view.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect();
        ArrayD::from_shape_vec(view.shape().to_vec(), values).unwrap()
    };
    integers.map(|(name, view)| (name, read(view))).collect()
}

/// A JSON file of `tests/fixtures/`.
pub fn json(name: &str) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(fixture(name)).unwrap()).unwrap()
}

/// A list of numbers in it; null is NaN.
pub fn numbers(value: &serde_json::Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap_or(f64::NAN)).collect()
}

/// The largest difference of two arrays of one shape.
#[track_caller]
pub fn difference(a: &ArrayD<f32>, b: &ArrayD<f32>) -> f32 {
    assert_eq!(a.shape(), b.shape());
    assert!(!a.is_empty());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, |max, d| if d <= max { max } else { d })
}

#[track_caller]
pub fn close(what: &str, a: &ArrayD<f32>, b: &ArrayD<f32>, tolerance: f32) {
    let difference = difference(a, b);
    assert!(difference <= tolerance, "{what}: differs by {difference:e}, tolerance {tolerance:e}");
}
