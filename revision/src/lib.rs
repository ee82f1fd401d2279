//! The git revision that a program is built from, as a macro.
//!
//! A build script would make cargo compile the whole package again after each commit. A macro that is used in `main.rs` makes
//! cargo compile that one file again, since the expansion includes the log of HEAD, which every commit and checkout writes.

use std::path::{Path, PathBuf};
use std::process::Command;

use proc_macro::TokenStream;

/// What belongs to the program, relative to the folder of its Cargo.toml. What it reads as it runs does not.
const SOURCES: [&str; 4] = ["src", "revision", "Cargo.toml", "Cargo.lock"];

/// Expands to an `Option<(&str, bool)>`: the revision of the checkout that holds the package's Cargo.toml, and whether the
/// program's sources differ from it. `None` outside a checkout, or without git.
///
/// ```
/// let revision: Option<(&str, bool)> = revision::revision!();
/// ```
#[proc_macro]
pub fn revision(_: TokenStream) -> TokenStream {
    let folder = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default();
    expansion(&folder).parse().unwrap_or_else(|_| "::core::option::Option::None".parse().unwrap_or_default())
}

fn expansion(folder: &Path) -> String {
    match revision_of(folder) {
        None => "::core::option::Option::None".to_owned(),
        Some((revision, is_dirty)) => {
            let tracked = log_of_head(folder).map_or_else(String::new, |log| {
                // A constant without a name is in no program; it only tells cargo of the file.
                format!("const _: &[::core::primitive::u8] = ::core::include_bytes!({log:?});")
            });
            format!("{{ {tracked} ::core::option::Option::Some(({revision:?}, {is_dirty})) }}")
        }
    }
}

/// The revision of the checkout that `folder`'s Cargo.toml belongs to, and whether the sources differ from it.
fn revision_of(folder: &Path) -> Option<(String, bool)> {
    // A tarball unpacked inside another project's checkout is no part of it.
    git(folder, &["ls-files", "--error-unmatch", "Cargo.toml"])?;
    let revision = git(folder, &["rev-parse", "HEAD"])?;
    let status = ["status", "--porcelain", "--untracked-files=no", "--"];
    let changed = git(folder, &[&status[..], &SOURCES].concat())?;
    Some((revision, !changed.is_empty()))
}

/// The log of HEAD, or HEAD itself where git keeps no logs.
fn log_of_head(folder: &Path) -> Option<PathBuf> {
    let path = |name: &str| {
        let path = folder.join(git(folder, &["rev-parse", "--git-path", name])?);
        path.is_file().then_some(path)
    };
    path("logs/HEAD").or_else(|| path("HEAD"))
}

fn git(folder: &Path, args: &[&str]) -> Option<String> {
    let mut git = Command::new("git");
    // In a hook these name the checkout that the hook is for.
    for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"] {
        git.env_remove(variable);
    }
    let output = git.arg("--no-optional-locks").arg("-C").arg(folder).args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkout() -> PathBuf {
        let name = format!("revision-{}-{:?}", std::process::id(), std::thread::current().id());
        let folder = std::env::temp_dir().join(name.replace(['(', ')'], ""));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(folder.join("src")).unwrap();
        std::fs::write(folder.join("Cargo.toml"), "[package]\n").unwrap();
        std::fs::write(folder.join("README.md"), "one\n").unwrap();
        folder
    }

    fn commit(folder: &Path) -> String {
        git(folder, &["add", "."]).unwrap();
        let who = ["-c", "user.name=A", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false"];
        git(folder, &[&who[..], &["commit", "--quiet", "-m", "x"]].concat()).unwrap();
        git(folder, &["rev-parse", "HEAD"]).unwrap()
    }

    #[test]
    fn a_checkout_is_named_by_its_revision_and_dirty_by_its_sources() {
        let folder = checkout();
        assert_eq!(revision_of(&folder), None, "outside git");
        git(&folder, &["init", "--quiet"]).unwrap();
        assert_eq!(revision_of(&folder), None, "before the first commit");
        let first = commit(&folder);
        assert_eq!(revision_of(&folder), Some((first.clone(), false)));
        std::fs::write(folder.join("README.md"), "two\n").unwrap();
        assert_eq!(revision_of(&folder), Some((first.clone(), false)), "a README is not compiled");
        std::fs::write(folder.join("Cargo.toml"), "[workspace]\n").unwrap();
        assert_eq!(revision_of(&folder), Some((first.clone(), true)));

        let log = log_of_head(&folder).unwrap();
        let before = std::fs::read(&log).unwrap();
        let second = commit(&folder);
        assert_eq!(revision_of(&folder), Some((second, false)));
        assert_ne!(std::fs::read(&log).unwrap(), before, "a commit changes what the expansion includes");

        let unpacked = folder.join("vendor/terrabench");
        std::fs::create_dir_all(&unpacked).unwrap();
        std::fs::write(unpacked.join("Cargo.toml"), "[package]\n").unwrap();
        assert_eq!(revision_of(&unpacked), None, "unpacked in the checkout of another project");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
