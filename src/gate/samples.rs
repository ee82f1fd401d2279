//! Pairs the test samples of two records and reports which are missing, duplicated, reordered or labelled differently.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::record::predictions::Named;
use crate::score::Predictions;

/// Names listed in a remark before the rest is only counted.
const NAMED: usize = 5;

/// The paired samples of two records.
#[derive(Debug)]
pub(crate) struct SamplePairs<'b> {
    /// The second record's predictions in the order of the first record's samples; `None` if samples or labels differ.
    pub predictions: Option<Cow<'b, Predictions>>,
    /// Whether the order of the samples differs.
    pub reordered: bool,
    /// Differences, one kind per line: `missing from the records: "a", "b" and 3 more`.
    pub remarks: Vec<String>,
}

/// Pairs the test samples of two records by name. `sides` are the names of the records in remarks.
///
/// If names are duplicated in the same way on both sides, samples are paired by position.
pub(crate) fn pair_samples<'b>(a: &Named, b: &'b Named, sides: [&str; 2]) -> SamplePairs<'b> {
    let counts = [count(&a.samples), count(&b.samples)];
    let mut remarks = Vec::new();
    for (side, other) in [(0, 1), (1, 0)] {
        let missing = counts[other].keys().filter(|name| !counts[side].contains_key(*name));
        remarks.extend(list(missing.copied()).map(|names| format!("missing from {}: {names}", sides[side])));
        let doubled = counts[side].iter().filter(|(_, count)| **count > 1).map(|(name, _)| *name);
        remarks.extend(list(doubled).map(|names| format!("duplicated in {}: {names}", sides[side])));
    }
    let mut pairs = SamplePairs { predictions: None, reordered: false, remarks };
    let predictions = if a.samples == b.samples {
        Cow::Borrowed(&b.predictions)
    } else if counts[0].len() == a.samples.len() && counts[0] == counts[1] {
        pairs.reordered = true;
        pairs.remarks.extend(first_out_of_order(a, b, sides));
        Cow::Owned(b.predictions.select(&places(&a.samples, &b.samples)))
    } else {
        return pairs;
    };
    match a.predictions.relabelled(&predictions) {
        None => pairs.remarks.push("kind or classes of the labels differ".to_owned()),
        Some(places) => match list(places.iter().map(|place| a.samples[*place].as_str())) {
            None => pairs.predictions = Some(predictions),
            Some(names) => pairs.remarks.push(format!("labelled differently: {names}")),
        },
    }
    pairs
}

fn count(samples: &[String]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    samples.iter().for_each(|name| *counts.entry(name.as_str()).or_default() += 1);
    counts
}

/// Position of each of `wanted` in `samples`, which contain the same names, each once.
fn places(wanted: &[String], samples: &[String]) -> Vec<usize> {
    let of: BTreeMap<&str, usize> =
        samples.iter().enumerate().map(|(place, name)| (name.as_str(), place)).collect();
    wanted.iter().filter_map(|name| of.get(name.as_str()).copied()).collect()
}

fn first_out_of_order(a: &Named, b: &Named, sides: [&str; 2]) -> Option<String> {
    let place = a.samples.iter().zip(&b.samples).position(|(a, b)| a != b)?;
    Some(format!(
        "in another order: sample {place} is \"{}\" in {} and \"{}\" in {}; paired by name",
        a.samples[place], sides[0], b.samples[place], sides[1]
    ))
}

/// Formats as `"a", "b" and 3 more`; `None` if empty.
fn list<'n>(names: impl Iterator<Item = &'n str>) -> Option<String> {
    let names: BTreeSet<&str> = names.collect();
    let shown: Vec<String> = names.iter().take(NAMED).map(|name| format!("\"{name}\"")).collect();
    match names.len().checked_sub(NAMED) {
        _ if names.is_empty() => None,
        None | Some(0) => Some(shown.join(", ")),
        Some(more) => Some(format!("{} and {more} more", shown.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::score::Targets;

    fn named(samples: &[(&str, usize, usize)]) -> Named {
        let classes = |of: fn(&(&str, usize, usize)) -> usize| Targets::Classes {
            classes: samples.iter().map(of).collect(),
            count: 3,
        };
        let predictions = Predictions::Targets { predicted: classes(|s| s.1), truth: classes(|s| s.2) };
        let samples = samples.iter().map(|sample| sample.0.to_owned()).collect();
        Named { samples, predictions, scoring: None, supplement: Default::default() }
    }

    fn remarks(a: &Named, b: &Named) -> (bool, Vec<String>) {
        let pairs = pair_samples(a, b, ["A", "B"]);
        (pairs.predictions.is_some(), pairs.remarks)
    }

    #[test]
    fn missing_and_doubled_samples_are_named() {
        let a = named(&[("x", 0, 0), ("y", 1, 1)]);
        assert_eq!(remarks(&a, &a), (true, vec![]));
        let fewer = named(&[("x", 0, 0)]);
        assert_eq!(remarks(&fewer, &a), (false, vec!["missing from A: \"y\"".to_owned()]));
        assert_eq!(remarks(&a, &fewer), (false, vec!["missing from B: \"y\"".to_owned()]));
        let doubled = named(&[("x", 0, 0), ("x", 1, 1)]);
        let expected = ["duplicated in A: \"x\"", "missing from A: \"y\""].map(String::from);
        let (paired, mut found) = remarks(&doubled, &a);
        found.sort();
        assert_eq!((paired, found), (false, expected.to_vec()));
        // Official lists may name a sample twice.
        assert!(remarks(&doubled, &doubled).0);
        let many: Vec<String> = (0..9).map(|i| format!("s{i}")).collect();
        let many: Vec<(&str, usize, usize)> = many.iter().map(|name| (name.as_str(), 0, 0)).collect();
        let (_, found) = remarks(&a, &named(&many));
        assert_eq!(found[0], r#"missing from A: "s0", "s1", "s2", "s3", "s4" and 4 more"#);
    }

    #[test]
    fn reordered_samples_are_paired_by_name() {
        let a = named(&[("x", 0, 0), ("y", 1, 1), ("z", 2, 1)]);
        let b = named(&[("x", 0, 0), ("z", 2, 1), ("y", 0, 1)]);
        let pairs = pair_samples(&a, &b, ["A", "B"]);
        assert!(pairs.reordered && pairs.remarks[0].contains("sample 1 is \"y\" in A and \"z\" in B"));
        let in_order = named(&[("x", 0, 0), ("y", 0, 1), ("z", 2, 1)]);
        assert_eq!(pairs.predictions.unwrap().into_owned(), in_order.predictions);
    }

    #[test]
    fn samples_under_exchanged_names_are_told_by_their_labels() {
        let a = named(&[("x", 0, 0), ("y", 1, 1)]);
        let exchanged = named(&[("y", 0, 0), ("x", 1, 1)]);
        let (paired, found) = remarks(&a, &exchanged);
        assert!(!paired && found[1] == r#"labelled differently: "x", "y""#, "{found:?}");
    }
}
