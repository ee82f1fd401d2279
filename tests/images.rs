//! Samples of several images: two sensors of the demo's own suite, from the files to records. Two dates: flood.rs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use burn::tensor::Device;
use terrabench::data::decoding::Decoding;
use terrabench::data::packed::pack;
use terrabench::data::{self, Dataset, RawSample, Sample, Split};
use terrabench::demo::provide;
use terrabench::features::{Extractor, Features, Input, InputOptions};
use terrabench::home::Home;
use terrabench::model::config::ModelConfig;
use terrabench::model::{self};
use terrabench::progress::Silent;
use terrabench::record::Record;
use terrabench::task::{Combine, Sensor, Suite, Task};
use terrabench::transform::Preprocess;
use terrabench::transform::augment::Dihedral;
use terrabench::transform::normalize::{BandStatistics, Normalization};
use terrabench::transform::strategies::Strategies;

use crate::common::{self, records};

fn home() -> Home {
    Home::find().unwrap()
}

fn suite() -> Suite {
    Suite::load(&home(), "demo").unwrap()
}

/// The suite's generated data, written once a run.
fn demo() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("demo-images");
        _ = std::fs::remove_dir_all(&cache);
        common::demo::provide(&suite(), &cache)
    })
}

fn open(root: &Path, task: &str) -> Box<dyn Dataset> {
    let suite = suite();
    data::open(&suite, suite.task(task).unwrap(), root, "default").unwrap()
}

#[test]
fn a_sample_holds_an_image_per_sensor() {
    let dataset = open(demo(), "two-sensors");
    let bands = dataset.bands().unwrap();
    assert_eq!((bands[0].len(), bands[1].len()), (10, 2));
    assert_eq!(bands[1], ["06 - VV.LEE Filtered", "05 - VH.LEE Filtered"]);
    let sample = dataset.read(Split::Test, 3, &bands).unwrap();
    let held: Vec<_> = sample.images.iter().map(|image| (image.sensor, image.pixels.dim())).collect();
    assert_eq!(held, [(Sensor::S2_L1C, (10, 32, 32)), (Sensor::S1, (2, 32, 32))]);
    let error = dataset.read(Split::Test, 3, &[vec![], vec!["02 - Blue".into()], vec![]]).unwrap_err();
    assert!(error.to_string().contains("bands requested for 3 images; two-sensors has 2"), "{error}");
}

#[test]
fn two_sensors_read_alike_from_files_and_from_the_packed_form() {
    let folder = tempfile::tempdir().unwrap();
    let suite = suite();
    for name in ["two-sensors", "two-sensor-crops"] {
        pack(&suite, suite.task(name).unwrap(), demo(), folder.path(), &Silent).unwrap();
        let (plain, packed) = (open(demo(), name), open(folder.path(), name));
        let bands = plain.bands().unwrap();
        assert_eq!(packed.fingerprint(&Split::ALL).unwrap(), plain.fingerprint(&Split::ALL).unwrap());
        for (image, names) in bands.iter().enumerate() {
            assert_eq!(packed.statistics(image, names).unwrap(), plain.statistics(image, names).unwrap());
        }
        for split in Split::ALL {
            for index in 0..plain.samples(split).len() {
                let read = |dataset: &dyn Dataset| dataset.read(split, index, &bands).unwrap();
                assert_eq!(read(packed.as_ref()), read(plain.as_ref()), "{name} {split} {index}");
                let raw = |dataset: &dyn Dataset| -> BTreeMap<String, Vec<f64>> {
                    let raw = dataset.read_raw(split, index).unwrap();
                    raw.bands().map(|(name, band)| (name, band.pixels.iter().copied().collect())).collect()
                };
                assert_eq!(raw(packed.as_ref()), raw(plain.as_ref()), "{name} {split} {index}");
            }
        }
    }
}

/// Pixels of other types in one packed file would be other pixels: refused, not left out.
#[test]
fn images_of_different_types_are_not_packed() {
    let folder = tempfile::tempdir().unwrap();
    let mut suite = Suite::load(&home(), "geobench").unwrap();
    suite.tasks.retain(|task| task.name == "m-cashew-plant");
    let root = provide(&suite, folder.path()).unwrap();
    let task = &mut suite.tasks[0];
    let mut images = task.sources();
    images.push(images[0].clone());
    (images[0].date, images[1].date) = (Some("first".into()), Some("second".into()));
    (images[0].stored_bands, images[1].stored_bands) =
        (vec!["02 - Blue".into()], vec!["Cloud Probability".into()]);
    (task.images, task.combine) = (images, Some(Combine::Concatenate));
    let error = pack(&suite, &suite.tasks[0], &root, &folder.path().join("packed"), &Silent).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("band Cloud Probability second and band"), "{error}");
}

/// A data set one of whose images is darker than it is.
struct Darker(Box<dyn Dataset>, usize);

impl Dataset for Darker {
    fn samples(&self, split: Split) -> &[String] {
        self.0.samples(split)
    }
    fn decoding(&self) -> &Decoding {
        self.0.decoding()
    }
    fn files(&self, split: Split) -> Vec<PathBuf> {
        self.0.files(split)
    }
    fn bands(&self) -> terrabench::Result<Vec<Vec<String>>> {
        self.0.bands()
    }
    fn read(&self, split: Split, index: usize, bands: &[Vec<String>]) -> terrabench::Result<Sample> {
        let mut sample = self.0.read(split, index, bands)?;
        sample.images[self.1].pixels *= 0.5;
        Ok(sample)
    }
    fn read_raw(&self, split: Split, index: usize) -> terrabench::Result<RawSample> {
        self.0.read_raw(split, index)
    }
    fn statistics(&self, image: usize, bands: &[String]) -> terrabench::Result<Vec<BandStatistics>> {
        self.0.statistics(image, bands)
    }
    fn contents(&self, split: Split) -> terrabench::Result<Vec<blake3::Hash>> {
        self.0.contents(split)
    }
}

fn input(model: &ModelConfig) -> Input {
    let (suite, strategies) = (suite(), Strategies::load(&home()).unwrap());
    let options = InputOptions {
        by_content: false,
        channels: Default::default(),
        normalization: "default".to_owned(),
        strategies,
        zeros: false,
    };
    Input::open(&suite, suite.task("two-sensors").unwrap(), "default", demo(), model, &options).unwrap()
}

/// Pooled features [2, d] of two test samples.
fn features(model: &ModelConfig, input: &Input) -> Vec<Vec<f32>> {
    let device = Device::flex();
    let loaded = model::load(model, &"random:0".parse().unwrap(), false, &device).unwrap();
    let extractor = Extractor {
        encoder: loaded.encoder.as_ref(),
        device: &device,
        further: &[],
        input,
        strategy: input.only().unwrap(),
        turn: Dihedral::Identity,
        batch_size: 2.into(),
        readers: 1,
    };
    let mut rows = Vec::new();
    let mut take = |batch: Features| {
        rows.extend(batch.matrix.rows().into_iter().map(|row| row.to_vec()));
        Ok(())
    };
    extractor.extract(Split::Test, &[0, 1], &mut take).unwrap();
    rows
}

#[test]
fn each_sensor_has_its_half_of_the_concatenated_features() {
    let mut model = ModelConfig::load(&home(), "demo").unwrap();
    common::encoding::set_side(&mut model, 32);
    let whole = features(&model, &input(&model));
    for (darker, halves) in [(0, [false, true]), (1, [true, false])] {
        let opened = input(&model);
        let changed = Input { dataset: Box::new(Darker(opened.dataset, darker)), ..opened };
        for (changed, whole) in features(&model, &changed).iter().zip(&whole) {
            assert_eq!(whole.len(), 2 * 192);
            let same = [changed[..192] == whole[..192], changed[192..] == whole[192..]];
            assert_eq!(same, halves, "image {darker} is darker");
        }
    }
}

#[test]
fn a_model_that_fuses_sensors_gets_both_in_one_batch() {
    let model = ModelConfig::load(&home(), "galileo-nano").unwrap();
    let opened = input(&model);
    assert!(opened.fused && opened.spec().combine.is_none());
    let whole = features(&model, &opened);
    assert_eq!(whole[0].len(), 128);
    for darker in [0, 1] {
        let opened = input(&model);
        let changed = Input { dataset: Box::new(Darker(opened.dataset, darker)), ..opened };
        assert_ne!(features(&model, &changed), whole, "image {darker} is darker");
    }
}

fn bench(data: Option<&Path>, out: &Path, task: &str, protocol: &str, more: &[&str]) -> Record {
    let mut command = Command::new(env!("CARGO_BIN_EXE_terrabench"));
    command.env("TERRABENCH_CACHE", demo().parent().unwrap());
    command.args(["bench", "demo", "--task", task, "--protocol", protocol, "--out"]).arg(out).args(more);
    match data {
        None => command.arg("--demo"),
        Some(data) => command.args(["--model", "demo", "--weights", "random:0", "--data"]).arg(data),
    };
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let folder = out.join(if data.is_none() { "demo-demo" } else { "demo" });
    records(&folder).into_values().find(|record| record.cell.task == task).unwrap()
}

#[test]
fn protocols_that_score_images_run_on_two_sensors() {
    let folder = tempfile::tempdir().unwrap();
    let out = |name: &str| folder.path().join(name);
    let record = bench(None, &out("a"), "two-sensors", "knn", &[]);
    let made = &record.provenance;
    let sensors: Vec<Sensor> = made.images.iter().map(|image| image.sensor).collect();
    assert_eq!(sensors, [Sensor::S2_L1C, Sensor::S1]);
    assert_eq!(made.sensors(), "s2-l1c + s1");
    assert_eq!(
        (made.bands[1].as_str(), made.bands[12].as_str()),
        ("02 - Blue s2-l1c", "06 - VV.LEE Filtered s1")
    );
    assert_eq!(record.notes, [], "demo data give no findings");
    bench(None, &out("b"), "two-sensors", "linear-probe", &[]);
    let short = ["--epochs", "1", "--learning-rates", "1e-4", "--limit", "4"];
    bench(None, &out("c"), "two-sensors", "finetune", &short);
    bench(None, &out("d"), "two-sensors", "knn", &["--model", "image-stats"]);

    // The packed form gives the same record.
    let suite = suite();
    pack(&suite, suite.task("two-sensors").unwrap(), demo(), &out("packed"), &Silent).unwrap();
    let plain = bench(Some(demo()), &out("e"), "two-sensors", "knn", &[]);
    let packed = bench(Some(&out("packed")), &out("f"), "two-sensors", "knn", &[]);
    assert_eq!((plain.fingerprint, plain.value), (packed.fingerprint, packed.value));
}

#[test]
fn protocols_that_score_pixels_run_on_two_sensors() {
    let folder = tempfile::tempdir().unwrap();
    let out = |name: &str| folder.path().join(name);
    bench(None, &out("a"), "two-sensor-crops", "segmentation-probe", &["--epochs", "1"]);
    let small = [
        ("channels = 512", "channels = 8"),
        ("channels = 256", "channels = 8"),
        ("batch-size = 16", "batch-size = 2"),
    ];
    let short = ["--epochs", "3", "--learning-rates", "1e-3"];
    for protocol in ["upernet", "upernet-finetune"] {
        let protocol = common::changed_protocol(protocol, folder.path(), &small);
        bench(None, &out(&format!("{}", protocol.len())), "two-sensor-crops", &protocol, &short);
    }
    let sheets = std::fs::read_dir(out("a/demo-demo/sheets")).unwrap().count();
    assert_eq!(sheets, 1, "a picture sheet");
}

#[test]
fn the_sweep_of_two_sensors_holds_what_suits_both() {
    let strategies = Strategies::load(&home()).unwrap();
    let model = ModelConfig::load(&home(), "demo").unwrap();
    let asked = |typed: &str| {
        let both = [Sensor::S2_L1C, Sensor::S1];
        let asked = strategies.asked_of_all(typed, &both, model.normalization).unwrap();
        asked.iter().map(ToString::to_string).collect::<Vec<String>>()
    };
    let sweep = asked("sweep");
    assert_eq!(sweep.len(), 7, "{sweep:?}");
    assert!(sweep.iter().all(|name| name.starts_with("dataset-")), "{sweep:?}");
    assert_eq!(asked("satlas"), ["satlas"]);
}

#[test]
fn a_part_of_a_preprocessing_is_of_its_channels() {
    let statistics: Vec<BandStatistics> =
        (0..5).map(|band| BandStatistics { mean: f64::from(band), std: 1.0 }).collect();
    let of = |bands: &[BandStatistics], zeroed: Vec<usize>| Preprocess {
        normalization: Normalization::standardize(bands).unwrap(),
        height: 8,
        width: 8,
        align_corners: false,
        zeroed,
    };
    let whole = of(&statistics, vec![0, 3]);
    assert_eq!(whole.part(0, 2), of(&statistics[..2], vec![0]));
    assert_eq!(whole.part(2, 3), of(&statistics[2..], vec![1]));
}

/// What loading the suite says once a part of its file is replaced by another.
fn problem(from: &str, to: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(home().suite("demo")).unwrap();
    assert!(text.contains(from), "{from}");
    std::fs::create_dir_all(folder.path().join("benchmarks")).unwrap();
    std::fs::write(folder.path().join("benchmarks/demo.toml"), text.replacen(from, to, 1)).unwrap();
    Suite::load(&Home::of(folder.path()).unwrap(), "demo").unwrap_err().to_string()
}

#[test]
fn images_that_contradict_each_other_are_told() {
    let second = "sensor = \"s1\"\ninput-sensor = \"s1\"\n";
    let first = "[[tasks.images]]\nsensor = \"s2-l1c\"\ninput-sensor = \"s2-l1c\"\n";
    for (from, to, expected) in [
        ("combine = \"concatenate\"\n", "", "set `combine`"),
        (
            "combine = \"concatenate\"\n",
            "combine = \"concatenate\"\nstored-bands = [\"x\"]\n",
            "set `stored-bands` per image",
        ),
        (
            second,
            "sensor = \"s2-l1c\"\ninput-sensor = \"s2-l1c\"\n",
            "two `images` with the same sensor and date",
        ),
        (
            first,
            "[[tasks.images]]\nsensor = \"s1\"\ninput-sensor = \"s1\"\n",
            "from the first of its `images`",
        ),
        (
            "stored-bands = [\"06 - VV.LEE Filtered\", \"05 - VH.LEE Filtered\"]\n",
            "",
            "without `stored-bands`",
        ),
        ("family = \"geobench\"", "family = \"landslide4sense\"", "does not support"),
    ] {
        let found = problem(from, to);
        assert!(found.contains("task `two-sensors`") && found.contains(expected), "{expected}: {found}");
    }
    let third = format!("combine = \"difference\"\n{first}date = \"later\"\nstored-bands = [\"x\"]\n");
    let found = problem("combine = \"concatenate\"\n", &third);
    assert!(found.contains("has 3 images; combining by difference needs exactly 2"), "{found}");
}

#[test]
fn the_sensor_of_one_level_is_exchanged_in_the_images_too() {
    let suite = suite().with_input_sensor(Sensor::S2_L2A);
    let task: &Task = suite.task("two-sensors").unwrap();
    let told: Vec<Sensor> = task.images.iter().map(|image| image.input_sensor).collect();
    assert_eq!((task.input_sensor, told), (Sensor::S2_L2A, vec![Sensor::S2_L2A, Sensor::S1]));
}
