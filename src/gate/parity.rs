//! Parity: whether two encoders give the same features of the same pixels, such as a model here and its original in another
//! process.

use std::fmt;

use burn::tensor::{Device, Tensor};
use ndarray::{Array2, ArrayView2};

use crate::config::KnnConfig;
use crate::data::Target;
use crate::features::{Input, Preparation, images};
use crate::model::{Batch, Encoded, Encoder, InputSpec, Want};
use crate::progress::Progress;
use crate::protocol::knn::predict;
use crate::score::Targets;
use crate::task::Split;
use crate::{Error, Result, device};

/// The smallest share of equal k-NN predictions at which features count as the same: ties may fall either way.
const ALIKE: f64 = 0.99;

/// Two encoders and the samples that both get.
pub struct Sides<'a> {
    /// The model here.
    pub ours: &'a dyn Encoder,
    /// What it is compared with.
    pub theirs: &'a dyn Encoder,
    /// The samples.
    pub input: &'a Input,
    /// How their pixels are prepared, for both.
    pub strategy: &'a Preparation,
    /// The device of `ours`.
    pub device: &'a Device,
    /// Samples per batch.
    pub batch_size: usize,
}

/// The features of a split's samples from both sides.
#[derive(Debug)]
pub struct BothFeatures {
    /// Names of the samples, n of them.
    pub samples: Vec<String>,
    /// Their labels.
    pub labels: Vec<Target>,
    /// [n, d] of the model here; all tokens or maps of a sample one after the other.
    pub ours: Array2<f32>,
    /// [n, d] of the other.
    pub theirs: Array2<f32>,
}

impl Sides<'_> {
    /// Encodes the samples at `indices` of a split on both sides.
    ///
    /// # Errors
    /// If a sample cannot be read or encoded, a feature is not finite, or the shapes differ.
    pub fn features(
        &self,
        split: Split,
        indices: &[usize],
        want: Want,
        progress: &dyn Progress,
    ) -> Result<BothFeatures> {
        let spec = self.input.spec();
        let step = progress.begin(&split.to_string(), indices.len());
        let (mut samples, mut labels) = (Vec::new(), Vec::new());
        let mut sides: [(Vec<f32>, Option<Shapes>); 2] = Default::default();
        for indices in indices.chunks(self.batch_size.max(1)) {
            let read = indices.iter().map(|index| self.input.read(&self.strategy.preprocess, split, *index));
            let batch = read.collect::<Result<Vec<_>>>()?;
            for ((numbers, known), encoder) in sides.iter_mut().zip([self.ours, self.theirs]) {
                let remote = encoder.remote().is_some();
                let place = if remote { device::host() } else { self.device.clone() };
                let images = images::batch(&spec, images::of_samples(&batch), &place)?;
                let (shapes, found) = encode(&spec, encoder, images, want)?;
                let known = known.get_or_insert_with(|| shapes.clone());
                if *known != shapes {
                    return Err(Error::mismatch(format!("features of {known}, then of {shapes}")));
                }
                numbers.extend(found);
            }
            if let [(_, Some(ours)), (_, Some(theirs))] = &sides
                && ours != theirs
            {
                return Err(Error::mismatch(format!("features per sample: {ours} here, {theirs} there"))
                    .help("compare the same pooling (--pooling), size and layers of both"));
            }
            step.advance(batch.len());
            for sample in batch {
                samples.push(sample.name);
                labels.push(sample.target);
            }
        }
        let n = samples.len();
        let [ours, theirs] = sides.map(|(numbers, _)| {
            let width = numbers.len().checked_div(n).unwrap_or(0);
            Array2::from_shape_vec((n, width), numbers).map_err(Error::mismatch)
        });
        let both = BothFeatures { samples, labels, ours: ours?, theirs: theirs? };
        for (side, matrix) in [("here", &both.ours), ("there", &both.theirs)] {
            if let Some(row) = matrix.rows().into_iter().position(|row| !row.iter().all(|x| x.is_finite())) {
                let sample = &both.samples[row];
                return Err(Error::not_finite(format!(
                    "{split} {sample}: the features {side} are not finite"
                )));
            }
        }
        Ok(both)
    }
}

/// The shapes of a sample's features.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shapes(Vec<Vec<usize>>);

impl fmt::Display for Shapes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = |shape: &Vec<usize>| shape.iter().map(usize::to_string).collect::<Vec<_>>().join(" x ");
        f.write_str(&self.0.iter().map(one).collect::<Vec<_>>().join(", "))
    }
}

/// Returns the shapes of a sample's features, and the numbers of all samples, one sample after the other.
fn encode(spec: &InputSpec, encoder: &dyn Encoder, batch: Batch, want: Want) -> Result<(Shapes, Vec<f32>)> {
    fn rows<const D: usize>(tensor: Tensor<D>) -> (Vec<usize>, Tensor<2>) {
        (tensor.dims()[1..].to_vec(), tensor.flatten::<2>(1, D - 1))
    }
    let parts = match spec.begin(encoder, batch, want)?()? {
        Encoded::Pooled(vectors) => vec![(vectors.dims()[1..].to_vec(), vectors)],
        Encoded::Tokens { tokens, .. } => vec![rows(tokens)],
        Encoded::Maps(maps) => maps.into_iter().map(|map| rows(map.values)).collect(),
    };
    let (shapes, parts): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
    let numbers = Tensor::cat(parts, 1).into_data().convert::<f32>().try_into_vec::<f32>();
    let numbers =
        numbers.map_err(|problem| Error::mismatch(format!("features are not float32: {problem:?}")))?;
    Ok((Shapes(shapes), numbers))
}

/// The largest difference between two sides.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Its absolute value.
    pub largest: f32,
    /// Where it is: the sample and the index of the feature.
    pub sample: String,
    /// See `sample`.
    pub feature: usize,
    /// The feature there, here and in the other.
    pub values: [f32; 2],
    /// The largest absolute feature of the other.
    pub scale: f32,
}

impl Difference {
    /// Finds the largest difference.
    ///
    /// # Errors
    /// If there are no features.
    pub fn of(both: &BothFeatures) -> Result<Self> {
        let pairs = both.ours.indexed_iter().zip(&both.theirs);
        let worst = pairs
            .map(|((place, ours), theirs)| (place, *ours, *theirs))
            .max_by(|a, b| (a.1 - a.2).abs().total_cmp(&(b.1 - b.2).abs()));
        let Some(((row, feature), ours, theirs)) = worst else {
            return Err(Error::mismatch("there are no features to compare"));
        };
        let scale = both.theirs.iter().fold(0.0f32, |scale, x| scale.max(x.abs()));
        let sample = both.samples.get(row).cloned().unwrap_or_default();
        Ok(Difference { largest: (ours - theirs).abs(), sample, feature, values: [ours, theirs], scale })
    }

    /// Returns the difference as a share of the largest feature; infinite if only one side is zero throughout.
    pub fn relative(&self) -> f64 {
        if self.largest == 0.0 { 0.0 } else { f64::from(self.largest) / f64::from(self.scale) }
    }

    /// Whether it is at most `tolerance` times the largest feature.
    pub fn is_within(&self, tolerance: f64) -> bool {
        self.relative() <= tolerance
    }
}

/// How many k-NN predictions of the test samples are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Votes {
    /// Samples predicted alike.
    pub equal: usize,
    /// All samples.
    pub all: usize,
}

impl Votes {
    /// Counts equal predictions. None if the labels are no classes.
    ///
    /// # Errors
    /// As [`predict`].
    pub fn of(
        config: &KnnConfig,
        classes: usize,
        train: &BothFeatures,
        test: &BothFeatures,
    ) -> Result<Option<Self>> {
        if !matches!(train.labels.first(), Some(Target::Class(_) | Target::Labels(_))) {
            return Ok(None);
        }
        let labels = Targets::from_labels(&train.labels, classes)?;
        let predicted = |train: ArrayView2<'_, f32>, test: ArrayView2<'_, f32>| {
            Ok::<_, Error>(predict(config, train, &labels, test)?.targets)
        };
        let ours = predicted(train.ours.view(), test.ours.view())?;
        let theirs = predicted(train.theirs.view(), test.theirs.view())?;
        let equal = match (&ours, &theirs) {
            (Targets::Classes { classes: a, .. }, Targets::Classes { classes: b, .. }) => {
                a.iter().zip(b).filter(|(a, b)| a == b).count()
            }
            (Targets::Labels(a), Targets::Labels(b)) => {
                a.outer_iter().zip(b.outer_iter()).filter(|(a, b)| a == b).count()
            }
            _ => return Ok(None),
        };
        Ok(Some(Votes { equal, all: test.samples.len() }))
    }

    /// Whether nearly all are equal.
    pub fn are_alike(&self) -> bool {
        self.equal as f64 >= ALIKE * self.all as f64
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;
    use crate::config::{EmbeddingDtype, IntervalConfig};

    fn both(ours: Array2<f32>, theirs: Array2<f32>) -> BothFeatures {
        let n = ours.nrows();
        let labels = (0..n).map(|i| Target::Class(i % 2)).collect();
        BothFeatures { samples: (0..n).map(|i| format!("s{i}")).collect(), labels, ours, theirs }
    }

    #[test]
    fn the_largest_difference_is_found_and_measured_by_the_largest_feature() {
        let found =
            Difference::of(&both(array![[1.0, 2.0], [3.0, -4.0]], array![[1.0, 2.5], [3.0, -5.0]])).unwrap();
        assert_eq!(
            (found.largest, &*found.sample, found.feature, found.values),
            (1.0, "s1", 1, [-4.0, -5.0])
        );
        assert_eq!((found.scale, found.relative()), (5.0, 0.2));
        assert!(found.is_within(0.2) && !found.is_within(0.199));
        let none = Difference::of(&both(array![[0.0]], array![[0.0]])).unwrap();
        assert!(none.is_within(0.0));
        let one = Difference::of(&both(array![[1.0]], array![[0.0]])).unwrap();
        assert!(!one.is_within(1e9));
        assert!(Difference::of(&both(Array2::zeros((0, 0)), Array2::zeros((0, 0)))).is_err());
    }

    #[test]
    fn equal_votes_are_counted() {
        let interval = IntervalConfig::new(0.95, 10);
        let config = KnnConfig::weighted(1, 0.07, EmbeddingDtype::F32, interval);
        let train = both(array![[1.0, 0.0], [0.0, 1.0]], array![[1.0, 0.0], [0.0, 1.0]]);
        let test = both(array![[1.0, 0.1], [0.1, 1.0]], array![[1.0, 0.1], [1.0, 0.1]]);
        let votes = Votes::of(&config, 2, &train, &test).unwrap().unwrap();
        assert_eq!(votes, Votes { equal: 1, all: 2 });
        assert!(!votes.are_alike() && Votes { equal: 99, all: 100 }.are_alike());
    }
}
