//! How the references report: the mean over batches of each batch's score.

/// A mean over batches weighted by their sizes, as Lightning's epoch means are. It depends on how samples fall into
/// batches, so that it is a `reported` number and never an `exact` one; a score that is NaN makes it NaN.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct BatchMean {
    sum: f64,
    weight: f64,
}

impl BatchMean {
    /// Adds the score of a batch of `size` samples.
    pub fn add(&mut self, score: f64, size: usize) {
        self.sum += score * size as f64;
        self.weight += size as f64;
    }

    /// NaN before the first batch.
    pub fn value(&self) -> f64 {
        self.sum / self.weight
    }
}
