//! Workers on a real SLURM of several nodes on this host: cancelled, requeued, on a node that is lost, and at their time limit, they
//! end with the report of one process.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use crate::common::{python, records};
use crate::workers::{Ground, sleep, slow_encoder, until};

/// A cluster, which stops when it is dropped, or when this process ends.
struct Cluster(PathBuf);

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/slurm.sh")
}

impl Cluster {
    /// Starts a cluster; `None`, with a note, where SLURM is not installed.
    fn start(folder: &Path, nodes: usize) -> Option<Self> {
        let programs = Command::new(script()).arg("programs").output().unwrap();
        if !programs.status.success() {
            eprintln!("skipped: workers on SLURM: {}", String::from_utf8_lossy(&programs.stderr).trim());
            return None;
        }
        let cluster = Cluster(folder.to_owned());
        let owner = std::process::id().to_string();
        let started = Command::new(script())
            .arg("start")
            .arg(folder)
            .args([&nodes.to_string(), &owner])
            .output()
            .unwrap();
        assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
        Some(cluster)
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(program);
        command.env("SLURM_CONF", self.0.join("slurm.conf")).args(arguments).output().unwrap()
    }

    /// What SLURM says of a job: `JobState`, `Restarts`, `NodeList`, …
    fn job(&self, id: &str) -> BTreeMap<String, String> {
        let output = self.command("scontrol", &["-o", "show", "job", id]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let pairs = text.split_whitespace().filter_map(|word| word.split_once('='));
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    fn state(&self, id: &str) -> String {
        self.job(id).get("JobState").cloned().unwrap_or_default()
    }

    /// Waits until a job runs, and returns its node.
    fn running(&self, id: &str) -> String {
        until(&format!("job {id} runs"), Duration::from_secs(90), || {
            let job = self.job(id);
            let runs = job.get("JobState").is_some_and(|state| state == "RUNNING");
            runs.then(|| job.get("NodeList").cloned()).flatten()
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = Command::new(script()).arg("stop").arg(&self.0).output();
    }
}

/// Files of a report by name, without lines of times.
fn report(results: &Path) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut folders = vec![results.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(results).unwrap().to_string_lossy().into_owned();
            let inner = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                // What is not of the report.
                if !["records", "predictions", "sheets", "claims", "checkpoints", "slurm"].contains(&&*inner)
                {
                    folders.push(path);
                }
            } else if [".md", ".csv", ".tex", ".svg"].iter().any(|end| name.ends_with(end)) {
                files.insert(name, std::fs::read_to_string(path).unwrap());
            }
        }
    }
    files
}

#[test]
fn workers_that_slurm_stops_in_every_way_end_with_the_report_of_one_process() {
    let Some(python) = python::plain("workers on SLURM") else { return };
    // Sockets lie in it, and their names must be short.
    let short = tempfile::Builder::new().prefix("slurm-").tempdir_in("/tmp").unwrap();
    let Some(cluster) = Cluster::start(&short.path().join("c"), 4) else { return };
    let ground = Ground::new();
    let encoder = format!("{python} {}", slow_encoder(&ground, 3.0).display());
    let run = ground.arguments(&format!(
        "geobench --partition 0.01x_train --protocol knn --seed 0 --seed 1 --input-size 32 --name Slow --encoder '{encoder}'"
    ));
    let plan = |results: &str| {
        let text = format!(
            "workers = 4\nresults = \"{results}\"\nstale-after = 20\nrun = [\"{run}\"]\n\
             [slurm]\ntime = \"1\"\ngrace = 55\nlines = [\"export TERRABENCH_CACHE={cache}\"]\n",
            cache = ground.path(&format!("cache-{results}")).display()
        );
        std::fs::write(ground.path(&format!("{results}.toml")), text).unwrap();
    };
    plan("many");
    let submitted = ground
        .command("cache-many", &["slurm", "many.toml", "--submit"])
        .env("SLURM_CONF", cluster.0.join("slurm.conf"))
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&submitted.stdout).into_owned();
    assert!(submitted.status.success(), "{told}{}", String::from_utf8_lossy(&submitted.stderr));
    let ids: Vec<&str> =
        told.split("job ").skip(1).map(|rest| rest.split([',', ';']).next().unwrap()).collect();
    let &[workers, report_job] = ids.as_slice() else { panic!("{told}") };
    let task = |number: usize| format!("{workers}_{number}");

    // Each of the four is stopped in another way while it holds a cell.
    let claims = ground.path("many/geobench/claims");
    let held_by = |number: usize| {
        let entries = std::fs::read_dir(&claims).ok()?;
        let texts = entries.filter_map(|entry| std::fs::read_to_string(entry.ok()?.path()).ok());
        let job = format!("\"job\":\"{}\"", task(number));
        texts.filter(|text| text.contains(&job)).find(|text| !text.contains("\"released\":true"))
    };
    for number in 0..4 {
        cluster.running(&task(number));
        until(&format!("a claim of task {number}"), Duration::from_secs(60), || held_by(number));
    }
    assert!(cluster.command("scancel", &[&task(0)]).status.success());
    assert!(cluster.command("scontrol", &["requeue", &task(1)]).status.success());
    let down = cluster.running(&task(2));
    let update = ["update", &format!("NodeName={down}"), "State=DOWN", "Reason=test"];
    assert!(cluster.command("scontrol", &update).status.success());
    // The fourth reaches its time limit.

    let logs = || {
        let entries = std::fs::read_dir(ground.path("many/slurm/logs")).unwrap();
        let texts = entries.map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap());
        texts.collect::<Vec<_>>().join("\n-----\n")
    };
    let state = until("the report", Duration::from_secs(400), || {
        let state = cluster.state(report_job);
        (!["PENDING", "RUNNING", "COMPLETING"].contains(&&*state)).then_some(state)
    });
    assert_eq!(state, "COMPLETED", "{}", logs());
    assert_eq!(cluster.state(&task(0)), "CANCELLED", "{}", logs());
    for number in 1..4 {
        let job = cluster.job(&task(number));
        assert_eq!(job["JobState"], "COMPLETED", "task {number}: {}", logs());
        assert_ne!(job["Restarts"], "0", "task {number} was not requeued: {}", logs());
    }
    assert!(logs().contains("stopped; going on in the next job"), "{}", logs());

    sleep(&ground, 0.0);
    plan("one");
    let alone = ground.command("cache-one", &["worker", "one.toml"]).output().unwrap();
    assert!(alone.status.success(), "{}", String::from_utf8_lossy(&alone.stderr));
    let written = ground.command("cache-one", &["report", "--results", "one"]).output().unwrap();
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    let of = |results: &str| records(&ground.path(results).join("geobench"));
    assert!(!of("one").is_empty());
    assert_eq!(of("many"), of("one"));
    let (many, one) = (report(&ground.path("many")), report(&ground.path("one")));
    assert_eq!(many.keys().collect::<Vec<_>>(), one.keys().collect::<Vec<_>>());
    for (name, text) in &one {
        assert_eq!(&many[name], text, "{name}");
    }
}
