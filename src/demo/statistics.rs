//! Statistics of a band in the format of GEO-Bench's `band_stats.json`.

use serde::Serialize;

/// A band's statistics over all pixels of the training samples, with the official field names.
#[derive(Serialize)]
pub struct Statistics {
    min: f64,
    max: f64,
    mean: f64,
    std: f64,
    median: f64,
    percentile_0_1: f64,
    percentile_1: f64,
    percentile_5: f64,
    percentile_95: f64,
    percentile_99: f64,
    percentile_99_9: f64,
}

impl Statistics {
    /// Computes the statistics of at least one value; sorts the values.
    pub fn of(values: &mut [f64]) -> Self {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let variance = values.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>() / count;
        values.sort_unstable_by(f64::total_cmp);
        Statistics {
            min: quantile(values, 0.0),
            max: quantile(values, 1.0),
            mean,
            std: variance.sqrt(),
            median: quantile(values, 0.5),
            percentile_0_1: quantile(values, 0.001),
            percentile_1: quantile(values, 0.01),
            percentile_5: quantile(values, 0.05),
            percentile_95: quantile(values, 0.95),
            percentile_99: quantile(values, 0.99),
            percentile_99_9: quantile(values, 0.999),
        }
    }
}

/// Quantile of sorted values, linear between neighbours (numpy's default).
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len() - 1;
    let position = share * last as f64;
    let before = (position as usize).min(last);
    let after = (before + 1).min(last);
    sorted[before] + (sorted[after] - sorted[before]) * (position - before as f64)
}
