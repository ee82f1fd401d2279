//! Compares the optimisers with PyTorch 2.9.0, with a learning rate and a momentum that change at every step.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use terrabench::train::optim::{Optimizer, Pace, Rule};

#[derive(Module, Debug)]
struct Point {
    at: Param<Tensor<1>>,
    /// A parameter that never has a gradient.
    apart: Param<Tensor<1>>,
}

/// Learning rate and momentum of each step, as in a one-cycle schedule. The first rate is 0, as after a warm-up.
const PACES: [(f64, f64); 5] = [(0.0, 0.95), (0.2, 0.9), (0.5, 0.85), (0.1, 0.875), (0.01, 0.95)];

fn device() -> Device {
    Device::flex().autodiff()
}

fn point() -> Point {
    let param = |values| Param::from_tensor(Tensor::from_floats(values, &device()));
    Point { at: param([1.0, -2.0, 3.0, 0.0]), apart: param([1.0; 4]) }
}

fn values(x: &Param<Tensor<1>>) -> Vec<f32> {
    x.val().to_data().try_into_vec().unwrap()
}

/// Minimises x² + 2y² + z²/2 + w² + z - 3w and returns the points visited.
fn descend(mut point: Point, optimizer: &mut Optimizer, paces: &[(f64, f64)]) -> (Point, Vec<Vec<f32>>) {
    let squares = Tensor::from_floats([1.0, 2.0, 0.5, 1.0], &device());
    let slopes = Tensor::from_floats([0.0, 0.0, 1.0, -3.0], &device());
    let mut places = Vec::new();
    for (learning_rate, momentum) in paces {
        let at = point.at.val();
        let height = (at.clone() * at.clone() * squares.clone() + at * slopes.clone()).sum();
        let pace = Pace { learning_rate: *learning_rate, momentum: *momentum };
        point = optimizer.step(point, &mut height.backward(), pace);
        places.push(values(&point.at));
    }
    (point, places)
}

fn check(rule: Rule, expected: [[f32; 4]; 5]) {
    let (end, places) = descend(point(), &mut Optimizer::new(rule), &PACES);
    for (step, (found, expected)) in places.iter().zip(expected).enumerate() {
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() <= 2e-6, "step {step}: {found}, expected {expected}");
        }
    }
    assert_eq!(values(&end.apart), [1.0; 4], "no gradient, no step");

    // Repeats the descent in two halves; the second resumes from the first one's state.
    let mut first = Optimizer::new(rule);
    let (middle, _) = descend(point(), &mut first, &PACES[..3]);
    let mut second = Optimizer::resume(rule, &first.state(), &Device::flex()).unwrap();
    let (_, rest) = descend(middle, &mut second, &PACES[3..]);
    assert_eq!(rest, places[3..]);
}

#[test]
fn sgd_with_changing_momentum_matches_pytorch() {
    check(
        Rule::Sgd { weight_decay: 1e-2 },
        [
            [1.0, -2.0, 3.0, 0.0],
            [0.236_200_03, 1.047_600_3, 1.468_599_9, 1.14],
            [-1.624_255_9, 5.423_312, -3.027_268_4, 3.916_8],
            [-1.623_360_3, 4.014_313_7, -3.608_291, 3.915_463_2],
            [-1.590_645_7, 3.719_484_8, -3.637_044_7, 3.866_635_3],
        ],
    );
}

#[test]
fn adamw_with_changing_beta1_matches_pytorch() {
    check(
        Rule::ADAMW,
        [
            [1.0, -2.0, 3.0, 0.0],
            [0.845_368_44, -1.843_368_5, 2.841_368_4, 0.152_631_58],
            [0.500_509, -1.486_465_8, 2.476_222_5, 0.497_479_26],
            [0.421_021_7, -1.400_668_4, 2.387_417_8, 0.579_863_55],
            [0.404_895_3, -1.383_458_1, 2.369_838, 0.596_644_76],
        ],
    );
}

#[test]
fn foreign_entries_in_a_state_are_errors() {
    let state = [("at.2".to_owned(), ndarray::ArrayD::zeros(vec![4]))].into();
    let error = Optimizer::resume(Rule::ADAMW, &state, &Device::flex()).unwrap_err();
    assert!(error.to_string().contains("`at.2` is not part of an optimiser's state"));
}
