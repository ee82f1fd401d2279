//! Flood-S1, change detection between two dates. There are no samples of the release here, so the tests generate files in
//! its layout.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::common;
use crate::common::encoding::set_side;
use crate::common::records;
use ndarray::{Axis, concatenate, s};
use terrabench::data::packed::pack;
use terrabench::data::{self, Dataset, Sample, Split, Target};
use terrabench::features::{Input, InputOptions};
use terrabench::home::Home;
use terrabench::model::config::ModelConfig;
use terrabench::progress::Silent;
use terrabench::task::{Sensor, Suite, Task};
use terrabench::transform::strategies::Strategies;
use tiff::encoder::TiffEncoder;
use tiff::encoder::colortype::{Gray8, Gray32Float};

const SIDE: usize = 32;
/// Band names of all images together.
const BANDS: [&str; 4] = ["VV before", "VH before", "VV after", "VH after"];
/// Band names of the image of each date.
const OF_IMAGE: [&str; 2] = ["VV", "VH"];
/// In the order of the list, which is not alphabetical.
const NAMES: [&str; 3] = ["c1", "a2", "b3"];

fn suite() -> Suite {
    Suite::load(&Home::find().unwrap(), "copernicus-bench").unwrap()
}

fn open(root: &Path) -> terrabench::Result<Box<dyn Dataset>> {
    let suite = suite();
    data::open(&suite, suite.task("flood-s1").unwrap(), root, "default")
}

/// Backscatter in one file of a sample: some below 0, some above the value at which the reference clamps, one NaN.
fn pixel(sample: usize, file: usize, place: usize) -> f32 {
    match place {
        0 => f32::NAN,
        1 => -0.01,
        2 => f32::INFINITY,
        _ => 0.001 * ((place * (file + 2) + 31 * sample) % 200) as f32,
    }
}

fn code(sample: usize, place: usize) -> u8 {
    ((place / SIDE + sample) / 8 % 4) as u8
}

fn tiff<C: tiff::encoder::colortype::ColorType>(path: &Path, pixels: &[C::Inner])
where
    [C::Inner]: tiff::encoder::TiffValue,
{
    let mut file = std::fs::File::create(path).unwrap();
    let mut encoder = TiffEncoder::new(&mut file).unwrap();
    encoder.write_image::<C>(SIDE as u32, SIDE as u32, pixels).unwrap();
}

/// The task's folder below `root`: a few samples per split, including the files of the release that nothing reads.
fn made(root: &Path) -> PathBuf {
    let task = root.join("flood_s1");
    for (number, split) in ["train", "val", "test"].into_iter().enumerate() {
        let mut list = Vec::new();
        for (place, name) in NAMES.into_iter().enumerate() {
            let (name, sample) = (format!("{name}-{split}"), 3 * number + place);
            let below = format!("1111013/01/{name}");
            list.push(format!(r#""{name}": {{"path": "{below}", "info": {{"rank": "1"}}}}"#));
            let folder = task.join("data").join(below);
            std::fs::create_dir_all(&folder).unwrap();
            let images = ["SL1_IVV", "SL1_IVH", "MS1_IVV", "MS1_IVH", "SL2_IVV", "SL2_IVH", "MK0_DEM"];
            for (file, kind) in images.into_iter().enumerate() {
                let pixels: Vec<f32> = (0..SIDE * SIDE).map(|place| pixel(sample, file, place)).collect();
                tiff::<Gray32Float>(&folder.join(format!("{kind}_1111013_01_20170504.tif")), &pixels);
            }
            let codes: Vec<u8> = (0..SIDE * SIDE).map(|place| code(sample, place)).collect();
            tiff::<Gray8>(&folder.join("MK0_MLU_1111013_01_20170504.tif"), &codes);
            tiff::<Gray8>(&folder.join("MK0_MNA_1111013_01_20170504.tif"), &codes);
            std::fs::write(folder.join("MS1_IVV_1111013_01_20170504.tif.aux.xml"), "<x/>").unwrap();
        }
        std::fs::write(task.join(format!("grid_dict_{split}.json")), format!("{{{}}}", list.join(", ")))
            .unwrap();
    }
    task
}

#[test]
fn samples_contain_two_dates_as_in_the_reference() {
    let folder = tempfile::tempdir().unwrap();
    made(folder.path());
    let dataset = open(folder.path()).unwrap();
    assert_eq!(dataset.bands().unwrap(), [OF_IMAGE; 2]);
    assert_eq!(dataset.samples(Split::Valid), ["c1-val", "a2-val", "b3-val"]);
    assert_eq!(dataset.files(Split::Test).len(), 3 * 5);
    // Packed files and keys of earlier versions have this decoding.
    let decoding = dataset.decoding().json();
    for part in
        [r#""dates":["before","after"]"#, r#""stored-bands":["VV before","VH before","VV after","VH after"]"#]
    {
        assert!(decoding.contains(part), "{decoding}");
    }

    let bands = vec![OF_IMAGE.map(str::to_owned).to_vec(); 2];
    let sample = dataset.read(Split::Valid, 1, &bands).unwrap();
    let dates: Vec<_> = sample.images.iter().map(|image| (image.sensor, image.date.as_deref())).collect();
    assert_eq!(dates, [(Sensor::S1, Some("before")), (Sensor::S1, Some("after"))]);
    let planes = sample.images.iter().flat_map(|image| image.pixels.outer_iter());
    for (file, band) in planes.enumerate() {
        for (place, found) in band.iter().enumerate() {
            // torch.clamp(x, 0, 0.15), which keeps NaN; then nan_to_num(x, 0.15).
            let stored = pixel(4, file, place);
            let expected = match stored {
                x if x.is_nan() || x > 0.15 => 0.15,
                x if x < 0.0 => 0.0,
                x => x,
            };
            assert_eq!(*found, expected, "file {file}, pixel {place}");
        }
    }
    let Target::Mask(mask) = &sample.target else { panic!("{:?}", sample.target) };
    assert!(mask.iter().enumerate().all(|(place, class)| *class == i32::from(code(4, place))));
    let raw = dataset.read_raw(Split::Valid, 1).unwrap();
    assert!(raw.images[1].bands[1].pixels[[0, 0]].is_nan(), "as it is stored");
    assert_eq!(raw.images[1].bands[0].pixels[[0, 1]], f64::from(-0.01_f32));
    // One band is one file, and an image without requested bands is left out.
    let one = dataset.read(Split::Valid, 1, &[vec![], vec!["VV".to_owned()]]).unwrap();
    let [after] = one.images.as_slice() else { panic!("{one:?}") };
    assert_eq!((after.date.as_deref(), after.bands.as_slice()), (Some("after"), &["VV".to_owned()][..]));
    assert_eq!(after.pixels.slice(s![0, .., ..]), sample.images[1].pixels.slice(s![0, .., ..]));
}

#[test]
fn both_dates_go_in_normalised_as_the_reference_does() {
    let folder = tempfile::tempdir().unwrap();
    made(folder.path());
    let (home, suite) = (Home::find().unwrap(), suite());
    let task = suite.task("flood-s1").unwrap();
    let mut model = ModelConfig::load(&home, "terrafm-b").unwrap();
    // Not resized, so that pixels can be compared.
    set_side(&mut model, SIDE);
    let strategies = Strategies::load(&home).unwrap();
    let open = |normalization: &str| {
        let options = InputOptions {
            by_content: false,
            channels: Default::default(),
            normalization: normalization.to_owned(),
            strategies: strategies.clone(),
            zeros: false,
        };
        Input::open(&suite, task, "default", folder.path(), &model, &options).unwrap()
    };
    let input = open("default");
    assert_eq!(input.channel_names(), BANDS);
    // The bands of both dates, one after the other.
    let joined = |sample: Sample| {
        let images: Vec<_> = sample.images.iter().map(|image| image.pixels.view()).collect();
        concatenate(Axis(0), &images).unwrap()
    };
    let stored = joined(input.dataset.read(Split::Train, 0, &input.stored_bands()).unwrap());
    let read =
        |input: &Input| joined(input.read(&input.only().unwrap().preprocess, Split::Train, 0).unwrap());
    let found = read(&input);
    // cobench_flood_s1.yaml; the deviations of the later date are its means.
    let (mean, std) = ([0.0981, 0.0253, 0.0981, 0.0253], [0.0430, 0.0174, 0.0981, 0.0253]);
    for ((band, row, column), found) in found.indexed_iter() {
        let expected = (stored[[band, row, column]] - mean[band]) / std[band];
        assert!((found - expected).abs() < 1e-5, "{band} {row} {column}: {found}, not {expected}");
    }
    // A source of statistics that does not distinguish dates serves both.
    let plain = read(&open("copernicus-bench"));
    assert!((plain[[2, 5, 5]] - (stored[[2, 5, 5]] + 12.548) / 5.257).abs() < 1e-5);
    // The data set's own statistics, clipped: no pixel is further from the mean than the range allows.
    let own = read(&open("dataset"));
    assert!(own.iter().all(|x| x.is_finite() && x.abs() < 3.0));
}

#[test]
fn an_archive_and_a_packed_form_read_as_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let [plain, archive, packed] = ["plain", "archive", "packed"].map(|name| folder.path().join(name));
    std::fs::create_dir(&archive).unwrap();
    common::zipped(&made(&plain), "flood_s1", &archive.join("flood_s1.zip"));
    let suite = suite();
    pack(&suite, suite.task("flood-s1").unwrap(), &plain, &packed, &Silent).unwrap();
    let expected = open(&plain).unwrap();
    let bands = expected.bands().unwrap();
    for root in [archive, packed] {
        let other = open(&root).unwrap();
        assert_eq!(other.fingerprint(&Split::ALL).unwrap(), expected.fingerprint(&Split::ALL).unwrap());
        for image in [0, 1] {
            let of = |dataset: &dyn Dataset| dataset.statistics(image, &bands[image]).unwrap();
            assert_eq!(of(other.as_ref()), of(expected.as_ref()));
        }
        for split in Split::ALL {
            assert_eq!(other.samples(split), expected.samples(split));
            for index in 0..3 {
                let read = |dataset: &dyn Dataset| dataset.read(split, index, &bands).unwrap();
                assert_eq!(read(other.as_ref()), read(expected.as_ref()), "{}", root.display());
            }
        }
    }
}

#[test]
fn damage_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let task = made(folder.path());
    let sample = task.join("data/1111013/01/c1-train");
    let list = task.join("grid_dict_train.json");
    let whole = std::fs::read_to_string(&list).unwrap();
    let problem = || open(folder.path()).map(|_| ()).unwrap_err().to_string();
    let read = || {
        let bands = vec![OF_IMAGE.map(str::to_owned).to_vec(); 2];
        open(folder.path()).unwrap().read(Split::Train, 0, &bands).unwrap_err().to_string()
    };

    std::fs::write(&list, &whole[..whole.len() / 2]).unwrap();
    assert!(problem().contains("grid_dict_train.json") && problem().contains("EOF"), "{}", problem());
    std::fs::write(&list, whole.replace("1111013/01/c1-train", "../../elsewhere")).unwrap();
    assert!(problem().contains("`c1-train`") && problem().contains("points outside"), "{}", problem());
    std::fs::write(&list, whole.replace("1111013/01/c1-train", "1111013/02")).unwrap();
    assert!(problem().contains("`c1-train`") && problem().contains("1111013/02"), "{}", problem());
    std::fs::write(&list, &whole).unwrap();

    let image = sample.join("MS1_IVH_1111013_01_20170504.tif");
    let second = sample.join("MS1_IVH_1111013_01_20170505.tif");
    std::fs::copy(&image, &second).unwrap();
    assert!(problem().contains("found 2 in") && problem().contains("MS1_IVH_"), "{}", problem());
    std::fs::remove_file(&second).unwrap();
    std::fs::rename(&image, sample.join("other.tif")).unwrap();
    assert!(problem().contains("found 0 in") && problem().contains("expected one"), "{}", problem());
    std::fs::rename(sample.join("other.tif"), &image).unwrap();

    // One of the four files is smaller; one is truncated; the mask has an unknown code.
    let bytes = std::fs::read(&image).unwrap();
    let mut file = std::fs::File::create(&image).unwrap();
    TiffEncoder::new(&mut file).unwrap().write_image::<Gray32Float>(2, 2, &[0.0; 4]).unwrap();
    let error = read();
    assert!(error.contains("is 2 x 2 pixels, but the sample's other files are 32 x 32"), "{error}");
    std::fs::write(&image, &bytes[..bytes.len() / 2]).unwrap();
    assert!(read().contains("MS1_IVH_1111013_01_20170504.tif: invalid TIFF image"), "{}", read());
    std::fs::write(&image, &bytes).unwrap();
    tiff::<Gray8>(&sample.join("MK0_MLU_1111013_01_20170504.tif"), &[7; SIDE * SIDE]);
    assert!(read().contains("the mask contains 7; expected one of 0 to 2"), "{}", read());
}

/// A small head, and batches that the few samples fill.
const SMALLER: [(&str, &str); 3] = [
    ("channels = 512", "channels = 16"),
    ("channels = 256", "channels = 8"),
    ("batch-size = 16", "batch-size = 2"),
];

fn bench(data: &Path, out: &Path, protocol: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_terrabench"));
    command.env("TERRABENCH_CACHE", out.with_file_name("cache"));
    command.args(["bench", "copernicus-bench", "--task", "flood-s1", "--protocol", protocol, "--data"]);
    command.arg(data).arg("--out").arg(out).arg("--model").arg(common::fixture("model/tiny.toml"));
    command.arg("--weights").arg(common::fixture("model/tiny.safetensors"));
    if protocol.contains("upernet") {
        command.args(["--epochs", "3", "--learning-rates", "1e-3"]);
    }
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn upernet_finds_changes_from_files_and_from_the_packed_form() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let task = made(&path("plain"));
    pack(&suite(), suite().task("flood-s1").unwrap(), &path("plain"), &path("packed"), &Silent).unwrap();
    let run = |protocol: &str, data: &str, out: &str| {
        let output =
            bench(&path(data), &path(out), &common::changed_protocol(protocol, folder.path(), &SMALLER));
        assert!(output.status.success(), "{}", said(&output));
        let (name, record) = records(&path(out).join("copernicus-bench")).pop_first().unwrap();
        (name, record.value, record.scores, record.provenance)
    };
    let of_files = run("upernet", "plain", "a");
    let of_packed = run("upernet", "packed", "b");
    assert_eq!((&of_files.0, of_files.1, &of_files.2), (&of_packed.0, of_packed.1, &of_packed.2));
    assert_eq!(of_files.3.bands, BANDS);
    assert_eq!(of_files.3.normalization, "copernicus-bench-flood");
    assert!((0.0..=100.0).contains(&of_files.1) && of_files.2.contains_key("reported_miou"));
    let sheets = std::fs::read_dir(path("a/copernicus-bench/sheets")).unwrap().count();
    assert_eq!(sheets, 1, "a picture sheet");
    let tuned = run("upernet-finetune", "plain", "c");
    assert_ne!(tuned.2, of_files.2);

    // The order of the dates affects the result: the same task with the two dates swapped.
    for entry in std::fs::read_dir(task.join("data/1111013/01")).unwrap() {
        let sample = entry.unwrap().path();
        for band in ["IVV", "IVH"] {
            let file = |date: &str| sample.join(format!("{date}_{band}_1111013_01_20170504.tif"));
            std::fs::rename(file("SL1"), file("spare")).unwrap();
            std::fs::rename(file("MS1"), file("SL1")).unwrap();
            std::fs::rename(file("spare"), file("MS1")).unwrap();
        }
    }
    assert_ne!(run("upernet", "plain", "d").2, of_files.2);
}

#[test]
fn the_segmentation_probe_runs_on_two_dates() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    made(&path("data"));
    let small = [("tile = 64", "tile = 32"), ("epochs = 50", "epochs = 1")];
    let protocol = common::changed_protocol("segmentation-probe", folder.path(), &small);
    let output = bench(&path("data"), &path("out"), &protocol);
    assert!(output.status.success(), "{}", said(&output));
    let record = records(&path("out/copernicus-bench")).pop_first().unwrap().1;
    assert_eq!(record.provenance.bands, BANDS);
    let images: Vec<_> = record.provenance.images.iter().map(|image| image.date.as_deref()).collect();
    assert_eq!(images, [Some("before"), Some("after")]);
}

/// The features of a split as written by `features`: [n, d].
fn features(data: &Path, out: &Path) -> (Vec<usize>, Vec<f32>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_terrabench"));
    command.env("TERRABENCH_CACHE", out.with_extension("cache"));
    command.args(["features", "--suite", "copernicus-bench", "--task", "flood-s1", "--split", "test"]);
    command.arg("--out").arg(out).arg("--data").arg(data);
    command.arg("--model").arg(common::fixture("model/tiny.toml"));
    let output = command.arg("--weights").arg(common::fixture("model/tiny.safetensors")).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let bytes = std::fs::read(out).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor("features").unwrap();
    let numbers = tensor.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
    (tensor.shape().to_vec(), numbers.collect())
}

#[test]
fn features_of_two_dates_see_both() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let task = made(&path("data"));
    let (shape, found) = features(&path("data"), &path("a"));
    assert_eq!(shape[0], NAMES.len());
    assert!(found.iter().any(|change| *change != 0.0));
    let copied_over = |sample: PathBuf| {
        for band in ["IVV", "IVH"] {
            let file = |date: &str| sample.join(format!("{date}_{band}_1111013_01_20170504.tif"));
            std::fs::copy(file("SL1"), file("MS1")).unwrap();
        }
    };
    std::fs::read_dir(task.join("data/1111013/01"))
        .unwrap()
        .for_each(|entry| copied_over(entry.unwrap().path()));
    let (_, copied) = features(&path("data"), &path("b"));
    assert_ne!(found, copied, "the later date counts");
    for entry in std::fs::read_dir(task.join("data/1111013/01")).unwrap() {
        let file =
            |name: &str| entry.as_ref().unwrap().path().join(format!("{name}_1111013_01_20170504.tif"));
        std::fs::copy(file("MS1_IVH"), file("SL1_IVV")).unwrap();
    }
    assert_ne!(features(&path("data"), &path("c")).1, copied, "the earlier date counts");
}

/// The suite with a change to its Flood-S1 task.
fn edited(edit: impl FnOnce(&mut Task)) -> Suite {
    let mut suite = suite();
    edit(suite.tasks.iter_mut().find(|task| task.name == "flood-s1").unwrap());
    suite
}

/// All samples with every band.
fn samples(suite: &Suite, root: &Path) -> terrabench::Result<Vec<Sample>> {
    let dataset = data::open(suite, suite.task("flood-s1").unwrap(), root, "default")?;
    let bands = dataset.bands()?;
    let all = Split::ALL.into_iter().flat_map(|split| (0..NAMES.len()).map(move |index| (split, index)));
    all.map(|(split, index)| dataset.read(split, index, &bands)).collect()
}

/// A mistake in the suite's file is corrected after packing: the packed files must not keep it.
#[test]
fn an_edited_decoding_is_refused_named_and_repacked() {
    let folder = tempfile::tempdir().unwrap();
    let [plain, packed] = ["plain", "packed"].map(|name| folder.path().join(name));
    made(&plain);
    let pack_as =
        |suite: &Suite| pack(suite, suite.task("flood-s1").unwrap(), &plain, &packed, &Silent).unwrap();
    let before = suite();
    let done = pack_as(&before);
    assert_eq!((done.samples, done.reused, done.replaced), (9, false, None));
    let again = pack_as(&before);
    assert_eq!((again.samples, again.reused), (9, true), "as many as were packed");

    let swapped = |task: &mut Task| task.images[0].stored_bands.swap(0, 1);
    let remapped = |task: &mut Task| task.remap = vec![(0, 0), (1, 2), (2, 1), (3, 3)];
    let ignoring = |task: &mut Task| (task.classes, task.ignore) = (4, None);
    let clipped = |task: &mut Task| task.clip = Some([0.0, 0.1]);
    type Edit<'a> = (&'a str, &'a dyn Fn(&mut Task));
    let edits: [Edit; 4] =
        [("stored-bands", &swapped), ("remap", &remapped), ("ignore", &ignoring), ("clip", &clipped)];
    for (name, edit) in edits {
        let after = edited(edit);
        let expected = samples(&after, &plain).unwrap();
        let error = samples(&after, &packed).unwrap_err().to_string();
        assert!(error.contains("index.json: packed with other settings"), "{name}: {error}");
        assert!(error.contains(&format!("`{name}` was ")), "{name}: {error}");
        assert!(error.contains("cargo xtask prepare"), "{name}: {error}");

        let done = pack_as(&after);
        assert!(!done.reused && done.replaced.unwrap().contains(&format!("`{name}` was ")), "{name}");
        assert_eq!(samples(&after, &packed).unwrap(), expected, "{name}");
        assert!(pack_as(&after).reused, "{name}");

        // Packing killed before the index leaves files of another decoding, which are not reused.
        std::fs::remove_file(packed.join("flood-s1/index.json")).unwrap();
        assert!(!pack_as(&before).reused);
        assert_eq!(samples(&before, &packed).unwrap(), samples(&before, &plain).unwrap(), "{name}");
    }
    // A change of labels alone is not another decoding.
    let titled = edited(|task| {
        task.title = "Flood".into();
        task.class_names = ["a", "b", "c"].map(String::from).to_vec();
    });
    assert!(pack_as(&titled).reused);
    // Another source.
    std::fs::write(plain.join("flood_s1/data/1111013/01/c1-val/MS1_IVV_1111013_01_20170504.tif"), "x")
        .unwrap();
    let problem = pack(&before, before.task("flood-s1").unwrap(), &plain, &packed, &Silent).unwrap_err();
    assert!(problem.to_string().contains("MS1_IVV"), "{problem}");
}

/// Files packed before decodings were recorded: nobody can know whether `remap` was the same.
#[test]
fn packed_files_without_a_recorded_decoding_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let [plain, packed] = ["plain", "packed"].map(|name| folder.path().join(name));
    made(&plain);
    let suite = suite();
    let pack = || pack(&suite, suite.task("flood-s1").unwrap(), &plain, &packed, &Silent).unwrap();
    pack();
    // Like format 2: without `decoding`, and with the checksum over the rest.
    let index = packed.join("flood-s1/index.json");
    let text = std::fs::read_to_string(&index).unwrap();
    let start = text.find(",\"decoding\":").unwrap();
    let end = text.find(",\"checksum\":").unwrap();
    let without = format!("{},\"checksum\":null}}", text[..start].replace("\"format\":3", "\"format\":2"));
    let sum = blake3::hash(without.as_bytes()).to_hex().to_string();
    assert!(end > start);
    std::fs::write(&index, without.replace("null}", &format!("\"{sum}\"}}"))).unwrap();
    let error = samples(&suite, &packed).unwrap_err().to_string();
    assert!(
        error.contains("format 2 does not record how") && error.contains("cargo xtask prepare"),
        "{error}"
    );
    let done = pack();
    assert!(!done.reused && done.replaced.unwrap().contains("format 2 does not record how"));
    assert_eq!(samples(&suite, &packed).unwrap(), samples(&suite, &plain).unwrap());
}

#[test]
fn prepare_says_what_changed() {
    let folder = tempfile::tempdir().unwrap();
    made(&folder.path().join("plain"));
    for name in ["benchmarks/published", "configs/models", "configs/protocols"] {
        std::fs::create_dir_all(folder.path().join(name)).unwrap();
    }
    let benchmark = Home::find().unwrap().suite("copernicus-bench");
    let text = std::fs::read_to_string(benchmark).unwrap();
    let prepare = |text: &str| {
        std::fs::write(folder.path().join("benchmarks/copernicus-bench.toml"), text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_terrabench"));
        command.current_dir(folder.path()).env("TERRABENCH_CACHE", folder.path().join("cache"));
        command.args(["prepare", "copernicus-bench", "--data", "plain", "--to", "packed", "--verify"]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let first = prepare(&text);
    assert!(first.contains("9 samples") && first.contains("packed and read back\n"), "{first}");
    let second = prepare(&text);
    assert!(second.contains("9 samples") && second.contains("was there already"), "{second}");
    let clip = "clip = [0.0, 0.15] ";
    assert!(text.contains(clip));
    let third = prepare(&text.replace(clip, "clip = [0.0, 0.25] "));
    assert!(third.contains("packed anew because `clip` was [0.0,0.15], is [0.0,0.25]"), "{third}");
}
