//! How Copernicus-Bench's own code treats single models: SoftCon's normalisation and bands, CROMA's and SoftCon's head. The
//! numbers are what its published transforms return (tests/fixtures/zoo/softcon/preprocess_io.safetensors).

use ndarray::Array3;
use terrabench::features::InputOptions;
use terrabench::home::Home;
use terrabench::model::config::{Inputs, ModelConfig};
use terrabench::protocol::ProtocolConfig;
use terrabench::run::plan::{Choice, plan};
use terrabench::task::bands::{self, Band};
use terrabench::task::{Suite, Task};
use terrabench::transform::Preprocess;
use terrabench::transform::normalize::BandStatistics;
use terrabench::transform::strategies::{Channel, Strategies};

use crate::zoo::{Golden, Tolerance, formula};

fn home() -> Home {
    Home::find().unwrap()
}

fn suite() -> Suite {
    Suite::load(&home(), "copernicus-bench").unwrap()
}

fn model(name: &str, inputs: Inputs) -> ModelConfig {
    ModelConfig::load(&home(), name).unwrap().in_suite("copernicus-bench", inputs)
}

fn options(normalization: &str) -> InputOptions {
    InputOptions {
        by_content: false,
        channels: Default::default(),
        normalization: normalization.to_owned(),
        strategies: Strategies::load(&home()).unwrap(),
        zeros: false,
    }
}

/// The stored band behind each of the model's channels, and the preprocessing, as `Input::open` chooses them.
fn prepared(model: &ModelConfig, suite: &Suite, task: &Task) -> (Vec<String>, Preprocess) {
    let options = options("default");
    let wanted = &model.sensor_on(task, task.input_sensor).unwrap().bands;
    let mut impute = options.impute(task);
    impute.extend(&model.impute);
    let selection = bands::select(wanted, &suite.bands, &task.stored_bands, &impute).unwrap();
    let name = options.normalization_of(suite, task, model);
    let strategies = options.strategies.asked(name, task.input_sensor, model.normalization).unwrap();
    let [strategy] = strategies.as_slice() else { panic!("{name}") };
    let channels: Vec<Channel> = (0..wanted.len())
        .map(|place| Channel {
            band: wanted[place],
            date: None,
            is_zeroed: selection.zeroed.contains(&place),
        })
        .collect();
    let normalization = options.strategies.resolve(strategy, &channels, || panic!("{name}")).unwrap();
    let side = model.side(task);
    let zeroed = selection.zeroed;
    (selection.stored, Preprocess { normalization, height: side, width: side, align_corners: true, zeroed })
}

/// Digital numbers mean + 1.5 std * formula, rounded to float32 in the units that the files store.
fn stored_pixels(seed: u64, task: &Task, statistics: &[BandStatistics], side: usize) -> Array3<f32> {
    let scale = f64::from(task.scale);
    Array3::from_shape_fn((statistics.len(), side, side), |(band, row, column)| {
        let value = formula(seed, (band * side + row) * side + column) as f32;
        let BandStatistics { mean, std } = statistics[band];
        let stored = (mean / scale) as f32 + 1.5 * ((std / scale) as f32) * value;
        stored * task.scale
    })
}

#[test]
fn softcons_preprocessing_is_that_of_copernicus_bench() {
    let golden = Golden::open("zoo/softcon/preprocess_io.safetensors");
    let suite = suite();
    let strategies = Strategies::load(&home()).unwrap();
    for (key, task, model_name, seed, side, source) in [
        ("eurosat_s2", "eurosat-s2", "softcon-b-s2", 21, 64, "copernicus-bench"),
        ("eurosat_s1", "eurosat-s1", "softcon-b-s1", 22, 64, "copernicus-bench"),
        ("bigearthnet_s2", "bigearthnet-s2", "softcon-b-s2", 23, 120, "S2A"),
        ("bigearthnet_s1", "bigearthnet-s1", "softcon-s-s1", 24, 120, "copernicus-bench"),
        ("lcz_s2", "lcz-s2", "softcon-s-s2", 25, 32, "copernicus-bench-lcz"),
    ] {
        let task = suite.task(task).unwrap();
        let model = model(model_name, Inputs::AsPublished);
        let (stored, preprocess) = prepared(&model, &suite, task);
        // The reference reads the bands in the order of its configuration: that of the sensor.
        let mut order: Vec<Band> = task.stored_bands.iter().map(|name| name.parse().unwrap()).collect();
        order.sort();
        let all = strategies.asked(source, task.sensor, model.normalization).unwrap();
        let resolved = strategies.resolve(&all[0], &order, || panic!("{source}")).unwrap();
        let statistics = resolved.statistics(order.len()).unwrap();
        let pixels = stored_pixels(seed, task, &statistics, side);
        let channel = |name: &String| {
            let band: Band = name.parse().unwrap();
            let place = order.iter().position(|other| *other == band).unwrap();
            pixels.index_axis(ndarray::Axis(0), place)
        };
        let channels: Vec<_> = stored.iter().map(channel).collect();
        let image = preprocess.apply(ndarray::stack(ndarray::Axis(0), &channels).unwrap()).unwrap();
        let name = |what: &str| format!("cb.{key}.{what}");
        let tolerance = Tolerance { values: 2e-6, summary: 2e-6 };
        let flat: Vec<f32> = image.iter().copied().collect();
        golden.compare(&format!("cb.{key}"), &flat, tolerance);
        let means: Vec<f32> = image
            .outer_iter()
            .map(|band| (band.iter().map(|x| f64::from(*x)).sum::<f64>() / band.len() as f64) as f32)
            .collect();
        golden.compare(&name("channel_means"), &means, tolerance);
        let row: Vec<f32> = image
            .outer_iter()
            .flat_map(|band| band.row(7).iter().take(64).copied().collect::<Vec<f32>>())
            .collect();
        golden.compare(&name("row7"), &row, tolerance);
    }
    golden.assert_all_compared(|_| true);
}

#[test]
fn corrected_inputs_give_softcon_the_bands_of_its_training() {
    let suite = suite();
    let lcz = suite.task("lcz-s2").unwrap();
    let bands =
        |inputs| model("softcon-b-s2", inputs).sensor_on(lcz, lcz.input_sensor).unwrap().bands.clone();
    let published = bands(Inputs::AsPublished);
    assert_eq!(published.iter().filter(|band| **band == Band::ZEROS).count(), 3);
    assert_eq!(published[9..11], [Band::B08, Band::B8A]);
    assert_eq!(
        bands(Inputs::Corrected),
        ModelConfig::load(&home(), "softcon-b-s2").unwrap().sensors[&lcz.input_sensor].bands
    );
}

#[test]
fn the_normalisation_follows_command_line_model_task_and_suite() {
    let suite = suite();
    let of = |typed: &str, task: &str, name: &str| {
        let model = model(name, Inputs::AsPublished);
        let task = suite.task(task).unwrap();
        options(typed).normalization_of(&suite, task, &model).to_owned()
    };
    assert_eq!(of("default", "eurosat-s2", "softcon-b-s2"), "copernicus-bench-2.0-norm_yes_clip");
    assert_eq!(of("dataset", "eurosat-s2", "softcon-b-s2"), "dataset");
    assert_eq!(of("default", "flood-s1", "softcon-b-s1"), "copernicus-bench-flood");
    assert_eq!(of("default", "lcz-s2", "croma-b"), "copernicus-bench-lcz");
    assert_eq!(of("default", "eurosat-s2", "croma-b"), "copernicus-bench");
    // In another suite, and outside any, nothing of this applies.
    let elsewhere =
        ModelConfig::load(&home(), "softcon-b-s2").unwrap().in_suite("geobench", Inputs::AsPublished);
    assert_eq!(elsewhere.suite_normalization(suite.task("eurosat-s2").unwrap()), None);
}

#[test]
fn croma_and_softcon_have_a_head_without_batch_norm_by_default() {
    let suite = suite();
    let protocols = |name: &str, asked: &[&str]| {
        let choice = Choice {
            tasks: vec!["eurosat-s2".into()],
            protocols: asked.iter().map(|name| (*name).to_owned()).collect(),
            ..Choice::default()
        };
        let load = |name: &str| ProtocolConfig::load_named(&home(), name);
        let plans = plan(&suite, &model(name, Inputs::AsPublished), &choice, load).unwrap();
        plans[0].cells.iter().map(|cell| cell.cell.protocol.clone()).collect::<Vec<_>>()
    };
    for name in ["croma-b", "softcon-b-s2", "softcon-s-s2"] {
        assert_eq!(protocols(name, &[]), ["copernicus-linear-probe-plain"], "{name}");
    }
    for name in ["terrafm-b", "dofa-b-permuted", "copernicus-fm-b"] {
        assert_eq!(protocols(name, &[]), ["copernicus-linear-probe"], "{name}");
    }
    assert_eq!(protocols("croma-b", &["copernicus-linear-probe"]), ["copernicus-linear-probe"]);

    let load = |name: &str| match ProtocolConfig::load(&home(), name).unwrap() {
        ProtocolConfig::LinearProbe(config) => config,
        other => panic!("{other:?}"),
    };
    let (usual, plain) = (load("copernicus-linear-probe"), load("copernicus-linear-probe-plain"));
    assert!(usual.batch_norm.is_some() && plain.batch_norm.is_none());
    let with_norm = terrabench::config::LinearProbeConfig {
        batch_norm: usual.batch_norm,
        initialization: usual.initialization,
        ..plain
    };
    assert_eq!(with_norm, usual, "they differ in nothing else");
}

/// A row is named by the protocol that its records have, not by the one that other models have.
#[test]
fn a_rows_label_names_the_head_that_it_uses() {
    let suite = suite();
    let table = &suite.tables[0];
    let named = |used: &[&str]| {
        let is_named = |own: &&String| table.names(own, |name| used.contains(&name));
        table.protocols.iter().filter(is_named).cloned().collect::<Vec<_>>().join(" ")
    };
    let (usual, plain) = ("copernicus-linear-probe", "copernicus-linear-probe-plain");
    assert_eq!(named(&[usual]), "copernicus-linear-probe upernet finetune");
    assert_eq!(named(&["upernet"]), "copernicus-linear-probe upernet finetune");
    assert_eq!(named(&[plain, "upernet"]), "copernicus-linear-probe-plain upernet finetune");
    assert_eq!(
        named(&[usual, plain]),
        "copernicus-linear-probe copernicus-linear-probe-plain upernet finetune"
    );
}
