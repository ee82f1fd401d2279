//! Images that occur in two splits, or several times in the test split.

use std::collections::{BTreeMap, HashMap};

use super::{Check, Finding, count, listed};
use crate::task::Split;

/// Finds images with identical pixels (by hash) that two splits share, or that test contains more than once.
pub fn check(images: &BTreeMap<Split, Vec<(&str, blake3::Hash)>>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (first, second) in
        [(Split::Train, Split::Test), (Split::Valid, Split::Test), (Split::Train, Split::Valid)]
    {
        let (Some(one), Some(other)) = (images.get(&first), images.get(&second)) else { continue };
        findings.extend(shared(first, one, second, other));
    }
    findings.extend(images.get(&Split::Test).and_then(|test| repeated(test)));
    findings
}

fn shared(
    first: Split,
    one: &[(&str, blake3::Hash)],
    second: Split,
    other: &[(&str, blake3::Hash)],
) -> Option<Finding> {
    let known: HashMap<blake3::Hash, &str> = one.iter().rev().map(|(name, hash)| (*hash, *name)).collect();
    let both: Vec<(&str, &str)> =
        other.iter().filter_map(|(name, hash)| Some((*name, *known.get(hash)?))).collect();
    let (example, twin) = both.first()?;
    let same = if example == twin {
        String::new()
    } else {
        format!(" (`{example}` of {second} is `{twin}` of {first})")
    };
    let found = format!(
        "{} of {second} {} the pixels of an image of {first}: {}{same}",
        count(both.len(), "image"),
        if both.len() == 1 { "has" } else { "have" },
        listed(both.iter().map(|(name, _)| *name)),
    );
    let remedy =
        format!("remove these images from {first} or {second}: a score on them measures memorisation");
    Some(Finding::new(Check::SharedImages, found, remedy))
}

fn repeated(test: &[(&str, blake3::Hash)]) -> Option<Finding> {
    let mut first: HashMap<blake3::Hash, &str> = HashMap::new();
    let mut again: Vec<(&str, &str)> = Vec::new();
    for (name, hash) in test {
        match first.get(hash) {
            Some(twin) => again.push((name, twin)),
            None => {
                first.insert(*hash, name);
            }
        }
    }
    let (example, twin) = again.first()?;
    let same = if example == twin { String::new() } else { format!(" (`{example}` is `{twin}`)") };
    let found = format!(
        "{} of test {} the pixels of an earlier one: {}{same}",
        count(again.len(), "image"),
        if again.len() == 1 { "repeats" } else { "repeat" },
        listed(again.iter().map(|(name, _)| *name)),
    );
    let remedy = "list each test image once: repeated images count more than others";
    Some(Finding::new(Check::DuplicateImages, found, remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(names: &[(&'static str, u8)]) -> Vec<(&'static str, blake3::Hash)> {
        names.iter().map(|(name, pixels)| (*name, blake3::hash(&[*pixels]))).collect()
    }

    #[test]
    fn splits_without_a_common_image_give_no_finding() {
        let splits =
            [(Split::Train, images(&[("a", 1), ("b", 2), ("c", 2)])), (Split::Test, images(&[("d", 3)]))];
        assert_eq!(check(&splits.into()), []);
        assert_eq!(check(&BTreeMap::new()), []);
    }

    #[test]
    fn test_images_among_the_training_images_are_named() {
        let train = images(&[("a", 1), ("b", 2), ("c", 3)]);
        let test = images(&[("b", 2), ("x", 1), ("y", 9)]);
        let found = check(&[(Split::Train, train), (Split::Test, test)].into());
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].check, Check::SharedImages);
        assert_eq!(found[0].found, "2 images of test have the pixels of an image of train: b, x");
        // A twin under another name is named as well.
        let renamed = [(Split::Valid, images(&[("a", 1)])), (Split::Test, images(&[("x", 1)]))];
        let found = check(&renamed.into());
        assert_eq!(
            found[0].found,
            "1 image of test has the pixels of an image of valid: x (`x` of test is `a` of valid)"
        );
    }

    #[test]
    fn duplicates_within_test_are_counted_once_each_beyond_the_first() {
        let test = images(&[("a", 1), ("a", 1), ("a", 1), ("b", 2), ("c", 2)]);
        let found = check(&[(Split::Test, test)].into());
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].check, Check::DuplicateImages);
        assert_eq!(found[0].found, "3 images of test repeat the pixels of an earlier one: a, a, c");
    }
}
