//! One training step of UPerNet at full size: forward pass, loss, gradients, AdamW.
//!
//! `cargo bench --bench upernet [-- STEPS]`. Where TERRABENCH_PEER_PYTHON names a Python with PyTorch, eager PyTorch
//! takes its steps in turn with ours (benches/peers/upernet.py). Not criterion: a step takes seconds, and taking turns
//! is what makes two programs comparable on a machine that others use as well.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use burn::tensor::{Device, Tensor, TensorData};
use ndarray::Array3;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use terrabench::nn::heads::layers::Pass;
use terrabench::nn::heads::upernet::{MapLevel, UperNet, UperNetConfig};
use terrabench::nn::loss::PixelLabels;
use terrabench::train::optim::{Optimizer, Pace, Rule};

const WIDTH: usize = 768;
const CLASSES: usize = 10;
const BATCH: usize = 2;
const GRID: usize = 14;
const SIDE: usize = 16 * GRID;

fn main() {
    let steps = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(5);
    let threads = rayon::current_num_threads();
    println!(
        "UPerNet training step: maps {BATCH} x {WIDTH} x {GRID} x {GRID}, 512 channels, {threads} threads"
    );

    let mut runners: Vec<(String, Box<dyn FnMut() -> Step>)> = Vec::new();
    for (name, device) in devices() {
        let mut ours = Ours::new(device);
        runners.push((name.to_owned(), Box::new(move || ours.step())));
    }
    if let Some(python) = std::env::var_os("TERRABENCH_PEER_PYTHON") {
        let mut peer = Peer::start(Command::new(python), threads);
        runners.push(("PyTorch, eager".to_owned(), Box::new(move || peer.step())));
    }
    let mut taken: Vec<Vec<Step>> = vec![Vec::new(); runners.len()];
    // The first step of each warms up.
    for step in 0..=steps {
        for ((name, run), taken) in runners.iter_mut().zip(&mut taken) {
            let Step { loss, forward, backward, optimizer, cpu } = run();
            println!(
                "{name:16} step {step}: loss {loss:.4}, forward {forward:.2} s, backward {backward:.2} s, \
                 AdamW {optimizer:.2} s, {cpu:.2} CPU s"
            );
            if step > 0 {
                taken.push(Step { loss, forward, backward, optimizer, cpu });
            }
        }
    }
    println!("medians of {steps} steps:");
    for ((name, _), taken) in runners.iter().zip(&taken) {
        let median = |of: fn(&Step) -> f64| {
            let mut values: Vec<f64> = taken.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
        };
        println!(
            "{name:16} {:.2} s (forward {:.2}, backward {:.2}, AdamW {:.2}), {:.2} CPU s, fastest {:.2} s",
            median(Step::wall),
            median(|step| step.forward),
            median(|step| step.backward),
            median(|step| step.optimizer),
            median(|step| step.cpu),
            taken.iter().map(Step::wall).fold(f64::INFINITY, f64::min),
        );
    }
    if let Some(peak) = peak_memory() {
        println!("peak memory of this process: {peak:.0} MiB");
    }
}

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

impl Ours {
    fn new(device: Device) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(0);
        let maps = [MapLevel { width: WIDTH, stride: 16 }; 4];
        let net = UperNet::new(&UperNetConfig::default(), &maps, CLASSES, 0, &device)
            .expect("four maps of one size");
        let shape = [BATCH, WIDTH, GRID, GRID];
        let mut map = || {
            let values = (0..shape.iter().product()).map(|_| random.random_range(-1.7_f32..1.7)).collect();
            Tensor::from_data(TensorData::new(values, shape), &device)
        };
        let maps = (0..4).map(|_| map()).collect();
        let labels = Array3::from_shape_fn((BATCH, SIDE, SIDE), |_| random.random_range(0..CLASSES as i32));
        let labels = PixelLabels::new(labels.view(), CLASSES, Some(255), &device).expect("labels in range");
        Ours { net: Some(net), optimizer: Optimizer::new(Rule::ADAMW), maps, labels, random }
    }

    fn step(&mut self) -> Step {
        let cpu = cpu_seconds();
        let start = Instant::now();
        let net = self.net.take().expect("a step gives the network back");
        let logits = net.forward(self.maps.clone(), &mut Pass::Train(&mut self.random)).expect("maps fit");
        let loss = net.loss(logits, &self.labels);
        // Waits for devices that run ahead.
        let value = loss.to_data().try_into_vec::<f32>().expect("float32")[0];
        let forward = start.elapsed();
        let mut gradients = loss.backward();
        drop(loss);
        let backward = start.elapsed() - forward;
        let pace = Pace { learning_rate: 1e-4, momentum: 0.9 };
        self.net = Some(self.optimizer.step(net, &mut gradients, pace));
        let optimizer = start.elapsed() - forward - backward;
        Step {
            loss: f64::from(value),
            forward: forward.as_secs_f64(),
            backward: backward.as_secs_f64(),
            optimizer: optimizer.as_secs_f64(),
            cpu: cpu_seconds() - cpu,
        }
    }
}

/// benches/peers/upernet.py, which takes a step for every line it is given.
struct Peer {
    process: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    fn start(mut python: Command, threads: usize) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/upernet.py");
        let sizes = [WIDTH, 512, 256, CLASSES, BATCH, GRID, threads].map(|size| size.to_string());
        let process = python.arg(script).args(sizes).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut process = process.expect("TERRABENCH_PEER_PYTHON runs");
        let (asks, answers) = (process.stdin.take(), process.stdout.take());
        let (asks, answers) = asks.zip(answers).expect("both are piped");
        Peer { process, asks, answers: BufReader::new(answers) }
    }

    fn step(&mut self) -> Step {
        self.asks.write_all(b"step\n").expect("the peer listens");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("the peer answers");
        let numbers: Vec<f64> = answer.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        let [loss, forward, backward, optimizer, cpu] = numbers[..] else {
            panic!("the peer answered {answer:?}");
        };
        Step { loss, forward, backward, optimizer, cpu }
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

/// In MiB, where the system tells it.
fn peak_memory() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
}
