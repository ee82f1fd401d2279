//! Random weights that are the same on every machine and with any number of threads.

use rand::RngCore;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// Standard deviation of a vision transformer's initial weights [DINO and timm, trunc_normal_(std=.02)].
const STD: f32 = 0.02;

/// Draws initial values of the parameter `name` of a vision transformer: 0 for biases, 1 for norm weights, and otherwise
/// approximately normal values with standard deviation 0.02, bounded at 3.5 standard deviations.
///
/// Every parameter has its own stream of random bits, keyed by the seed and its name, so its values depend on nothing else.
/// The arithmetic is exact except for one rounding, so results do not depend on a maths library.
pub fn random(seed: u64, name: &str, shape: &[usize]) -> Vec<f32> {
    let length = shape.iter().product();
    if name.ends_with(".bias") {
        return vec![0.0; length];
    }
    if shape.len() == 1 {
        return vec![1.0; length];
    }
    let key = blake3::hash(format!("terrabench weights {seed} {name}").as_bytes());
    let mut bits = ChaCha8Rng::from_seed(*key.as_bytes());
    (0..length).map(|_| nearly_normal(bits.next_u64())).collect()
}

/// Returns the sum of four uniform numbers, centred and scaled: close to normal, and bounded.
fn nearly_normal(bits: u64) -> f32 {
    // The sum's variance is 4 (2^16)^2 / 12.
    const SUM_STD: f32 = 37_837.227;
    let sum: u32 = (0..4).map(|i| u32::from((bits >> (16 * i)) as u16)).sum();
    (sum as f32 - 131_070.0) * (STD / SUM_STD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_mean_deviation_and_bounds_of_a_truncated_normal() {
        let values = random(3, "blocks.0.mlp.fc1.weight", &[400, 500]);
        let n = values.len() as f64;
        let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
        let variance = values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n;
        assert!(mean.abs() < 5.0 * 0.02 / n.sqrt(), "mean {mean}");
        assert!((variance.sqrt() - 0.02).abs() < 2e-4, "deviation {}", variance.sqrt());
        let within = |k: f32| values.iter().filter(|v| v.abs() < k * STD).count() as f64 / n;
        assert!((within(1.0) - 0.6827).abs() < 0.02 && (within(2.0) - 0.9545).abs() < 0.01);
        assert!(within(3.5) == 1.0);
    }

    #[test]
    fn values_are_pinned() {
        // A change here changes every number measured with random weights.
        let values = random(0, "cls_token", &[1, 1, 4]);
        assert_eq!(values, [0.002_331_037_5, -0.007_152_744, -0.042_266_84, -0.013_349_287]);
    }

    #[test]
    fn seeds_and_names_differ_and_norms_start_neutral() {
        let values = |seed, name| random(seed, name, &[2, 8]);
        assert_ne!(values(0, "a.weight"), values(1, "a.weight"));
        assert_ne!(values(0, "a.weight"), values(0, "b.weight"));
        assert_eq!(random(0, "norm.weight", &[3]), [1.0; 3]);
        assert_eq!(random(0, "norm.bias", &[3]), [0.0; 3]);
    }
}
