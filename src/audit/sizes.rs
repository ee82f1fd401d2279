//! Partitions of unofficial size, and k-NN with more neighbours than train samples.

use std::collections::BTreeMap;

use super::{Check, Finding};
use crate::task::Split;
use crate::task::Task;

/// The partition that must have the official number of samples.
const DEFAULT: &str = "default";

/// Reports splits whose number of samples differs from the release. The train split of a smaller partition is not checked:
/// its size differs from `default` by more than its name says, because each class keeps at least one sample.
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
            format!("partition {partition} differs in size from the official one: {}", other.join(", "));
        let remedy =
            "do not compare with published numbers; `cargo xtask doctor` shows how to fetch the official files";
        Finding::new(Check::PartitionSize, found, remedy)
    })
}

/// Reports k-NN with more neighbours than train samples: then all of them vote, and only the weights decide.
pub fn neighbours(k: usize, train: usize) -> Option<Finding> {
    (k > train).then(|| {
        let found = format!("k is {k}, but train has {train} samples: all of them vote on every image");
        let remedy = "use a larger partition, or a protocol with a smaller k";
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
