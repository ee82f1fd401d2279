//! One training step of UPerNet at full size: forward pass, loss, gradients, AdamW.
//!
//! `cargo bench --bench upernet [-- --steps N] [--peer PYTHON]`
//!
//! With `--peer`, a Python that has torch and safetensors, eager PyTorch takes its steps in turn with ours
//! (benches/peers/upernet.py), given the same weights, maps and labels. Before timing, the losses of the first step must agree; there
//! is no dropout, which each would draw for itself. Prints each step by its parts.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::{Device, Tensor, TensorData};
use common::measured::{Comparison, Peer as Measured, Spread};
use common::tensors::{Tensors, difference, noise, save};
use common::{number, option, peak_memory};
use ndarray::Array3;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use terrabench::config::UperNetConfig;
use terrabench::nn::heads::layers::Pass;
use terrabench::nn::heads::upernet::{MapLevel, UperNet};
use terrabench::nn::loss::PixelLabels;
use terrabench::train::optim::{Optimizer, Pace, Rule};
use terrabench::train::state::state;

const WIDTH: usize = 768;
const CLASSES: usize = 10;
const BATCH: usize = 2;
const GRID: usize = 14;
const SIDE: usize = 16 * GRID;
/// Largest accepted difference of the first step's losses, relative to them: sums of float32 in another order.
const TOLERANCE: f64 = 1e-4;

fn main() -> Result<()> {
    let steps = number("--steps", 5)?;
    let folder = tempfile::tempdir()?;
    let mut runners: Vec<Runner> = Vec::new();
    let given = folder.path().join("given.safetensors");
    for (name, device) in devices() {
        let mut ours = Ours::new(device);
        if !given.is_file() {
            save(&ours.given(), &given)?;
        }
        runners.push((name.to_owned(), Box::new(move || ours.step())));
    }
    if let Some(python) = option("--peer") {
        let mut peer = Peer::start(&python, &given)?;
        runners.push(("eager PyTorch".to_owned(), Box::new(move || peer.step())));
    }
    let mut note = String::new();
    let mut taken: Vec<Vec<Step>> = vec![Vec::new(); runners.len()];
    // The first step of each warms up.
    for step in 0..=steps {
        for ((name, run), taken) in runners.iter_mut().zip(&mut taken) {
            let done = run()?;
            let Step { loss, forward, backward, optimizer, cpu } = done;
            println!(
                "{name:16} step {step}: loss {loss:.4}, forward {forward:.2} s, backward {backward:.2} s, \
                 AdamW {optimizer:.2} s, {cpu:.2} CPU s"
            );
            taken.push(done);
        }
        if step == 0 && option("--peer").is_some() {
            let losses: Vec<f32> = taken.iter().map(|taken| taken[0].loss as f32).collect();
            let (first, last) = (&losses[..1], &losses[losses.len() - 1..]);
            let difference = difference(first, last)?;
            ensure!(difference <= TOLERANCE, "the loss is {}, PyTorch's {}", first[0], last[0]);
            note = format!("losses of the first step differ by {difference:.1e} of the loss");
        }
        if step == 0 {
            taken.iter_mut().for_each(Vec::clear);
        }
    }
    println!("medians of {steps} steps:");
    for ((name, _), taken) in runners.iter().zip(&taken) {
        let median = |of: fn(&Step) -> f64| {
            Spread::of(&taken.iter().map(of).collect::<Vec<_>>()).map_or(f64::NAN, |spread| spread.median)
        };
        println!(
            "{name:16} {:.2} s (forward {:.2}, backward {:.2}, AdamW {:.2}), {:.2} CPU s",
            median(Step::wall),
            median(|step| step.forward),
            median(|step| step.backward),
            median(|step| step.optimizer),
            median(|step| step.cpu),
        );
    }
    if let Some(peak) = peak_memory("self") {
        println!("peak memory of this process: {peak:.0} MiB");
    }
    let what = format!(
        "UPerNet step, maps {BATCH} x {WIDTH} x {GRID} x {GRID}, 512 channels, labels {SIDE} x {SIDE}"
    );
    let mut comparison = Comparison::new("Training", what, "s").goal(1.5);
    comparison.note = note;
    for ((name, _), taken) in runners.iter().zip(&taken) {
        let values = taken.iter().map(Step::wall).collect();
        match name.as_str() {
            "flex" => comparison.ours = values,
            name => comparison.peers.push(Measured { name: name.to_owned(), values }),
        }
    }
    comparison.tell()
}

/// Something that takes steps, and its name.
type Runner = (String, Box<dyn FnMut() -> Result<Step>>);

fn devices() -> Vec<(&'static str, Device)> {
    let mut devices = vec![("flex", Device::flex().autodiff())];
    #[cfg(feature = "libtorch")]
    #[expect(deprecated, reason = "the only way to NVIDIA GPUs that builds from the registry alone")]
    devices.push(("libtorch", Device::libtorch().autodiff()));
    devices.sort_by_key(|(name, _)| *name);
    devices
}

/// What one step took, in seconds.
#[derive(Debug, Clone)]
struct Step {
    loss: f64,
    forward: f64,
    backward: f64,
    optimizer: f64,
    /// Of all threads.
    cpu: f64,
}

impl Step {
    fn wall(&self) -> f64 {
        self.forward + self.backward + self.optimizer
    }
}

struct Ours {
    net: Option<UperNet>,
    optimizer: Optimizer,
    maps: Vec<Tensor<4>>,
    labels: PixelLabels,
    random: ChaCha8Rng,
}

/// The label of each pixel: [batch, side, side].
fn labels() -> Array3<i32> {
    Array3::from_shape_fn((BATCH, SIDE, SIDE), |(image, row, column)| {
        ((row / 20 + column / 30 + image) % CLASSES) as i32
    })
}

/// The values of map `level`: [batch, width, grid, grid].
fn map(level: usize) -> Vec<f32> {
    noise(&format!("map{level}"), BATCH * WIDTH * GRID * GRID).iter().map(|v| 1.7 * v).collect()
}

impl Ours {
    fn new(device: Device) -> Self {
        let maps = [MapLevel { width: WIDTH, stride: 16 }; 4];
        let config = UperNetConfig { dropout: 0.0, ..UperNetConfig::default() };
        let net = UperNet::new(&config, &maps, CLASSES, 0, &device).expect("four maps of one size");
        let shape = [BATCH, WIDTH, GRID, GRID];
        let maps =
            (0..4).map(|level| Tensor::from_data(TensorData::new(map(level), shape), &device)).collect();
        let labels = PixelLabels::new(labels().view(), CLASSES, Some(255), &device).expect("labels in range");
        let random = ChaCha8Rng::seed_from_u64(0);
        Ours { net: Some(net), optimizer: Optimizer::new(Rule::ADAMW), maps, labels, random }
    }

    /// Weights, maps and labels by name.
    fn given(&self) -> Tensors {
        let net = self.net.as_ref().expect("a step gives the network back");
        let mut tensors: Tensors = Vec::new();
        for (name, array) in state(net) {
            tensors.push((name, array.shape().to_vec(), array.iter().copied().collect()));
        }
        for level in 0..4 {
            tensors.push((format!("map{level}"), vec![BATCH, WIDTH, GRID, GRID], map(level)));
        }
        let labels = labels().iter().map(|label| *label as f32).collect();
        tensors.push(("labels".into(), vec![BATCH, SIDE, SIDE], labels));
        tensors
    }

    fn step(&mut self) -> Result<Step> {
        let cpu = cpu_seconds();
        let start = Instant::now();
        let net = self.net.take().context("a step gives the network back")?;
        let logits = net.forward(self.maps.clone(), &mut Pass::Train(&mut self.random))?;
        let loss = net.loss(logits, &self.labels);
        // Waits for devices that run ahead.
        let value = loss.to_data().convert::<f32>();
        let value = value.as_slice::<f32>().ok().and_then(|values| values.first()).copied();
        let value = value.context("a loss is one number")?;
        let forward = start.elapsed();
        let mut gradients = loss.backward();
        drop(loss);
        let backward = start.elapsed() - forward;
        let pace = Pace { learning_rate: 1e-4, momentum: 0.9 };
        self.net = Some(self.optimizer.step(net, &mut gradients, pace));
        let optimizer = start.elapsed() - forward - backward;
        Ok(Step {
            loss: f64::from(value),
            forward: forward.as_secs_f64(),
            backward: backward.as_secs_f64(),
            optimizer: optimizer.as_secs_f64(),
            cpu: cpu_seconds() - cpu,
        })
    }
}

/// benches/peers/upernet.py, which takes a step for every line it is given.
struct Peer {
    process: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts it on a file of weights, maps and labels.
    fn start(python: &str, given: &Path) -> Result<Self> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/upernet.py");
        let mut command = Command::new(python);
        command.arg(script).arg("--given").arg(given);
        command.args(["--threads", &rayon::current_num_threads().to_string()]);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (asks, answers) = (process.stdin.take(), process.stdout.take());
        let (asks, answers) = asks.zip(answers).context("both are piped")?;
        Ok(Peer { process, asks, answers: BufReader::new(answers) })
    }

    fn step(&mut self) -> Result<Step> {
        self.asks.write_all(b"step\n").context("the peer ended")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        let numbers: Vec<f64> = answer.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        let [loss, forward, backward, optimizer, cpu] = numbers[..] else {
            bail!("the peer answered {answer:?}")
        };
        Ok(Step { loss, forward, backward, optimizer, cpu })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// CPU time of this process so far, user and system, where the system tells it; else 0.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name, which may hold anything: state is field 3, user and system time 14 and 15, in 1/100 s.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}
