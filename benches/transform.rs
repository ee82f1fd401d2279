//! Normalising images of 13 bands, 64 x 64, and resizing them to 224 x 224, which every image goes through before a model.
//!
//! `cargo bench --bench transform -- [--rounds N] [--repetitions N] [--peer PYTHON]`
//!
//! With `--peer`, a Python that has torch and safetensors, rounds alternate with those of benches/peers/transform.py on the same
//! images; before timing, the results must agree.

mod common;

use std::time::Instant;

use anyhow::{Result, ensure};
use common::measured::{Comparison, Peer};
use common::tensors::{difference, load, noise, save};
use common::{Script, in_turn, number};
use ndarray::Array3;
use rayon::prelude::*;
use terrabench::transform::Preprocess;
use terrabench::transform::normalize::{BandStatistics, Normalization};

const BATCH: usize = 64;
const BANDS: usize = 13;
const FROM: usize = 64;
const TO: usize = 224;
/// Largest accepted difference, relative to the largest number.
const TOLERANCE: f64 = 1e-6;

fn main() -> Result<()> {
    let values: Vec<f32> =
        noise("pixels", BATCH * BANDS * FROM * FROM).iter().map(|v| (2000.0 * (v + 1.0)).round()).collect();
    let image = |pixels: &[f32]| Array3::from_shape_vec((BANDS, FROM, FROM), pixels.to_vec());
    let images: Vec<Array3<f32>> =
        values.chunks_exact(BANDS * FROM * FROM).map(image).collect::<Result<_, _>>()?;
    let statistics: Vec<BandStatistics> =
        (0..BANDS).map(|band| BandStatistics { mean: 1900.0 + 10.0 * band as f64, std: 1100.0 }).collect();
    let preprocess = Preprocess {
        normalization: Normalization::standardize(&statistics)?,
        height: TO,
        width: TO,
        align_corners: false,
        zeroed: Vec::new(),
    };
    let prepare = || -> Result<(Vec<Array3<f32>>, f64)> {
        let given = images.clone();
        let start = Instant::now();
        let prepared =
            given.into_par_iter().map(|image| preprocess.apply(image)).collect::<Result<Vec<_>, _>>()?;
        Ok((prepared, BATCH as f64 / start.elapsed().as_secs_f64()))
    };

    let folder = tempfile::tempdir()?;
    let (inputs, outputs) = (folder.path().join("images.safetensors"), folder.path().join("out.safetensors"));
    let peer = Script::asked("--peer", "transform.py").map(|peer| {
        peer.with("--images", inputs.display()).with("--out", outputs.display()).with("--side", TO)
    });
    let what = format!("normalise and resize, {BANDS} bands, {FROM} x {FROM} to {TO} x {TO}");
    let mut comparison = Comparison::new("Preprocessing", what, "images/s");
    if let Some(peer) = &peer {
        let list = |of: fn(&BandStatistics) -> f64| statistics.iter().map(|band| of(band) as f32).collect();
        let tensors = vec![
            ("images".to_owned(), vec![BATCH, BANDS, FROM, FROM], values.clone()),
            ("mean".to_owned(), vec![BANDS], list(|band| band.mean)),
            ("std".to_owned(), vec![BANDS], list(|band| band.std)),
        ];
        save(&tensors, &inputs)?;
        peer.run(0)?;
        let ours: Vec<f32> = prepare()?.0.into_iter().flatten().collect();
        let difference = difference(&ours, &load(&outputs, "images")?)?;
        comparison.note = format!("results differ by {difference:.1e} of the largest");
        ensure!(difference <= TOLERANCE, "{}", comparison.note);
    }
    let ours = || Ok(prepare()?.1);
    ours()?;
    let (ours, [batch, each]) =
        in_turn(number("--rounds", 5)?, number("--repetitions", 5)?, ours, peer.as_ref())?;
    comparison.ours = ours;
    if peer.is_some() {
        let peers = [("PyTorch, a batch at once", batch), ("PyTorch, an image at a time", each)];
        comparison.peers = peers.map(|(name, values)| Peer { name: name.into(), values }).into();
    }
    comparison.tell()
}
