//! Packed tasks have the same samples, hashes and records as their source files, and damage is detected.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::common;
use crate::common::records;
use terrabench::data::packed::pack;
use terrabench::data::{self, Dataset, Sample, Split};
use terrabench::home::Home;
use terrabench::progress::Silent;
use terrabench::task::Suite;

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

/// Compares everything in two data sets that a record depends on.
fn assert_same(task: &str, packed: &dyn Dataset, plain: &dyn Dataset) {
    let bands = packed.bands().unwrap();
    // Left out of packed files because its type differs from that of the pixels.
    let left_out = |band: &String| task == "m-cashew-plant" && band == "Cloud Probability";
    let mut expected = plain.bands().unwrap();
    expected[0].retain(|band| !left_out(band));
    assert_eq!(bands, expected, "{task}");
    assert_eq!(packed.fingerprint(&Split::ALL).unwrap(), plain.fingerprint(&Split::ALL).unwrap(), "{task}");
    let some = &bands[0][1..];
    assert_eq!(packed.statistics(0, some).ok(), plain.statistics(0, some).ok(), "{task}");
    for split in Split::ALL {
        assert_eq!(packed.samples(split), plain.samples(split), "{task}");
        assert_eq!(packed.contents(split).unwrap(), plain.contents(split).unwrap(), "{task}");
        for index in 0..plain.samples(split).len() {
            let read = |dataset: &dyn Dataset| dataset.read(split, index, &bands).unwrap();
            assert_eq!(read(packed), read(plain), "{task} {split} {index}");
            let raw = |dataset: &dyn Dataset| dataset.read_raw(split, index).unwrap();
            let (packed, plain) = (raw(packed), raw(plain));
            assert_eq!((packed.target, packed.label_dtype), (plain.target, plain.label_dtype), "{task}");
            for band in packed.images.into_iter().flat_map(|image| image.bands) {
                assert!(plain.images[0].bands.contains(&band), "{task} {split} {index} {}", band.name);
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
        // There are no real pixels of Flood-S1, Sentinel-3 and Sentinel-5P: other tests pack generated ones.
        let has_pixels = |task: &&terrabench::task::Task| {
            data::open(&suite, task, &root, "default")
                .is_ok_and(|dataset| !dataset.samples(Split::Train).is_empty())
        };
        let tasks: Vec<_> = suite.tasks.iter().filter(has_pixels).collect();
        assert!(tasks.len() >= 6, "{name}");
        for task in tasks {
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
            assert_eq!(files(&folder).into_keys().collect::<Vec<_>>(), WHOLE);
        }
    }
}

/// The contents of a packed task's folder.
const WHOLE: [&str; 5] = [".lock", "index.json", "test.h5", "train.h5", "valid.h5"];

/// The files of a folder and their bytes.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(folder) else { return BTreeMap::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    // A temporary file may disappear in between.
    paths
        .filter_map(|path| Some((path.file_name()?.to_str().unwrap().to_owned(), std::fs::read(&path).ok()?)))
        .collect()
}

/// A generated m-eurosat in `folder` with this many samples per split: the generated samples repeated, distinguished by
/// bytes appended to the files.
fn generated(folder: &Path, counts: [usize; 3]) -> PathBuf {
    let made = common::demo::provide(&suite("geobench"), &folder.join("demo"));
    let (made, root) = (made.join(EUROSAT), folder.join("data"));
    let data = root.join(EUROSAT);
    std::fs::create_dir_all(&data).unwrap();
    let text = std::fs::read_to_string(made.join("default_partition.json")).unwrap();
    let mut partition: BTreeMap<String, Vec<String>> = serde_json::from_str(&text).unwrap();
    for (split, count) in ["train", "valid", "test"].into_iter().zip(counts) {
        let known = partition.insert(split.to_owned(), Vec::new()).unwrap();
        for index in 0..count {
            let name = format!("{split}_{index}");
            let mut bytes = std::fs::read(made.join(format!("{}.hdf5", known[index % known.len()]))).unwrap();
            bytes.extend(index.to_le_bytes());
            std::fs::write(data.join(format!("{name}.hdf5")), bytes).unwrap();
            partition.get_mut(split).unwrap().push(name);
        }
    }
    std::fs::write(data.join("default_partition.json"), serde_json::to_string(&partition).unwrap()).unwrap();
    std::fs::copy(made.join("band_stats.json"), data.join("band_stats.json")).unwrap();
    root
}

const EUROSAT: &str = "classification_v1.0/m-eurosat";

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
fn incomplete_packed_files_do_not_count() {
    let Some(real) = real() else { return };
    let (suite, root) = (suite("copernicus-bench"), real.join("copernicus-bench"));
    let task = suite.task("eurosat-s1").unwrap();
    let to = tempfile::tempdir().unwrap();
    pack(&suite, task, &root, to.path(), &Silent).unwrap();
    let folder = to.path().join("eurosat-s1");
    let open =
        || data::open(&suite, task, to.path(), "default").map(|_| ()).map_err(|error| error.to_string());
    assert_eq!(open(), Ok(()));

    // Without its index, as after an interruption, the folder does not count as packed.
    let index = std::fs::read(folder.join("index.json")).unwrap();
    std::fs::remove_file(folder.join("index.json")).unwrap();
    assert!(open().unwrap_err().contains("no such folder"));
    std::fs::write(folder.join("index.json"), &index[..index.len() / 2]).unwrap();
    assert!(open().unwrap_err().contains("cargo xtask prepare"));
    std::fs::write(folder.join("index.json"), &index).unwrap();

    // A truncated file.
    let file = folder.join("train.h5");
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() - 1000]).unwrap();
    assert!(open().unwrap_err().contains("from index.json"));
    // Packing again repairs the damage.
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
    // A folder that is not writable.
    let nowhere = broken.path().join("file");
    std::fs::write(&nowhere, "").unwrap();
    assert!(pack(&suite, task, &root, &nowhere, &Silent).is_err());
}

fn eurosat(root: &Path) -> terrabench::Result<Box<dyn Dataset>> {
    let suite = suite("geobench");
    data::open(&suite, suite.task("m-eurosat").unwrap(), root, "default")
}

/// Makes `command` pack the task, with the cache in `home`.
fn prepare_eurosat<'c>(command: &'c mut Command, home: &Path, root: &Path, to: &Path) -> &'c mut Command {
    command.env("TERRABENCH_CACHE", home.join("cache"));
    command.args(["prepare", "geobench", "--task", "m-eurosat", "--data"]).arg(root).arg("--to").arg(to)
}

fn all_samples(dataset: &dyn Dataset) -> terrabench::Result<Vec<Sample>> {
    let bands = dataset.bands()?;
    let places = Split::ALL
        .into_iter()
        .flat_map(|split| (0..dataset.samples(split).len()).map(move |index| (split, index)));
    places.map(|(split, index)| dataset.read(split, index, &bands)).collect()
}

#[test]
fn a_flipped_byte_is_refused_or_harmless_and_repaired_by_packing_again() {
    let folder = tempfile::tempdir().unwrap();
    let root = generated(folder.path(), [3, 1, 2]);
    let (suite, to) = (suite("geobench"), folder.path().join("packed"));
    let task = suite.task("m-eurosat").unwrap();
    pack(&suite, task, &root, &to, &Silent).unwrap();
    let clean = files(&to.join("m-eurosat"));
    let expected = all_samples(eurosat(&root).unwrap().as_ref()).unwrap();

    let (mut refused, mut harmless) = (0, 0);
    for name in ["index.json", "train.h5", "valid.h5"] {
        let (path, whole) = (to.join("m-eurosat").join(name), &clean[name]);
        // Every byte of the small parts at the ends, where HDF5 keeps its metadata, and some of the pixels.
        let ends = (0..2000.min(whole.len())).chain(whole.len().saturating_sub(1500)..whole.len());
        for (round, place) in ends.step_by(7).chain((0..whole.len()).step_by(997)).enumerate() {
            let mut spoilt = whole.clone();
            spoilt[place] ^= [0xff, 0x01, 0x80][round % 3];
            std::fs::write(&path, spoilt).unwrap();
            let found = eurosat(&to).and_then(|dataset| {
                let statistics = dataset.statistics(0, &dataset.bands()?[0])?;
                let fingerprint = dataset.fingerprint(&Split::ALL)?;
                Ok((all_samples(dataset.as_ref())?, statistics, fingerprint))
            });
            match found {
                Err(error) => {
                    refused += 1;
                    let error = error.to_string();
                    assert!(error.contains(name) || error.contains("index.json"), "{name} {place}: {error}");
                    assert!(error.contains("cargo xtask prepare"), "{name} {place}: {error}");
                }
                Ok((samples, statistics, fingerprint)) => {
                    harmless += 1;
                    let source = eurosat(&root).unwrap();
                    assert!(samples == expected, "{name} {place}: other pixels");
                    assert_eq!(
                        statistics,
                        source.statistics(0, &source.bands().unwrap()[0]).unwrap(),
                        "{place}"
                    );
                    assert_eq!(fingerprint, source.fingerprint(&Split::ALL).unwrap(), "{place}");
                }
            }
        }
        std::fs::write(&path, whole).unwrap();
        assert!(all_samples(eurosat(&to).unwrap().as_ref()).unwrap() == expected);
    }
    assert!(refused > 1000 && harmless <= refused / 100, "{refused} refused, {harmless} harmless");

    // In the middle of the pixels, which opening does not read.
    let (path, mut spoilt) = (to.join("m-eurosat/train.h5"), clean["train.h5"].clone());
    let middle = spoilt.len() / 2;
    spoilt[middle] ^= 1;
    std::fs::write(&path, spoilt).unwrap();
    let error = all_samples(eurosat(&to).unwrap().as_ref()).unwrap_err().to_string();
    assert!(error.contains("checksum") && error.contains("cargo xtask prepare"), "{error}");
    assert!(!pack(&suite, task, &root, &to, &Silent).unwrap().reused);
    assert!(files(&to.join("m-eurosat")) == clean);
    assert!(pack(&suite, task, &root, &to, &Silent).unwrap().reused);
}

#[test]
fn files_without_checksums_of_an_earlier_format_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let made = common::demo::provide(&suite("geobench"), folder.path());
    let source = eurosat(&made).unwrap();
    let old = eurosat(&common::fixture("packed-format-1")).unwrap();
    let bands = source.bands().unwrap();
    assert_eq!(old.bands().unwrap(), bands);
    for split in Split::ALL {
        assert_eq!(old.samples(split), &source.samples(split)[..1]);
        assert_eq!(old.read(split, 0, &bands).unwrap(), source.read(split, 0, &bands).unwrap());
        assert_eq!(old.contents(split).unwrap(), &source.contents(split).unwrap()[..1]);
    }
}

/// Format 2 is format 1 with checksums. For GEO-Bench, its header determines the decoding completely.
#[test]
fn files_of_format_2_are_read_if_only_one_decoding_is_possible() {
    let folder = tempfile::tempdir().unwrap();
    let packed = folder.path().join("m-eurosat");
    std::fs::create_dir(&packed).unwrap();
    for (name, bytes) in files(&common::fixture("packed-format-1").join("m-eurosat")) {
        std::fs::write(packed.join(name), bytes).unwrap();
    }
    let index = std::fs::read_to_string(packed.join("index.json")).unwrap();
    let index = index.trim_end().replace("\"format\":1", "\"format\":2");
    let without = format!("{},\"checksum\":null}}", index.strip_suffix('}').unwrap());
    let sum = blake3::hash(without.as_bytes()).to_hex().to_string();
    std::fs::write(packed.join("index.json"), without.replace("null}", &format!("\"{sum}\"}}"))).unwrap();
    let old = eurosat(&common::fixture("packed-format-1")).unwrap();
    let found = eurosat(folder.path()).unwrap();
    assert!(all_samples(found.as_ref()).unwrap() == all_samples(old.as_ref()).unwrap());
}

#[cfg(unix)]
#[test]
fn killed_packing_resumes_and_ends_with_the_same_files() {
    let folder = tempfile::tempdir().unwrap();
    let root = generated(folder.path(), [150, 150, 600]);
    let prepare = |to: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_terrabench"));
        prepare_eurosat(&mut command, folder.path(), &root, to).stderr(std::process::Stdio::piped());
        command
    };
    let clean = folder.path().join("clean");
    assert!(prepare(&clean).output().unwrap().status.success());
    let clean = files(&clean.join("m-eurosat"));
    assert!(clean.keys().eq(&WHOLE), "{:?}", clean.keys());

    // Kill during the first, the second and the third file.
    for (moment, whole_by_then) in
        [("a", vec![]), ("b", vec!["train.h5"]), ("c", vec!["train.h5", "valid.h5"])]
    {
        let to = folder.path().join(moment);
        let packed = to.join("m-eurosat");
        let begun = |name: &&str| packed.join(name).is_file();
        let under_way = || {
            let names = std::fs::read_dir(&packed).into_iter().flatten();
            names.map(|entry| entry.unwrap().file_name()).any(|name| name.to_str().unwrap().ends_with(".tmp"))
        };
        let mut child = prepare(&to).stdout(std::process::Stdio::null()).spawn().unwrap();
        while !(whole_by_then.iter().all(begun) && under_way()) {
            assert!(child.try_wait().unwrap().is_none(), "it ended too early");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(under_way() && !packed.join("index.json").exists(), "{moment}: killed too late");
        assert_eq!(WHOLE[2..].iter().filter(|name| begun(name)).count(), whole_by_then.len(), "{moment}");

        let error = eurosat(&to).err().unwrap().to_string();
        assert!(error.contains("m-eurosat") && error.contains("help: "), "{error}");
        let out = to.join("out");
        let bench = terrabench(
            folder.path(),
            &["bench", "geobench", "--task", "m-eurosat", "--partition", "default", "--model", "demo"]
                .into_iter()
                .chain(["--weights", "random:0", "--data", to.to_str().unwrap()])
                .chain(["--out", out.to_str().unwrap()])
                .collect::<Vec<_>>(),
        );
        assert!(!bench.status.success(), "{moment}");
        assert!(records(&out.join("geobench")).is_empty(), "{moment}");

        let again = prepare(&to).output().unwrap();
        let said = String::from_utf8_lossy(&again.stderr);
        assert!(again.status.success(), "{said}");
        for (split, file) in [("train", "train.h5"), ("valid", "valid.h5"), ("test", "test.h5")] {
            let packs = said.contains(&format!("pack {split}:"));
            assert_eq!(packs, !whole_by_then.contains(&file), "{moment} {split}: {said}");
        }
        let found = files(&packed);
        assert!(found == clean, "{moment}: {:?}", found.keys());
    }
}

#[cfg(unix)]
#[test]
fn a_full_disk_is_reported_and_complete_splits_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let root = generated(folder.path(), [4, 2, 40]);
    let to = folder.path().join("packed");
    // A limit on file size stands in for the full disk: the small splits fit below it, the large one does not.
    let prepare = |limit: &str| {
        let script = format!("trap '' XFSZ; ulimit -f {limit}; exec \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_terrabench")]);
        let output = prepare_eurosat(&mut command, folder.path(), &root, &to).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (done, said) = prepare("1500");
    assert!(!done);
    let packed = to.join("m-eurosat");
    assert!(said.contains(&packed.join("test.h5").display().to_string()), "{said}");
    assert!(said.contains("too large") && said.contains("make room on the disk"), "{said}");
    let kept = files(&packed);
    assert_eq!(kept.keys().collect::<Vec<_>>(), [".lock", "train.h5", "valid.h5"]);
    assert!(eurosat(&to).is_err());

    let (done, said) = prepare("unlimited");
    assert!(done && said.contains("pack test:") && !said.contains("pack train:"), "{said}");
    let whole = files(&packed);
    assert!(whole.keys().eq(&WHOLE) && kept.iter().all(|(name, bytes)| whole[name] == *bytes));
    let samples = |root: &Path| all_samples(eurosat(root).unwrap().as_ref()).unwrap();
    assert!(samples(&to) == samples(&root));
}

#[test]
fn concurrent_runs_pack_once() {
    let folder = tempfile::tempdir().unwrap();
    let root = generated(folder.path(), [60, 4, 4]);
    let to = folder.path().join("packed");
    let prepare = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_terrabench"));
        prepare_eurosat(&mut command, folder.path(), &root, &to);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap()
    };
    let both = [prepare(), prepare()].map(|child| child.wait_with_output().unwrap());
    assert!(both.iter().all(|output| output.status.success()), "{both:?}");
    let said = both.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let count = |what: &str| said.iter().filter(|text| text.contains(what)).count();
    assert_eq!((count("packed and read back"), count("was there already")), (1, 1), "{said:?}");
    assert!(files(&to.join("m-eurosat")).keys().eq(&WHOLE));
}
