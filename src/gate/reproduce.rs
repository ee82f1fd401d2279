//! Compares a recorded number with one that was computed again, and says what differs behind them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::metrics::Scale;
use crate::record::{Aspect, Record, SettingKey};

/// One thing that a number depends on, in both records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compared {
    /// What it is: `weights`, `data`, `config of the model`.
    pub what: String,
    /// As recorded.
    pub recorded: String,
    /// As found now.
    pub found: String,
}

impl Compared {
    fn new(what: impl Into<String>, recorded: impl fmt::Display, found: impl fmt::Display) -> Self {
        Compared { what: what.into(), recorded: recorded.to_string(), found: found.to_string() }
    }

    /// Whether both are equal.
    pub fn is_same(&self) -> bool {
        self.recorded == self.found
    }
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Compared { what, recorded, found } = self;
        match self.is_same() {
            true => write!(f, "{what}: same ({recorded})"),
            false => write!(f, "{what}: DIFFERS: recorded {recorded}, found {found}"),
        }
    }
}

/// A record beside the same cell computed again.
#[derive(Debug, Clone)]
pub struct Reproduction {
    /// What the number depends on.
    pub causes: Vec<Compared>,
    /// The value, further scores and interval.
    pub numbers: Vec<Compared>,
    /// The digest of the predictions; `None` if the record has none.
    pub predictions: Option<Compared>,
}

impl Reproduction {
    /// Compares `recorded` with `again`.
    pub fn of(recorded: &Record, again: &Record) -> Self {
        let (before, after) = (&recorded.provenance, &again.provenance);
        let mut causes = vec![
            Compared::new("weights", &before.weights, &after.weights),
            Compared::new("data", &before.data, &after.data),
        ];
        let names: BTreeSet<_> = before.configs.keys().chain(after.configs.keys()).collect();
        let none = "none".to_owned();
        for name in names {
            let of = |configs: &BTreeMap<String, String>| configs.get(name).unwrap_or(&none).clone();
            let what = format!("config file of the {name}");
            causes.push(Compared::new(what, of(&before.configs), of(&after.configs)));
        }
        let program = |record: &Record| {
            let made = &record.provenance;
            let revision = made.git_revision.as_deref().unwrap_or("unknown");
            let dirty = if made.git_dirty { " with changes" } else { "" };
            format!("{}, revision {revision}{dirty}", made.terrabench)
        };
        causes.push(Compared::new("program", program(recorded), program(again)));
        causes.push(Compared::new("device", &before.device, &after.device));
        causes.push(Compared::new("number format", before.precision, after.precision));
        causes.push(Compared::new("all settings together", &recorded.settings, &again.settings));
        let (old_key, new_key) = (SettingKey::of(recorded), SettingKey::of(again));
        // Those above are not told twice.
        let is_new = |aspect: &Aspect| !matches!(aspect, Aspect::Weights | Aspect::Precision);
        for aspect in old_key.differences(&new_key).into_iter().filter(is_new) {
            let told = |key: &SettingKey| key.get(&aspect).unwrap_or("not set").to_owned();
            causes.push(Compared::new(
                format!("setting {}", aspect_name(&aspect)),
                told(&old_key),
                told(&new_key),
            ));
        }

        let mut numbers = vec![Compared::new("value", exact(recorded.value), exact(again.value))];
        let scores: BTreeSet<_> = recorded.scores.keys().chain(again.scores.keys()).collect();
        for name in scores {
            let of =
                |record: &Record| record.scores.get(name).map_or("none".to_owned(), |score| exact(*score));
            numbers.push(Compared::new(name.clone(), of(recorded), of(again)));
        }
        let interval = |record: &Record| match record.interval {
            Some(interval) => format!("[{}, {}]", exact(interval.low), exact(interval.high)),
            None => "none".to_owned(),
        };
        numbers.push(Compared::new("interval", interval(recorded), interval(again)));
        let digest = |record: &Record| record.predictions.clone().unwrap_or_else(|| none.clone());
        let predictions = recorded
            .predictions
            .is_some()
            .then(|| Compared::new("predictions", digest(recorded), digest(again)));
        Reproduction { causes, numbers, predictions }
    }

    /// Whether the number came out again: value, scores and interval, to 15 digits. Predictions may still differ where no score
    /// depends on them.
    pub fn is_same(&self) -> bool {
        self.numbers.iter().all(Compared::is_same)
    }
}

fn aspect_name(aspect: &Aspect) -> String {
    match aspect {
        Aspect::Protocol(name) => format!("`{name}` of the protocol"),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// A number as records hold it.
fn exact(number: f64) -> String {
    serde_json::Number::from_f64(number).map_or_else(|| number.to_string(), |number| number.to_string())
}

/// One line about the outcome, in the metric's unit.
pub fn verdict(recorded: &Record, again: &Record, reproduction: &Reproduction) -> String {
    let scale: Scale = recorded.metric.about().scale;
    let (before, after) = (scale.shown(recorded.value), scale.shown(again.value));
    let cell = &recorded.cell;
    let model = format!("{} {}", cell.model, cell.backbone);
    let what = format!(
        "{}, {} {} {} seed {}",
        model.trim_end(),
        cell.task,
        cell.partition,
        cell.protocol,
        cell.seed
    );
    if !reproduction.is_same() {
        return format!("NOT reproduced: {what}: {} recorded {before}, now {after}", recorded.metric);
    }
    let predictions = match &reproduction.predictions {
        None => "; the record has no predictions to compare",
        Some(compared) if compared.is_same() => ", with the same predictions",
        Some(_) => ", although not with the same predictions",
    };
    format!("reproduced: {what}: {} {after}{predictions}", recorded.metric)
}
