//! The commands that errors and the doctor tell the user to type, word for word.

use std::path::Path;

use crate::task::Suite;

/// What runs without any data; the generated data is GEO-Bench's.
pub const DEMO: &str = "cargo xtask bench geobench --demo";

/// The command that fetches `tasks` of a suite, or all of its tasks where none is named; `into` another folder
/// than the one that is found without being told.
pub fn fetch<T: AsRef<str>>(suite: &str, tasks: &[T], into: Option<&Path>) -> String {
    let mut command = format!("cargo xtask fetch {suite}");
    for task in tasks {
        command.push_str(&format!(" --task {}", task.as_ref()));
    }
    if let Some(folder) = into {
        command.push_str(&format!(" --data {}", path(folder)));
    }
    command
}

/// What to do where the data of these tasks (of all, where none is named) is missing from the folder `root`, or from
/// all places where it is looked for.
pub fn get_data(suite: &Suite, tasks: &[&str], root: Option<&Path>) -> String {
    if suite.repository.is_empty() {
        return format!(
            "its data are generated: `cargo xtask bench {} --demo`; where a folder of such files is, name it with --data or in {}",
            suite.name, suite.environment
        );
    }
    format!(
        "`{}` fetches it (the Hugging Face data set `{}`); where it lies elsewhere, name the folder with --data or in \
         {}. To try without data: `{DEMO}`",
        fetch(&suite.name, tasks, root),
        suite.repository,
        suite.environment
    )
}

/// The command that fetches the published weights of `model`: a name of `configs/models/` or a path.
pub fn fetch_weights(model: &str) -> String {
    format!("cargo xtask fetch weights {}", word(model))
}

/// A path as it is typed into a shell.
pub fn path(path: &Path) -> String {
    word(&path.to_string_lossy())
}

/// One word of a shell's line.
fn word(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+:@%,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_can_be_pasted() {
        assert_eq!(fetch("geobench", &["m-so2sat"], None), "cargo xtask fetch geobench --task m-so2sat");
        let folder = Path::new("/my data/it's");
        let command = fetch::<&str>("geobench", &[], Some(folder));
        assert_eq!(command, r"cargo xtask fetch geobench --data '/my data/it'\''s'");
        assert_eq!(fetch_weights("terrafm-b"), "cargo xtask fetch weights terrafm-b");
    }
}
