//! Tests of the CPU kernels against the portable ones.

use burn::backend::Flex;
use burn::backend::ops::{ConvOptions, FloatTensorOps, ModuleOps};
use burn::backend::tensor::FloatTensor;
use burn::tensor::TensorData;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{AdamwStep, Kernels, Norm, portable};

type Floats = FloatTensor<Flex>;

fn random<const D: usize>(shape: [usize; D], seed: u64) -> Floats {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let values = (0..shape.iter().product()).map(|_| random.random_range(-1.0_f32..1.0)).collect();
    Floats::from_data(TensorData::new(values, shape))
}

fn values(tensor: Floats) -> Vec<f32> {
    tensor.into_data().try_into_vec().unwrap()
}

#[track_caller]
fn close(a: Floats, b: Floats, tolerance: f32) {
    assert_eq!(a.layout().shape(), b.layout().shape());
    for (a, b) in values(a).into_iter().zip(values(b)) {
        assert!((a - b).abs() <= tolerance * b.abs().max(1.0), "{a} {b}");
    }
}

/// Input and output sizes: single pixels, single lines, odd sides, unchanged, enlarged, enlarged unevenly and reduced.
const SIZES: [([usize; 2], [usize; 2]); 8] = [
    ([1, 1], [1, 1]),
    ([1, 5], [1, 5]),
    ([7, 4], [7, 4]),
    ([6, 6], [6, 6]),
    ([1, 1], [7, 7]),
    ([3, 4], [6, 8]),
    ([2, 5], [7, 6]),
    ([6, 5], [3, 2]),
];

#[test]
fn convolutions_are_those_of_burn() {
    for (case, ([h, w], size)) in SIZES.into_iter().enumerate() {
        let seed = 3 * case as u64;
        let (x, weight) = (random([2, h, w, 5], seed), random([3, 3, 5, 4], seed + 1));
        close(
            Flex::conv3x3(x.clone(), weight.clone(), size),
            portable::conv3x3::<Flex>(x.clone(), weight.clone(), size),
            1e-5,
        );
        let gradient = random([2, size[0], size[1], 4], seed + 2);
        let backward = |wants_x| Flex::conv3x3_backward(x.clone(), weight.clone(), gradient.clone(), wants_x);
        let (for_x, for_weight) = backward(true);
        let (x_expected, weight_expected) =
            portable::conv3x3_backward::<Flex>(x.clone(), weight.clone(), gradient.clone(), true);
        close(for_x.unwrap(), x_expected.unwrap(), 1e-5);
        close(for_weight.clone(), weight_expected, 1e-5);
        let (none, alone) = backward(false);
        assert!(none.is_none());
        assert_eq!(values(alone), values(for_weight));
    }
}

#[test]
fn portable_gradients_are_those_of_burn() {
    for (case, (_, [h, w])) in SIZES.into_iter().enumerate() {
        let seed = 3 * case as u64;
        let (x, weight, gradient) =
            (random([2, h, w, 5], seed), random([3, 3, 5, 4], seed + 1), random([2, h, w, 4], seed + 2));
        let (_, ours) =
            portable::conv3x3_backward::<Flex>(x.clone(), weight.clone(), gradient.clone(), false);
        let first = |map| Flex::float_permute(map, &[0, 3, 1, 2]);
        let options = ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
        let weight = Flex::float_permute(weight, &[3, 2, 0, 1]);
        let burn = Flex::conv2d_weight_backward(first(x), weight, first(gradient), options);
        close(ours, Flex::float_permute(burn, &[2, 3, 1, 0]), 1e-5);
    }
}

#[test]
fn batch_norms_are_those_of_burn() {
    for relu in [false, true] {
        let shape = [2, 15, 11, 6];
        let (x, gradient) = (random(shape, 0), random(shape, 1));
        let (gamma, beta) = (random([6], 2), random([6], 3));
        let norm = Norm { epsilon: 1e-5, relu };
        let (y, mean, variance) = Flex::normalize_batch(x.clone(), gamma.clone(), beta.clone(), norm);
        let (y_expected, mean_expected, variance_expected) =
            portable::batch_norm::<Flex>(x.clone(), gamma.clone(), beta.clone(), norm);
        close(y, y_expected, 1e-5);
        close(mean.clone(), mean_expected, 1e-6);
        close(variance.clone(), variance_expected, 1e-6);
        let (a, b, c) = Flex::normalize_batch_backward(
            x.clone(),
            gamma.clone(),
            beta.clone(),
            mean.clone(),
            variance.clone(),
            norm,
            gradient.clone(),
        );
        let (a_expected, b_expected, c_expected) =
            portable::batch_norm_backward::<Flex>(x, gamma, beta, mean, variance, norm, gradient);
        close(a, a_expected, 1e-5);
        close(b, b_expected, 1e-5);
        close(c, c_expected, 1e-5);
    }
}

#[test]
fn a_step_is_the_same_and_in_place() {
    let step = AdamwStep { beta1: 0.9, beta2: 0.999, keep: 0.99, rate: 0.1, root: 0.03, epsilon: 1e-8 };
    let tensors = || [random([700], 0), random([700], 1), random([700], 2)];
    let second = || Floats::from_data(TensorData::new(vec![0.25_f32; 700], [700]));
    let [parameter, gradient, first] = tensors();
    let place = parameter.storage::<f32>().as_ptr();
    let (a, b, c) = Flex::adamw(parameter, gradient, first, second(), step);
    assert_eq!(a.storage::<f32>().as_ptr(), place);
    let [parameter, gradient, first] = tensors();
    let (d, e, f) = portable::adamw::<Flex>(parameter, gradient, first, second(), step);
    close(a, d, 1e-6);
    close(b, e, 1e-6);
    close(c, f, 1e-6);
}

#[test]
fn numbers_do_not_depend_on_threads() {
    let run = |threads| {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
            let (x, weight) = (random([2, 30, 30, 64], 0), random([3, 3, 64, 64], 1));
            let mut numbers = Vec::new();
            for size in [[30, 30], [50, 50]] {
                let y = Flex::conv3x3(x.clone(), weight.clone(), size);
                let (y, mean, variance) = Flex::normalize_batch(
                    y,
                    random([64], 2),
                    random([64], 3),
                    Norm { epsilon: 1e-5, relu: true },
                );
                let (for_x, for_weight) = Flex::conv3x3_backward(x.clone(), weight.clone(), y.clone(), true);
                numbers.extend([y, mean, variance, for_x.unwrap(), for_weight].map(values));
            }
            numbers
        })
    };
    assert_eq!(run(1), run(2));
    assert_eq!(run(1), run(3));
}
