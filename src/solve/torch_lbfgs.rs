//! L-BFGS as PyTorch runs it, in float32 and with its stops [torch.optim.LBFGS of torch 2.12 with `strong_wolfe`; its line
//! search: Schmidt's minFunc]. It may stop far from the minimum: where the loss no longer changes in float32, or steps are
//! small. Scores that were measured with it depend on that.

use std::collections::VecDeque;

use crate::config::SolverConfig;

/// Constants of the strong Wolfe conditions.
const DECREASE: f64 = 1e-4;
const CURVATURE: f64 = 0.9;
/// A step and a change of the gradient whose product is not larger are forgotten.
const SMALLEST_PRODUCT: f32 = 1e-10;
/// The line search ends when its bracket moves no component of the point further.
const SMALLEST_BRACKET: f64 = 1e-9;

/// Result of a minimisation.
#[derive(Debug, Clone, PartialEq)]
pub struct TorchMinimum {
    /// The point where the minimisation ended.
    pub point: Vec<f32>,
    /// Number of iterations, the one that was stopped included.
    pub iterations: usize,
    /// The value at each evaluation.
    pub values: Vec<f32>,
    /// Whether every component of the gradient is within the tolerance.
    pub converged: bool,
}

/// Minimises `objective`, which returns its value and gradient at a point, beginning at `start`.
///
/// `tolerance` of the solver is the limit of all stops: the largest component of the gradient, the slope along a direction,
/// the largest component of a step, and the change of the value. At most 5/4 of its iterations are evaluations.
pub fn minimize(
    mut objective: impl FnMut(&[f32]) -> (f32, Vec<f32>),
    start: Vec<f32>,
    solver: SolverConfig,
) -> TorchMinimum {
    let most_evaluations = solver.max_iterations + solver.max_iterations / 4;
    let mut values = Vec::new();
    let mut evaluate = |point: &[f32]| {
        let (value, gradient) = objective(point);
        values.push(value);
        (f64::from(value), gradient)
    };
    let mut point = start;
    let (mut value, mut gradient) = evaluate(&point);
    let mut evaluations = 1;
    let mut pairs = Pairs::new(solver.history);
    let mut previous: Option<(Vec<f32>, Vec<f32>)> = None;
    let mut iterations = 0;
    let mut converged = largest(&gradient) <= solver.tolerance;
    while !converged && iterations < solver.max_iterations {
        iterations += 1;
        if let Some((step, before)) = previous.take() {
            let change = gradient.iter().zip(&before).map(|(now, before)| now - before).collect();
            pairs.push(step, change);
        }
        let direction = pairs.direction(&gradient);
        let slope = dot(&gradient, &direction);
        // The scale of the first direction is unknown: limit the length of the first step to 1.
        let length = match iterations {
            1 => (1.0 / gradient.iter().map(|g| f64::from(g.abs())).sum::<f64>()).min(1.0),
            _ => 1.0,
        };
        // Also stops where the slope is not a number.
        let goes_down = f64::from(slope) <= -solver.tolerance;
        if !goes_down {
            break;
        }
        let before = value;
        let start = Trial { length: 0.0, value, slope: f64::from(slope), gradient: gradient.clone() };
        let line = Line { point: &point, direction: &direction, evaluate: &mut evaluate };
        let (found, used) = search(line, start, length, most_evaluations.saturating_sub(evaluations));
        evaluations += used;
        let step: Vec<f32> = direction.iter().map(|d| d * found.length as f32).collect();
        point.iter_mut().zip(&step).for_each(|(x, step)| *x += step);
        previous = Some((step, std::mem::replace(&mut gradient, found.gradient)));
        value = found.value;
        converged = largest(&gradient) <= solver.tolerance;
        let moved = previous.as_ref().map_or(0.0, |(step, _)| largest(step));
        let is_stuck = moved <= solver.tolerance || (value - before).abs() < solver.tolerance;
        if evaluations >= most_evaluations || is_stuck || !value.is_finite() {
            break;
        }
    }
    TorchMinimum { point, iterations, values, converged }
}

fn largest(numbers: &[f32]) -> f64 {
    let larger =
        |a: f64, x: &f32| if a.is_nan() || x.is_nan() { f64::NAN } else { a.max(f64::from(x.abs())) };
    numbers.iter().fold(0.0, larger)
}

/// In float32, summed in float64.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() as f32
}

fn add(to: &mut [f32], factor: f32, numbers: &[f32]) {
    to.iter_mut().zip(numbers).for_each(|(to, x)| *to += factor * x);
}

/// The latest steps and changes of the gradient, oldest first.
struct Pairs {
    limit: usize,
    /// Step, change, and the inverse of their product.
    pairs: VecDeque<(Vec<f32>, Vec<f32>, f32)>,
    /// Scale of the first estimate of the inverse Hessian.
    scale: f32,
}

impl Pairs {
    fn new(limit: usize) -> Self {
        Pairs { limit, pairs: VecDeque::with_capacity(limit), scale: 1.0 }
    }

    fn push(&mut self, step: Vec<f32>, change: Vec<f32>) {
        let product = dot(&change, &step);
        if product > SMALLEST_PRODUCT {
            self.scale = product / dot(&change, &change);
            if self.pairs.len() == self.limit {
                self.pairs.pop_front();
            }
            self.pairs.push_back((step, change, 1.0 / product));
        }
    }

    /// Returns minus the estimated inverse Hessian times the gradient [Nocedal & Wright, algorithm 7.4].
    fn direction(&self, gradient: &[f32]) -> Vec<f32> {
        let mut direction: Vec<f32> = gradient.iter().map(|g| -g).collect();
        let mut shares = Vec::with_capacity(self.pairs.len());
        for (step, change, inverse) in self.pairs.iter().rev() {
            let share = dot(step, &direction) * inverse;
            add(&mut direction, -share, change);
            shares.push(share);
        }
        direction.iter_mut().for_each(|d| *d *= self.scale);
        for ((step, change, inverse), share) in self.pairs.iter().zip(shares.into_iter().rev()) {
            let other = dot(change, &direction) * inverse;
            add(&mut direction, share - other, step);
        }
        direction
    }
}

/// A point on the search line.
#[derive(Clone)]
struct Trial {
    /// Its distance from the start, in directions.
    length: f64,
    value: f64,
    /// Of the value along the direction.
    slope: f64,
    gradient: Vec<f32>,
}

/// Where a search goes along.
struct Line<'a, E> {
    point: &'a [f32],
    direction: &'a [f32],
    evaluate: &'a mut E,
}

impl<E: FnMut(&[f32]) -> (f64, Vec<f32>)> Line<'_, E> {
    fn at(&mut self, length: f64) -> Trial {
        let mut point = self.point.to_vec();
        add(&mut point, length as f32, self.direction);
        let (value, gradient) = (self.evaluate)(&point);
        Trial { length, value, slope: f64::from(dot(&gradient, self.direction)), gradient }
    }
}

/// Finds a point that satisfies the strong Wolfe conditions, trying `length` first. If the trials run out or the bracket
/// becomes too narrow, returns its lower end. Also returns the number of evaluations.
fn search<E: FnMut(&[f32]) -> (f64, Vec<f32>)>(
    mut line: Line<'_, E>,
    start: Trial,
    length: f64,
    most_trials: usize,
) -> (Trial, usize) {
    let low_enough = |trial: &Trial| trial.value <= start.value + DECREASE * trial.length * start.slope;
    let flat_enough = |trial: &Trial| trial.slope.abs() <= -CURVATURE * start.slope;
    let mut trial = line.at(length);
    let mut evaluations = 1;
    let mut trials = 0;
    let mut previous = start.clone();
    // Widen the step until a minimum lies between two trials.
    let mut bracket = loop {
        if trials >= most_trials {
            break [start.clone(), trial];
        }
        let is_higher = trials > 1 && trial.value >= previous.value;
        if !low_enough(&trial) || is_higher {
            break [previous, trial];
        }
        if flat_enough(&trial) {
            return (trial, evaluations);
        }
        if trial.slope >= 0.0 {
            break [previous, trial];
        }
        let (least, most) = (trial.length + 0.01 * (trial.length - previous.length), 10.0 * trial.length);
        let next = minimum_of_cubic(&previous, &trial, least, most);
        previous = std::mem::replace(&mut trial, line.at(next));
        evaluations += 1;
        trials += 1;
    };
    // Narrow it.
    let reach = largest(line.direction);
    let mut low = usize::from(bracket[0].value > bracket[1].value);
    let mut was_little = false;
    while trials < most_trials {
        let (from, to) = ends(&bracket);
        if (to - from) * reach < SMALLEST_BRACKET {
            break;
        }
        let mut next = minimum_of_cubic(&bracket[0], &bracket[1], from, to);
        let margin = 0.1 * (to - from);
        let is_little = (to - next).min(next - from) < margin;
        if is_little && (was_little || next >= to || next <= from) {
            next = if (next - to).abs() < (next - from).abs() { to - margin } else { from + margin };
            was_little = false;
        } else {
            was_little = is_little;
        }
        let trial = line.at(next);
        evaluations += 1;
        trials += 1;
        let high = 1 - low;
        if !low_enough(&trial) || trial.value >= bracket[low].value {
            bracket[high] = trial;
            low = usize::from(bracket[0].value > bracket[1].value);
            continue;
        }
        if flat_enough(&trial) {
            return (trial, evaluations);
        }
        if trial.slope * (bracket[high].length - bracket[low].length) >= 0.0 {
            bracket[high] = bracket[low].clone();
        }
        bracket[low] = trial;
    }
    let [first, second] = bracket;
    (if low == 0 { first } else { second }, evaluations)
}

fn ends([a, b]: &[Trial; 2]) -> (f64, f64) {
    (a.length.min(b.length), a.length.max(b.length))
}

/// The minimiser of the cubic through both trials' values and slopes, kept between the bounds; their middle if it has none.
fn minimum_of_cubic(a: &Trial, b: &Trial, least: f64, most: f64) -> f64 {
    let (a, b) = if a.length <= b.length { (a, b) } else { (b, a) };
    let d1 = a.slope + b.slope - 3.0 * (a.value - b.value) / (a.length - b.length);
    let square = d1 * d1 - a.slope * b.slope;
    if square >= 0.0 {
        let d2 = square.sqrt();
        let share = (b.slope + d2 - d1) / (b.slope - a.slope + 2.0 * d2);
        let place = b.length - (b.length - a.length) * share;
        // NaN becomes the lower bound.
        place.max(least).min(most)
    } else {
        f64::midpoint(least, most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quadratic(point: &[f32]) -> (f32, Vec<f32>) {
        let scales = [1.0f32, 10.0, 0.1];
        let value = point.iter().zip(scales).map(|(x, s)| 0.5 * s * (x - 1.0).powi(2)).sum();
        (value, point.iter().zip(scales).map(|(x, s)| s * (x - 1.0)).collect())
    }

    #[test]
    fn finds_the_minimum_of_a_quadratic() {
        let solver = SolverConfig::converged(10, 1e-7, 100);
        let found = minimize(quadratic, vec![5.0, -3.0, 20.0], solver);
        assert!(found.point.iter().all(|x| (x - 1.0).abs() < 1e-3), "{found:?}");
        assert!(found.iterations < 30, "{found:?}");
    }

    #[test]
    fn stops_when_iterations_or_evaluations_are_used_up() {
        let found = minimize(quadratic, vec![5.0, -3.0, 20.0], SolverConfig::converged(10, 1e-7, 2));
        // Two iterations allow two evaluations, which the first one may use up.
        assert!((1..=2).contains(&found.iterations) && !found.converged, "{found:?}");
        // Slopes that say nothing of the values: every search narrows its bracket until no evaluations are left.
        let wrong = |point: &[f32]| (point[0].powi(2), vec![-1.0]);
        let found = minimize(wrong, vec![1.0], SolverConfig::converged(10, 1e-7, 8));
        assert!(found.values.len() <= 8 + 8 / 4 + 1, "{found:?}");
    }

    #[test]
    fn a_gradient_that_is_not_a_number_ends_it() {
        let found =
            minimize(|_| (f32::NAN, vec![f32::NAN]), vec![0.0], SolverConfig::converged(10, 1e-7, 50));
        assert!(!found.converged && found.iterations <= 1, "{found:?}");
    }
}
