//! Solvers on plain arrays: nearest neighbours and L-BFGS.

pub mod lbfgs;
pub mod neighbours;
