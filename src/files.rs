//! Files that are either complete or absent, and names that stay inside their folder.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Component, Path, PathBuf};

use crate::error::AtPath;
use crate::{Error, Result, stop};

/// Maximum number of links followed in a row, the same as in Linux.
const MOST_LINKS: usize = 40;

/// Writes a file atomically: under a hidden temporary name in the same folder, synced to the disk, then
/// renamed. Creates the folder if needed.
///
/// A symbolic link is kept and its target is written. Anything that is not a regular file (a pipe, a device) is
/// kept and written to. A pipe whose reader has left counts as written.
///
/// # Errors
/// If the folder or file cannot be written; an existing file then stays unchanged.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    match Destination::of(path)? {
        Destination::File(target) => replace(&target, bytes),
        Destination::Other(target) => {
            heard(OpenOptions::new().append(true).open(&target).and_then(|mut file| file.write_all(bytes)))
                .at(path)
        }
        Destination::Stdout => heard(send(&mut io::stdout().lock(), bytes)).at(path),
        Destination::Stderr => heard(send(&mut io::stderr().lock(), bytes)).at(path),
    }
}

fn send(out: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
    out.write_all(bytes)?;
    out.flush()
}

/// Ignores that the reader of a pipe has left.
fn heard(done: io::Result<()>) -> io::Result<()> {
    done.or_else(|error| if error.kind() == ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })
}

/// What a path refers to when it is written to.
enum Destination {
    /// A regular file that exists or can be created; not a link.
    File(PathBuf),
    /// A pipe, a device, or an open file descriptor.
    Other(PathBuf),
    /// This process's own streams. Opening them again would overwrite a file behind them from its start.
    Stdout,
    /// Like [`Destination::Stdout`], for standard error.
    Stderr,
}

impl Destination {
    fn of(path: &Path) -> Result<Self> {
        let mut target = path.to_owned();
        for _ in 0..=MOST_LINKS {
            match own_descriptor(&target) {
                Some(1) => return Ok(Destination::Stdout),
                Some(2) => return Ok(Destination::Stderr),
                Some(_) => return Ok(Destination::Other(target)),
                None => {}
            }
            let Ok(next) = std::fs::read_link(&target) else {
                return match std::fs::metadata(&target) {
                    Ok(found) if found.is_dir() => Err(Error::io(path, "is a folder, expected a file")),
                    Ok(found) if !found.is_file() => Ok(Destination::Other(target)),
                    _ => Ok(Destination::File(target)),
                };
            };
            // A relative link is relative to the folder that contains it.
            target = target.parent().unwrap_or(Path::new("")).join(next);
        }
        Err(Error::io(path, "goes through too many links").help("check for a cycle of links"))
    }
}

/// Returns the file descriptor if `path` refers to one of this process (`/dev/fd/1`).
fn own_descriptor(path: &Path) -> Option<u32> {
    let number = path.file_name()?.to_str()?.parse().ok()?;
    let folder = path.parent()?.canonicalize().ok()?;
    let own = format!("/proc/{}/", std::process::id());
    let is_own = folder == Path::new("/dev/fd") || (folder.starts_with(own) && folder.ends_with("fd"));
    is_own.then_some(number)
}

fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    replace_with(path, |temporary| temporary.write_all(bytes).at(path))
}

/// Replaces a file atomically: `write` fills an empty file under a hidden name beside `path`, which then takes
/// the place of the old one.
///
/// # Errors
/// If the file cannot be written, or `write` fails.
pub fn replace_with(
    path: &Path,
    write: impl FnOnce(&mut tempfile::NamedTempFile) -> Result<()>,
) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).at(folder)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(".").suffix(".tmp");
    #[cfg(unix)]
    {
        // tempfile's default permissions, readable by the owner only, would be kept after renaming; this leaves
        // the choice to the umask.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut temporary = builder.tempfile_in(folder).at(path)?;
    let unfinished = temporary.path().to_owned();
    let _removed = stop::at_exit(move || drop(std::fs::remove_file(unfinished)));
    write(&mut temporary)?;
    temporary.as_file().sync_all().at(path)?;
    temporary.persist(path).at(path)?;
    // Makes the new name survive a power failure. Some file systems cannot sync a folder; the file itself is
    // complete in any case.
    #[cfg(unix)]
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
    Ok(())
}

/// Renames a file or folder, even across disks: there it is first copied under a hidden name beside `to`, so
/// that `to` is either complete or absent. A file at `to` is replaced.
///
/// # Errors
/// If it cannot be read or written; `from` is then kept.
pub fn move_to(from: &Path, to: &Path) -> Result<()> {
    match std::fs::rename(from, to) {
        Err(error) if error.kind() == ErrorKind::CrossesDevices => move_across(from, to),
        done => done.at(to),
    }
}

fn move_across(from: &Path, to: &Path) -> Result<()> {
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let beside = tempfile::Builder::new().prefix(".").suffix(".tmp").tempdir_in(folder).at(folder)?;
    let copy = beside.path().join("copy");
    copy_all(from, &copy)?;
    std::fs::rename(&copy, to).at(to)?;
    if from.is_dir() { std::fs::remove_dir_all(from).at(from) } else { remove(from) }
}

fn copy_all(from: &Path, to: &Path) -> Result<()> {
    if !from.is_dir() {
        return std::fs::copy(from, to).at(to).map(|_| ());
    }
    std::fs::create_dir(to).at(to)?;
    for entry in std::fs::read_dir(from).at(from)? {
        let entry = entry.at(from)?;
        copy_all(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

/// Returns `name` as a path below `folder`.
///
/// # Errors
/// If `name` is not relative, or has an empty component, `.`, `..`, a backslash or a control character.
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
        Err(Error::request(format!("the name `{}` points outside its folder", name.escape_debug())))
    }
}

/// Normalizes a name from a list or an archive: `/` between components, no leading `./`. [`inside`] checks
/// whether it stays in its folder.
pub fn relative_name(name: &str) -> String {
    let name = name.replace('\\', "/");
    let mut rest = name.as_str();
    while let Some(shorter) = rest.strip_prefix("./") {
        rest = shorter;
    }
    if rest == "." { String::new() } else { rest.to_owned() }
}

/// Removes a file if it exists.
///
/// # Errors
/// If it exists and cannot be removed.
pub fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).at(path),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lists the contents of `folder`, including hidden files.
    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[cfg(unix)]
    #[test]
    fn writing_keeps_a_link_and_replaces_its_target() {
        use std::os::unix::fs::symlink;
        let here = tempfile::tempdir().unwrap();
        let at = |name: &str| here.path().join(name);
        std::fs::create_dir(at("far")).unwrap();
        std::fs::write(at("far/old"), "old").unwrap();
        symlink("far/old", at("link")).unwrap();
        symlink("link", at("second")).unwrap();
        symlink("far/new", at("dangling")).unwrap();
        for (link, target) in [("link", "far/old"), ("second", "far/old"), ("dangling", "far/new")] {
            write_atomically(&at(link), link.as_bytes()).unwrap();
            assert!(at(link).is_symlink(), "{link} was replaced");
            assert_eq!(std::fs::read_to_string(at(target)).unwrap(), link);
        }
        assert_eq!(names(&at("far")), ["new", "old"]);

        symlink("circle", at("circle")).unwrap();
        let error = write_atomically(&at("circle"), b"").unwrap_err().to_string();
        assert!(error.contains("circle: goes through too many links"), "{error}");
        let error = write_atomically(&at("far"), b"").unwrap_err().to_string();
        assert!(error.contains("is a folder, expected a file"), "{error}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn writing_keeps_a_pipe_or_device() {
        use std::io::Read;
        use std::os::unix::fs::{FileTypeExt, symlink};
        let here = tempfile::tempdir().unwrap();
        let pipe = here.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let reader = {
            let pipe = pipe.clone();
            std::thread::spawn(move || {
                let mut read = String::new();
                File::open(pipe).unwrap().read_to_string(&mut read).unwrap();
                read
            })
        };
        write_atomically(&pipe, b"bytes").unwrap();
        assert_eq!(reader.join().unwrap(), "bytes");
        assert!(pipe.symlink_metadata().unwrap().file_type().is_fifo());

        let (null, full) = (here.path().join("null"), here.path().join("full"));
        symlink("/dev/null", &null).unwrap();
        symlink("/dev/full", &full).unwrap();
        write_atomically(&null, b"bytes").unwrap();
        let error = write_atomically(&full, b"bytes").unwrap_err().to_string();
        assert!(error.contains("full") && error.contains("No space left"), "{error}");
        assert_eq!(names(here.path()), ["full", "null", "pipe"]);

        // Standard output, whatever is behind it: the link to it is not replaced.
        let output = here.path().join("stdout");
        symlink("/proc/self/fd/1", &output).unwrap();
        write_atomically(&output, b"").unwrap();
        assert!(output.is_symlink());
        assert!(matches!(Destination::of(Path::new("/dev/stdout")).unwrap(), Destination::Stdout));
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_moves_onto_another_disk() {
        use std::os::unix::fs::MetadataExt;
        let here = tempfile::tempdir().unwrap();
        let Some(other) = tempfile::tempdir_in("/dev/shm").ok().filter(|other| {
            let disk = |folder: &Path| folder.metadata().unwrap().dev();
            disk(other.path()) != disk(here.path())
        }) else {
            eprintln!("skipped: /dev/shm is not a separate disk");
            return;
        };
        let fill = |folder: &Path| {
            std::fs::create_dir_all(folder.join("deep")).unwrap();
            std::fs::write(folder.join("deep/a"), "a").unwrap();
        };
        let (from, to) = (here.path().join("from"), other.path().join("to"));
        fill(&from);
        assert_eq!(std::fs::rename(&from, &to).unwrap_err().kind(), ErrorKind::CrossesDevices);
        move_to(&from, &to).unwrap();
        assert_eq!(std::fs::read_to_string(to.join("deep/a")).unwrap(), "a");
        assert!(!from.exists());

        // A single file replaces an existing one.
        let file = here.path().join("file");
        std::fs::write(&file, "new").unwrap();
        move_to(&file, &to.join("deep/a")).unwrap();
        assert_eq!(std::fs::read_to_string(to.join("deep/a")).unwrap(), "new");
        assert_eq!((names(other.path()), names(&to.join("deep"))), (vec!["to".into()], vec!["a".into()]));
    }

    #[test]
    fn names_from_other_tools_are_normalized() {
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
