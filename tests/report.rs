//! Tables: published numbers, layout, ranking, and the separation of demo tables.

use std::path::{Path, PathBuf};

use crate::sample::{identify, record};
use terrabench::home::Home;
use terrabench::metrics::Scale;
use terrabench::record::{Interval, Record, Store};
use terrabench::report::tables::published::{self, Mark, Published, PublishedValue, ValueOrigin};
use terrabench::report::tables::table::{ResultTable, Rounded, TableRow, fill};
use terrabench::report::write;
use terrabench::report::{csv, markdown};
use terrabench::task::{Metric, Suite, Table};

fn suite() -> (Home, Suite) {
    let home = Home::find().unwrap();
    let suite = Suite::load(&home, "geobench").unwrap();
    (home, suite)
}

/// The k-NN table of the TerraFM README.
fn knn() -> (Suite, Table, Published) {
    let (home, suite) = suite();
    let table = suite.tables.iter().find(|table| table.file == "knn").unwrap().clone();
    let published = published::read(&home.published(&table.published)).unwrap();
    (suite, table, published)
}

/// Returns a record of one cell of the k-NN table.
fn measured(task: &str, partition: &str, value: f64, change: impl FnOnce(&mut Record)) -> Record {
    let mut record = record();
    record.cell.task = task.into();
    record.cell.partition = partition.into();
    record.metric = if task == "m-bigearthnet" { Metric::MicroF1 } else { Metric::Accuracy };
    record.value = value;
    record.interval = Some(Interval { low: value - 1.5, high: (value + 1.4).min(100.0), level: 0.95 });
    change(&mut record);
    identify(&mut record);
    record
}

/// Returns records for most cells of TerraFM ViT-Base, like real runs.
fn records() -> Vec<Record> {
    vec![
        // Equal to the best published value once rounded; above the published ViT-Base by 0.9.
        measured("m-eurosat", "default", 95.08, |_| ()),
        measured("m-eurosat", "0.01x_train", 58.7, |_| ()),
        measured("m-bigearthnet", "default", 69.04999, |_| ()),
        measured("m-bigearthnet", "0.01x_train", 49.4, |_| ()),
        measured("m-so2sat", "default", 700.0 / 12.0, |record| {
            record.samples = [("train".to_owned(), 19992), ("test".to_owned(), 986)].into();
        }),
        measured("m-brick-kiln", "default", 94.5, |record| record.interval = None),
        // The same task with bands by content, and a model with random weights: both form separate rows.
        measured("m-eurosat", "default", 93.2, |record| record.provenance.band_names = "by-content".into()),
        measured("m-eurosat", "default", 66.1, |record| {
            record.cell.backbone = "ViT-Large".into();
            record.provenance.weights = "random:0".into();
        }),
    ]
}

fn demo_records() -> Vec<Record> {
    let demo = |record: &mut Record| {
        record.demo = true;
        record.cell.backbone = "ViT-demo".into();
        record.provenance.weights = "random:0".into();
    };
    vec![measured("m-eurosat", "default", 99.9, demo), measured("m-bigearthnet", "0.01x_train", 31.25, demo)]
}

/// Compares with a file of `tests/fixtures/report/`, and keeps the text in the build's temporary folder for inspection.
fn assert_golden(name: &str, text: &str) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/report").join(name);
    let found = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&found, text).unwrap();
    let expected = std::fs::read_to_string(&golden).unwrap_or_default();
    assert!(text == expected, "{} differs from {}", found.display(), golden.display());
}

#[test]
fn table_of_real_records_matches_the_golden_files() {
    let (suite, table, published) = knn();
    let records = records();
    let filled = fill(&table, &suite, &published, &records, false).unwrap();
    assert_golden("knn.md", &markdown(&filled));
    assert_golden("knn.csv", &csv(&filled).unwrap());
}

#[test]
fn table_of_demo_records_matches_the_golden_files() {
    let (suite, table, published) = knn();
    let records = demo_records();
    let filled = fill(&table, &suite, &published, &records, true).unwrap();
    assert_golden("demo.md", &markdown(&filled));
    assert_golden("demo.csv", &csv(&filled).unwrap());
}

#[test]
fn table_without_records_has_only_published_values() {
    let (suite, table, published) = knn();
    for (demo, heading) in
        [(false, "# k-NN classification on GEO-Bench\n"), (true, "(demo)\n\n> **These are demo")]
    {
        let filled = fill(&table, &suite, &published, &[], demo).unwrap();
        let text = markdown(&filled);
        assert!(text.contains(heading) && text.contains("No measurements yet."), "{text}");
        assert_eq!(csv(&filled).unwrap().lines().count(), 1 + 112);
    }
}

fn row<'t, 'a>(table: &'t ResultTable<'a>, label: &str) -> &'t TableRow<'a> {
    let rows = table.published.iter().chain(&table.measured);
    rows.clone().find(|row| row.label() == label).unwrap_or_else(|| {
        panic!("no row `{label}` among {:?}", rows.map(TableRow::label).collect::<Vec<_>>())
    })
}

/// Compares the published tables as Markdown, line by line, with the source: rows, columns, values to the last digit, bold and
/// italic. The source is marked by hand; `different` lists every place where its marks disagree with its numbers.
#[test]
fn published_tables_match_the_source() {
    let different = [
        // The second best value, plain in the source.
        "CROMA | ViT-Base | m-Brick-Kiln (1 %): 85.1 is _85.1_ here",
        "DeCUR | ViT-Small | m-BigEarthNet (1 %): 49.6 is _49.6_ here",
        // Equal to TerraFM ViT-Large's 93.0, which is italic.
        "Copernicus-FM | ViT-Base | m-Brick-Kiln (100 %): 93.0 is _93.0_ here",
        "Satlas | Swin-Base | m-BigEarthNet (100 %): 72.8 is _72.8_ here",
        // Below TerraFM ViT-Large's 99.0, which is also bold; MMEarth's equal value is plain.
        "Satlas | Swin-Base | m-Brick-Kiln (100 %): **98.9** is _98.9_ here",
        "MMEarth | CNN-atto | m-Brick-Kiln (100 %): 98.9 is _98.9_ here",
        // The source marks only the better of two rows.
        "Prithvi-EO-2.0 (300M) |  | Landslide4Sense (100 %): 65.0 is _65.0_ here",
        "Prithvi-EO-2.0 (300M) |  | Landslide4Sense (100 %): 31.5 is _31.5_ here",
    ];
    let mut found = Vec::new();
    let home = Home::find().unwrap();
    let mut values = 0;
    for name in ["geobench", "landslide4sense"] {
        let suite = Suite::load(&home, name).unwrap();
        // torchgeo-bench and GEO-Bench publish rows, not a table with marks.
        let printed = |table: &&terrabench::task::Table| {
            table.is_run && !table.published.is_empty() && !table.file.starts_with("torchgeo")
        };
        for table in suite.tables.iter().filter(printed) {
            let source = published::read(&home.published(&table.published)).unwrap();
            let text = markdown(&fill(table, &suite, &source, &[], false).unwrap());
            let lines = text
                .lines()
                .skip_while(|line| !line.starts_with('|'))
                .take_while(|line| line.starts_with('|'));
            let mut grid = lines.map(|line| {
                line.trim_matches('|')
                    .split(" | ")
                    .map(|text| text.trim().replace('\\', ""))
                    .collect::<Vec<_>>()
            });
            let header = grid.next().unwrap();
            let mut expected = source.values.iter();
            for row in grid.skip(1) {
                for (heading, cell) in header.iter().zip(&row).skip(2).filter(|(_, cell)| *cell != "-") {
                    let value = expected.next().unwrap();
                    assert_eq!([&row[0], &row[1]], [&value.model, &value.backbone]);
                    let task = suite.task(&value.dataset).unwrap();
                    assert!(heading.starts_with(&task.title), "{heading} {value:?}");
                    let number = format!("{:.1}", value.value);
                    // The mark of a copied or rerun value is ours.
                    let cell = cell.strip_suffix(value.origin.mark()).unwrap();
                    let source = match value.mark {
                        Mark::Bold => format!("**{number}**"),
                        Mark::Italic => format!("_{number}_"),
                        Mark::None => number,
                    };
                    if cell != source {
                        let (column, _) = heading.rsplit_once(", ").unwrap();
                        found.push(format!("{} | {} | {column}: {source} is {cell} here", row[0], row[1]));
                    }
                    values += 1;
                }
            }
            assert!(expected.next().is_none(), "values of {} are missing", table.published);
        }
    }
    assert_eq!(values, 112 + 78 + 4);
    assert_eq!(found, different);
}

/// Returns a table of one column with these published values.
fn one_column(values: &[f64]) -> (Suite, Table, Published) {
    let (suite, mut table, mut published) = knn();
    table.tasks = vec!["m-eurosat".into()];
    table.partitions = vec!["default".into()];
    let template = published.values[0].clone();
    published.values = values
        .iter()
        .enumerate()
        .map(|(i, value)| PublishedValue { model: format!("model {i}"), value: *value, ..template.clone() })
        .collect();
    (suite, table, published)
}

fn marks(table: &ResultTable) -> Vec<Mark> {
    let rows = table.published.iter().chain(&table.measured);
    rows.map(|row| row.cells[0].as_ref().unwrap().mark).collect()
}

#[test]
fn best_is_bold_and_second_best_italic_by_the_shown_values() {
    use Mark::{Bold, Italic, None};
    let rank = |values: &[f64]| {
        let (suite, table, published) = one_column(values);
        marks(&fill(&table, &suite, &published, &[], false).unwrap())
    };
    assert_eq!(rank(&[1.0, 3.0, 2.0, 0.0]), [None, Bold, Italic, None]);
    // Ties share their mark; after two best values, the next one is still second best.
    assert_eq!(rank(&[3.0, 1.0, 3.0, 2.0, 2.0]), [Bold, None, Bold, Italic, Italic]);
    // 2.96 and 3.04 are both shown as 3.0.
    assert_eq!(rank(&[2.96, 3.04, 2.94]), [Bold, Bold, Italic]);
    assert_eq!(rank(&[2.0, 2.0]), [Bold, Bold]);
    assert_eq!(rank(&[]), []);

    // Measured rows are ranked; demo rows are not.
    let (suite, table, published) = one_column(&[90.0, 80.0]);
    let records = [measured("m-eurosat", "default", 89.96, |_| ())];
    assert_eq!(marks(&fill(&table, &suite, &published, &records, false).unwrap()), [Bold, Italic, Bold]);
    let records = [measured("m-eurosat", "default", 99.0, |record| record.demo = true)];
    assert_eq!(marks(&fill(&table, &suite, &published, &records, true).unwrap()), [Bold, Italic, None]);
}

#[test]
fn differences_are_computed_from_the_rounded_numbers() {
    let round = |number: f64| Rounded::of(number, Scale::PERCENT);
    let shown = |number: f64| round(number).to_string();
    assert_eq!([94.25, 94.249, 0.04, -0.25, 100.0].map(shown), ["94.3", "94.2", "0.0", "-0.3", "100.0"]);
    let difference = |a: f64, b: f64| format!("{:+}", round(a) - round(b));
    // 0.51 apart, but a reader sees 94.0 and 93.4.
    assert_eq!(difference(93.95, 93.44), "+0.6");
    assert_eq!(difference(93.4, 94.0), "-0.6");
    assert_eq!(difference(93.41, 93.4), "+0.0");
}

#[test]
fn differences_are_from_the_same_model_only() {
    let (suite, table, published) = knn();
    let records = records();
    let filled = fill(&table, &suite, &published, &records, false).unwrap();
    let difference = |label: &str, column: usize| {
        let cell = row(&filled, label).cells[column].as_ref().unwrap();
        cell.difference().map(|difference| format!("{difference:+}"))
    };
    assert_eq!(difference("TerraFM (measured)", 0).as_deref(), Some("+0.9"));
    assert_eq!(difference("TerraFM (measured)", 1).as_deref(), Some("-0.6"));
    assert_eq!(difference("TerraFM (measured, bands by-content)", 0).as_deref(), Some("-1.0"));
    assert_eq!(difference("TerraFM (measured, random weights)", 0), None);
    assert_eq!(difference("Galileo", 0), None);

    let unknown = [measured("m-eurosat", "default", 90.0, |record| record.cell.backbone = "ViT-Tiny".into())];
    let filled = fill(&table, &suite, &published, &unknown, false).unwrap();
    assert!(filled.measured[0].cells[0].as_ref().unwrap().difference().is_none());
}

#[test]
fn differences_are_found_under_the_published_name() {
    let home = Home::find().unwrap();
    // Landslide4Sense's table calls TerraFM ViT-B `TerraFM (120M)`, without a backbone; GEO-Bench's segmentation columns have
    // the protocol `segmentation`.
    let cases = [
        ("landslide4sense", 0, "landslide4sense", "upernet-finetune", Some("+1.2")),
        ("landslide4sense", 0, "landslide4sense", "upernet", None),
        ("geobench", 1, "m-cashew-plant", "upernet", None),
    ];
    for (suite, table, task, protocol, expected) in cases {
        let suite = Suite::load(&home, suite).unwrap();
        let table = &suite.tables[table];
        let published =
            published::read(&home.folder().join("benchmarks/published").join(&table.published)).unwrap();
        let mut record = measured(task, "default", 72.0, |record| {
            record.cell.protocol = protocol.into();
            record.metric = Metric::Miou;
        });
        record.cell.suite = suite.name.clone();
        let records = [record];
        let filled = fill(table, &suite, &published, &records, false).unwrap();
        let cell = filled.measured[0].cells.iter().flatten().next().unwrap();
        let difference = cell.difference().map(|difference| format!("{difference:+}"));
        assert_eq!(difference.as_deref(), expected, "{task} {protocol}");
    }
}

#[test]
fn demo_and_real_records_never_mix() {
    let (suite, table, published) = knn();
    let mut mixed = records();
    let demo = measured("m-eurosat", "default", 99.9, |record| record.demo = true);
    mixed.push(demo.clone());
    let real = fill(&table, &suite, &published, &mixed, false).unwrap();
    assert!(real.measured.iter().flat_map(|row| row.cells.iter().flatten()).all(|cell| cell.value != 99.9));
    assert_eq!(real.left_out.len(), 1);
    let text = markdown(&real);
    assert!(text.contains(&format!("made from generated data: `{}`", demo.file_name())), "{text}");

    let filled = fill(&table, &suite, &published, &mixed, true).unwrap();
    assert_eq!((filled.measured.len(), filled.left_out.len()), (1, mixed.len() - 1));
    let cell = filled.measured[0].cells[0].as_ref().unwrap();
    // Even with the name of a published model and weights that are not random.
    assert_eq!((cell.mark, cell.difference()), (Mark::None, None));
}

#[test]
fn seeds_are_averaged_and_superseded_records_left_out() {
    let (suite, table, published) = knn();
    let seeded = |seed: u64, value: f64, normalization: &str, finished: u64| {
        measured("m-eurosat", "default", value, |record| {
            record.cell.seed = seed;
            record.provenance.normalization = normalization.into();
            record.provenance.finished = finished;
        })
    };
    // A record of other data, for example: everything that a row states is the same.
    let mut older = seeded(0, 10.0, "dataset", 5);
    older.settings = "0".repeat(32);
    older.fingerprint = "0".repeat(32);
    let records = [
        older,
        seeded(0, 90.0, "dataset", 7),
        seeded(1, 92.0, "dataset", 9),
        seeded(2, 94.0, "dataset", 8),
        measured("m-eurosat", "default", 50.0, |record| record.metric = Metric::Miou),
        measured("m-eurosat", "default", 50.0, |record| record.cell.protocol = "linear-probe".into()),
        measured("m-eurosat", "0.50x_train", 50.0, |_| ()),
    ];
    let filled = fill(&table, &suite, &published, &records, false).unwrap();
    let cell = filled.measured[0].cells[0].as_ref().unwrap();
    assert_eq!((cell.value, cell.spread, cell.interval), (92.0, Some(2.0), None));
    let seeds: Vec<u64> = cell.records.iter().map(|record| record.cell.seed).collect();
    assert_eq!(seeds, [0, 1, 2]);
    assert!(filled.measured[0].cells[1..].iter().all(Option::is_none));
    let left_out: Vec<(&str, f64)> = filled.left_out.iter().map(|l| (l.why, l.record.value)).collect();
    assert_eq!(
        left_out,
        [
            ("of another metric", 50.0),
            ("superseded by a newer run with different code, data or configuration", 10.0)
        ]
    );
    let text = markdown(&filled);
    assert!(!text.contains("square brackets"), "{text}");
    assert!(text.contains(" 92.0 ± 2.0 (-2.2) |"), "{text}");
    let files: Vec<String> = records[1..4].iter().map(Record::file_name).collect();
    assert!(csv(&filled).unwrap().contains(&format!(",92.0,,,94.2,-2.2,,{},,,,\n", files.join(" "))));
}

#[test]
fn two_sets_of_weights_are_two_rows() {
    let (suite, table, published) = knn();
    let records = ["aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb", "random:3"].map(|weights| {
        measured("m-eurosat", "default", 90.0, |record| record.provenance.weights = weights.into())
    });
    let filled = fill(&table, &suite, &published, &records, false).unwrap();
    let labels: Vec<String> = filled.measured.iter().map(TableRow::label).collect();
    assert_eq!(
        labels,
        ["aaaaaaaaaaaa", "bbbbbbbbbbbb", "random:3"].map(|w| format!("TerraFM (measured, weights {w})"))
    );
}

#[test]
fn names_cannot_break_the_table() {
    let (suite, table, published) = one_column(&[50.0]);
    let nasty = measured("m-eurosat", "default", 40.0, |record| {
        record.cell.model = "a|b\n# *c* <script>".into();
        record.cell.backbone = "x, \"y\"".into();
    });
    let records = [nasty];
    let filled = fill(&table, &suite, &published, &records, false).unwrap();
    let text = markdown(&filled);
    assert!(text.contains(r"| a\|b # \*c\* \<script\> (measured) |"), "{text}");
    let text = csv(&filled).unwrap();
    assert!(text.contains("\"a|b\n# *c* <script>\",\"x, \"\"y\"\"\",measured"), "{text}");
}

#[test]
fn tables_are_written_from_stored_records() {
    let (home, mut suite) = suite();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("geobench");
    let store = Store::open(&folder).unwrap();
    for record in records() {
        store.put(&record).unwrap();
    }
    let files = write(&suite, &home, &store, &folder, false).unwrap().files;
    assert_eq!(files, [folder.join("knn.md"), folder.join("knn.csv")]);
    assert_golden("knn.md", &std::fs::read_to_string(&files[0]).unwrap());
    assert_golden("knn.csv", &std::fs::read_to_string(&files[1]).unwrap());
    // A second run replaces the files and leaves no others.
    write(&suite, &home, &store, &folder, false).unwrap();
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 3);

    suite.tables[0].file = "../knn".into();
    let error = write(&suite, &home, &store, &folder, false).unwrap_err().to_string();
    assert!(error.contains("../knn"), "{error}");
    assert!(!folder.with_file_name("knn.md").exists());
}

#[test]
fn every_published_file_is_read() {
    let (home, _) = suite();
    let read = |file: &str| published::read(&home.published(file)).unwrap();
    let files = ["geobench-knn.csv", "geobench-finetune.csv", "copernicus-bench.csv", "landslide4sense.csv"];
    let counts = files.map(|file| read(file).values.len());
    // Flood-S1 has six values from Copernicus-Bench's own paper.
    assert_eq!(counts, [112, 78, 56 + 6, 4]);
    assert!(files.iter().all(|file| read(file).source.contains("2506.06281")));

    let first = &read("geobench-knn.csv").values[0];
    let expected = PublishedValue {
        model: "SatMAE".into(),
        backbone: "ViT-Base".into(),
        dataset: "m-eurosat".into(),
        partition: "default".into(),
        protocol: "knn".into(),
        channels: String::new(),
        metric: "accuracy".into(),
        value: 84.1,
        mark: Mark::None,
        origin: ValueOrigin::Copied("Galileo (arXiv 2502.09356), Table 13".into()),
        printed: read("geobench-knn.csv").source,
    };
    assert_eq!(first, &expected);
    let last = &read("landslide4sense.csv").values[3];
    assert_eq!((last.backbone.as_str(), last.partition.as_str(), last.mark), ("", "default", Mark::Bold));
}

/// Returns the error of reading a file with this text.
fn misread(text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("numbers.csv");
    std::fs::write(&path, text).unwrap();
    let error = published::read(&path).unwrap_err().to_string();
    assert!(error.contains("numbers.csv"), "{error}");
    error
}

#[test]
fn errors_name_the_bad_line() {
    const HEAD: &str = "# Source: a paper\nmodel,backbone,dataset,protocol,metric,value,mark\n";
    const GOOD: &str = "M,B,m-eurosat,knn,accuracy,84.1,bold\n";
    let other = GOOD.replace("M,", "N,");
    for (bad, named) in [
        ("M,B,m-eurosat,knn,accuracy,high,\n", "`high`"),
        ("M,B,m-eurosat,knn,accuracy,184.1,\n", "`184.1`"),
        ("M,B,m-eurosat,knn,accuracy,NaN,\n", "`NaN`"),
        ("M,B,m-eurosat,knn,accuracy,84.1,fat\n", "`fat`"),
        ("M,B,m-eurosat,knn\n", "expected 7 fields, found 4"),
        (",B,m-eurosat,knn,accuracy,84.1,\n", "`model`"),
        ("M,B,m-eurosat,knn,accuracy,84.1,bold,more\n", "expected 7 fields, found 8"),
        ("M,B,m-eurosat,\"knn,accuracy,84.1,bold\n", "quote"),
        ("\n", ""),
        (GOOD, "line 3"),
    ] {
        let error = misread(&format!("{HEAD}{GOOD}{other}{bad}{}", GOOD.replace("M,", "O,")));
        assert!(error.contains("line 5: ") && error.contains(named), "{bad:?}: {error}");
    }
    assert!(
        misread(&format!("{}{GOOD}", HEAD.replace("metric", "colour")))
            .contains("line 2: unknown column `colour`")
    );
    let error = misread(&format!("{HEAD}{GOOD}").replace("metric,", "").replace("accuracy,", ""));
    assert!(error.contains("line 2: column `metric` is missing"), "{error}");
    assert!(misread(&HEAD.replace("# Source: a paper\n", "")).contains("line 1: "));
    assert!(misread("").contains("line 1: "));
    assert!(misread("# Source: a paper\n").contains("line 2: "));
}

#[test]
fn windows_line_ends_and_a_missing_final_newline_are_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("numbers.csv");
    let text = "# Source: a paper\r\nmodel,dataset,protocol,metric,value,mark\r\nM,d,p,miou,65.0,\r\nN,d,p,miou,70.8,bold";
    std::fs::write(&path, text).unwrap();
    let read = published::read(&path).unwrap();
    assert_eq!(read.source, "a paper");
    let values: Vec<(&str, f64, Mark)> =
        read.values.iter().map(|v| (v.model.as_str(), v.value, v.mark)).collect();
    assert_eq!(values, [("M", 65.0, Mark::None), ("N", 70.8, Mark::Bold)]);
}
