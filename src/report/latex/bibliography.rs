//! The bibliography of a report: the entries of `benchmarks/bibliography/references.bib` for its suites, tasks, protocols and
//! models, and for the papers from which published values come.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde::Deserialize;

use crate::error::AtPath;
use crate::home::{Home, read_toml};
use crate::report::tables::published::ValueOrigin;
use crate::report::tables::table::ResultTable;
use crate::{Error, Result};

const FOLDER: &str = "benchmarks/bibliography";

/// All entries, and which of them belong to what.
#[derive(Debug, Clone)]
pub struct Bibliography {
    entries: Vec<Entry>,
    uses: Uses,
}

/// One entry of a BibTeX file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key that `\cite` names.
    pub key: String,
    /// The whole entry.
    pub text: String,
}

/// Keys of entries by name, see `uses.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Uses {
    suites: BTreeMap<String, Vec<String>>,
    tasks: BTreeMap<String, Vec<String>>,
    models: BTreeMap<String, Vec<String>>,
    protocols: BTreeMap<String, Vec<String>>,
    rankings: BTreeMap<String, Vec<String>>,
}

/// What a table or a report draws on.
#[derive(Debug, Clone, Default)]
pub struct Used {
    /// Keys of the entries.
    pub keys: BTreeSet<String>,
    /// Names without an entry, such as a model of one's own.
    pub unknown: BTreeSet<String>,
}

impl Used {
    /// Adds what `other` uses.
    pub fn extend(&mut self, other: Used) {
        self.keys.extend(other.keys);
        self.unknown.extend(other.unknown);
    }
}

impl Bibliography {
    /// Reads the bibliography.
    ///
    /// # Errors
    /// If a file cannot be read, an entry is not closed, or `uses.toml` names an entry that does not exist.
    pub fn load(home: &Home) -> Result<Self> {
        let path = home.path(format!("{FOLDER}/references.bib"));
        let entries = entries(&std::fs::read_to_string(&path).at(&path)?)
            .map_err(|problem| Error::damaged(&path, problem).help("write entries as `@article{key, …}`"))?;
        let path = home.path(format!("{FOLDER}/uses.toml"));
        let uses: Uses = read_toml(&path)?;
        let Uses { suites, tasks, models, protocols, rankings } = &uses;
        let lists = [suites, tasks, models, protocols, rankings].into_iter().flat_map(BTreeMap::values);
        if let Some(missing) = lists.flatten().find(|key| !entries.iter().any(|entry| entry.key == **key)) {
            return Err(Error::damaged(
                path,
                format!("expected an entry of references.bib, found `{missing}`"),
            )
            .help("add the entry, or correct the key"));
        }
        Ok(Bibliography { entries, uses })
    }

    /// Collects what a table of a suite uses: its rows, its columns, its protocols, and the sources of its published values.
    pub fn of_table(&self, suite: &str, table: &ResultTable) -> Used {
        let mut used = Used::default();
        let mut add = |names: &BTreeMap<String, Vec<String>>, kind: &str, name: &str| match names.get(name) {
            Some(keys) => used.keys.extend(keys.iter().cloned()),
            None => drop(used.unknown.insert(format!("{kind} {name}"))),
        };
        let Uses { suites, tasks, models, protocols, rankings: _ } = &self.uses;
        add(suites, "suite", suite);
        table.columns.iter().for_each(|column| add(tasks, "task", &column.task));
        let published = if table.demo { &[][..] } else { &table.published[..] };
        let rows = || published.iter().chain(&table.measured);
        rows().for_each(|row| add(models, "model", &row.model));
        let values = || rows().flat_map(|row| row.cells.iter().flatten());
        values()
            .flat_map(|value| &value.records)
            .for_each(|record| add(protocols, "protocol", &record.cell.protocol));
        let mut sources = BTreeSet::new();
        for printed in values().filter_map(|value| value.printed.as_ref()) {
            sources.insert(printed.place.as_str());
            if let ValueOrigin::Copied(from) = &printed.origin {
                sources.insert(from);
            }
        }
        let is_source = |entry: &&Entry| sources.iter().any(|source| entry.is_of(source));
        used.keys.extend(self.entries.iter().filter(is_source).map(|entry| entry.key.clone()));
        used
    }

    /// Returns the keys of the tests behind rankings.
    pub fn of_rankings(&self) -> Used {
        let keys = self.uses.rankings.values().flatten().cloned().collect();
        Used { keys, unknown: BTreeSet::new() }
    }

    /// Renders the entries used as a BibTeX file.
    pub fn render(&self, used: &Used) -> String {
        let mut text = "% The data sets, models and protocols of this report.\n".to_owned();
        for name in &used.unknown {
            let plain: String =
                name.chars().map(|c| if c.is_control() || c == '@' { ' ' } else { c }).collect();
            let _ = writeln!(text, "% No entry for the {plain}.");
        }
        for entry in self.entries.iter().filter(|entry| used.keys.contains(&entry.key)) {
            let _ = write!(text, "\n{}\n", entry.text);
        }
        text
    }

    /// Returns whether `uses.toml` lists this suite, task, model or protocol.
    pub fn lists(&self, name: &str) -> bool {
        let Uses { suites, tasks, models, protocols, rankings: _ } = &self.uses;
        [suites, tasks, models, protocols].iter().any(|names| names.contains_key(name))
    }
}

impl Entry {
    /// Whether the source's description names the entry's number in arXiv.
    fn is_of(&self, source: &str) -> bool {
        let number = self.text.split_once("eprint = {").and_then(|(_, rest)| rest.split('}').next());
        number.is_some_and(|number| source.contains(number))
    }
}

/// Splits a BibTeX file into its entries. Text between entries is a comment.
fn entries(text: &str) -> Result<Vec<Entry>, String> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut rest = text;
    let start_of = |text: &str| {
        if text.starts_with('@') { Some(0) } else { text.find("\n@").map(|place| place + 1) }
    };
    while let Some(start) = start_of(rest) {
        rest = &rest[start..];
        let mut depth = 0_usize;
        let end = rest.char_indices().find_map(|(place, c)| {
            match c {
                '{' => depth += 1,
                '}' => depth = depth.saturating_sub(1),
                _ => return None,
            }
            (depth == 0).then_some(place + 1)
        });
        let line = rest.lines().next().unwrap_or_default();
        let end = end.ok_or_else(|| format!("`{line}` is not closed"))?;
        let key = line.split_once('{').and_then(|(_, key)| key.split(',').next()).map(str::trim);
        let key = key.filter(|key| !key.is_empty()).ok_or_else(|| format!("`{line}` has no key"))?;
        if entries.iter().any(|entry| entry.key == key) {
            return Err(format!("the key `{key}` occurs twice"));
        }
        entries.push(Entry { key: key.to_owned(), text: rest[..end].to_owned() });
        rest = &rest[end..];
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_end_with_their_brace() {
        let text = "% note\n@misc{a,\n title = {A {B} c}\n}\n\n@article{b, year = {2020}}\n";
        let found = entries(text).unwrap();
        let keys: Vec<&str> = found.iter().map(|entry| entry.key.as_str()).collect();
        assert_eq!(keys, ["a", "b"]);
        assert_eq!(found[0].text, "@misc{a,\n title = {A {B} c}\n}");
        assert_eq!(found[1].text, "@article{b, year = {2020}}");
    }

    #[test]
    fn bad_entries_are_named() {
        for (text, named) in [
            ("@misc{a, title = {A}", "`@misc{a, title = {A}` is not closed"),
            ("@misc{a, b = {c}}\n@misc{a, b = {c}}", "the key `a` occurs twice"),
            ("@misc{, b = {c}}", "has no key"),
            ("@misc", "is not closed"),
        ] {
            let problem = entries(text).unwrap_err();
            assert!(problem.contains(named), "{text}: {problem}");
        }
    }
}
