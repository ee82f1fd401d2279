//! [`Turn`]s of training images and their masks in tensors, for devices other than the CPU, with the arithmetic of [`super::rotate`].

use burn::tensor::{Bool, DType, Device, FloatDType, Int, Tensor, TensorData};

use super::augment::Turn;
use super::on_device::turned;
use crate::{Error, Result};

/// Turns images [n, c, h, w], one turn per image. Pixels that a rotation leaves empty become 0.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use terrabench::transform::augment::{Dihedral, Turn};
/// use terrabench::transform::turn_on_device::turn_images;
///
/// let images = Tensor::<4>::from_floats([[[[1.0, 2.0], [3.0, 4.0]]]], &Device::flex());
/// let flip = Turn { dihedral: Dihedral::FlipHorizontal, degrees: None };
/// let flipped = turn_images(images, &[flip])?.into_data();
/// assert_eq!(flipped.try_to_vec::<f32>().unwrap(), [2.0, 1.0, 4.0, 3.0]);
/// # Ok::<(), terrabench::Error>(())
/// ```
///
/// # Errors
/// If there are not as many turns as images, or images that are not square get different sides.
pub fn turn_images(images: Tensor<4>, turns: &[Turn]) -> Result<Tensor<4>> {
    each(images, turns, |image, grid, degrees| grid.interpolated(image, degrees))
}

/// Turns masks or maps [n, 1, h, w], one turn each. Values are not interpolated; those that a rotation leaves empty become `fill`.
///
/// # Errors
/// Like [`turn_images`].
pub fn turn_masks(masks: Tensor<4>, turns: &[Turn], fill: f32) -> Result<Tensor<4>> {
    each(masks, turns, |mask, grid, degrees| grid.nearest(mask, degrees, fill))
}

fn each(
    images: Tensor<4>,
    turns: &[Turn],
    rotate: impl Fn(Tensor<4>, &Grid, f64) -> Tensor<4>,
) -> Result<Tensor<4>> {
    let n = images.dims()[0];
    if turns.len() != n {
        return Err(Error::mismatch(format!("expected a turn per image, found {} of {n}", turns.len())));
    }
    if turns.iter().all(|turn| *turn == Turn::NONE) {
        return Ok(images);
    }
    let mut grid: Option<Grid> = None;
    let mut done: Vec<Tensor<4>> = Vec::with_capacity(n);
    for (place, turn) in turns.iter().enumerate() {
        let mut image = turned(images.clone().narrow(0, place, 1), turn.dihedral);
        let [_, c, h, w] = image.dims();
        if let Some(degrees) = turn.degrees {
            let fits = grid.take().filter(|grid| grid.size == [h, w]);
            let own = fits.unwrap_or_else(|| Grid::new([h, w], &image.device()));
            image = rotate(image, &own, degrees);
            grid = Some(own);
        }
        if let Some(first) = done.first().map(Tensor::dims)
            && first != [1, c, h, w]
        {
            return Err(Error::mismatch(format!(
                "expected images of {:?} in this batch, found {:?}",
                &first[1..],
                [c, h, w]
            ))
            .help("all images of a batch must have the same number of bands, height and width"));
        }
        done.push(image);
    }
    Ok(Tensor::cat(done, 0))
}

/// The pixels of an image as distances from its centre, in float64.
struct Grid {
    size: [usize; 2],
    /// [h, 1].
    down: Tensor<2>,
    /// [1, w].
    right: Tensor<2>,
}

/// For each pixel of an image the index of a source pixel [h * w], and where there is none [1, h * w].
struct Source {
    indices: Tensor<1, Int>,
    is_outside: Tensor<2, Bool>,
}

impl Grid {
    fn new([h, w]: [usize; 2], device: &Device) -> Self {
        let line = |length: usize, shape: [usize; 2]| {
            let middle = middle(length);
            let places: Vec<f64> = (0..length).map(|place| place as f64 - middle).collect();
            Tensor::from_data(TensorData::new(places, shape), (device, DType::F64))
        };
        Grid { size: [h, w], down: line(h, [h, 1]), right: line(w, [1, w]) }
    }

    /// Row and column [h, w] of each pixel's source.
    fn places(&self, degrees: f64) -> [Tensor<2>; 2] {
        let (sine, cosine) = degrees.to_radians().sin_cos();
        let (down, right) = (self.down.clone(), self.right.clone());
        [
            right.clone() * sine + down.clone() * cosine + middle(self.size[0]),
            right * cosine - down * sine + middle(self.size[1]),
        ]
    }

    /// The sources at whole rows and columns [h, w].
    fn source(&self, rows: Tensor<2>, columns: Tensor<2>) -> Source {
        let [h, w] = self.size;
        let (last_row, last_column) = ((h - 1) as f64, (w - 1) as f64);
        let outside = |places: &Tensor<2>, last: f64| {
            places.clone().lower_elem(0.0).bool_or(places.clone().greater_elem(last))
        };
        let is_outside = outside(&rows, last_row).bool_or(outside(&columns, last_column));
        let indices = rows.clamp(0.0, last_row) * w as f64 + columns.clamp(0.0, last_column);
        Source { indices: indices.int().reshape([h * w]), is_outside: is_outside.reshape([1, h * w]) }
    }

    /// Rotates an image [1, c, h, w] like [`super::rotate::image`].
    fn interpolated(&self, image: Tensor<4>, degrees: f64) -> Tensor<4> {
        let [_, c, h, w] = image.dims();
        let [rows, columns] = self.places(degrees);
        let (top, left) = (rows.clone().floor(), columns.clone().floor());
        let share = |places: Tensor<2>, floor: &Tensor<2>| (places - floor.clone()).cast(FloatDType::F32);
        let (down, right) = (share(rows, &top), share(columns, &left));
        let rest = |share: &Tensor<2>| share.clone().neg() + 1.0;
        let corners = [
            (0.0, 0.0, rest(&down) * rest(&right)),
            (0.0, 1.0, rest(&down) * right.clone()),
            (1.0, 0.0, down.clone() * rest(&right)),
            (1.0, 1.0, down * right),
        ];
        let image = image.reshape([c, h * w]);
        let parts = corners.map(|(below, beside, weight)| {
            let source = self.source(top.clone() + below, left.clone() + beside);
            let pixels = image.clone().select(1, source.indices) * weight.reshape([1, h * w]);
            pixels.mask_fill(source.is_outside.expand([c, h * w]), 0.0)
        });
        let [a, b, c_, d] = parts;
        (a + b + c_ + d).reshape([1, c, h, w])
    }

    /// Rotates a mask [1, 1, h, w] like [`super::rotate::mask`].
    fn nearest(&self, mask: Tensor<4>, degrees: f64, fill: f32) -> Tensor<4> {
        let [_, c, h, w] = mask.dims();
        let [rows, columns] = self.places(degrees);
        let source = self.source(rows.round(), columns.round());
        let pixels = mask.reshape([c, h * w]).select(1, source.indices);
        pixels.mask_fill(source.is_outside.expand([c, h * w]), fill).reshape([1, c, h, w])
    }
}

/// The centre of a side, which lies between pixels if their number is even.
fn middle(length: usize) -> f64 {
    (length as f64 - 1.0) / 2.0
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, Array3};
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::transform::augment::Dihedral;

    fn turns() -> Vec<Turn> {
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let of = |place: usize| Turn {
            dihedral: Dihedral::ALL[place % 8],
            degrees: (!place.is_multiple_of(3)).then(|| random.random_range(-90.0..=90.0)),
        };
        // Whole quarter turns meet pixels exactly.
        let quarter = Turn { dihedral: Dihedral::Identity, degrees: Some(90.0) };
        (0..16).map(of).chain([quarter]).collect()
    }

    fn on(device: &Device, c: usize, side: usize, numbers: Vec<f32>) -> Tensor<4> {
        let n = numbers.len() / (c * side * side);
        Tensor::from_data(TensorData::new(numbers, [n, c, side, side]), (device, DType::F32))
    }

    fn compare(device: &Device) {
        let mut random = ChaCha8Rng::seed_from_u64(7);
        for side in [1, 5, 24, 31] {
            let mut image =
                || Array3::from_shape_simple_fn((3, side, side), || random.random_range(-2.0..2.0_f32));
            let images: Vec<Array3<f32>> = turns().iter().map(|_| image()).collect();
            let flat = images.iter().flat_map(|image| image.iter().copied()).collect();
            let found = turn_images(on(device, 3, side, flat), &turns()).unwrap();
            let expected =
                images.into_iter().zip(turns()).flat_map(|(image, turn)| turn.image(image).into_iter());
            let found: Vec<f32> = found.into_data().try_into_vec().unwrap();
            for (place, (found, expected)) in found.into_iter().zip(expected).enumerate() {
                assert!((found - expected).abs() <= 2e-6, "{side}: pixel {place}: {found} {expected}");
            }
        }
        // Labels, ignored ones, and numbers that were not measured.
        for fill in [0.0_f32, -1.0] {
            let mut label = |_| {
                if random.random_bool(0.1) { f32::NAN } else { f32::from(random.random_range(-1..9_i16)) }
            };
            let masks: Vec<Array2<f32>> =
                turns().iter().map(|_| Array2::from_shape_fn((24, 24), &mut label)).collect();
            let flat = masks.iter().flat_map(|mask| mask.iter().copied()).collect();
            let found = turn_masks(on(device, 1, 24, flat), &turns(), fill).unwrap();
            let found: Vec<f32> = found.into_data().try_into_vec().unwrap();
            let expected: Vec<f32> = masks
                .into_iter()
                .zip(turns())
                .flat_map(|(mask, turn)| turn.mask(mask, fill).into_iter())
                .collect();
            let same = |(a, b): &(&f32, &f32)| a == b || a.is_nan() && b.is_nan();
            assert_eq!(found.iter().zip(&expected).filter(same).count(), expected.len());
        }
    }

    #[test]
    fn turns_on_a_device_are_those_of_arrays() {
        compare(&Device::flex());
    }

    #[cfg(feature = "libtorch")]
    #[test]
    fn turns_on_libtorch_are_those_of_arrays() {
        compare(&crate::device::by_name("libtorch").unwrap());
    }

    #[test]
    fn nothing_is_brought_in_from_beyond_the_edge() {
        let mut image = Array2::from_elem((8, 8), 1.0_f32);
        image[[0, 0]] = f32::NAN;
        let turn = Turn { dihedral: Dihedral::Identity, degrees: Some(30.0) };
        let expected = turn.image(image.clone().insert_axis(ndarray::Axis(0)));
        let numbers = image.into_raw_vec_and_offset().0;
        let found = turn_images(on(&Device::flex(), 1, 8, numbers), &[turn]).unwrap();
        let found: Vec<f32> = found.into_data().try_into_vec().unwrap();
        let missing =
            |numbers: &mut dyn Iterator<Item = f32>| numbers.filter(|number| number.is_nan()).count();
        assert_eq!(missing(&mut found.into_iter()), missing(&mut expected.into_iter()));
    }

    #[test]
    fn sides_that_differ_are_an_error() {
        let images = Tensor::<4>::zeros([2, 1, 2, 3], &Device::flex());
        let turn = |dihedral| Turn { dihedral, degrees: None };
        let turns = [turn(Dihedral::Identity), turn(Dihedral::Rotate90)];
        let error = turn_images(images.clone(), &turns).unwrap_err().to_string();
        assert!(error.contains("expected images of [1, 2, 3]"), "{error}");
        turn_images(images, &turns[..1]).unwrap_err();
    }
}
