//! Normal numbers as PyTorch draws them on the CPU: `torch.randn(count, generator=torch.Generator().manual_seed(seed))`
//! [pytorch, aten/src/ATen/native/cpu/DistributionTemplates.h, ATen/core/MT19937RNGEngine.h].
//!
//! PyTorch approximates logarithm, sine and cosine in float32, differently on different processors. Here each is rounded from
//! float64, so that every machine draws the same numbers; they differ from PyTorch's by at most 2.4e-7.

/// Numbers transformed together. Fewer are drawn by another rule, which nothing here needs.
pub(super) const FEWEST: usize = 16;

/// Draws `count` normal numbers, at least [`FEWEST`].
pub(super) fn normals(seed: u64, count: usize) -> Vec<f32> {
    let mut twister = Twister::new(seed as u32);
    let mut uniform = || (twister.next() & 0x00ff_ffff) as f32 / 16_777_216.0;
    let mut numbers: Vec<f32> = (0..count).map(|_| uniform()).collect();
    numbers.chunks_exact_mut(FEWEST).for_each(transform);
    // The last numbers are drawn again with as many before them as make a whole block.
    if !count.is_multiple_of(FEWEST) && count > FEWEST {
        let last = &mut numbers[count - FEWEST..];
        last.iter_mut().for_each(|number| *number = uniform());
        transform(last);
    }
    numbers
}

/// Turns 16 uniform numbers into normal ones [Box and Muller]: the first half gives radii, the second half angles.
fn transform(block: &mut [f32]) {
    let (radii, angles) = block.split_at_mut(FEWEST / 2);
    for (first, second) in radii.iter_mut().zip(angles) {
        let logarithm = f64::from(1.0 - *first).ln() as f32;
        let radius = (-2.0 * logarithm).sqrt();
        let angle = f64::from(std::f32::consts::TAU * *second);
        *first = radius * angle.cos() as f32;
        *second = radius * angle.sin() as f32;
    }
}

const WORDS: usize = 624;
const DISTANCE: usize = 397;

/// Mersenne twister 19937 [Matsumoto and Nishimura, 1998].
struct Twister {
    words: [u32; WORDS],
    next: usize,
}

impl Twister {
    fn new(seed: u32) -> Self {
        let mut words = [seed; WORDS];
        for i in 1..WORDS {
            let before = words[i - 1];
            words[i] = 1_812_433_253u32.wrapping_mul(before ^ before >> 30).wrapping_add(i as u32);
        }
        Twister { words, next: WORDS }
    }

    fn next(&mut self) -> u32 {
        if self.next == WORDS {
            self.twist();
        }
        let mut word = self.words[self.next];
        self.next += 1;
        word ^= word >> 11;
        word ^= word << 7 & 0x9d2c_5680;
        word ^= word << 15 & 0xefc6_0000;
        word ^ word >> 18
    }

    fn twist(&mut self) {
        for i in 0..WORDS {
            let joined = self.words[i] & 0x8000_0000 | self.words[(i + 1) % WORDS] & 0x7fff_ffff;
            let twisted = joined >> 1 ^ if joined & 1 == 1 { 0x9908_b0df } else { 0 };
            self.words[i] = self.words[(i + DISTANCE) % WORDS] ^ twisted;
        }
        self.next = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PyTorch's own seed, used where none is given.
    const DEFAULT: u64 = 67_280_421_310_721;

    #[test]
    fn words_are_those_of_the_mersenne_twister() {
        // Only the low 32 bits of the seed count.
        let mut twister = Twister::new(DEFAULT as u32);
        let words: Vec<u32> = (0..4).map(|_| twister.next()).collect();
        assert_eq!(words, [2_353_294_710, 1_155_489_284, 4_015_379_837, 3_295_095_820]);
        // The 10,000th word of the default seed in the C++ standard.
        let mut twister = Twister::new(5489);
        let last = (0..10_000).map(|_| twister.next()).last();
        assert_eq!(last, Some(4_123_659_995));
    }

    #[test]
    fn numbers_are_those_of_torch() {
        // torch 2.12.0, golden/baselines.
        let first = [
            -0.173_702_43,
            -1.822_474_8,
            0.779_212_2,
            -1.013_907_6,
            0.883_529_25,
            0.628_634_87,
            -0.253_325_4,
            -2.656_028_3,
        ];
        let numbers = normals(DEFAULT, 46_080);
        for (place, expected) in first.iter().enumerate() {
            assert!((numbers[place] - expected).abs() < 3e-7, "{place}: {}", numbers[place]);
        }
        let (sum, squares) = numbers
            .iter()
            .fold((0.0, 0.0), |(sum, squares), x| (sum + f64::from(*x), squares + f64::from(*x).powi(2)));
        assert!((sum - -101.954_276_776_812_73).abs() < 1e-3, "{sum}");
        assert!((squares - 46_151.913_214_495_136).abs() < 1e-2, "{squares}");
    }

    #[test]
    fn a_rest_overwrites_the_end() {
        let whole = normals(5, 32);
        let rest = normals(5, 37);
        assert_eq!(rest[..21], whole[..21]);
        assert!(rest[21..32].iter().zip(&whole[21..32]).all(|(a, b)| a != b));
    }
}
