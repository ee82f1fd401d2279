//! Suggests which known name was meant by an unknown one.

/// Advises about the unknown `name`: `did you mean …?` if a known name is similar, and the list of all known
/// names. `kind` describes them, such as `suites`.
///
/// ```
/// let help = terrabench::suggest::help("geobnch", &["copernicus-bench", "geobench"], "suites");
/// assert_eq!(help, "did you mean `geobench`? suites: copernicus-bench, geobench");
/// ```
pub fn help<S: AsRef<str>>(name: &str, known: &[S], kind: &str) -> String {
    let list: Vec<&str> = known.iter().map(AsRef::as_ref).collect();
    let meant = nearest(name, &list).map_or(String::new(), |meant| format!("did you mean `{meant}`? "));
    format!("{meant}{kind}: {}", list.join(", "))
}

/// Advises about a key or a value that a TOML or JSON may not have, from what the reader said of it: `did you mean …?`. `None` if
/// it complained of something else, or no known name is similar.
///
/// ```
/// let said = "unknown field `bnads`, expected one of `bands`, `gsd-m`";
/// assert_eq!(terrabench::suggest::of_complaint(said).unwrap(), "did you mean `bands`?");
/// ```
pub fn of_complaint(said: &str) -> Option<String> {
    let mut after = ["unknown field `", "unknown variant `"].iter().filter_map(|word| said.split_once(word));
    let (name, rest) = after.next()?.1.split_once("`, expected ")?;
    let known: Vec<&str> = rest.lines().next()?.split('`').skip(1).step_by(2).collect();
    nearest(name, &known).map(|meant| format!("did you mean `{meant}`?"))
}

/// Returns the known name with the fewest edits, at most a third of its length.
fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let name = name.to_lowercase();
    let edits = known.iter().map(|known| (edits(&name, &known.to_lowercase()), *known));
    edits
        .filter(|(edits, known)| 3 * edits <= known.chars().count())
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, known)| known)
}

/// Counts insertions, deletions, replacements and swaps of neighbours [optimal string alignment].
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let (mut before, mut last): (Vec<usize>, Vec<usize>) = (Vec::new(), (0..=b.len()).collect());
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            row.push(least);
        }
        (before, last) = (last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        for (a, b, expected) in
            [("", "abc", 3), ("abc", "abc", 0), ("abc", "acb", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!((edits(a, b), edits(b, a)), (expected, expected), "{a}, {b}");
        }
    }

    #[test]
    fn suggests_only_similar_names() {
        let known = ["m-eurosat", "m-so2sat", "eurosat-s2"];
        assert_eq!(nearest("m-euorsat", &known), Some("m-eurosat"));
        assert_eq!(nearest("M-EUROSAT", &known), Some("m-eurosat"));
        assert_eq!(nearest("imagenet", &known), None);
        assert_eq!(nearest("x", &[]), None);
    }

    #[test]
    fn advises_about_unknown_keys_and_values() {
        let one = "unknown variant `onxn`, expected `onnx` or `process`\nin `architecture`";
        assert_eq!(of_complaint(one).as_deref(), Some("did you mean `onnx`?"));
        for other in [
            "unknown field `x`, there are no fields",
            "missing field `name`",
            "unknown field `zzz`, expected `a`",
        ] {
            assert_eq!(of_complaint(other), None, "{other}");
        }
    }
}
