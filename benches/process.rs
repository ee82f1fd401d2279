//! How fast images reach an encoder in another process: `benches/peers/process.py`, which does nothing. 64 images [12, 224, 224]
//! in batches of 16, as float32 and as stored (uint16), through shared memory and through the pipe, with as many batches in flight as
//! the extraction has. Rates count the images as float32 either way.
//!
//! `cargo bench --bench process [-- --rounds N]`. Set TERRABENCH_PYTHON for another Python than `python3`.

mod common;

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context, Result};
use burn::tensor::Device;
use common::measured::Comparison;
use common::number;
use ndarray::Array3;
use terrabench::home::Home;
use terrabench::model::encoder::Encoder;
use terrabench::model::process::{Command, OwnEncoder, TIME_LIMIT};
use terrabench::model::remote::{AnnouncedImage, Announcement, Unstacked};
use terrabench::model::weights::Weights;
use terrabench::model::{Pooling, Want, load};
use terrabench::task::bands::Band;
use terrabench::task::{Sensor, Sensors};

const WANT: Want = Want::Pooled(Pooling::Head);
const BANDS: [Band; 12] = [
    Band::B01,
    Band::B02,
    Band::B03,
    Band::B04,
    Band::B05,
    Band::B06,
    Band::B07,
    Band::B08,
    Band::B8A,
    Band::B09,
    Band::B11,
    Band::B12,
];
const SIDE: usize = 224;
const BATCH: usize = 16;
const BATCHES: usize = 4;

/// An encoder process that has been told of its images.
fn encoder(pixels: &str, way: &str) -> Result<Box<dyn Encoder>> {
    let python = std::env::var("TERRABENCH_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/process.py");
    let own = OwnEncoder {
        command: Command::Words(vec![python, script.to_owned(), pixels.to_owned(), way.to_owned()]),
        name: None,
        backbone: None,
        bands: Some(BANDS.to_vec()),
        size: OwnEncoder::SIZE,
        time_limit: TIME_LIMIT,
    };
    let config = own.config(&Sensors::load(&Home::find()?)?)?;
    let encoder = load(&config, &Weights::None, false, &Device::flex())?.encoder;
    let image = AnnouncedImage {
        sensor: Sensor::S2_L2A,
        date: None,
        bands: BANDS.to_vec(),
        side: SIDE,
        stored_side: SIDE,
    };
    let announcement = Announcement {
        suite: "none".to_owned(),
        task: "none".to_owned(),
        images: vec![image],
        want: WANT,
        batch_size: BATCH,
        normalization: "none".to_owned(),
    };
    encoder.remote().context(NOT_REMOTE)?.announce(&announcement)?;
    Ok(encoder)
}

const NOT_REMOTE: &str = "a model of another program is remote";

fn main() -> Result<()> {
    let rounds = number("--rounds", 10)?;
    let count = BANDS.len() * SIDE * SIDE;
    let values: Vec<f32> = (0..count).map(|place| (place * 7 % 10_000) as f32).collect();
    let image = Array3::from_shape_vec((BANDS.len(), SIDE, SIDE), values)?;
    let mebibytes = (BATCHES * BATCH * 4 * count) as f64 / 1_048_576.0;
    let ways = [("float32", "shared"), ("stored", "shared"), ("float32", "pipe"), ("stored", "pipe")];
    let encoders: Vec<Box<dyn Encoder>> =
        ways.iter().map(|(pixels, way)| encoder(pixels, way)).collect::<Result<_>>()?;
    let mut rates = [const { Vec::new() }; 4];
    // The first round warms up.
    for round in 0..=rounds {
        for (encoder, rates) in encoders.iter().zip(&mut rates) {
            let remote = encoder.remote().context(NOT_REMOTE)?;
            // Making the images is not timed: it takes the place of reading them.
            let batch = || vec![Unstacked { pixels: vec![image.clone(); BATCH], ..Unstacked::default() }];
            let batches: Vec<_> = (0..BATCHES).map(|_| batch()).collect();
            let start = Instant::now();
            let mut waiting = VecDeque::new();
            for batch in batches {
                waiting.push_back(remote.begin_unstacked(batch, WANT, 0)?);
                if waiting.len() >= remote.in_flight()
                    && let Some(pending) = waiting.pop_front()
                {
                    black_box(pending()?);
                }
            }
            for pending in waiting {
                black_box(pending()?);
            }
            if round > 0 {
                rates.push(mebibytes / start.elapsed().as_secs_f64());
            }
        }
    }
    for ((pixels, way), ours) in ways.into_iter().zip(rates) {
        let way = if way == "shared" { "shared memory" } else { "the pipe" };
        let what = format!("images to another process as {pixels}, through {way}");
        Comparison { ours, ..Comparison::new("Feeding", what, "MiB/s") }.tell()?;
    }
    Ok(())
}
