//! How a number was made: one key for tables, the gate, comparisons and the page.
//!
//! A cell (suite, task, partition, protocol, model, seed) says what was measured; its [`SettingKey`] says how. Two records
//! of one cell may only take each other's place, be averaged or be compared where their settings are the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::Record;
use crate::task::bands::Imputation;
use crate::{Error, Result};

/// One thing that makes a number another one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Aspect {
    /// Hash of the weights' file, or `random:<seed>`.
    Weights,
    /// Whether the weights cover the whole model: see [`crate::model::Coverage`].
    Coverage,
    /// Real or generated.
    Data,
    /// Whether the protocol was shortened on the command line.
    Length,
    Sensor,
    /// Which of the model's bands it was given.
    Channels,
    /// Whether the model was fed the bands of the published numbers or those that it was trained on.
    Inputs,
    /// How tokens became one vector.
    Pooling,
    /// Bands by name or by content.
    Bands,
    /// What stands in for missing bands.
    Imputation,
    Normalization,
    /// Height and width of the model's input.
    InputSize,
    /// A setting of the protocol by its name in the protocol's TOML: `k`, `order`, `optimizer.momentum`.
    Protocol(String),
}

impl Aspect {
    /// Whether it is one of the protocol's settings, which records of schema 1 do not tell.
    pub fn is_protocol(&self) -> bool {
        matches!(self, Aspect::Protocol(_))
    }

    /// The option that chooses it on the command line, where there is one.
    pub fn option(&self) -> Option<&'static str> {
        match self {
            Aspect::Weights | Aspect::Coverage => Some("--weights"),
            Aspect::Sensor => Some("--sensor"),
            Aspect::Channels => Some("--channels"),
            Aspect::Inputs => Some("--inputs"),
            Aspect::Pooling => Some("--pooling"),
            Aspect::Bands => Some("--bands"),
            Aspect::Imputation => Some("--missing-bands"),
            Aspect::Normalization => Some("--normalization"),
            Aspect::Protocol(_) => Some("--protocol"),
            Aspect::Data | Aspect::Length | Aspect::InputSize => None,
        }
    }
}

/// How a record's number was made. Ordered and equal by all aspects; [`SettingKey::differences`] passes over what one side
/// does not tell.
///
/// `Display` names every aspect; [`SettingKey::among`] only those that differ.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SettingKey {
    /// The protocol's name: its settings are compared with those of the same protocol only.
    protocol: String,
    /// As shown.
    aspects: BTreeMap<Aspect, String>,
}

impl SettingKey {
    /// The key of a record.
    pub fn of(record: &Record) -> Self {
        let made = &record.provenance;
        let data = if record.demo { "generated data" } else { "real data" };
        let length = if record.short { "shortened" } else { "whole protocol" };
        let named = [
            (Aspect::Weights, made.weights.clone()),
            (Aspect::Coverage, made.coverage().to_string()),
            (Aspect::Data, data.to_owned()),
            (Aspect::Length, length.to_owned()),
            (Aspect::Sensor, made.sensors()),
            (Aspect::Channels, made.channels.clone()),
            (Aspect::Inputs, made.inputs.to_string()),
            (Aspect::Bands, made.band_names.clone()),
            (Aspect::Imputation, imputation(&made.imputed)),
            (Aspect::Normalization, made.normalization.clone()),
            (Aspect::InputSize, format!("{0} x {0}", made.image_size)),
        ];
        let pooling = made.pooling.map(|pooling| (Aspect::Pooling, pooling.to_string()));
        let protocol = record.protocol_settings.iter();
        let protocol = protocol.map(|(name, value)| (Aspect::Protocol(name.clone()), value.clone()));
        SettingKey {
            protocol: record.cell.protocol.clone(),
            aspects: named.into_iter().chain(pooling).chain(protocol).collect(),
        }
    }

    /// The same key without some aspects, for those to whom they do not matter: a gate across trainings passes over the weights.
    #[must_use]
    pub fn without(mut self, passed_over: impl Fn(&Aspect) -> bool) -> Self {
        self.aspects.retain(|aspect, _| !passed_over(aspect));
        self
    }

    /// The same key, to be compared over protocols.
    #[must_use]
    pub fn of_any_protocol(mut self) -> Self {
        self.protocol.clear();
        self
    }

    /// Gives an aspect another value.
    pub fn set(&mut self, aspect: Aspect, value: String) {
        self.aspects.insert(aspect, value);
    }

    /// The value of an aspect as shown; nothing where the record does not tell.
    pub fn get(&self, aspect: &Aspect) -> Option<&str> {
        self.aspects.get(aspect).map(String::as_str)
    }

    /// The aspects in which the two differ, but for settings of different protocols and for what a record of schema 1 does
    /// not tell.
    pub fn differences(&self, other: &SettingKey) -> Vec<Aspect> {
        let tells = |key: &SettingKey| key.aspects.keys().any(Aspect::is_protocol);
        let untold = |aspect: &Aspect| {
            *aspect == Aspect::Pooling && (self.get(aspect).is_none() || other.get(aspect).is_none())
        };
        let protocols = self.protocol == other.protocol && tells(self) && tells(other);
        let aspects: BTreeSet<&Aspect> = self.aspects.keys().chain(other.aspects.keys()).collect();
        let aspects = aspects.into_iter().filter(|aspect| protocols || !aspect.is_protocol());
        aspects.filter(|aspect| !untold(aspect) && self.get(aspect) != other.get(aspect)).cloned().collect()
    }

    /// Whether the two differ in nothing: see [`SettingKey::differences`].
    pub fn is_same(&self, other: &SettingKey) -> bool {
        // Most are equal, which is quickly seen.
        self == other || self.differences(other).is_empty()
    }

    /// The values of these aspects: `sensor s2-l2a, normalisation satlas`.
    pub fn tell<'k>(&'k self, aspects: impl IntoIterator<Item = &'k Aspect>) -> String {
        let aspects: Vec<&Aspect> = aspects.into_iter().collect();
        // `random:0` says it already.
        let random = self.get(&Aspect::Weights).is_some_and(|weights| weights.starts_with("random:"));
        let said =
            |aspect: &Aspect| *aspect == Aspect::Coverage && random && aspects.contains(&&Aspect::Weights);
        let told: Vec<String> =
            aspects.iter().filter(|aspect| !said(aspect)).map(|aspect| self.told(aspect)).collect();
        told.join(", ")
    }

    /// Only what tells this key from `others`: `weights 5f3c9a1be204, normalisation satlas`. Empty where nothing does.
    pub fn among<'k>(&self, others: impl IntoIterator<Item = &'k SettingKey>) -> String {
        let differing: BTreeSet<Aspect> =
            others.into_iter().flat_map(|other| self.differences(other)).collect();
        self.tell(&differing)
    }

    fn told(&self, aspect: &Aspect) -> String {
        let value = self.get(aspect).unwrap_or("not set");
        match aspect {
            Aspect::Weights => format!("weights {}", short(value)),
            Aspect::Coverage | Aspect::Data | Aspect::Length => value.to_owned(),
            Aspect::Sensor => format!("sensor {value}"),
            Aspect::Channels => format!("channels {value}"),
            Aspect::Inputs => format!("inputs {value}"),
            Aspect::Pooling => format!("pooling {value}"),
            Aspect::Bands => format!("bands {value}"),
            Aspect::Imputation => format!("imputed {value}"),
            Aspect::Normalization => format!("normalisation {value}"),
            Aspect::InputSize => format!("input {value}"),
            Aspect::Protocol(name) => format!("{name} {value}"),
        }
    }
}

impl fmt::Display for SettingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.tell(self.aspects.keys()))
    }
}

/// `B02 for B01, B8A for B09`, or `nothing`.
fn imputation(imputed: &[Imputation]) -> String {
    let pairs: Vec<String> =
        imputed.iter().map(|pair| format!("{} for {}", pair.source, pair.target)).collect();
    if pairs.is_empty() { "nothing".to_owned() } else { pairs.join(", ") }
}

/// Enough of a hash to tell it from others; `random:<seed>` as it is.
pub fn short(hash: &str) -> &str {
    if hash.starts_with("random:") {
        return hash;
    }
    let digits = hash.strip_prefix("blake3:").unwrap_or(hash);
    digits.get(..12).unwrap_or(digits)
}

/// A protocol's settings for a record, by dotted name: `k` is `20`, `optimizer.momentum` is `0.9`, a list is its JSON.
/// Those of the interval are left out: they move no value.
///
/// # Errors
/// Where the protocol has no JSON form.
pub fn protocol_settings(protocol: &impl Serialize) -> Result<BTreeMap<String, String>> {
    // By way of the text: a number keeps the digits of its own type.
    let text = serde_json::to_string(protocol).map_err(Error::mismatch)?;
    let mut settings = BTreeMap::new();
    flatten("", &serde_json::from_str(&text).map_err(Error::mismatch)?, &mut settings);
    settings.retain(|name, _| name != "interval" && !name.starts_with("interval."));
    Ok(settings)
}

fn flatten(name: &str, value: &serde_json::Value, settings: &mut BTreeMap<String, String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (field, value) in fields {
                let name = if name.is_empty() { field.clone() } else { format!("{name}.{field}") };
                flatten(&name, value, settings);
            }
        }
        serde_json::Value::String(text) => drop(settings.insert(name.to_owned(), text.clone())),
        other => drop(settings.insert(name.to_owned(), other.to_string())),
    }
}
