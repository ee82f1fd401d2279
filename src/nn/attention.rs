//! Multi-head attention: softmax(q kᵀ scale + bias) v per head.
//!
//! On the CPU and without gradients it is a kernel of its own. Heads stay side by side, as the linear layers around it have
//! them, so that nothing is copied; and exponentials are computed with vector instructions. Burn's attention calls the scalar
//! function per logit, which took most of the time of small models with many tokens, and wants each head by itself.
//!
//! n is the number of images, t the number of tokens, d the width, c = d / heads.

use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use rayon::prelude::*;

use super::kernels::autocast;
use super::kernels::flex::matrix::MatrixLayout;
use super::kernels::flex::packed::multiply_changing;
use crate::device;

/// Logits computed at once: 512 KiB, which the second level of a core's cache holds.
const LOGITS: usize = 1 << 17;

/// Fewest and most queries computed at once, if there are so many.
const QUERIES: [usize; 2] = [32, 256];

/// What the logits are before the softmax, besides products of queries and keys.
#[derive(Debug, Clone, Default)]
pub struct Logits {
    /// Factor of the products; 1 / sqrt(c) if it is `None`.
    pub scale: Option<f64>,
    /// Added to the logits: [m, 1 or heads, queries, t], of which each image gets one.
    pub bias: Option<Tensor<4>>,
    /// Which one image i gets: entry i mod the length, which divides n; number i mod m if it is empty.
    pub kinds: Vec<usize>,
}

impl Logits {
    /// Only a bias.
    pub fn biased(bias: Tensor<4>) -> Self {
        Logits { bias: Some(bias), ..Logits::default() }
    }

    /// The number of the bias of each image in turn, given that there are m.
    fn numbers(&self, m: usize) -> Vec<usize> {
        if self.kinds.is_empty() { (0..m).collect() } else { self.kinds.clone() }
    }
}

/// Attention of queries, keys and values side by side, [n, t, 3 d]: of the first `queries` tokens to all, [n, queries, d].
pub fn of_packed(qkv: Tensor<3>, heads: usize, queries: usize, logits: Logits) -> Tensor<3> {
    let [n, t, whole] = qkv.dims();
    let d = whole / 3;
    let device = qkv.device();
    if !is_here(&device, &qkv) {
        let part = |i: usize| qkv.clone().slice_dim(2, i * d..(i + 1) * d);
        return composed([part(0).slice_dim(1, 0..queries), part(1), part(2)], heads, logits);
    }
    let data = qkv.into_data();
    // The type was checked.
    let values = data.as_slice::<f32>().unwrap_or_default();
    let rows = |i: usize| Rows { values, first: i * d, row: whole, image: t * whole };
    let shape = Shape { n, queries, t, heads, c: d / heads };
    kernel([rows(0), rows(1), rows(2)], shape, logits, &device)
}

/// Attention of queries [n, queries, d] to keys [n, t, d] with values [n, t, d]: [n, queries, d].
pub fn attention(q: Tensor<3>, k: Tensor<3>, v: Tensor<3>, heads: usize, logits: Logits) -> Tensor<3> {
    let ([n, queries, d], [_, t, _]) = (q.dims(), k.dims());
    let device = q.device();
    if ![&q, &k, &v].into_iter().all(|tensor| is_here(&device, tensor)) {
        return composed([q, k, v], heads, logits);
    }
    let data = [q, k, v].map(Tensor::into_data);
    // The type was checked.
    let [q, k, v] = data.each_ref().map(|data| data.as_slice::<f32>().unwrap_or_default());
    let shape = Shape { n, queries, t, heads, c: d / heads };
    let rows = |values, count| Rows { values, first: 0, row: d, image: count * d };
    kernel([rows(q, queries), rows(k, t), rows(v, t)], shape, logits, &device)
}

/// Whether the kernel can compute with it: in the program's memory, in float32, without gradients.
fn is_here(device: &Device, tensor: &Tensor<3>) -> bool {
    device::is_host(device) && !device.is_autodiff() && tensor.dtype() == DType::F32
}

/// The same, composed of the backend's operations.
fn composed(qkv: [Tensor<3>; 3], heads: usize, logits: Logits) -> Tensor<3> {
    let [n, queries, d] = qkv[0].dims();
    let [q, k, v] = qkv.map(|x| {
        let [n, t, d] = x.dims();
        x.reshape([n, t, heads, d / heads]).swap_dims(1, 2) // [n, heads, t, c]
    });
    let t = k.dims()[2];
    let bias = logits.bias.as_ref().map(|bias| {
        let [m, each, ..] = bias.dims();
        let numbers: Vec<i32> = logits.numbers(m).into_iter().map(|number| number as i32).collect();
        let count = numbers.len();
        let numbers = Tensor::<1, Int>::from_data(TensorData::new(numbers, [count]), &bias.device());
        let bias = bias.clone().select(0, numbers).unsqueeze::<5>(); // [1, count, each, queries, t]
        bias.expand([n / count, count, each, queries, t]).reshape([n, each, queries, t])
    });
    let options = AttentionModuleOptions { scale: logits.scale, ..Default::default() };
    let x = autocast::attention(q, k, v, bias, options);
    x.swap_dims(1, 2).reshape([n, queries, d])
}

#[derive(Debug, Clone, Copy)]
struct Shape {
    n: usize,
    queries: usize,
    t: usize,
    heads: usize,
    c: usize,
}

/// Vectors of tokens in memory: those of token i of an image start at first + image * number + row * i.
#[derive(Debug, Clone, Copy)]
struct Rows<'a> {
    values: &'a [f32],
    first: usize,
    row: usize,
    image: usize,
}

impl Rows<'_> {
    /// The vectors of one head of `count` tokens of an image, from token `start` on.
    fn head(&self, image: usize, head: usize, start: usize, count: usize, c: usize) -> MatrixLayout {
        let first = self.first + image * self.image + start * self.row + head * c;
        MatrixLayout { start: first, rows: count, columns: c, row: self.row, column: 1 }
    }
}

/// Biases in memory, [m, each, queries, t], and which of them each image gets in turn.
struct Biases {
    data: TensorData,
    each: usize,
    numbers: Vec<usize>,
}

fn kernel(qkv: [Rows; 3], shape: Shape, logits: Logits, device: &Device) -> Tensor<3> {
    let Shape { n, queries, t, heads, c } = shape;
    let biases = logits.bias.as_ref().map(|bias| {
        let [m, each, ..] = bias.dims();
        Biases { data: bias.clone().into_data().convert::<f32>(), each, numbers: logits.numbers(m) }
    });
    let biases: Option<(&[f32], usize, &[usize])> = biases
        .as_ref()
        .map(|biases| (biases.data.as_slice().unwrap_or_default(), biases.each, &biases.numbers[..]));
    // That of an image, a head and the queries from `start` on.
    let bias = |image: usize, head: usize, start: usize, count: usize| {
        biases.map(|(values, each, numbers)| {
            let number = numbers[image % numbers.len()];
            let first = ((number * each + head % each) * queries + start) * t;
            &values[first..first + count * t]
        })
    };
    let scale = logits.scale.unwrap_or_else(|| (c as f64).sqrt().recip()) as f32;
    let d = heads * c;
    let [fewest, most] = QUERIES;
    let block = (LOGITS / t.max(1)).clamp(fewest, most).min(queries).max(1);
    let arch = pulp::Arch::new();
    let mut out = vec![0.0; n * queries * d];
    out.par_chunks_mut((queries * d).max(1)).enumerate().for_each(|(image, out)| {
        let work = |(number, out): (usize, &mut [f32])| {
            let (start, count) = (number * block, out.len() / d.max(1));
            let mut scores = vec![0.0; count * t];
            let mut sums = vec![0.0; count];
            for head in 0..heads {
                let [q, k, v] = qkv;
                multiply_changing(
                    (&mut scores[..], MatrixLayout::new(count, t)),
                    (q.values, q.head(image, head, start, count, c)),
                    (k.values, k.head(image, head, 0, t, c).transposed()),
                );
                let bias = bias(image, head, start, count);
                arch.dispatch(|| soften(&mut scores, t, scale, bias, &mut sums));
                multiply_changing(
                    (&mut *out, MatrixLayout { start: head * c, rows: count, columns: c, row: d, column: 1 }),
                    (&scores[..], MatrixLayout::new(count, t)),
                    (v.values, v.head(image, head, 0, t, c)),
                );
                for (row, sum) in out.chunks_exact_mut(d.max(1)).zip(&sums) {
                    let inverse = sum.recip();
                    row[head * c..(head + 1) * c].iter_mut().for_each(|value| *value *= inverse);
                }
            }
        };
        out.par_chunks_mut((block * d).max(1)).enumerate().for_each(work);
    });
    Tensor::from_data(TensorData::new(out, [n, queries, d]), device)
}

/// Numbers computed side by side. The order of sums follows from it, not from the processor.
const LANES: usize = 16;

/// Scales rows of `t` logits, adds the bias, and replaces each by e^(logit - the row's largest). `sums` are the rows' sums.
#[inline(always)]
fn soften(scores: &mut [f32], t: usize, scale: f32, bias: Option<&[f32]>, sums: &mut [f32]) {
    for (number, (row, sum)) in scores.chunks_exact_mut(t.max(1)).zip(sums).enumerate() {
        match bias {
            None => row.iter_mut().for_each(|logit| *logit *= scale),
            Some(bias) => {
                for (logit, bias) in row.iter_mut().zip(&bias[number * t..(number + 1) * t]) {
                    *logit = *logit * scale + bias;
                }
            }
        }
        let largest = largest(row);
        *sum = exponentials(row, largest);
    }
}

#[inline(always)]
fn largest(row: &[f32]) -> f32 {
    // A NaN is passed over here, and turns the sum into NaN later.
    let larger = |most: f32, x: f32| if x > most { x } else { most };
    let (chunks, rest) = row.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for (most, x) in lanes.iter_mut().zip(chunk) {
            *most = larger(*most, *x);
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |most, x| larger(most, *x))
}

#[inline(always)]
fn exponentials(row: &mut [f32], largest: f32) -> f32 {
    let (chunks, rest) = row.as_chunks_mut::<LANES>();
    let mut lanes = [0.0_f32; LANES];
    for chunk in chunks {
        for (sum, x) in lanes.iter_mut().zip(chunk) {
            *x = exp(*x - largest);
            *sum += *x;
        }
    }
    let mut sum: f32 = lanes.iter().sum();
    for x in rest {
        *x = exp(*x - largest);
        sum += *x;
    }
    sum
}

/// e^x for x up to 0, within 2e-7 of it; 0 below -87, where float32 loses its precision [Moshier, Cephes, `expf`].
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Adding it rounds to an integer, which its last bits then hold.
    const TO_INTEGER: f32 = 12_582_912.0;
    // ln 2 in two parts, of which the first is exact in few bits.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    const P: [f32; 6] = [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1];
    let shifted = x * std::f32::consts::LOG2_E + TO_INTEGER;
    let n = shifted - TO_INTEGER;
    let r = x - n * LN_2[0] - n * LN_2[1];
    let tail = P[1..].iter().fold(P[0], |sum, p| sum * r + p);
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0_f32.to_bits()));
    if x < -87.0 { 0.0 } else { (tail * r * r + r + 1.0) * power }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise<const D: usize>(shape: [usize; D], seed: usize) -> Tensor<D> {
        let value = |i: usize| ((i * 7919 + seed * 104_729) % 1009) as f32 / 200.0 - 2.5;
        let values = (0..shape.iter().product()).map(value).collect();
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
    }

    #[track_caller]
    fn assert_alike<const D: usize>(found: Tensor<D>, expected: Tensor<D>) {
        assert_eq!(found.dims(), expected.dims());
        let [found, expected] = [found, expected].map(|x| x.into_data().try_into_vec::<f32>().unwrap());
        for (place, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert!((found - expected).abs() < 2e-5, "{place}: expected {expected}, found {found}");
        }
    }

    #[test]
    fn exponentials_are_those_of_the_standard_library() {
        for i in 0..=870_000 {
            let x = -(i as f32) / 10_000.0;
            let (found, expected) = (f64::from(exp(x)), f64::from(x).exp());
            assert!(
                (found - expected).abs() <= 2.5e-7 * expected,
                "e^{x}: expected {expected}, found {found}"
            );
        }
        assert_eq!((exp(0.0), exp(-88.0), exp(f32::NEG_INFINITY)), (1.0, 0.0, 0.0));
        assert!(exp(f32::NAN).is_nan());
    }

    /// Numbers of tokens around the sizes of lanes and blocks.
    #[test]
    fn the_kernel_equals_the_backends_attention() {
        for (n, queries, t, heads, c) in
            [(1, 1, 1, 1, 1), (2, 1, 17, 3, 5), (3, 17, 17, 2, 16), (1, 150, 33, 2, 8), (2, 300, 700, 1, 4)]
        {
            let d = heads * c;
            let (q, k, v) = (noise([n, queries, d], 1), noise([n, t, d], 2), noise([n, t, d], 3));
            let biases = [None, Some(noise([1, heads, queries, t], 4)), Some(noise([n, 1, queries, t], 5))];
            for (scale, bias) in [None, Some(1.0), Some(0.3)].into_iter().zip(biases) {
                let logits = Logits { scale, bias, kinds: Vec::new() };
                let expected = composed([q.clone(), k.clone(), v.clone()], heads, logits.clone());
                assert_alike(attention(q.clone(), k.clone(), v.clone(), heads, logits), expected);
            }
        }
    }

    #[test]
    fn packed_vectors_give_the_same_as_separate_ones() {
        let [n, t, heads, d] = [2, 50, 3, 12];
        let qkv = noise([n, t, 3 * d], 1);
        let [q, k, v] = [0, 1, 2].map(|i| qkv.clone().slice_dim(2, i * d..(i + 1) * d));
        let expected = attention(q.slice_dim(1, 0..7), k, v, heads, Logits::default());
        assert_alike(of_packed(qkv, heads, 7, Logits::default()), expected);
    }

    /// Windows of several images, each with the bias of its place.
    #[test]
    fn biases_repeat_over_the_images() {
        let (q, bias) = (noise([6, 9, 8], 1), noise([3, 2, 9, 9], 2));
        for (kinds, numbers) in [(vec![], [0, 1, 2, 0, 1, 2]), (vec![2, 0], [2, 0, 2, 0, 2, 0])] {
            let logits = |bias: &Tensor<4>, kinds: &[usize]| Logits {
                kinds: kinds.to_vec(),
                ..Logits::biased(bias.clone())
            };
            let found = attention(q.clone(), q.clone(), q.clone(), 2, logits(&bias, &kinds));
            for (image, number) in numbers.into_iter().enumerate() {
                let one = |x: &Tensor<3>| x.clone().slice_dim(0, image..=image);
                let of_image = bias.clone().slice_dim(0, number..=number);
                assert_alike(one(&found), composed([one(&q), one(&q), one(&q)], 2, logits(&of_image, &[])));
            }
            assert_alike(found, composed([q.clone(), q.clone(), q.clone()], 2, logits(&bias, &kinds)));
        }
    }

    #[test]
    fn a_logit_that_is_not_a_number_makes_only_its_own_query_nan() {
        let mut q = vec![1.0_f32; 3 * 4];
        q[5] = f32::NAN;
        let q = Tensor::<3>::from_data(TensorData::new(q, [1, 3, 4]), &Device::flex());
        let k = noise([1, 5, 4], 1);
        let out = attention(q, k.clone(), k, 2, Logits::default()).into_data().try_into_vec::<f32>().unwrap();
        let nan: Vec<usize> = (0..out.len()).filter(|place| out[*place].is_nan()).collect();
        assert_eq!(nan, [4, 5], "the first head of the second query");
    }
}
