//! The commands that errors and the doctor tell users to type, verbatim.

use std::path::Path;

use crate::task::Suite;

/// A command that runs without any data; the generated data imitate GEO-Bench.
pub const DEMO: &str = "cargo xtask bench geobench --demo";

/// Returns the command that fetches `tasks` of a suite, or all of its tasks if none are named. `into` is the
/// folder if it is not the default.
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

/// Advises what to do if the data of these tasks (of all tasks if none are named) are missing in the folder
/// `root`, or in all default places.
pub fn get_data(suite: &Suite, tasks: &[&str], root: Option<&Path>) -> String {
    if suite.repository.is_empty() {
        return format!(
            "its data are generated: `cargo xtask bench {} --demo`; where a folder of such files is, name it with --data or in {}",
            suite.name, suite.environment
        );
    }
    format!(
        "`{}` fetches it (the Hugging Face data set `{}`); if it is stored elsewhere, name the folder with --data or in \
         {}. To try Terrabench without data: `{DEMO}`",
        fetch(&suite.name, tasks, root),
        suite.repository,
        suite.environment
    )
}

/// Returns the command that fetches the published weights of `model`: a name in `configs/models/` or a path.
pub fn fetch_weights(model: &str) -> String {
    format!("cargo xtask fetch weights {}", word(model))
}

/// Quotes a path for a shell.
pub fn path(path: &Path) -> String {
    word(&path.to_string_lossy())
}

/// Quotes one word for a shell.
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
