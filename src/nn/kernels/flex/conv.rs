//! The 3x3 convolution of a map, with or without resizing, as matrix products.
//!
//! Without resizing, the map is copied once with zero padding, so that the neighbour of a pixel in a given direction is a
//! fixed number of cells away for all pixels of the batch. The product of one kernel position with all pixels is then a
//! single matrix product that starts at a shifted offset. The nine products are summed, and the padding cells are cut away.
//!
//! With resizing: resizing mixes pixels and the weights mix channels, so the two commute. The nine products are therefore
//! computed on the small map, which costs (small / large) area, and their results are resized, shifted by the kernel
//! position and summed. That takes two products with matrices of interpolation weights, one along the columns and one along
//! the rows.

use burn::backend::TensorMetadata;
use ndarray::Array2;
use rayon::prelude::*;

use super::Floats;
use super::matrix::{Into, MatrixLayout, multiply};
use crate::nn::resample::{Corners, bilinear};

/// Shapes of a convolution from [n, h, w, i] to [n, height, width, o].
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    n: usize,
    h: usize,
    w: usize,
    i: usize,
    o: usize,
    height: usize,
    width: usize,
}

impl Shape {
    pub fn new(x: &Floats, weight: &Floats, [height, width]: [usize; 2]) -> Self {
        let [n, h, w, i] = x.shape().dims();
        let [rows, columns, from, o] = weight.shape().dims();
        assert_eq!([rows, columns, from], [3, 3, i], "the weight of a 3x3 convolution of {i} channels");
        Shape { n, h, w, i, o, height, width }
    }

    pub fn input(self) -> [usize; 4] {
        [self.n, self.h, self.w, self.i]
    }

    pub fn output(self) -> [usize; 4] {
        [self.n, self.height, self.width, self.o]
    }

    pub fn weight(self) -> [usize; 4] {
        [3, 3, self.i, self.o]
    }

    /// Layout of the [i, o] matrix of one kernel position.
    fn tap(self, row: usize, column: usize) -> MatrixLayout {
        MatrixLayout::new(self.i, self.o).at((3 * row + column) * self.i * self.o)
    }

    fn resizes(self) -> bool {
        [self.h, self.w] != [self.height, self.width]
    }
}

pub fn forward(x: &[f32], weight: &[f32], shape: Shape) -> Vec<f32> {
    if shape.resizes() { resized::forward(x, weight, shape) } else { direct::forward(x, weight, shape) }
}

/// Gradients of x, if wanted, and of the weight.
pub fn backward(
    x: &[f32],
    weight: &[f32],
    gradient: &[f32],
    shape: Shape,
    wants_x: bool,
) -> (Option<Vec<f32>>, Vec<f32>) {
    let backward = if shape.resizes() { resized::backward } else { direct::backward };
    backward(x, weight, gradient, shape, wants_x)
}

mod direct {
    use super::*;

    /// Cells of a padded map: one zero cell after each line (its right padding and the next line's left padding), one zero
    /// line after each image (its bottom padding and the next one's top padding), and one line and one cell before the
    /// first.
    #[derive(Clone, Copy)]
    struct Cells {
        n: usize,
        h: usize,
        w: usize,
    }

    impl Cells {
        fn line(self) -> usize {
            self.w + 1
        }

        /// Number of cells from the first pixel to the last.
        fn span(self) -> usize {
            (self.n * (self.h + 1) - 1) * self.line() - 1
        }

        fn before(self) -> usize {
            self.line() + 1
        }

        /// Offset of the neighbour for a kernel position, relative to the first neighbour.
        fn ahead(self, row: usize, column: usize) -> usize {
            row * self.line() + column
        }

        /// First cells of the lines of pixels, relative to the first pixel.
        fn starts(self) -> impl IndexedParallelIterator<Item = usize> {
            (0..self.n * self.h)
                .into_par_iter()
                .map(move |at| (at / self.h * (self.h + 1) + at % self.h) * self.line())
        }

        fn pad(self, x: &[f32], c: usize) -> Vec<f32> {
            let mut padded = vec![0.0; (self.span() + 2 * self.before()) * c];
            let lines = padded[self.before() * c..].par_chunks_mut(self.line() * c);
            lines.enumerate().for_each(|(line, cells)| {
                let (image, y) = (line / (self.h + 1), line % (self.h + 1));
                if image < self.n && y < self.h {
                    let at = (image * self.h + y) * self.w * c;
                    cells[..self.w * c].copy_from_slice(&x[at..at + self.w * c]);
                }
            });
            padded
        }

        fn cut(self, cells: &[f32], c: usize) -> Vec<f32> {
            let mut pixels = vec![0.0; self.n * self.h * self.w * c];
            let lines = pixels.par_chunks_mut(self.w * c).zip(self.starts());
            lines.for_each(|(line, start)| {
                line.copy_from_slice(&cells[start * c..(start + self.w) * c]);
            });
            pixels
        }
    }

    pub fn forward(x: &[f32], weight: &[f32], shape: Shape) -> Vec<f32> {
        let Shape { n, h, w, i, o, .. } = shape;
        if n * h * w * i * o == 0 {
            return vec![0.0; n * h * w * o];
        }
        let cells = Cells { n, h, w };
        let padded = cells.pad(x, i);
        let mut y = vec![0.0; cells.span() * o];
        for (row, column) in places() {
            let neighbours = MatrixLayout::new(cells.span(), i).at(cells.ahead(row, column) * i);
            multiply(
                (&mut y, MatrixLayout::new(cells.span(), o)),
                after_first(row, column),
                (&padded, neighbours),
                (weight, shape.tap(row, column)),
            );
        }
        cells.cut(&y, o)
    }

    pub fn backward(
        x: &[f32],
        weight: &[f32],
        gradient: &[f32],
        shape: Shape,
        wants_x: bool,
    ) -> (Option<Vec<f32>>, Vec<f32>) {
        let Shape { n, h, w, i, o, .. } = shape;
        let mut for_weight = vec![0.0; 9 * i * o];
        if n * h * w * i * o == 0 {
            return (wants_x.then(|| vec![0.0; n * h * w * i]), for_weight);
        }
        let cells = Cells { n, h, w };
        let padded = cells.pad(x, i);
        let gradient = cells.pad(gradient, o);
        let pixels = MatrixLayout::new(cells.span(), o).at(cells.before() * o);
        for (row, column) in places() {
            let neighbours = MatrixLayout::new(cells.span(), i).at(cells.ahead(row, column) * i);
            multiply(
                (&mut for_weight, shape.tap(row, column)),
                Into::Replace,
                (&padded, neighbours.transposed()),
                (&gradient, pixels),
            );
        }
        let for_x = wants_x.then(|| {
            let mut for_x = padded;
            for (row, column) in places() {
                // A pixel's gradient comes from the outputs that used it, which are on the opposite side.
                let seers = MatrixLayout::new(cells.span(), o).at(cells.ahead(2 - row, 2 - column) * o);
                multiply(
                    (&mut for_x, MatrixLayout::new(cells.span(), i)),
                    after_first(row, column),
                    (&gradient, seers),
                    (weight, shape.tap(row, column).transposed()),
                );
            }
            cells.cut(&for_x, i)
        });
        (for_x, for_weight)
    }
}

mod resized {
    use super::*;

    /// Interpolation weights along one axis per kernel position: [to, from], shifted by the position.
    fn shifted(from: usize, to: usize) -> [Array2<f32>; 3] {
        let resize = bilinear(from, to, Corners::HalfPixel);
        [0, 1, 2].map(|place| {
            Array2::from_shape_fn((to, from), |(at, source)| {
                (at + place).checked_sub(1).and_then(|at| resize.get((at, source)).copied()).unwrap_or(0.0)
            })
        })
    }

    /// The matrices along the columns, with all kernel positions in one: [width, w * 3].
    fn along_columns(shape: Shape) -> Vec<f32> {
        let places = shifted(shape.w, shape.width);
        let at = |index: usize| {
            let (to, source) = (index / (3 * shape.w), index % (3 * shape.w));
            places[source % 3][[to, source / 3]]
        };
        (0..shape.width * 3 * shape.w).map(at).collect()
    }

    /// The matrices along the rows: [height, h] per kernel position.
    fn along_rows(shape: Shape) -> [Vec<f32>; 3] {
        shifted(shape.h, shape.height).map(|place| place.iter().copied().collect())
    }

    /// Layout of one of the three products of a kernel row, which are interleaved per pixel.
    fn product(shape: Shape, column: usize) -> MatrixLayout {
        MatrixLayout::new(shape.n * shape.h * shape.w, shape.o).at(column * shape.o).pitch(3 * shape.o)
    }

    pub fn forward(x: &[f32], weight: &[f32], shape: Shape) -> Vec<f32> {
        let Shape { n, h, w, i, o, height, width } = shape;
        let mut y = vec![0.0; n * height * width * o];
        if n * h * w * i * y.len() == 0 {
            return y;
        }
        let columns = along_columns(shape);
        let mut products = vec![0.0; n * h * w * 3 * o];
        let mut wide = vec![0.0; n * h * width * o];
        for (row, rows) in along_rows(shape).iter().enumerate() {
            for column in 0..3 {
                multiply(
                    (&mut products, product(shape, column)),
                    Into::Replace,
                    (x, MatrixLayout::new(n * h * w, i)),
                    (weight, shape.tap(row, column)),
                );
            }
            let lines = wide.par_chunks_mut(width * o).zip(products.par_chunks(3 * w * o));
            lines.for_each(|(wide, products)| {
                multiply(
                    (wide, MatrixLayout::new(width, o)),
                    Into::Replace,
                    (&columns, MatrixLayout::new(width, 3 * w)),
                    (products, MatrixLayout::new(3 * w, o)),
                );
            });
            for (y, wide) in y.chunks_mut(height * width * o).zip(wide.chunks(h * width * o)) {
                multiply(
                    (y, MatrixLayout::new(height, width * o)),
                    if row == 0 { Into::Replace } else { Into::Add },
                    (rows, MatrixLayout::new(height, h)),
                    (wide, MatrixLayout::new(h, width * o)),
                );
            }
        }
        y
    }

    pub fn backward(
        x: &[f32],
        weight: &[f32],
        gradient: &[f32],
        shape: Shape,
        wants_x: bool,
    ) -> (Option<Vec<f32>>, Vec<f32>) {
        let Shape { n, h, w, i, o, height, width } = shape;
        let mut for_weight = vec![0.0; 9 * i * o];
        let mut for_x = wants_x.then(|| vec![0.0; n * h * w * i]);
        if n * h * w * i * gradient.len() == 0 {
            return (for_x, for_weight);
        }
        let columns = along_columns(shape);
        let mut products = vec![0.0; n * h * w * 3 * o];
        let mut wide = vec![0.0; n * h * width * o];
        for (row, rows) in along_rows(shape).iter().enumerate() {
            for (wide, gradient) in wide.chunks_mut(h * width * o).zip(gradient.chunks(height * width * o)) {
                multiply(
                    (wide, MatrixLayout::new(h, width * o)),
                    Into::Replace,
                    (rows, MatrixLayout::new(height, h).transposed()),
                    (gradient, MatrixLayout::new(height, width * o)),
                );
            }
            let lines = wide.par_chunks(width * o).zip(products.par_chunks_mut(3 * w * o));
            lines.for_each(|(wide, products)| {
                multiply(
                    (products, MatrixLayout::new(3 * w, o)),
                    Into::Replace,
                    (&columns, MatrixLayout::new(width, 3 * w).transposed()),
                    (wide, MatrixLayout::new(width, o)),
                );
            });
            for column in 0..3 {
                multiply(
                    (&mut for_weight, shape.tap(row, column)),
                    Into::Replace,
                    (x, MatrixLayout::new(n * h * w, i).transposed()),
                    (&products, product(shape, column)),
                );
                if let Some(for_x) = &mut for_x {
                    multiply(
                        (for_x, MatrixLayout::new(n * h * w, i)),
                        after_first(row, column),
                        (&products, product(shape, column)),
                        (weight, shape.tap(row, column).transposed()),
                    );
                }
            }
        }
        (for_x, for_weight)
    }
}

/// Kernel positions, row by row.
fn places() -> impl Iterator<Item = (usize, usize)> {
    (0..9).map(|place| (place / 3, place % 3))
}

fn after_first(row: usize, column: usize) -> Into {
    if row + column == 0 { Into::Replace } else { Into::Add }
}
