//! How fast images reach an encoder in another process: `benches/peers/process.py`, which does nothing. 64 images [12, 224, 224]
//! in batches of 16, as float32 and as stored (uint16), through shared memory and through the pipe, with as many batches in flight as the extraction has. Rates count the
//! images as float32 either way.
//!
//! Set TERRABENCH_PYTHON for another Python than `python3`.

use std::collections::VecDeque;
use std::hint::black_box;

use burn::tensor::Device;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
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
fn encoder(pixels: &str, way: &str) -> Box<dyn Encoder> {
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
    let config = own.config(&Sensors::load(&Home::find().unwrap()).unwrap()).unwrap();
    let encoder = load(&config, &Weights::None, false, &Device::flex()).unwrap().encoder;
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
    encoder.remote().unwrap().announce(&announcement).unwrap();
    encoder
}

fn process(criterion: &mut Criterion) {
    let count = BANDS.len() * SIDE * SIDE;
    let values: Vec<f32> = (0..count).map(|place| (place * 7 % 10_000) as f32).collect();
    let image = Array3::from_shape_vec((BANDS.len(), SIDE, SIDE), values).unwrap();
    let batch = || vec![Unstacked { pixels: vec![image.clone(); BATCH], ..Unstacked::default() }];
    let mut group = criterion.benchmark_group("process");
    group.sample_size(10).throughput(Throughput::Bytes((BATCHES * BATCH * 4 * count) as u64));
    for (pixels, way) in
        [("float32", "shared"), ("stored", "shared"), ("float32", "pipe"), ("stored", "pipe")]
    {
        let encoder = encoder(pixels, way);
        let remote = encoder.remote().unwrap();
        group.bench_function(format!("64 images, {pixels}, {way}"), |bencher| {
            let run = |batches: Vec<Vec<Unstacked>>| {
                let mut waiting = VecDeque::new();
                for batch in batches {
                    waiting.push_back(remote.begin_unstacked(batch, WANT, 0).unwrap());
                    if waiting.len() >= remote.in_flight() {
                        black_box(waiting.pop_front().unwrap()().unwrap());
                    }
                }
                waiting.into_iter().for_each(|pending| drop(black_box(pending().unwrap())));
            };
            // Making the images is not timed: it takes the place of reading them.
            bencher.iter_batched(|| (0..BATCHES).map(|_| batch()).collect(), run, BatchSize::PerIteration);
        });
    }
    group.finish();
}

criterion_group!(benches, process);
criterion_main!(benches);
