//! Solvers on plain arrays: nearest neighbours, L-BFGS and Cholesky.

pub mod cholesky;
pub mod lbfgs;
pub mod neighbours;
