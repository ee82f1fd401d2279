//! Solvers on plain arrays: nearest neighbours, L-BFGS and Cholesky.

pub(crate) mod cholesky;
pub(crate) mod lbfgs;
pub mod neighbours;
