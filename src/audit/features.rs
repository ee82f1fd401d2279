//! Features that carry no information, and settings without effect.

use std::collections::{BTreeMap, HashMap};

use ndarray::{ArrayView2, Axis};
use rayon::prelude::*;

use super::observed::bytes;
use super::{Check, Finding, listed};
use crate::task::Split;

/// Standard deviation over samples, relative to the features' size, that rounding can explain: float32 through a deep
/// network is off by about 1e-6, and by 1e-5 if sums cancel.
const NOISE: f64 = 2e-5;

/// Share of test features that may equal another sample's by chance.
const EQUAL: f64 = 0.01;

/// Share of features that may be the same for all samples.
const DEAD: f64 = 0.5;

/// Summary of a split's features.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureSummary {
    /// Hash of all features, bit for bit.
    pub digest: blake3::Hash,
    /// Hash of each sample's features.
    pub rows: Vec<blake3::Hash>,
    /// Length of a feature vector.
    pub width: usize,
    /// Number of features that are the same for all samples.
    pub dead: usize,
    /// Root mean square of the features' deviations from their means, relative to the root mean square of the features; 0
    /// if all features are 0.
    pub spread: f64,
}

impl FeatureSummary {
    /// Summarises features [n, d].
    pub fn of(features: ArrayView2<f32>) -> Self {
        let (n, width) = features.dim();
        let features = features.as_standard_layout();
        let rows: Vec<blake3::Hash> = features
            .axis_iter(Axis(0))
            .into_par_iter()
            .map(|row| blake3::hash(&bytes(row.as_slice().unwrap_or_default())))
            .collect();
        let mut digest = blake3::Hasher::new();
        rows.iter().for_each(|row| {
            digest.update(row.as_bytes());
        });
        // Deviations from the first sample: exactly zero if nothing changes, and without cancellation if little does.
        let (mut sums, mut squares, mut sizes) =
            (vec![0.0f64; width], vec![0.0f64; width], vec![0.0f64; width]);
        let first: Vec<f32> = features.rows().into_iter().next().map(|row| row.to_vec()).unwrap_or_default();
        for row in features.rows() {
            let row = row.as_slice().unwrap_or_default();
            let numbers = row.iter().zip(&first).zip(&mut sums).zip(&mut squares).zip(&mut sizes);
            for ((((x, first), sum), square), size) in numbers {
                let (x, first) = (f64::from(*x), f64::from(*first));
                *sum += x - first;
                *square += (x - first) * (x - first);
                *size += x * x;
            }
        }
        let n = n.max(1) as f64;
        let variance: f64 =
            sums.iter().zip(&squares).map(|(sum, squares)| (squares - sum * sum / n).max(0.0)).sum();
        let size: f64 = sizes.iter().sum();
        FeatureSummary {
            digest: digest.finalize(),
            rows,
            width,
            dead: squares.iter().filter(|squares| **squares == 0.0).count(),
            spread: if size > 0.0 { (variance / size).sqrt() } else { 0.0 },
        }
    }
}

/// Finds features that are constant, nearly constant, or shared by test samples. A split of one sample cannot be checked.
pub fn check(splits: &BTreeMap<Split, FeatureSummary>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let broken =
        "check that the weights fit the model, and that bands, unit and normalisation fit the pixels";
    for (split, features) in splits.iter().filter(|(_, features)| features.rows.len() > 1) {
        let FeatureSummary { width, dead, spread, .. } = features;
        let found = if dead == width {
            format!("features of {split} are the same for all {} samples", features.rows.len())
        } else if *spread < NOISE {
            format!(
                "features of {split} differ between samples by only {spread:.1e} of their size, which is rounding error"
            )
        } else if *dead as f64 > DEAD * *width as f64 {
            format!("{dead} of {width} features of {split} are the same for all samples")
        } else {
            continue;
        };
        findings.push(Finding::new(Check::ConstantFeatures, found, broken));
    }
    // If all features are the same, that has been reported already.
    if findings.is_empty() {
        findings.extend(equal(splits));
    }
    findings
}

fn equal(splits: &BTreeMap<Split, FeatureSummary>) -> Option<Finding> {
    let test = splits.get(&Split::Test)?;
    let mut times: HashMap<blake3::Hash, usize> = HashMap::new();
    let others = splits.iter().filter(|(split, _)| **split != Split::Valid);
    others.flat_map(|(_, features)| &features.rows).for_each(|row| *times.entry(*row).or_default() += 1);
    let equal = test.rows.iter().filter(|row| times[*row] > 1).count();
    let share = equal as f64 / test.rows.len() as f64;
    (share > EQUAL).then(|| {
        let found = format!(
            "{equal} of {} test features ({:.0} %) equal those of another image of test or train",
            test.rows.len(),
            100.0 * share
        );
        let remedy = "check for duplicate images, and for pixels that normalisation clips to one value";
        Finding::new(Check::EqualFeatures, found, remedy)
    })
}

/// Finds normalisations of a sweep that give the same features. `digests` holds a name and the digest of the same split per
/// normalisation.
pub fn without_effect(digests: &[(&str, blake3::Hash)]) -> Option<Finding> {
    let mut by_digest: HashMap<blake3::Hash, Vec<&str>> = HashMap::new();
    digests.iter().for_each(|(name, digest)| by_digest.entry(*digest).or_default().push(name));
    let mut groups: Vec<Vec<&str>> = by_digest.into_values().filter(|names| names.len() > 1).collect();
    groups.sort_unstable();
    let groups: Vec<String> = groups.into_iter().map(|names| names.join(" = ")).collect();
    (!groups.is_empty()).then(|| {
        let found =
            format!("normalisations give identical features: {}", listed(groups.iter().map(String::as_str)));
        let remedy = "the setting has no effect: check that the model receives the normalised pixels";
        Finding::new(Check::SettingWithoutEffect, found, remedy)
    })
}

/// Reports a recorded cell whose test features are identical, although settings differ that should change them.
pub fn without_effect_beside(record: &str, differing: &[String]) -> Option<Finding> {
    (!differing.is_empty()).then(|| {
        let found = format!(
            "test features are identical to those of `{record}`, although {} differ{}",
            differing.join(" and "),
            if differing.len() == 1 { "s" } else { "" }
        );
        let remedy = "the setting has no effect: check that it reaches the model";
        Finding::new(Check::SettingWithoutEffect, found, remedy)
    })
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;

    fn varied(n: usize, d: usize) -> Array2<f32> {
        Array2::from_shape_fn((n, d), |(i, j)| ((i * 31 + j * 17) % 101) as f32 / 101.0 - 0.3)
    }

    fn found(train: &Array2<f32>, test: &Array2<f32>) -> Vec<String> {
        let splits = [(Split::Train, train), (Split::Test, test)];
        let splits = splits.map(|(split, features)| (split, FeatureSummary::of(features.view())));
        check(&splits.into()).into_iter().map(|finding| finding.found).collect()
    }

    #[test]
    fn features_that_differ_give_no_finding() {
        assert_eq!(found(&varied(101, 8), &(varied(90, 8) + 0.001)), [""; 0]);
    }

    #[test]
    fn constant_features_are_told() {
        let constant = Array2::from_elem((5, 4), 0.7f32);
        let said = found(&constant, &constant);
        assert_eq!(said[0], "features of train are the same for all 5 samples");
        assert_eq!(said.len(), 2);
        assert_eq!(
            found(&Array2::zeros((5, 4)), &varied(5, 4))[0],
            "features of train are the same for all 5 samples"
        );
    }

    #[test]
    fn features_that_differ_by_rounding_are_told() {
        let noisy = |scale: f32| varied(50, 8).mapv(|x| 3.0 + scale * x);
        let said = found(&noisy(1e-6), &varied(50, 8));
        assert!(said[0].starts_with("features of train differ between samples by only"), "{said:?}");
        assert_eq!(found(&noisy(1e-2), &varied(50, 8)), [""; 0]);
    }

    #[test]
    fn mostly_dead_features_are_told() {
        let mut features = varied(50, 8);
        features.slice_mut(ndarray::s![.., ..5]).fill(1.0);
        assert_eq!(
            found(&features, &varied(50, 8)),
            ["5 of 8 features of train are the same for all samples"]
        );
    }

    #[test]
    fn more_than_one_percent_of_equal_test_features_are_told() {
        let train = varied(101, 8) + 0.5;
        let mut test = varied(100, 8);
        assert_eq!(found(&train, &test), [""; 0]);
        let row = train.row(3).to_owned();
        test.row_mut(7).assign(&row);
        assert_eq!(found(&train, &test), [""; 0], "1 % may be chance");
        let row = test.row(1).to_owned();
        test.row_mut(9).assign(&row);
        assert_eq!(
            found(&train, &test),
            ["3 of 100 test features (3 %) equal those of another image of test or train"]
        );
    }

    #[test]
    fn normalisations_without_effect_are_told() {
        let digest = |byte: u8| blake3::hash(&[byte]);
        assert_eq!(without_effect(&[("a", digest(1)), ("b", digest(2))]), None);
        let said = without_effect(&[("a", digest(1)), ("b", digest(2)), ("c", digest(1))]).unwrap().found;
        assert_eq!(said, "normalisations give identical features: a = c");
    }

    #[test]
    fn a_setting_without_effect_names_the_other_record() {
        assert_eq!(without_effect_beside("r.json", &[]), None);
        let said = without_effect_beside("r.json", &["sensor".to_owned()]).unwrap().found;
        assert_eq!(said, "test features are identical to those of `r.json`, although sensor differs");
    }
}
