//! The demo of GEO-Bench's tasks of Landsat and aerial images: the official layout with its dates and names, every class in every
//! split, the same bytes everywhere, and runs that write it only if they need it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use terrabench::data::{self, Dataset, Split, Target};
use terrabench::demo::{has, provide, provide_for};
use terrabench::home::Home;
use terrabench::task::Suite;

const TASKS: [&str; 6] =
    ["m-forestnet", "m-pv4ger", "m-pv4ger-seg", "m-chesapeake", "m-NeonTree", "m-nz-cattle"];

/// GEO-Bench with these six tasks.
fn suite() -> Suite {
    let mut suite = Suite::load(&Home::find().unwrap(), "geobench").unwrap();
    suite.tasks.retain(|task| TASKS.contains(&task.name.as_str()));
    assert_eq!(suite.tasks.len(), 6);
    suite
}

/// Their demo, written once per test run.
fn demo() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("demo-brightness");
        _ = std::fs::remove_dir_all(&cache);
        provide_for(&suite(), &["m-pv4ger"], &cache, 0).unwrap()
    })
}

fn open(task: &str) -> Box<dyn Dataset> {
    let suite = suite();
    data::open(&suite, suite.task(task).unwrap(), demo(), "default").unwrap()
}

/// A band as the official package describes it: name, type, height and width.
type Layout = (&'static str, &'static str, usize);

#[test]
fn bands_have_the_official_names_types_and_sizes() {
    let rgb: [[Layout; 3]; 3] =
        [320, 400, 500].map(|side| ["Red", "Green", "Blue"].map(|name| (name, "uint8", side)));
    let landsat: Vec<Layout> =
        ["04 - Red", "03 - Green", "02 - Blue", "05 - NIR", "06 - SWIR1", "07 - SWIR2"]
            .map(|name| (name, "uint8", 332))
            .to_vec();
    let chesapeake: Vec<Layout> =
        ["Red", "Green", "Blue", "NearInfrared"].map(|name| (name, "float32", 256)).to_vec();
    let expected: [(&str, Vec<Layout>, Option<&str>); 6] = [
        ("m-forestnet", landsat, None),
        ("m-pv4ger", rgb[0].to_vec(), None),
        ("m-pv4ger-seg", rgb[0].to_vec(), Some("uint8")),
        ("m-chesapeake", chesapeake, Some("int64")),
        ("m-NeonTree", rgb[1].to_vec(), Some("uint8")),
        ("m-nz-cattle", rgb[2].to_vec(), Some("uint8")),
    ];
    for (task, layout, mask) in expected {
        let dataset = open(task);
        for split in Split::ALL {
            let raw = dataset.read_raw(split, 0).unwrap();
            let found: Vec<(&str, &str, usize)> = raw.images[0]
                .bands
                .iter()
                .map(|band| (band.name.as_str(), band.dtype.as_str(), band.pixels.nrows()))
                .collect();
            // m-NeonTree has more, below.
            assert_eq!(found[..layout.len()], layout, "{task} {split}");
            assert!(task == "m-NeonTree" || found.len() == layout.len(), "{task} {split}: {found:?}");
            assert_eq!(raw.label_dtype.as_deref(), mask, "{task} {split}");
        }
    }
}

#[test]
fn neon_tree_has_heights_and_369_narrow_bands_in_larger_pixels() {
    let raw = open("m-NeonTree").read_raw(Split::Train, 0).unwrap();
    let bands = &raw.images[0].bands;
    assert_eq!(bands.len(), 3 + 1 + 369);
    let (heights, spectra) = (&bands[3], &bands[4..]);
    assert_eq!((heights.name.as_str(), heights.dtype.as_str()), ("Canopy Height Model", "float32"));
    assert_eq!((heights.pixels.dim(), spectra[0].pixels.dim()), ((40, 40), (40, 40)));
    assert!(spectra.iter().all(|band| band.dtype == "int16"));
    // Trees are high where the mask says tree, and darker in red than in the near infrared, at 0.67 and 0.86 micrometres.
    let Target::Mask(mask) = &raw.target else { panic!() };
    let (mut high, mut trees, mut red, mut infrared) = (0, 0, 0.0, 0.0);
    for ((row, column), height) in heights.pixels.indexed_iter() {
        if mask[[10 * row + 5, 10 * column + 5]] == 1 {
            trees += 1;
            high += i32::from(*height >= 2.0);
            red += spectra[50].pixels[[row, column]];
            infrared += spectra[83].pixels[[row, column]];
        }
    }
    assert!(trees > 20 && high == trees, "{high} of {trees}");
    assert!(infrared > 2.0 * red, "{infrared} and {red}");
}

#[test]
fn names_have_places_and_dates_as_the_official_ones() {
    let first = |task: &str| open(task).samples(Split::Train)[0].clone();
    let forestnet = open("m-forestnet");
    assert!(forestnet.samples(Split::Train).iter().all(|name| name.split('_').count() == 5));
    assert!(first("m-forestnet").starts_with("-6.0"));
    assert!(first("m-pv4ger").contains(',') && first("m-pv4ger-seg").contains(','));
    assert!(first("m-nz-cattle").contains("_(2016-2017)_175"));
    assert_eq!(first("m-chesapeake"), "id_000000");

    // The bands of each sample have the date of its name; in m-nz-cattle the mask has one too.
    let datasets = |task: &str, index: usize| {
        let file = hdf5_pure::File::open(&open(task).files(Split::Train)[index]).unwrap();
        file.root().datasets().unwrap()
    };
    let mut dates = BTreeSet::new();
    for (index, name) in forestnet.samples(Split::Train).iter().enumerate() {
        let date = name.splitn(3, '_').nth(2).unwrap().replace('_', "-");
        assert!(datasets("m-forestnet", index).contains(&format!("04 - Red_{date}")), "{name}");
        dates.insert(date);
    }
    assert!(dates.len() > 10, "{dates:?}");
    assert!(datasets("m-nz-cattle", 0).contains(&"label_2016-01-01".to_owned()));
}

#[test]
fn every_class_is_in_every_split() {
    let suite = suite();
    for task in &suite.tasks {
        let dataset = open(&task.name);
        for split in Split::ALL {
            let mut seen = BTreeSet::new();
            for index in 0..dataset.samples(split).len() {
                match dataset.read_raw(split, index).unwrap().target {
                    Target::Class(class) => drop(seen.insert(class as i32)),
                    Target::Mask(mask) => seen.extend(mask),
                    other => panic!("{}: {other:?}", task.name),
                }
            }
            assert_eq!(seen, (0..task.classes as i32).collect(), "{} {split}", task.name);
        }
    }
}

#[test]
fn the_bytes_are_those_of_every_other_machine() {
    // As in demo.rs: if the generator or the HDF5 writer changed, raise VERSION and put the new hash here.
    let manifest = std::fs::read(demo().join("manifest.json")).unwrap();
    assert_eq!(blake3::hash(&manifest).to_hex().as_str(), PINNED);
    let bytes: u64 = TASKS
        .iter()
        .flat_map(|task| Split::ALL.into_iter().flat_map(|split| open(task).files(split)))
        .map(|path| path.metadata().unwrap().len())
        .sum();
    assert!(bytes < 90_000_000, "{bytes}");
}
const PINNED: &str = "27fbd0c10d5ff28a59badcba0ec18381d36df83a2ee48cbbd2b1cd97cd7ff371";

#[test]
fn only_a_run_that_names_one_of_them_writes_them() {
    let whole = Suite::load(&Home::find().unwrap(), "geobench").unwrap();
    assert!(whole.tasks.iter().all(|task| has(&whole, task)));
    // Small tasks stand for all, to save time.
    let mut few = whole.clone();
    few.tasks.retain(|task| ["m-brick-kiln", "m-pv4ger"].contains(&task.name.as_str()));
    let cache = tempfile::tempdir().unwrap();
    let usual = provide(&few, cache.path()).unwrap();
    assert_eq!(provide_for(&few, &["m-brick-kiln"], cache.path(), 0).unwrap(), usual);
    assert!(!usual.join("classification_v1.0/m-pv4ger").exists());
    let all = provide_for(&few, &["m-pv4ger"], cache.path(), 0).unwrap();
    assert!(
        all.join("classification_v1.0/m-pv4ger").exists()
            && all.join("classification_v1.0/m-brick-kiln").exists()
    );
}

/// Runs `bench geobench --demo` in a folder and returns what it said.
fn bench(folder: &Path, more: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_terrabench"))
        .env("TERRABENCH_CACHE", folder.join("cache"))
        .current_dir(folder)
        .args(["bench", "geobench", "--demo"])
        .args(more)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

#[test]
fn a_named_task_runs_on_its_demo_with_bands_matched_by_wavelength() {
    let folder = tempfile::tempdir().unwrap();
    let words = ["--model", "demo", "--task", "m-pv4ger", "--task", "m-forestnet", "--protocol", "knn"];
    let said = bench(folder.path(), &words);
    for task in ["m-forestnet", "m-pv4ger"] {
        assert!(said.contains(&format!("{task} default knn seed 0: accuracy")), "{said}");
    }
    let said = bench(
        folder.path(),
        &["--model", "demo", "--task", "m-chesapeake", "--protocol", "segmentation-probe", "--epochs", "1"],
    );
    assert!(said.contains("m-chesapeake default segmentation-probe seed 0: miou"), "{said}");
}
