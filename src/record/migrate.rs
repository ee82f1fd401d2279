//! Upgrades records of older schemas in memory when they are read. The files do not change.

use serde_json::{Map, Value, json};

/// Upgrades a record from schema 1 to schema 2, which adds how much of the model the weights cover, the revision the program
/// was built from, the configs used and the protocol's settings.
///
/// Schema 1 took `git-revision` from the folder of the configs, not from the program, so it becomes `configs.checkout`.
pub(crate) fn from_1(record: &mut Map<String, Value>) {
    if let Some(Value::Object(made)) = record.get_mut("provenance") {
        let weights = made.get("weights").and_then(Value::as_str).unwrap_or_default();
        let coverage = if weights.starts_with("random:") {
            json!({"state": "random"})
        } else if weights.contains("+random:") {
            json!({"state": "partial"})
        } else {
            json!({"state": "whole"})
        };
        made.insert("coverage".to_owned(), coverage);
        let checkout = made.insert("git-revision".to_owned(), Value::Null);
        let configs = match checkout {
            Some(Value::String(revision)) => json!({"checkout": revision}),
            _ => json!({}),
        };
        made.insert("configs".to_owned(), configs);
    }
    record.insert("schema".to_owned(), json!(2));
}
