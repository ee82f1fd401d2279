//! Packed tasks: the same samples, hashes and records as the files they were made of, and damage to them.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::records;
use terrabench::data::packed::pack;
use terrabench::data::{self, Dataset, Split};
use terrabench::home::Home;
use terrabench::progress::Silent;
use terrabench::suite::Suite;

fn real() -> Option<PathBuf> {
    let folder = common::real();
    if folder.is_none() {
        eprintln!("skipped: no real pixels are here");
    }
    folder
}

fn suite(name: &str) -> Suite {
    Suite::load(&Home::find().unwrap(), name).unwrap()
}

/// Everything of two data sets that a record depends on.
fn assert_same(task: &str, packed: &dyn Dataset, plain: &dyn Dataset) {
    let bands = packed.bands().unwrap();
    // Of another type than the pixels, so left out.
    let left_out = |band: &String| task == "m-cashew-plant" && band == "Cloud Probability";
    let expected: Vec<String> = plain.bands().unwrap().into_iter().filter(|band| !left_out(band)).collect();
    assert_eq!(bands, expected, "{task}");
    assert_eq!(packed.fingerprint(&Split::ALL).unwrap(), plain.fingerprint(&Split::ALL).unwrap(), "{task}");
    assert_eq!(packed.statistics(&bands[1..]).ok(), plain.statistics(&bands[1..]).ok(), "{task}");
    for split in Split::ALL {
        assert_eq!(packed.samples(split), plain.samples(split), "{task}");
        assert_eq!(packed.contents(split).unwrap(), plain.contents(split).unwrap(), "{task}");
        for index in 0..plain.samples(split).len() {
            let read = |dataset: &dyn Dataset| dataset.read(split, index, &bands).unwrap();
            assert_eq!(read(packed), read(plain), "{task} {split} {index}");
            let raw = |dataset: &dyn Dataset| dataset.read_raw(split, index).unwrap();
            let (packed, plain) = (raw(packed), raw(plain));
            assert_eq!((packed.label, packed.label_dtype), (plain.label, plain.label_dtype), "{task}");
            for band in packed.bands {
                assert!(plain.bands.contains(&band), "{task} {split} {index} {}", band.name);
            }
        }
        assert!(packed.read(split, plain.samples(split).len(), &bands).is_err());
    }
}

#[test]
fn every_task_reads_as_its_source() {
    let Some(real) = real() else { return };
    let to = tempfile::tempdir().unwrap();
    for (name, root) in [("copernicus-bench", "copernicus-bench"), ("geobench", "geobench")] {
        let (suite, root) = (suite(name), real.join(root));
        // Of Flood-S1 there are no real pixels: tests/flood.rs packs what it makes.
        for task in suite.tasks.iter().filter(|task| task.name != "flood-s1") {
            let done = pack(&suite, task, &root, to.path(), &Silent).unwrap();
            assert!(!done.reused && done.samples > 0 && done.bytes > 0);
            assert!(pack(&suite, task, &root, to.path(), &Silent).unwrap().reused);
            let source = data::task_folder(&suite, task, &root).unwrap();
            let folder = data::task_folder(&suite, task, to.path()).unwrap();
            let partitions = data::partitions(&suite, &source).unwrap();
            assert_eq!(data::partitions(&suite, &folder).unwrap(), partitions);
            for partition in &partitions {
                let open = |root: &Path| data::open(&suite, task, root, partition).unwrap();
                assert_same(&task.name, open(to.path()).as_ref(), open(&root).as_ref());
            }
            assert!(data::open(&suite, task, to.path(), "other").is_err());
            let left: Vec<_> =
                std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
            assert_eq!(left.len(), 4, "{left:?}");
        }
    }
}

fn terrabench(home: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_terrabench"));
    command.env("TERRABENCH_CACHE", home.join("cache")).args(arguments).output().unwrap()
}

#[test]
fn records_are_the_same() {
    let Some(real) = real() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (model, weights) = (common::fixture("model/tiny.toml"), common::fixture("model/tiny.safetensors"));
    for (suite, task, sub) in
        [("geobench", "m-eurosat", "geobench"), ("copernicus-bench", "eurosat-s2", "copernicus-bench")]
    {
        let data = real.join(sub).to_str().unwrap().to_owned();
        let output = terrabench(
            folder.path(),
            &["prepare", suite, "--task", task, "--data", &data, "--to", &path("packed")],
        );
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let bench = |data: &str, out: &str| {
            let arguments =
                ["bench", suite, "--task", task, "--partition", "default", "--protocol", "knn", "--no-cache"];
            let model = ["--model", model.to_str().unwrap(), "--weights", weights.to_str().unwrap()];
            let output = terrabench(
                folder.path(),
                &[&arguments[..], &model, &["--data", data, "--out", out]].concat(),
            );
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            records(&Path::new(out).join(suite))
        };
        let (plain, packed) = (bench(&data, &path("plain-out")), bench(&path("packed"), &path("packed-out")));
        assert_eq!(plain.len(), 1);
        assert_eq!(plain, packed);
    }
}

#[test]
fn what_is_not_whole_does_not_count() {
    let Some(real) = real() else { return };
    let (suite, root) = (suite("copernicus-bench"), real.join("copernicus-bench"));
    let task = suite.task("eurosat-s1").unwrap();
    let to = tempfile::tempdir().unwrap();
    pack(&suite, task, &root, to.path(), &Silent).unwrap();
    let folder = to.path().join("eurosat-s1");
    let open =
        || data::open(&suite, task, to.path(), "default").map(|_| ()).map_err(|error| error.to_string());
    assert_eq!(open(), Ok(()));

    // Without its index, as after an interruption, there is nothing.
    let index = std::fs::read(folder.join("index.json")).unwrap();
    std::fs::remove_file(folder.join("index.json")).unwrap();
    assert!(open().unwrap_err().contains("is not there"));
    std::fs::write(folder.join("index.json"), &index[..index.len() / 2]).unwrap();
    assert!(open().unwrap_err().contains("cargo xtask prepare"));
    std::fs::write(folder.join("index.json"), &index).unwrap();

    // A file that is cut short, or of which pixels changed.
    let file = folder.join("train.h5");
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() - 1000]).unwrap();
    assert!(open().unwrap_err().contains("index.json says"));
    for place in (0..whole.len()).step_by(whole.len() / 60) {
        let mut spoilt = whole.clone();
        spoilt[place] ^= 0xff;
        std::fs::write(&file, spoilt).unwrap();
        // Whatever comes of it, it is no panic.
        if let Ok(dataset) = data::open(&suite, task, to.path(), "default") {
            let bands = dataset.bands().unwrap_or_default();
            (0..dataset.samples(Split::Train).len())
                .for_each(|i| drop(dataset.read(Split::Train, i, &bands)));
        }
    }
    // Packed anew where it is damaged.
    std::fs::write(&file, &whole[..100]).unwrap();
    assert!(!pack(&suite, task, &root, to.path(), &Silent).unwrap().reused);
    assert_eq!(open(), Ok(()));

    // A source that cannot be read leaves no index behind.
    let broken = tempfile::tempdir().unwrap();
    let source = broken.path().join("eurosat_s1");
    std::fs::create_dir_all(&source).unwrap();
    for split in ["train", "val", "test"] {
        std::fs::write(source.join(format!("eurosat-{split}.txt")), "Forest_1.jpg\n").unwrap();
    }
    assert!(pack(&suite, task, broken.path(), to.path(), &Silent).is_err());
    // A folder that cannot be written to.
    let nowhere = broken.path().join("file");
    std::fs::write(&nowhere, "").unwrap();
    assert!(pack(&suite, task, &root, &nowhere, &Silent).is_err());
}
