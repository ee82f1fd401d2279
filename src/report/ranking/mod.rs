//! Ranks models over the tasks of a table: average ranks with intervals, improvability, and which models the tasks can tell
//! apart. Only models with a value on every task take part. Published and measured rows rank together; a demo's rows alone.

pub mod nemenyi;
mod resample;
pub mod scores;
mod text;

use self::resample::{Draws, LEVEL, ModelResult, RankedTask};
use self::scores::{error, groups, improvabilities, ranks, ratios};
pub use self::text::table as text_table;
use super::cost::{Cost, Costs};
use super::tables::table::{Column, Origin, ResultTable, TableRow, Value, partition_title};
use crate::metrics::Unit;
use crate::record::{Interval, Speed, Store, Unreadable};
use crate::score::predictions::Scorer;

/// With fewer models there is nothing to rank, and with fewer tasks nothing to average.
const FEWEST_MODELS: usize = 3;
const FEWEST_TASKS: usize = 2;

/// Predictions of more seeds per value add little to the draws.
const MOST_SEEDS: usize = 16;

/// The models of a table, ranked over its tasks at one partition.
#[derive(Debug, Clone)]
pub struct Ranking {
    /// The table's title, with the share of the training data if the table has several.
    pub title: String,
    /// The partition's name.
    pub partition: String,
    /// Whether the values are of generated data.
    pub demo: bool,
    /// Titles of the tasks.
    pub tasks: Vec<String>,
    /// Sorted by average rank, the best first.
    pub standings: Vec<Standing>,
    /// Names of the models that lack a task.
    pub incomplete: Vec<String>,
    /// The critical difference of average ranks of the Nemenyi test.
    pub critical: f64,
    /// Number of values whose test samples were drawn again, of all values.
    pub sampled: (usize, usize),
}

/// One model's place in a [`Ranking`].
#[derive(Debug, Clone)]
pub struct Standing {
    /// Name with backbone, origin and qualifiers.
    pub name: String,
    /// Where its values come from.
    pub origin: Origin,
    /// Mean over tasks of its ranks; 1 is best.
    pub rank: f64,
    /// Interval of the average rank over draws of tasks and test samples.
    pub interval: Interval,
    /// Mean over tasks of (e - e_best) / e, as a share of 1; `None` if no task's metric is in percent.
    pub improvability: Option<f64>,
    /// Mean over the tasks with a metric in percent; `None` if there are none.
    pub mean: Option<f64>,
    /// Cost of one image, the mean over tasks, whose images may differ in size; `None` if it is not known.
    pub cost: Option<Cost>,
    /// How fast it was and how much memory it took, where its runs say so.
    pub speed: Option<TaskSpeed>,
    /// Its error as a multiple of the least error, per task.
    pub ratios: Vec<f64>,
    /// Groups of models that the draws do not tell apart; see [`scores::groups`].
    pub groups: Vec<usize>,
    /// Groups of models that the Nemenyi test does not tell apart.
    pub nemenyi: Vec<usize>,
}

/// A model's speed over several tasks.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskSpeed {
    /// The device, as on the command line.
    pub device: String,
    /// Images per second of work in the encoder, the mean over tasks.
    pub images_per_second: f64,
    /// The most memory of the program in any of the runs.
    pub peak_memory_bytes: Option<u64>,
}

impl Ranking {
    /// Returns whether the Nemenyi test tells no two models apart.
    pub fn is_undecided(&self) -> bool {
        let ranks = || self.standings.iter().map(|standing| standing.rank);
        ranks().fold(f64::MIN, f64::max) - ranks().fold(f64::MAX, f64::min) < self.critical
    }

    /// Says what the number of tasks allows to conclude.
    pub fn verdict(&self) -> String {
        let (models, tasks) = (self.standings.len(), self.tasks.len());
        let needed = format!(
            "to tell apart models that differ by one rank takes {} tasks",
            nemenyi::tasks_needed(models, 1.0)
        );
        let what = format!(
            "With {models} models on {tasks} tasks, average ranks must differ by {:.1} to be told apart (Nemenyi test, 5 %)",
            self.critical
        );
        let so = if self.critical > (models - 1) as f64 {
            "that is more than there are ranks: the tasks are too few to tell any two models apart"
        } else if self.is_undecided() {
            "no two models differ so much: the tasks are too few to tell any of them apart"
        } else {
            "models that are joined differ less"
        };
        format!("{what}; {so}; {needed}.")
    }
}

/// Ranks the models of a table, once per partition with enough tasks and models. Adds predictions that cannot be used to
/// `unreadable`.
pub fn rankings(
    table: &ResultTable,
    costs: &Costs,
    store: &Store,
    unreadable: &mut Vec<Unreadable>,
) -> Vec<Ranking> {
    let mut partitions: Vec<&str> = Vec::new();
    for column in &table.columns {
        if !partitions.contains(&column.partition.as_str()) {
            partitions.push(&column.partition);
        }
    }
    let several = partitions.len() > 1;
    let of = |partition: &&str| {
        let title = match several {
            true => format!("{}, {} of the training data", table.title, partition_title(partition)),
            false => table.title.clone(),
        };
        ranking(table, title, partition, costs, store, unreadable)
    };
    partitions.iter().filter_map(of).collect()
}

fn ranking(
    table: &ResultTable,
    title: String,
    partition: &str,
    costs: &Costs,
    store: &Store,
    unreadable: &mut Vec<Unreadable>,
) -> Option<Ranking> {
    let is_task = |column: &Column| column.partition == partition && column.score.is_none();
    let places: Vec<usize> = (0..table.columns.len()).filter(|i| is_task(&table.columns[*i])).collect();
    let published = if table.demo { &[][..] } else { &table.published[..] };
    let rows = published.iter().chain(&table.measured).filter(|row| !row.is_partial);
    let (mut complete, mut incomplete) = (Vec::new(), Vec::new());
    for row in rows {
        let value = |i: &usize| {
            row.cells.get(*i)?.as_ref().filter(|value| table.demo || !value.is_of_other_samples())
        };
        let values: Vec<&Value> = places.iter().filter_map(value).collect();
        match values.len() == places.len() {
            true => complete.push((row, values)),
            false if values.is_empty() => {}
            false => incomplete.push(row.full_label()),
        }
    }
    if places.len() < FEWEST_TASKS || complete.len() < FEWEST_MODELS {
        return None;
    }
    let mut standings: Vec<Standing> = complete.iter().map(|(row, _)| standing(row)).collect();
    let mut tasks = Vec::new();
    let mut sampled = 0;
    let mut shares = vec![Vec::new(); complete.len()];
    let mut means = vec![Vec::new(); complete.len()];
    for (task, place) in places.iter().enumerate() {
        let scale = table.columns[*place].scale();
        // As shown, so that a reader's arithmetic agrees with the table.
        let shown: Vec<f64> = complete.iter().map(|(_, values)| as_shown(values[task])).collect();
        let errors: Vec<f64> = shown.iter().map(|value| error(*value, scale)).collect();
        let of_task = ranks(&shown, scale.better).into_iter().zip(ratios(&errors));
        for (standing, (rank, ratio)) in standings.iter_mut().zip(of_task) {
            standing.rank += rank;
            standing.ratios.push(ratio);
        }
        if scale.unit == Unit::Percent {
            let improvabilities = improvabilities(&errors);
            shares.iter_mut().zip(improvabilities).for_each(|(all, share)| all.push(share));
            means.iter_mut().zip(shown).for_each(|(all, value)| all.push(value));
        }
        let result = |(_, values): &(&TableRow, Vec<&Value>)| {
            let scorers = scorers(values[task], store, unreadable);
            sampled += usize::from(!scorers.is_empty());
            ModelResult::new(values[task].value, scorers)
        };
        tasks.push(RankedTask { scale, results: complete.iter().map(result).collect() });
    }
    let draws = Draws::new(&tasks)?;
    let of_models = standings.iter_mut().zip(&complete).zip(shares.iter().zip(&means));
    for (model, ((standing, (_, values)), (shares, means))) in of_models.enumerate() {
        // So far the sum over the tasks.
        standing.rank /= places.len() as f64;
        let (low, high) = draws.interval(model);
        standing.interval = Interval { low, high, level: LEVEL };
        standing.improvability = mean(shares);
        standing.mean = mean(means);
        standing.cost = cost(values, costs);
        standing.speed = speed(values);
    }
    // Equal ranks keep the table's order.
    let mut order: Vec<usize> = (0..standings.len()).collect();
    order.sort_by(|a, b| standings[*a].rank.total_cmp(&standings[*b].rank));
    let critical = nemenyi::critical_difference(standings.len(), places.len());
    let by_draws = groups(order.len(), |a, b| draws.are_apart(order[a], order[b]));
    let mut standings: Vec<Standing> = order.iter().map(|model| standings[*model].clone()).collect();
    let distance = |a: usize, b: usize| (standings[b].rank - standings[a].rank).abs();
    let by_nemenyi = groups(standings.len(), |a, b| distance(a, b) >= critical);
    for (standing, (draws, nemenyi)) in standings.iter_mut().zip(by_draws.into_iter().zip(by_nemenyi)) {
        (standing.groups, standing.nemenyi) = (draws, nemenyi);
    }
    Some(Ranking {
        title,
        partition: partition.to_owned(),
        demo: table.demo,
        tasks: places.iter().map(|place| table.columns[*place].title.clone()).collect(),
        sampled: (sampled, standings.len() * places.len()),
        standings,
        incomplete,
        critical,
    })
}

fn standing(row: &TableRow) -> Standing {
    Standing {
        name: row.full_label(),
        origin: row.origin,
        rank: 0.0,
        interval: Interval { low: 0.0, high: 0.0, level: LEVEL },
        improvability: None,
        mean: None,
        cost: None,
        speed: None,
        ratios: Vec::new(),
        groups: Vec::new(),
        nemenyi: Vec::new(),
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Averages the cost of one image over tasks; `None` if one is not known, as those of published values.
fn cost(values: &[&Value], costs: &Costs) -> Option<Cost> {
    let of_tasks: Vec<Cost> =
        values.iter().map(|value| costs.of(value.records.first()?)).collect::<Option<_>>()?;
    let sum: u64 = of_tasks.iter().map(|cost| cost.multiply_adds).sum();
    let parameters = of_tasks.iter().map(|cost| cost.parameters).max()?;
    Some(Cost { parameters, multiply_adds: sum / of_tasks.len() as u64 })
}

/// Averages the speed over the tasks whose runs computed features; `None` if there are none, or they ran on several devices.
fn speed(values: &[&Value]) -> Option<TaskSpeed> {
    let of_tasks: Vec<(&str, Speed)> = values
        .iter()
        .filter_map(|value| {
            let made = &value.records.first()?.provenance;
            Some((made.device.as_str(), made.speed?))
        })
        .collect();
    let (device, _) = *of_tasks.first()?;
    if of_tasks.iter().any(|(other, _)| *other != device) {
        return None;
    }
    let sum: f64 = of_tasks.iter().map(|(_, speed)| speed.images_per_second).sum();
    Some(TaskSpeed {
        device: device.to_owned(),
        images_per_second: sum / of_tasks.len() as f64,
        peak_memory_bytes: of_tasks.iter().filter_map(|(_, speed)| speed.peak_memory_bytes).max(),
    })
}

/// Rounds a value as tables show it.
fn as_shown(value: &Value) -> f64 {
    value.rounded(value.value).to_string().parse().unwrap_or(value.value)
}

/// Returns a scorer per seed of a measured value, from the stored predictions; none if those of a seed are missing or cannot be
/// used.
fn scorers(value: &Value, store: &Store, unreadable: &mut Vec<Unreadable>) -> Vec<Scorer> {
    let mut scorers = Vec::new();
    for record in value.records.iter().take(MOST_SEEDS) {
        match store.predictions(record) {
            Ok(Some(named)) => match named.predictions.scorer(record.metric) {
                Ok(scorer) => scorers.push(scorer),
                Err(_) => return Vec::new(),
            },
            Ok(None) => return Vec::new(),
            Err(error) => {
                super::add_unreadable(unreadable, store.predictions_path(record), error);
                return Vec::new();
            }
        }
    }
    scorers
}
