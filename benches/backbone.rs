//! Which share of the machine's rate of multiplications TerraFM-B reaches: batches of 8, 224 x 224, 12 bands, float32, random weights.
//!
//! `cargo bench --bench backbone -- [--rounds N] [--device D] [--peer PYTHON]`
//!
//! The machine's rate is that of its best product of two square matrices, by this program or, with `--peer`, a Python that has
//! torch, by PyTorch (benches/peers/product.py). Model and products take their rounds in turn.

mod common;

use std::time::Instant;

use anyhow::{Result, ensure};
use burn::tensor::{Device, Distribution, Tensor, TensorData};
use common::measured::{Comparison, Peer, Spread};
use common::{Script, number, option};
use terrabench::device;
use terrabench::home::Home;
use terrabench::model::architecture::ArchitectureConfig;
use terrabench::model::config::ModelConfig;
use terrabench::model::weights::Weights;
use terrabench::model::{self, Batch, Want};
use terrabench::task::Sensor;

const BATCH: usize = 8;
const SIDE: usize = 224;
/// Sides of the square matrices that are multiplied: large enough that nothing but the product counts.
const SIDES: [usize; 3] = [1024, 2048, 3072];

/// The multiply-adds that one image needs: those of the architecture, less what folding two linear layers into one saves, and less
/// what only other tokens than the class token need after the last attention.
fn multiply_adds(config: &ModelConfig, bands: usize) -> Result<f64> {
    let ArchitectureConfig::TerraFm(sizes) = &config.architecture else {
        anyhow::bail!("{} is no TerraFM", config.name)
    };
    let (d, depth) = (sizes.width as f64, sizes.depth as f64);
    let patches = (SIDE / sizes.patch).pow(2) as f64;
    let (tokens, pixels) = (patches + 1.0, (bands * sizes.patch * sizes.patch) as f64);
    let embed = patches * (pixels * 3.0 * d + 3.0 * d * d);
    let after_attention = (1.0 + 2.0 * sizes.mlp_ratio as f64) * d * d;
    let block = tokens * (3.0 * d * d + after_attention) + 2.0 * tokens * tokens * d;
    let last = tokens * 3.0 * d * d + after_attention + 2.0 * tokens * d;
    Ok(embed + (depth - 1.0) * block + last)
}

/// Multiply-adds a second of the best product of square matrices, in 1e9.
fn product(device: &Device) -> f64 {
    let rate = |side: usize| {
        let random = || Tensor::<2>::random([side, side], Distribution::Uniform(-1.0, 1.0), device);
        let (a, b) = (random(), random());
        let seconds = (0..2).map(|_| {
            let start = Instant::now();
            let sum = a.clone().matmul(b.clone()).slice([0..1, 0..1]).into_data();
            assert_eq!(sum.num_elements(), 1);
            start.elapsed().as_secs_f64()
        });
        (side as f64).powi(3) / seconds.fold(f64::INFINITY, f64::min) / 1e9
    };
    SIDES.into_iter().map(rate).fold(0.0, f64::max)
}

fn main() -> Result<()> {
    let device = device::by_name(&option("--device").unwrap_or_else(|| "flex".into()))?;
    let config = ModelConfig::load(&Home::find()?, "terrafm-b")?;
    let model = model::load(&config, &Weights::Random(0), false, &device)?;
    let bands: std::sync::Arc<[_]> = config.sensor(Sensor::S2_L1C)?.bands.as_slice().into();
    let adds = multiply_adds(&config, bands.len())?;
    let shape = [BATCH, bands.len(), SIDE, SIDE];
    let pixels = (0..shape.iter().product()).map(|i: usize| (i % 251) as f32 / 125.0 - 1.0).collect();
    let pixels = Tensor::<4>::from_data(TensorData::new(pixels, shape), &device);
    let images = Batch::single(Sensor::S2_L1C, bands, pixels);
    let encode = || -> Result<f64> {
        let start = Instant::now();
        let features = model.encoder.encode(&images, Want::Pooled(config.pooling()))?.pooled()?.into_data();
        ensure!(features.shape().to_vec() == [BATCH, 768], "features of shape {:?}", features.shape());
        Ok(BATCH as f64 / start.elapsed().as_secs_f64() * adds / 1e9)
    };

    let peer = Script::asked("--peer", "product.py")
        .map(|peer| peer.with("--sides", SIDES.map(|s| s.to_string()).join(",")));
    let [mut ours, mut products, mut theirs] = [const { Vec::new() }; 3];
    encode()?;
    for _ in 0..number("--rounds", 5)? {
        for _ in 0..3 {
            ours.push(encode()?);
            products.push(product(&device));
        }
        if let Some(peer) = &peer {
            let [rates] = peer.columns(3)?;
            theirs.extend(rates);
        }
    }
    let what = "TerraFM-B against the best product of matrices";
    let mut comparison = Comparison::new("Share of the machine", what, "GMAC/s").goal(0.8);
    comparison.note = match Spread::of(&ours) {
        Some(rate) => format!("{:.2} images/s of {:.2} GMAC each", rate.median / (adds / 1e9), adds / 1e9),
        None => String::new(),
    };
    comparison.ours = ours;
    comparison.peers.push(Peer { name: "product of this program".into(), values: products });
    if peer.is_some() {
        comparison.peers.push(Peer { name: "product of PyTorch".into(), values: theirs });
    }
    comparison.tell()
}
