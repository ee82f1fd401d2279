//! All that must know that of errors the lowest is the best: the gate, tables, published values, pictures.

use std::path::Path;

use terrabench::gate::Suites;
use terrabench::gate::check::{self, CheckedCell, Thresholds, Verdict, summary};
use terrabench::gate::rescore::rescore;
use terrabench::home::Home;
use terrabench::metrics::{Better, Metric, bootstrap};
use terrabench::record::predictions::Named;
use terrabench::record::{Record, Store, collect};
use terrabench::report::pictures::{differences, shares, spider};
use terrabench::report::tables::published::{self, Mark, Published, PublishedValue};
use terrabench::report::tables::table::{Column, ResultTable, TableRow, fill};
use terrabench::report::{csv, markdown};
use terrabench::score::{Predictions, Scoring, Targets};
use terrabench::task::{Suite, Table, TargetKind};

use crate::generated::unit;
use crate::sample::{identify, record};

fn home() -> Home {
    Home::find().unwrap()
}

fn values(predicted: &[f32], truth: &[f32]) -> Predictions {
    Predictions::Targets {
        predicted: Targets::Values(predicted.into()),
        truth: Targets::Values(truth.into()),
    }
}

// The gate ------------------------------------------------------------------------------------------------------------

/// Predictions of 60 numbers that are off by about `error`.
fn off_by(error: f64) -> Predictions {
    let truth: Vec<f32> = (0..60).map(|i| (100.0 * unit(i)) as f32).collect();
    let off = |(i, t): (usize, &f32)| t + (error * (0.5 + unit(i as u64 + 500))) as f32;
    values(&truth.iter().enumerate().map(off).collect::<Vec<f32>>(), &truth)
}

/// Puts a record of these predictions into a store, with them or without.
fn keep(store: &Store, metric: Metric, predictions: Predictions, with_predictions: bool) -> Record {
    let mut record = record();
    let scorer = predictions.scorer(metric).unwrap();
    let interval =
        bootstrap::interval(scorer.samples(), 0.95, 100, record.cell.seed, |i| scorer.score(i)).unwrap();
    (record.metric, record.value, record.interval) = (metric, scorer.all(), Some(interval));
    record.scores = predictions.scores(&[]);
    record.scores.remove(&metric.to_string());
    record.samples.insert("test".to_owned(), predictions.len());
    identify(&mut record);
    if with_predictions {
        let samples = (0..predictions.len()).map(|i| format!("sample {i}")).collect();
        let scoring = Some(Scoring { resamples: Some(100), ..Scoring::default() });
        store
            .put_predictions(
                &record,
                &Named { samples, predictions, scoring, supplement: Default::default() },
            )
            .unwrap();
    }
    store.put(&record).unwrap();
    record
}

fn checked(metric: Metric, now: f64, before: f64, with_predictions: bool) -> Vec<CheckedCell> {
    let folder = tempfile::tempdir().unwrap();
    let thresholds =
        Thresholds::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/check.toml")).unwrap();
    let sides = [("now", now), ("before", before)].map(|(name, error)| {
        let path = folder.path().join(name);
        keep(&Store::open(&path).unwrap(), metric, off_by(error), with_predictions);
        collect(&path).unwrap()
    });
    check::check(&sides[0], &sides[1], &thresholds, &Suites::default()).unwrap()
}

#[test]
fn the_gate_fails_on_an_error_that_rose_and_not_on_one_that_fell() {
    for with_predictions in [true, false] {
        for metric in [Metric::Rmse, Metric::Mae] {
            let rose = checked(metric, 24.0, 20.0, with_predictions);
            assert_eq!(rose[0].verdict, Verdict::Fell, "{metric} {:?}", rose[0]);
            assert!(summary(&rose, &[]).contains("**worse**"), "{}", summary(&rose, &[]));
            let fell = checked(metric, 20.0, 24.0, with_predictions);
            assert_eq!(fell[0].verdict, Verdict::Rose, "{metric} {:?}", fell[0]);
            assert_eq!(checked(metric, 20.0, 20.0, with_predictions)[0].verdict, Verdict::Same);
        }
        assert_eq!(checked(Metric::R2, 24.0, 12.0, with_predictions)[0].verdict, Verdict::Fell);
    }
}

#[test]
fn the_gate_s_threshold_of_an_error_is_a_share_of_the_reference() {
    // 0.05 of 20 is below one percent, 0.4 of 20 is two.
    assert_eq!(checked(Metric::Rmse, 20.05, 20.0, true)[0].verdict, Verdict::Same);
    assert_eq!(checked(Metric::Rmse, 20.5, 20.0, true)[0].verdict, Verdict::Fell);
}

#[test]
fn recorded_scores_of_numbers_are_computed_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let mut record = keep(&store, Metric::Rmse, off_by(1780.33), true);
    assert!(record.value > 1000.0);
    let claims = || {
        let (rescored, unreadable) = rescore(&collect(folder.path()).unwrap(), &[], &Suites::default());
        assert!(unreadable.is_empty(), "{unreadable:?}");
        rescored[0].contradictions.clone()
    };
    assert_eq!(claims(), [""; 0]);
    *record.scores.get_mut("mae").unwrap() += 0.001;
    store.put(&record).unwrap();
    assert!(claims()[0].contains("mae is recorded as"), "{:?}", claims());
}

#[test]
fn a_record_holds_an_error_of_any_size_but_no_negative_one() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let mut record = record();
    (record.metric, record.value, record.interval) = (Metric::Rmse, 1780.33, None);
    store.put(&record).unwrap();
    assert_eq!(store.all().unwrap()[0].value, 1780.33);
    record.value = -1.0;
    assert!(store.put(&record).unwrap_err().to_string().contains("a number from 0 up"));
    record.metric = Metric::Accuracy;
    record.value = 1780.33;
    assert!(store.put(&record).unwrap_err().to_string().contains("expected a percentage"));
}

// Tables and pictures -------------------------------------------------------------------------------------------------

/// A table of one column of errors with these published values.
fn one_column(values: &[f64]) -> (Suite, Table, Published) {
    let mut suite = Suite::load(&home(), "geobench").unwrap();
    let task = suite.tasks.iter_mut().find(|task| task.name == "m-eurosat").unwrap();
    (task.target, task.classes, task.metric) = (TargetKind::Value, 1, Metric::Rmse);
    (task.unit, task.class_names) = (Some("Mg/ha".into()), Vec::new());
    let mut table = suite.tables.iter().find(|table| table.file == "knn").unwrap().clone();
    (table.tasks, table.partitions) = (vec!["m-eurosat".into()], vec!["default".into()]);
    let mut published = published::read(&home().published(&table.published)).unwrap();
    let template = published.values[0].clone();
    let value = |(i, value): (usize, &f64)| PublishedValue {
        model: if i == 0 { "TerraFM".into() } else { format!("model {i}") },
        backbone: "ViT-Base".into(),
        metric: "rmse".into(),
        dataset: "m-eurosat".into(),
        partition: "default".into(),
        value: *value,
        ..template.clone()
    };
    published.values = values.iter().enumerate().map(value).collect();
    (suite, table, published)
}

fn measured(value: f64) -> Record {
    let mut record = record();
    (record.metric, record.value) = (Metric::Rmse, value);
    record.interval =
        record.interval.map(|i| terrabench::record::Interval { low: value - 1.5, high: value + 1.25, ..i });
    identify(&mut record);
    record
}

fn marks(table: &ResultTable) -> Vec<Mark> {
    let rows = table.published.iter().chain(&table.measured);
    rows.map(|row: &TableRow| row.cells[0].as_ref().unwrap().mark).collect()
}

#[test]
fn of_errors_the_lowest_is_bold_and_the_next_italic() {
    use Mark::{Bold, Italic, None};
    let (suite, table, published) = one_column(&[68.1, 66.3, 74.1, 66.304]);
    let records = [measured(67.25)];
    let filled = fill(&table, &suite, &published, &records, false).unwrap();
    // 66.304 is shown as 66.30, as 66.3 is.
    assert_eq!(marks(&filled), [None, Bold, None, Bold, Italic]);
}

#[test]
fn a_table_of_errors_names_their_unit_and_no_percent() {
    let (suite, table, published) = one_column(&[1781.3, 1766.8]);
    let records = [measured(1780.33)];
    let filled = fill(&table, &suite, &published, &records, false).unwrap();
    let text = markdown(&filled);
    assert!(text.contains("RMSE in Mg/ha"), "{text}");
    assert!(text.contains("_1780.33_ [1778.83, 1781.58] (-0.97)"), "{text}");
    assert!(text.contains("**1766.80**") && text.contains("For RMSE, lower is better."), "{text}");
    assert!(!text.contains("All values in percent"), "{text}");
    assert!(
        csv(&filled).unwrap().contains(",1780.33,1778.83,1781.58,1781.3,-0.97,true,"),
        "{}",
        csv(&filled).unwrap()
    );
}

#[test]
fn published_errors_may_exceed_a_hundred_and_percentages_may_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("published.csv");
    let read = |metric: &str, value: &str| {
        let lines = "# Source: a paper\nmodel,dataset,protocol,metric,value,mark\n";
        std::fs::write(&path, format!("{lines}A,x,frozen,{metric},{value},\n")).unwrap();
        published::read(&path).map(|published| published.values[0].value).map_err(|e| e.to_string())
    };
    assert_eq!(read("rmse", "1780.33"), Ok(1780.33));
    assert_eq!(read("r2", "-0.5"), Ok(-0.5));
    assert!(read("rmse", "-1").unwrap_err().contains("a number from 0 up"));
    assert!(read("miou", "1780.33").unwrap_err().contains("not a percentage"));
}

#[test]
fn a_spider_s_axis_of_errors_is_turned_round_and_says_so() {
    let (mut suite, table, published) = one_column(&[68.1, 66.3, 74.1]);
    let filled = fill(&table, &suite, &published, &[], false).unwrap();
    let definition = suite.spider.as_mut().unwrap();
    definition.axes.retain(|axes| axes.table == "knn" && axes.partition == "default");
    definition.models = vec!["model 1".into(), "model 2".into()];
    // A plot needs three axes: the same column thrice, as three tables.
    let tables: Vec<(&str, &ResultTable)> = vec![("knn", &filled); 3];
    let chart = spider::chart(definition, &tables, &spider::Choice::default()).unwrap().unwrap();
    assert!(chart.axes.iter().all(|axis| axis.scale.better == Better::Lower));
    assert!(chart.axes[0].subtitle.ends_with("RMSE in Mg/ha ↓"), "{}", chart.axes[0].subtitle);
    let picture = terrabench::canvas::svg(&spider::draw(&chart));
    assert!(picture.contains("from the worst to the best model") && picture.contains("66.30"), "{picture}");
    // The lower error lies further out: its first point is higher up in the picture.
    let first = |name: &str| {
        let drawn = spider::draw(&chart);
        let layers = drawn.layers.iter().filter(|layer| layer.owner.as_deref() == Some(name));
        layers.flat_map(|layer| &layer.shapes).find_map(|shape| match shape {
            terrabench::canvas::Shape::Dot { center, .. } => Some(center.1),
            _ => None,
        })
    };
    assert!(first("model 1").unwrap() < first("model 2").unwrap());
}

#[test]
fn differences_of_errors_are_bars_in_percent_of_the_published_value() {
    let (suite, table, published) = one_column(&[68.1, 66.3]);
    let records = [measured(66.0)];
    let filled = fill(&table, &suite, &published, &records, false).unwrap();
    let picture = terrabench::canvas::svg(&differences::draw(&filled).unwrap());
    assert!(picture.contains("-2.10") && picture.contains("in percent of it"), "{picture}");
    assert!(picture.contains("a bar to the left is an improvement"), "{picture}");
}

#[test]
fn a_further_score_has_its_own_scale() {
    let (suite, mut table, published) = one_column(&[68.1]);
    table.scores = vec!["r2".into()];
    let filled = fill(&table, &suite, &published, &[], false).unwrap();
    let titles: Vec<String> = filled.columns.iter().map(Column::metric_title).collect();
    assert_eq!(titles, ["RMSE in Mg/ha", "R²"]);
    assert_eq!(
        filled.columns.iter().map(|column| column.scale().better).collect::<Vec<_>>(),
        [Better::Lower, Better::Higher]
    );
}

#[test]
fn errors_against_the_share_of_training_data_keep_their_decimals_and_unit() {
    let (suite, mut table, published) = one_column(&[0.31]);
    table.partitions = vec!["0.10x_train".into(), "default".into()];
    let of = |partition: &str, value: f64| {
        let mut record = measured(value);
        record.cell.partition = partition.into();
        record.interval = None;
        identify(&mut record);
        record
    };
    let records = [of("0.10x_train", 0.42), of("default", 0.27)];
    let filled = fill(&table, &suite, &published, &records, false).unwrap();
    let picture = terrabench::canvas::svg(&shares::draw(&filled).unwrap());
    assert!(picture.contains("RMSE in Mg/ha (lower is better)"), "{picture}");
    // From 0.26 or 0.25 to 0.45 in steps of 0.05.
    assert!(picture.contains(">0.30<") && picture.contains(">0.40<"), "{picture}");
    assert!(!picture.contains("In percent;"), "{picture}");
}
