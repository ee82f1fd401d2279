//! Products with a weight that is packed once and serves for many images.
//!
//! A general product brings both factors into the order in which its innermost loop reads them, every time. With one image at a time
//! that is a tenth of the work for the weight. Here the weight is brought into that order when it is first used, and kept as
//! long as its tensor lives and stays as it is. The bias is added, and GELU applied, while a block of the result is still in the
//! first cache [as BLIS blocks its products: Van Zee and van de Geijn, 2015].

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError, Weak};

use burn::tensor::Bytes;
use rayon::prelude::*;

use super::tiles::{Finish, Format, Instructions, MOST_ROWS, Tile, narrow, round};
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

impl Weight {
    fn new(values: &[f32], place: Place, format: Format, instructions: Instructions) -> Self {
        let Place { start, inputs, outputs, row, column } = place;
        let (columns, steps) = (instructions.columns(), format.words(inputs));
        let mut panels = vec![0; outputs.div_ceil(columns) * steps * columns];
        let at = |input: usize, output: usize| values[start + input * row + output * column];
        let (mut numbers, mut words) = (vec![0.0; inputs], vec![0; steps]);
        for (number, panel) in panels.chunks_exact_mut((steps * columns).max(1)).enumerate() {
            let first = number * columns;
            let count = columns.min(outputs - first);
            match format {
                Format::F32 | Format::Rounded => {
                    let panel: &mut [f32] = bytemuck::cast_slice_mut(panel);
                    for (input, numbers) in panel.chunks_exact_mut(columns).enumerate() {
                        let numbers = numbers.iter_mut().take(count).enumerate();
                        numbers.for_each(|(output, x)| *x = at(input, first + output));
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
        Weight { place, format, instructions, panels }
    }

    /// Multiplies rows of x [rows, inputs] and finishes them into `out` [rows, outputs]; the bias has a number for each column of all
    /// panels.
    fn multiply(&self, x: &[f32], bias: &[f32], finish: Finish, out: &mut [f32]) {
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
        if at_once >= rows {
            return self.part(x, bias, finish, out);
        }
        let parts = x.par_chunks(at_once * inputs).zip(out.par_chunks_mut(at_once * outputs));
        parts.for_each(|(x, out)| self.part(x, bias, finish, out));
    }

    /// The same on the calling thread.
    fn part(&self, x: &[f32], bias: &[f32], finish: Finish, out: &mut [f32]) {
        thread_local! {
            /// The system hands out fresh memory slowly.
            static WORDS: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
        }
        let Place { inputs, outputs, .. } = self.place;
        let (columns, most) = (self.instructions.columns(), self.instructions.rows());
        let steps = self.format.words(inputs);
        let mut words = WORDS.take();
        pack(x, inputs, self.format, most, &mut words);
        let mut tile: Tile = [0.0; _];
        for (number, panel) in self.panels.chunks_exact(steps * columns).enumerate() {
            let first = number * columns;
            let count = columns.min(outputs - first);
            let bias = &bias[first..first + columns];
            let blocks = words.chunks(most * steps).zip(out.chunks_mut(most * outputs));
            for (rows, out) in blocks {
                let height = rows.len() / steps;
                self.instructions.block(height, [rows, panel], bias, finish, &mut tile);
                for (out, sums) in out.chunks_exact_mut(outputs).zip(tile.chunks_exact(columns)) {
                    out[first..first + count].copy_from_slice(&sums[..count]);
                }
            }
        }
        WORDS.set(words);
    }
}

/// Packs rows of x [rows, inputs] in groups of `most`, the last one smaller: per step a word of each row, side by side.
fn pack(x: &[f32], inputs: usize, format: Format, most: usize, words: &mut Vec<u32>) {
    let steps = format.words(inputs);
    let rows = x.len() / inputs;
    words.clear();
    words.resize(rows * steps, 0);
    let mut narrowed = vec![0; if format == Format::Bf16 { most * steps } else { 0 }];
    for (x, words) in x.chunks(most * inputs).zip(words.chunks_mut(most * steps)) {
        let height = words.len() / steps;
        match format {
            Format::F32 | Format::Rounded => interleave(bytemuck::cast_slice(x), steps, height, words),
            Format::Bf16 => {
                for (x, narrowed) in x.chunks_exact(inputs).zip(narrowed.chunks_exact_mut(steps)) {
                    narrow(x, narrowed);
                }
                interleave(&narrowed, steps, height, words);
            }
        }
    }
    if format == Format::Rounded {
        round(bytemuck::cast_slice_mut(words));
    }
}

/// Turns `height` rows of `steps` words into steps of `height` words.
fn interleave(rows: &[u32], steps: usize, height: usize, to: &mut [u32]) {
    macro_rules! of_height {
        ($($height:literal)*) => {
            match height {
                $($height => interleave_rows::<$height>(rows, steps, to),)*
                _ => (0..height).for_each(|row| {
                    (0..steps).for_each(|step| to[step * height + row] = rows[row * steps + step]);
                }),
            }
        };
    }
    of_height!(6 12);
}

fn interleave_rows<const R: usize>(rows: &[u32], steps: usize, to: &mut [u32]) {
    let rows: [&[u32]; R] = std::array::from_fn(|row| &rows[row * steps..(row + 1) * steps]);
    for (step, to) in to.as_chunks_mut::<R>().0.iter_mut().enumerate() {
        for (to, row) in to.iter_mut().zip(rows) {
            *to = row[step];
        }
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
    let mut out = vec![0.0; x.len() / inputs * outputs];
    weight.multiply(x, &padded, finish, &mut out);
    Some(out)
}

const _: () = assert!(MOST_ROWS == 12, "`interleave` has a case for the number of rows of a block");

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use burn::backend::tensor::FloatTensor;
    use burn::tensor::TensorData;
    use half::bf16;

    use super::super::{Kernels, contiguous};
    use super::{Finish, Format, Instructions, KEPT, Place, Weight};
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
        let mut out = vec![f32::NAN; rows * outputs];
        weight.multiply(&numbers(rows * inputs, 1), &bias, finish, &mut out);
        out
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
