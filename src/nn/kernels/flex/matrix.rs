//! Matrices stored in slices, and their product.

use gemm::Parallelism;

/// Layout of a matrix in a slice: element (r, c) is at start + r * row + c * column.
#[derive(Debug, Clone, Copy)]
pub struct MatrixLayout {
    pub start: usize,
    pub rows: usize,
    pub columns: usize,
    pub row: usize,
    pub column: usize,
}

impl MatrixLayout {
    /// Creates the layout of contiguous rows of `columns` elements.
    pub fn new(rows: usize, columns: usize) -> Self {
        MatrixLayout { start: 0, rows, columns, row: columns, column: 1 }
    }

    /// Returns the same layout, starting `start` elements into the slice.
    pub fn at(self, start: usize) -> Self {
        MatrixLayout { start, ..self }
    }

    /// Returns the same layout with `row` elements between the starts of consecutive rows.
    pub fn pitch(self, row: usize) -> Self {
        MatrixLayout { row, ..self }
    }

    pub fn transposed(self) -> Self {
        let MatrixLayout { start, rows, columns, row, column } = self;
        MatrixLayout { start, rows: columns, columns: rows, row: column, column: row }
    }

    fn is_empty(self) -> bool {
        self.rows == 0 || self.columns == 0
    }

    fn fits(self, length: usize) -> bool {
        self.is_empty() || self.start + (self.rows - 1) * self.row + (self.columns - 1) * self.column < length
    }
}

/// What happens to the previous values of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Into {
    Replace,
    Add,
}

/// Products with fewer multiplications than this run on one thread, because splitting them costs more than it saves.
const PARALLEL_FROM: usize = 1 << 22;

/// Computes output = a * b, or output += a * b.
///
/// # Panics
/// If shapes do not match, a matrix exceeds its slice, or rows of the output overlap.
pub fn multiply(
    output: (&mut [f32], MatrixLayout),
    into: Into,
    a: (&[f32], MatrixLayout),
    b: (&[f32], MatrixLayout),
) {
    let work = output.1.rows * output.1.columns * a.1.columns;
    let parallelism = if work < PARALLEL_FROM { Parallelism::None } else { Parallelism::Rayon(0) };
    product(output, into, a, b, parallelism);
}

/// Computes output = a * b on the calling thread, for callers that share out their work themselves.
///
/// # Panics
/// Like [`multiply`].
pub fn multiply_on_one_thread(
    output: (&mut [f32], MatrixLayout),
    a: (&[f32], MatrixLayout),
    b: (&[f32], MatrixLayout),
) {
    product(output, Into::Replace, a, b, Parallelism::None);
}

fn product(
    (output, to): (&mut [f32], MatrixLayout),
    into: Into,
    (a, of_a): (&[f32], MatrixLayout),
    (b, of_b): (&[f32], MatrixLayout),
    parallelism: Parallelism,
) {
    assert!(to.rows == of_a.rows && to.columns == of_b.columns && of_a.columns == of_b.rows, "shapes differ");
    assert!(to.fits(output.len()) && of_a.fits(a.len()) && of_b.fits(b.len()), "a matrix leaves its slice");
    assert!(to.is_empty() || to.column == 1 && to.row >= to.columns, "the output's rows overlap");
    let stride = |elements: usize| elements as isize;
    // SAFETY: by the assertions above, every element of the three matrices lies within its slice, and no two elements of
    // the output coincide. A slice's length fits into `isize`, and so does a stride inside it.
    unsafe {
        gemm::gemm(
            to.rows,
            to.columns,
            of_a.columns,
            output.as_mut_ptr().wrapping_add(to.start),
            stride(to.column),
            stride(to.row),
            into == Into::Add,
            a.as_ptr().wrapping_add(of_a.start),
            stride(of_a.column),
            stride(of_a.row),
            b.as_ptr().wrapping_add(of_b.start),
            stride(of_b.column),
            stride(of_b.row),
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}
