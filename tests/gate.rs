//! What the gate, `compare` and `rescore` guarantee: recorded values are checked against predictions, the right record of a cell
//! counts, differing test samples are found, files that cannot be used are listed.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use ndarray::Array2;
use terrabench::gate::Suites;
use terrabench::gate::check::{self, CheckedCell, Thresholds, Verdict};
use terrabench::gate::choice::Wanted;
use terrabench::gate::compare::{self, compare, side};
use terrabench::home::Home;
use terrabench::metrics::segmentation::Confusion;
use terrabench::metrics::{Metric, bootstrap};
use terrabench::record::predictions::Named;
use terrabench::record::{Interval, Record, Store, collect};
use terrabench::score::predictions::BatchScore;
use terrabench::score::{Predictions, Scoring, Targets};

use crate::sample::{identify, record};

const RESAMPLES: usize = 200;

/// Predictions for `n` samples of two classes, of which the first `right` are correct.
fn classes(n: usize, right: usize) -> Predictions {
    let truth: Vec<usize> = (0..n).map(|i| i % 2).collect();
    let predicted = truth.iter().enumerate().map(|(i, t)| if i < right { *t } else { 1 - t }).collect();
    Predictions::Targets {
        predicted: Targets::Classes { classes: predicted, count: 2 },
        truth: Targets::Classes { classes: truth, count: 2 },
    }
}

/// One image of two classes: per label, the pixels predicted correctly and the pixels predicted as the other class.
fn image([right_0, wrong_0, wrong_1, right_1]: [u64; 4]) -> Confusion {
    let counts = Array2::from_shape_vec((3, 2), vec![right_0, wrong_0, wrong_1, right_1, 0, 0]).unwrap();
    Confusion::from_counts(counts, Some(-1)).unwrap()
}

fn names(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("tile_{i}")).collect()
}

/// The record that `bench` would write for these predictions, then modified by `change`.
fn recorded(predictions: &Predictions, scoring: &Scoring, change: impl Fn(&mut Record)) -> Record {
    let mut record = record();
    if matches!(predictions, Predictions::Masks(_)) {
        record.metric = Metric::Miou;
    }
    let scorer = predictions.scorer(record.metric).unwrap();
    record.value = scorer.all();
    record.interval = scoring.resamples.map(|resamples| {
        bootstrap::interval(scorer.samples(), 0.95, resamples, record.cell.seed, |i| scorer.score(i)).unwrap()
    });
    record.scores = predictions.scores(&scoring.class_names);
    if let Some(batch) = scoring.report_batch {
        let reported = BatchScore::mean(predictions.batch_scores(record.metric, batch).unwrap());
        record.scores.insert(format!("reported_{}", record.metric), reported);
    }
    record.samples.insert("test".to_owned(), predictions.len());
    change(&mut record);
    identify(&mut record);
    record
}

/// Stores a record with `right` of 40 correct samples and its predictions.
fn keep(store: &Store, right: usize, change: impl Fn(&mut Record)) {
    let scoring = Scoring { resamples: Some(RESAMPLES), ..Scoring::default() };
    keep_all(store, classes(40, right), scoring, change);
}

fn keep_all(store: &Store, predictions: Predictions, scoring: Scoring, change: impl Fn(&mut Record)) {
    let record = recorded(&predictions, &scoring, change);
    let samples = names(predictions.len());
    store
        .put_predictions(
            &record,
            &Named { samples, predictions, scoring: Some(scoring), supplement: Default::default() },
        )
        .unwrap();
    store.put(&record).unwrap();
}

struct Sides {
    folder: tempfile::TempDir,
    now: Store,
    before: Store,
}

impl Sides {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let open = |name: &str| Store::open(folder.path().join(name)).unwrap();
        Sides { now: open("now"), before: open("before"), folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn rows(&self) -> Vec<CheckedCell> {
        let [now, before] = ["now", "before"].map(|name| collect(&self.path(name)).unwrap());
        let suites = Suites::load(&Home::find().unwrap(), now.iter().map(|kept| &kept.record));
        check::check(&now, &before, &thresholds(), &suites).unwrap()
    }

    /// Runs `check` and returns the exit code with the complete output.
    fn check(&self, more: &[&str]) -> (Option<i32>, String) {
        let (now, before) = (self.path("now"), self.path("before"));
        let sides = ["check", "--records", text(&now), "--reference", text(&before)];
        let output = terrabench(&[&sides[..], more].concat());
        (output.status.code(), said(&output))
    }
}

fn suites() -> Suites {
    Suites::load(&Home::find().unwrap(), [&record()])
}

fn thresholds() -> Thresholds {
    Thresholds::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/check.toml")).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn terrabench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_terrabench")).args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}

/// Changes the only record of a store, but not its predictions.
fn edit(store: &Store, change: impl Fn(&mut Record)) {
    let mut record = store.all().unwrap().remove(0);
    change(&mut record);
    store.put(&record).unwrap();
}

/// Sets a score of a record regardless of its predictions.
fn score(record: &mut Record, name: &str, value: f64) {
    record.scores.insert(name.to_owned(), value);
}

#[test]
fn a_value_that_contradicts_its_predictions_fails_the_gate_on_either_side() {
    for (side, name) in [("now", "the records"), ("before", "the reference")] {
        let sides = Sides::new();
        keep(&sides.now, 26, |_| {});
        keep(&sides.before, 26, |_| {});
        assert_eq!(sides.check(&[]).0, Some(0));
        let store = if side == "now" { &sides.now } else { &sides.before };
        edit(store, |record| record.value = 35.0);
        let rows = sides.rows();
        assert_eq!(rows[0].verdict, Verdict::Contradictory);
        let (code, told) = sides.check(&[]);
        assert_eq!(code, Some(1), "{told}");
        let claim = format!("{name}: accuracy is recorded as 35.00, its predictions give 65.00");
        assert!(told.contains(&claim) && told.contains("**contradictory**"), "{told}");
        let [now, before] = ["now", "before"].map(|side| sides.path(side));
        let compared = terrabench(&["compare", text(&now), text(&before)]);
        assert_eq!(compared.status.code(), Some(1), "{}", said(&compared));
        assert!(said(&compared).contains("is recorded as 35.00, its predictions give 65.00"));
    }
}

#[test]
fn every_recorded_number_is_recomputed() {
    let masks = || Predictions::Masks((0..30).map(|i| image([50 + i, i, 3, 20])).collect());
    let scoring = Scoring {
        class_names: ["background", "landslide"].map(String::from).into(),
        report_batch: Some(8),
        resamples: Some(RESAMPLES),
        ..Scoring::default()
    };
    type Change = (&'static str, fn(&mut Record));
    let changes: [Change; 6] = [
        ("miou", |record| record.value += 0.01),
        ("interval low", |record| {
            record.interval = record.interval.map(|i| Interval { low: i.low - 0.01, ..i });
        }),
        ("reported_miou", |record| score(record, "reported_miou", 65.0)),
        ("iou_landslide", |record| score(record, "iou_landslide", 65.0)),
        ("pixel_accuracy", |record| score(record, "pixel_accuracy", 65.0)),
        ("iou_snow", |record| score(record, "iou_snow", 65.0)),
    ];
    for (name, change) in changes {
        let sides = Sides::new();
        keep_all(&sides.now, masks(), scoring.clone(), |_| {});
        keep_all(&sides.before, masks(), scoring.clone(), |_| {});
        let rows = sides.rows();
        assert_eq!((rows[0].verdict, rows[0].findings.len()), (Verdict::Same, 0), "{rows:?}");
        edit(&sides.now, change);
        let rows = sides.rows();
        assert_eq!(rows[0].verdict, Verdict::Contradictory, "{name}: {rows:?}");
        assert!(rows[0].findings[0].contains(&format!("{name} is recorded as")), "{rows:?}");
        let rescored = terrabench(&["rescore", "--results", text(&sides.path("now"))]);
        assert_eq!(rescored.status.code(), Some(1), "{}", said(&rescored));
        assert!(said(&rescored).contains("**differs**"), "{}", said(&rescored));
    }
}

#[test]
fn a_fall_of_the_score_that_tables_show_fails_the_gate() {
    // The mean IoU stays, but the mean over batches falls because errors move to separate batches.
    let now: Vec<Confusion> =
        (0..64).map(|i| image(if i < 32 { [90, 10, 0, 0] } else { [0, 0, 0, 100] })).collect();
    let before: Vec<Confusion> =
        (0..64).map(|i| image(if i % 2 == 0 { [90, 10, 0, 0] } else { [0, 0, 0, 100] })).collect();
    let scoring =
        |batch| Scoring { report_batch: Some(batch), resamples: Some(RESAMPLES), ..Scoring::default() };
    let sides = Sides::new();
    keep_all(&sides.now, Predictions::Masks(now), scoring(2), |_| {});
    keep_all(&sides.before, Predictions::Masks(before), scoring(2), |_| {});
    // Other images: only values can be compared.
    let finding = |rows: &[CheckedCell]| {
        rows[0].findings.iter().any(|finding| finding.starts_with("reported_miou fell"))
    };
    let rows = sides.rows();
    assert!((rows[0].now.unwrap() - rows[0].reference.unwrap()).abs() < 1e-9 && finding(&rows), "{rows:?}");

    // The same images in 32 batches of two, each of which falls.
    let sides = Sides::new();
    let images = |wrong: u64| {
        (0..64).map(|i| image(if i % 2 == 0 { [100, 0, 0, 0] } else { [0, 0, wrong, 100 - wrong] })).collect()
    };
    keep_all(&sides.now, Predictions::Masks(images(20)), scoring(2), |_| {});
    keep_all(&sides.before, Predictions::Masks(images(0)), scoring(2), |_| {});
    let rows = sides.rows();
    assert!(rows[0].verdict == Verdict::Fell && finding(&rows), "{rows:?}");
}

#[test]
fn a_class_that_a_table_shows_falls_though_the_mean_stays() {
    // Pixels [right, wrong] of the background, then [wrong, right] of landslides: IoU 81.8 and 81.8, or 83.2 and 80.2.
    let images = |counts: [u64; 4]| Predictions::Masks((0..64).map(|_| image(counts)).collect());
    let scoring = Scoring {
        class_names: ["background", "landslide"].map(String::from).into(),
        resamples: Some(RESAMPLES),
        ..Scoring::default()
    };
    let task = |record: &mut Record| {
        (record.cell.suite, record.cell.task) = ("landslide4sense".to_owned(), "landslide4sense".to_owned());
    };
    let sides = Sides::new();
    keep_all(&sides.before, images([90, 10, 10, 90]), scoring.clone(), task);
    keep_all(&sides.now, images([99, 1, 19, 81]), scoring.clone(), task);
    let rows = sides.rows();
    assert!((rows[0].now.unwrap() - rows[0].reference.unwrap()).abs() < 0.5, "{rows:?}");
    assert_eq!(rows[0].verdict, Verdict::Fell);
    assert_eq!(rows[0].findings, ["iou_landslide fell from 81.82 to 80.20"]);

    // A score that disappeared counts as missing.
    let sides = Sides::new();
    keep_all(&sides.before, images([90, 10, 10, 90]), scoring.clone(), task);
    keep_all(&sides.now, images([90, 10, 10, 90]), scoring, task);
    edit(&sides.now, |record| {
        record.scores.remove("iou_landslide");
    });
    assert_eq!(sides.rows()[0].verdict, Verdict::Missing);
}

#[test]
fn predictions_of_format_1_are_read_and_their_gaps_are_reported() {
    let sides = Sides::new();
    let masks = Predictions::Masks((0..30).map(|i| image([50 + i, i, 3, 20])).collect());
    let scoring = Scoring { report_batch: Some(8), resamples: Some(RESAMPLES), ..Scoring::default() };
    for store in [&sides.now, &sides.before] {
        let record = recorded(&masks, &scoring, |_| {});
        let named = Named {
            samples: names(30),
            predictions: masks.clone(),
            scoring: None,
            supplement: Default::default(),
        };
        store.put_predictions(&record, &named).unwrap();
        assert_eq!(store.predictions(&record).unwrap(), Some(named));
        store.put(&record).unwrap();
    }
    assert_eq!(sides.rows()[0].verdict, Verdict::Same);
    let rescored = terrabench(&["rescore", "--results", text(&sides.path("now"))]);
    assert_eq!(rescored.status.code(), Some(0), "{}", said(&rescored));
    assert!(said(&rescored).contains("predictions of format 1 do not store how"), "{}", said(&rescored));
    // Scores cannot be recomputed, but a fall is still detected.
    edit(&sides.now, |record| score(record, "reported_miou", 35.0));
    let rows = sides.rows();
    assert_eq!(rows[0].verdict, Verdict::Fell, "{rows:?}");
}

#[test]
fn missing_duplicated_and_reordered_test_samples_are_named() {
    /// Keeps the 40 samples at these positions.
    fn keep_places(store: &Store, places: &[usize]) {
        let (all, scoring) = (names(40), Scoring { resamples: Some(RESAMPLES), ..Scoring::default() });
        let predictions = classes(40, 30).select(places);
        let record = recorded(&predictions, &scoring, |_| {});
        let samples = places.iter().map(|place| all[*place].clone()).collect();
        store
            .put_predictions(
                &record,
                &Named { samples, predictions, scoring: Some(scoring), supplement: Default::default() },
            )
            .unwrap();
        store.put(&record).unwrap();
    }
    let whole: Vec<usize> = (0..40).collect();
    let without_3: Vec<usize> = whole.iter().copied().filter(|place| *place != 3).collect();
    let doubled_5: Vec<usize> =
        whole.iter().copied().map(|place| if place == 3 { 5 } else { place }).collect();
    let reordered: Vec<usize> = whole.iter().rev().copied().collect();
    for (places, code, expected) in [
        (&without_3, 1, vec![r#"missing from the records: "tile_3""#]),
        (
            &doubled_5,
            1,
            vec![r#"missing from the records: "tile_3""#, r#"duplicated in the records: "tile_5""#],
        ),
        (&reordered, 0, vec![r#"sample 0 is "tile_39" in the records and "tile_0" in the reference"#]),
    ] {
        let sides = Sides::new();
        keep_places(&sides.now, places);
        keep_places(&sides.before, &whole);
        let (found, told) = sides.check(&[]);
        assert_eq!(found, Some(code), "{told}");
        expected.iter().for_each(|expected| assert!(told.contains(expected), "{expected} in {told}"));
        let compared = terrabench(&["compare", text(&sides.path("now")), text(&sides.path("before"))]);
        let in_a = expected[0].replace("the records", "A").replace("the reference", "B");
        assert!(said(&compared).contains(&in_a), "{}", said(&compared));
    }
    // Fewer predictions than the record states.
    let sides = Sides::new();
    keep_places(&sides.now, &whole);
    keep_places(&sides.before, &whole);
    edit(&sides.now, |record| {
        record.samples.insert("test".to_owned(), 41);
    });
    let (code, told) = sides.check(&[]);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("the record has 41 test samples, its predictions 40"), "{told}");
}

fn of_weights(model: &'static str, weights: &'static str) -> impl Fn(&mut Record) {
    move |record| {
        record.cell.model = model.to_owned();
        record.provenance.weights = weights.to_owned();
    }
}

#[test]
fn a_short_or_demo_run_does_not_stand_in_for_a_whole_one() {
    let stand_ins: [fn(&mut Record); 2] = [|record| record.short = true, |record| record.demo = true];
    for (why, stand_in) in ["shortened", "generated data"].into_iter().zip(stand_ins) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        keep(&store, 36, of_weights("A", "aaaa"));
        keep(&store, 36, of_weights("B", "bbbb"));
        let newer = |record: &mut Record| {
            of_weights("A", "aaaa")(record);
            record.provenance.finished += 100;
            record.provenance.normalization = "other".to_owned(); // Changes the fingerprint.
            stand_in(record);
        };
        keep(&store, 0, newer);
        let output = terrabench(&["compare", "A", "B", "--results", text(folder.path())]);
        let told = said(&output);
        assert_eq!(output.status.code(), Some(0), "{told}");
        assert!(told.contains("| 90.00 | 90.00 | +0.00 |"), "{told}");
        assert!(told.contains("left out of A: accuracy 0.00") && told.contains(why), "{told}");
    }
}

#[test]
fn several_records_that_fit_are_listed_and_asked_about() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    keep(&store, 36, of_weights("A", "aaaaaaaaaaaaaaaa"));
    keep(&store, 0, of_weights("A", "cccccccccccccccc"));
    keep(&store, 36, of_weights("B", "bbbbbbbbbbbbbbbb"));
    let results = ["--results", text(folder.path())];
    let compared = |more: &[&str]| terrabench(&[&["compare", "A", "B"][..], &results, more].concat());
    let asked = compared(&[]);
    let told = said(&asked);
    assert_eq!(asked.status.code(), Some(1), "{told}");
    for expected in
        ["several records fit", "accuracy 90.00", "weights aaaa", "weights cccc", "choose with --weights"]
    {
        assert!(told.contains(expected), "{expected} in {told}");
    }
    let chosen = compared(&["--weights", "aaaa", "--weights", "bbbb"]);
    assert!(
        chosen.status.success() && said(&chosen).contains("| 90.00 | 90.00 | +0.00 |"),
        "{}",
        said(&chosen)
    );
    let chosen = compared(&["--weights", "cccc", "--weights", "bbbb"]);
    assert!(said(&chosen).contains("| 0.00 | 90.00 | -90.00 |"), "{}", said(&chosen));
    let none = compared(&["--weights", "dddd"]);
    assert!(!none.status.success() && said(&none).contains("weights aaaaaaaaaaaa"), "{}", said(&none));

    // The same for normalisations and settings of a protocol.
    let of = |change: fn(&mut Record)| {
        move |record: &mut Record| {
            of_weights("A", "aaaaaaaaaaaaaaaa")(record);
            change(record);
        }
    };
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    keep(&store, 36, of(|_| {}));
    keep(&store, 20, of(|record| record.provenance.normalization = "satlas".to_owned()));
    keep(&store, 36, of_weights("B", "bbbbbbbbbbbbbbbb"));
    let wanted = |normalization: &[&str]| Wanted {
        settings: normalization
            .iter()
            .map(|value| Wanted::setting(&format!("normalisation={value}")).unwrap())
            .collect(),
        ..Wanted::default()
    };
    let of = |name: &str| side(name, folder.path()).unwrap().kept;
    let error = compare(of("A"), of("B"), &wanted(&[]), &suites()).unwrap_err().to_string();
    assert!(error.contains("--normalization") && error.contains("normalisation satlas"), "{error}");
    let rows = compare(of("A"), of("B"), &wanted(&["satlas", "dataset"]), &suites());
    assert!(rows.is_err(), "any of the values will do");
    let rows = compare(of("A"), of("B"), &wanted(&["dataset"]), &suites()).unwrap().rows;
    assert_eq!((rows[0].a, rows[0].b), (90.0, 90.0));
}

#[test]
fn settings_that_differ_between_the_models_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    keep(&store, 36, of_weights("A", "aaaa"));
    let satlas = |record: &mut Record| {
        of_weights("B", "bbbb")(record);
        record.provenance.normalization = "satlas".to_owned();
    };
    keep(&store, 30, satlas);
    // A has another record with other weights.
    let other_cell = |record: &mut Record, model, weights| {
        of_weights(model, weights)(record);
        record.cell.task = "m-so2sat".to_owned();
    };
    keep(&store, 36, |record| other_cell(record, "A", "cccc"));
    keep(&store, 36, |record| other_cell(record, "B", "bbbb"));
    let of = |name: &str| side(name, folder.path()).unwrap().kept;
    let rows = compare(of("A"), of("B"), &Wanted::default(), &suites()).unwrap().rows;
    let told = compare::markdown(&rows, "A", "B");
    for expected in [
        "m-eurosat default knn, seed 0: settings differ: A normalisation dataset; B normalisation satlas",
        "m-eurosat default knn, seed 0: A is A ViT-Base, weights aaaa",
        "m-so2sat default knn, seed 0: A is A ViT-Base, weights cccc",
        "B: B (B ViT-Base, weights bbbb)",
    ] {
        assert!(told.contains(expected), "{expected} in {told}");
    }
}

#[test]
fn the_gate_compares_equal_settings_and_asks_if_several_remain() {
    let sides = Sides::new();
    keep(&sides.before, 36, of_weights("A", "aaaa"));
    keep(&sides.now, 36, of_weights("A", "aaaa"));
    // Newer, worse and with other weights: it has no reference.
    let newer = |record: &mut Record| {
        of_weights("A", "cccc")(record);
        record.provenance.finished += 100;
    };
    keep(&sides.now, 0, newer);
    let rows = sides.rows();
    let verdicts: Vec<Verdict> = rows.iter().map(|row| row.verdict).collect();
    assert_eq!(verdicts, [Verdict::New, Verdict::Same]);
    assert!(rows[0].setting.contains("weights cccc"), "{rows:?}");

    // A new training is compared with the old one, and a finding says so.
    let (code, told) = sides.check(&["--weights", "cccc", "--weights", "aaaa"]);
    assert_eq!(code, Some(0), "{told}");
    let sides = Sides::new();
    keep(&sides.before, 36, of_weights("A", "aaaa"));
    keep(&sides.now, 0, of_weights("A", "cccc"));
    let rows = sides.rows();
    assert_eq!(rows[0].verdict, Verdict::Fell);
    assert!(
        rows[0].findings[0].contains("weights cccc in the records, weights aaaa in the reference"),
        "{rows:?}"
    );

    // With two new trainings, the choice is ambiguous.
    keep(&sides.now, 36, of_weights("A", "dddd"));
    let (code, told) = sides.check(&[]);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("several records fit") && told.contains("choose with --weights"), "{told}");
    // A shortened run is another setting than a complete one.
    let sides = Sides::new();
    keep(&sides.before, 36, |_| {});
    keep(&sides.now, 36, |record| record.short = true);
    assert_eq!(
        sides.rows().iter().map(|row| row.verdict).collect::<Vec<_>>(),
        [Verdict::Missing, Verdict::New]
    );
}

#[test]
fn an_update_refuses_records_that_contradict_their_predictions() {
    let sides = Sides::new();
    keep(&sides.before, 36, |_| {});
    keep(&sides.now, 36, |_| {});
    edit(&sides.now, |record| record.value = 95.0);
    let (code, told) = sides.check(&["--update"]);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("cannot be a reference") && told.contains("predictions give 90.00"), "{told}");
    assert_eq!(sides.before.all().unwrap()[0].value, 90.0);
}

/// A store with one good record and one damaged record of another task.
fn with_damaged(store: &Store) {
    keep(store, 36, |_| {});
    keep(store, 36, |record| record.cell.task = "m-so2sat".to_owned());
    let damaged = store.all().unwrap().into_iter().find(|record| record.cell.task == "m-so2sat").unwrap();
    let path = store.path(&damaged);
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
}

#[test]
fn a_damaged_record_stops_neither_check_nor_compare_nor_rescore() {
    let sides = Sides::new();
    with_damaged(&sides.now);
    keep(&sides.before, 36, |_| {});
    let path = sides.path("now");
    let now = text(&path);

    let (code, told) = sides.check(&[]);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("## Accuracy check: incomplete\n\n1 same."), "{told}");
    assert!(
        told.contains("damaged: ") && told.contains("m-so2sat") && told.contains("not a record"),
        "{told}"
    );
    let xml = sides.path("check.xml");
    assert_eq!(sides.check(&["--junit", text(&xml)]).0, Some(2));
    assert!(std::fs::read_to_string(&xml).unwrap().contains(r#"errors="1""#));

    // Its cell is in the reference, so it counts as missing, perhaps because the file is damaged.
    keep(&sides.before, 36, |record| record.cell.task = "m-so2sat".to_owned());
    assert_eq!(sides.check(&[]).0, Some(2));
    // A contradiction between a reference record and its predictions is certain.
    edit(&sides.before, |record| record.value = 95.0);
    assert_eq!(sides.check(&[]).0, Some(1));

    for arguments in [vec!["compare", now, now], vec!["rescore", "--results", now]] {
        let output = terrabench(&arguments);
        let told = said(&output);
        assert_eq!(output.status.code(), Some(3), "{told}");
        assert!(told.contains("| m-eurosat") && told.contains("not a record"), "{told}");
    }
}

#[test]
fn predictions_that_cannot_be_scored_stop_no_other_record() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    keep(&store, 36, |_| {});
    keep(&store, 36, |record| {
        record.cell.task = "m-cashew-plant".to_owned();
        record.metric = Metric::Miou; // Its predictions are classes, not masks.
    });
    let results = text(folder.path());
    let rescored = terrabench(&["rescore", "--results", results]);
    let told = said(&rescored);
    assert_eq!(rescored.status.code(), Some(3), "{told}");
    assert!(told.contains("| m-eurosat"), "{told}");
    assert!(told.contains("predictions/m-cashew-plant") && told.contains("miou does not fit"), "{told}");
    let checked = terrabench(&["check", "--records", results, "--reference", results]);
    let told = said(&checked);
    assert_eq!(checked.status.code(), Some(2), "{told}");
    assert!(told.contains("1 unusable, 1 same") && told.contains("miou does not fit"), "{told}");
    let compared = terrabench(&["compare", results, results]);
    let told = said(&compared);
    assert_eq!(compared.status.code(), Some(3), "{told}");
    assert!(told.contains("predictions cannot be used"), "{told}");
}

#[test]
fn check_keeps_its_exit_code_when_its_output_is_closed() {
    let sides = Sides::new();
    keep(&sides.before, 36, |_| {});
    keep(&sides.now, 36, |_| {});
    let code = |records: &str, reference: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_terrabench"));
        let (records, reference) = (sides.path(records), sides.path(reference));
        command.args(["check", "--records", text(&records), "--reference", text(&reference)]);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader); // The reading end of the pipe is closed.
        let status = command.stdout(writer.try_clone().unwrap()).stderr(Stdio::from(writer)).status();
        status.unwrap().code()
    };
    assert_eq!(code("now", "before"), Some(0));
    assert_eq!(code("now", "none"), Some(2));
    edit(&sides.now, |record| record.value = 35.0);
    assert_eq!(code("now", "before"), Some(1));
}
