//! The command that computes a record's number again. Records hold it, `reproduce` runs it.

use std::collections::BTreeMap;
use std::path::Path;

use crate::record::Cell;
use crate::remedy;

/// How the user starts this program.
const START: &str = "cargo xtask";

/// Beginning of a token of the hub.
const TOKEN: &str = "hf_";

/// Shortest rest of a token that is recognised.
const TOKEN_LENGTH: usize = 10;

/// The command line of a run, as far as it affects numbers.
///
/// Folders of data and results, threads and batch sizes are left out: they change no number. Of an absolute path only the file's
/// name is kept, because records are handed to others; `reproduce` has options for where such a file is.
#[derive(Debug, Clone, Default)]
pub struct CommandLine {
    /// The command, its suite and its options.
    pub words: Vec<String>,
    /// The options that choose the cell are added to `words`.
    pub chooses_cell: bool,
    /// What was typed for a protocol, by its name, where that is a path.
    pub protocols: BTreeMap<String, String>,
}

impl CommandLine {
    /// The command that computes `cell`, as a shell takes it; empty if it is unknown.
    ///
    /// ```
    /// # use terrabench::record::Cell;
    /// # use terrabench::run::command::CommandLine;
    /// let words = ["bench", "geobench", "--demo"].map(String::from).to_vec();
    /// let line = CommandLine { words, chooses_cell: true, ..CommandLine::default() };
    /// # let named = |name: &str| name.to_owned();
    /// # let (suite, model, backbone) = (named("geobench"), named("Demo"), named("ViT"));
    /// # let (task, partition, protocol) = (named("m-eurosat"), named("default"), named("knn"));
    /// # let cell = Cell { suite, task, partition, protocol, model, backbone, seed: 3 };
    /// assert_eq!(
    ///     line.of(&cell),
    ///     "cargo xtask bench geobench --demo --task m-eurosat --partition default --protocol knn --seed 3"
    /// );
    /// ```
    pub fn of(&self, cell: &Cell) -> String {
        if self.words.is_empty() {
            return String::new();
        }
        let mut words = self.words.clone();
        if self.chooses_cell {
            let protocol = self.protocols.get(&cell.protocol).unwrap_or(&cell.protocol);
            for (option, value) in
                [("--task", &cell.task), ("--partition", &cell.partition), ("--protocol", protocol)]
            {
                words.extend([option.to_owned(), value.clone()]);
            }
            words.extend(["--seed".to_owned(), cell.seed.to_string()]);
        }
        let words = words.iter().map(|word| remedy::path(Path::new(&without_tokens(word))));
        format!("{START} {}", words.collect::<Vec<_>>().join(" "))
    }
}

/// The words of a record's command without the program's name; `None` if it is not one.
pub fn words(command: &str) -> Option<Vec<String>> {
    shlex::split(command.strip_prefix(START)?)
}

/// A path as records hold it: as typed if it is relative, else the file's name.
pub fn portable(typed: &str) -> String {
    let path = Path::new(typed);
    match path.file_name() {
        Some(name) if path.is_absolute() => name.to_string_lossy().into_owned(),
        _ => typed.to_owned(),
    }
}

/// Replaces what looks like a token of the hub by `***`.
pub fn without_tokens(text: &str) -> String {
    let (mut shown, mut rest) = (String::new(), text);
    while let Some(place) = rest.find(TOKEN) {
        let (before, from) = rest.split_at(place);
        let length = from[TOKEN.len()..].chars().take_while(char::is_ascii_alphanumeric).count();
        shown.push_str(before);
        let is_word = before.chars().next_back().is_none_or(|c| !c.is_alphanumeric());
        let is_token = is_word && length >= TOKEN_LENGTH;
        shown.push_str(if is_token { "***" } else { &from[..TOKEN.len() + length] });
        rest = &from[TOKEN.len() + length..];
    }
    shown + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_shell() {
        let words = ["bench", "geobench", "--encoder", "python 'my file.py' --x"].map(String::from).to_vec();
        let line = CommandLine { words: words.clone(), ..CommandLine::default() };
        let cell = Cell {
            suite: String::new(),
            task: String::new(),
            partition: String::new(),
            protocol: String::new(),
            model: String::new(),
            backbone: String::new(),
            seed: 0,
        };
        assert_eq!(super::words(&line.of(&cell)).unwrap(), words);
        assert_eq!(super::words("rm -rf results"), None);
    }

    #[test]
    fn absolute_paths_and_tokens_are_not_recorded() {
        assert_eq!(portable("/home/me/TerraFM-B.pth"), "TerraFM-B.pth");
        assert_eq!(portable("models/mine.toml"), "models/mine.toml");
        assert_eq!(portable("random:0"), "random:0");
        assert_eq!(without_tokens("e.py --token hf_AbCdEfGhIjKlMn;x"), "e.py --token ***;x");
        assert_eq!(without_tokens("--hub=hf_0123456789"), "--hub=***");
        for plain in ["chf_AbCdEfGhIjKlMn", "hf_short", "half_of_it", "hf_"] {
            assert_eq!(without_tokens(plain), plain);
        }
    }
}
