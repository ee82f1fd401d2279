//! `cargo xtask fuzz`: mutated inputs for every reader of foreign bytes, on a stable compiler.
//!
//! The work is done by `tests/fuzz.rs`, in processes of the test binary: one that hangs, overflows its stack or runs out of memory
//! ends alone, and the input that it was reading is kept.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{console, test};

/// Arguments of `fuzz`.
#[derive(Debug, clap::Args)]
pub struct FuzzArgs {
    /// How long each target is fed
    #[arg(long, value_name = "N", default_value_t = 10.0)]
    minutes: f64,

    /// Only this target (repeatable) [default: all in src/fuzzing.rs]
    #[arg(long = "target", value_name = "TARGET")]
    targets: Vec<String>,

    /// Another start of the random numbers
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Milliseconds that an input may take
    #[arg(long, value_name = "N", default_value_t = 1000)]
    limit: u64,

    /// Where inputs that fail are kept
    #[arg(long, value_name = "DIR", default_value = "fuzz/failures")]
    failures: PathBuf,

    /// Only write the undamaged inputs of each target to fuzz/corpus/, for cargo-fuzz
    #[arg(long)]
    make_corpus: bool,
}

const TEST: &str = "fuzz::no_reader_panics_hangs_or_takes_much_memory";

/// Feeds the targets, as many at once as there are cores.
///
/// # Errors
/// If an input failed, or the tests cannot be built.
pub fn command(root: &Path, options: &FuzzArgs) -> Result<()> {
    let binary = test::build_tests(root)?;
    let worker = |binary: &Path| {
        let mut worker = Command::new(binary);
        worker.current_dir(root).args(["--exact", TEST, "--nocapture", "--test-threads", "1"]);
        worker.stdin(Stdio::null());
        worker
    };
    if options.make_corpus {
        let status = worker(&binary).env("TERRABENCH_FUZZ_CORPUS", root.join("fuzz/corpus")).status()?;
        return if status.success() { Ok(()) } else { bail!("the corpus could not be written: {status}") };
    }
    let known = targets(root)?;
    if let Some(unknown) = options.targets.iter().find(|target| !known.contains(target)) {
        bail!("no target `{unknown}`; there are {}", known.join(", "));
    }
    let chosen = if options.targets.is_empty() { known } else { options.targets.clone() };
    let queue = Mutex::new(VecDeque::from(chosen));
    let failures = root.join(&options.failures);
    std::fs::create_dir_all(&failures).with_context(|| failures.display().to_string())?;
    let before = kept(&failures)?;
    // Every input is written to a file. On a disk the workers mostly wait for that.
    let memory = Path::new("/dev/shm");
    let scratch = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }?;
    // A build meanwhile replaces the binary, and workers start one after the other.
    let copy = scratch.path().join("tests").with_extension(std::env::consts::EXE_EXTENSION);
    std::fs::copy(&binary, &copy).with_context(|| format!("cannot copy {}", binary.display()))?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let next = || queue.lock().ok()?.pop_front();
    let work = || -> Result<()> {
        while let Some(target) = next() {
            feed(&|| worker(&copy), &target, options, &failures, scratch.path())?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(done) => done,
            Err(_) => bail!("a thread of this program failed"),
        })
    })?;
    let new = kept(&failures)?.saturating_sub(before);
    match new {
        0 => Ok(()),
        new => bail!(
            "{new} inputs failed; they are in {}. What is repaired goes to fuzz/corpus/TARGET/, where the tests read it",
            failures.display()
        ),
    }
}

/// Runs workers on one target until its time is over. A worker that dies is followed by another with other random numbers.
fn feed(
    worker: &dyn Fn() -> Command,
    target: &str,
    options: &FuzzArgs,
    failures: &Path,
    scratch: &Path,
) -> Result<()> {
    let end = Instant::now() + Duration::from_secs_f64(60.0 * options.minutes);
    for round in 0.. {
        let left = end.saturating_duration_since(Instant::now()).as_secs();
        if left == 0 {
            break;
        }
        let mut worker = worker();
        worker.env("TERRABENCH_FUZZ", target).env("TERRABENCH_FUZZ_SECONDS", left.to_string());
        worker.env("TERRABENCH_FUZZ_FAILURES", failures).env("TMPDIR", scratch);
        worker.env("TERRABENCH_FUZZ_LIMIT", options.limit.to_string());
        let seed = options.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(round);
        worker.env("TERRABENCH_FUZZ_SEED", seed.to_string());
        let output = worker.stdout(Stdio::piped()).output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        // The test's name may stand before it on the same line.
        let about = format!("fuzz {target}: ");
        said.lines()
            .filter_map(|line| line.find(&about).map(|place| &line[place..]))
            .for_each(|line| console::tell(format_args!("{line}\n")));
        if output.status.success() {
            break;
        }
        let current = scratch.join(format!("current-{target}"));
        if !current.exists() {
            bail!("{target}: the worker ended without an input: {}\n{said}", output.status);
        }
        let kept = failures.join(format!("{target}-crash-{:x}-{round}", options.seed));
        std::fs::copy(&current, &kept)?;
        std::fs::remove_file(&current)?;
        console::note(format_args!("{target}: {} while reading {}", output.status, kept.display()));
    }
    Ok(())
}

/// The names in the list of `src/fuzzing.rs`.
fn targets(root: &Path) -> Result<Vec<String>> {
    let path = root.join("src/fuzzing.rs");
    let source = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let list = source.split_once("pub const TARGETS").context("src/fuzzing.rs lists no targets")?.1;
    let list = list.split_once("];").map_or(list, |(list, _)| list);
    let named =
        list.lines().filter_map(|line| Some(line.trim().strip_prefix("(\"")?.split_once('"')?.0.to_owned()));
    Ok(named.collect())
}

fn kept(folder: &Path) -> Result<usize> {
    Ok(std::fs::read_dir(folder)?.filter_map(Result::ok).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_from_the_source() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let targets = targets(root).unwrap();
        assert!(targets.len() > 10 && targets.contains(&"pickle".to_owned()), "{targets:?}");
    }
}
