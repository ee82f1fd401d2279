//! Small blocks of a product of matrices with vector instructions of x86-64.
//!
//! Each sum is taken over the inner index from its start to its end with one fused multiplication and addition per step, so that
//! it depends neither on the block it belongs to nor on the width of the vectors: AVX-512 and AVX2 give the same bits.

use std::mem::MaybeUninit;

/// Numbers of rows and columns of the largest block.
pub(super) const MOST_ROWS: usize = 12;
const MOST_COLUMNS: usize = 32;

/// The sums of a block, row after row.
pub(super) type Tile = [f32; MOST_ROWS * MOST_COLUMNS];

/// The number format of the factors. Both are packed in words of 32 bits, and sums are float32 in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// A float32 a word.
    F32,
    /// A float32 a word, rounded to bfloat16: what [`Format::Bf16`] gives, at the speed of float32.
    Rounded,
    /// Two bfloat16 a word, the first in the lower half.
    Bf16,
}

impl Format {
    /// The words of `inputs` numbers.
    pub(super) fn words(self, inputs: usize) -> usize {
        match self {
            Format::F32 | Format::Rounded => inputs,
            Format::Bf16 => inputs.div_ceil(2),
        }
    }
}

/// The instructions that a block is computed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Instructions {
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16,
}

/// What becomes of a sum before it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The bias is added.
    Plain,
    /// The bias is added, then GELU.
    Gelu,
}

#[cfg(not(target_arch = "x86_64"))]
impl Instructions {
    pub(super) fn best(_: Format) -> Option<Self> {
        None
    }

    pub(super) fn rows(self) -> usize {
        match self {}
    }

    pub(super) fn columns(self) -> usize {
        match self {}
    }

    pub(super) fn block(self, _: usize, _: [&[u32]; 2], _: &[f32], _: Finish, _: &mut Tile) {
        match self {}
    }
}

/// A list of `length` numbers that `fill` writes. To set them to 0 first takes a hundredth of a product's time.
///
/// # Panics
/// If `fill` reports another number of written elements.
pub(super) fn written(length: usize, fill: impl FnOnce(&mut [MaybeUninit<f32>]) -> usize) -> Vec<f32> {
    let mut values = Vec::with_capacity(length);
    assert_eq!(fill(&mut values.spare_capacity_mut()[..length]), length, "not all numbers were written");
    // SAFETY: the capacity is at least this, and by the assertion all of them were written.
    unsafe { values.set_len(length) };
    values
}

/// The same memory, for a function that only writes.
pub(super) fn to_write(values: &mut [f32]) -> &mut [MaybeUninit<f32>] {
    // SAFETY: both types have one layout, and this module writes only numbers.
    unsafe { &mut *(std::ptr::from_mut(values) as *mut [MaybeUninit<f32>]) }
}

/// Rounds numbers to bfloat16, ties to even.
pub(super) fn round(values: &mut [f32]) {
    pulp::Arch::new()
        .dispatch(|| values.iter_mut().for_each(|x| *x = f32::from_bits(rounded(*x) & 0xffff_0000)));
}

/// Rounds numbers to bfloat16, ties to even, and joins each two in a word; the last of an odd number is joined with 0.
pub(super) fn narrow(values: &[f32], words: &mut [u32]) {
    pulp::Arch::new().dispatch(|| {
        let (pairs, last) = values.as_chunks::<2>();
        for (word, [low, high]) in words.iter_mut().zip(pairs) {
            *word = rounded(*low) >> 16 | rounded(*high) & 0xffff_0000;
        }
        if let ([last], Some(word)) = (last, words.get_mut(pairs.len())) {
            *word = rounded(*last) >> 16;
        }
    });
}

/// The bits of a number whose upper half is rounded. NaN stays NaN.
#[inline(always)]
fn rounded(x: f32) -> u32 {
    let bits = x.to_bits();
    let odd = (bits >> 16) & 1;
    if x.is_nan() { bits | 0x0040_0000 } else { bits.wrapping_add(0x7fff + odd) }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256, __m512, __m512bh, __m512i, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps,
        _mm256_setzero_ps, _mm256_storeu_ps, _mm512_dpbf16_ps, _mm512_fmadd_ps, _mm512_loadu_ps,
        _mm512_loadu_si512, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
    };
    use std::mem::transmute;

    use super::{Finish, Format, Instructions, Tile};
    use crate::nn::gelu::gelu_f32;

    impl Instructions {
        /// The fastest that this processor has for a format.
        pub(in super::super) fn best(format: Format) -> Option<Self> {
            let has_avx512 = is_x86_feature_detected!("avx512f");
            match format {
                Format::Bf16 if has_avx512 && is_x86_feature_detected!("avx512bf16") => {
                    Some(Instructions::Avx512Bf16)
                }
                Format::Bf16 => None,
                Format::F32 | Format::Rounded if has_avx512 => Some(Instructions::Avx512),
                Format::F32 | Format::Rounded
                    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") =>
                {
                    Some(Instructions::Avx2)
                }
                Format::F32 | Format::Rounded => None,
            }
        }

        /// The most rows of a block.
        pub(in super::super) fn rows(self) -> usize {
            match self {
                Instructions::Avx2 => 6,
                Instructions::Avx512 | Instructions::Avx512Bf16 => 12,
            }
        }

        /// The columns of a block.
        pub(in super::super) fn columns(self) -> usize {
            match self {
                Instructions::Avx2 => 16,
                Instructions::Avx512 | Instructions::Avx512Bf16 => 32,
            }
        }

        /// Computes a block of `rows` rows: of a, which has a word of each row side by side, and of b, likewise of each column.
        ///
        /// # Panics
        /// If there are more rows than [`Instructions::rows`], or the bias has fewer numbers than there are columns.
        pub(in super::super) fn block(
            self,
            rows: usize,
            [a, b]: [&[u32]; 2],
            bias: &[f32],
            finish: Finish,
            tile: &mut Tile,
        ) {
            macro_rules! with {
                ($kernel:ident, $($rows:literal)*) => {
                    match rows {
                        // SAFETY: `best` gave these instructions because the processor has them.
                        $($rows => unsafe { $kernel::<$rows>(a, b, bias, finish, tile) },)*
                        _ => panic!("a block of {rows} rows"),
                    }
                };
            }
            match self {
                Instructions::Avx2 => with!(avx2, 1 2 3 4 5 6),
                Instructions::Avx512 => with!(avx512, 1 2 3 4 5 6 7 8 9 10 11 12),
                Instructions::Avx512Bf16 => with!(avx512_bf16, 1 2 3 4 5 6 7 8 9 10 11 12),
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    fn avx512<const R: usize>(a: &[u32], b: &[u32], bias: &[f32], finish: Finish, tile: &mut Tile) {
        let mut sums = [[_mm512_setzero_ps(); 2]; R];
        for (a, b) in a.as_chunks::<R>().0.iter().zip(b.as_chunks::<32>().0) {
            // SAFETY: b has 32 words.
            let b =
                unsafe { [_mm512_loadu_ps(b.as_ptr().cast()), _mm512_loadu_ps(b.as_ptr().add(16).cast())] };
            for (sums, a) in sums.iter_mut().zip(a) {
                let a = _mm512_set1_ps(f32::from_bits(*a));
                *sums = [_mm512_fmadd_ps(a, b[0], sums[0]), _mm512_fmadd_ps(a, b[1], sums[1])];
            }
        }
        write_512(sums, bias, finish, tile);
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    fn avx512_bf16<const R: usize>(a: &[u32], b: &[u32], bias: &[f32], finish: Finish, tile: &mut Tile) {
        // SAFETY: both types are 512 bits without invalid values.
        let words = |words: __m512i| unsafe { transmute::<__m512i, __m512bh>(words) };
        let mut sums = [[_mm512_setzero_ps(); 2]; R];
        for (a, b) in a.as_chunks::<R>().0.iter().zip(b.as_chunks::<32>().0) {
            // SAFETY: b has 32 words.
            let b = unsafe {
                [_mm512_loadu_si512(b.as_ptr().cast()), _mm512_loadu_si512(b.as_ptr().add(16).cast())]
            };
            let b = b.map(words);
            for (sums, a) in sums.iter_mut().zip(a) {
                let a = words(_mm512_set1_epi32(a.cast_signed()));
                *sums = [_mm512_dpbf16_ps(sums[0], a, b[0]), _mm512_dpbf16_ps(sums[1], a, b[1])];
            }
        }
        write_512(sums, bias, finish, tile);
    }

    #[target_feature(enable = "avx512f")]
    fn write_512<const R: usize>(sums: [[__m512; 2]; R], bias: &[f32], finish: Finish, tile: &mut Tile) {
        let rows = tile.as_chunks_mut::<32>().0;
        for (row, sums) in rows.iter_mut().zip(sums) {
            // SAFETY: the row has 32 numbers.
            unsafe {
                _mm512_storeu_ps(row.as_mut_ptr(), sums[0]);
                _mm512_storeu_ps(row.as_mut_ptr().add(16), sums[1]);
            }
        }
        rows[..R].iter_mut().for_each(|row| finished(row, bias, finish));
    }

    #[target_feature(enable = "avx2,fma")]
    fn avx2<const R: usize>(a: &[u32], b: &[u32], bias: &[f32], finish: Finish, tile: &mut Tile) {
        let mut sums: [[__m256; 2]; R] = [[_mm256_setzero_ps(); 2]; R];
        for (a, b) in a.as_chunks::<R>().0.iter().zip(b.as_chunks::<16>().0) {
            // SAFETY: b has 16 words.
            let b =
                unsafe { [_mm256_loadu_ps(b.as_ptr().cast()), _mm256_loadu_ps(b.as_ptr().add(8).cast())] };
            for (sums, a) in sums.iter_mut().zip(a) {
                let a = _mm256_set1_ps(f32::from_bits(*a));
                *sums = [_mm256_fmadd_ps(a, b[0], sums[0]), _mm256_fmadd_ps(a, b[1], sums[1])];
            }
        }
        let rows = tile.as_chunks_mut::<16>().0;
        for (row, sums) in rows.iter_mut().zip(sums) {
            // SAFETY: the row has 16 numbers.
            unsafe {
                _mm256_storeu_ps(row.as_mut_ptr(), sums[0]);
                _mm256_storeu_ps(row.as_mut_ptr().add(8), sums[1]);
            }
        }
        rows[..R].iter_mut().for_each(|row| finished(row, bias, finish));
    }

    /// Compiled into the functions above, with their instructions.
    #[inline(always)]
    fn finished<const C: usize>(row: &mut [f32; C], bias: &[f32], finish: Finish) {
        row.iter_mut().zip(&bias[..C]).for_each(|(sum, bias)| *sum += bias);
        if finish == Finish::Gelu {
            row.iter_mut().for_each(|x| *x = gelu_f32(*x));
        }
    }
}
