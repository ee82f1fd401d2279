//! The Sentinel-3 and Sentinel-5P tasks of Copernicus-Bench: samples against the benchmark's own wrappers, one test per quirk,
//! and runs from files to records. Sets of the release are not here: some tests need the made-up sets beside the checkout, the
//! others generate files in the release's layouts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ndarray::{Array2, ArrayView3, s};
use serde_json::Value;
use terrabench::data::packed::pack;
use terrabench::data::{self, Dataset, Sample, Split, Target};
use terrabench::features::truth::PixelTruth;
use terrabench::features::{Input, InputOptions};
use terrabench::home::Home;
use terrabench::model::config::{Inputs, ModelConfig};
use terrabench::model::load;
use terrabench::model::weights::Weights;
use terrabench::progress::Silent;
use terrabench::protocol::ProtocolConfig;
use terrabench::run::plan::{Choice, plan, without_sensor};
use terrabench::task::{MetadataKind, Suite, Task};
use terrabench::transform::strategies::Strategies;
use tiff::encoder::TiffEncoder;
use tiff::encoder::colortype::{ColorType, Gray8, Gray16, Gray32Float};

use crate::common::{self, records};

const TASKS: [&str; 6] = ["cloud-s3", "lc100cls-s3", "lc100seg-s3", "biomass-s3", "aq-no2-s5p", "aq-o3-s5p"];
const DATED: [&str; 5] =
    ["lc100cls-s3-dates", "lc100seg-s3-dates", "biomass-s3-dates", "aq-no2-s5p-seasons", "aq-o3-s5p-seasons"];

fn suite() -> Suite {
    Suite::load(&Home::find().unwrap(), "copernicus-bench").unwrap()
}

fn model(name: &str) -> ModelConfig {
    let model = ModelConfig::load(&Home::find().unwrap(), name).unwrap();
    model.in_suite("copernicus-bench", Inputs::AsPublished)
}

fn options() -> InputOptions {
    InputOptions {
        by_content: false,
        channels: Default::default(),
        normalization: "default".to_owned(),
        strategies: Strategies::load(&Home::find().unwrap()).unwrap(),
        zeros: false,
    }
}

fn open(root: &Path, task: &str) -> terrabench::Result<Box<dyn Dataset>> {
    let suite = suite();
    data::open(&suite, suite.task(task).unwrap(), root, "default")
}

fn input(root: &Path, task: &str, model: &ModelConfig) -> terrabench::Result<Input> {
    let suite = suite();
    Input::open(&suite, suite.task(task).unwrap(), "default", root, model, &options())
}

/// The made-up sets.
fn made() -> Option<PathBuf> {
    let folder = common::made().map(|made| made.join("copernicus-bench"));
    if folder.is_none() {
        eprintln!("skipped: no made-up sets are here");
    }
    folder
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap_or(f64::NAN)).collect()
}

fn side(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

/// The places at which the reference's numbers of an array [h, w] were noted down.
fn places(h: usize, w: usize) -> [[usize; 2]; 3] {
    [[h / 3, w / 2 + 1], [h - 1, 2], [0, w - 1]]
}

// Samples against the reference --------------------------------------------------------------------------------------------

/// Compares the bands' means and some pixels; the tolerance is relative to the largest number of the sample.
fn assert_pixels(what: &str, image: ArrayView3<f32>, golden: &Value) {
    let shape = image.shape().iter().map(|side| *side as u64).collect::<Vec<_>>();
    if let Some(expected) = golden.get("shape").or_else(|| golden.get("image_shape")) {
        assert_eq!(expected, &serde_json::json!(shape), "{what}");
    }
    let largest = image.iter().fold(0.0_f64, |most, x| most.max(f64::from(x.abs())));
    let means =
        image.outer_iter().map(|band| band.iter().map(|x| f64::from(*x)).sum::<f64>() / band.len() as f64);
    for (found, expected) in means.zip(numbers(&golden["band_mean"])) {
        assert!((found - expected).abs() <= 1e-6 * largest, "{what}: mean {found}, expected {expected}");
    }
    let pixels = golden["pixels"].as_array().unwrap();
    assert_eq!(pixels.len(), 3, "{what}");
    for pixel in pixels {
        let found = image.slice(s![.., side(&pixel["row"]), side(&pixel["col"])]);
        let expected = numbers(&pixel["values"]);
        assert_eq!(found.len(), expected.len(), "{what}");
        for (found, expected) in found.iter().zip(expected) {
            let found = f64::from(*found);
            assert!((found - expected).abs() <= 1e-6 * largest, "{what}: pixel {found}, expected {expected}");
        }
    }
}

fn histogram<'a>(classes: impl Iterator<Item = &'a i32>) -> BTreeMap<String, u64> {
    let mut histogram = BTreeMap::new();
    classes.for_each(|class| *histogram.entry(class.to_string()).or_default() += 1);
    histogram
}

fn assert_mask(what: &str, mask: &Array2<i32>, expected: &Value, at_pixels: &Value) {
    let expected: BTreeMap<String, u64> = serde_json::from_value(expected.clone()).unwrap();
    assert_eq!(histogram(mask.iter()), expected, "{what}");
    let (h, w) = mask.dim();
    let found = places(h, w).map(|place| f64::from(mask[place]));
    assert_eq!(found.to_vec(), numbers(at_pixels), "{what}");
}

fn assert_map(what: &str, map: &Array2<f32>, golden: &Value, tolerance: f64) {
    assert_eq!(vec![map.nrows() as f64, map.ncols() as f64], numbers(&golden["shape"]), "{what}");
    let measured: Vec<f64> = map.iter().filter(|x| !x.is_nan()).map(|x| f64::from(*x)).collect();
    assert_eq!(Some(measured.len() as u64), golden["valid"].as_u64(), "{what}");
    let (h, w) = map.dim();
    for (place, expected) in places(h, w).into_iter().zip(numbers(&golden["at_pixels"])) {
        let found = f64::from(map[place]);
        let is_equal = (found - expected).abs() <= tolerance.max(1e-12 * expected.abs())
            || found.is_nan() && expected.is_nan();
        assert!(is_equal, "{what}: {found}, expected {expected}");
    }
    if measured.is_empty() {
        return;
    }
    let mean = measured.iter().sum::<f64>() / measured.len() as f64;
    let std = (measured.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / measured.len() as f64).sqrt();
    let ends = [f64::min, f64::max].map(|end| measured.iter().copied().reduce(end).unwrap());
    let keys = ["mean", "std", "min", "max"];
    for (key, found) in keys.into_iter().zip([mean, std, ends[0], ends[1]]) {
        let expected = golden[key].as_f64().unwrap();
        let scale = expected.abs().max(1.0);
        assert!((found - expected).abs() <= 1e-5 * scale, "{what}: {key} {found}, expected {expected}");
    }
}

#[test]
fn samples_of_sentinel_3_and_5p_match_the_reference() {
    let Some(made) = made() else { return };
    let golden: Value =
        serde_json::from_str(&std::fs::read_to_string(made.join("reader.json")).unwrap()).unwrap();
    let suite = suite();
    let mut seen = 0;
    for (name, golden) in golden["tasks"].as_object().unwrap() {
        let task = suite.task(&name.replace('_', "-")).unwrap();
        let patch = if name.ends_with("s3") { 8.0 } else { 4.0 };
        let model = model(if name.ends_with("s3") { "copernicus-fm-b-s3" } else { "copernicus-fm-b-s5p" });
        assert_eq!(golden["kernel_size"].as_f64(), Some(patch), "{name}");
        assert_eq!(Some(task.classes as u64), golden["num_classes"].as_u64(), "{name}");
        assert_eq!(task.ignore.map(i64::from), golden["ignore_index"].as_i64(), "{name}");
        let resolution = side(&golden["image_resolution"]);
        assert_eq!(model.side(task), resolution, "{name}");
        let input = Input::open(&suite, task, "default", &made, &model, &options()).unwrap();
        assert_eq!(input.normalization, "none", "{name}");
        let bands = input.dataset.bands().unwrap();
        if let Some(scales) = golden.get("band_scale") {
            let scales: Vec<f32> = numbers(scales).into_iter().map(|scale| scale as f32).collect();
            assert_eq!(task.band_scales, scales, "{name}");
        }
        if let Some(statistics) = golden.get("target_stats") {
            let found = task.target_statistics();
            let expected = [&statistics["mean"], &statistics["std"]].map(|list| numbers(list)[0] as f32);
            assert_eq!([found.mean, found.std], expected, "{name}");
        }
        for (split, count) in golden["counts"].as_object().unwrap() {
            assert_eq!(
                Some(input.dataset.samples(split_of(split)).len() as u64),
                count.as_u64(),
                "{name} {split}"
            );
        }
        for sample in golden["samples"].as_array().unwrap() {
            let (split, index) = (split_of(sample["split"].as_str().unwrap()), side(&sample["index"]));
            let what = format!("{name} {split} {index}");
            let read = input.dataset.read(split, index, &bands).unwrap();
            let expected = sample.get("id").unwrap_or(&sample["file"]).as_str().unwrap();
            assert_eq!(read.name, expected.trim_end_matches(".tif"), "{what}");
            assert_pixels(&what, read.images[0].pixels.view(), sample);
            let transformed = &sample["after_transform"];
            let prepared = input.read(&input.only().unwrap().preprocess, split, index).unwrap();
            assert_pixels(&format!("{what}, transformed"), prepared.images[0].pixels.view(), transformed);
            let truth = |task: &Task| PixelTruth::of(&read, task, [resolution; 2]).unwrap();
            match &read.target {
                Target::Labels(labels) => {
                    let found: Vec<f64> = labels.iter().map(|label| f64::from(u8::from(*label))).collect();
                    assert_eq!(found, numbers(&sample["label"]), "{what}");
                }
                Target::Mask(mask) => {
                    assert_mask(&what, mask, &sample["mask_histogram"], &sample["mask_at_pixels"]);
                    for (key, rule) in [("mask", "floor"), ("mask_kornia_0_9", "exact")] {
                        let rule = serde_json::from_value(rule.into()).unwrap();
                        let task = Task { mask_resize: task.mask_resize.map(|_| rule), ..task.clone() };
                        let PixelTruth::Classes(mask) = truth(&task) else { panic!("{what}") };
                        let ignored = task.ignore.unwrap();
                        let stored = |class: &i16| if *class < 0 { ignored } else { i32::from(*class) };
                        let golden = &transformed[key];
                        assert_mask(&what, &mask.map(stored), &golden["histogram"], &golden["at_pixels"]);
                    }
                }
                Target::ValueMap(map) => {
                    assert_map(&what, map, &sample["target"], 1e-9);
                    let PixelTruth::Values(values) = truth(task) else { panic!("{what}") };
                    assert_map(&format!("{what}, transformed"), &values, &transformed["target"], 1e-6);
                }
                other => panic!("{what}: {other:?}"),
            }
            // Place, day and area as the reference gives them to Copernicus-FM, to the bit.
            let given = input.stored(split, index).unwrap();
            let [longitude, latitude] = given.images[0].place.unwrap();
            let area = (patch * f64::from(input.metadata.gsd_m.unwrap()) / 1000.0).powi(2) as f32;
            let found = [longitude, latitude, given.images[0].day.unwrap() as f32, area];
            let expected: Vec<f32> =
                numbers(&sample["meta"]).into_iter().map(|number| number as f32).collect();
            assert_eq!(found.to_vec(), expected, "{what}");
            seen += 1;
        }
    }
    assert_eq!(seen, 6 + 8 + 8 + 7 + 8 + 8);
}

fn split_of(name: &str) -> Split {
    match name {
        "train" => Split::Train,
        "val" => Split::Valid,
        "test" => Split::Test,
        other => panic!("split {other}"),
    }
}

#[test]
fn dated_variants_have_all_dates_and_repeat_the_last() {
    let Some(made) = made() else { return };
    let golden: Value =
        serde_json::from_str(&std::fs::read_to_string(made.join("reader.json")).unwrap()).unwrap();
    let mut lengths = std::collections::BTreeSet::new();
    for name in DATED {
        let dataset = open(&made, name).unwrap();
        let still = name.trim_end_matches("-dates").trim_end_matches("-seasons");
        let golden = &golden["tasks"][still.replace('-', "_")];
        let bands = dataset.bands().unwrap();
        assert_eq!(bands.len(), 4, "{name}");
        for sample in golden["samples"].as_array().unwrap() {
            let (split, index) = (split_of(sample["split"].as_str().unwrap()), side(&sample["index"]));
            let what = format!("{name} {split} {index}");
            let read = dataset.read(split, index, &bands).unwrap();
            let days: Vec<f64> = read.images.iter().map(|image| image.day.unwrap()).collect();
            assert!(days.is_sorted() || name.contains("s3"), "{what}: {days:?}");
            let folder = dataset.files(split)[0].parent().unwrap().parent().unwrap().join(&read.name);
            let dates = std::fs::read_dir(folder).unwrap().count();
            // torchgeo takes the series by row of another list.
            if still == "biomass-s3" || sample["torchgeo_id"] == sample["id"] && still == "lc100cls-s3" {
                assert_eq!(dates, side(&sample["series_shape_torchgeo"][0]), "{what}");
            }
            lengths.insert(dates);
            for later in dates..4 {
                assert_eq!(read.images[later].pixels, read.images[dates - 1].pixels, "{what}");
                assert_eq!(days[later], days[dates - 1], "{what}");
            }
            assert!(dates == 1 || read.images[dates - 1].pixels != read.images[dates - 2].pixels, "{what}");
            // The static image is one of them, and the label is the same.
            let alone = open(&made, still).unwrap();
            let alone = alone.read(split, index, &bands[..1]).unwrap();
            if name.contains("s3") {
                let is_it = |image: &data::Image| image.pixels == alone.images[0].pixels;
                assert!(read.images.iter().any(is_it), "{what}");
            }
            assert_eq!(bits(&read.target), bits(&alone.target), "{what}");
        }
    }
    assert_eq!(lengths.into_iter().collect::<Vec<_>>(), [1, 2, 3, 4]);
}

/// A label with numbers that compare, NaN included.
fn bits(target: &Target) -> String {
    match target {
        Target::ValueMap(map) => {
            format!("{:?} {:?}", map.dim(), map.iter().map(|x| x.to_bits()).collect::<Vec<_>>())
        }
        other => format!("{other:?}"),
    }
}

#[test]
fn packed_samples_of_many_sizes_are_those_of_the_folder() {
    let Some(made) = made() else { return };
    let (suite, to) = (suite(), tempfile::tempdir().unwrap());
    for name in TASKS.into_iter().chain(["aq-no2-s5p-seasons"]) {
        let task = suite.task(name).unwrap();
        // Cloud-S3's real images are all of one size; one made-up image differs, and the set cannot be packed.
        if name == "cloud-s3" {
            let error = pack(&suite, task, &made, to.path(), &Silent).unwrap_err().to_string();
            assert!(error.contains("cannot be packed"), "{error}");
            continue;
        }
        let done = pack(&suite, task, &made, to.path(), &Silent).unwrap();
        assert!(!done.reused && pack(&suite, task, &made, to.path(), &Silent).unwrap().reused, "{name}");
        let (packed, plain) = (open(to.path(), name).unwrap(), open(&made, name).unwrap());
        let bands = plain.bands().unwrap();
        assert_eq!(packed.bands().unwrap(), bands, "{name}");
        assert_eq!(
            packed.fingerprint(&Split::ALL).unwrap(),
            plain.fingerprint(&Split::ALL).unwrap(),
            "{name}"
        );
        for split in Split::ALL {
            assert_eq!(packed.samples(split), plain.samples(split), "{name}");
            for index in 0..plain.samples(split).len() {
                let read = |dataset: &dyn Dataset| dataset.read(split, index, &bands).unwrap();
                let (packed, plain) = (read(packed.as_ref()), read(plain.as_ref()));
                assert_eq!(packed.images, plain.images, "{name} {split} {index}");
                assert_eq!(bits(&packed.target), bits(&plain.target), "{name} {split} {index}");
            }
        }
        // A flipped byte of the pixels is noticed.
        let path = to.path().join(name).join("test.h5");
        let whole = std::fs::read(&path).unwrap();
        let mut spoilt = whole.clone();
        let middle = spoilt.len() / 2;
        spoilt[middle] ^= 1;
        std::fs::write(&path, &spoilt).unwrap();
        let all = (0..plain.samples(Split::Test).len()).map(|index| packed.read(Split::Test, index, &bands));
        assert!(
            all.collect::<terrabench::Result<Vec<_>>>().is_err() || open(to.path(), name).is_err(),
            "{name}"
        );
        std::fs::write(&path, &whole).unwrap();
    }
}

// Quirks, on generated files -------------------------------------------------------------------------------------------------

/// Writes a TIFF of one band.
fn tiff<C: ColorType>(path: &Path, [rows, columns]: [usize; 2], pixels: &[C::Inner])
where
    [C::Inner]: tiff::encoder::TiffValue,
{
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = std::fs::File::create(path).unwrap();
    let mut encoder = TiffEncoder::new(&mut file).unwrap();
    encoder.write_image::<C>(columns as u32, rows as u32, pixels).unwrap();
}

/// Air quality of NO2 with one sample per split of these images and labels.
fn air_quality(root: &Path, image: &[f32], size: [usize; 2], label: &[f32], label_size: [usize; 2]) {
    let folder = root.join("airquality_s5p/no2");
    for split in ["train", "val", "test"] {
        let id = format!("EEA_1kmgrid_2021_no2_avg_{split}");
        tiff::<Gray32Float>(&folder.join(format!("s5p_annual/{id}/2021-01-01_2021-12-31.tif")), size, image);
        tiff::<Gray32Float>(&folder.join(format!("label_annual/{id}.tif")), label_size, label);
        std::fs::write(folder.join(format!("{split}.csv")), format!("{id}\n")).unwrap();
    }
}

/// LC100 and biomass need 21 bands, which the encoder of the tests cannot write: their lists and labels alone.
fn lists(folder: &Path, name: &str, lines: &str) {
    std::fs::create_dir_all(folder).unwrap();
    for split in ["train", "val", "test"] {
        std::fs::write(folder.join(format!("{name}-{split}.csv")), lines).unwrap();
    }
}

#[test]
fn holes_become_zero_before_the_image_is_resampled_and_ring() {
    let folder = tempfile::tempdir().unwrap();
    let mut image = vec![1e-4_f32; 50 * 51];
    image[25 * 51 + 25] = f32::NAN;
    air_quality(folder.path(), &image, [50, 51], &[1.0; 9], [3, 3]);
    let dataset = open(folder.path(), "aq-no2-s5p").unwrap();
    let raw = dataset.read_raw(Split::Test, 0).unwrap();
    assert!(raw.images[0].bands[0].pixels[[25, 25]].is_nan(), "as it is stored");
    let read = dataset.read(Split::Test, 0, &dataset.bands().unwrap()).unwrap();
    let pixels = &read.images[0].pixels;
    assert_eq!(pixels.dim(), (1, 56, 56));
    let ends = [f32::min, f32::max].map(|end| pixels.iter().copied().reduce(end).unwrap());
    // The cubic filter overshoots around the hole: 1e-4 is exceeded, and the hole is not filled.
    assert!(ends[0] < 5e-5 && ends[1] > 1.05e-4, "{ends:?}");
    assert!(pixels.iter().all(|pixel| pixel.is_finite()));
}

#[test]
fn numbers_of_air_quality_that_stand_for_nothing_are_not_measured() {
    let folder = tempfile::tempdir().unwrap();
    let label = [f32::NEG_INFINITY, f32::MIN, f32::NAN, 0.0, -3.0, 1e10, 2e10, 7.5, 9.0];
    air_quality(folder.path(), &[1e-4; 56 * 56], [56, 56], &label, [3, 3]);
    let dataset = open(folder.path(), "aq-no2-s5p").unwrap();
    let read = dataset.read(Split::Train, 0, &dataset.bands().unwrap()).unwrap();
    let Target::ValueMap(map) = &read.target else { panic!("{:?}", read.target) };
    assert_eq!(map.dim(), (56, 56));
    // Thirds of 56: rows and columns 0, 19, 38 begin them.
    let thirds = [0, 19, 38];
    let found: Vec<f32> = thirds.iter().flat_map(|y| thirds.map(|x| map[[*y, x]])).collect();
    assert!(found[..3].iter().all(|x| x.is_nan()) && found[6].is_nan(), "{found:?}");
    assert_eq!([found[3], found[4], found[5], found[7], found[8]], [0.0, -3.0, 1e10, 7.5, 9.0]);
}

#[test]
fn images_go_in_as_they_are_and_only_copernicus_fm_is_given_place_and_date() {
    let folder = tempfile::tempdir().unwrap();
    air_quality(folder.path(), &[1.5e-4; 56 * 56], [56, 56], &[1.0; 4], [2, 2]);
    for name in ["dofa-b-permuted", "vit-b-s5p", "vit-b-supervised-s5p"] {
        let input = input(folder.path(), "aq-no2-s5p", &model(name)).unwrap();
        let read = input.read(&input.only().unwrap().preprocess, Split::Test, 0).unwrap();
        assert!(read.images[0].pixels.iter().all(|pixel| *pixel == 1.5e-4), "{name}");
        assert!(input.metadata.is_empty(), "{name}");
        assert_eq!((read.images[0].day, read.images[0].place), (None, None), "{name}");
    }
    let known = suite().task("aq-no2-s5p").unwrap().known_metadata();
    assert_eq!(known, [MetadataKind::Place, MetadataKind::Date, MetadataKind::Area]);
    // These files have no georeference, which Copernicus-FM needs.
    let own = input(folder.path(), "aq-no2-s5p", &model("copernicus-fm-b-s5p")).unwrap();
    let error = own.stored(Split::Test, 0).unwrap_err().to_string();
    assert!(error.contains("the model uses the place"), "{error}");
}

#[test]
fn labels_of_lc100_belong_to_the_image_of_the_same_place() {
    let folder = tempfile::tempdir().unwrap();
    let lc100 = folder.path().join("lc100_s3");
    let labels = |first: &str| std::iter::once(first).chain(["0"; 22]).collect::<Vec<_>>().join(",");
    let header =
        format!("PID,{}", (0..23).map(|class| format!("\"a, {class}\"")).collect::<Vec<_>>().join(","));
    lists(&lc100, "multilabel", &format!("{header}\nb_1_2,{}\na_3_4,{}\n", labels("1"), labels("0")));
    lists(&lc100, "static_fnames", "a_3_4,S3A_20190507T135736.tif\nb_1_2,S3B_20190810T135525.tif\n");
    let dataset = open(folder.path(), "lc100cls-s3").unwrap();
    assert_eq!(dataset.samples(Split::Test), ["b_1_2", "a_3_4"]);
    let files: Vec<String> =
        dataset.files(Split::Test).iter().map(|path| path.to_string_lossy().replace('\\', "/")).collect();
    assert!(files[0].ends_with("s3_olci/b_1_2/S3B_20190810T135525.tif"), "{files:?}");
    assert_eq!(dataset.days(Split::Test), [[Some(18_118.0)], [Some(18_023.0)]]);
    // Segmentation follows the other list.
    assert_eq!(open(folder.path(), "lc100seg-s3").unwrap().samples(Split::Test), ["a_3_4", "b_1_2"]);

    let problem = |task: &str| open(folder.path(), task).map(|_| ()).unwrap_err().to_string();
    lists(&lc100, "static_fnames", "a_3_4,S3A_20190507T135736.tif\n");
    assert!(problem("lc100cls-s3").contains("has no place `b_1_2`"), "{}", problem("lc100cls-s3"));
    lists(&lc100, "static_fnames", "a_3_4\n");
    assert!(problem("lc100seg-s3").contains("line 1: has 1 cells; expected 2"), "{}", problem("lc100seg-s3"));
    lists(&lc100, "multilabel", &format!("{header}\nb_1_2,1\n"));
    lists(&lc100, "static_fnames", "b_1_2,x.tif\n");
    assert!(
        problem("lc100cls-s3").contains("line 2: has 2 cells; expected 24"),
        "{}",
        problem("lc100cls-s3")
    );
    lists(&lc100, "static_fnames", "../../b,x.tif\n");
    assert!(problem("lc100seg-s3").contains("outside"), "{}", problem("lc100seg-s3"));
    // A place without a folder of images, for the variant with all dates.
    lists(&lc100, "static_fnames", "b_1_2,x.tif\n");
    assert!(problem("lc100seg-s3-dates").contains("`b_1_2`"), "{}", problem("lc100seg-s3-dates"));
}

#[test]
fn codes_outside_the_legend_of_lc100_are_class_0_and_unknown_codes_of_cloud_s3_an_error() {
    let (suite, folder) = (suite(), tempfile::tempdir().unwrap());
    // The reader of labels is the same for all sensors: here one band of Sentinel-5P beside them.
    let read = |name: &str, codes: &[u8]| {
        let one_band = suite.task("aq-no2-s5p").unwrap().clone();
        let labels = suite.task(name).unwrap().clone();
        let task = Task {
            target: labels.target,
            classes: labels.classes,
            class_names: labels.class_names,
            metric: labels.metric,
            remap: labels.remap,
            remap_others: labels.remap_others,
            ignore: labels.ignore,
            unit: None,
            target_statistics: None,
            largest_value: None,
            ..one_band
        };
        air_quality(folder.path(), &[1e-4; 56 * 56], [56, 56], &[1.0; 4], [2, 2]);
        let label = folder.path().join("airquality_s5p/no2/label_annual/EEA_1kmgrid_2021_no2_avg_test.tif");
        tiff::<Gray8>(&label, [2, 2], codes);
        let dataset = data::open(&suite, &task, folder.path(), "default")?;
        let sample = dataset.read(Split::Test, 0, &dataset.bands()?)?;
        let Target::Mask(mask) = sample.target else { panic!("{name}") };
        Ok::<_, terrabench::Error>([mask[[0, 0]], mask[[0, 55]], mask[[55, 0]], mask[[55, 55]]])
    };
    assert_eq!(read("lc100seg-s3", &[0, 20, 200, 255]).unwrap(), [0, 1, 22, 0]);
    assert_eq!(read("cloud-s3", &[0, 1, 4, 5]).unwrap(), [255, 0, 3, 4]);
    let error = read("cloud-s3", &[0, 1, 4, 6]).unwrap_err().to_string();
    assert!(error.contains("the mask contains 6; expected one of 0, 1, 2, 3, 4, 5"), "{error}");
}

#[test]
fn biomass_stays_whole_numbers_when_it_is_resampled() {
    let (suite, folder) = (suite(), tempfile::tempdir().unwrap());
    let biomass = suite.task("biomass-s3").unwrap().clone();
    let one_band = suite.task("aq-no2-s5p").unwrap().clone();
    let resample = terrabench::task::Resample { side: 56, ..biomass.resample.unwrap() };
    let task = Task { resample: Some(resample), largest_value: None, ..one_band };
    air_quality(folder.path(), &[1e-4; 56 * 56], [56, 56], &[1.0; 4], [2, 2]);
    let read = || {
        let dataset = data::open(&suite, &task, folder.path(), "default").unwrap();
        let sample = dataset.read(Split::Test, 0, &dataset.bands().unwrap()).unwrap();
        let Target::ValueMap(map) = sample.target else { panic!() };
        map
    };
    let label = folder.path().join("airquality_s5p/no2/label_annual/EEA_1kmgrid_2021_no2_avg_test.tif");
    let codes = [0_u16, 3000, 0, 0, 0, 0, 0, 1500, 0];
    tiff::<Gray16>(&label, [3, 3], &codes);
    let whole = read();
    let largest = whole.iter().copied().fold(0.0, f32::max);
    assert!(whole.iter().all(|x| x.fract() == 0.0 && *x >= 0.0) && largest > 3000.0, "{largest}");
    // A file of floats is neither rounded nor kept above 0.
    tiff::<Gray32Float>(&label, [3, 3], &codes.map(f32::from));
    let real = read();
    assert!(real.iter().any(|x| *x < 0.0) && real.iter().any(|x| x.fract() != 0.0));
}

#[test]
fn masks_of_cloud_s3_are_scored_at_the_size_of_the_model_s_input() {
    let suite = suite();
    let task = suite.task("cloud-s3").unwrap();
    let mask = Array2::from_shape_fn((256, 256), |(y, x)| i32::from(y % 2 == 1) + 2 * i32::from(x % 2 == 1));
    let pixels = ndarray::Array3::zeros((1, 256, 256));
    let sample = Sample {
        name: "one".to_owned(),
        images: vec![common::image(task.sensor, pixels)],
        target: Target::Mask(mask.clone()),
    };
    let PixelTruth::Classes(found) = PixelTruth::of(&sample, task, [224, 224]).unwrap() else { panic!() };
    assert_eq!(found.dim(), (224, 224));
    for place in [[0, 0], [7, 7], [100, 223], [223, 1]] {
        let source = place.map(|at: usize| at * 256 / 224);
        assert_eq!(i32::from(found[place]), mask[source], "{place:?}");
    }
    let kept = Task { mask_resize: None, ..task.clone() };
    assert_eq!(PixelTruth::of(&sample, &kept, [224, 224]).unwrap().dim(), (256, 256));
}

#[test]
fn inspect_shows_small_numbers_sizes_and_what_is_not_measured() {
    let folder = tempfile::tempdir().unwrap();
    let mut image = vec![1.5e-4_f32; 50 * 51];
    image[0] = f32::NAN;
    air_quality(folder.path(), &image, [50, 51], &[f32::NAN, 2.0, 4.0, f32::NEG_INFINITY], [2, 2]);
    let output = Command::new(env!("CARGO_BIN_EXE_terrabench"))
        .args(["inspect", "--suite", "copernicus-bench", "--task", "aq-no2-s5p", "--data"])
        .arg(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for part in [
        "map: float32 2 x 2",
        "sizes below are as stored; images and labels are resampled to 56 x 56 when used",
        "float32 50 x 51",
        "1.5000e-4",
        "3 pixels are not finite; readers replace NaN by 0",
        "numbers of the labels in ug/m3",
    ] {
        assert!(said.contains(part), "no {part:?} in\n{said}");
    }
    let train = said.lines().rfind(|line| line.starts_with("train")).unwrap();
    assert_eq!(
        train.split_whitespace().collect::<Vec<_>>(),
        ["train", "2", "4", "3.0000", "2.0000", "4.0000"]
    );
}

// EuroSAT by longitude -------------------------------------------------------------------------------------------------------

#[test]
fn eurosat_by_longitude_has_the_same_images_under_other_lists() {
    let Some(real) = common::real().map(|real| real.join("copernicus-bench")) else { return };
    let folder = tempfile::tempdir().unwrap();
    let whole = |_: &str, text: String| text;
    common::copied(&real.join("eurosat_s2"), &folder.path().join("eurosat_s2"), &whole);
    // Without torchgeo's lists the task is absent, not broken.
    let suite = suite();
    let task = suite.task("eurosat-spatial").unwrap();
    assert_eq!(data::task_folder(&suite, task, folder.path()), None);
    let error = open(folder.path(), "eurosat-spatial").map(|_| ()).unwrap_err().to_string();
    assert!(
        error.contains("eurosat-spatial-train.txt") && error.contains("fetch copernicus-bench"),
        "{error}"
    );

    let random = open(folder.path(), "eurosat-s2").unwrap();
    let (train, test) = (random.samples(Split::Train), random.samples(Split::Test));
    let list = |names: &[&String]| names.iter().map(|name| format!("{name}.jpg\n")).collect::<String>();
    let write = |split: &str, names: &[&String]| {
        std::fs::write(folder.path().join(format!("eurosat-spatial-{split}.txt")), list(names)).unwrap();
    };
    write("train", &[&test[1], &train[0]]);
    write("val", &[&train[1]]);
    write("test", &[&train[2], &test[0], &train[3]]);
    let spatial = open(folder.path(), "eurosat-spatial").unwrap();
    assert_eq!(Split::ALL.map(|split| spatial.samples(split).len()), [2, 1, 3]);
    let bands = spatial.bands().unwrap();
    assert_eq!(spatial.read(Split::Train, 1, &bands).unwrap(), random.read(Split::Train, 0, &bands).unwrap());
    assert_eq!(spatial.read(Split::Test, 1, &bands).unwrap(), random.read(Split::Test, 0, &bands).unwrap());
    // From the archive, with the lists beside it; and packed.
    let archived = tempfile::tempdir().unwrap();
    common::zipped(&folder.path().join("eurosat_s2"), "eurosat_s2", &archived.path().join("eurosat_s2.zip"));
    for split in ["train", "val", "test"] {
        let name = format!("eurosat-spatial-{split}.txt");
        std::fs::copy(folder.path().join(&name), archived.path().join(&name)).unwrap();
    }
    let zipped = open(archived.path(), "eurosat-spatial").unwrap();
    assert_eq!(zipped.fingerprint(&Split::ALL).unwrap(), spatial.fingerprint(&Split::ALL).unwrap());
    let to = tempfile::tempdir().unwrap();
    pack(&suite, task, archived.path(), to.path(), &Silent).unwrap();
    let packed = open(to.path(), "eurosat-spatial").unwrap();
    assert_eq!(packed.read(Split::Test, 2, &bands).unwrap(), spatial.read(Split::Test, 2, &bands).unwrap());
    // torchgeo-bench's normalisation of its bands is known.
    let stats = input(folder.path(), "eurosat-spatial", &model("rcf")).unwrap();
    assert_eq!(stats.normalization, "bandspec_zscore");
}

// Models -----------------------------------------------------------------------------------------------------------------------

#[test]
fn a_model_without_the_sensor_says_so_before_anything_is_read() {
    let (home, suite) = (Home::find().unwrap(), suite());
    let load = |name: &str| ProtocolConfig::load_named(&home, name);
    let named = |task: &str| Choice { tasks: vec![task.to_owned()], ..Choice::default() };
    let error = plan(&suite, &model("terrafm-b"), &named("cloud-s3"), load).unwrap_err().to_string();
    assert!(error.contains("TerraFM ViT-Base has no such sensor: s3-olci"), "{error}");
    assert!(error.contains("cargo xtask models") && !error.contains("--sensor tells"), "{error}");
    // Whole runs skip such tasks and say which.
    let all = plan(&suite, &model("terrafm-b"), &Choice::default(), load).unwrap();
    assert_eq!(all.len(), 9);
    let lacking = without_sensor(&suite, &model("terrafm-b"), &Choice::default());
    assert_eq!(lacking.len(), 6, "{lacking:?}");
    assert!(lacking.contains(&"aq-o3-s5p (s5p-o3)".to_owned()), "{lacking:?}");
    let expected = [
        ("copernicus-fm-b-s3", 4),
        ("copernicus-fm-b-s5p", 2),
        ("vit-b-s3", 4),
        ("vit-b-s5p", 2),
        ("vit-b-supervised-s3", 4),
        ("vit-b-supervised-s5p", 2),
        ("dofa-b-permuted", 15),
    ];
    for (name, tasks) in expected {
        assert_eq!(plan(&suite, &model(name), &Choice::default(), load).unwrap().len(), tasks, "{name}");
    }
    // Nothing but the command line is needed to say it.
    let output = Command::new(env!("CARGO_BIN_EXE_terrabench"))
        .args(["bench", "copernicus-bench", "--task", "cloud-s3", "--data", "/no/such/folder"])
        .args(["--weights", "/no/such/file", "--out"])
        .arg(tempfile::tempdir().unwrap().path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("has no such sensor: s3-olci"), "{said}");
}

#[test]
fn a_sensor_on_the_command_line_leaves_sentinel_3_and_5p_alone() {
    let suite = suite().with_input_sensor(terrabench::task::Sensor::S2_L2A);
    let of = |task: &str| suite.task(task).unwrap().input_sensor.to_string();
    assert_eq!(
        [of("cloud-s2"), of("cloud-s3"), of("aq-o3-s5p"), of("dfc2020-s1")],
        ["s2-l2a", "s3-olci", "s5p-o3", "s1"]
    );
}

#[test]
fn language_vectors_are_read_beside_the_weights_and_are_part_of_their_identity() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = model("copernicus-fm-b-s5p");
    let terrabench::model::architecture::ArchitectureConfig::CopernicusFm(sizes) = &mut model.architecture
    else {
        panic!("another architecture")
    };
    (sizes.width, sizes.depth, sizes.heads, sizes.kernel_width) = (24, 4, 3, 24);
    sizes.map_layers = vec![0, 1, 2, 3];
    let device = burn::tensor::Device::flex();
    // Weights of this size.
    let network = terrabench::model::Architecture::new(&model.architecture, &model.sensors, &device).unwrap();
    let numbers: Vec<(String, Vec<usize>, Vec<f32>)> = network
        .parameters()
        .into_iter()
        .map(|(name, shape)| {
            let count = shape.iter().product::<usize>();
            (name, shape, (0..count).map(|i| ((i * 37 % 101) as f32 - 50.0) / 500.0).collect())
        })
        .collect();
    let weights = folder.path().join("weights.safetensors");
    safetensors(&weights, &numbers);
    let weights = Weights::File(weights);
    let missing = load(&model, &weights, false, &device).map(|_| ()).unwrap_err().to_string();
    assert!(
        missing.contains("varname_embed_llama3.2_1B.pt") && missing.contains("fetch weights"),
        "{missing}"
    );

    let vectors = folder.path().join("varname_embed_llama3.2_1B.pt");
    let vector = |name: &str, step: usize| {
        (
            name.to_owned(),
            vec![2048],
            (0..2048).map(|i| ((i * step % 17) as f32 - 8.0) / 8.0).collect::<Vec<f32>>(),
        )
    };
    safetensors(&vectors, &[vector("Sentinel 5P Nitrogen Dioxide", 3)]);
    let lacks = load(&model, &weights, false, &device).map(|_| ()).unwrap_err().to_string();
    assert!(
        lacks.contains("expected a language vector `Sentinel 5P Ozone`, found Sentinel 5P Nitrogen"),
        "{lacks}"
    );
    safetensors(&vectors, &[vector("Sentinel 5P Nitrogen Dioxide", 3), vector("Sentinel 5P Ozone", 5)]);
    let first = load(&model, &weights, false, &device).unwrap();
    assert_eq!(Some(&first.weights_id), terrabench::model::identity(&model, &weights).unwrap().as_ref());
    // The name decides the feature.
    let pooled = |sensor: &str| {
        let sensor = sensor.parse().unwrap();
        let bands = model.sensors[&sensor].bands.as_slice().into();
        let pixels = burn::tensor::Tensor::ones([1, 1, 56, 56], &device);
        let batch = terrabench::model::Batch::single(sensor, bands, pixels);
        let pooled = first.encoder.encode(&batch, terrabench::model::Want::Pooled(model.pooling())).unwrap();
        pooled.pooled().unwrap().into_data().try_into_vec::<f32>().unwrap()
    };
    assert_ne!(pooled("s5p-no2"), pooled("s5p-o3"));
    safetensors(&vectors, &[vector("Sentinel 5P Nitrogen Dioxide", 3), vector("Sentinel 5P Ozone", 7)]);
    assert_ne!(terrabench::model::identity(&model, &weights).unwrap(), Some(first.weights_id.clone()));
}

/// Writes float32 tensors.
fn safetensors(path: &Path, tensors: &[(String, Vec<usize>, Vec<f32>)]) {
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|(_, _, values)| values.iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        let view = ::safetensors::tensor::TensorView::new(::safetensors::Dtype::F32, shape.clone(), bytes);
        (name.clone(), view.unwrap())
    });
    std::fs::write(path, ::safetensors::serialize(views, None).unwrap()).unwrap();
}

// From files to records ---------------------------------------------------------------------------------------------------------

/// Small models of each kind, and protocols that suit a handful of samples.
fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let change = |name: &str, text: String| match name {
        "copernicus-linear-probe.toml" => {
            text.replace("batch-size = 64", "batch-size = 2").replace("epochs = 50", "epochs = 2")
        }
        "upernet.toml" | "upernet-plain.toml" | "upernet-finetune.toml" => text
            .replace("channels = 512", "channels = 8")
            .replace("channels = 256", "channels = 4")
            .replace("batch-size = 16", "batch-size = 2"),
        name if name.starts_with("copernicus-fm")
            || name.starts_with("vit-b")
            || name.starts_with("dofa") =>
        {
            text.replace("width = 768", "width = 24")
                .replace("kernel-width = 128", "kernel-width = 24")
                .replace("depth = 12", "depth = 4")
                .replace("heads = 12", "heads = 3")
                .replace("map-layers = [3, 5, 7, 11]", "map-layers = [0, 1, 2, 3]")
        }
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
    command.current_dir(home).env("TERRABENCH_CACHE", home.join("cache"));
    command.args(["bench", "copernicus-bench"]);
    if !more.iter().any(|word| ["image-stats", "rcf"].contains(word)) {
        command.args(["--weights", "random:0"]);
    }
    command.arg("--data").arg(data).arg("--out").arg(out).args(more);
    command.output().unwrap()
}

#[track_caller]
fn finished(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_task_runs_from_folder_and_packed_form_to_equal_records() {
    let Some(made) = made() else { return };
    let (home, out, packed) = (home(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let suite = suite();
    for name in TASKS.into_iter().filter(|name| *name != "cloud-s3") {
        pack(&suite, suite.task(name).unwrap(), &made, packed.path(), &Silent).unwrap();
    }
    // Cloud-S3's made-up images differ in size, as the release's do not: see above.
    common::copied(&made.join("cloud_s3"), &packed.path().join("cloud_s3"), &|_, text| text);
    const PROBE: [&str; 2] = ["--protocol", "copernicus-linear-probe"];
    const UPERNET: [&str; 6] = ["--protocol", "upernet", "--epochs", "2", "--learning-rates", "1e-3"];
    let runs: [(&str, &[&str], &[&str]); 8] = [
        ("copernicus-fm-b-s3", &PROBE, &["lc100cls-s3"]),
        ("copernicus-fm-b-s5p", &UPERNET, &["aq-no2-s5p", "aq-o3-s5p"]),
        ("dofa-b-permuted", &PROBE, &["lc100cls-s3"]),
        ("dofa-b-permuted", &UPERNET, &["aq-no2-s5p", "lc100seg-s3", "biomass-s3"]),
        ("vit-b-s3", &UPERNET, &["cloud-s3"]),
        ("vit-b-s5p", &UPERNET, &["aq-o3-s5p"]),
        ("image-stats", &["--protocol", "knn"], &["lc100cls-s3"]),
        ("rcf", &["--protocol", "logistic"], &["lc100cls-s3"]),
    ];
    let by_place = [made.as_path(), packed.path()].map(|data| {
        let out = out.path().join(if data == made { "folder" } else { "packed" });
        for (model, protocol, tasks) in runs {
            let tasks: Vec<&str> = tasks.iter().flat_map(|task| ["--task", task]).collect();
            finished(&bench(home.path(), data, &out, &[&["--model", model], protocol, &tasks].concat()));
        }
        let folder = out.join("copernicus-bench");
        common::all_scores_follow_from_predictions(&folder);
        records(&folder)
    });
    let [folder, packed] = by_place;
    assert_eq!(folder.len(), 11);
    assert_eq!(folder, packed);
    for record in folder.values() {
        let what = format!("{:?}", record.cell);
        let made = &record.provenance;
        let is_s3 = record.cell.task.ends_with("s3");
        assert_eq!(made.bands.len(), if is_s3 { 21 } else { 1 }, "{what}");
        if record.cell.protocol == "upernet" {
            let reported = record.scores[&format!("reported_{}", record.metric)];
            assert!(reported.is_finite() && record.value.is_finite(), "{what}");
            assert!(record.short, "{what}");
        }
        if record.cell.model == "Copernicus-FM" && !made.bands.is_empty() {
            assert_eq!(made.metadata.len(), 3, "{what}");
        }
    }
    let ozone = folder.values().find(|record| record.cell.task == "aq-o3-s5p").unwrap();
    assert!(ozone.value > 100.0, "in the task's unit: {}", ozone.value);
}
