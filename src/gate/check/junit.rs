//! The gate's result for CI, as JUnit XML: one test case per cell.

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::summary::how;
use super::{CheckedCell, Verdict};
use crate::record::Unreadable;
use crate::{Error, Result};

/// Writes the XML. New cells count as skipped, because there is nothing to compare them with. Records that could not be
/// compared are errors of the test suite `records`.
///
/// # Errors
/// If the report cannot be built.
pub fn junit(rows: &[CheckedCell], unreadable: &[Unreadable]) -> Result<String> {
    let mut report = Report::new("terrabench check");
    let mut suites: Vec<(String, TestSuite)> = Vec::new();
    for row in rows {
        let cell = &row.cell;
        let setting = if row.setting.is_empty() { String::new() } else { format!(" {}", row.setting) };
        let name = format!("{} {} seed {}{setting}", cell.protocol, cell.partition, cell.seed);
        let mut case = TestCase::new(name, status(row));
        case.set_classname(format!("{}.{}.{} {}", cell.suite, cell.task, cell.model, cell.backbone));
        match suites.iter_mut().find(|(suite, _)| *suite == cell.suite) {
            Some((_, suite)) => drop(suite.add_test_case(case)),
            None => {
                let mut suite = TestSuite::new(cell.suite.clone());
                suite.add_test_case(case);
                suites.push((cell.suite.clone(), suite));
            }
        }
    }
    if !unreadable.is_empty() {
        let mut suite = TestSuite::new("records");
        for one in unreadable {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
            status.set_message(one.to_string()).set_type(one.reason.to_string());
            suite.add_test_case(TestCase::new(one.path.display().to_string(), status));
        }
        suites.push(("records".to_owned(), suite));
    }
    report.add_test_suites(suites.into_iter().map(|(_, suite)| suite));
    report.to_string().map_err(|error| Error::request(format!("cannot build the JUnit report: {error}")))
}

fn status(row: &CheckedCell) -> TestCaseStatus {
    let scale = row.metric.about().scale;
    let number = |value: Option<f64>| value.map_or("nothing".to_owned(), |value| scale.fine(value));
    let text = format!(
        "{} {}: {} against {} in the reference, {}{}",
        row.metric,
        row.word(),
        number(row.now),
        number(row.reference),
        how(row),
        row.findings.iter().map(|finding| format!("; {finding}")).collect::<String>()
    );
    match row.verdict {
        Verdict::New => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(text);
            status
        }
        verdict if verdict.fails() => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message(text).set_type(verdict.word(row.metric.better()));
            status
        }
        _ => TestCaseStatus::success(),
    }
}
