//! Files that are whole under their name, or not there at all, and names that stay in their folder.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Component, Path, PathBuf};

use crate::error::AtPath;
use crate::{Error, Result};

/// Writes a file whole or not at all: under a hidden temporary name in the same folder, flushed to the
/// disk, then renamed. Makes the folder if need be.
///
/// # Errors
/// Where the folder or the file cannot be written; a file that was there before stays as it was.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).at(folder)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(".").suffix(".tmp");
    #[cfg(unix)]
    {
        // tempfile's default, readable by the owner only, would follow the file to its final name; this
        // leaves the choice to the umask.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut temporary = builder.tempfile_in(folder).at(path)?;
    temporary.write_all(bytes).at(path)?;
    temporary.as_file().sync_all().at(path)?;
    temporary.persist(path).at(path)?;
    // Makes the new name last through a power cut. Some file systems cannot sync a folder; the file
    // itself is whole in any case.
    #[cfg(unix)]
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
    Ok(())
}

/// `name` as a path below `folder`.
///
/// # Errors
/// Where it is not relative, or has an empty part, `.`, `..`, a backslash or a control character.
pub fn inside(folder: &Path, name: &str) -> Result<PathBuf> {
    let plain = |part: &str| {
        let mut components = Path::new(part).components();
        !part.contains('\\')
            && !part.chars().any(char::is_control)
            && matches!(components.next(), Some(Component::Normal(whole)) if whole == part)
            && components.next().is_none()
    };
    if name.split('/').all(plain) {
        Ok(name.split('/').fold(folder.to_owned(), |path, part| path.join(part)))
    } else {
        Err(Error::request(format!("the name `{}` leads out of its folder", name.escape_debug())))
    }
}

/// A name of a list or an archive as its tools write it, with `/` between its parts and no `./` in front. Whether it stays
/// in its folder is for [`inside`] to say.
pub fn relative_name(name: &str) -> String {
    let name = name.replace('\\', "/");
    let mut rest = name.as_str();
    while let Some(shorter) = rest.strip_prefix("./") {
        rest = shorter;
    }
    if rest == "." { String::new() } else { rest.to_owned() }
}

/// Removes a file that need not be there.
///
/// # Errors
/// Where it is there and cannot be removed.
pub fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).at(path),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_other_tools_are_made_ours() {
        for (name, expected) in
            [("./a/b", "a/b"), ("././a", "a"), ("a\\b\\", "a/b/"), ("./", ""), (".", ""), ("a/./b", "a/./b")]
        {
            assert_eq!(relative_name(name), expected);
        }
        for hostile in [".\\..\\a", "./../a", "./\\a", "c:\\..\\a"] {
            assert!(inside(Path::new("data"), &relative_name(hostile)).is_err(), "{hostile:?} is accepted");
        }
    }

    #[test]
    fn names_stay_inside() {
        let folder = Path::new("data");
        assert_eq!(inside(folder, "a/b c/d%.tif").unwrap(), Path::new("data/a/b c/d%.tif"));
        for bad in ["", "/a", "a/../b", "..", ".", "a//b", "a/", "a\\b", "a/\0", "./a", "a/./b"] {
            assert!(inside(folder, bad).is_err(), "{bad:?} is accepted");
        }
    }
}
