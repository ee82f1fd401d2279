//! The same regression by Newton's method, for features on which L-BFGS stalls: numbers of the size of raw pixels, strongly
//! correlated with each other, and classes that a plane separates.
//!
//! Features are centred, scaled and, if there are more of them than samples, expressed in a basis of the samples' space. The
//! penalty is that of the original coefficients, so that the minimum is the same. Each step solves the Newton equations by
//! conjugate gradients, preconditioned with the Hessian itself where it is small, with one block per row of coefficients, or with
//! one block that all rows share [Nocedal & Wright, Numerical Optimization, 2nd edition: algorithm 7.1 with preconditioning].

use ndarray::linalg::general_mat_mul;
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, Zip, concatenate, s};
use rayon::prelude::*;

use super::{Labels, ROWS_AT_A_TIME};
use crate::config::SolverConfig;
use crate::solve::cholesky::Cholesky;

/// Up to so many coefficients the whole Hessian is factorised.
const MOST_WHOLE: usize = 800;
/// Up to so many multiplications for the blocks of a Hessian are worth more than further steps of conjugate gradients.
const MOST_MULTIPLICATIONS: usize = 5_000_000_000;
/// Steps of conjugate gradients per Newton step.
const MOST_PRODUCTS: usize = 500;
/// The share of the predicted decrease that a step must gain.
const DECREASE: f64 = 1e-4;
/// How far rounding may lift the loss, as a share of it.
const ROUNDING: f64 = 1e-11;
/// Halvings of a step at most.
const HALVINGS: usize = 40;
/// Directions of the samples' space that are shorter than this share of the longest sample are rounding.
const SHORTEST: f64 = 1e-12;

/// Training features [n, d] as the solver takes them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scaled {
    /// [n, p]: centred and scaled features, and a column of ones for the intercepts.
    x: Array2<f64>,
    /// [d]
    mean: Array1<f64>,
    /// Orthonormal columns [d, p - 1] that span the centred samples; `None` if the features themselves do.
    basis: Option<Array2<f64>>,
    /// [p - 1]: by what a centred feature is divided.
    deviation: Array1<f64>,
}

impl Scaled {
    /// Centres and scales features [n, d], n above 0.
    pub(super) fn new(features: ArrayView2<f64>) -> Self {
        let (n, d) = features.dim();
        let mean = features.mean_axis(Axis(0)).unwrap_or_else(|| Array1::zeros(d));
        let centred = &features - &mean;
        let basis = (d >= n).then(|| span(centred.view()));
        let reduced = match &basis {
            Some(basis) => centred.dot(basis),
            None => centred,
        };
        let deviation = reduced.mapv(|x| x * x).mean_axis(Axis(0)).unwrap_or_default();
        let deviation = deviation.mapv(|square| if square > 0.0 { square.sqrt() } else { 1.0 });
        let x = concatenate![Axis(1), reduced / &deviation, Array2::ones((n, 1))];
        Scaled { x, mean, basis, deviation }
    }

    /// Coefficients [rows, p] of the scaled features from coefficients [rows, d] and intercepts [rows].
    fn scaled(&self, coefficients: ArrayView2<f64>, intercepts: ArrayView1<f64>) -> Array2<f64> {
        let intercepts = &intercepts + &coefficients.dot(&self.mean);
        let reduced = match &self.basis {
            Some(basis) => coefficients.dot(basis),
            None => coefficients.to_owned(),
        };
        concatenate![Axis(1), reduced * &self.deviation, intercepts.insert_axis(Axis(1))]
    }

    /// The opposite of [`Scaled::scaled`].
    fn original(&self, point: &Array2<f64>) -> (Array2<f64>, Array1<f64>) {
        let last = point.ncols() - 1;
        let reduced = &point.slice(s![.., ..last]) / &self.deviation;
        let coefficients = match &self.basis {
            Some(basis) => reduced.dot(&basis.t()),
            None => reduced,
        };
        let intercepts = &point.column(last) - &coefficients.dot(&self.mean);
        (coefficients, intercepts)
    }
}

/// Returns orthonormal columns [d, r] that span the rows of `samples` [n, d], by Gram-Schmidt, twice for precision.
fn span(samples: ArrayView2<f64>) -> Array2<f64> {
    let (n, d) = samples.dim();
    let mut basis = Array2::zeros((n, d));
    let longest = samples.outer_iter().map(|row| row.dot(&row).sqrt()).fold(0.0, f64::max);
    let mut count = 0;
    for row in samples.outer_iter() {
        let mut rest = row.to_owned();
        for _ in 0..2 {
            let known = basis.slice(s![..count, ..]);
            let shares = known.dot(&rest);
            rest -= &shares.dot(&known);
        }
        let length = rest.dot(&rest).sqrt();
        if length > SHORTEST * longest {
            basis.row_mut(count).assign(&(rest / length));
            count += 1;
        }
    }
    basis.slice_move(s![..count, ..]).reversed_axes()
}

/// Where the minimisation ended.
pub(super) struct NewtonMinimum {
    /// [rows, d]
    pub(super) coefficients: Array2<f64>,
    /// [rows]
    pub(super) intercepts: Array1<f64>,
    /// Newton steps.
    pub(super) iterations: usize,
    /// Whether the loss is within the tolerance of the minimum, as far as the last step tells.
    pub(super) converged: bool,
}

/// Minimises mean loss + `decay` / 2 |W|² from coefficients and intercepts, or from 0. The tolerance is the distance from the
/// minimum as a share of the loss.
pub(super) fn fit(
    scaled: &Scaled,
    labels: &Labels,
    rows: usize,
    decay: f64,
    solver: SolverConfig,
    start: Option<(ArrayView2<f64>, ArrayView1<f64>)>,
) -> NewtonMinimum {
    let p = scaled.x.ncols();
    let mut penalty = Array1::zeros(p);
    penalty
        .slice_mut(s![..p - 1])
        .assign(&scaled.deviation.mapv(|deviation| decay / (deviation * deviation)));
    let problem = Problem { x: scaled.x.view(), labels, rows, penalty };
    let mut point = start.map_or_else(|| Array2::zeros((rows, p)), |(w, b)| scaled.scaled(w, b));
    let mut here = problem.state(&point);
    let (mut iterations, mut converged) = (0, false);
    while iterations < solver.max_iterations && here.value.is_finite() {
        let Some(factor) = problem.factor(&here.probabilities) else { break };
        let step = problem.step(&here, &factor);
        // Half of it is the distance from the minimum of the quadratic model.
        let predicted = -(&here.gradient * &step).sum();
        converged = 0.5 * predicted <= solver.tolerance * here.value;
        if converged || predicted.is_nan() {
            break;
        }
        let mut length = 1.0;
        let next = (0..HALVINGS).find_map(|_| {
            let there = &point + &(&step * length);
            let state = problem.state(&there);
            let highest = here.value - DECREASE * length * predicted + ROUNDING * here.value;
            let found = (state.value <= highest).then_some((there, state));
            length *= 0.5;
            found
        });
        let Some((there, state)) = next else { break };
        (point, here) = (there, state);
        iterations += 1;
    }
    let (coefficients, intercepts) = scaled.original(&point);
    NewtonMinimum { coefficients, intercepts, iterations, converged }
}

/// The loss over scaled features.
struct Problem<'a> {
    /// [n, p]
    x: ArrayView2<'a, f64>,
    labels: &'a Labels,
    rows: usize,
    /// [p]: factor of half of each coefficient's square; 0 for intercepts.
    penalty: Array1<f64>,
}

/// The loss at a point.
struct State {
    value: f64,
    /// [rows, p]
    gradient: Array2<f64>,
    /// [n, rows]
    probabilities: Array2<f64>,
}

/// A factorised preconditioner.
enum Factor {
    /// The Hessian, for all coefficients as one vector.
    Whole(Cholesky),
    /// The Hessian's block of each row of coefficients.
    Rows(Vec<Cholesky>),
    /// One block for every row.
    Shared(Cholesky),
}

impl Problem<'_> {
    fn is_softmax(&self) -> bool {
        matches!(self.labels, Labels::Softmax(_))
    }

    fn state(&self, point: &Array2<f64>) -> State {
        let (n, p) = self.x.dim();
        let blocks: Vec<(f64, Array2<f64>, Array2<f64>)> = self
            .x
            .axis_chunks_iter(Axis(0), ROWS_AT_A_TIME)
            .into_par_iter()
            .enumerate()
            .map(|(block, x)| {
                let mut z = x.dot(&point.t());
                let first = block * ROWS_AT_A_TIME;
                let samples = z.outer_iter_mut().zip(first..);
                let loss: f64 = samples.map(|(z, sample)| self.labels.loss_and_gradient(sample, z)).sum();
                (loss, z.t().dot(&x), z)
            })
            .collect();
        let (mut value, mut gradient) = (0.0, Array2::zeros((self.rows, p)));
        let mut probabilities = Array2::zeros((n, self.rows));
        for (block, (loss, of_block, z)) in blocks.into_iter().enumerate() {
            value += loss;
            gradient += &of_block;
            let first = block * ROWS_AT_A_TIME;
            probabilities.slice_mut(s![first..first + z.nrows(), ..]).assign(&z);
        }
        self.labels.add_truth(&mut probabilities);
        let mut squares = 0.0;
        Zip::from(&mut gradient).and(point).and_broadcast(&self.penalty).for_each(|g, a, penalty| {
            squares += penalty * a * a;
            *g = *g / n as f64 + penalty * a;
        });
        State { value: value / n as f64 + 0.5 * squares, gradient, probabilities }
    }

    /// The Hessian times `v` [rows, p].
    fn product(&self, probabilities: &Array2<f64>, v: &Array2<f64>) -> Array2<f64> {
        let n = self.x.nrows() as f64;
        let parts: Vec<Array2<f64>> = self
            .x
            .axis_chunks_iter(Axis(0), ROWS_AT_A_TIME)
            .into_par_iter()
            .zip(probabilities.axis_chunks_iter(Axis(0), ROWS_AT_A_TIME))
            .map(|(x, probabilities)| {
                let mut q = x.dot(&v.t());
                for (mut q, p) in q.outer_iter_mut().zip(probabilities.outer_iter()) {
                    match self.labels {
                        Labels::Softmax(_) => {
                            let mean = p.dot(&q);
                            q.zip_mut_with(&p, |q, p| *q = p * (*q - mean));
                        }
                        Labels::Logistic(_) => q.zip_mut_with(&p, |q, p| *q *= p * (1.0 - p)),
                    }
                }
                q.t().dot(&x)
            })
            .collect();
        let mut sum = Array2::<f64>::zeros(v.dim());
        parts.iter().for_each(|part| sum += part);
        Zip::from(&mut sum)
            .and(v)
            .and_broadcast(&self.penalty)
            .for_each(|sum, v, penalty| *sum = *sum / n + penalty * v);
        sum
    }

    /// Σ weight x xᵀ / n over the samples, [p, p].
    fn gram(&self, weights: &Array1<f64>) -> Array2<f64> {
        let (n, p) = self.x.dim();
        let parts: Vec<Array2<f64>> = self
            .x
            .axis_chunks_iter(Axis(0), ROWS_AT_A_TIME)
            .into_par_iter()
            .zip(weights.axis_chunks_iter(Axis(0), ROWS_AT_A_TIME))
            .map(|(x, weights)| {
                let weighted = &x * &weights.insert_axis(Axis(1));
                let mut part = Array2::zeros((p, p));
                general_mat_mul(1.0 / n as f64, &weighted.t(), &x, 0.0, &mut part);
                part
            })
            .collect();
        let mut sum = Array2::<f64>::zeros((p, p));
        parts.iter().for_each(|part| sum += part);
        sum
    }

    /// Factorises the Hessian or a part of it; `None` if rounding left nothing of it.
    fn factor(&self, probabilities: &Array2<f64>) -> Option<Factor> {
        let (n, p) = self.x.dim();
        let rows = self.rows;
        let penalized = |mut block: Array2<f64>| {
            block.diag_mut().zip_mut_with(&self.penalty, |x, penalty| *x += penalty);
            block
        };
        let variances = || probabilities.mapv(|p| p * (1.0 - p));
        if self.is_softmax() {
            if rows * p <= MOST_WHOLE && rows * rows * p * p / 2 * n <= MOST_MULTIPLICATIONS {
                let mut whole = Array2::zeros((rows * p, rows * p));
                for i in 0..rows {
                    for j in 0..=i {
                        let (a, b) = (probabilities.column(i), probabilities.column(j));
                        let weights = if i == j { a.mapv(|a| a * (1.0 - a)) } else { -(&a * &b) };
                        let block = self.gram(&weights);
                        let block = if i == j { penalized(block) } else { block };
                        whole.slice_mut(s![i * p..(i + 1) * p, j * p..(j + 1) * p]).assign(&block);
                    }
                }
                return factorized(whole).map(Factor::Whole);
            }
        } else if rows * p * p * n <= MOST_MULTIPLICATIONS {
            let of_row = |variance: ArrayView1<f64>| factorized(penalized(self.gram(&variance.to_owned())));
            return variances().axis_iter(Axis(1)).map(of_row).collect::<Option<_>>().map(Factor::Rows);
        }
        let weights = variances().mean_axis(Axis(1))?;
        factorized(penalized(self.gram(&weights))).map(Factor::Shared)
    }

    /// Solves the Newton equations approximately: the less precisely, the farther the minimum is.
    fn step(&self, here: &State, factor: &Factor) -> Array2<f64> {
        let mut step = Array2::zeros(here.gradient.dim());
        let mut rest = -&here.gradient;
        let mut conditioned = factor.solve(&rest);
        let mut direction = conditioned.clone();
        let mut size = (&rest * &conditioned).sum();
        let enough = size * (size / here.value).sqrt().min(0.0625);
        for _ in 0..MOST_PRODUCTS {
            let product = self.product(&here.probabilities, &direction);
            let curvature = (&direction * &product).sum();
            // Also ends where a number is not finite.
            let goes_on = curvature > 0.0 && size > 0.0;
            if !goes_on {
                break;
            }
            let length = size / curvature;
            step.scaled_add(length, &direction);
            rest.scaled_add(-length, &product);
            conditioned = factor.solve(&rest);
            let next = (&rest * &conditioned).sum();
            if next <= enough {
                break;
            }
            direction = &conditioned + &(direction * (next / size));
            size = next;
        }
        step
    }
}

/// Factorises a matrix that rounding may have made slightly indefinite.
fn factorized(matrix: Array2<f64>) -> Option<Cholesky> {
    let mean = matrix.diag().sum() / matrix.nrows() as f64;
    let mut ridge = 1e-14 * mean;
    for _ in 0..6 {
        if let Ok(factor) = Cholesky::of(matrix.view(), ridge) {
            return Some(factor);
        }
        ridge *= 100.0;
    }
    None
}

impl Factor {
    /// Applies the inverse to `right` [rows, p].
    fn solve(&self, right: &Array2<f64>) -> Array2<f64> {
        let mut solved = right.clone();
        match self {
            Factor::Whole(factor) => {
                let flat: Array1<f64> = right.iter().copied().collect();
                solved.iter_mut().zip(factor.solve(flat.view())).for_each(|(to, x)| *to = x);
            }
            Factor::Rows(factors) => {
                solved.outer_iter_mut().zip(factors).for_each(|(mut row, factor)| {
                    let x = factor.solve(row.view());
                    row.assign(&x);
                });
            }
            Factor::Shared(factor) => {
                solved.outer_iter_mut().into_par_iter().for_each(|mut row| {
                    let x = factor.solve(row.view());
                    row.assign(&x);
                });
            }
        }
        solved
    }
}
