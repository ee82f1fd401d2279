//! Products with a weight that is packed once and serves for many images.
//!
//! A general product brings both factors into the order in which its innermost loop reads them, every time. With one image at a time
//! that is a tenth of the work for the weight. Here the weight is brought into that order when it is first used, and kept as
//! long as its tensor lives and stays as it is. The bias is added, and GELU applied, while a block of the result is still in the
//! first cache [as BLIS blocks its products: Van Zee and van de Geijn, 2015].

use std::cell::RefCell;
use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError, Weak};

use burn::tensor::Bytes;
use rayon::prelude::*;

use super::matrix::{MatrixLayout, multiply_on_one_thread};
use super::tiles::{Finish, Format, Instructions, MOST_ROWS, Tile, narrow, round, to_write, written};
use crate::device;

/// Products with fewer multiplications are left to the general function.
const FEWEST_MULTIPLICATIONS: usize = 1 << 17;

/// Products with fewer multiplications are not shared out among threads.
const PARALLEL_FROM: usize = 1 << 23;

/// Rows that a thread takes at once, if there are so many: with fewer, reading the weight costs more than multiplying.
const FEWEST_ROWS: usize = 48;

/// Words of rows that are packed at once: half of what the second level of a core's cache holds.
const PACKED_WORDS: usize = 1 << 17;

/// The format of the factors of products in this program.
pub fn format() -> Format {
    match device::rounds_products() {
        false => Format::F32,
        true if Instructions::best(Format::Bf16).is_some() => Format::Bf16,
        true => Format::Rounded,
    }
}

/// A matrix in a tensor's memory: element (i, o) at start + i * row + o * column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    pub start: usize,
    pub inputs: usize,
    pub outputs: usize,
    pub row: usize,
    pub column: usize,
}

/// A weight in the order in which blocks of a product read it.
struct Weight {
    place: Place,
    format: Format,
    instructions: Instructions,
    /// Panels of as many columns as a block has: per step a word of each column, side by side; columns beyond the last are 0.
    panels: Vec<u32>,
}

/// Rows in memory, each `row` numbers behind the one before.
#[derive(Clone, Copy)]
struct Rows<'a> {
    values: &'a [f32],
    count: usize,
    row: usize,
}

/// A bias of 0 for each column of a panel.
const NO_BIAS: [f32; 32] = [0.0; 32];

impl Weight {
    fn new(values: &[f32], place: Place, format: Format, instructions: Instructions) -> Self {
        let mut panels = Vec::new();
        pack_columns(values, place, format, instructions.columns(), &mut panels);
        Weight { place, format, instructions, panels }
    }

    /// Multiplies rows of x [rows, inputs] and finishes them into `out` [rows, outputs]; the bias has a number for each column of all
    /// panels. Returns how many numbers were written.
    fn multiply(&self, x: &[f32], bias: &[f32], finish: Finish, out: &mut [MaybeUninit<f32>]) -> usize {
        let Place { inputs, outputs, .. } = self.place;
        let rows = x.len() / inputs;
        let most = self.instructions.rows();
        let fit = (PACKED_WORDS / self.format.words(inputs).max(1) / most).max(1) * most;
        let work = rows * inputs * outputs;
        let share = match work < PARALLEL_FROM {
            true => rows,
            false => rows.div_ceil(rayon::current_num_threads()).max(FEWEST_ROWS),
        };
        let at_once = (share.div_ceil(most) * most).min(fit).max(1);
        let part = |(x, out): (&[f32], &mut [MaybeUninit<f32>])| {
            let rows = Rows { values: x, count: x.len() / inputs, row: inputs };
            self.part(rows, Some(bias), finish, (out, outputs))
        };
        if at_once >= rows {
            return part((x, out));
        }
        x.par_chunks(at_once * inputs).zip(out.par_chunks_mut(at_once * outputs)).map(part).sum()
    }

    /// The same on the calling thread; rows of the output are as many numbers apart as it says.
    fn part(
        &self,
        x: Rows,
        bias: Option<&[f32]>,
        finish: Finish,
        (out, row): (&mut [MaybeUninit<f32>], usize),
    ) -> usize {
        thread_local! {
            /// The system hands out fresh memory slowly.
            static WORDS: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
        }
        let Place { inputs, outputs, .. } = self.place;
        let (columns, most) = (self.instructions.columns(), self.instructions.rows());
        let steps = self.format.words(inputs);
        let mut words = WORDS.take();
        pack_rows(x, inputs, self.format, most, &mut words);
        let mut tile: Tile = [0.0; _];
        let mut written = 0;
        for (number, panel) in self.panels.chunks_exact(steps * columns).enumerate() {
            let first = number * columns;
            let count = columns.min(outputs - first);
            let bias = bias.map_or(&NO_BIAS[..columns], |bias| &bias[first..first + columns]);
            let blocks = words.chunks(most * steps).zip(out.chunks_mut(most * row));
            for (rows, out) in blocks {
                let height = rows.len() / steps;
                self.instructions.block(height, [rows, panel], bias, finish, &mut tile);
                for (out, sums) in out.chunks_mut(row).zip(tile.chunks_exact(columns).take(height)) {
                    out[first..first + count].write_copy_of_slice(&sums[..count]);
                    written += count;
                }
            }
        }
        WORDS.set(words);
        written
    }
}

/// Packs a matrix in panels of `columns` columns: per step a word of each column, side by side; columns beyond the last are 0.
fn pack_columns(values: &[f32], place: Place, format: Format, columns: usize, panels: &mut Vec<u32>) {
    let Place { start, inputs, outputs, row, column } = place;
    let steps = format.words(inputs);
    panels.clear();
    panels.resize(outputs.div_ceil(columns) * steps * columns, 0);
    let at = |input: usize, output: usize| values[start + input * row + output * column];
    let (mut numbers, mut words) = (vec![0.0; inputs], vec![0; steps]);
    for (number, panel) in panels.chunks_exact_mut((steps * columns).max(1)).enumerate() {
        let first = number * columns;
        let count = columns.min(outputs - first);
        match format {
            Format::F32 | Format::Rounded => {
                let panel: &mut [f32] = bytemuck::cast_slice_mut(panel);
                if row == 1 && count == columns {
                    let column_of = |i: usize| {
                        let start = start + (first + i) * column;
                        &values[start..start + inputs]
                    };
                    match columns {
                        16 => interleave_rows::<f32, 16>(std::array::from_fn(column_of), panel),
                        32 => interleave_rows::<f32, 32>(std::array::from_fn(column_of), panel),
                        _ => unreachable!("blocks have 16 or 32 columns"),
                    }
                } else {
                    for (input, numbers) in panel.chunks_exact_mut(columns).enumerate() {
                        if column == 1 {
                            let start = start + input * row + first;
                            numbers[..count].copy_from_slice(&values[start..start + count]);
                            continue;
                        }
                        let numbers = numbers.iter_mut().take(count).enumerate();
                        numbers.for_each(|(output, x)| *x = at(input, first + output));
                    }
                }
                if format == Format::Rounded {
                    round(panel);
                }
            }
            Format::Bf16 => {
                for output in 0..count {
                    numbers.iter_mut().enumerate().for_each(|(input, x)| *x = at(input, first + output));
                    narrow(&numbers, &mut words);
                    for (step, word) in words.iter().enumerate() {
                        panel[step * columns + output] = *word;
                    }
                }
            }
        }
    }
}

/// Packs rows of x [rows, inputs] in groups of `most`, the last one smaller: per step a word of each row, side by side.
fn pack_rows(x: Rows, inputs: usize, format: Format, most: usize, words: &mut Vec<u32>) {
    let steps = format.words(inputs);
    words.clear();
    words.resize(x.count * steps, 0);
    let mut narrowed = vec![0; if format == Format::Bf16 { most * steps } else { 0 }];
    for (group, words) in words.chunks_mut((most * steps).max(1)).enumerate() {
        let height = words.len() / steps;
        let row = |i: usize| {
            let start = (group * most + i) * x.row;
            &x.values[start..start + inputs]
        };
        match format {
            Format::F32 | Format::Rounded => {
                interleave(|i| bytemuck::cast_slice(row(i)), height, words);
            }
            Format::Bf16 => {
                for (i, narrowed) in narrowed.chunks_exact_mut(steps).take(height).enumerate() {
                    narrow(row(i), narrowed);
                }
                interleave(|i| &narrowed[i * steps..(i + 1) * steps], height, words);
            }
        }
    }
    if format == Format::Rounded {
        round(bytemuck::cast_slice_mut(words));
    }
}

/// Turns `height` rows of words into steps of `height` words.
fn interleave<'a>(row: impl Fn(usize) -> &'a [u32], height: usize, to: &mut [u32]) {
    match height {
        6 => interleave_rows::<u32, 6>(std::array::from_fn(row), to),
        12 => interleave_rows::<u32, 12>(std::array::from_fn(row), to),
        _ => {
            for i in 0..height {
                let to = to.iter_mut().skip(i).step_by(height);
                row(i).iter().zip(to).for_each(|(word, to)| *to = *word);
            }
        }
    }
}

fn interleave_rows<T: Copy, const R: usize>(rows: [&[T]; R], to: &mut [T]) {
    for (step, to) in to.as_chunks_mut::<R>().0.iter_mut().enumerate() {
        for (to, row) in to.iter_mut().zip(rows) {
            *to = row[step];
        }
    }
}

/// A factor [inputs, outputs] in float32 that serves for several products on the calling thread.
pub(crate) struct Factor(Weight);

impl Factor {
    /// Packs a matrix; `None` if this processor has no instructions for blocks.
    ///
    /// # Panics
    /// If the matrix exceeds its slice.
    pub(crate) fn new(values: &[f32], layout: MatrixLayout) -> Option<Self> {
        let MatrixLayout { start, rows: inputs, columns: outputs, row, column } = layout;
        let place = Place { start, inputs, outputs, row, column };
        Some(Factor(Weight::new(values, place, Format::F32, Instructions::best(Format::F32)?)))
    }

    /// Computes output = a * this; each sum depends on its row of a and column of this factor only.
    ///
    /// # Panics
    /// If shapes do not match, rows are not contiguous, or a matrix exceeds its slice.
    pub(crate) fn multiply(&self, (out, to): (&mut [f32], MatrixLayout), (a, of_a): (&[f32], MatrixLayout)) {
        let Place { inputs, outputs, .. } = self.0.place;
        assert!(to.rows == of_a.rows && to.columns == outputs && of_a.columns == inputs, "shapes differ");
        assert!(of_a.column == 1 && to.column == 1 && to.row >= to.columns, "rows are not contiguous");
        if to.rows == 0 || to.columns == 0 {
            return;
        }
        let rows = Rows { values: &a[of_a.start..], count: of_a.rows, row: of_a.row };
        let last = to.start + (to.rows - 1) * to.row + to.columns;
        let out = to_write(&mut out[to.start..last]);
        let written = self.0.part(rows, None, Finish::Plain, (out, to.row));
        assert_eq!(written, to.rows * to.columns, "the output is too small");
    }
}

/// Computes output = a * b on the calling thread, in float32, for factors that change with every image; like
/// [`multiply_on_one_thread`], which does it where this processor has no instructions for blocks or the matrices are small.
///
/// # Panics
/// If shapes do not match, or a matrix exceeds its slice.
pub(crate) fn multiply_changing(
    output: (&mut [f32], MatrixLayout),
    a: (&[f32], MatrixLayout),
    b: (&[f32], MatrixLayout),
) {
    let work = output.1.rows * output.1.columns * a.1.columns;
    let factor = if work < FEWEST_MULTIPLICATIONS { None } else { Factor::new(b.0, b.1) };
    match factor {
        Some(factor) => factor.multiply(output, a),
        None => multiply_on_one_thread(output, a, b),
    }
}

/// The weights that were packed, by the memory of their tensors. An address is not used again as long as there is a weak pointer to it.
static KEPT: LazyLock<Mutex<HashMap<Key, Kept>>> = LazyLock::new(Mutex::default);

type Key = (usize, Place, Format);

struct Kept {
    of: Weak<Bytes>,
    weight: Arc<OnceLock<Weight>>,
}

/// The packed weight of a tensor's memory. Other threads that need it at the same time wait until it is packed.
fn weight_of(bytes: &Arc<Bytes>, place: Place, format: Format) -> Arc<OnceLock<Weight>> {
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (Arc::as_ptr(bytes).addr(), place, format);
    if let Some(found) = kept.get(&key).filter(|found| found.of.strong_count() > 0) {
        return Arc::clone(&found.weight);
    }
    // Tensors that are gone, or whose numbers have changed since, which moves them.
    kept.retain(|_, kept| kept.of.strong_count() > 0);
    let weight = Arc::new(OnceLock::new());
    kept.insert(key, Kept { of: Arc::downgrade(bytes), weight: Arc::clone(&weight) });
    weight
}

/// Multiplies x [rows, inputs] by a weight in a tensor's memory, adds the bias [outputs] and finishes; `None` if the general function
/// is at least as fast, or the processor lacks the instructions.
///
/// # Panics
/// If x or the bias has another size, or the weight leaves its memory.
pub fn multiply(
    x: &[f32],
    (bytes, place): (&Arc<Bytes>, Place),
    bias: &[f32],
    finish: Finish,
) -> Option<Vec<f32>> {
    let Place { inputs, outputs, .. } = place;
    let format = format();
    let instructions = Instructions::best(format)?;
    if inputs == 0 || outputs < instructions.columns() / 2 || x.len() * outputs < FEWEST_MULTIPLICATIONS {
        return None;
    }
    assert!(x.len().is_multiple_of(inputs) && bias.len() == outputs, "sizes differ");
    let kept = weight_of(bytes, place, format);
    let weight = kept.get_or_init(|| Weight::new(bytemuck::cast_slice(bytes), place, format, instructions));
    let mut padded = bias.to_vec();
    padded.resize(outputs.next_multiple_of(instructions.columns()), 0.0);
    Some(written(x.len() / inputs * outputs, |out| weight.multiply(x, &padded, finish, out)))
}

const _: () = assert!(MOST_ROWS == 12, "`interleave` has a case for the number of rows of a block");

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use burn::backend::tensor::FloatTensor;
    use burn::tensor::TensorData;
    use half::bf16;

    use super::super::{Kernels, contiguous};
    use super::{
        Finish, Format, Instructions, KEPT, MatrixLayout, Place, Weight, multiply_changing,
        multiply_on_one_thread, written,
    };
    use crate::nn::gelu::gelu_in_place;
    use crate::nn::kernels::portable;

    type Floats = FloatTensor<Flex>;

    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1000.0 - 1.0).collect()
    }

    fn tensor<const D: usize>(shape: [usize; D], seed: usize) -> Floats {
        Floats::from_data(TensorData::new(numbers(shape.iter().product(), seed), shape))
    }

    fn values(tensor: Floats) -> Vec<f32> {
        contiguous(tensor).storage().to_vec()
    }

    #[track_caller]
    fn assert_close(found: &[f32], expected: &[f32], tolerance: f32) {
        assert_eq!(found.len(), expected.len());
        let largest = expected.iter().fold(1.0_f32, |most, x| most.max(x.abs()));
        for (place, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!((found - expected).abs() <= tolerance * largest, "{place}: {found}, expected {expected}");
        }
    }

    /// Rows, inputs and outputs: around the sizes of blocks, of what is packed at once and of what threads share.
    const SHAPES: [[usize; 3]; 9] = [
        [1, 768, 192],
        [5, 300, 100],
        [12, 129, 97],
        [13, 512, 32],
        [197, 192, 64],
        [131, 257, 513],
        [700, 64, 96],
        [49, 3072, 64],
        [1200, 96, 384],
    ];

    fn all(format: Format) -> Vec<Instructions> {
        let mut all: Vec<Instructions> = Instructions::best(format).into_iter().collect();
        #[cfg(target_arch = "x86_64")]
        if format != Format::Bf16 && all == [Instructions::Avx512] && is_x86_feature_detected!("avx2") {
            all.push(Instructions::Avx2);
        }
        all
    }

    fn product(
        [rows, inputs, outputs]: [usize; 3],
        format: Format,
        instructions: Instructions,
        finish: Finish,
    ) -> Vec<f32> {
        let place = Place { start: 0, inputs, outputs, row: outputs, column: 1 };
        let weight = Weight::new(&numbers(inputs * outputs, 2), place, format, instructions);
        let mut bias = numbers(outputs, 3);
        bias.resize(outputs.next_multiple_of(instructions.columns()), 0.0);
        let x = numbers(rows * inputs, 1);
        written(rows * outputs, |out| weight.multiply(&x, &bias, finish, out))
    }

    #[test]
    fn products_equal_the_general_function_with_all_instructions() {
        for shape @ [rows, inputs, outputs] in SHAPES {
            let (x, weight) = (tensor([rows, inputs], 1), tensor([inputs, outputs], 2));
            let expected = values(portable::biased_product::<Flex>(x, weight, tensor([outputs], 3)));
            let mut first: Option<Vec<f32>> = None;
            for instructions in all(Format::F32) {
                let found = product(shape, Format::F32, instructions, Finish::Plain);
                assert_close(&found, &expected, 1e-5);
                assert_eq!(*first.get_or_insert_with(|| found.clone()), found, "{instructions:?} {shape:?}");
                let mut gelu = found.clone();
                gelu_in_place(&mut gelu);
                assert_eq!(product(shape, Format::F32, instructions, Finish::Gelu), gelu, "{instructions:?}");
            }
        }
    }

    #[test]
    fn products_of_bfloat16_are_those_of_rounded_factors() {
        for shape @ [rows, inputs, outputs] in SHAPES {
            let round = |values: Vec<f32>| -> Vec<f32> {
                values.iter().map(|x| bf16::from_f32(*x).to_f32()).collect()
            };
            let rounded = |shape: [usize; 2], seed| {
                let values = round(numbers(shape[0] * shape[1], seed));
                Floats::from_data(TensorData::new(values, shape))
            };
            let (x, weight) = (rounded([rows, inputs], 1), rounded([inputs, outputs], 2));
            let expected = values(portable::biased_product::<Flex>(x, weight, tensor([outputs], 3)));
            for format in [Format::Rounded, Format::Bf16] {
                for instructions in all(format) {
                    assert_close(&product(shape, format, instructions, Finish::Plain), &expected, 1e-5);
                }
            }
        }
    }

    #[test]
    fn weights_may_be_parts_and_transposed() {
        let whole = tensor([200, 300], 2);
        let x = tensor([2, 40, 150], 1);
        for weight in [
            narrow(&whole, 0, 7, 150),
            narrow(&narrow(&whole, 0, 7, 150), 1, 33, 129),
            turned(&narrow(&whole, 1, 20, 150)),
        ] {
            let bias = tensor([weight.layout().shape()[1]], 3);
            let expected = portable::biased_product::<Flex>(x.clone(), weight.clone(), bias.clone());
            let found = Flex::biased_product(x.clone(), weight, bias);
            assert_eq!(found.layout().shape(), expected.layout().shape());
            assert_close(&values(found), &values(expected), 1e-5);
        }
    }

    fn narrow(x: &Floats, dim: usize, start: usize, length: usize) -> Floats {
        x.clone().with_layout(x.layout().narrow(dim, start, length))
    }

    fn turned(x: &Floats) -> Floats {
        x.clone().with_layout(x.layout().transpose(0, 1))
    }

    #[test]
    fn factors_may_lie_side_by_side_with_others() {
        // As queries, keys and values of two heads: rows of 3 x 2 x 64 numbers.
        let (tokens, width) = (75, 64);
        let row = 6 * width;
        let qkv = numbers(tokens * row, 1);
        let head = |number: usize| MatrixLayout {
            start: number * width,
            rows: tokens,
            columns: width,
            row,
            column: 1,
        };
        for product in [multiply_changing, multiply_on_one_thread] {
            let mut scores = vec![0.0; tokens * tokens];
            let layout = MatrixLayout::new(tokens, tokens);
            product((&mut scores, layout), (&qkv, head(1)), (&qkv, head(3).transposed()));
            let expected = |i: usize, j: usize| -> f32 {
                (0..width).map(|c| qkv[i * row + width + c] * qkv[j * row + 3 * width + c]).sum()
            };
            let all: Vec<f32> = (0..tokens * tokens).map(|at| expected(at / tokens, at % tokens)).collect();
            assert_close(&scores, &all, 1e-5);

            let mut out = vec![7.0; tokens * 2 * width];
            let layout =
                MatrixLayout { start: width, rows: tokens, columns: width, row: 2 * width, column: 1 };
            product((&mut out, layout), (&scores, MatrixLayout::new(tokens, tokens)), (&qkv, head(5)));
            for (i, out) in out.chunks(2 * width).enumerate() {
                assert!(out[..width].iter().all(|x| *x == 7.0), "the other head's part was written");
                for (c, found) in out[width..].iter().enumerate() {
                    let terms = (0..tokens).map(|j| scores[i * tokens + j] * qkv[j * row + 5 * width + c]);
                    let expected: f32 = terms.sum();
                    assert!((found - expected).abs() < 2e-3, "{i}, {c}: {found}, expected {expected}");
                }
            }
        }
    }

    #[test]
    fn a_weight_that_changed_in_place_is_packed_again() {
        let (x, bias) = (tensor([64, 64], 1), tensor([64], 3));
        let mut weight = tensor([64, 64], 2);
        let before = values(Flex::biased_product(x.clone(), weight.clone(), bias.clone()));
        assert_eq!(before, values(Flex::biased_product(x.clone(), weight.clone(), bias.clone())));
        weight.storage_mut::<f32>().iter_mut().for_each(|x| *x = -*x);
        let after = values(Flex::biased_product(x.clone(), weight.clone(), bias.clone()));
        let expected = values(portable::biased_product::<Flex>(x, weight, bias));
        assert_close(&after, &expected, 1e-5);
        assert_ne!(before, after);
    }

    #[test]
    fn weights_that_are_gone_are_forgotten() {
        let (x, bias) = (tensor([64, 64], 1), tensor([64], 3));
        for seed in 0..40 {
            Flex::biased_product(x.clone(), tensor([64, 64], seed), bias.clone());
        }
        let kept = KEPT.lock().unwrap();
        let gone = kept.values().filter(|kept| kept.of.strong_count() == 0).count();
        // Those of other tests that run at the same time may have just ended.
        assert!(gone < 30, "{gone} of {} weights are kept for nothing", kept.len());
    }

    #[test]
    fn one_number_that_is_not_finite_spoils_only_its_own_row() {
        let mut x = numbers(64 * 64, 1);
        x[5 * 64 + 3] = f32::NAN;
        let x = Floats::from_data(TensorData::new(x, [64, 64]));
        let out = values(Flex::biased_product(x, tensor([64, 64], 2), tensor([64], 3)));
        assert!(out.chunks(64).enumerate().all(|(row, out)| out.iter().all(|x| x.is_nan() == (row == 5))));
    }
}
