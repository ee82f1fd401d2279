//! Several processes on one results folder: each cell once, the same records as one process, and cells of killed ones taken over.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use terrabench::claims::Holder;
use terrabench::home::Home;
use terrabench::record::{Record, Store};
use terrabench::task::Suite;

use crate::common::{fixture, python, records};
use crate::hub_server::Server;

/// A folder of a test's own, and generated data in the official layout, which tests that run at the same time share.
pub struct Ground {
    folder: tempfile::TempDir,
    shared: Arc<GeneratedData>,
}

struct GeneratedData {
    _folder: tempfile::TempDir,
    data: PathBuf,
}

const ARGUMENTS: &str = "geobench --model image-stats --partition 0.01x_train --protocol knn --protocol retrieval \
                         --task m-eurosat --task m-brick-kiln --task m-so2sat --seed 0 --seed 1";

impl Ground {
    pub fn new() -> Self {
        static SHARED: Mutex<Weak<GeneratedData>> = Mutex::new(Weak::new());
        let mut known = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = known.upgrade().unwrap_or_else(|| {
            let folder = tempfile::tempdir().unwrap();
            let suite = Suite::load(&Home::find().unwrap(), "geobench").unwrap();
            let data = terrabench::demo::provide(&suite, folder.path()).unwrap();
            Arc::new(GeneratedData { _folder: folder, data })
        });
        *known = Arc::downgrade(&shared);
        drop(known);
        Ground { folder: tempfile::tempdir().unwrap(), shared }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The arguments of `bench`, on the generated data.
    pub fn arguments(&self, arguments: &str) -> String {
        format!("{arguments} --data {}", self.shared.data.display())
    }

    pub fn command(&self, cache: &str, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_terrabench"));
        command.env_remove("GEO_BENCH_DIR").env("TERRABENCH_CACHE", self.path(cache));
        command.args(words).current_dir(self.folder.path());
        command
    }

    fn bench(&self, cache: &str, out: &str, more: &str) -> Command {
        let line = format!("bench {} --out {out} {more}", self.arguments(ARGUMENTS));
        self.command(cache, &line.split_whitespace().collect::<Vec<_>>())
    }

    fn results(&self, out: &str) -> PathBuf {
        self.path(out).join("geobench")
    }
}

fn started(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Waits for a process, which must succeed, and returns what it said.
fn ended(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    said(&output)
}

/// Waits until `condition` gives something.
pub fn until<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(start.elapsed() < limit, "{what}: not after {limit:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Names of the files in a folder, without hidden ones.
fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    names
}

/// Everything below a folder but records (which hold times) and claims.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder).unwrap().to_string_lossy().into_owned();
            match path.is_dir() {
                true if ["records", "claims"].contains(&&*name) => {}
                true => folders.push(path),
                // The log holds times.
                false if name == "bench.log" => {}
                false => drop(files.insert(name, std::fs::read(path).unwrap())),
            }
        }
    }
    files
}

#[test]
fn two_and_four_processes_compute_each_cell_once_with_the_records_of_one() {
    let ground = Ground::new();
    ended(started(&mut ground.bench("cache-1", "one", "")));
    let expected = records(&ground.results("one"));
    assert_eq!(expected.len(), 12);
    assert!(!ground.results("one").join("claims").exists(), "nothing is left when all is recorded");
    for count in [2, 4] {
        let (out, cache) = (format!("of-{count}"), format!("cache-{count}"));
        let worker = |number: usize| {
            started(&mut ground.bench(&cache, &out, &format!("--worker {number} --progress json")))
        };
        let children: Vec<Child> = (0..count).map(worker).collect();
        let told: Vec<String> = children.into_iter().map(ended).collect();
        assert_eq!(records(&ground.results(&out)), expected, "{count} processes");
        // Each process tells of each cell; only the one that computed it does so without "recorded before".
        let results = told.iter().flat_map(|told| told.lines());
        let results = results.filter(|line| line.contains(" seed 0: ") || line.contains(" seed 1: "));
        let (before, new): (Vec<&str>, Vec<&str>) =
            results.partition(|line| line.contains("recorded before"));
        assert_eq!((new.len(), before.len()), (12, 12 * (count - 1)), "{told:#?}");
        // Features were extracted once: no other process began the same step.
        let begun = |task: &str| {
            let step = format!("\"{task} test\"");
            told.iter().filter(|told| told.contains(&step)).count()
        };
        for task in ["m-eurosat", "m-brick-kiln", "m-so2sat"] {
            assert_eq!(begun(task), 1, "{task} of {count} processes: {told:#?}");
        }
        assert_eq!(files(&ground.results(&out)), files(&ground.results("one")), "{count} processes");
        assert!(!ground.results(&out).join("claims").exists());
    }
}

#[test]
fn a_dead_processes_cell_is_taken_over_and_a_living_ones_waited_for() {
    let ground = Ground::new();
    ended(started(&mut ground.bench("cache", "out", "")));
    let expected = records(&ground.results("out"));
    let store = Store::open(ground.results("out")).unwrap();
    let lost: Vec<Record> = store.all().unwrap().into_iter().take(2).collect();
    lost.iter().for_each(|record| store.remove(record).unwrap());
    let claims = ground.results("out").join("claims");
    std::fs::create_dir_all(&claims).unwrap();
    for record in &lost {
        let mut holder = Holder::here("a cell", Duration::from_millis(800));
        (holder.host, holder.machine) = ("lost-node".to_owned(), "another".to_owned());
        let text = serde_json::to_string(&holder).unwrap();
        std::fs::write(claims.join(format!("{}.0", record.fingerprint)), text).unwrap();
    }
    let told = ended(started(&mut ground.bench("cache", "out", "")));
    assert!(told.contains("waiting for 2 cells of other processes") && told.contains("lost-node"), "{told}");
    assert_eq!(records(&ground.results("out")), expected);
    assert!(!claims.exists(), "{:?}", names(&claims));
}

#[test]
fn a_killed_processes_training_goes_on_from_its_snapshot_in_another() {
    let ground = Ground::new();
    let words = "bench geobench --model demo --weights random:0 --task m-eurosat --partition 0.01x_train --protocol finetune \
                 --epochs 3 --learning-rates 1e-4 --limit 12";
    let line = |out: &str| format!("{} --out {out}", ground.arguments(words));
    let bench = |out: &str| ground.command("cache", &line(out).split_whitespace().collect::<Vec<_>>());
    ended(started(&mut bench("one")));
    let mut killed = started(&mut bench("two"));
    until("a snapshot", Duration::from_secs(300), || {
        (!names(&ground.results("two").join("checkpoints")).is_empty()).then_some(())
    });
    let waiting = started(&mut bench("two"));
    std::thread::sleep(Duration::from_millis(100));
    killed.kill().unwrap();
    killed.wait().unwrap();
    let told = ended(waiting);
    assert_eq!(records(&ground.results("two")), records(&ground.results("one")), "{told}");
    assert!(told.contains("continuing with learning rate") || told.contains("recorded before"), "{told}");
    assert_eq!(names(&ground.results("two").join("checkpoints")), Vec::<String>::new());
}

#[test]
fn where_nothing_can_be_claimed_a_process_goes_on_alone_and_says_so() {
    let ground = Ground::new();
    std::fs::create_dir_all(ground.results("out")).unwrap();
    std::fs::write(ground.results("out").join("claims"), "a file in the place of the folder").unwrap();
    let told = ended(started(&mut ground.bench("cache", "out", "")));
    assert!(told.contains("going on alone") && told.contains("start no second process"), "{told}");
    assert_eq!(records(&ground.results("out")).len(), 12);
}

#[test]
fn a_cell_that_failed_in_one_process_is_not_tried_in_the_others_and_status_says_why() {
    let Some(python) = python::plain("a failing encoder in several processes") else { return };
    let ground = Ground::new();
    let (starts, script) = (ground.path("starts"), fixture("process/encode.py"));
    let encoder = format!("{python} {} refuse count:{}", script.display(), starts.display());
    let words = ground.arguments(
        "bench geobench --partition 0.01x_train --protocol knn --task m-brick-kiln --input-size 32 --out out",
    );
    let mut words: Vec<&str> = words.split_whitespace().collect();
    words.extend(["--encoder", &encoder]);
    let output = ground.command("cache", &words).output().unwrap();
    assert!(!output.status.success() && said(&output).contains("no bricks here"), "{}", said(&output));
    let status = ground.command("cache", &["status", "--results", "out"]).output().unwrap();
    let text = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(text.contains("0 done, 0 running, 1 failed, 0 to do"), "{text}");
    assert!(text.contains("no bricks here") && text.contains("m-brick-kiln 0.01x_train knn"), "{text}");
    // A later run tries it again.
    let again = ground.command("cache", &words).output().unwrap();
    assert!(said(&again).contains("refuses m-brick-kiln: no bricks here"), "{}", said(&again));
    assert_eq!(std::fs::read_to_string(&starts).unwrap().lines().count(), 2);
}

#[test]
fn status_shows_what_is_done_running_and_to_do() {
    let Some(python) = python::plain("the status of a slow run") else { return };
    let ground = Ground::new();
    let script = slow_encoder(&ground, 0.2);
    let words = ground.arguments(
        "bench geobench --partition 0.01x_train --protocol knn --task m-eurosat --task m-brick-kiln --input-size 32 --out out",
    );
    let encoder = format!("{python} {}", script.display());
    let mut words: Vec<&str> = words.split_whitespace().collect();
    words.extend(["--encoder", &encoder, "--name", "Slow"]);
    let child = started(&mut ground.command("cache", &words));
    let status = || {
        let output =
            ground.command("cache", &["status", "geobench", "--results", "out", "--all"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let text = until("a running cell", Duration::from_secs(60), || {
        Some(status()).filter(|text| text.contains("running  m-eurosat 0.01x_train knn Slow"))
    });
    assert!(text.contains("0 done") && text.contains("0 failed, 1 to do"), "{text}");
    assert!(text.contains("to do    m-brick-kiln 0.01x_train knn Slow"), "{text}");
    assert!(text.contains(&format!("process {}", child.id())), "{text}");
    ended(child);
    let text = status();
    assert!(text.contains("2 done, 0 running, 0 failed, 0 to do"), "{text}");
    let json = ground.command("cache", &["status", "--results", "out", "--json"]).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&json["done"], &json["to-do"]), (&2.into(), &serde_json::json!([])));
}

/// An encoder that sleeps before each batch, as long as [`sleep`] said last.
pub fn slow_encoder(ground: &Ground, seconds: f64) -> PathBuf {
    let fixture = fixture("process/encode.py");
    let text = std::fs::read_to_string(&fixture).unwrap();
    let read = "    message = json.loads(text)\n";
    assert!(text.contains(read));
    sleep(ground, seconds);
    let pause = format!("time.sleep(float(open({:?}).read()))", ground.path("seconds"));
    let changed = format!("{read}    if message[\"message\"] == \"batch\":\n        {pause}\n");
    let path = ground.path("slow.py");
    std::fs::write(&path, text.replacen(read, &changed, 1)).unwrap();
    path
}

/// Changes how long the slow encoder sleeps.
pub fn sleep(ground: &Ground, seconds: f64) {
    std::fs::write(ground.path("seconds"), seconds.to_string()).unwrap();
}

#[test]
fn merging_takes_what_is_new_and_chooses_nothing_where_values_differ() {
    let ground = Ground::new();
    ended(started(&mut ground.bench("cache", "a", "")));
    let all = records(&ground.results("a"));
    let copy = |out: &str| crate::common::copied(&ground.path("a"), &ground.path(out), &|_, text| text);
    copy("b");
    let (a, b) = (Store::open(ground.results("a")).unwrap(), Store::open(ground.results("b")).unwrap());
    let found = a.all().unwrap();
    // One cell is in each folder alone, one differs, the others are in both.
    a.remove(&found[0]).unwrap();
    b.remove(&found[1]).unwrap();
    let mut other = found[2].clone();
    other.value += if other.value > 50.0 { -1.0 } else { 1.0 };
    other.provenance.git_revision = Some("another-revision".to_owned());
    b.put(&other).unwrap();
    let snapshot = ground.results("b").join("checkpoints/0123456789abcdef.safetensors");
    std::fs::create_dir_all(snapshot.parent().unwrap()).unwrap();
    std::fs::write(&snapshot, "a snapshot").unwrap();

    let merge = |more: &[&str]| {
        let output =
            ground.command("cache", &[&["merge", "a", "b", "--into", "c"], more].concat()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned() + &said(&output))
    };
    let (code, told) = merge(&["--dry-run"]);
    assert!(code == Some(1) && told.contains("11 records and 1 snapshots would be copied"), "{told}");
    assert!(!ground.path("c").exists());
    let (code, told) = merge(&[]);
    assert_eq!(code, Some(1), "{told}");
    for word in [
        "11 records and 1 snapshots copied",
        "cells with several values: 1;",
        "another-revision",
        "a/geobench/records",
    ] {
        assert!(told.contains(word), "{word} in {told}");
    }
    let merged = records(&ground.results("c"));
    assert_eq!(merged.len(), 11);
    assert!(!merged.contains_key(&found[2].file_name()));
    crate::common::all_scores_follow_from_predictions(&ground.results("c"));
    assert_eq!(
        std::fs::read(ground.results("c").join("checkpoints/0123456789abcdef.safetensors")).unwrap(),
        b"a snapshot"
    );

    // Without the wrong record, the rest follows; what is there stays.
    b.remove(&other).unwrap();
    let (code, told) = merge(&[]);
    assert!(code == Some(0) && told.contains("1 records and 0 snapshots copied"), "{told}");
    assert_eq!(records(&ground.results("c")), all);
}

#[test]
fn a_plan_is_checked_before_it_runs_and_its_commands_run_it() {
    let ground = Ground::new();
    let plan = |name: &str, run: &str| {
        let text = format!(
            "workers = 2\nresults = \"planned\"\nrun = [\"{run}\"]\n[slurm]\nlines = [\"export GREETING=hello\"]\n"
        );
        std::fs::write(ground.path(name), text).unwrap();
    };
    plan("good.toml", &ground.arguments(ARGUMENTS));
    plan("bad.toml", "geobench --model image-stats --task m-eurosat --data nowhere");
    plan("unparsed.toml", "geobench --modle image-stats");
    let slurm = |words: &[&str]| ground.command("cache", &[&["slurm"], words].concat()).output().unwrap();
    let good = slurm(&["good.toml", "--check"]);
    assert!(good.status.success() && said(&good).contains("1 runs: all can start"), "{}", said(&good));
    let bad = slurm(&["bad.toml", "--check"]);
    assert!(!bad.status.success() && said(&bad).contains("nowhere"), "{}", said(&bad));
    let unparsed = slurm(&["unparsed.toml"]);
    assert!(!unparsed.status.success() && said(&unparsed).contains("--modle"), "{}", said(&unparsed));
    assert!(records(&ground.results("planned")).is_empty(), "a check computes nothing");

    let script = std::fs::read_to_string(ground.path("planned/slurm/workers.sh")).unwrap();
    for line in [
        "#SBATCH --array=0-1\n",
        "#SBATCH --requeue\n",
        "#SBATCH --signal=B:TERM@120\n",
        "export GREETING=hello || exit 1\n",
    ] {
        assert!(script.contains(line), "{line} in {script}");
    }
    let commands = slurm(&["good.toml", "--emit", "commands"]);
    let text = String::from_utf8_lossy(&commands.stdout).into_owned();
    assert_eq!(text.lines().count(), 2, "{text}");
    let run = |line: &str| {
        let mut command = Command::new("bash");
        started(command.args(["-c", line]).env("TERRABENCH_CACHE", ground.path("cache")))
    };
    let children: Vec<Child> = text.lines().map(run).collect();
    for told in children.into_iter().map(ended) {
        assert!(told.contains("all cells of the plan are recorded"), "{told}");
    }
    ended(started(&mut ground.bench("cache", "one", "")));
    assert_eq!(records(&ground.results("planned")), records(&ground.results("one")));
}

#[test]
fn what_a_plan_fetches_is_fetched_once_before_anybody_computes() {
    let server = Server::start(&[("models/w.pt", b"weights")]);
    let ground = Ground::new();
    let model =
        std::fs::read_to_string(Home::find().unwrap().config("models", "galileo-nano").unwrap()).unwrap();
    let model = model
        .replace("nasaharvest/galileo\"", "owner/name\"")
        .replace("models/nano/encoder.pt", "models/w.pt");
    std::fs::write(ground.path("mine.toml"), model).unwrap();
    let plan = format!(
        "results = \"out\"\nfetch = [\"weights mine.toml --to weights\"]\nrun = [\"{}\"]\n",
        ground.arguments(ARGUMENTS)
    );
    std::fs::write(ground.path("plan.toml"), plan).unwrap();
    let worker = |index: usize| {
        let mut command = ground.command("cache", &["worker", "plan.toml", "--index", &index.to_string()]);
        let offline = ["HF_TOKEN", "HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
        for name in offline {
            command.env_remove(name);
        }
        started(command.env("HF_ENDPOINT", server.endpoint()).env("HF_HOME", ground.path("hub")))
    };
    let children: Vec<Child> = (0..3).map(worker).collect();
    children.into_iter().for_each(|child| drop(ended(child)));
    assert_eq!(server.asked("models/w.pt").len(), 1, "{:?}", server.seen());
    assert_eq!(std::fs::read(ground.path("weights/owner/name/models/w.pt")).unwrap(), b"weights");
    assert_eq!(records(&ground.results("out")).len(), 12);
}
