//! Made-up weights and inputs that both sides compute with, and what they answered, in safetensors files.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

/// Float32 tensors by name, with their shapes.
pub type Tensors = Vec<(String, Vec<usize>, Vec<f32>)>;

/// Pseudo-random numbers in -1..1 that depend on `name` alone.
pub fn noise(name: &str, count: usize) -> Vec<f32> {
    let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3);
    let mut state = name.bytes().fold(0xCBF2_9CE4_8422_2325, hash) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 40) as f32) / 8_388_608.0 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Weights of about the size of trained ones: norms near 1, biases near 0.
pub fn weights(name: &str, shape: &[usize]) -> Vec<f32> {
    let mut values = noise(name, shape.iter().product());
    let scale: fn(f32) -> f32 = match shape.len() {
        _ if name.ends_with("bias") => |v| 0.02 * v,
        0 | 1 => |v| 1.0 + 0.1 * v,
        _ => |v| 0.04 * v,
    };
    values.iter_mut().for_each(|value| *value = scale(*value));
    values
}

/// Writes a safetensors file.
pub fn save(tensors: &Tensors, path: &Path) -> Result<()> {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(.., values)| values.iter().flat_map(|value| value.to_le_bytes()).collect())
        .collect();
    let mut views = Vec::new();
    for ((name, shape, _), bytes) in tensors.iter().zip(&bytes) {
        views.push((name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes)?));
    }
    safetensors::serialize_to_file(views, None, path)?;
    Ok(())
}

/// Reads one float32 tensor of a safetensors file.
pub fn load(path: &Path, name: &str) -> Result<Vec<f32>> {
    let bytes = std::fs::read(path).with_context(|| format!("the peer wrote no {}", path.display()))?;
    let stored = SafeTensors::deserialize(&bytes)?;
    let tensor = stored.tensor(name)?;
    ensure!(tensor.dtype() == Dtype::F32, "{name} is {:?}, expected F32", tensor.dtype());
    Ok(tensor.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

/// The largest difference of two lists, relative to the largest number of `theirs`.
pub fn difference(ours: &[f32], theirs: &[f32]) -> Result<f64> {
    ensure!(ours.len() == theirs.len(), "{} numbers of ours, {} of the peer's", ours.len(), theirs.len());
    let largest = theirs.iter().fold(0f32, |most, value| most.max(value.abs()));
    let differences = ours.iter().zip(theirs).map(|(a, b)| f64::from((a - b).abs()));
    // Not f64::max, which would pass over a NaN.
    let worst = differences.fold(0.0, |worst, d| if d <= worst { worst } else { d });
    Ok(worst / f64::from(largest))
}
