//! Few numbers in place of many: principal components (with linfa-linalg) and t-SNE (linfa-tsne).

use linfa::traits::Transformer;
use linfa_linalg::LinalgError;
use linfa_linalg::eigh::{EigSort, EighInto};
use linfa_linalg::qr::QRInto;
use linfa_tsne::TSneParams;
use ndarray::{Array2, ArrayView2, Axis, s};
use rand::Rng;
use rand_xoshiro::Xoshiro256Plus;
use rand_xoshiro::rand_core::SeedableRng;

use crate::random::stream;
use crate::{Error, Result};

/// Perplexity of a map with enough samples: the usual one, also in scikit-learn.
const PERPLEXITY: f64 = 30.0;

/// Steps of t-SNE.
const STEPS: usize = 1000;

/// Accuracy of the Barnes-Hut approximation; 0 is exact. The library's tree of the approximation recurses without end, and overflows
/// the stack, once a coordinate is not finite.
const THETA: f64 = 0.0;

/// Fewest samples for t-SNE: with its fixed learning rate of 200, the library lets the coordinates of few samples grow without end.
const FEWEST_FOR_TSNE: usize = 50;

/// Fewest samples of which a map says something.
const FEWEST: usize = 4;

/// Products with the features per search, after which the components hardly change.
const PASSES: usize = 20;

/// Directions that are sought beside the wanted ones, which makes the search faster.
const SPARE: usize = 10;

/// Reduces features [n, d] to their first principal components, [n, components]. Distances between samples keep as much as
/// possible of their squares; signs are arbitrary, but the same every time. With at most `components` samples or features, the
/// features are only centred, as nothing would be left out.
///
/// The components are found by a subspace iteration from a fixed start [Halko, Martinsson and Tropp 2011, Finding structure with
/// randomness], as in scikit-learn's `PCA` with the solver `randomized`. The search of linfa-reduction stops at an absolute error
/// that features of any size need not reach, and gives up silently where features are not many times the components.
///
/// # Errors
/// If there are no samples, a feature is not finite, or the components cannot be found.
pub fn principal_components(features: ArrayView2<f32>, components: usize) -> Result<Array2<f32>> {
    if features.iter().any(|feature| !feature.is_finite()) {
        return Err(Error::not_finite("principal components: a feature is not finite")
            .help("check that the weights fit the model and the normalisation fits the pixels"));
    }
    let wide = features.mapv(f64::from);
    let Some(mean) = wide.mean_axis(Axis(0)) else {
        return Err(Error::mismatch("principal components: there are no samples"));
    };
    let centred = wide - &mean;
    let (n, d) = centred.dim();
    let largest = centred.iter().fold(0.0_f64, |largest, x| largest.max(x.abs()));
    if n.min(d) <= components || largest == 0.0 {
        return Ok(centred.mapv(|x| x as f32));
    }
    // Squares of large features must stay finite.
    let found = leading(&(centred / largest), components)
        .map_err(|problem| Error::mismatch(format!("principal components: {problem}")))?;
    let reduced = found.mapv(|x| (x * largest) as f32);
    match reduced.iter().all(|x| x.is_finite()) {
        true => Ok(reduced),
        false => Err(Error::not_finite("principal components: a component is not finite")),
    }
}

/// Projects centred features [n, d] on their leading directions: [n, components].
fn leading(features: &Array2<f64>, components: usize) -> Result<Array2<f64>, LinalgError> {
    let (n, d) = features.dim();
    let width = (components + SPARE).min(n).min(d);
    let mut random = stream(0, 0);
    let start: Array2<f64> = Array2::from_shape_simple_fn((d, width), || random.random_range(-1.0..1.0));
    let mut directions = start.qr_into()?.generate_q();
    for _ in 0..PASSES {
        directions = features.t().dot(&features.dot(&directions)).qr_into()?.generate_q();
    }
    // Turns the directions so that they are those of the largest variances.
    let projected = features.dot(&directions);
    let (_, turn) = projected.t().dot(&projected).eigh_into()?.sort_eig_desc();
    Ok(projected.dot(&turn.slice(s![.., ..components])))
}

/// Whether [`plane`] lays so many samples out by t-SNE, or by principal components alone.
pub fn is_by_tsne(samples: usize) -> bool {
    samples >= FEWEST_FOR_TSNE
}

/// Lays samples with features [n, d] out in a plane, [n, 2]: by t-SNE, or fewer than 50 by their first two principal
/// components. The same features and seed give the same map. `None` with fewer than four samples, or if all samples have the same
/// features.
///
/// # Errors
/// If a feature is not finite or the map cannot be made.
pub fn plane(features: ArrayView2<f32>, seed: u64) -> Result<Option<Array2<f64>>> {
    let (n, d) = features.dim();
    let differs = features.outer_iter().any(|row| row != features.row(0));
    if n < FEWEST || d == 0 || !differs {
        return Ok(None);
    }
    if features.iter().any(|feature| !feature.is_finite()) {
        return Err(Error::not_finite("t-SNE: a feature is not finite"));
    }
    if !is_by_tsne(n) {
        let found = principal_components(features, 2)?;
        let mut map = Array2::zeros((n, 2));
        let width = found.ncols().min(2);
        map.slice_mut(s![.., ..width]).assign(&found.slice(s![.., ..width]).mapv(f64::from));
        return Ok(Some(map));
    }
    // t-SNE refuses fewer dimensions than a plane has.
    let mut wide = Array2::zeros((n, d.max(2)));
    wide.slice_mut(s![.., ..d]).assign(&features.mapv(f64::from));
    let perplexity = PERPLEXITY.min(((n - 1) / 3) as f64);
    let map = TSneParams::embedding_size_with_rng(2, Xoshiro256Plus::seed_from_u64(seed))
        .perplexity(perplexity)
        .approx_threshold(THETA)
        .max_iter(STEPS)
        .transform(wide)
        .map_err(|problem| Error::mismatch(format!("t-SNE: {problem}")))?;
    match map.iter().all(|x| x.is_finite()) {
        true => Ok(Some(map)),
        false => Err(Error::not_finite("t-SNE: a coordinate is not finite")),
    }
}
