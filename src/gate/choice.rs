//! Selects one record per cell for commands that need exactly one: the newest run of each setting, narrowed by the user's
//! options. If several settings remain, the command lists them and asks the user to choose.

use std::fmt::Write;

use crate::record::{Aspect, Cell, SettingKey, StoredRecord};
use crate::{Error, Result};

/// The user's options that select records. Of several values of one kind, any may match.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Names of models as recorded: `TerraFM`, `TerraFM ViT-Base`.
    pub models: Vec<String>,
    /// First digits of hashes, or `random:<seed>`.
    pub weights: Vec<String>,
    /// Values of other aspects, as displayed in lists of settings.
    pub settings: Vec<(Aspect, String)>,
}

impl Wanted {
    /// Parses `NAME=VALUE` for a setting without an option of its own: `k=20`, `imputed=B02 for B01`.
    ///
    /// # Errors
    /// If there is no `=`.
    pub fn setting(text: &str) -> Result<(Aspect, String)> {
        let Some((name, value)) = text.split_once('=') else {
            return Err(Error::request(format!("`{text}` is not NAME=VALUE")).help("for example k=20"));
        };
        let aspect = match name.trim() {
            "data" => Aspect::Data,
            "length" => Aspect::Length,
            "weights" => Aspect::Weights,
            "coverage" => Aspect::Coverage,
            "sensor" => Aspect::Sensor,
            "channels" => Aspect::Channels,
            "pooling" => Aspect::Pooling,
            "inputs" => Aspect::Inputs,
            "bands" => Aspect::Bands,
            "imputed" => Aspect::Imputation,
            "matched" => Aspect::Matching,
            "normalisation" | "normalization" => Aspect::Normalization,
            "input" => Aspect::InputSize,
            "depth" => Aspect::Depth,
            "resize" => Aspect::Resize,
            "beside" => Aspect::Beside,
            "precision" => Aspect::Precision,
            "metadata" => Aspect::Metadata,
            other => Aspect::Protocol(other.to_owned()),
        };
        Ok((aspect, value.trim().to_owned()))
    }

    fn admits(&self, kept: &StoredRecord) -> bool {
        let (cell, key) = (&kept.record.cell, SettingKey::of(&kept.record));
        let any = |wanted: &[String], fits: &dyn Fn(&str) -> bool| {
            wanted.is_empty() || wanted.iter().any(|wanted| fits(wanted))
        };
        let weights = &kept.record.provenance.weights;
        any(&self.models, &|model| model == cell.model || model == model_name(cell))
            && any(&self.weights, &|wanted| is_weights(weights, wanted))
            && self.settings.iter().all(|(aspect, _)| {
                let mut values = self.settings.iter().filter(|(other, _)| other == aspect);
                // Keys do not state float32.
                let unstated = (*aspect == Aspect::Precision).then_some("f32");
                values.any(|(_, value)| key.get(aspect).or(unstated) == Some(value))
            })
    }

    /// Selects the records that match.
    ///
    /// # Errors
    /// If there are records but none matches: the message lists the available settings. `side` names the records in it.
    pub fn narrow(&self, records: Vec<StoredRecord>, side: &str) -> Result<Vec<StoredRecord>> {
        let (fitting, others): (Vec<StoredRecord>, Vec<StoredRecord>) =
            records.into_iter().partition(|kept| self.admits(kept));
        if fitting.is_empty() && !others.is_empty() {
            let mut settings: Vec<String> = others
                .iter()
                .map(|kept| format!("{}: {}", model_name(&kept.record.cell), SettingKey::of(&kept.record)))
                .collect();
            settings.sort();
            settings.dedup();
            return Err(Error::request(format!("no record of {side} matches the given options"))
                .help(format!("available:\n    {}", listed(&settings))));
        }
        Ok(fitting)
    }
}

/// Whether `typed` is the beginning of the weights' hash, with or without the `blake3:` prefix.
pub(crate) fn is_weights(weights: &str, typed: &str) -> bool {
    let digits = |text: &str| {
        let text = text.strip_prefix("vectors:").unwrap_or(text);
        text.strip_prefix("blake3:").unwrap_or(text).to_owned()
    };
    match typed.starts_with("random:") {
        true => weights == typed,
        false => digits(typed).len() >= 4 && digits(weights).starts_with(&digits(typed)),
    }
}

/// Full name of the model: `TerraFM ViT-Base`.
pub(crate) fn model_name(cell: &Cell) -> String {
    format!("{} {}", cell.model, cell.backbone).trim_end().to_owned()
}

/// Returns the most recent run of each setting (and model), newest first.
pub(crate) fn newest_of_each<'k>(
    records: impl IntoIterator<Item = &'k StoredRecord>,
) -> Vec<&'k StoredRecord> {
    let mut records: Vec<&StoredRecord> = records.into_iter().collect();
    // Two runs may finish within the same second: the fingerprint then decides, always in the same way.
    records.sort_by_key(|kept| {
        std::cmp::Reverse((kept.record.provenance.finished, kept.record.fingerprint.clone()))
    });
    let mut newest: Vec<&StoredRecord> = Vec::new();
    for kept in records {
        let key = SettingKey::of(&kept.record);
        let known = newest.iter().any(|other| {
            let (a, b) = (&other.record.cell, &kept.record.cell);
            (&a.model, &a.backbone) == (&b.model, &b.backbone) && SettingKey::of(&other.record).is_same(&key)
        });
        if !known {
            newest.push(kept);
        }
    }
    newest
}

/// Several records of one cell, of which one is needed.
#[derive(Debug)]
pub(crate) struct Several<'k> {
    /// The cell and the side: `m-eurosat default knn seed 0 of A`.
    pub of: String,
    pub records: Vec<&'k StoredRecord>,
}

/// Cells listed in an error before the rest is only counted.
const CELLS: usize = 5;

/// Makes the error that lists the candidates and names the options that distinguish them.
pub(crate) fn ask(several: &[Several]) -> Error {
    let mut text = String::from("several records fit");
    let mut options: Vec<String> = Vec::new();
    for Several { records, .. } in several {
        let keys: Vec<SettingKey> = records.iter().map(|kept| SettingKey::of(&kept.record)).collect();
        let models: Vec<String> = records.iter().map(|kept| model_name(&kept.record.cell)).collect();
        if models.iter().any(|model| *model != models[0]) {
            options.push("--model".to_owned());
        }
        for key in &keys {
            options
                .extend(keys.iter().flat_map(|other| key.differences(other)).map(|aspect| option(&aspect)));
        }
    }
    for Several { of, records } in several.iter().take(CELLS) {
        let _ = write!(text, "\n  {of}:");
        for line in describe(records) {
            let _ = write!(text, "\n    {line}");
        }
    }
    if several.len() > CELLS {
        let _ = write!(text, "\n  and {} more cells", several.len() - CELLS);
    }
    options.sort();
    options.dedup();
    Error::request(text).help(format!("choose with {}", options.join(", ")))
}

/// Formats one line per record: its value, its model and what distinguishes its settings from the others'.
fn describe(records: &[&StoredRecord]) -> Vec<String> {
    let keys: Vec<SettingKey> = records.iter().map(|kept| SettingKey::of(&kept.record)).collect();
    let line = |(kept, key): (&&StoredRecord, &SettingKey)| {
        let record = &kept.record;
        let setting = key.among(&keys);
        let setting = if setting.is_empty() { setting } else { format!(", {setting}") };
        format!(
            "{} {}, {}{setting} ({})",
            record.metric,
            record.metric.about().scale.fine(record.value),
            model_name(&record.cell),
            kept.store.path(record).display()
        )
    };
    records.iter().zip(&keys).map(line).collect()
}

/// The option of `check`, `compare` and `rescore` that selects by this aspect.
fn option(aspect: &Aspect) -> String {
    match aspect {
        Aspect::Weights => "--weights".to_owned(),
        Aspect::Normalization => "--normalization".to_owned(),
        Aspect::Sensor => "--sensor".to_owned(),
        Aspect::Channels => "--setting channels=…".to_owned(),
        Aspect::Pooling => "--setting pooling=…".to_owned(),
        Aspect::Inputs => "--setting inputs=…".to_owned(),
        Aspect::Bands => "--bands".to_owned(),
        Aspect::Length => "--setting length=…".to_owned(),
        Aspect::Data => "--setting data=…".to_owned(),
        Aspect::Coverage => "--setting coverage=…".to_owned(),
        Aspect::Imputation => "--setting imputed=…".to_owned(),
        Aspect::Matching => "--setting matched=…".to_owned(),
        Aspect::InputSize => "--setting input=…".to_owned(),
        Aspect::Depth => "--setting depth=…".to_owned(),
        Aspect::Resize => "--setting resize=…".to_owned(),
        Aspect::Beside => "--setting beside=…".to_owned(),
        Aspect::Precision => "--setting precision=…".to_owned(),
        Aspect::Metadata => "--setting metadata=…".to_owned(),
        Aspect::Protocol(name) => format!("--setting {name}=…"),
    }
}

fn listed(settings: &[String]) -> String {
    const SHOWN: usize = 10;
    let mut text = settings.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("\n    ");
    if settings.len() > SHOWN {
        let _ = write!(text, "\n    and {} more", settings.len() - SHOWN);
    }
    text
}
