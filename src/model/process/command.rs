//! What is started as an encoder process, and the part of its identity that is known before it starts.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::AtPath;
use crate::{Error, Result};

/// Where an encoder process is found: a command to start, or two pipes to a process that is there already.
///
/// ```
/// use terrabench::model::process::Command;
///
/// let command: Command = "python encode.py --size 'very large'".parse()?;
/// assert_eq!(command, Command::Words(["python", "encode.py", "--size", "very large"].map(String::from).to_vec()));
/// assert_eq!("fd:5,6".parse::<Command>()?, Command::Pipes { read: 5, write: 6 });
/// # Ok::<(), terrabench::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawCommand", into = "Vec<String>")]
pub enum Command {
    /// A program and its arguments.
    Words(Vec<String>),
    /// Inherited file descriptors.
    Pipes {
        /// Where the encoder's messages arrive.
        read: u32,
        /// Where messages to the encoder go.
        write: u32,
    },
}

/// A command in a TOML: a list of words, or one text that is split as a shell does.
#[derive(Deserialize)]
#[serde(untagged)]
enum RawCommand {
    Words(Vec<String>),
    Text(String),
}

impl TryFrom<RawCommand> for Command {
    type Error = String;

    fn try_from(raw: RawCommand) -> Result<Self, String> {
        match raw {
            RawCommand::Words(words) => Ok(Command::Words(words)),
            RawCommand::Text(text) => text.parse().map_err(|error: Error| error.to_string()),
        }
    }
}

impl From<Command> for Vec<String> {
    fn from(command: Command) -> Self {
        match command {
            Command::Words(words) => words,
            // Their numbers differ from run to run and change nothing.
            Command::Pipes { .. } => vec!["fd".to_owned()],
        }
    }
}

impl FromStr for Command {
    type Err = Error;

    /// Splits a command into words as a shell does, with quotes and backslashes; `fd:R,W` is a pair of file descriptors.
    fn from_str(text: &str) -> Result<Self> {
        if let Some(numbers) = text.strip_prefix("fd:") {
            let parsed = numbers.split_once(',').and_then(|(read, write)| {
                Some(Command::Pipes { read: read.trim().parse().ok()?, write: write.trim().parse().ok()? })
            });
            return parsed.ok_or_else(|| {
                Error::request(format!("expected two file descriptors as in fd:5,6, found `{text}`"))
                    .help("the first is read, the second written; a program of this name is ./fd:…")
            });
        }
        let words = shlex::split(text).ok_or_else(|| {
            Error::request(format!("`{text}`: a quote is not closed, or a backslash is the last character"))
                .help("quote words with spaces: --encoder \"python 'my encoder.py'\"")
        })?;
        match words.first() {
            Some(program) if !program.is_empty() => Ok(Command::Words(words)),
            _ => Err(Error::request("expected a program to start as encoder, found nothing")
                .help("such as --encoder \"python encode.py\"")),
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::Words(words) => f.write_str(&words.join(" ")),
            Command::Pipes { read, write } => write!(f, "fd:{read},{write}"),
        }
    }
}

impl Command {
    /// Replaces words that name no file here but one in `folder` by that file's path.
    pub(super) fn resolved(&self, folder: &Path) -> Command {
        let resolved = |word: &String| {
            let beside = folder.join(word);
            let is_beside = !Path::new(word).exists() && !word.is_empty() && beside.is_file();
            if is_beside { beside.to_string_lossy().into_owned() } else { word.clone() }
        };
        match self {
            Command::Words(words) => Command::Words(words.iter().map(resolved).collect()),
            pipes => pipes.clone(),
        }
    }

    /// Returns the name of the script, or else of the program, without folder and extension: what a model is called that has
    /// no other name.
    pub fn name(&self) -> String {
        let Command::Words(words) = self else { return "encoder".to_owned() };
        let script = words.iter().skip(1).find(|word| !word.starts_with('-') && Path::new(word).is_file());
        let stem = |word: &String| Some(Path::new(word).file_stem()?.to_string_lossy().into_owned());
        script.or(words.first()).and_then(stem).unwrap_or_else(|| "encoder".to_owned())
    }

    /// Hashes the words of `self` and the content of the files that the words of `resolved` name.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub(super) fn hash(&self, resolved: &Command) -> Result<blake3::Hash> {
        let mut hasher = blake3::Hasher::new();
        let (Command::Words(words), Command::Words(places)) = (self, resolved) else {
            // Descriptors say nothing about who is behind them.
            return Ok(hasher.finalize());
        };
        for (word, place) in words.iter().zip(places) {
            hasher.update(&(word.len() as u64).to_le_bytes()).update(word.as_bytes());
            match named_file(place) {
                None => hasher.update(b"-"),
                Some(file) => {
                    let mut content = blake3::Hasher::new();
                    let open = std::fs::File::open(&file).at(&file)?;
                    content.update_reader(open).at(&file)?;
                    hasher.update(b"+").update(content.finalize().as_bytes())
                }
            };
        }
        Ok(hasher.finalize())
    }
}

/// Returns the file that a word names: `encode.py`, `--weights=model.pt`.
fn named_file(word: &str) -> Option<PathBuf> {
    let after_equals = word.split_once('=').map(|(_, value)| value);
    [Some(word), after_equals].into_iter().flatten().map(PathBuf::from).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_changes_with_the_words_and_with_the_files_they_name() {
        let folder = tempfile::tempdir().unwrap();
        let (script, weights) = (folder.path().join("encode.py"), folder.path().join("w.pt"));
        std::fs::write(&script, "one").unwrap();
        std::fs::write(&weights, "one").unwrap();
        let hash = |text: &str| {
            let command: Command = text.parse().unwrap();
            command.hash(&command.resolved(folder.path())).unwrap()
        };
        let text = format!("python encode.py --weights={}", weights.display());
        let first = hash(&text);
        assert_eq!(hash(&text), first);
        assert_ne!(hash(&format!("{text} -v")), first);
        assert_ne!(hash("python encode"), hash("pythonencode "));
        std::fs::write(&script, "two").unwrap();
        let second = hash(&text);
        assert_ne!(second, first);
        std::fs::write(&weights, "two").unwrap();
        assert_ne!(hash(&text), second);
    }

    #[test]
    fn malformed_commands_are_refused() {
        for (text, problem) in [
            ("", "expected a program"),
            ("'' x", "expected a program"),
            ("a 'b", "quote"),
            ("fd:3", "fd:5,6"),
        ] {
            let error = text.parse::<Command>().unwrap_err().to_string();
            assert!(error.contains(problem) && error.contains("help:"), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_model_is_called_after_its_script() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("my_model.py");
        std::fs::write(&script, "").unwrap();
        let named = |text: &str| text.parse::<Command>().unwrap().name();
        assert_eq!(named(&format!("python -u {} x", script.display())), "my_model");
        assert_eq!(named("./bin/encode --fast"), "encode");
        assert_eq!(named("fd:3,4"), "encoder");
    }
}
