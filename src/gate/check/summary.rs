//! The gate's result as a table in GitHub-flavoured Markdown.

use std::collections::BTreeMap;

use super::{CheckedCell, How, Verdict};
use crate::metrics::paired::Test;
use crate::record::Unreadable;
use crate::report::tables::paired::{interval, p_value};
use crate::report::tables::text::{escape, escape_sentence, grid};

/// Formats the counts of verdicts, the table of cells, and the records that could not be compared.
pub fn summary(rows: &[CheckedCell], unreadable: &[Unreadable]) -> String {
    let mut counts: BTreeMap<(Verdict, &str), usize> = BTreeMap::new();
    rows.iter().for_each(|row| *counts.entry((row.verdict, row.word())).or_default() += 1);
    let counted: Vec<String> = counts.iter().map(|((_, word), count)| format!("{count} {word}")).collect();
    let failed = rows.iter().any(|row| row.verdict.fails());
    let heading = match (failed, unreadable.is_empty()) {
        (true, _) => "Accuracy check: failed",
        (false, false) => "Accuracy check: incomplete",
        (false, true) => "Accuracy check: passed",
    };
    let header =
        ["Verdict", "Cell", "Metric", "Reference", "Now", "Difference", "Compared"].map(String::from);
    let lines: Vec<Vec<String>> = rows.iter().map(line).collect();
    let mut text = format!("## {heading}\n\n{}.\n\n{}", counted.join(", "), grid(&header, &lines));
    let finding = |row: &CheckedCell, finding: &String| {
        format!("- {}: {}\n", escape_sentence(&row.name()), escape_sentence(finding))
    };
    let mut findings: Vec<String> =
        rows.iter().flat_map(|row| row.findings.iter().map(|text| finding(row, text))).collect();
    findings.extend(
        unreadable.iter().map(|one| format!("- not compared: {}\n", escape_sentence(&one.to_string()))),
    );
    if !findings.is_empty() {
        text += &format!("\n{}", findings.concat());
    }
    text
}

fn line(row: &CheckedCell) -> Vec<String> {
    let scale = row.metric.about().scale;
    let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| scale.fine(value));
    let verdict = match row.verdict.fails() {
        true => format!("**{}**", row.word()),
        false => row.word().to_owned(),
    };
    vec![
        verdict,
        escape(&row.name()),
        row.metric.to_string(),
        number(row.reference),
        number(row.now),
        row.difference().map_or("-".to_owned(), |difference| scale.fine_difference(difference)),
        how(row),
    ]
}

/// Formats how a cell was compared: `[-1.20, 0.30], 98.5 % alike`.
pub(crate) fn how(row: &CheckedCell) -> String {
    match row.how {
        None => "-".to_owned(),
        Some(How::Values(why)) => format!("values only: {why}"),
        Some(How::Samples { paired, agreement }) => {
            // Without differing samples there is nothing to test.
            let p = match paired.test {
                Test::Sign { a, b } if a + b > 0 => format!(", p = {}", p_value(&paired)),
                _ => String::new(),
            };
            format!("{}{p}, {agreement:.1} % alike", interval(&paired, row.metric.about().scale))
        }
    }
}
