//! Random numbers and random fields that are the same on every machine.
//!
//! Uses only additions, multiplications, divisions, square roots and rounding to integers: IEEE 754 defines their
//! results to the last bit, while sine, exponential and logarithm differ between libraries.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// A stream of random numbers, named by its purpose. A copy repeats the same numbers.
#[derive(Clone)]
pub struct Random(ChaCha8Rng);

impl Random {
    /// Returns the stream of that name.
    pub fn named(name: &str) -> Self {
        Random(ChaCha8Rng::from_seed(*blake3::hash(name.as_bytes()).as_bytes()))
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f32 {
        unit(self.0.next_u32())
    }

    /// Uniform in [`low`, `high`).
    pub fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// Returns true with this probability.
    pub fn chance(&mut self, probability: f32) -> bool {
        self.unit() < probability
    }

    /// Picks one of `items`, of which there must be at least one.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        choose(items, self.unit())
    }

    /// Approximately standard normal, within ±3.5: the standardised sum of four uniform bytes, whose mean is 510 and whose
    /// variance is 4 (256² - 1) / 12.
    pub fn normal(&mut self) -> f32 {
        let sum: u32 = self.0.next_u32().to_le_bytes().into_iter().map(u32::from).sum();
        (sum as f32 - 510.0) / 147.8
    }

    /// A unit vector, all directions equally likely.
    pub fn direction(&mut self) -> (f32, f32) {
        loop {
            let (x, y) = (self.between(-1.0, 1.0), self.between(-1.0, 1.0));
            let length = (x * x + y * y).sqrt();
            if (0.1..=1.0).contains(&length) {
                return (x / length, y / length);
            }
        }
    }

    /// Makes a new random field.
    pub fn noise(&mut self) -> Noise {
        Noise(self.0.next_u32())
    }
}

/// A random field over the plane.
#[derive(Debug, Clone, Copy)]
pub struct Noise(u32);

impl Noise {
    /// Uniform in [0, 1), independent for each lattice point.
    pub fn at(self, i: i32, j: i32) -> f32 {
        // Two odd multipliers separate neighbours; the rest is the finaliser of MurmurHash3 [Appleby, public domain].
        let mut bits = self.0 ^ (i as u32).wrapping_mul(0x9E37_79B1) ^ (j as u32).wrapping_mul(0x7FEB_352D);
        bits = (bits ^ (bits >> 16)).wrapping_mul(0x85EB_CA6B);
        bits = (bits ^ (bits >> 13)).wrapping_mul(0xC2B2_AE35);
        unit(bits ^ (bits >> 16))
    }

    /// Smooth in [-1, 1] with bumps about one unit wide.
    pub fn smooth(self, x: f32, y: f32) -> f32 {
        let (left, top) = (x.floor(), y.floor());
        let (i, j) = (left as i32, top as i32);
        let (across, down) = (ease(x - left), ease(y - top));
        let upper = mix(self.at(i, j), self.at(i.wrapping_add(1), j), across);
        let lower = mix(self.at(i, j.wrapping_add(1)), self.at(i.wrapping_add(1), j.wrapping_add(1)), across);
        2.0 * mix(upper, lower, down) - 1.0
    }

    /// Sums [`Noise::smooth`] at `count` scales, each half as wide and half as high as the previous one; in [-1, 1].
    pub fn octaves(self, x: f32, y: f32, count: u32) -> f32 {
        let (mut sum, mut height, mut total, mut scale) = (0.0, 1.0, 0.0, 1.0);
        for octave in 0..count {
            sum += height * Noise(self.0.wrapping_add(octave)).smooth(x * scale, y * scale);
            total += height;
            height *= 0.5;
            scale *= 2.0;
        }
        sum / total
    }
}

/// Interpolates from `a` at 0 to `b` at 1.
pub fn mix(a: f32, b: f32, share: f32) -> f32 {
    a + (b - a) * share
}

/// Returns the item at the relative `position` in [0, 1) of `items`, of which there must be at least one.
pub fn choose<T: Copy>(items: &[T], position: f32) -> T {
    let index = (position * items.len() as f32) as usize;
    items[index.min(items.len() - 1)]
}

/// Rises smoothly from 0 at 0 to 1 at 1, with zero slope at both ends.
fn ease(t: f32) -> f32 {
    t * t * (3.0 - 2.0 * t)
}

fn unit(bits: u32) -> f32 {
    (bits >> 8) as f32 / (1 << 24) as f32
}
