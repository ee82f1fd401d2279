//! How far average ranks depend on the tasks and test samples at hand: both are drawn again, with replacement.

use std::collections::BTreeMap;

use rand::Rng;
use rayon::prelude::*;

use super::scores::ranks;
use crate::metrics::Scale;
use crate::metrics::bootstrap::quantile;
use crate::random::stream;
use crate::score::predictions::Scorer;

/// Number of draws.
pub const DRAWS: usize = 1000;
/// Coverage of the intervals.
pub const LEVEL: f64 = 0.95;
const SEED: u64 = 0;
/// Distance, in draws of samples, between two draws of the same task in one draw of tasks. Prime, so that they differ.
const APART: usize = 397;

/// A model's result on one task.
pub struct ModelResult {
    value: f64,
    scorers: Vec<Scorer>,
    /// Mean of the scorers over all samples; NaN without scorers.
    whole: f64,
}

impl ModelResult {
    /// `value` is the value as shown; `scorers` has one scorer per seed, and is empty without stored predictions, as for
    /// published values, which are then taken as printed.
    pub fn new(value: f64, scorers: Vec<Scorer>) -> Self {
        let whole = scorers.iter().map(Scorer::all).sum::<f64>() / scorers.len() as f64;
        ModelResult { value, scorers, whole }
    }
}

/// A task with one result per model.
pub struct RankedTask {
    /// How its values are compared.
    pub scale: Scale,
    /// In the order of the models.
    pub results: Vec<ModelResult>,
}

/// The average ranks of all draws.
pub struct Draws {
    /// Shape [models][draws].
    ranks: Vec<Vec<f64>>,
    /// Whether two models are told apart, shape [models][models].
    apart: Vec<Vec<bool>>,
}

impl Draws {
    /// Draws tasks and, where predictions are stored, test samples and seeds. All models of a task get the same samples, so
    /// that their differences are paired. The draws are the same on every machine and with any number of threads.
    ///
    /// Returns `None` without tasks.
    pub fn new(tasks: &[RankedTask]) -> Option<Self> {
        let models = tasks.first()?.results.len();
        let by_task: Vec<Vec<Vec<f64>>> = tasks
            .iter()
            .enumerate()
            .map(|(place, task)| match task.results.iter().all(|result| result.scorers.is_empty()) {
                // Without predictions, every draw is the same.
                true => vec![task.drawn(place, 0); DRAWS],
                false => (0..DRAWS).into_par_iter().map(|draw| task.drawn(place, draw)).collect(),
            })
            .collect();
        let mut averages = vec![Vec::with_capacity(DRAWS); models];
        for draw in 0..DRAWS {
            let mut random = stream(SEED, draw as u64);
            let mut sums = vec![0.0; models];
            for turn in 0..tasks.len() {
                let task = random.random_range(0..tasks.len());
                let ranks = &by_task[task][(draw + turn * APART) % DRAWS];
                sums.iter_mut().zip(ranks).for_each(|(sum, rank)| *sum += rank);
            }
            averages.iter_mut().zip(sums).for_each(|(all, sum)| all.push(sum / tasks.len() as f64));
        }
        let row = |a: usize| (0..models).map(|b| b != a && are_apart(&averages[a], &averages[b])).collect();
        let apart = (0..models).into_par_iter().map(row).collect();
        Some(Draws { ranks: averages, apart })
    }

    /// Returns the ends of the interval of a model's average rank.
    pub fn interval(&self, model: usize) -> (f64, f64) {
        ends(self.ranks[model].clone())
    }

    /// Returns whether the interval of the difference of two models' average ranks excludes 0.
    pub fn are_apart(&self, a: usize, b: usize) -> bool {
        self.apart[a][b]
    }
}

fn are_apart(a: &[f64], b: &[f64]) -> bool {
    let (low, high) = ends(a.iter().zip(b).map(|(a, b)| a - b).collect());
    low > 0.0 || high < 0.0
}

fn ends(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_unstable_by(f64::total_cmp);
    let tail = (1.0 - LEVEL) / 2.0;
    (quantile(&values, tail), quantile(&values, 1.0 - tail))
}

impl RankedTask {
    /// Ranks the models on newly drawn samples.
    fn drawn(&self, place: usize, draw: usize) -> Vec<f64> {
        // Streams of draws of samples follow those of draws of tasks.
        let number = ((place + 1) * DRAWS + draw) as u64;
        let mut drawn: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let turn = stream(SEED, number).random::<u32>() as usize;
        let values: Vec<f64> = self
            .results
            .iter()
            .map(|result| {
                let Some(scorer) = result.scorers.get(turn % result.scorers.len().max(1)) else {
                    return result.value;
                };
                let samples = scorer.samples();
                let indices = drawn.entry(samples).or_insert_with(|| {
                    let mut random = stream(SEED, number);
                    (0..samples).map(|_| random.random_range(0..samples)).collect()
                });
                // The value shown may be a mean over batches, so only the change is taken from the samples.
                let change = scorer.score(indices) - result.whole;
                if change.is_finite() { result.value + change } else { result.value }
            })
            .collect();
        ranks(&values, self.scale.better)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metric;
    use crate::score::{Predictions, Targets};

    /// Predictions of `n` samples, of which the first `right` are right.
    fn scorer(n: usize, right: usize) -> Scorer {
        let targets = |classes| Targets::Classes { classes, count: 2 };
        let predicted = targets((0..n).map(|i| usize::from(i >= right)).collect());
        Predictions::Targets { predicted, truth: targets(vec![0; n]) }.scorer(Metric::Accuracy).unwrap()
    }

    fn task(results: Vec<ModelResult>) -> RankedTask {
        RankedTask { scale: Scale::PERCENT, results }
    }

    #[test]
    fn printed_values_change_only_with_the_tasks_drawn() {
        let printed = |values: [f64; 3]| task(values.map(|value| ModelResult::new(value, Vec::new())).into());
        // The first model is best on every task; the others are best of the rest on one task each.
        let draws = Draws::new(&[printed([9.0, 5.0, 1.0]), printed([9.0, 1.0, 5.0])]).unwrap();
        assert_eq!(draws.interval(0), (1.0, 1.0));
        assert_eq!(draws.interval(1), (2.0, 3.0));
        assert!(draws.are_apart(0, 1) && draws.are_apart(0, 2) && !draws.are_apart(1, 2));
    }

    #[test]
    fn few_test_samples_tell_models_apart_less_than_many() {
        let apart = |n: usize| {
            let of = |right: usize| ModelResult::new(100.0 * right as f64 / n as f64, vec![scorer(n, right)]);
            Draws::new(&[task(vec![of(n * 9 / 10), of(n * 8 / 10)])]).unwrap().are_apart(0, 1)
        };
        // Nine against eight of ten are one sample; 900 against 800 of 1,000 are a hundred.
        assert!(!apart(10) && apart(1000));
    }

    #[test]
    fn draws_are_the_same_every_time_and_none_exist_without_tasks() {
        let tasks =
            || vec![task(vec![ModelResult::new(80.0, vec![scorer(50, 40)]), ModelResult::new(78.0, vec![])])];
        let intervals = || Draws::new(&tasks()).map(|draws| (draws.interval(0), draws.interval(1)));
        assert_eq!(intervals(), intervals());
        assert!(Draws::new(&[]).is_none());
    }
}
