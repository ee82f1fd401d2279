//! Results that one group hands to another: packed, taken in, held as a reference, and refused if they were changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use terrabench::formats::parquet::Table;
use terrabench::home::Home;
use terrabench::record::contribution::{Contribution, MANIFEST, Manifest};
use terrabench::record::{Record, Store};
use terrabench::task::Suite;

use crate::common::{self, records};

/// Results of the demo's model on generated data, kept as if they were real.
struct Place {
    folder: tempfile::TempDir,
    data: PathBuf,
}

const CELLS: [&str; 8] =
    ["--task", "m-eurosat", "--task", "m-brick-kiln", "--partition", "0.01x_train", "--protocol", "knn"];

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let suite = Suite::load(&Home::find().unwrap(), "geobench").unwrap();
        let data = common::demo::provide(&suite, &folder.path().join("demo"));
        let place = Place { folder, data };
        place.bench(&[]);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_terrabench"));
        command.env_remove("GEO_BENCH_DIR").env("TERRABENCH_CACHE", self.path("cache"));
        command.args(arguments).current_dir(self.folder.path()).output().unwrap()
    }

    fn bench(&self, more: &[&str]) {
        let data = self.data.to_str().unwrap();
        let model = ["bench", "geobench", "--model", "demo", "--weights", "random:0", "--data", data];
        self.done(&[&model[..], &CELLS, more].concat());
    }

    /// Runs a command, which must succeed, and returns what it said.
    fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        said(&output)
    }

    /// Runs a command, which must fail, and returns the error.
    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = said(&output);
        assert!(!output.status.success() && !said.contains("panicked"), "{arguments:?}: {said}");
        said
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

const CONTRIBUTE: [&str; 5] = ["contribute", "--name", "Lab X", "--contact", "lab@example.org"];

/// The files below a folder, by their paths.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let contribution = Contribution::open(folder).unwrap();
    let read = |name: &String| (name.clone(), std::fs::read(folder.join(name)).unwrap());
    contribution.manifest.files.keys().map(read).collect()
}

#[test]
fn a_contribution_is_shown_beside_own_results_under_its_name() {
    let place = Place::new();
    let told = place.done(&CONTRIBUTE);
    assert!(told.contains("2 records by Lab X") && told.contains("contribution"), "{told}");
    let contribution = Contribution::open(&place.path("contribution")).unwrap();
    assert_eq!(contribution.manifest.records, BTreeMap::from([("geobench".to_owned(), 2)]));
    assert_eq!(contribution.manifest.contact.as_deref(), Some("lab@example.org"));
    // Records and predictions as they are in the results.
    let packed = files(&contribution.folder);
    assert_eq!(packed.len(), 2 + 2 + 1, "{:?}", packed.keys());
    for (name, bytes) in packed.iter().filter(|(name, _)| name.starts_with("geobench/")) {
        assert_eq!(*bytes, std::fs::read(place.path("results").join(name)).unwrap(), "{name}");
    }
    let card = place.read("contribution/model-card.md");
    for text in [
        "# Results of Lab X",
        "lab@example.org",
        "## Demo ViT-192, untrained",
        "random:0",
        "| m-eurosat",
        "knn",
        "terrabench 0.",
    ] {
        assert!(card.contains(text), "{text} in {card}");
    }

    // Equal results give the same bytes, as a folder or as an archive.
    place.done(&[&CONTRIBUTE[..], &["--out", "lab-x.zip"]].concat());
    let first = std::fs::read(place.path("lab-x.zip")).unwrap();
    place.done(&[&CONTRIBUTE[..], &["--out", "lab-x.zip"]].concat());
    assert_eq!(std::fs::read(place.path("lab-x.zip")).unwrap(), first);

    for from in ["contribution", "lab-x.zip"] {
        let told = place.done(&["report", "--with", from, "--out", "report"]);
        assert!(
            told.contains(&format!(
                "2 records contributed by Lab X, contribution {}",
                contribution.short_id()
            )),
            "{told}"
        );
        // Tables of the demo's task columns hold a row of ours and one of theirs.
        let knn = place.read("report/geobench/knn.md");
        let rows = |text: &str| knn.lines().filter(|line| line.starts_with(&format!("| {text}"))).count();
        assert!(rows("Demo (measured, contributed by Lab X") > 0, "{knn}");
        assert!(rows("Demo (measured, random weights)") > 0, "{knn}");
        let index = place.read("report/report.md");
        assert!(
            index.contains("2 records contributed by Lab X")
                && index.contains("2 records in `geobench/records/`"),
            "{index}"
        );
        let page = place.read("report/report.html");
        assert!(
            page.contains("contributed by Lab X") && page.contains("in the contribution of Lab X"),
            "{from}"
        );
        let csv = place.read("report/geobench/knn.csv");
        assert!(csv.contains("contributed by Lab X"), "{csv}");
        let file = std::fs::File::open(place.path("report/results.parquet")).unwrap();
        let table = Table::open(file).unwrap();
        assert_eq!(table.rows, 4);
        let origins = table.values(table.column("origin").unwrap()).unwrap();
        assert_eq!((0..4).filter(|row| origins.text(*row).is_none()).count(), 2);
    }
    // The results themselves are as they were.
    assert!(
        records(&place.path("results/geobench")).values().all(|record| record.provenance.origin.is_none())
    );

    // Someone without results sees them too.
    place.done(&["report", "--results", "none", "--with", "lab-x.zip", "--out", "theirs"]);
    assert!(place.read("theirs/geobench/knn.md").contains("contributed by Lab X"));
}

#[test]
fn the_gate_holds_a_contribution_as_reference() {
    let place = Place::new();
    place.done(&[&CONTRIBUTE[..], &["--out", "lab-x.zip"]].concat());
    place.done(&CONTRIBUTE);
    for reference in ["contribution", "lab-x.zip"] {
        let told = place.done(&["check", "--records", "results", "--reference", reference]);
        assert!(told.contains("2 same."), "{told}");
        let refused = place.refused(&["check", "--records", "results", "--reference", reference, "--update"]);
        assert!(refused.contains("must not change"), "{refused}");
    }
    // A cell that is worse than theirs fails the gate.
    let store = Store::open(place.path("results/geobench")).unwrap();
    let record = store.all().unwrap().into_iter().find(|record| record.cell.task == "m-eurosat").unwrap();
    store.remove(&record).unwrap();
    let output = place.run(&["check", "--records", "results", "--reference", "lab-x.zip"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("missing"), "{}", said(&output));
}

#[test]
fn changed_files_are_refused_by_name() {
    let place = Place::new();
    place.done(&CONTRIBUTE);
    let folder = place.path("contribution");
    let whole = files(&folder);
    let name = |part: &str| {
        whole.keys().find(|name| name.contains(part) && name.contains("m-eurosat")).unwrap().clone()
    };
    let (record, predictions) = (name("records/"), name("predictions/"));
    // Whichever command reads it.
    let commands = [
        vec!["report", "--with", "contribution", "--out", "report"],
        vec!["check", "--records", "results", "--reference", "contribution"],
        vec!["rescore", "--results", "contribution"],
    ];
    let refused = |file: &str, why: &str| {
        for command in &commands {
            let error = place.refused(command);
            assert!(error.contains(file) && error.contains(why), "{command:?}: {error}");
        }
        assert!(!place.path("report").exists(), "nothing is written");
    };
    let restore = |name: &str| std::fs::write(folder.join(name), &whole[name]).unwrap();

    for (file, byte) in [(&record, 40), (&predictions, 200), (&"model-card.md".to_owned(), 3)] {
        let mut bytes = whole[file].clone();
        bytes[byte] ^= 1;
        std::fs::write(folder.join(file), bytes).unwrap();
        refused(file, "changed after it was packed");
        restore(file);
    }
    std::fs::remove_file(folder.join(&predictions)).unwrap();
    refused(&predictions, "missing");
    restore(&predictions);
    let extra = "geobench/records/extra.json";
    std::fs::write(folder.join(extra), &whole[&record]).unwrap();
    refused(extra, "added after it was packed");
    std::fs::remove_file(folder.join(extra)).unwrap();
    // What systems add is no part of it.
    std::fs::write(folder.join(".DS_Store"), "").unwrap();
    place.done(&["report", "--with", "contribution", "--out", "report"]);
    std::fs::remove_dir_all(place.path("report")).unwrap();

    // A manifest that leads out of the folder.
    let manifest = std::fs::read_to_string(folder.join(MANIFEST)).unwrap();
    std::fs::write(folder.join(MANIFEST), manifest.replace("model-card.md", "../results/x.md")).unwrap();
    refused(MANIFEST, "outside its folder");
    std::fs::write(folder.join(MANIFEST), "{}").unwrap();
    refused(MANIFEST, "not a list of a contribution's files");
    std::fs::write(folder.join(MANIFEST), &manifest).unwrap();

    // A better number with digests that fit: the predictions give it away.
    let mut forged: Record = serde_json::from_slice(&whole[&record]).unwrap();
    forged.value = 99.9;
    forged.scores.insert("accuracy".to_owned(), 99.9);
    let bytes = serde_json::to_vec_pretty(&forged).unwrap();
    std::fs::write(folder.join(&record), &bytes).unwrap();
    let mut listed: Manifest = serde_json::from_str(&manifest).unwrap();
    listed.files.insert(record.clone(), blake3::hash(&bytes).to_hex().to_string());
    std::fs::write(folder.join(MANIFEST), listed.bytes().unwrap()).unwrap();
    let error = place.refused(&commands[0]);
    assert!(error.contains(&record) && error.contains("contradicts its predictions"), "{error}");
    let error = place.refused(&commands[1]);
    assert!(error.contains("its predictions give"), "{error}");

    // An archive names the file within it.
    restore(&record);
    std::fs::write(folder.join(MANIFEST), &manifest).unwrap();
    place.done(&[&CONTRIBUTE[..], &["--out", "lab-x.zip"]].concat());
    let mut bytes = std::fs::read(place.path("lab-x.zip")).unwrap();
    // Predictions are stored as they are: flip a byte within, and in its checksum nothing.
    let place_of = |needle: &[u8]| bytes.windows(needle.len()).position(|window| window == needle).unwrap();
    let at = place_of(&whole[&predictions]) + 150;
    bytes[at] ^= 1;
    std::fs::write(place.path("lab-x.zip"), bytes).unwrap();
    let error = place.refused(&["report", "--with", "lab-x.zip", "--out", "report"]);
    assert!(error.contains("lab-x.zip") && error.contains(&predictions), "{error}");
}

#[test]
fn only_whole_records_that_can_be_checked_are_packed() {
    let place = Place::new();
    // A record without its predictions, and one that contradicts them.
    let store = Store::open(place.path("results/geobench")).unwrap();
    let all = store.all().unwrap();
    let [kiln, eurosat] = all.as_slice() else { panic!("{} records", all.len()) };
    let predictions = store.predictions_path(kiln);
    let kept = std::fs::read(&predictions).unwrap();
    std::fs::remove_file(&predictions).unwrap();
    let told = place.done(&CONTRIBUTE);
    assert!(
        told.contains("1 records by Lab X") && told.contains("left out") && told.contains("m-brick-kiln"),
        "{told}"
    );
    std::fs::write(&predictions, kept).unwrap();
    let forged = Record { value: eurosat.value / 2.0, ..eurosat.clone() };
    store.put(&forged).unwrap();
    let error = place.refused(&CONTRIBUTE);
    assert!(error.contains("contradicts its predictions") && error.contains("m-eurosat"), "{error}");
    store.put(eurosat).unwrap();

    // Of one model only.
    let error = place.refused(&[&CONTRIBUTE[..], &["--model", "TerraFM"]].concat());
    assert!(error.contains("no record of geobench matches"), "{error}");
    let error = place.refused(&["contribute", "--name", " "]);
    assert!(error.contains("contributor's name"), "{error}");
    let error = place.refused(&[&CONTRIBUTE[..], &["--out", "results"]].concat());
    assert!(error.contains("no contribution that could be replaced"), "{error}");
    let error = place.refused(&[&CONTRIBUTE[..], &["--results", "cache"]].concat());
    assert!(error.contains("no records found"), "{error}");
    let error = place.refused(&["report", "--with", "results"]);
    assert!(error.contains("no contribution") && error.contains("cargo xtask contribute"), "{error}");
    assert_eq!(records(&place.path("results/geobench")).len(), 2);
}
