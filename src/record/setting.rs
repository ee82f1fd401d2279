//! How a number was made, as one key for tables, the gate, comparisons and the HTML page.
//!
//! A cell (suite, task, partition, protocol, model, seed) says what was measured; its [`SettingKey`] says how. Two records
//! of a cell may replace each other, be averaged or be compared only if their settings agree.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::Record;
use crate::features::vectors::PREFIX;
use crate::task::bands::Imputation;
use crate::{Error, Result};

/// One aspect of how a number was made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Aspect {
    /// Hash of the weights file, or `random:<seed>`.
    Weights,
    /// Whether the weights cover the whole model: see [`crate::model::Coverage`].
    Coverage,
    /// Whether the data are real or generated.
    Data,
    /// Whether the protocol was shortened on the command line.
    Length,
    /// Sensor passed to the model.
    Sensor,
    /// The subset of the model's bands that it received.
    Channels,
    /// Whether the model received the bands of the published numbers or the bands it was trained on.
    Inputs,
    /// How tokens were pooled to one vector.
    Pooling,
    /// Whether bands were identified by name or by content.
    Bands,
    /// Which bands replaced missing ones.
    Imputation,
    /// Which bands the model took as its own; not stated unless the images are of a sensor that it lacks.
    Matching,
    /// How pixels were normalised.
    Normalization,
    /// Height and width of the model's input.
    InputSize,
    /// Number of blocks that the features come after; not stated for the whole model.
    Depth,
    /// How images were resized; not stated if as the suite does it.
    Resize,
    /// The model whose features stand beside this one's; not stated without one.
    Beside,
    /// The number format in which the frozen model computed; not stated for float32.
    Precision,
    /// What the model was given about each image besides its pixels.
    Metadata,
    /// A setting of the protocol, by its name in the protocol's TOML file: `k`, `order`, `optimizer.momentum`.
    Protocol(String),
}

impl Aspect {
    /// Whether this is a setting of the protocol, which records of schema 1 do not contain.
    pub fn is_protocol(&self) -> bool {
        matches!(self, Aspect::Protocol(_))
    }

    /// The command-line option that sets it, if there is one.
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
            Aspect::Precision => Some("--precision"),
            Aspect::Protocol(_) => Some("--protocol"),
            Aspect::Data
            | Aspect::Length
            | Aspect::InputSize
            | Aspect::Depth
            | Aspect::Resize
            | Aspect::Beside
            | Aspect::Matching
            | Aspect::Metadata => None,
        }
    }
}

/// How a record's number was made. Order and equality use all aspects; [`SettingKey::differences`] ignores those that one
/// side does not state.
///
/// `Display` shows every aspect; [`SettingKey::among`] only those that differ.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SettingKey {
    /// Name of the protocol: settings are compared only within one protocol.
    protocol: String,
    /// The aspects and their values as displayed.
    aspects: BTreeMap<Aspect, String>,
}

impl SettingKey {
    /// Returns the key of a record.
    pub fn of(record: &Record) -> Self {
        let made = &record.provenance;
        let data = if record.demo { "generated data" } else { "real data" };
        let length = if record.short { "shortened" } else { "whole protocol" };
        let named = [
            (Aspect::Weights, made.weights_setting()),
            (Aspect::Coverage, made.coverage().to_string()),
            (Aspect::Data, data.to_owned()),
            (Aspect::Length, length.to_owned()),
            (Aspect::Sensor, made.sensors()),
            (Aspect::Channels, made.channels.clone()),
            (Aspect::Inputs, made.inputs.to_string()),
            (Aspect::Bands, made.band_names.clone()),
            (Aspect::Imputation, imputation(&made.imputed)),
            (Aspect::Normalization, made.normalization.clone()),
            (Aspect::InputSize, made.input_size()),
        ];
        let precision = (!made.precision.is_f32()).then(|| (Aspect::Precision, made.precision.to_string()));
        let depth = made.depth.map(|blocks| (Aspect::Depth, format!("block {blocks}")));
        let resize = made.resize.map(|rule| (Aspect::Resize, rule.to_string()));
        let beside = |beside: &super::Beside| format!("{} ({})", beside.model, short(&beside.weights));
        let beside = made.beside.as_ref().map(|other| (Aspect::Beside, beside(other)));
        let matches: Vec<String> = made.matched.iter().map(ToString::to_string).collect();
        let matching = (!matches.is_empty()).then(|| (Aspect::Matching, matches.join(", ")));
        let pooling = made.pooling.map(|pooling| (Aspect::Pooling, pooling.to_string()));
        let kinds: Vec<String> = made.metadata.iter().map(ToString::to_string).collect();
        let metadata = (!kinds.is_empty()).then(|| (Aspect::Metadata, kinds.join(", ")));
        let protocol = record.protocol_settings.iter();
        let protocol = protocol.map(|(name, value)| (Aspect::Protocol(name.clone()), value.clone()));
        SettingKey {
            protocol: record.cell.protocol.clone(),
            aspects: named
                .into_iter()
                .chain(depth)
                .chain(resize)
                .chain(beside)
                .chain(precision)
                .chain(pooling)
                .chain(matching)
                .chain(metadata)
                .chain(protocol)
                .collect(),
        }
    }

    /// Removes aspects that do not matter to the caller: a gate across trainings ignores the weights.
    #[must_use]
    pub fn without(mut self, passed_over: impl Fn(&Aspect) -> bool) -> Self {
        self.aspects.retain(|aspect, _| !passed_over(aspect));
        self
    }

    /// Removes the protocol, so that keys can be compared across protocols.
    #[must_use]
    pub fn of_any_protocol(mut self) -> Self {
        self.protocol.clear();
        self
    }

    /// Sets the value of an aspect.
    pub fn set(&mut self, aspect: Aspect, value: String) {
        self.aspects.insert(aspect, value);
    }

    /// The value of an aspect as displayed; `None` if the record does not state it.
    pub fn get(&self, aspect: &Aspect) -> Option<&str> {
        self.aspects.get(aspect).map(String::as_str)
    }

    /// Lists the aspects in which the two differ, ignoring settings of different protocols and those that a record of schema 1
    /// does not state.
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

    /// Whether there are no differences: see [`SettingKey::differences`].
    pub fn is_same(&self, other: &SettingKey) -> bool {
        // Most keys are equal, which is quick to check.
        self == other || self.differences(other).is_empty()
    }

    /// Formats the values of these aspects: `sensor s2-l2a, normalisation satlas`.
    pub fn tell<'k>(&'k self, aspects: impl IntoIterator<Item = &'k Aspect>) -> String {
        let aspects: Vec<&Aspect> = aspects.into_iter().collect();
        // `random:0` already implies the coverage.
        let random = self.get(&Aspect::Weights).is_some_and(|weights| weights.starts_with("random:"));
        let said =
            |aspect: &Aspect| *aspect == Aspect::Coverage && random && aspects.contains(&&Aspect::Weights);
        let told: Vec<String> =
            aspects.iter().filter(|aspect| !said(aspect)).map(|aspect| self.told(aspect)).collect();
        told.join(", ")
    }

    /// Formats only what distinguishes this key from `others`, such as `weights 5f3c9a1be204, normalisation satlas`; empty if
    /// nothing does.
    pub fn among<'k>(&self, others: impl IntoIterator<Item = &'k SettingKey>) -> String {
        let differing: BTreeSet<Aspect> =
            others.into_iter().flat_map(|other| self.differences(other)).collect();
        self.tell(&differing)
    }

    fn told(&self, aspect: &Aspect) -> String {
        let absent = match aspect {
            Aspect::Precision => "f32",
            Aspect::Depth => "the last block",
            Aspect::Resize => "as the suite",
            Aspect::Beside => "no model",
            Aspect::Matching => "its own sensor",
            _ => "not set",
        };
        let value = self.get(aspect).unwrap_or(absent);
        match aspect {
            Aspect::Weights => format!("weights {}", short(value)),
            Aspect::Coverage | Aspect::Data | Aspect::Length => value.to_owned(),
            Aspect::Sensor => format!("sensor {value}"),
            Aspect::Channels => format!("channels {value}"),
            Aspect::Inputs => format!("inputs {value}"),
            Aspect::Pooling => format!("pooling {value}"),
            Aspect::Bands => format!("bands {value}"),
            Aspect::Imputation => format!("imputed {value}"),
            Aspect::Matching => format!("bands by wavelength {value}"),
            Aspect::Normalization => format!("normalisation {value}"),
            Aspect::InputSize => format!("input {value}"),
            Aspect::Depth => format!("features after {value}"),
            Aspect::Resize => format!("resized {value}"),
            Aspect::Beside => format!("beside {value}"),
            Aspect::Precision => format!("precision {value}"),
            Aspect::Metadata => format!("metadata {value}"),
            Aspect::Protocol(name) => format!("{name} {value}"),
        }
    }
}

impl fmt::Display for SettingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.tell(self.aspects.keys()))
    }
}

/// Formats as `B02 for B01, B8A for B09`, or `nothing`.
fn imputation(imputed: &[Imputation]) -> String {
    let pairs: Vec<String> =
        imputed.iter().map(|pair| format!("{} for {}", pair.source, pair.target)).collect();
    if pairs.is_empty() { "nothing".to_owned() } else { pairs.join(", ") }
}

/// Beginning of the identity of features from files.
const HASHED: &str = "vectors:blake3:";

/// Shortens a hash, keeping enough digits to identify it; `random:<seed>` and declared names stay as they are.
pub fn short(hash: &str) -> &str {
    if hash.starts_with("random:") || (hash.starts_with(PREFIX) && !hash.starts_with(HASHED)) {
        return hash;
    }
    let digits = hash.strip_prefix(HASHED).unwrap_or(hash);
    let digits = digits.strip_prefix("blake3:").unwrap_or(digits);
    digits.get(..12).unwrap_or(digits)
}

/// Flattens a protocol's settings for a record, by dotted name: `k` is `20`, `optimizer.momentum` is `0.9`, a list is JSON.
/// Leaves out the interval's settings, which do not affect any value.
///
/// # Errors
/// If the protocol has no JSON form.
pub fn protocol_settings(protocol: &impl Serialize) -> Result<BTreeMap<String, String>> {
    // Convert through text so that numbers keep the digits of their own type.
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
