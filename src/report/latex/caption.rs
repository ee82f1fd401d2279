//! What a caption must say for a reader to make the numbers again: protocols, weights, seeds, versions.

use std::collections::BTreeSet;

use super::escape::escape;
use crate::record::short;
use crate::report::tables::table::TableRow;

/// Describes how the values of these measured rows were made, as LaTeX; empty without measured values.
pub fn how_made<'t, 'a: 't>(rows: impl Iterator<Item = &'t TableRow<'a>>) -> String {
    let (mut protocols, mut weights) = (BTreeSet::new(), BTreeSet::new());
    let (mut seeds, mut versions) = (BTreeSet::new(), BTreeSet::new());
    for row in rows {
        for record in row.cells.iter().flatten().flat_map(|cell| &cell.records) {
            let made = &record.provenance;
            protocols.insert(record.cell.protocol.clone());
            let name = format!("{} {}", record.cell.model, record.cell.backbone);
            let covers =
                if made.partial_weights() { format!(" ({})", made.coverage()) } else { String::new() };
            weights.insert(format!("{} {}{covers}", name.trim_end(), short(&made.weights)));
            seeds.insert(record.cell.seed);
            let dirty = if made.git_dirty { ", changed since" } else { "" };
            let revision = made.git_revision.iter().map(|hash| format!(" (revision {}{dirty})", short(hash)));
            versions.insert(format!("{}{}", made.terrabench, revision.collect::<String>()));
        }
    }
    if protocols.is_empty() {
        return String::new();
    }
    let list = |words: &BTreeSet<String>| escape(&words.iter().cloned().collect::<Vec<_>>().join(", "));
    format!(
        "Measured rows: {} {}; weights {}; {} {}; Terrabench {}.",
        if protocols.len() == 1 { "protocol" } else { "protocols" },
        list(&protocols),
        list(&weights),
        if seeds.len() == 1 { "seed" } else { "seeds" },
        several(&seeds),
        list(&versions),
    )
}

/// Lists seeds, runs as `0--4`.
fn several(seeds: &BTreeSet<u64>) -> String {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for seed in seeds {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*seed) => *last = *seed,
            _ => runs.push((*seed, *seed)),
        }
    }
    let text = |(first, last): &(u64, u64)| match last - first {
        0 => first.to_string(),
        1 => format!("{first}, {last}"),
        _ => format!("{first}--{last}"),
    };
    runs.iter().map(text).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::several;

    #[test]
    fn runs_of_seeds_are_shortened() {
        assert_eq!(several(&[0, 1, 2, 3, 7, 9, 10].into()), "0--3, 7, 9, 10");
        assert_eq!(several(&[u64::MAX].into()), u64::MAX.to_string());
    }
}
