//! Whether the ranks of models survive a choice: Kendall's tau between two values of the choice, over the models that were
//! measured with both, all else equal.

use std::collections::BTreeMap;

use super::plain::PlainTable;
use crate::metrics::Better;
use crate::metrics::kendall::tau_b;
use crate::record::{Aspect, Record, SettingKey};

/// With fewer models there are hardly any ranks.
const FEWEST_MODELS: usize = 3;

/// A choice whose values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Choice {
    Protocol,
    Channels,
    Bands,
    Normalization,
    Pooling,
}

impl Choice {
    const ALL: [Choice; 5] =
        [Choice::Protocol, Choice::Channels, Choice::Bands, Choice::Normalization, Choice::Pooling];

    fn name(self) -> &'static str {
        match self {
            Choice::Protocol => "protocol",
            Choice::Channels => "bands",
            Choice::Bands => "selection of bands",
            Choice::Normalization => "normalisation",
            Choice::Pooling => "pooling",
        }
    }

    /// The aspect of a setting; `None` for the protocol, which is no aspect.
    fn aspect(self) -> Option<Aspect> {
        match self {
            Choice::Protocol => None,
            Choice::Channels => Some(Aspect::Channels),
            Choice::Bands => Some(Aspect::Bands),
            Choice::Normalization => Some(Aspect::Normalization),
            Choice::Pooling => Some(Aspect::Pooling),
        }
    }

    /// The record's value of the choice, and everything else about how it was made.
    fn split(self, record: &Record) -> Option<(String, (SettingKey, String, u64))> {
        let key = SettingKey::of(record);
        let (value, rest, protocol) = match self.aspect() {
            None => {
                let rest = key.without(Aspect::is_protocol).of_any_protocol();
                (record.cell.protocol.clone(), rest, String::new())
            }
            Some(aspect) => {
                let value = key.get(&aspect)?.to_owned();
                (value, key.without(|other| *other == aspect), record.cell.protocol.clone())
            }
        };
        // What is missing, and what replaces it, follows from the bands that are given.
        let rest = rest.without(|aspect| matches!(aspect, Aspect::Imputation | Aspect::Matching));
        Some((value, (rest, protocol, record.cell.seed)))
    }
}

/// Two values of a choice on one task.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Pair<'r> {
    task: &'r str,
    partition: &'r str,
    choice: Choice,
    a: String,
    b: String,
}

/// Scores of the models that have both values, better ones higher.
type Scores<'r> = BTreeMap<(&'r str, &'r str, String), (f64, f64)>;

/// Compares all pairs of values among whole, complete records; `None` if no pair has three models.
pub fn table(records: &[Record]) -> Option<PlainTable> {
    let mut pairs: BTreeMap<Pair, Scores> = BTreeMap::new();
    let mut by_model: BTreeMap<_, Vec<&Record>> = BTreeMap::new();
    for record in records.iter().filter(|record| !record.short && !record.provenance.partial_weights()) {
        let cell = &record.cell;
        let model = (cell.model.as_str(), cell.backbone.as_str(), record.provenance.weights_setting());
        by_model.entry((cell.task.as_str(), cell.partition.as_str(), model)).or_default().push(record);
    }
    for ((task, partition, model), mut records) in by_model {
        // The newest record of a setting is the one that counts.
        records.sort_by_key(|record| std::cmp::Reverse((record.provenance.finished, &record.fingerprint)));
        for choice in Choice::ALL {
            let split: Vec<_> =
                records.iter().filter_map(|record| Some((choice.split(record)?, *record))).collect();
            for (place, ((value, rest), record)) in split.iter().enumerate() {
                for ((other_value, other_rest), other) in &split[..place] {
                    if value == other_value || rest != other_rest {
                        continue;
                    }
                    let mut ends = [(value.clone(), score(record)), (other_value.clone(), score(other))];
                    ends.sort_by(|x, y| x.0.cmp(&y.0));
                    let [(a, of_a), (b, of_b)] = ends;
                    let pair = Pair { task, partition, choice, a, b };
                    pairs.entry(pair).or_default().entry(model.clone()).or_insert((of_a, of_b));
                }
            }
        }
    }
    let row = |(pair, scores): (&Pair, &Scores)| {
        let (a, b): (Vec<f64>, Vec<f64>) = scores.values().copied().unzip();
        let tau = tau_b(&a, &b).filter(|_| a.len() >= FEWEST_MODELS)?;
        let task = match pair.partition {
            "default" => pair.task.to_owned(),
            partition => format!("{}, {partition}", pair.task),
        };
        Some(vec![
            pair.choice.name().to_owned(),
            pair.a.clone(),
            pair.b.clone(),
            task,
            a.len().to_string(),
            format!("{tau:.2}"),
        ])
    };
    let mut rows: Vec<Vec<String>> = pairs.iter().filter_map(row).collect();
    rows.sort();
    (!rows.is_empty()).then(|| PlainTable {
        header: ["Choice", "One value", "Other value", "Task", "Models", "Kendall's tau"].map(str::to_owned).to_vec(),
        rows,
        notes: vec![
            "Kendall's tau-b between the values of the same models under two values of a choice, all else equal: 1 if the models \
             have the same order, 0 if the orders have nothing to do with each other, -1 if they are opposite. Only choices that \
             at least three models were measured with."
                .to_owned(),
        ],
    })
}

/// The record's value, higher for better models.
fn score(record: &Record) -> f64 {
    match record.metric.about().scale.better {
        Better::Higher => record.value,
        Better::Lower => -record.value,
    }
}
