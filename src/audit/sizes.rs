//! Partitions of other sizes than the official ones, and more neighbours than there are training samples.

use std::collections::BTreeMap;

use super::{Check, Finding};
use crate::task::Split;
use crate::task::Task;

/// The partition that has the official number of samples.
const DEFAULT: &str = "default";

/// Splits that list another number of samples than the release has. Of the smaller partitions only train differs from
/// `default`, and by more than its name says (classes keep a sample each), so that its size is not looked at.
pub fn check(task: &Task, partition: &str, listed: &BTreeMap<Split, usize>) -> Option<Finding> {
    let other: Vec<String> = listed
        .iter()
        .filter(|(split, n)| {
            (partition == DEFAULT || **split != Split::Train) && **n != task.samples.of(**split)
        })
        .map(|(split, n)| format!("{split} {n} instead of {}", task.samples.of(*split)))
        .collect();
    (!other.is_empty()).then(|| {
        let found =
            format!("partition {partition} has other sizes than the official one: {}", other.join(", "));
        let remedy =
            "compare with no published number; `cargo xtask doctor` says how to fetch the official files";
        Finding::new(Check::PartitionSize, found, remedy)
    })
}

/// k-NN with more neighbours than training samples: all of them vote, and weights alone decide.
pub fn neighbours(k: usize, train: usize) -> Option<Finding> {
    (k > train).then(|| {
        let found = format!("k is {k}, but train has {train} samples: all of them vote on every image");
        let remedy = "choose a larger partition, or a protocol with a smaller k";
        Finding::new(Check::Neighbours, found, remedy)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::Home;
    use crate::task::Suite;

    #[test]
    fn sizes_other_than_official_are_told() {
        let suite = Suite::load(&Home::find().unwrap(), "geobench").unwrap();
        let task = suite.task("m-eurosat").unwrap();
        let found = |partition: &str, train, test| {
            check(task, partition, &[(Split::Train, train), (Split::Test, test)].into()).map(|f| f.found)
        };
        assert_eq!(found("default", 2000, 1000), None);
        assert_eq!(found("0.01x_train", 20, 1000), None);
        let said = found("default", 1999, 12).unwrap();
        assert!(said.ends_with("train 1999 instead of 2000, test 12 instead of 1000"), "{said}");
        let said = found("0.01x_train", 20, 999).unwrap();
        assert!(said.ends_with("test 999 instead of 1000"), "{said}");
    }

    #[test]
    fn more_neighbours_than_samples_are_told() {
        assert_eq!(neighbours(20, 20), None);
        let said = neighbours(20, 12).unwrap().found;
        assert_eq!(said, "k is 20, but train has 12 samples: all of them vote on every image");
    }
}
