//! Systems of linear equations whose matrix is symmetric and positive definite.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, s};

use crate::{Error, Result};

/// The lower triangle L of a matrix L Lᵀ.
#[derive(Debug, Clone)]
pub struct Cholesky {
    lower: Array2<f64>,
}

impl Cholesky {
    /// Of a symmetric matrix [n, n], of which the lower triangle is read; `ridge` is added to its diagonal.
    ///
    /// # Errors
    /// Where the matrix is not square, or with the ridge not positive definite ([`Error::NotFinite`], since no choice of data
    /// makes it so but of numbers that are too far apart).
    pub fn of(matrix: ArrayView2<f64>, ridge: f64) -> Result<Self> {
        let (n, columns) = matrix.dim();
        if n != columns {
            return Err(Error::mismatch(format!("a matrix of {n} x {columns} has no Cholesky factor")));
        }
        let mut lower = Array2::<f64>::zeros((n, n));
        for row in 0..n {
            for column in 0..=row {
                let (a, b) = (lower.slice(s![row, ..column]), lower.slice(s![column, ..column]));
                let rest = matrix[[row, column]] - a.dot(&b);
                lower[[row, column]] = if row == column {
                    let pivot = rest + ridge;
                    if !(pivot > 0.0 && pivot.is_finite()) {
                        return Err(Error::not_finite(format!("row {row} of {n} has the pivot {pivot}"))
                            .help("use stronger regularisation, or check the features"));
                    }
                    pivot.sqrt()
                } else {
                    rest / lower[[column, column]]
                };
            }
        }
        Ok(Cholesky { lower })
    }

    /// x with matrix x = `right` [n].
    ///
    /// # Panics
    /// Where `right` is not as long as the matrix is wide.
    pub fn solve(&self, right: ArrayView1<f64>) -> Array1<f64> {
        let n = self.lower.nrows();
        assert_eq!(right.len(), n, "a right side of another length");
        let mut x = right.to_owned();
        for row in 0..n {
            let known = self.lower.slice(s![row, ..row]).dot(&x.slice(s![..row]));
            x[row] = (x[row] - known) / self.lower[[row, row]];
        }
        for row in (0..n).rev() {
            x[row] /= self.lower[[row, row]];
            let solved = x[row];
            x.slice_mut(s![..row]).scaled_add(-solved, &self.lower.slice(s![row, ..row]));
        }
        x
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn the_solution_fulfils_the_equations() {
        let matrix = array![[4.0, 2.0, 0.6], [2.0, 5.0, 1.0], [0.6, 1.0, 3.0]];
        let right = array![1.0, -2.0, 0.5];
        let x = Cholesky::of(matrix.view(), 0.25).unwrap().solve(right.view());
        let again = (&matrix + &(Array2::<f64>::eye(3) * 0.25)).dot(&x);
        assert!(again.iter().zip(&right).all(|(a, b)| (a - b).abs() < 1e-12), "{again}");
    }

    #[test]
    fn what_is_not_positive_definite_is_told() {
        let matrix = array![[1.0, 2.0], [2.0, 1.0]];
        let error = Cholesky::of(matrix.view(), 0.0).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::NotFinite, "{error}");
        assert!(Cholesky::of(array![[1.0, 2.0]].view(), 0.0).is_err());
    }
}
