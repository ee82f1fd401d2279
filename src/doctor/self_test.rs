//! Does a device compute what the CPU computes, and how fast? For whoever has a card that nobody has tried before.
//!
//! Each precision is measured by a process of its own ([`measure`]), because a precision holds for a whole program. The features
//! of a few images are compared with the CPU's, so that the figures come with a proof that they mean something.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use burn::tensor::{DType, Device, Tensor, TensorData};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{Area, Finding, Standing};
use crate::device::{self, Precision, TF32_VARIABLE};
use crate::home::Home;
use crate::model::architecture::ArchitectureConfig;
use crate::model::config::ModelConfig;
use crate::model::weights::Weights;
use crate::model::{self, Batch, Encoder, Pooling, Want};
use crate::task::Sensor;
use crate::{Error, Result};

/// The model that is measured, with random weights.
pub(super) const MODEL: &str = "terrafm-b";
/// Side of its images in pixels.
pub(super) const SIDE: usize = 224;
/// Images whose features are compared.
const COMPARED: usize = 8;
/// Batch sizes whose throughput is measured.
const BATCHES: [usize; 5] = [8, 32, 128, 256, 512];
/// How long each figure is measured at least, after a first round that is not counted.
const LONG: Duration = Duration::from_millis(700);
/// Larger batches are left out once one round takes longer.
const TOO_LONG: Duration = Duration::from_secs(4);
/// Features of float32 may differ from the CPU's by this, relative to the largest.
const SAME: f32 = 1e-4;
/// Below this share of the device's own matrix rate, something is wrong.
const LOW_SHARE: f64 = 0.15;
/// Below this many bytes per second, uploading holds a fast card up.
const LOW_UPLOAD: f64 = 2e9;

/// What one process measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measurements {
    /// Features [n, d] of the compared images, row by row.
    pub features: Vec<f32>,
    /// Images per second by batch size.
    pub images_per_second: Vec<(usize, f64)>,
    /// The largest batch size that did not fit into memory, if one was met.
    pub too_large: Option<usize>,
    /// Operations per second of a large matrix product.
    pub matrix_rate: f64,
    /// Bytes per second from the program's memory to the device's.
    pub upload_rate: f64,
}

/// Measures one precision on a device, for [`examine`] in another process.
///
/// # Errors
/// If the device does not support the precision, or fails.
pub fn measure(home: &Home, name: &str, precision: Precision) -> Result<Measurements> {
    let device = device::with_precision(name, precision)?;
    let encoder = encoder(home, &device)?;
    let channels = channels(home)?;
    let failed = |problem: String| Error::device(format!("device `{name}` in {precision}: {problem}"));
    let features = device::quietly(|| features(encoder.as_ref(), channels, &device)).map_err(failed)??;
    let mut images_per_second = Vec::new();
    let mut too_large = None;
    for batch in BATCHES {
        let images = images(batch, channels, &device);
        let round = || -> Result<Duration> {
            let start = Instant::now();
            pooled(encoder.as_ref(), images.clone())?;
            Ok(start.elapsed())
        };
        let rounds = || -> Result<(usize, Duration, Duration)> {
            let first = round()?;
            let (mut count, mut time) = (0, Duration::ZERO);
            while time < LONG {
                time += round()?;
                count += 1;
            }
            Ok((count, time, first))
        };
        match device::quietly(rounds) {
            Ok(done) => {
                let (count, time, first) = done?;
                images_per_second.push((batch, (count * batch) as f64 / time.as_secs_f64()));
                if first.max(time / u32::try_from(count).unwrap_or(1)) > TOO_LONG {
                    break;
                }
            }
            Err(problem) if device::is_out_of_memory(&problem) => {
                too_large = Some(batch);
                break;
            }
            Err(problem) => return Err(failed(problem)),
        }
    }
    let rates = device::quietly(|| (matrix_rate(name, &device), upload_rate(&device))).map_err(failed)?;
    Ok(Measurements { features, images_per_second, too_large, matrix_rate: rates.0?, upload_rate: rates.1? })
}

/// Measures every precision on the device called `name` and compares with the CPU. Takes about a minute on a GPU.
pub fn examine(home: &Home, name: &str) -> Vec<Finding> {
    let cpu = Device::flex();
    let reference = encoder(home, &cpu).and_then(|encoder| features(encoder.as_ref(), channels(home)?, &cpu));
    let reference = match reference {
        Ok(features) => features,
        Err(error) => return vec![Finding::of_error(Area::SelfTest, name, Standing::Broken, &error)],
    };
    let flops = match operations(home) {
        Ok(flops) => flops,
        Err(error) => return vec![Finding::of_error(Area::SelfTest, name, Standing::Broken, &error)],
    };
    let mut findings = Vec::new();
    for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
        if precision == Precision::Tf32 && device::kind(name) != "libtorch:cuda" {
            continue;
        }
        match measured_apart(home, name, precision) {
            Ok(measured) => findings.extend(told(name, precision, &measured, &reference, flops)),
            Err(error) => {
                let subject = format!("{name} {precision}");
                findings.push(Finding::of_error(Area::SelfTest, &subject, Standing::Broken, &error));
            }
        }
    }
    findings
}

/// Runs [`measure`] in a process of its own.
fn measured_apart(home: &Home, name: &str, precision: Precision) -> Result<Measurements> {
    let program = std::env::current_exe().map_err(|error| Error::io(Path::new("terrabench"), &error))?;
    let mut command = Command::new(program);
    if home.folder() != Path::new("") {
        command.arg("--home").arg(home.folder());
    }
    command.args(["measure-device", "--device", name, "--precision", &precision.to_string()]);
    if precision == Precision::Tf32 {
        command.env(TF32_VARIABLE, "1");
    }
    let output =
        command.output().map_err(|error| Error::device(format!("the measurement did not start: {error}")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Error::device(format!("{}: {}", output.status, said.trim())));
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|error| Error::device(format!("the measurement gave no result: {error}")))
}

/// Words the measurements of one precision.
fn told(
    name: &str,
    precision: Precision,
    measured: &Measurements,
    reference: &[f32],
    flops: f64,
) -> Vec<Finding> {
    let subject = format!("{name} {precision}");
    let finding = |standing, found: String| Finding::new(Area::SelfTest, &subject, standing, found);
    let mut findings = vec![agreement(precision, &measured.features, reference, &finding)];
    let best = measured.images_per_second.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1));
    if let Some((_, best)) = best {
        let sizes: Vec<String> =
            measured.images_per_second.iter().map(|(size, rate)| format!("{rate:.0} ({size})")).collect();
        let full =
            measured.too_large.map_or(String::new(), |size| format!("; {size} do not fit into memory"));
        let share = best * flops / measured.matrix_rate;
        let found = format!(
            "{MODEL}: images/s (by batch size) {}{full}; {:.0} % of the {:.1} TFLOP/s of a matrix product",
            sizes.join(", "),
            100.0 * share,
            measured.matrix_rate / 1e12
        );
        findings.push(if share < LOW_SHARE {
            finding(Standing::Doubtful, found).remedy(
                "see that no other program uses the device (nvidia-smi), and that it is not throttled",
            )
        } else {
            finding(Standing::Good, found)
        });
    }
    let upload = format!("upload: {:.1} GB/s", measured.upload_rate / 1e9);
    findings.push(if measured.upload_rate < LOW_UPLOAD {
        finding(Standing::Doubtful, upload).remedy(
            "check the card's slot (nvidia-smi -q: Link Width); pixels are uploaded as stored to need less",
        )
    } else {
        finding(Standing::Good, upload)
    });
    findings
}

/// Compares features with the CPU's.
fn agreement(
    precision: Precision,
    features: &[f32],
    reference: &[f32],
    finding: &dyn Fn(Standing, String) -> Finding,
) -> Finding {
    if features.len() != reference.len() || features.is_empty() {
        let (found, expected) = (features.len(), reference.len());
        return finding(Standing::Broken, format!("expected {expected} numbers of features, found {found}"));
    }
    let largest = reference.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
    let apart = features.iter().zip(reference).fold(0.0_f32, |apart, (a, b)| apart.max((a - b).abs()));
    let width = reference.len() / COMPARED;
    let cosines = features.chunks(width).zip(reference.chunks(width)).map(|(a, b)| cosine(a, b));
    let least = cosines.fold(1.0_f64, f64::min);
    let found = format!(
        "differs from the CPU by {:.1e} of the largest feature; least cosine {least:.6}",
        apart / largest
    );
    let close = match precision {
        Precision::F32 => apart <= SAME * largest,
        Precision::Tf32 => least >= 0.9999,
        Precision::Bf16 => least >= 0.999,
    };
    // NaN is never close.
    if close {
        finding(Standing::Good, found)
    } else {
        finding(Standing::Broken, found).remedy("use another precision or device, and report these lines")
    }
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn encoder(home: &Home, device: &Device) -> Result<Box<dyn Encoder>> {
    let config = ModelConfig::load(home, MODEL)?;
    Ok(model::load(&config, &Weights::Random(0), false, device)?.encoder)
}

/// Number of channels of the model's images.
fn channels(home: &Home) -> Result<usize> {
    Ok(ModelConfig::load(home, MODEL)?.sensor(Sensor::S2_L1C)?.bands.len())
}

/// Operations (two per multiplication) that the model's products need per image.
fn operations(home: &Home) -> Result<f64> {
    let config = ModelConfig::load(home, MODEL)?;
    let ArchitectureConfig::TerraFm(sizes) = &config.architecture else {
        return Err(Error::mismatch(format!("{MODEL}: expected the architecture terrafm")));
    };
    let tokens = (SIDE / sizes.patch).pow(2) as f64;
    let (t, d) = (tokens + 1.0, sizes.width as f64);
    // Per block: queries, keys, values and output 8 t d^2, attention 4 t^2 d, and the two products of the MLP.
    let block = 8.0 * t * d * d + 4.0 * t * t * d + 4.0 * t * d * d * sizes.mlp_ratio as f64;
    let embedding = 2.0 * tokens * d * (sizes.patch.pow(2) * channels(home)?) as f64;
    Ok(sizes.depth as f64 * block + embedding)
}

/// Noise images [n, c, side, side], the same on every machine.
fn images(n: usize, channels: usize, device: &Device) -> Tensor<4> {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let first: Vec<f32> =
        (0..COMPARED * channels * SIDE * SIDE).map(|_| random.random_range(-1.0..1.0)).collect();
    let first = Tensor::<4>::from_data(TensorData::new(first, [COMPARED, channels, SIDE, SIDE]), device);
    first.repeat_dim(0, n.div_ceil(COMPARED)).narrow(0, 0, n)
}

fn features(encoder: &dyn Encoder, channels: usize, device: &Device) -> Result<Vec<f32>> {
    pooled(encoder, images(COMPARED, channels, device))
}

fn pooled(encoder: &dyn Encoder, images: Tensor<4>) -> Result<Vec<f32>> {
    let batch = Batch::single(Sensor::S2_L1C, [].into(), images);
    numbers(encoder.encode(&batch, Want::Pooled(Pooling::Class))?.pooled()?)
}

fn numbers<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    tensor
        .into_data()
        .convert::<f32>()
        .try_into_vec()
        .map_err(|error| Error::device(format!("the device returned no float32 numbers: {error:?}")))
}

/// Operations per second of products of two square matrices.
fn matrix_rate(name: &str, device: &Device) -> Result<f64> {
    // Large enough to fill a card; a CPU would need seconds.
    let side = if device::is_gpu(name) { 8192 } else { 1024 };
    let factor = Tensor::<2>::ones([side, side], device) * 0.5;
    let product = || {
        let product = factor.clone().matmul(factor.clone());
        // Reading a number waits for the product.
        numbers(product.narrow(0, 0, 1).narrow(1, 0, 1)).map(drop)
    };
    product()?;
    let (start, mut rounds) = (Instant::now(), 0);
    while start.elapsed() < LONG {
        product()?;
        rounds += 1;
    }
    Ok(f64::from(rounds) * 2.0 * (side as f64).powi(3) / start.elapsed().as_secs_f64())
}

/// Bytes per second of uploads like those of extraction.
fn upload_rate(device: &Device) -> Result<f64> {
    const NUMBERS: usize = 256 * 12 * 64 * 64;
    let pixels = vec![1.0_f32; NUMBERS];
    let upload = || {
        let data = TensorData::new(pixels.clone(), [NUMBERS]);
        let start = Instant::now();
        let uploaded = Tensor::<1>::from_data(data, (device, DType::F32));
        numbers(uploaded.narrow(0, NUMBERS - 1, 1))?;
        Ok::<_, Error>(start.elapsed())
    };
    upload()?;
    let (mut time, mut rounds) = (Duration::ZERO, 0);
    while time < LONG {
        time += upload()?;
        rounds += 1;
    }
    Ok(f64::from(rounds) * (NUMBERS * size_of::<f32>()) as f64 / time.as_secs_f64())
}
