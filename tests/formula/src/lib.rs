//! The formula that fills weights and images of the golden outputs: the scripts that ran the originals use the same.
//!
//! A crate of its own, because the tests are compiled without optimisation and models have up to 300 million weights.

/// Element `index` of the golden tensor with `seed`, in [-2, 2). SplitMix64's mixing of both.
#[inline]
pub fn formula(seed: u64, index: usize) -> f64 {
    let mut z = (index as u64).wrapping_add(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    ((z >> 40) as f64 / f64::from(1 << 24) - 0.5) * 4.0
}

/// The seed of a parameter: FNV-1a-64 of its name.
pub fn seed_of(name: &str) -> u64 {
    name.bytes()
        .fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3))
}

/// The first elements of a tensor with this shape, as of an image.
pub fn formula_values(seed: u64, shape: &[usize]) -> Vec<f32> {
    (0..shape.iter().product()).map(|index| formula(seed, index) as f32).collect()
}

/// A parameter filled by the formula: `base` plus `factor` times a quarter of each element.
pub fn formula_weights(name: &str, shape: &[usize], [base, factor]: [f64; 2]) -> Vec<f32> {
    let seed = seed_of(name);
    (0..shape.iter().product()).map(|index| (base + formula(seed, index) / 4.0 * factor) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_formula_is_the_golden_one() {
        assert_eq!(formula_values(1, &[3]), [1.533_243_2, 0.266_246_08, 0.364_758_73]);
        assert_eq!(seed_of("norm.weight"), 0xe45e_8831_76c5_ce0f);
        assert_eq!(
            formula_weights("norm.weight", &[3], [1.0, 0.1]),
            [1.022_225_9, 1.044_751_5, 0.990_687_13]
        );
    }
}
