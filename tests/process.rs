//! Encoders in another process: what they are told, what they give, and every way in which they fail.

use std::time::{Duration, Instant};

use burn::tensor::{Device, Tensor, TensorData};
use ndarray::Array3;
use terrabench::home::Home;
use terrabench::model::encoder::{Batch, Context, Encoder, Input};
use terrabench::model::process::{Command, OwnEncoder};
use terrabench::model::remote::{AnnouncedImage, Announcement, Unstacked};
use terrabench::model::weights::Weights;
use terrabench::model::{self, Encoded, Pooling, Want};
use terrabench::task::bands::Band;
use terrabench::task::{Sensor, Sensors};

use crate::common::{fixture, python};

const POOLED: Want = Want::Pooled(Pooling::Head);
const SIDE: usize = 32;

fn sensors() -> Sensors {
    Sensors::load(&Home::find().unwrap()).unwrap()
}

/// The tests' encoder in this mode; none without a Python.
fn encoder(mode: &str) -> Option<Box<dyn Encoder>> {
    started(mode, 60, &[])
}

fn started(mode: &str, time_limit: u64, more: &[&str]) -> Option<Box<dyn Encoder>> {
    let script = fixture("process/encode.py").to_string_lossy().into_owned();
    let mut words = vec![python::plain("an encoder process")?, script, mode.to_owned()];
    words.extend(more.iter().map(|word| (*word).to_owned()));
    let own = OwnEncoder {
        command: Command::Words(words),
        name: None,
        backbone: None,
        bands: Some(vec![Band::B02, Band::B03]),
        size: OwnEncoder::SIZE,
        time_limit,
    };
    let config = own.config(&sensors()).unwrap();
    assert_eq!((config.name.as_str(), config.backbone.as_str()), ("encode", "own encoder"));
    Some(model::load(&config, &Weights::None, false, &Device::flex()).unwrap().encoder)
}

fn announcement(want: Want) -> Announcement {
    Announcement {
        suite: "geobench".into(),
        task: "m-eurosat".into(),
        images: vec![AnnouncedImage {
            sensor: Sensor::S2_L2A,
            date: None,
            bands: vec![Band::B02, Band::B03],
            side: SIDE,
            stored_side: 16,
        }],
        want,
        batch_size: 4,
        normalization: "dataset".into(),
    }
}

/// n images [2, 32, 32] of numbers that differ, times `scale`.
fn batch(n: usize, seed: usize, scale: f32) -> Batch {
    let values = (0..n * 2 * SIDE * SIDE).map(|place| scale * (((place + seed) * 7 % 101) as f32));
    let pixels = TensorData::new(values.collect(), [n, 2, SIDE, SIDE]);
    let pixels = Tensor::from_data(pixels, &Device::flex());
    Batch::single(Sensor::S2_L2A, [Band::B02, Band::B03].into(), pixels)
}

fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().unwrap()
}

fn assert_close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-3, "{worst}: {found:?} instead of {expected:?}");
}

/// Means of square cells of `cell` pixels: [n, bands, rows, columns].
fn means(batch: &Batch, cell: usize) -> Tensor<4> {
    let pixels = batch.inputs[0].pixels.clone();
    let (n, side) = (batch.len(), SIDE / cell);
    let cells = pixels.reshape([n * 2 * side, cell, side, cell]).mean_dim(3).mean_dim(1);
    cells.reshape([n, 2, side, side])
}

#[test]
fn pooled_vectors_tokens_and_maps_are_those_of_the_process() {
    let Some(encoder) = encoder("plain") else { return };
    let remote = encoder.remote().unwrap();
    let agreement = remote.announce(&announcement(POOLED)).unwrap();
    assert!(!agreement.takes_stored && !agreement.fuses);
    assert_eq!(encoder.width(Pooling::Head, 2), 2);
    let images = batch(3, 5, 0.25);
    let pooled = encoder.encode(&images, POOLED).unwrap().pooled().unwrap();
    assert_eq!(pooled.dims(), [3, 2]);
    assert_close(&numbers(pooled), &numbers(means(&images, SIDE)));

    let (tokens, grid) = encoder.encode(&images, Want::Tokens).unwrap().tokens().unwrap();
    assert_eq!((tokens.dims(), grid), ([3, 16, 2], [4, 4]));
    let expected = means(&images, 8).reshape([3, 2, 16]).swap_dims(1, 2);
    assert_close(&numbers(tokens), &numbers(expected));

    remote.announce(&announcement(Want::Maps)).unwrap();
    let levels = remote.map_levels().unwrap();
    assert_eq!(levels.iter().map(|level| (level.width, level.stride)).collect::<Vec<_>>(), [(2, 16); 4]);
    let maps = encoder.encode(&images, Want::Maps).unwrap().maps().unwrap();
    for map in maps {
        assert_eq!((map.values.dims(), map.stride), ([3, 2, 2, 2], 16));
        assert_close(&numbers(map.values), &numbers(means(&images, 16)));
    }
}

#[test]
fn images_that_are_not_joined_are_the_same_batch() {
    for mode in ["plain", "stored"] {
        let Some(encoder) = encoder(mode) else { return };
        let remote = encoder.remote().unwrap();
        remote.announce(&announcement(POOLED)).unwrap();
        let images = batch(3, 5, 1.0);
        let values = numbers(images.inputs[0].pixels.clone());
        let pixels = values.chunks(2 * SIDE * SIDE);
        let pixels = pixels.map(|image| Array3::from_shape_vec((2, SIDE, SIDE), image.to_vec()).unwrap());
        let apart = Unstacked { pixels: pixels.collect(), context: Context::default() };
        let joined = encoder.encode(&images, POOLED).unwrap().pooled().unwrap();
        let apart = remote.begin_unstacked(vec![apart], POOLED, 0).unwrap()().unwrap().pooled().unwrap();
        assert_eq!(numbers(joined), numbers(apart), "{mode}");
    }
}

#[test]
fn several_batches_are_under_way_at_a_time_and_come_back_in_order() {
    // This encoder answers a batch only when the next one is there.
    let Some(encoder) = encoder("patient") else { return };
    let remote = encoder.remote().unwrap();
    remote.announce(&announcement(POOLED)).unwrap();
    assert_eq!((remote.in_flight(), encoder.width(Pooling::Head, 2)), (3, 2));
    let batches: Vec<Batch> = (0..4).map(|seed| batch(2, seed, 1.0)).collect();
    let pending: Vec<_> =
        batches.iter().map(|batch| remote.begin(batch.clone(), POOLED, 0).unwrap()).collect();
    for (pending, batch) in pending.into_iter().zip(&batches) {
        assert_close(&numbers(pending().unwrap().pooled().unwrap()), &numbers(means(batch, SIDE)));
    }
}

#[test]
fn batches_come_through_shared_memory_where_the_encoder_can_open_it() {
    let Some(encoder) = encoder("shared") else { return };
    let remote = encoder.remote().unwrap();
    remote.announce(&announcement(POOLED)).unwrap();
    // Batches of several sizes are under way at a time; later ones reuse the memory of earlier ones.
    for round in 0..3 {
        let batches: Vec<Batch> = (1..4).map(|n| batch(n, n + round, 0.25)).collect();
        let pending: Vec<_> =
            batches.iter().map(|batch| remote.begin(batch.clone(), POOLED, 0).unwrap()).collect();
        for (pending, batch) in pending.into_iter().zip(&batches) {
            assert_close(&numbers(pending().unwrap().pooled().unwrap()), &numbers(means(batch, SIDE)));
        }
    }
}

#[test]
fn stored_pixels_arrive_in_a_narrow_type_with_the_same_values() {
    let Some(encoder) = encoder("stored") else { return };
    assert!(encoder.remote().unwrap().announce(&announcement(POOLED)).unwrap().takes_stored);
    for scale in [1.0, 100.0, -100.0, 0.5] {
        let images = batch(2, 3, scale);
        let found = encoder.encode(&images, POOLED).unwrap().pooled().unwrap();
        assert_close(&numbers(found), &numbers(means(&images, SIDE)));
    }
}

#[test]
fn times_and_places_go_along() {
    let Some(encoder) = encoder("plain") else { return };
    encoder.remote().unwrap().announce(&announcement(POOLED)).unwrap();
    let mut images = batch(2, 0, 1.0);
    let context =
        Context { days: vec![Some(18_000.5), None], places: vec![None, Some([11.5, 48.1])], gsd_m: None };
    let Input { sensor, bands, pixels, .. } = images.inputs.remove(0);
    images.inputs.push(Input { sensor, bands, pixels, context });
    let found = encoder.encode(&images, POOLED).unwrap().pooled().unwrap();
    assert_close(&numbers(found), &numbers(means(&images, SIDE)));
}

/// The error of an encoder that fails at the announcement or at one of the batches after it.
fn failure(mode: &str, time_limit: u64) -> Option<String> {
    let encoder = started(mode, time_limit, &[])?;
    let announced = encoder.remote()?.announce(&announcement(POOLED));
    let failed = announced.and_then(|_| {
        (0..5).try_for_each(|seed| {
            let encoded = encoder.encode(&batch(2, seed, 1.0), POOLED)?;
            match encoded {
                Encoded::Pooled(vectors) => assert_eq!(vectors.dims()[0], 2),
                other => panic!("{other:?}"),
            }
            Ok(())
        })
    });
    Some(failed.expect_err(mode).to_string())
}

#[test]
fn every_failure_says_what_was_expected_what_was_found_and_what_to_do() {
    for (mode, words) in [
        (
            "crash-at-start",
            &["its answer `ready`", "exit status: 1", "the weights are missing", "Traceback"][..],
        ),
        ("crash-after-2", &["the features of batch 2", "exit status: 1", "RuntimeError: out of memory"]),
        ("exit", &["exit status: 3"]),
        ("print", &["its answer `ready`", "not JSON", "Loading weights ...", "sys.stderr", "os.dup2(2, 1)"]),
        ("print-later", &["the features of batch 2", "`step 3`", "sys.stderr"]),
        ("short", &["batch 1", "`pooled` of 2 images, found 1"]),
        ("short-file", &["the features of batch 0", "closed its standard output"]),
        ("wrong-id", &["the features of batch 0", "found those of batch 1", "in their order"]),
        ("wrong-name", &["batch 0", "called `pooled`, found features", "docs/wire-protocol.md"]),
        ("version", &["expected \"terrabench\":1", "found 2"]),
        ("no-identity", &["expected \"identity\"", "changes with the weights"]),
        ("error", &["it reports an error: CUDA is busy", "line 3"]),
    ] {
        let Some(said) = failure(mode, 60) else { return };
        for word in words.iter().chain(&["encode.py", "help:"]) {
            assert!(said.contains(word), "{mode}: {word} in {said}");
        }
    }
}

#[test]
fn a_process_that_hangs_is_stopped_at_the_time_limit() {
    for (mode, word) in [("hang-at-start", "its answer `ready`"), ("hang", "the features of batch 2")] {
        let start = Instant::now();
        let Some(said) = failure(mode, 2) else { return };
        assert!(start.elapsed() < Duration::from_secs(30), "{mode}");
        for word in [word, "nothing came for 2 seconds", "--encoder-timeout", "time-limit", "flushes"] {
            assert!(said.contains(word), "{mode}: {word} in {said}");
        }
    }
}

#[test]
fn a_program_that_does_not_exist_is_named() {
    let own = OwnEncoder {
        command: "no-such-program encode.py".parse().unwrap(),
        name: Some("Mine".into()),
        backbone: None,
        bands: None,
        size: OwnEncoder::SIZE,
        time_limit: 1,
    };
    let config = own.config(&sensors()).unwrap();
    let encoder = model::load(&config, &Weights::None, false, &Device::flex()).unwrap().encoder;
    let said = encoder.remote().unwrap().announce(&announcement(POOLED)).unwrap_err().to_string();
    for word in ["cannot start the encoder `no-such-program`", "PATH"] {
        assert!(said.contains(word), "{word} in {said}");
    }
}

#[test]
fn a_failed_process_is_started_once_more_and_then_no_longer() {
    let folder = tempfile::tempdir().unwrap();
    let count = folder.path().join("starts");
    let counted = format!("count:{}", count.display());
    let Some(encoder) = started("crash-after-2", 60, &[&counted]) else { return };
    let remote = encoder.remote().unwrap();
    remote.announce(&announcement(POOLED)).unwrap();
    let encode = || encoder.encode(&batch(2, 0, 1.0), POOLED).map(|_| ());
    // The first batch was of zeros, to learn the width.
    encode().unwrap();
    encode().unwrap_err();
    // Each new process gives features before it fails, so it is worth another try.
    let starts = || std::fs::read_to_string(&count).unwrap().lines().count();
    encode().unwrap();
    assert_eq!(starts(), 2);

    let Some(encoder) = started("exit", 60, &[&counted]) else { return };
    let before = starts();
    for _ in 0..4 {
        let said = encoder.remote().unwrap().announce(&announcement(POOLED)).unwrap_err().to_string();
        assert!(said.contains("exit status: 3"), "{said}");
    }
    assert_eq!(starts() - before, 2);
}

#[test]
fn an_identity_covers_the_words_the_files_and_what_the_encoder_declares() {
    let identity = |mode: &str| {
        let encoder = encoder(mode)?;
        Some(encoder.remote()?.announce(&announcement(POOLED)).unwrap().identity)
    };
    let (Some(plain), Some(again), Some(other)) = (identity("plain"), identity("plain"), identity("stored"))
    else {
        return;
    };
    assert!(plain.starts_with("process:") && plain.len() == "process:".len() + 32, "{plain}");
    assert_eq!(plain, again);
    assert_ne!(plain, other);
    assert_ne!(identity("new-identity"), identity("new-identity"));
}

#[test]
fn an_identity_that_changes_during_a_run_is_an_error() {
    let Some(encoder) = encoder("new-identity") else { return };
    let remote = encoder.remote().unwrap();
    remote.announce(&announcement(POOLED)).unwrap();
    let said = remote.announce(&announcement(Want::Tokens)).unwrap_err().to_string();
    assert!(said.contains("its identity changed during the run"), "{said}");
}

#[test]
fn what_an_encoder_does_not_list_is_not_asked_of_it() {
    let Some(encoder) = encoder("pooled-only") else { return };
    let remote = encoder.remote().unwrap();
    remote.announce(&announcement(POOLED)).unwrap();
    let said = remote.announce(&announcement(Want::Maps)).unwrap_err().to_string();
    for word in ["needs maps, the encoder gives pooled", "`wants`"] {
        assert!(said.contains(word), "{word} in {said}");
    }
    encoder.encode(&batch(1, 0, 1.0), POOLED).unwrap();
}

#[test]
fn what_decides_features_is_in_the_keys_and_the_time_limit_is_not() {
    let own = |command: &str, bands: Option<Vec<Band>>, time_limit| OwnEncoder {
        command: command.parse().unwrap(),
        name: None,
        backbone: None,
        bands,
        size: OwnEncoder::SIZE,
        time_limit,
    };
    let key = |own: OwnEncoder| {
        let config = own.config(&sensors()).unwrap();
        serde_json::to_string(&config.deciding()).unwrap()
    };
    let plain = key(own("a b", None, 1));
    assert_eq!(plain, key(own("a b", None, 2)));
    assert_ne!(plain, key(own("a c", None, 1)));
    assert_ne!(plain, key(own("a b", Some(vec![Band::B04]), 1)));
    // Descriptors differ from run to run.
    assert_eq!(key(own("fd:3,4", None, 1)), key(own("fd:5,6", None, 1)));
}

#[test]
fn bands_that_no_sensor_has_together_are_refused() {
    let config = |bands: &[Band]| {
        let own = OwnEncoder {
            command: "a".parse().unwrap(),
            name: None,
            backbone: None,
            bands: Some(bands.to_vec()),
            size: OwnEncoder::SIZE,
            time_limit: 1,
        };
        own.config(&sensors())
    };
    let taken = config(&[Band::B12, Band::B02]).unwrap();
    assert_eq!(taken.sensor(Sensor::S2_L1C).unwrap().bands, [Band::B12, Band::B02]);
    assert!(taken.sensor(Sensor::S1).is_err());
    let said = config(&[Band::VV, Band::B02]).unwrap_err().to_string();
    assert!(said.contains("no sensor has all of the bands VV,B02"), "{said}");
    let said = config(&[Band::B02, Band::B02]).unwrap_err().to_string();
    assert!(said.contains("names B02 twice"), "{said}");
}

#[test]
fn the_page_of_the_protocol_shows_the_example() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let (page, example) = (read("docs/wire-protocol.md"), read("examples/encode.py"));
    assert!(page.contains(example.trim_end()), "docs/wire-protocol.md shows another examples/encode.py");
}
