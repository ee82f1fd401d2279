//! `cargo xtask faults`: kills, starves and disturbs runs of the real program, resumes them, and compares what they leave with an
//! undisturbed run. A short form runs with the tests, which compile this file too.
//!
//! Every time: success or an error that says so; records whole or absent; after another run all files equal, byte for byte, to those
//! of the undisturbed run, but for times and speeds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// Arguments of `faults`.
#[derive(Debug, Clone, clap::Args)]
pub struct FaultArgs {
    /// Disturb each kind of work only a few times
    #[arg(long)]
    pub quick: bool,

    /// Kill each kind of work so many times [default: 50; with --quick 3]
    #[arg(long, value_name = "N")]
    pub kills: Option<usize>,

    /// Only this kind of work (repeatable): extraction, sweep, probe, fine-tuning, upernet, prepare, report, update
    #[arg(long = "work", value_name = "WORK")]
    pub works: Vec<String>,
}

/// What became of one kind of work under one kind of fault.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The work.
    pub work: String,
    /// The fault.
    pub fault: String,
    /// How often it was tried.
    pub tried: usize,
    /// How often everything was as it should be.
    pub survived: usize,
    /// What was wrong in the other cases.
    pub lost: Vec<String>,
    /// Wall-clock seconds of all tries.
    pub seconds: f64,
}

/// A kind of work.
struct Work {
    name: &'static str,
    /// Words of the command; `OUT` is the folder to write, `DATA` the data in official layout, `DONE` finished results.
    words: &'static [&'static str],
}

const WORKS: [Work; 8] = [
    Work {
        name: "extraction",
        words: &[
            "bench",
            "geobench",
            "--demo",
            "--task",
            "m-eurosat",
            "--task",
            "m-brick-kiln",
            "--partition",
            "default",
            "--protocol",
            "knn",
            "--model",
            "demo",
            "--out",
            "OUT",
        ],
    },
    Work {
        name: "sweep",
        words: &[
            "bench",
            "geobench",
            "--demo",
            "--task",
            "m-brick-kiln",
            "--partition",
            "default",
            "--protocol",
            "knn",
            "--normalization",
            "sweep",
            "--model",
            "demo",
            "--out",
            "OUT",
        ],
    },
    Work {
        name: "probe",
        words: &[
            "bench",
            "geobench",
            "--demo",
            "--task",
            "m-eurosat",
            "--partition",
            "default",
            "--protocol",
            "linear-probe",
            "--out",
            "OUT",
        ],
    },
    Work {
        name: "fine-tuning",
        words: &[
            "bench",
            "geobench",
            "--demo",
            "--task",
            "m-eurosat",
            "--partition",
            "default",
            "--protocol",
            "finetune",
            "--epochs",
            "3",
            "--learning-rates",
            "1e-4,1e-3",
            "--limit",
            "12",
            "--out",
            "OUT",
        ],
    },
    Work {
        name: "upernet",
        words: &[
            "bench",
            "demo",
            "--demo",
            "--task",
            "demo-tree-height",
            "--protocol",
            "upernet",
            "--epochs",
            "2",
            "--limit",
            "16",
            "--out",
            "OUT",
        ],
    },
    Work {
        name: "prepare",
        words: &["prepare", "geobench", "--task", "m-eurosat", "--data", "DATA", "--to", "OUT"],
    },
    Work { name: "report", words: &["report", "--results", "DONE", "--out", "OUT"] },
    Work { name: "update", words: &["check", "--records", "DONE", "--reference", "OUT", "--update"] },
];

/// The longest that one run may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(300);

/// Where the runs take place.
pub struct Ground {
    program: PathBuf,
    folder: PathBuf,
    /// Generated data, which every run's own cache leads to.
    base: PathBuf,
    shim: Option<PathBuf>,
    random: u64,
    /// Counts the folders of runs.
    runs: usize,
    /// What each kind of work leaves undisturbed, and how long it takes.
    expected: BTreeMap<&'static str, (Files, Duration)>,
}

/// One run's folders.
struct Place {
    cache: PathBuf,
    out: PathBuf,
}

/// Files by path, without what may differ.
type Files = BTreeMap<String, Vec<u8>>;

impl Ground {
    /// Makes the generated data with `program` in `folder`, which must not exist or be left by an earlier call.
    ///
    /// # Errors
    /// If the program cannot make them.
    pub fn new(program: &Path, folder: &Path) -> Result<Self> {
        if folder.exists() {
            std::fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let folder = std::fs::canonicalize(folder)?;
        let mut ground = Ground {
            program: std::fs::canonicalize(program)?,
            base: folder.join("base"),
            shim: None,
            random: 0x9e37_79b9_7f4a_7c15,
            runs: 0,
            expected: BTreeMap::new(),
            folder,
        };
        let done = ground.folder.join("done");
        let mut demo = Command::new(&ground.program);
        demo.args([
            "bench",
            "geobench",
            "--demo",
            "--task",
            "m-eurosat",
            "--partition",
            "default",
            "--no-cache",
        ]);
        demo.args(["--model", "demo", "--protocol", "knn", "--out"]).arg(&done);
        let output = demo.env("TERRABENCH_CACHE", &ground.base).output()?;
        ensure!(output.status.success(), "the demo fails undisturbed: {}", told(&output));
        ground.shim = ground.build_shim();
        Ok(ground)
    }

    /// Compiles the library that disturbs calls of the system; `None` where that is not possible.
    fn build_shim(&self) -> Option<PathBuf> {
        if !cfg!(target_os = "linux") {
            return None;
        }
        let (source, library) = (self.folder.join("shim.c"), self.folder.join("shim.so"));
        std::fs::write(&source, include_str!("faults/shim.c")).ok()?;
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).arg("-ldl");
        let done = cc.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        done.is_ok_and(|status| status.success()).then_some(library)
    }

    /// A number below 1.
    fn random(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// New folders, in which only the generated data are.
    fn place(&mut self) -> Result<Place> {
        self.runs += 1;
        let folder = self.folder.join(format!("run{}", self.runs));
        let place = Place { cache: folder.join("cache"), out: folder.join("out") };
        self.furnish(&place)?;
        Ok(place)
    }

    /// Lets the cache lead to the generated data.
    fn furnish(&self, place: &Place) -> Result<()> {
        std::fs::create_dir_all(&place.cache)?;
        for entry in std::fs::read_dir(&self.base)? {
            let entry = entry?;
            let to = place.cache.join(entry.file_name());
            if entry.path().is_dir() && !to.exists() {
                link(&entry.path(), &to)?;
            }
        }
        Ok(())
    }

    /// The folder of the generated data in official layout.
    fn data(&self) -> Result<PathBuf> {
        let entries = std::fs::read_dir(&self.base)?.filter_map(Result::ok).map(|entry| entry.path());
        entries
            .into_iter()
            .find(|path| path.join("classification_v1.0").is_dir())
            .context("no generated data")
    }

    fn command(&self, work: &Work, place: &Place) -> Result<Command> {
        let mut command = Command::new(&self.program);
        command.env("TERRABENCH_CACHE", &place.cache).env_remove("GEO_BENCH_DIR");
        command.current_dir(&self.folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        for word in work.words {
            match *word {
                "OUT" => command.arg(&place.out),
                "DATA" => command.arg(self.data()?),
                "DONE" => command.arg(self.folder.join("done")),
                word => command.arg(word),
            };
        }
        Ok(command)
    }

    /// Runs the work to its end, which must be a success, and returns the files and how long it took.
    fn undisturbed(&mut self, work: &Work) -> Result<(Files, Duration)> {
        let place = self.place()?;
        let start = Instant::now();
        let output = self.command(work, &place)?.output()?;
        ensure!(output.status.success(), "{} fails undisturbed: {}", work.name, told(&output));
        Ok((files(&place.out)?, start.elapsed()))
    }

    /// Runs the work again in a place where it was disturbed, and compares. Returns what is wrong.
    fn resumed(&self, work: &Work, place: &Place, expected: &Files) -> Result<Option<String>> {
        self.furnish(place)?;
        let output = self.command(work, place)?.output()?;
        if !output.status.success() {
            return Ok(Some(format!("cannot be resumed: {}", told(&output))));
        }
        Ok(difference(expected, &files(&place.out)?))
    }

    /// Tries a fault several times. `disturb` disturbs one run, and returns what is wrong with how it ended.
    fn tries(
        &mut self,
        work: &Work,
        fault: &str,
        count: usize,
        mut disturb: impl FnMut(&mut Self, &Place, Duration) -> Result<Option<String>>,
    ) -> Result<Row> {
        let (expected, length) = match self.expected.remove(work.name) {
            Some(expected) => expected,
            None => self.undisturbed(work)?,
        };
        let start = Instant::now();
        let mut row = Row {
            work: work.name.to_owned(),
            fault: fault.to_owned(),
            tried: count,
            survived: 0,
            lost: Vec::new(),
            seconds: 0.0,
        };
        for _ in 0..count {
            let place = self.place()?;
            let mut wrong = disturb(self, &place, length)?;
            wrong = wrong.or(broken_record(&place.out)?);
            if wrong.is_none() {
                wrong = self.resumed(work, &place, &expected)?;
            }
            match wrong {
                None => {
                    row.survived += 1;
                    if let Some(folder) = place.out.parent() {
                        std::fs::remove_dir_all(folder).ok();
                    }
                }
                Some(wrong) => row.lost.push(format!("{}: {wrong}", place.out.display())),
            }
        }
        row.seconds = start.elapsed().as_secs_f64();
        self.expected.insert(work.name, (expected, length));
        Ok(row)
    }

    /// Kills the work at random moments.
    fn kills(&mut self, work: &Work, count: usize) -> Result<Row> {
        self.tries(work, "SIGKILL", count, |ground, place, length| {
            let mut child = ground.command(work, place)?.stderr(Stdio::null()).spawn()?;
            std::thread::sleep(length.mul_f64(ground.random()));
            child.kill().ok();
            child.wait()?;
            Ok(None)
        })
    }

    /// Lets calls of the system fail that concern files whose path contains `part`; `None` without the library for it.
    fn failing_calls(&mut self, work: &Work, kind: &str, part: &str, count: usize) -> Result<Option<Row>> {
        let Some(shim) = self.shim.clone() else { return Ok(None) };
        let mut try_number = 0;
        let fault = format!("{kind} in {part}");
        let row = self.tries(work, &fault, count, |ground, place, _| {
            let mut command = ground.command(work, place)?;
            command.env("LD_PRELOAD", &shim).env("FAULT_KIND", kind).env("FAULT_PATH", part);
            // From the first call on, then later and later.
            command.env("FAULT_AFTER", (try_number * try_number).to_string());
            try_number += 1;
            let output = finished(command.spawn()?)?;
            Ok(unclear(&output))
        });
        row.map(Some)
    }

    /// Runs the work in several processes on the same folders.
    fn at_once(&mut self, work: &Work, processes: usize, count: usize) -> Result<Row> {
        self.tries(work, &format!("{processes} processes at once"), count, |ground, place, _| {
            let children: Vec<Child> =
                (0..processes).map(|_| Ok(ground.command(work, place)?.spawn()?)).collect::<Result<_>>()?;
            for child in children {
                let output = finished(child)?;
                if !output.status.success() {
                    return Ok(Some(format!("one of the processes failed: {}", told(&output))));
                }
            }
            Ok(None)
        })
    }

    /// Removes the cache while the work runs.
    fn without_cache(&mut self, work: &Work, count: usize) -> Result<Row> {
        self.tries(work, "cache removed", count, |ground, place, length| {
            let child = ground.command(work, place)?.spawn()?;
            std::thread::sleep(length.mul_f64(ground.random()));
            for entry in std::fs::read_dir(&place.cache).into_iter().flatten().flatten() {
                let path = entry.path();
                // Links to the generated data go, not the data.
                std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir_all(&path)).ok();
            }
            Ok(unclear(&finished(child)?))
        })
    }

    /// Fills a small disk in memory with the results; `None` where none can be had.
    fn full_disk(&mut self, work: &Work, count: usize) -> Result<Option<Row>> {
        let disk = self.folder.join("small-disk");
        std::fs::create_dir_all(&disk)?;
        let mount = |size: &str| {
            let mut mount = Command::new("mount");
            mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"]).arg(&disk);
            mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
        };
        let unmount = || Command::new("umount").arg(&disk).stderr(Stdio::null()).status().is_ok();
        if !mount("4k") {
            return Ok(None);
        }
        unmount();
        let mut size = 4;
        let row = self.tries(work, "full disk", count, |ground, place, _| {
            if !mount(&format!("{size}k")) {
                bail!("{}: cannot be mounted again", disk.display());
            }
            size *= 3;
            let small = Place { cache: place.cache.clone(), out: disk.join("out") };
            let output = ground.command(work, &small)?.output();
            let wrong = output.map(|output| unclear(&output));
            let broken = broken_record(&small.out);
            // What is there is taken along to the large disk.
            let copied = copy(&small.out, &place.out);
            unmount();
            copied?;
            Ok(wrong?.or(broken?))
        });
        unmount();
        row.map(Some)
    }
}

#[cfg(unix)]
fn link(from: &Path, to: &Path) -> Result<()> {
    Ok(std::os::unix::fs::symlink(from, to)?)
}

#[cfg(not(unix))]
fn link(from: &Path, to: &Path) -> Result<()> {
    copy(from, to)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if !from.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &to)?,
            false => drop(std::fs::copy(entry.path(), to)?),
        }
    }
    Ok(())
}

/// The end of what a run wrote to standard error.
fn told(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text.lines().collect();
    format!("{}: {}", output.status, lines[lines.len().saturating_sub(6)..].join(" | "))
}

/// Waits for the end of a run, which must come.
fn finished(child: Child) -> Result<Output> {
    // A thread reads what it says; the process is ended from here if it hangs.
    let id = child.id();
    let (sender, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    match end.recv_timeout(PATIENCE) {
        Ok(output) => Ok(output?),
        Err(_) => {
            Command::new("kill").args(["-9", &id.to_string()]).status().ok();
            bail!("a run hangs")
        }
    }
}

/// `terrabench::cli::SOME_UNREADABLE`: what was asked for is done, but tables lack records that could not be read.
const SOME_UNREADABLE: i32 = 3;

/// What is wrong with how a disturbed run ended: neither a success nor an error that says so.
fn unclear(output: &Output) -> Option<String> {
    let said = String::from_utf8_lossy(&output.stderr);
    let names_unreadable = output.status.code() == Some(SOME_UNREADABLE) && said.contains("warning: skipped");
    let is_clear =
        output.status.success() || said.contains("error: ") || said.contains("failed") || names_unreadable;
    if said.contains("panicked") || !is_clear || output.status.code().is_none() {
        return Some(format!("ended without a clear error: {}", told(output)));
    }
    None
}

/// Names a record that is not whole.
fn broken_record(out: &Path) -> Result<Option<String>> {
    for (path, bytes) in files(out)? {
        let is_record = path.contains("records/") && path.ends_with(".json");
        let is_whole = bytes.starts_with(b"{") && bytes.ends_with(b"}\n") && bytes.len() > 200;
        if is_record && !is_whole {
            return Ok(Some(format!("{path} is not whole")));
        }
    }
    Ok(None)
}

/// Reads all files below a folder; of records without times and speeds, and without the log.
fn files(folder: &Path) -> Result<Files> {
    let mut found = Files::new();
    let mut open = vec![folder.to_owned()];
    while let Some(current) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&current) else { continue };
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let is_ours = !name.starts_with('.') && name != "bench.log";
            if path.is_dir() {
                open.push(path);
            } else if is_ours {
                let bytes = std::fs::read(&path)?;
                let below = path.strip_prefix(folder)?.to_string_lossy().into_owned();
                let is_text = [".json", ".md", ".csv", ".html", ".tex"].iter().any(|end| name.ends_with(end));
                found.insert(below, if is_text { timeless(&bytes) } else { bytes });
            }
        }
    }
    Ok(found)
}

/// Removes times and speeds from the lines of a record.
fn timeless(bytes: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(bytes);
    let mut kept = String::new();
    let mut in_speed = false;
    for line in text.lines() {
        let start = line.trim_start();
        if start.starts_with("\"speed\": {") {
            in_speed = true;
        }
        let is_time = start.starts_with("\"finished\"") || start.starts_with("\"wall-seconds\"");
        if !in_speed && !is_time {
            kept.push_str(line);
            kept.push('\n');
        }
        if in_speed && start.starts_with('}') {
            in_speed = false;
        }
    }
    kept.into_bytes()
}

/// Names a file that differs from the expected ones.
fn difference(expected: &Files, found: &Files) -> Option<String> {
    let missing =
        expected.keys().find(|path| !found.contains_key(*path)).map(|path| format!("{path} is missing"));
    let extra =
        found.keys().find(|path| !expected.contains_key(*path)).map(|path| format!("{path} is left over"));
    let other = expected.iter().find(|(path, bytes)| found.get(*path).is_some_and(|other| other != *bytes));
    missing.or(extra).or_else(|| other.map(|(path, _)| format!("{path} differs")))
}

/// Which faults are tried, and how often.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// Kills of each kind of work.
    pub kills: usize,
    /// Tries of each other fault.
    pub others: usize,
    /// Whether works other than the extraction are disturbed in other ways than by kills.
    pub all_works: bool,
}

/// Disturbs the works and returns a row for each of their faults.
///
/// # Errors
/// If a work fails undisturbed.
pub fn disturb(ground: &mut Ground, works: &[String], extent: Extent) -> Result<Vec<Row>> {
    if let Some(unknown) = works.iter().find(|name| WORKS.iter().all(|work| work.name != **name)) {
        let names: Vec<&str> = WORKS.iter().map(|work| work.name).collect();
        bail!("no work `{unknown}`; there are {}", names.join(", "));
    }
    let mut rows = Vec::new();
    for work in WORKS.iter().filter(|work| works.is_empty() || works.iter().any(|name| name == work.name)) {
        rows.push(ground.kills(work, extent.kills)?);
        if work.name != "extraction" && !extent.all_works {
            continue;
        }
        let count = extent.others;
        let parts: &[(&str, &str)] = match work.name {
            "extraction" => &[
                ("no-space", "/features/"),
                ("no-space", "/records/"),
                ("no-space", "/predictions/"),
                ("write-error", "/out/"),
                ("read-error", ".hdf5"),
                ("short-reads", ".hdf5"),
                ("short-writes", "/out/"),
                ("no-access", "/records/"),
                ("vanished", "_partition.json"),
                ("slow", "/out/"),
                ("clock", ""),
            ],
            "fine-tuning" | "upernet" => &[("no-space", "/checkpoints/"), ("read-error", "/checkpoints/")],
            "prepare" => &[("no-space", "/out/"), ("read-error", ".hdf5"), ("short-reads", ".hdf5")],
            _ => &[("no-space", "/out/"), ("write-error", "/out/"), ("no-access", "/records/")],
        };
        for (kind, part) in parts {
            rows.extend(ground.failing_calls(work, kind, part, count)?);
        }
        if work.words.contains(&"bench") {
            rows.push(ground.at_once(work, 2, count)?);
            rows.push(ground.without_cache(work, count)?);
        }
        if work.name == "extraction" && extent.all_works {
            rows.push(ground.at_once(work, 4, count)?);
        }
        rows.extend(ground.full_disk(work, 2 * count)?);
    }
    Ok(rows)
}

/// Formats the rows as a table.
pub fn table(rows: &[Row]) -> String {
    let mut table =
        format!("{:<12} {:<28} {:>5} {:>8} {:>4} {:>7}\n", "work", "fault", "tried", "survived", "lost", "s");
    for row in rows {
        let Row { work, fault, tried, survived, lost, seconds } = row;
        table.push_str(&format!(
            "{work:<12} {fault:<28} {tried:>5} {survived:>8} {:>4} {seconds:>7.1}\n",
            lost.len()
        ));
    }
    table
}

/// Runs the command: prints the table and fails if anything was lost.
///
/// # Errors
/// If a work fails undisturbed, or something was lost.
#[allow(dead_code, reason = "the tests call its parts")]
pub fn command(program: &Path, folder: &Path, options: &FaultArgs, tell: fn(&str)) -> Result<()> {
    let mut ground = Ground::new(program, folder)?;
    let extent = Extent {
        kills: options.kills.unwrap_or(if options.quick { 3 } else { 50 }),
        others: if options.quick { 1 } else { 5 },
        all_works: !options.quick,
    };
    let mut rows = Vec::new();
    let works: Vec<String> = match options.works.as_slice() {
        [] => WORKS.iter().map(|work| work.name.to_owned()).collect(),
        some => some.to_vec(),
    };
    for work in works {
        let new = disturb(&mut ground, &[work], extent)?;
        tell(&table(&new));
        rows.extend(new);
    }
    let lost: Vec<&String> = rows.iter().flat_map(|row| &row.lost).collect();
    if ground.shim.is_none() {
        tell("skipped: no C compiler (cc) for failing calls of the system");
    }
    tell("not tried here: a killed fetch, which tests/fetch.rs resumes against a hub of its own");
    match lost.as_slice() {
        [] => Ok(std::fs::remove_dir_all(folder)?),
        some => bail!(
            "{} runs lost something:\n{}",
            some.len(),
            some.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
        ),
    }
}
