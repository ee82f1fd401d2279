//! The operations that `protocol::kernels` has kernels for, at the sizes of a UPerNet step, beside Burn's own.
//!
//! `cargo bench --bench kernels`: forward and backward in seconds of CPU time (all threads together, so that a busy
//! machine does not count), medians of three turns.

use burn::tensor::module::{batch_norm_train, conv_transpose2d, conv2d, interpolate};
use burn::tensor::ops::{ConvOptions, ConvTransposeOptions, InterpolateMode, InterpolateOptions};
use burn::tensor::{Device, Distribution, Tensor, activation::relu};
use terrabench::nn::kernels::{self, AdamwStep, Norm};

const NORM: Norm = Norm { epsilon: 1e-5, relu: true };

const TURNS: usize = 3;

fn main() {
    let device = Device::flex().autodiff();
    println!("{:44} {:>22} {:>22}", "CPU s, forward + backward", "here", "Burn's own");

    let conv = |x: Tensor<4>, weight: Tensor<4>| {
        conv2d(x, weight, None, ConvOptions::new([1, 1], [1, 1], [1, 1], 1))
    };
    let enlarge = |x: Tensor<4>| {
        let options = InterpolateOptions::new(InterpolateMode::Bilinear).with_align_corners(false);
        interpolate(x, options.with_output_size([56, 56]))
    };
    compare(
        "3x3 convolution 512 -> 512, 56x56",
        &device,
        ([2, 56, 56, 512], [3, 3, 512, 512], |x, w| kernels::conv3x3(x, w, [56, 56])),
        ([2, 512, 56, 56], [512, 512, 3, 3], conv),
    );
    compare(
        "the same of a map enlarged from 28x28",
        &device,
        ([2, 28, 28, 512], [3, 3, 512, 512], |x, w| kernels::conv3x3(x, w, [56, 56])),
        ([2, 512, 28, 28], [512, 512, 3, 3], |x, w| conv(enlarge(x), w)),
    );
    compare(
        "transposed convolution 768 -> 768, 28x28",
        &device,
        ([2, 28, 28, 768], [768, 2, 2, 768], |x, w| {
            let y = x.reshape([2 * 28 * 28, 768]).matmul(w.reshape([768, 4 * 768]));
            y.reshape([2, 28, 28, 2, 2, 768]).permute([0, 1, 3, 2, 4, 5]).reshape([2, 56, 56, 768])
        }),
        ([2, 768, 28, 28], [768, 768, 2, 2], |x, w| {
            conv_transpose2d(x, w, None, ConvTransposeOptions::new([2, 2], [0, 0], [0, 0], [1, 1], 1))
        }),
    );
    compare(
        "batch norm and ReLU of 512 channels, 56x56",
        &device,
        ([2, 56, 56, 512], [512], |x, w: Tensor<1>| kernels::batch_norm(x, w.clone(), w, NORM).0),
        ([2, 512, 56, 56], [512], |x, w: Tensor<1>| relu(batch_norm_train(x, w.clone(), w, 1e-5).output)),
    );

    let plain = Device::flex();
    let random = || Tensor::<1>::random([9 << 20], Distribution::Uniform(0.0, 1.0), &plain);
    let step = AdamwStep { beta1: 0.9, beta2: 0.999, keep: 0.99, rate: 0.1, root: 0.03, epsilon: 1e-8 };
    let here = median(|| {
        let (p, g, m, v) = (random(), random(), random(), random());
        seconds(|| kernels::adamw(p, g, [m, v], step)).0
    });
    let burn = median(|| {
        let (p, g, m, v) = (random(), random(), random(), random());
        seconds(|| {
            let m = m * 0.9 + g.clone() * 0.1;
            let v = v * 0.999 + g.square() * 0.001;
            let delta = (m.clone() / 0.1) / ((v.clone() / 0.001).sqrt() + 1e-8);
            (p * 0.99 - delta * 0.01, m, v)
        })
        .0
    });
    println!("{:44} {here:>22.3} {burn:>22.3}", "AdamW, 9.4 M parameters");
}

/// A shape of maps, a shape of weights and what is made of them.
type Operation<const D: usize, F> = ([usize; 4], [usize; D], F);

fn compare<const D: usize, A, B>(name: &str, device: &Device, here: Operation<D, A>, burn: Operation<D, B>)
where
    A: Fn(Tensor<4>, Tensor<D>) -> Tensor<4>,
    B: Fn(Tensor<4>, Tensor<D>) -> Tensor<4>,
{
    let mut times = [vec![], vec![]];
    for _ in 0..TURNS {
        times[0].push(both(device, here.0, here.1, &here.2));
        times[1].push(both(device, burn.0, burn.1, &burn.2));
    }
    let [here, burn] = times.map(|times| {
        let of = |pick: fn(&(f64, f64)) -> f64| middle(times.iter().map(pick).collect());
        format!("{:.3} + {:.3}", of(|t| t.0), of(|t| t.1))
    });
    println!("{name:44} {here:>22} {burn:>22}");
}

fn both<const D: usize>(
    device: &Device,
    maps: [usize; 4],
    weights: [usize; D],
    operation: &impl Fn(Tensor<4>, Tensor<D>) -> Tensor<4>,
) -> (f64, f64) {
    let x = Tensor::<4>::random(maps, Distribution::Uniform(-1.0, 1.0), device).require_grad();
    let w = Tensor::<D>::random(weights, Distribution::Uniform(-0.1, 0.1), device).require_grad();
    let (forward, y) = seconds(|| operation(x.clone(), w.clone()));
    // A sum's gradient is all ones and cheap; the square makes it as irregular as a loss's.
    let loss = (y.clone() * y).sum();
    let (backward, gradients) = seconds(|| loss.backward());
    assert!(w.grad(&gradients).is_some());
    (forward, backward)
}

fn seconds<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let start = cpu_seconds();
    let made = work();
    (cpu_seconds() - start, made)
}

fn median(mut time: impl FnMut() -> f64) -> f64 {
    middle((0..TURNS).map(|_| time()).collect())
}

fn middle(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// CPU time of all threads of this process so far, where the system tells it.
fn cpu_seconds() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let nanoseconds = tasks.filter_map(|task| {
        let stat = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        stat.split_whitespace().next()?.parse::<f64>().ok()
    });
    nanoseconds.sum::<f64>() / 1e9
}
