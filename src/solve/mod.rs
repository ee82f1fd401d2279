//! Solvers on plain arrays: nearest neighbours, L-BFGS, Cholesky, passes over rows, k-means, principal components and t-SNE.

pub(crate) mod cholesky;
pub mod embedding;
pub(crate) mod euclidean;
pub mod k_means;
pub(crate) mod lbfgs;
pub mod neighbours;
pub(crate) mod rows;
pub(crate) mod torch_lbfgs;
