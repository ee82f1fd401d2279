//! Labels that nothing can be learnt from, or that cannot be predicted.

use std::collections::{BTreeMap, BTreeSet};

use super::{Check, Finding, listed};
use crate::task::Split;

/// Finds a train split with a single class, and test classes that train lacks. `samples` holds the classes of each sample
/// that was read, `names` the names of the classes.
pub fn check(samples: &BTreeMap<Split, Vec<&[usize]>>, names: &[String]) -> Vec<Finding> {
    let Some(train) = samples.get(&Split::Train).filter(|train| !train.is_empty()) else { return Vec::new() };
    let mut findings = Vec::new();
    let name = |class: &usize| names.get(*class).cloned().unwrap_or_else(|| format!("class {class}"));
    // One sample cannot be judged, and a mask of one class may be the only one.
    if train.len() > 1 && train.iter().all(|classes| classes == &train[0]) && train[0].len() < 2 {
        let which = train[0].first().map_or("with nothing".to_owned(), |class| format!("`{}`", name(class)));
        let found = format!("all {} samples of train are labelled {which}", train.len());
        let remedy = "check the labels and the partition: a model trained on them predicts this class only";
        findings.push(Finding::new(Check::SingleClass, found, remedy));
    }
    let occur = |samples: &[&[usize]]| -> BTreeSet<usize> {
        samples.iter().flat_map(|classes| classes.iter().copied()).collect()
    };
    let test = samples.get(&Split::Test).map(|test| occur(test)).unwrap_or_default();
    let absent: Vec<String> = test.difference(&occur(train)).map(name).collect();
    if !absent.is_empty() {
        let found = format!(
            "{} of the {} classes of test {} not in train: {}",
            absent.len(),
            test.len(),
            if absent.len() == 1 { "is" } else { "are" },
            listed(absent.iter().map(String::as_str))
        );
        let remedy =
            "choose a partition whose train split contains them: no model can predict them otherwise";
        findings.push(Finding::new(Check::AbsentClass, found, remedy));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_of(train: &[&[usize]], test: &[&[usize]]) -> Vec<String> {
        let names: Vec<String> = ["water", "wood", "town"].map(str::to_owned).to_vec();
        let samples = [(Split::Train, train.to_vec()), (Split::Test, test.to_vec())];
        check(&samples.into(), &names).into_iter().map(|finding| finding.found).collect()
    }

    #[test]
    fn a_train_split_of_one_class_is_told() {
        let found = check_of(&[&[1], &[1], &[1]], &[&[1]]);
        assert_eq!(found, ["all 3 samples of train are labelled `wood`"]);
        assert_eq!(check_of(&[&[], &[]], &[&[]]), ["all 2 samples of train are labelled with nothing"]);
        assert_eq!(check_of(&[&[1], &[2]], &[&[1]]), [""; 0]);
    }

    #[test]
    fn classes_of_test_that_train_lacks_are_named() {
        let found = check_of(&[&[0], &[1]], &[&[0], &[2], &[2]]);
        assert_eq!(found, ["1 of the 2 classes of test is not in train: town"]);
        // Multi-label: any number of labels per image.
        assert_eq!(check_of(&[&[0, 2], &[1]], &[&[0, 1, 2]]), [""; 0]);
        // A class without a name.
        assert_eq!(check_of(&[&[0], &[1]], &[&[7]]), ["1 of the 1 classes of test is not in train: class 7"]);
    }

    #[test]
    fn without_labels_of_train_nothing_is_said() {
        assert_eq!(check_of(&[], &[&[1]]), [""; 0]);
    }
}
