//! A model card: what was measured of each model, with everything that affected it, as Markdown for readers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::tables::text::{escape, escape_sentence, grid};
use crate::record::{Record, SettingKey};

/// Who hands over the results.
#[derive(Debug, Clone, Copy)]
pub struct Handover<'a> {
    /// Name of the person or group.
    pub contributor: &'a str,
    /// How to reach them.
    pub contact: Option<&'a str>,
}

/// Writes the card of all models of these records, by suite.
pub fn model_card(handover: Handover, records: &[&Record]) -> String {
    let mut text = format!("# Results of {}\n\n", escape(handover.contributor));
    if let Some(contact) = handover.contact {
        let _ = writeln!(text, "Contact: {}\n", escape_sentence(contact));
    }
    text += "Written by `cargo xtask contribute` from the records beside this file, which are what counts. \
             `contribution.json` holds the digest of every file. `cargo xtask report --with` shows these results beside \
             others, `cargo xtask check --reference` compares others with them.\n";
    let mut models: BTreeMap<(&str, &str), Vec<&Record>> = BTreeMap::new();
    for record in records {
        models.entry((&record.cell.model, &record.cell.backbone)).or_default().push(record);
    }
    for ((model, backbone), records) in models {
        let _ = write!(text, "\n## {}\n\n", escape(format!("{model} {backbone}").trim_end()));
        text += &facts(&records);
        text += "\n### Values\n\n";
        text += &values(&records);
        let notes: BTreeSet<String> =
            records.iter().flat_map(|record| &record.notes).map(ToString::to_string).collect();
        if !notes.is_empty() {
            text += "\n### Notes\n\n";
            notes.iter().for_each(|note| text += &format!("- {}\n", escape_sentence(note)));
        }
        text += "\n### Settings\n\n";
        text += &settings(&records);
    }
    text
}

/// Lists distinct facts about a model's records.
fn facts(records: &[&Record]) -> String {
    fn distinct<'r>(records: &[&'r Record], of: impl Fn(&'r Record) -> Option<String>) -> String {
        let all: BTreeSet<String> = records.iter().filter_map(|record| of(record)).collect();
        all.into_iter().map(|fact| escape_sentence(&fact)).collect::<Vec<_>>().join("; ")
    }
    let program = |record: &Record| {
        let made = &record.provenance;
        let dirty = if made.git_dirty { ", sources changed since" } else { "" };
        let revision = made.git_revision.as_ref().map(|revision| format!(" ({revision}{dirty})"));
        Some(format!("terrabench {}{}", made.terrabench, revision.unwrap_or_default()))
    };
    let lines = [
        ("Weights", distinct(records, |record| Some(record.provenance.weights.clone()))),
        ("Weights cover", distinct(records, |record| Some(record.provenance.coverage().to_string()))),
        (
            "Declared, not checked",
            distinct(records, |record| {
                let declared = record.provenance.declared.iter();
                let declared: Vec<String> = declared.map(|(name, text)| format!("{name} {text}")).collect();
                (!declared.is_empty()).then(|| declared.join(", "))
            }),
        ),
        ("Normalisation", distinct(records, |record| Some(record.provenance.normalization.clone()))),
        ("Input", distinct(records, |record| Some(record.provenance.input_size()))),
        ("Protocols", distinct(records, |record| Some(record.cell.protocol.clone()))),
        (
            "Data",
            distinct(records, |record| {
                let demo = if record.demo { " (generated: not a benchmark number)" } else { "" };
                let data = record.provenance.data.get(..12).unwrap_or(&record.provenance.data);
                Some(format!("{} {} {}{demo}", record.cell.task, record.cell.partition, data))
            }),
        ),
        ("Program", distinct(records, program)),
        (
            "Machine",
            distinct(records, |record| {
                Some(format!("{}, {} threads", record.provenance.device, record.provenance.threads))
            }),
        ),
    ];
    let told = lines.into_iter().filter(|(_, fact)| !fact.is_empty());
    told.map(|(name, fact)| format!("- {name}: {fact}\n")).collect()
}

/// Renders a line per record.
fn values(records: &[&Record]) -> String {
    let header = ["Suite", "Task", "Partition", "Protocol", "Seed", "Metric", "Value", "Interval", "Record"];
    let row = |record: &&Record| {
        let (cell, scale) = (&record.cell, record.metric.about().scale);
        let interval = record.interval.map_or("-".to_owned(), |interval| {
            format!("[{}, {}]", scale.shown(interval.low), scale.shown(interval.high))
        });
        vec![
            escape(&cell.suite),
            escape(&cell.task),
            escape(&cell.partition),
            escape(&cell.protocol),
            cell.seed.to_string(),
            record.metric.to_string(),
            scale.shown(record.value).to_string(),
            interval,
            format!("`{}`", record.file_name()),
        ]
    };
    grid(&header.map(str::to_owned), &records.iter().map(row).collect::<Vec<_>>())
}

/// Lists each setting in full, with the protocol that it belongs to.
fn settings(records: &[&Record]) -> String {
    let setting = |record: &&Record| {
        format!(
            "- {}: {}\n",
            escape(&record.cell.protocol),
            escape_sentence(&SettingKey::of(record).to_string())
        )
    };
    records.iter().map(setting).collect::<BTreeSet<String>>().into_iter().collect()
}
