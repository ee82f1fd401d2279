//! Solvers on plain arrays: nearest neighbours, L-BFGS and Cholesky.

pub(crate) mod cholesky;
pub(crate) mod euclidean;
pub(crate) mod lbfgs;
pub mod neighbours;
pub(crate) mod torch_lbfgs;
