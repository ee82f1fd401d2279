//! Galileo's segmentation probe against the reference's own run, and on real and generated pixels.

use std::process::Command;

use crate::common::{self, demo};
use crate::golden::{close, floats, integers, json, numbers};
use crate::source::run_on_tokens;
use ndarray::{Array1, Array2, Array3, ArrayD, Axis, Ix2};
use terrabench::config::{SegmentationProbeConfig, TrainingConfig};
use terrabench::data::{Sample, Target};
use terrabench::features::tiles::{IGNORED, Tokens, mask_of};
use terrabench::home::Home;
use terrabench::metrics::segmentation::Confusion;
use terrabench::protocol::ProtocolConfig;
use terrabench::protocol::linear_probe::Linear;
use terrabench::protocol::segmentation_probe::{self, confusions};
use terrabench::record::Store;
use terrabench::task::Suite;

fn config() -> SegmentationProbeConfig {
    match ProtocolConfig::load(&Home::find().unwrap(), "segmentation-probe").unwrap() {
        ProtocolConfig::SegmentationProbe(config) => config,
        _ => panic!("segmentation-probe.toml is of another kind"),
    }
}

/// Tokens [n, t, d] of a square grid with masks [n, h, w].
fn tokens(embeddings: &ArrayD<f32>, masks: &Array3<i16>) -> Tokens {
    let [_, t, d] = embeddings.shape()[..] else { panic!("three dimensions") };
    let mut tokens = Tokens::new(t.isqrt(), d);
    for (tile, mask) in embeddings.outer_iter().zip(masks.outer_iter()) {
        tokens.push(&tile.iter().copied().collect::<Vec<f32>>(), mask.to_owned()).unwrap();
    }
    tokens
}

fn rows<A: Clone>(array: &ArrayD<A>, from: usize, to: usize) -> ArrayD<A> {
    array.slice_axis(Axis(0), (from..to).into()).into_owned()
}

fn check(name: &str) {
    let golden = floats("protocols/segmentation.safetensors");
    let stated = &json("protocols/segmentation.json")[name];
    let labels = integers("protocols/segmentation.safetensors")[&format!("{name}/labels")]
        .mapv(|label| i16::try_from(label).unwrap());
    let classes = usize::try_from(stated["num_classes"].as_u64().unwrap()).unwrap();
    let item = |key: &str| golden[&format!("{name}/{key}")].clone();
    let of = |from, to| {
        tokens(&rows(&item("embeddings"), from, to), &rows(&labels, from, to).into_dimensionality().unwrap())
    };
    let (losses, rates) = (numbers(&stated["loss_per_step"]), numbers(&stated["lr_per_step"]));
    let (epochs, highest) = (losses.len() / 2, rates.iter().copied().fold(0.0, f64::max));
    let start = Linear {
        weight: item("init/weight").into_dimensionality::<Ix2>().unwrap(),
        bias: Array1::from_iter(item("init/bias")),
    };
    // A second head of another rate beside it changes nothing.
    let config = SegmentationProbeConfig {
        tile: 8,
        task_tiles: Default::default(),
        training: TrainingConfig {
            epochs,
            batch_size: 4,
            learning_rates: vec![1e-4, highest],
            ..config().training
        },
    };
    let train = of(0, 8);
    let trained = segmentation_probe::train(&config, classes, &train, &start, |_| (0..8).collect()).unwrap();
    for (step, (found, expected)) in trained.losses.row(1).iter().zip(&losses).enumerate() {
        assert!((f64::from(*found) - expected).abs() < 1e-5, "step {step}: {found}, expected {expected}");
    }
    close("weight", &trained.heads[1].weight.clone().into_dyn(), &item("final/weight"), 1e-4);
    close("bias", &trained.heads[1].bias.clone().into_dyn(), &item("final/bias"), 1e-4);
    let mut sum = Confusion::new(classes, Some(-1));
    confusions(&trained.heads[1..], classes, config.tile, &of(8, 12)).unwrap()[0]
        .as_ref()
        .unwrap()
        .iter()
        .for_each(|tile| sum.merge(tile));
    let expected = 100.0 * stated["test_mean_iou"].as_f64().unwrap();
    assert!((sum.mean_iou().unwrap() - expected).abs() < 0.5, "{:?}, expected {expected}", sum.mean_iou());
}

#[test]
fn heads_are_trained_as_the_reference_s() {
    check("train_a");
}

#[test]
fn heads_are_trained_as_the_reference_s_where_logits_are_resized() {
    check("train_b");
}

#[test]
fn a_batch_of_ignored_pixels_moves_nothing_and_a_split_of_them_is_an_error() {
    let embeddings = ArrayD::from_shape_fn(vec![2, 4, 3], |i| (i[0] + 2 * i[1] + 3 * i[2]) as f32 / 7.0);
    let start = Linear { weight: Array2::from_elem((2 * 4, 3), 0.1), bias: Array1::zeros(8) };
    let training =
        TrainingConfig { epochs: 3, batch_size: 1, learning_rates: vec![0.1], ..config().training };
    let config = SegmentationProbeConfig { tile: 4, task_tiles: Default::default(), training };
    let mut masks = Array3::from_elem((2, 4, 4), IGNORED);
    let train = |masks: &Array3<i16>| {
        segmentation_probe::train(&config, 2, &tokens(&embeddings, masks), &start, |_| vec![0, 1]).unwrap()
    };
    assert_eq!(train(&masks).heads, std::slice::from_ref(&start));
    masks[[1, 0, 0]] = 1;
    let trained = train(&masks);
    assert_eq!(trained.losses.len(), 3);
    assert!(trained.heads[0].weight.iter().all(|weight| weight.is_finite()) && trained.heads[0] != start);

    let suite = Suite::load(&Home::find().unwrap(), "geobench").unwrap();
    let mut task = suite.task("m-cashew-plant").unwrap().clone();
    (task.classes, task.class_names) = (2, Vec::new());
    let run = |valid: i16, test: i16| {
        let found = run_on_tokens(&config, &task, 0, &["dataset"], |_, split| {
            let label = match split {
                terrabench::task::Split::Train => 1,
                terrabench::task::Split::Valid => valid,
                terrabench::task::Split::Test => test,
            };
            Ok(tokens(&embeddings, &Array3::from_elem((2, 4, 4), label)))
        });
        found.map_err(|error| error.to_string())
    };
    // Class 0 occurs nowhere: it has no IoU.
    let outcome = run(1, 1).unwrap();
    assert!(!outcome.scores.contains_key("iou_0") && outcome.scores["iou_1"] == outcome.value);
    assert!(run(IGNORED, 1).unwrap_err().contains("validation"));
    assert!(run(1, IGNORED).unwrap_err().contains("every pixel is ignored"));
    assert!(run(2, 1).unwrap_err().contains("class 2 of 2"));
}

#[test]
fn masks_that_do_not_fit_are_told() {
    let suite = Suite::load(&Home::find().unwrap(), "geobench").unwrap();
    let task = suite.task("m-cashew-plant").unwrap();
    let sample = |mask: Array2<i32>| Sample {
        name: "one".to_owned(),
        images: vec![common::image(task.sensor, Array3::zeros((2, 4, 4)))],
        target: Target::Mask(mask),
    };
    let mut mask = Array2::from_elem((4, 4), 6);
    (mask[[0, 0]], mask[[0, 1]]) = (-1, -1);
    let found = mask_of(&sample(mask.clone()), task).unwrap();
    assert_eq!((found[[0, 0]], found[[0, 1]], found[[3, 3]]), (IGNORED, IGNORED, 6));
    // Another suite's mark is no class here, and where a task ignores nothing, nothing is ignored.
    mask[[0, 1]] = 255;
    let error = mask_of(&sample(mask.clone()), task).unwrap_err().to_string();
    assert!(error.contains("the mask holds 255"), "{error}");
    mask[[0, 1]] = 6;
    let strict = terrabench::task::Task { ignore: None, ..task.clone() };
    let error = mask_of(&sample(mask.clone()), &strict).unwrap_err().to_string();
    assert!(error.contains("the mask holds -1"), "{error}");
    mask[[1, 2]] = 7;
    let error = mask_of(&sample(mask), task).unwrap_err().to_string();
    assert!(error.contains("one: the mask holds 7") && error.contains("7 classes"), "{error}");
    let error = mask_of(&sample(Array2::zeros((4, 5))), task).unwrap_err().to_string();
    assert!(error.contains("4 x 4 pixels, but its mask 4 x 5"), "{error}");
}

#[test]
fn the_demo_fills_the_segmentation_columns() {
    let folder = tempfile::tempdir().unwrap();
    let run = || {
        let output = Command::new(env!("CARGO_BIN_EXE_terrabench"))
            .env_remove("GEO_BENCH_DIR")
            .env("TERRABENCH_CACHE", demo::cache("geobench", folder.path().join("cache")))
            .args(["bench", "geobench", "--demo", "--protocol", "segmentation-probe"])
            .args(["--epochs", "2", "--learning-rates", "1e-3,1e-2", "--out"])
            .arg(folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        said
    };
    let start = std::time::Instant::now();
    run();
    eprintln!("the demo's segmentation took {:.1} s", start.elapsed().as_secs_f64());
    let records = common::records(&folder.path().join("geobench-demo"));
    assert_eq!(records.len(), 2);
    for record in records.values() {
        assert!(record.short);
        assert!(record.scores.contains_key("pixel_accuracy"), "{:?}", record.scores);
        assert!(record.scores.keys().any(|score| score.starts_with("iou_")), "{:?}", record.scores);
        assert!(record.interval.is_some() && record.selected.contains_key("learning-rate"));
        let store = Store::open(folder.path().join("geobench-demo")).unwrap();
        assert!(std::fs::read(store.sheet(record)).unwrap().starts_with(b"\x89PNG"));
        let named = store.predictions(record).unwrap().unwrap();
        assert_eq!(named.samples.len(), record.samples["test"]);
        let again = named.predictions.scorer(record.metric).unwrap().all();
        assert!((again - record.value).abs() < 1e-9, "{again} {}", record.value);
    }
    common::all_scores_follow_from_predictions(&folder.path().join("geobench-demo"));
    let table = std::fs::read_to_string(folder.path().join("geobench-demo/finetune.md")).unwrap();
    assert!(table.contains("segmentation-probe"), "{table}");
    assert!(run().contains("recorded before"));
}

#[test]
fn landslides_are_scored_by_class() {
    let Some(real) = common::real() else {
        eprintln!("skipped: no real pixels are here");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_terrabench"))
        .env("TERRABENCH_CACHE", demo::cache("geobench", folder.path().join("cache")))
        .args(["bench", "landslide4sense", "--model", "demo", "--weights", "random:0"])
        .args(["--protocol", "segmentation-probe", "--data"])
        .arg(real.join("landslide4sense"))
        .arg("--out")
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let records = common::records(&folder.path().join("landslide4sense"));
    let record = records.values().next().unwrap();
    assert_eq!(record.samples.values().copied().collect::<Vec<_>>(), [2, 6, 2]);
    common::all_scores_follow_from_predictions(&folder.path().join("landslide4sense"));
    let mean = (record.scores["iou_background"] + record.scores["iou_landslide"]) / 2.0;
    assert!((mean - record.value).abs() < 1e-9);
    assert_eq!(record.provenance.imputed.len(), 1);
    let table = std::fs::read_to_string(folder.path().join("landslide4sense/landslide4sense.md")).unwrap();
    assert!(table.contains("IoU (landslide)") && table.contains("43.1"), "{table}");
}
