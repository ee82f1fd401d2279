//! L-BFGS: minimises a smooth function from its values and gradients [Nocedal & Wright, Numerical Optimization, 2nd
//! edition: algorithms 7.4 and 7.5 for the direction, 3.5 and 3.6 for the line search].

use std::collections::VecDeque;

use ndarray::Array1;

use crate::config::SolverConfig;

/// Constants of the strong Wolfe conditions: the least share of the slope that a step must gain, and the largest share of
/// it that may remain.
const DECREASE: f64 = 1e-4;
const CURVATURE: f64 = 0.9;
/// Maximum number of evaluations in each of the two phases of a line search.
const TRIALS: usize = 30;

/// Result of a minimisation.
#[derive(Debug, Clone, PartialEq)]
pub struct Minimum {
    /// The point where the minimisation ended.
    pub point: Array1<f64>,
    /// The objective's value there.
    pub value: f64,
    /// Number of iterations, each of which ends with a step.
    pub iterations: usize,
    /// Whether every component of the gradient is within the tolerance. If not, the iterations ran out, or rounding left no
    /// descent direction.
    pub converged: bool,
}

/// A point with the objective's value and gradient there.
#[derive(Debug, Clone)]
struct Iterate {
    point: Array1<f64>,
    value: f64,
    gradient: Array1<f64>,
}

/// Minimises `objective`, which returns its value and gradient at a point, beginning at `start`.
pub fn minimize(
    mut objective: impl FnMut(&Array1<f64>) -> (f64, Array1<f64>),
    start: Array1<f64>,
    solver: SolverConfig,
) -> Minimum {
    let mut visit = |point: Array1<f64>| {
        let (value, gradient) = objective(&point);
        Iterate { point, value, gradient }
    };
    let mut here = visit(start);
    let mut history = History::new(solver.history);
    let mut iterations = 0;
    loop {
        let converged = here.gradient.iter().all(|g| g.abs() <= solver.tolerance);
        if converged || iterations == solver.max_iterations {
            return Minimum { point: here.point, value: here.value, iterations, converged };
        }
        let direction = history.direction(&here.gradient);
        // Without a history the scale is unknown: limit the length of the first step to 1.
        let length =
            if history.is_empty() { here.gradient.mapv(f64::abs).sum().recip().min(1.0) } else { 1.0 };
        match line_search(&mut visit, &here, &direction, length) {
            Some(there) => {
                history.push(&there.point - &here.point, &there.gradient - &here.gradient);
                here = there;
                iterations += 1;
            }
            None if history.is_empty() => {
                return Minimum { point: here.point, value: here.value, iterations, converged };
            }
            None => history.clear(),
        }
    }
}

/// The latest steps and the gradient changes they caused: together, an estimate of the inverse Hessian.
struct History {
    limit: usize,
    /// Step, change of the gradient, and their dot product; oldest first.
    pairs: VecDeque<(Array1<f64>, Array1<f64>, f64)>,
}

impl History {
    fn new(limit: usize) -> Self {
        Self { limit, pairs: VecDeque::with_capacity(limit) }
    }

    fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    fn clear(&mut self) {
        self.pairs.clear();
    }

    fn push(&mut self, step: Array1<f64>, change: Array1<f64>) {
        let product = step.dot(&change);
        // Only pairs of positive curvature keep the estimate positive definite.
        if product > f64::EPSILON * change.dot(&change) {
            if self.pairs.len() == self.limit {
                self.pairs.pop_front();
            }
            self.pairs.push_back((step, change, product));
        }
    }

    /// Returns minus the estimated inverse Hessian times the gradient.
    fn direction(&self, gradient: &Array1<f64>) -> Array1<f64> {
        let mut direction = -gradient;
        let mut shares = Vec::with_capacity(self.pairs.len());
        for (step, change, product) in self.pairs.iter().rev() {
            let share = step.dot(&direction) / product;
            direction.scaled_add(-share, change);
            shares.push(share);
        }
        if let Some((_, change, product)) = self.pairs.back() {
            direction *= product / change.dot(change);
        }
        for ((step, change, product), share) in self.pairs.iter().zip(shares.into_iter().rev()) {
            direction.scaled_add(share - change.dot(&direction) / product, step);
        }
        direction
    }
}

/// A point on the search line: step length and slope.
struct Trial {
    length: f64,
    slope: f64,
    place: Iterate,
}

/// Finds a point along `direction` that satisfies the strong Wolfe conditions, trying `length` first. If rounding prevents
/// that, returns any lower point.
fn line_search(
    visit: &mut impl FnMut(Array1<f64>) -> Iterate,
    here: &Iterate,
    direction: &Array1<f64>,
    length: f64,
) -> Option<Iterate> {
    let slope = here.gradient.dot(direction);
    if slope >= 0.0 || !slope.is_finite() {
        return None;
    }
    let mut at = |length: f64| {
        let mut point = here.point.clone();
        point.scaled_add(length, direction);
        let place = visit(point);
        Trial { length, slope: place.gradient.dot(direction), place }
    };
    // Near the minimum the decrease is smaller than the value's rounding.
    let rounding = 4.0 * f64::EPSILON * here.value.abs();
    let low_enough = |t: &Trial| t.place.value <= here.value + DECREASE * t.length * slope + rounding;
    let flat_enough = |t: &Trial| t.slope.abs() <= -CURVATURE * slope;

    // Lengthen the step until a minimum lies between two trials.
    let mut low = Trial { length: 0.0, slope, place: here.clone() };
    let mut next = length;
    let mut high = None;
    for _ in 0..TRIALS {
        let trial = at(next);
        if !low_enough(&trial) || (low.length > 0.0 && trial.place.value >= low.place.value) {
            high = Some(trial);
            break;
        }
        if flat_enough(&trial) {
            return Some(trial.place);
        }
        if trial.slope >= 0.0 {
            high = Some(std::mem::replace(&mut low, trial));
            break;
        }
        next = 2.0 * trial.length;
        low = trial;
    }
    // Narrow the interval; `low` is always the lowest point so far with sufficient decrease.
    if let Some(mut high) = high {
        for _ in 0..TRIALS {
            let trial = at(between(&low, &high));
            if !low_enough(&trial) || trial.place.value >= low.place.value + rounding {
                high = trial;
                continue;
            }
            if flat_enough(&trial) {
                return Some(trial.place);
            }
            if trial.slope * (high.length - low.length) >= 0.0 {
                high = low;
            }
            low = trial;
        }
    }
    (low.place.value < here.value).then_some(low.place)
}

/// Returns the minimiser of the cubic through both trials' values and slopes, kept away from the ends.
fn between(a: &Trial, b: &Trial) -> f64 {
    let width = b.length - a.length;
    let d1 = a.slope + b.slope - 3.0 * (b.place.value - a.place.value) / width;
    let d2 = (d1 * d1 - a.slope * b.slope).sqrt() * width.signum();
    let share = 1.0 - (b.slope + d2 - d1) / (b.slope - a.slope + 2.0 * d2);
    a.length + width * if share.is_finite() { share.clamp(0.1, 0.9) } else { 0.5 }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn finds_the_minimum_of_rosenbrocks_valley() {
        let rosenbrock = |p: &Array1<f64>| {
            let (x, y) = (p[0], p[1]);
            let bend = y - x * x;
            let gradient = array![-400.0 * x * bend - 2.0 * (1.0 - x), 200.0 * bend];
            (100.0 * bend * bend + (1.0 - x) * (1.0 - x), gradient)
        };
        let solver = SolverConfig::converged(10, 1e-9, 200);
        let minimum = minimize(rosenbrock, array![-1.2, 1.0], solver);
        assert!(minimum.converged, "{minimum:?}");
        assert!(minimum.iterations < 60, "{minimum:?}");
        assert!((&minimum.point - 1.0).iter().all(|d| d.abs() < 1e-8), "{minimum:?}");
    }

    #[test]
    fn stops_when_the_iterations_are_used_up() {
        let quartic = |p: &Array1<f64>| (p.mapv(|x| x.powi(4)).sum(), p.mapv(|x| 4.0 * x.powi(3)));
        let solver = SolverConfig::converged(5, 1e-12, 3);
        let minimum = minimize(quartic, array![3.0, -2.0, 1.0], solver);
        assert!(!minimum.converged);
        assert_eq!(minimum.iterations, 3);
        assert!(minimum.value < 98.0);
    }
}
