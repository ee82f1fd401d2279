//! The features from which a report draws a map of a test split: a report runs no model, so they are kept with the predictions.

use ndarray::{ArrayView2, Axis};

use crate::Result;
use crate::score::supplement::MapFeatures;
use crate::solve::embedding::principal_components;

/// Numbers kept per sample: as many principal components as t-SNE is usually given [van der Maaten and Hinton 2008, Visualizing
/// data using t-SNE, use 30; scikit-learn's documentation advises 50].
pub const COMPONENTS: usize = 50;

/// Samples kept of a split: more points would cover each other in a picture.
pub const MOST_SAMPLES: usize = 1000;

/// Reduces the features [n, d] of a test split to [`COMPONENTS`] numbers per sample, for at most [`MOST_SAMPLES`] samples: all, or as
/// many evenly spread over the split, the same for every model.
///
/// # Errors
/// Like [`principal_components`].
pub fn map_features(features: ArrayView2<f32>) -> Result<MapFeatures> {
    let all = features.nrows();
    let kept = all.min(MOST_SAMPLES);
    let samples: Vec<usize> = (0..kept).map(|place| place * all / kept).collect();
    let chosen = features.select(Axis(0), &samples);
    Ok(MapFeatures { samples, features: principal_components(chosen.view(), COMPONENTS)? })
}
