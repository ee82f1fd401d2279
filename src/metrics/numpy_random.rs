//! numpy's default random generator, as far as resampling needs it: whole numbers below a limit, from a seed
//! [numpy.random.default_rng: SeedSequence, PCG64 (XSL-RR), bounded integers by Lemire's method].

/// Constants of the seed's mixing [O'Neill, "Developing a seed_seq alternative"; numpy/random/bit_generator.pyx].
const POOL: usize = 4;
const INIT_A: u32 = 0x43b0_d7e5;
const MULTIPLY_A: u32 = 0x931e_8875;
const INIT_B: u32 = 0x8b51_f9dd;
const MULTIPLY_B: u32 = 0x58f3_8ded;
const MIX_LEFT: u32 = 0xca01_f9dd;
const MIX_RIGHT: u32 = 0x4973_f715;

/// Multiplier of the 128-bit linear congruential generator [PCG64].
const STEP: u128 = 0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645;

/// The generator that `numpy.random.default_rng(seed)` gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumpyRandom {
    state: u128,
    increment: u128,
    /// The high half of the last word, used by the next draw.
    left: Option<u32>,
}

impl NumpyRandom {
    /// Starts the generator.
    pub fn new(seed: u64) -> Self {
        let words = state_words(seed);
        let increment = words[1] << 1 | 1;
        let mut random = NumpyRandom { state: 0, increment, left: None };
        random.step();
        random.state = random.state.wrapping_add(words[0]);
        random.step();
        random
    }

    fn step(&mut self) {
        self.state = self.state.wrapping_mul(STEP).wrapping_add(self.increment);
    }

    fn next_u64(&mut self) -> u64 {
        self.step();
        let folded = (self.state >> 64) as u64 ^ self.state as u64;
        folded.rotate_right((self.state >> 122) as u32)
    }

    /// Each 64-bit word gives two 32-bit numbers, its low half first.
    fn next_u32(&mut self) -> u32 {
        if let Some(left) = self.left.take() {
            return left;
        }
        let word = self.next_u64();
        self.left = Some((word >> 32) as u32);
        word as u32
    }

    /// Draws a whole number below `limit`, like `integers(0, limit)`; 0 if `limit` is 0 or 1.
    pub fn below(&mut self, limit: u32) -> u32 {
        if limit <= 1 {
            return 0;
        }
        // 2^32 mod limit: products whose low half is smaller would favour some numbers.
        let unfair = limit.wrapping_neg() % limit;
        loop {
            let product = u64::from(self.next_u32()) * u64::from(limit);
            if product as u32 >= unfair {
                return (product >> 32) as u32;
            }
        }
    }
}

/// Spreads a seed over two numbers: where the generator starts, and its sequence.
fn state_words(seed: u64) -> [u128; 2] {
    let mut hash = INIT_A;
    let mut hashed = |value: u32| {
        let value = value ^ hash;
        hash = hash.wrapping_mul(MULTIPLY_A);
        let value = value.wrapping_mul(hash);
        value ^ value >> 16
    };
    let mix = |a: u32, b: u32| {
        let mixed = a.wrapping_mul(MIX_LEFT).wrapping_sub(b.wrapping_mul(MIX_RIGHT));
        mixed ^ mixed >> 16
    };
    let mut pool = [seed as u32, (seed >> 32) as u32, 0, 0].map(&mut hashed);
    for from in 0..POOL {
        for to in (0..POOL).filter(|to| *to != from) {
            pool[to] = mix(pool[to], hashed(pool[from]));
        }
    }
    let mut hash = INIT_B;
    let words: [u32; 2 * POOL] = std::array::from_fn(|place| {
        let value = pool[place % POOL] ^ hash;
        hash = hash.wrapping_mul(MULTIPLY_B);
        let value = value.wrapping_mul(hash);
        value ^ value >> 16
    });
    // Pairs of words are 64-bit numbers, low half first; pairs of these are 128-bit numbers, high half first.
    let wide = |place: usize| u128::from(words[2 * place]) | u128::from(words[2 * place + 1]) << 32;
    [wide(0) << 64 | wide(1), wide(2) << 64 | wide(3)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// First numbers below a limit, and the sum of as many as 200 resamples of that many rows take.
    fn drawn(seed: u64, limit: u32) -> ([u32; 8], u64) {
        let mut random = NumpyRandom::new(seed);
        let all: Vec<u32> = (0..200 * limit).map(|_| random.below(limit)).collect();
        (std::array::from_fn(|place| all[place]), all.iter().map(|n| u64::from(*n)).sum())
    }

    #[test]
    fn numbers_are_those_of_numpy() {
        let start = NumpyRandom::new(0);
        assert_eq!(start.state, 35_399_562_948_360_463_058_890_781_895_381_311_971);
        assert_eq!(start.increment, 87_136_372_517_582_989_555_478_159_403_783_844_777);
        // numpy 2.4.5: default_rng(0).integers(0, n, (200, n)).
        assert_eq!(drawn(0, 1000), ([850, 636, 511, 269, 307, 40, 75, 16], 99_886_838));
        assert_eq!(drawn(0, 999), ([849, 636, 510, 269, 307, 40, 75, 16], 99_689_643));
        assert_eq!(drawn(0, 986), ([838, 628, 503, 266, 303, 40, 74, 16], 97_118_869));
    }

    #[test]
    fn a_seed_of_two_words_is_that_of_numpy() {
        let mut random = NumpyRandom::new(12_345_678_901_234_567);
        let drawn: [u32; 8] = std::array::from_fn(|_| random.below(1000));
        assert_eq!(drawn, [603, 340, 17, 896, 564, 987, 299, 67]);
    }

    #[test]
    fn nothing_is_drawn_where_there_is_no_choice() {
        let mut random = NumpyRandom::new(1);
        let before = random.clone();
        assert_eq!((random.below(0), random.below(1)), (0, 0));
        assert_eq!(random, before);
    }
}
