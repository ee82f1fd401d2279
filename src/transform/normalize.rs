//! Normalisation of pixels by a band's statistics.

use serde::{Deserialize, Serialize};

/// Mean and standard deviation of a band over a dataset, in digital numbers (scaled as the pixels are).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BandStatistics {
    pub mean: f64,
    pub std: f64,
}
