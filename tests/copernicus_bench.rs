//! Copernicus-Bench from real pixels to records and its table, with shortened protocols and a tiny model.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::common;
use crate::common::records;
use crate::sample::{identify, record};
use terrabench::home::Home;
use terrabench::record::Interval;
use terrabench::record::Record;
use terrabench::report::tables::published;
use terrabench::report::tables::table::fill;
use terrabench::report::{csv, markdown};
use terrabench::task::Sensor;
use terrabench::task::{Metric, Suite};

fn real() -> Option<PathBuf> {
    let folder = common::real().map(|real| real.join("copernicus-bench"));
    if folder.is_none() {
        eprintln!("skipped: no real pixels are here");
    }
    folder
}

/// A checkout's data files, with protocols that suit a few dozen samples.
fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let change = |name: &str, text: String| match name {
        "copernicus-linear-probe.toml" => {
            text.replace("batch-size = 64", "batch-size = 8").replace("epochs = 50", "epochs = 4")
        }
        "segmentation-probe.toml" => {
            let rates = text.lines().find(|line| line.starts_with("learning-rates")).unwrap().to_owned();
            text.replace(&rates, "learning-rates = [1e-2]")
                .replace("tile = 64", "tile = 256")
                .replace("epochs = 50", "epochs = 2")
                .replace("batch-size = 128", "batch-size = 2")
        }
        "upernet.toml" => {
            text.replace("channels = 512", "channels = 16").replace("channels = 256", "channels = 8")
        }
        "copernicus-bench.toml" => text
            .replace(
                "protocols = [\"copernicus-linear-probe\",",
                "protocols = [\"copernicus-linear-probe\", \"segmentation-probe\",",
            )
            .replace("protocols = { copernicus", "protocols = { segmentation-probe = \"frozen\", copernicus"),
        _ => text,
    };
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["benchmarks", "configs"] {
        common::copied(&here.join(folder), &home.path().join(folder), &change);
    }
    home
}

fn bench(home: &Path, data: &Path, out: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_terrabench"));
    command
        .current_dir(home)
        .env("TERRABENCH_CACHE", home.join("cache"))
        .arg("bench")
        .arg("copernicus-bench");
    command.arg("--data").arg(data).arg("--out").arg(out);
    command.arg("--model").arg(common::fixture("model/tiny.toml"));
    command.args(more).output().unwrap()
}

#[track_caller]
fn finished(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn by_task(folder: &Path) -> BTreeMap<String, Vec<Record>> {
    let mut tasks: BTreeMap<String, Vec<Record>> = BTreeMap::new();
    for record in records(folder).into_values() {
        tasks.entry(record.cell.task.clone()).or_default().push(record);
    }
    tasks
}

#[test]
fn all_eight_tasks_run_end_to_end() {
    let Some(real) = real() else { return };
    let (home, out) = (home(), tempfile::tempdir().unwrap());
    let weights = common::fixture("model/tiny.safetensors");
    let weights = weights.to_str().unwrap();
    let probes = ["--protocol", "copernicus-linear-probe", "--seed", "0", "--seed", "1", "--seed", "2"];
    finished(&bench(home.path(), &real, out.path(), &[&probes[..], &["--weights", weights]].concat()));
    // Not Flood-S1, whose small set lies elsewhere.
    let masked = ["--task", "cloud-s2", "--task", "dfc2020-s1", "--task", "dfc2020-s2"];
    let masks = [&masked[..], &["--protocol", "segmentation-probe", "--weights", weights]].concat();
    finished(&bench(home.path(), &real, out.path(), &masks));

    let folder = out.path().join("copernicus-bench");
    let tasks = by_task(&folder);
    assert_eq!(tasks.len(), 8);
    common::all_scores_follow_from_predictions(&folder);
    for (task, records) in &tasks {
        let of_image = !["cloud-s2", "dfc2020-s1", "dfc2020-s2"].contains(&task.as_str());
        assert_eq!(records.len(), if of_image { 3 } else { 1 }, "{task}");
        for record in records {
            let what = format!("{task} {record:?}");
            assert!((0.0..=100.0).contains(&record.value), "{what}");
            let made = &record.provenance;
            let sentinel_1 = task.ends_with("s1");
            assert_eq!(made.sensor, if sentinel_1 { Sensor::S1 } else { Sensor::S2_L1C }, "{what}");
            assert_eq!(made.bands.len(), if sentinel_1 { 2 } else { 12 }, "{what}");
            let lcz = task == "lcz-s2";
            let expected = if lcz { "copernicus-bench-lcz" } else { "copernicus-bench" };
            assert_eq!(made.normalization, expected, "{what}");
            assert_eq!(made.imputed.len(), if lcz { 2 } else { 0 }, "{what}");
            let size = [("lcz-s2", 112), ("cloud-s2", 512), ("dfc2020-s1", 256), ("dfc2020-s2", 256)];
            let size = size.iter().find(|(name, _)| name == task).map_or(224, |(_, size)| *size);
            assert_eq!(made.image_size, size, "{what}");
            if !of_image {
                continue;
            }
            let reported = record.scores[&format!("reported_{}", record.metric)];
            match record.metric {
                // A mean weighted by sizes is that of all.
                Metric::Accuracy => assert!((reported - record.value).abs() < 1e-9, "{what}"),
                // The batch of all five test samples is the split.
                Metric::MicroMap => {
                    assert_eq!(record.samples["test"], 5);
                    assert!((reported - record.value).abs() < 1e-9, "{what}");
                    assert!(record.interval.is_some());
                }
                other => panic!("{other}"),
            }
        }
    }
    let table = std::fs::read_to_string(folder.join("copernicus-bench.md")).unwrap();
    let row = table.lines().find(|line| line.starts_with("| EuroSAT-S2 ")).unwrap();
    assert!(row.contains("**99.1**") && row.contains('±'), "{row}");
    assert!(table.contains("TerraFM (measured, copernicus-linear-probe"), "{table}");
}

#[test]
fn upernet_runs_on_real_masks() {
    let Some(real) = real() else { return };
    let (home, out) = (home(), tempfile::tempdir().unwrap());
    let weights = common::fixture("model/tiny.safetensors");
    let short = ["--epochs", "2", "--learning-rates", "1e-3", "--limit", "4"];
    let masks = ["--task", "dfc2020-s1", "--task", "cloud-s2", "--protocol", "upernet", "--weights"];
    let arguments = [&masks[..], &[weights.to_str().unwrap()], &short].concat();
    finished(&bench(home.path(), &real, out.path(), &arguments));
    let tasks = by_task(&out.path().join("copernicus-bench"));
    assert_eq!(tasks.len(), 2);
    common::all_scores_follow_from_predictions(&out.path().join("copernicus-bench"));
    for record in tasks.values().flatten() {
        assert!(record.short && (0.0..=100.0).contains(&record.value), "{record:?}");
        // All test samples are one batch.
        assert!((record.scores["reported_miou"] - record.value).abs() < 1e-9, "{record:?}");
    }
}

#[test]
fn random_and_trained_rows_stems_and_zeros() {
    let Some(real) = real() else { return };
    let (home, out) = (home(), tempfile::tempdir().unwrap());
    let random = ["--weights", "random:0"];
    let ran = |more: &[&str]| bench(home.path(), &real, out.path(), &[&random[..], more].concat());
    let probe = ["--protocol", "copernicus-linear-probe"];
    finished(&ran(&[&probe[..], &["--task", "eurosat-s1"]].concat()));
    let tuned = ["--protocol", "finetune", "--epochs", "1", "--learning-rates", "1e-3"];
    finished(&ran(&[&tuned[..], &["--task", "bigearthnet-s1"]].concat()));
    finished(&ran(&[&probe[..], &["--task", "bigearthnet-s2"]].concat()));
    finished(&ran(&[&probe[..], &["--task", "bigearthnet-s2", "--sensor", "s2-l2a"]].concat()));
    finished(&ran(&[&probe[..], &["--task", "lcz-s2", "--missing-bands", "zeros"]].concat()));

    let folder = out.path().join("copernicus-bench");
    let tasks = by_task(&folder);
    assert!(tasks["eurosat-s1"][0].provenance.random_weights());
    let tuned = &tasks["bigearthnet-s1"][0];
    assert!(tuned.short && tuned.metric == Metric::MicroMap && tuned.value > 0.0);
    let sensors: Vec<Sensor> =
        tasks["bigearthnet-s2"].iter().map(|record| record.provenance.sensor).collect();
    assert!(sensors.len() == 2 && sensors.contains(&Sensor::S2_L1C) && sensors.contains(&Sensor::S2_L2A));
    let imputed = &tasks["lcz-s2"][0].provenance.imputed;
    let imputed: Vec<String> =
        imputed.iter().map(|pair| format!("{}>{}", pair.source, pair.target)).collect();
    assert_eq!(imputed, ["zeros>B01", "zeros>B09"]);
    let table = std::fs::read_to_string(folder.join("copernicus-bench.md")).unwrap();
    assert!(table.contains("random weights"), "{table}");

    // The shares of the votes rank labels.
    let output = ran(&["--protocol", "knn", "--task", "bigearthnet-s2"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let records = common::records(&folder);
    let of_knn = |record: &&Record| record.cell.protocol == "knn";
    assert_eq!(records.values().find(of_knn).map(|record| record.metric), Some(Metric::MicroMap));
}

/// A record of one cell of the table.
fn measured(task: &str, protocol: &str, seed: u64, value: f64, reported: f64) -> Record {
    let suite = Suite::load(&Home::find().unwrap(), "copernicus-bench").unwrap();
    let mut record = record();
    record.metric = suite.task(task).unwrap().metric;
    record.cell.suite = suite.name;
    (record.cell.task, record.cell.protocol, record.cell.seed) = (task.into(), protocol.into(), seed);
    record.value = value;
    record.interval = Some(Interval { low: value - 1.5, high: value + 1.4, level: 0.95 });
    record.scores = BTreeMap::from([(format!("reported_{}", record.metric), reported)]);
    identify(&mut record);
    record
}

#[test]
fn the_table_has_a_row_a_data_set() {
    let home = Home::find().unwrap();
    let suite = Suite::load(&home, "copernicus-bench").unwrap();
    let definition = &suite.tables[0];
    let published = published::read(&home.published(&definition.published)).unwrap();
    // The table of TerraFM's README, and the row of Flood-S1, in which it has no value.
    assert_eq!(published.values.len(), 56 + 6);
    let mut records = vec![
        measured("eurosat-s2", "copernicus-linear-probe", 0, 99.0, 99.0),
        measured("eurosat-s2", "copernicus-linear-probe", 1, 99.2, 99.2),
        measured("eurosat-s2", "copernicus-linear-probe", 2, 99.4, 99.4),
        // What the reference reports is shown and compared, not the exact value.
        measured("bigearthnet-s2", "copernicus-linear-probe", 0, 83.0, 84.1),
        measured("flood-s1", "upernet", 0, 75.0, 76.3),
        measured("dfc2020-s2", "upernet", 0, 61.0, 64.6),
        measured("dfc2020-s2", "upernet", 1, 61.0, 64.8),
    ];
    let mut random = measured("eurosat-s2", "copernicus-linear-probe", 0, 90.0, 90.0);
    random.provenance.weights = "random:0".into();
    random.cell.backbone = "ViT-Large".into();
    identify(&mut random);
    records.push(random);
    let table = fill(definition, &suite, &published, &records, false).unwrap();
    let text = markdown(&table);
    let name = "copernicus-bench.md";
    std::fs::write(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name), &text).unwrap();
    let golden = common::fixture("report").join(name);
    assert!(text == std::fs::read_to_string(&golden).unwrap_or_default(), "{text}");

    let row = |name: &str| -> Vec<String> {
        let line = text.lines().find(|line| line.starts_with(&format!("| {name} "))).unwrap();
        line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let header = row("Data set");
    let models = ["Supervised", "Random", "SoftCon", "CROMA", "DOFA", "Copernicus-FM", "TerraFM"];
    assert_eq!(header[2..9], models);
    assert_eq!(
        row("_Backbone_")[2..9].join(" "),
        "ViT-B/16 ViT-B/16 ViT-B/14 ViT-B/8 ViT-B/16 ViT-B/16 ViT-B/16"
    );
    // One row of ours for both frozen protocols; three seeds, their mean and deviation, the difference to 99.1.
    assert_eq!(header.len(), 11);
    assert_eq!(row("EuroSAT-S2")[9], "**99.2** ± 0.2 (+0.1)");
    assert_eq!(row("BigEarthNet-S2")[9], "_84.1_ (-0.3)");
    assert_eq!(row("DFC2020-S2")[9], "64.7 ± 0.1 (+0.9)");
    assert_eq!(row("EuroSAT-S2")[10], "90.0");
    assert_eq!(row("Flood-S1")[2..10].join(" "), "**78.3** 75.1 77.2‡ 77.4‡ 76.0‡ _77.7_ - 76.3");
    assert!(csv(&table).unwrap().contains("micro_map"));
}

/// All 15 tasks beside the paper's columns. Of Sentinel-5P, values are far above 100 and lower is better.
#[test]
fn the_table_of_all_tasks_has_errors_in_their_units() {
    let home = Home::find().unwrap();
    let suite = Suite::load(&home, "copernicus-bench").unwrap();
    let definition = suite.tables.iter().find(|table| table.file == "copernicus-bench-paper").unwrap();
    assert_eq!(definition.tasks.len(), 15);
    let published = published::read(&home.published(&definition.published)).unwrap();
    assert_eq!(published.values.len(), 93);
    let mut records = vec![
        measured("cloud-s3", "upernet", 0, 60.0, 62.5),
        measured("lc100cls-s3", "copernicus-linear-probe", 0, 93.0, 93.4),
        measured("biomass-s3", "upernet", 0, 67.0, 66.0),
        measured("aq-no2-s5p", "upernet", 0, 2.9, 2.95),
        measured("aq-o3-s5p", "upernet", 0, 1800.0, 1780.04),
    ];
    // The sensor and the normalisation follow from the task: no footnotes, one column.
    for (record, sensor) in records.iter_mut().zip(["s3-olci", "s3-olci", "s3-olci", "s5p-no2", "s5p-o3"]) {
        record.provenance.sensor = sensor.parse().unwrap();
        record.cell.model = "Copernicus-FM".into();
        identify(record);
    }
    let table = fill(definition, &suite, &published, &records, false).unwrap();
    let text = markdown(&table);
    let row = |name: &str| -> Vec<String> {
        let line = text.lines().find(|line| line.starts_with(&format!("| {name} "))).unwrap();
        line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let header = row("Data set");
    let models = ["Supervised", "Supervised", "Random", "SoftCon", "CROMA", "DOFA", "Copernicus-FM"];
    assert_eq!(header[2..9], models, "{text}");
    assert_eq!(header.len(), 10, "{text}");
    let ozone = row("AQ-O3-S5P");
    assert_eq!((ozone[2].as_str(), ozone[8].as_str()), ("1781.30", "**789.40**"), "{text}");
    assert_eq!(ozone[9], "1780.04 (+990.64)", "{text}");
    assert!(row("Biomass-S3")[9].contains("66.0"), "{text}");
    assert_eq!(row("Cloud-S3")[9], "_62.5_ (+0.5)", "{text}");
    assert_eq!(row("Cloud-S3")[5], "-", "SoftCon has none");
    assert!(csv(&table).unwrap().contains("1780.04"), "the file keeps the digits");
}
