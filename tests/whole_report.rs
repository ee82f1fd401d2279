//! The whole report: made from records alone, quickly, with pictures whose texts do not overlap, and with separate, marked demos.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::made;
use crate::sample;
use parquet::file::reader::SerializedFileReader;
use parquet::record::{Field, Row};
use terrabench::canvas::{Picture, Shape};
use terrabench::home::Home;
use terrabench::record::{Record, Store};
use terrabench::report::pictures::spider::{Chart, Choice, chart, draw};
use terrabench::report::tables::published;
use terrabench::report::tables::table::{ResultTable, fill};
use terrabench::report::{Style, write_all};
use terrabench::task::Suite;

use crate::common::demo;

fn home() -> Home {
    Home::find().unwrap()
}

/// Writes results with predictions into `folder`, and their report.
fn report(folder: &Path) -> Vec<PathBuf> {
    let results = made::results(folder);
    for (name, records) in [("geobench", made::real()), ("geobench-demo", made::demo())] {
        let store = Store::open(results.join(name)).unwrap();
        for record in records.iter().filter(|record| record.cell.partition == "default") {
            made::predict(&store, record);
        }
    }
    write_all(&home(), &results, &results, &Choice::default(), Style::default()).unwrap().files
}

/// Checks the markup of an SVG; [`assert_apart`] checks the positions of texts.
fn well_formed(svg: &str) {
    let mut open: Vec<&str> = Vec::new();
    for tag in svg.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').expect("a tag that ends");
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        let name = tag.split([' ', '/']).find(|part| !part.is_empty()).unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn every_file_is_written_and_linked() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("report");
    let _ = std::fs::remove_dir_all(&folder);
    let files = report(&folder);
    assert!(files.iter().all(|file| file.is_file()));
    let index = std::fs::read_to_string(folder.join("report.md")).unwrap();
    let links: Vec<&str> = index.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()).collect();
    assert!(links.iter().all(|link| folder.join(link).is_file()), "{links:?}");
    // The index links every other file.
    for file in &files {
        let name = file.strip_prefix(&folder).unwrap().to_str().unwrap();
        assert!(name == "report.md" || links.contains(&name), "{name} is not linked");
    }
    for name in [
        "geobench/spider.svg",
        "geobench/knn-differences.png",
        "geobench/knn-shares.svg",
        "geobench/m-eurosat-confusion.svg",
        "geobench/m-bigearthnet-confusion.svg",
        "geobench-demo/m-so2sat-confusion.png",
        "landslide4sense/landslide4sense.md",
    ] {
        assert!(links.contains(&name), "{name}");
    }
    for (written, golden) in [
        ("report.md", "index.md"),
        ("landslide4sense/landslide4sense.md", "landslide4sense.md"),
        ("geobench/finetune.csv", "finetune.csv"),
    ] {
        let text = |path: PathBuf| std::fs::read_to_string(path).unwrap();
        let expected = text(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/report").join(golden));
        assert_eq!(text(folder.join(written)), expected, "{written}");
    }
    let (real, demo) = index.split_once("\n## GEO-Bench (demo)\n").unwrap();
    assert!(!real.contains("demo") && demo.contains("not benchmark numbers"), "{index}");
    for file in files.iter().filter(|file| file.extension().is_some_and(|end| end == "svg")) {
        let svg = std::fs::read_to_string(file).unwrap();
        well_formed(&svg);
        assert_eq!(
            svg.contains("DEMO: "),
            file.parent().unwrap().ends_with("geobench-demo"),
            "{}",
            file.display()
        );
    }
}

#[test]
fn the_parquet_file_holds_every_record() {
    let folder = tempfile::tempdir().unwrap();
    report(folder.path());
    let file = std::fs::File::open(folder.path().join("results.parquet")).unwrap();
    let rows: Vec<Row> =
        SerializedFileReader::new(file).unwrap().into_iter().collect::<Result<_, _>>().unwrap();
    assert_eq!(rows.len(), made::real().len() + 1 + made::demo().len());
    let cell = |row: &Row, name: &str| {
        let (_, field) = row.get_column_iter().find(|(column, _)| *column == name).unwrap();
        field.clone()
    };
    assert_eq!(rows.iter().filter(|row| cell(row, "demo") == Field::Bool(true)).count(), 4);
    assert!(rows.iter().any(|row| matches!(cell(row, "value"), Field::Double(value) if value > 90.0)));
    assert!(rows.iter().all(|row| matches!(cell(row, "seed"), Field::ULong(_))));
    assert!(rows.iter().all(|row| matches!(cell(row, "model"), Field::Str(_))));
}

#[test]
fn ten_thousand_records_take_two_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let records = folder.path().join("geobench/records");
    std::fs::create_dir_all(&records).unwrap();
    let mut count = 0;
    'all: for seed in 0.. {
        for mut record in made::real() {
            if count == 10_000 {
                break 'all;
            }
            record.cell.seed = seed;
            record.value += (seed % 7) as f64 * 0.1;
            sample::identify(&mut record);
            // Avoids the store's flush to disk for every record.
            std::fs::write(records.join(record.file_name()), serde_json::to_string_pretty(&record).unwrap())
                .unwrap();
            count += 1;
        }
    }
    let start = Instant::now();
    write_all(&home(), folder.path(), folder.path(), &Choice::default(), Style::default()).unwrap();
    let took = start.elapsed();
    println!("a report of {count} records: {took:.2?}");
    // It takes two seconds on an idle machine, but other tests run at the same time.
    assert!(took.as_secs_f64() < 10.0, "{took:?}");
}

#[test]
fn missing_records_and_unknown_names_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let write = |choice: &Choice| {
        write_all(&home(), folder.path(), folder.path(), choice, Style::default()).unwrap_err().to_string()
    };
    assert!(write(&Choice::default()).contains("no records found below this folder"));
    made::results(folder.path());
    let choice = |models: &[&str], axes: &[&str]| Choice {
        models: models.iter().map(|name| (*name).to_owned()).collect(),
        axes: axes.iter().map(|name| (*name).to_owned()).collect(),
    };
    assert!(write(&choice(&["TerraFM", "Nobody"], &[])).contains("`Nobody`"));
    assert!(write(&choice(&[], &["knn", "m-mars"])).contains("`m-mars`"));
    assert!(write(&choice(&[], &["knn/m-eurosat", "m-cashew-plant"])).contains("at least 3"));
    assert!(!folder.path().join("report.md").exists());
    std::fs::create_dir_all(folder.path().join("moonbench/records")).unwrap();
    assert!(write(&Choice::default()).contains("no suite `moonbench`"));
}

/// Calls `then` with the tables of GEO-Bench filled with these records.
fn with_tables<T>(
    records: &[Record],
    demo: bool,
    then: impl FnOnce(&Suite, &[(&str, &ResultTable)]) -> T,
) -> T {
    let (home, suite) = (home(), Suite::load(&home(), "geobench").unwrap());
    let tables: Vec<ResultTable> = suite
        .tables
        .iter()
        .map(|table| fill(table, &suite, &published::of_table(&home, table).unwrap(), records, demo).unwrap())
        .collect();
    let named: Vec<(&str, &ResultTable)> =
        suite.tables.iter().map(|table| table.file.as_str()).zip(&tables).collect();
    then(&suite, &named)
}

fn spider(records: &[Record], demo: bool, models: &[&str], axes: &[&str]) -> Option<Chart> {
    let choice = Choice {
        models: models.iter().map(|name| (*name).to_owned()).collect(),
        axes: axes.iter().map(|name| (*name).to_owned()).collect(),
    };
    with_tables(records, demo, |suite, tables| {
        chart(suite.spider.as_ref().unwrap(), tables, &choice).unwrap()
    })
}

fn assert_apart(picture: &Picture) {
    let texts: Vec<_> = picture.texts().collect();
    for (i, text) in texts.iter().enumerate() {
        let bounds = text.bounds();
        assert!(
            bounds.left >= 0.0
                && bounds.top >= 0.0
                && bounds.right <= picture.width
                && bounds.bottom <= picture.height,
            "{text:?} leaves the canvas"
        );
        for other in &texts[i + 1..] {
            assert!(!bounds.overlaps(&other.bounds()), "{text:?} touches {other:?}");
        }
    }
}

#[test]
fn default_spider_plot_is_that_of_the_source() {
    let chart = spider(&made::real(), false, &[], &[]).unwrap();
    let axes: Vec<String> = chart.axes.iter().map(|axis| format!("{}/{}", axis.table, axis.task)).collect();
    assert_eq!(axes.len(), 10);
    assert_eq!(
        (axes[0].as_str(), axes[5].as_str(), axes[6].as_str()),
        ("finetune/m-eurosat", "finetune/m-SA-crop-type", "knn/m-eurosat")
    );
    let of = |name: &str| chart.series.iter().find(|series| series.name == name).unwrap();
    let names: Vec<&str> = chart.series.iter().map(|series| series.name.as_str()).collect();
    assert_eq!(names[..6], ["AnySat", "DOFA", "Galileo", "Prithvi-2.0", "Satlas", "TerraFM"]);
    // The two tables spell Prithvi differently.
    assert!(names[..6].iter().all(|name| of(name).values.iter().all(Option::is_some)), "{chart:?}");
    // The better size on each axis: ViT-Large's 95.1 and ViT-Base's 94.5.
    assert_eq!((of("TerraFM").values[6], of("TerraFM").values[9]), (Some(95.1), Some(94.5)));
    assert_eq!(names[6..], ["TerraFM ViT-Base (measured)", "TerraFM ViT-Large (measured)"]);
    assert_eq!(of(names[7]).values[..6], [None; 6]);
    assert!(
        chart.notes.iter().any(|note| note.contains("m-Cashew-Plant by segmentation-probe")),
        "{:?}",
        chart.notes
    );
}

#[test]
fn values_are_written_at_their_points_without_overlap() {
    for (records, demo, models, axes) in [
        (made::real(), false, &[][..], &[][..]),
        (made::demo(), true, &[], &[]),
        (
            made::real(),
            false,
            &["TerraFM ViT-Base", "TerraFM ViT-Large", "Galileo", "SoftCon", "CROMA", "DeCUR", "MMEarth"],
            &["knn"],
        ),
        (vec![], false, &["TerraFM"], &["m-so2sat", "finetune/m-eurosat", "finetune/m-cashew-plant"]),
    ] {
        let chart = spider(&records, demo, models, axes).unwrap();
        let picture = draw(&chart);
        assert_apart(&picture);
        let values: usize = chart.series.iter().map(|series| series.values.iter().flatten().count()).sum();
        let dots = |layer: &terrabench::canvas::Layer| {
            layer.shapes.iter().filter(|shape| matches!(shape, Shape::Dot { .. })).count()
        };
        let drawn: usize = picture.layers.iter().map(dots).sum();
        // Plus one dot per line of the legend.
        assert_eq!(drawn, values + chart.series.len());
        let number = |text: &str| text.parse::<f64>().is_ok();
        assert_eq!(
            picture.texts().filter(|text| number(&text.text)).count(),
            values,
            "a value is not written"
        );
        assert!(picture.texts().any(|text| text.text.starts_with("DEMO")) == demo);
    }
}

#[test]
fn missing_value_breaks_the_line() {
    let chart = spider(&made::real(), false, &["TerraFM"], &[]).unwrap();
    let picture = draw(&chart);
    let name = "TerraFM ViT-Large (measured)";
    let lines: Vec<usize> = picture
        .layers
        .iter()
        .filter(|layer| layer.owner.as_deref() == Some(name))
        .flat_map(|layer| &layer.shapes)
        .filter_map(|shape| match shape {
            Shape::Line { points, width, .. } if *width > 2.0 => Some(points.len()),
            _ => None,
        })
        .collect();
    // Four values in a row out of ten, and the sample in the legend.
    assert_eq!(lines, [4, 2]);
    let areas = |name: &str| {
        let layers = picture.layers.iter().filter(|layer| layer.owner.as_deref() == Some(name));
        layers
            .flat_map(|layer| &layer.shapes)
            .filter(|shape| matches!(shape, Shape::Area { points, .. } if points.len() == 10))
            .count()
    };
    assert_eq!((areas(name), areas("TerraFM")), (0, 1));
}

#[test]
fn demo_plot_shows_only_demo_records() {
    let chart = spider(&made::demo(), true, &[], &[]).unwrap();
    let names: Vec<&str> = chart.series.iter().map(|series| series.name.as_str()).collect();
    assert_eq!(names, ["Demo ViT-demo (demo, random weights)"]);
    // A demo's plot ignores real records.
    assert!(spider(&made::real(), true, &[], &[]).is_none());
}

/// A small SatMAE with the bands of its training, and with those that GEO-Bench's code gives it.
const SMALL_SATMAE: &str = r#"
name = "Small SatMAE"
backbone = "ViT-small"
normalization = "norm_yes_clip_int"
image = 32
[architecture]
kind = "satmae"
width = 48
group-width = 16
depth = 1
heads = 2
mlp-ratio = 2
patch = 8
positions = 4
[sensors.s2-l1c]
bands = ["B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12"]
[suites.geobench.sensors.s2-l1c]
bands = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09"]
"#;

#[test]
fn what_mistaken_bands_cost_is_in_the_report_and_on_the_page() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("small.toml");
    std::fs::write(&model, SMALL_SATMAE).unwrap();
    let run = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_terrabench"));
        let output = command
            .args(args)
            .env("TERRABENCH_CACHE", demo::cache("geobench", folder.path().join("cache")))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let results = folder.path().join("results").to_string_lossy().into_owned();
    let bench = |inputs: &str| {
        let model = model.to_string_lossy().into_owned();
        let asked = ["bench", "geobench", "--demo", "--task", "m-eurosat", "--partition", "default"];
        run(&[
            &asked[..],
            &["--model", &model, "--weights", "random:0", "--inputs", inputs, "--out", &results],
        ]
        .concat());
    };
    let read = |name: &str| std::fs::read_to_string(Path::new(&results).join(name)).unwrap();
    let report = || run(&["report", "--results", &results, "--out", &results]);

    bench("as-published");
    report();
    assert!(!read("report.md").contains("mistaken bands") && !read("report.html").contains("mistaken bands"));

    bench("corrected");
    report();
    let records = Store::open(Path::new(&results).join("geobench-demo")).unwrap().all().unwrap();
    assert_eq!(records.len(), 2);
    let value = |is_corrected: bool| {
        let is_meant =
            |record: &&Record| (record.provenance.inputs.to_string() == "corrected") == is_corrected;
        records.iter().find(is_meant).unwrap().value
    };
    let (published, corrected) = (value(false), value(true));
    let text = read("report.md");
    let (_, table) = text.split_once("### What the mistaken bands cost (demo)\n").expect(&text);
    let row = table.lines().find(|line| line.contains("Small SatMAE")).expect(table);
    let cells: Vec<&str> = row.split('|').map(str::trim).collect();
    let numbers =
        [format!("{published:.1}"), format!("{corrected:.1}"), format!("{:+.2}", corrected - published)];
    assert_eq!(
        cells[2..7],
        ["m-eurosat", "knn, top-1 accuracy", &numbers[0], &numbers[1], &numbers[2]],
        "{row}"
    );
    assert!(cells[7].starts_with("\\[") && cells[7].contains(", "), "{row}");
    let page = read("report.html");
    for shown in ["<h3>What the mistaken bands cost (demo)</h3>", &format!("<td>{}</td>", numbers[2])] {
        assert!(page.contains(shown), "no {shown}");
    }
}

#[test]
fn ranks_are_compared_between_two_values_of_a_choice() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("geobench")).unwrap();
    let add = |model: &str, protocol: &str, normalization: &str, value: f64| {
        let mut record = sample::record();
        record.cell.model = model.to_owned();
        record.cell.protocol = protocol.to_owned();
        record.provenance.normalization = normalization.to_owned();
        (record.value, record.interval) = (value, None);
        sample::identify(&mut record);
        drop(store.put(&record).unwrap());
    };
    // knn: a > b > c > d; logistic: a > c > b, d tied with b. scipy 1.17: kendalltau gives 0.547722557505166.
    for (model, knn, logistic) in [("A", 90.0, 95.0), ("B", 80.0, 85.0), ("C", 70.0, 92.0), ("D", 60.0, 85.0)]
    {
        add(model, "knn", "dataset", knn);
        add(model, "logistic", "dataset", logistic);
    }
    // Only two models have another normalisation, which is not enough.
    add("A", "knn", "none", 50.0);
    add("B", "knn", "none", 60.0);
    let out = folder.path().join("report");
    write_all(&home(), folder.path(), &out, &Choice::default(), Style::default()).unwrap();
    let text = std::fs::read_to_string(out.join("report.md")).unwrap();
    let (_, views) = text.split_once("### Do ranks survive the choice?").expect("a table of views");
    let rows: Vec<&str> = views.lines().filter(|line| line.contains("m-eurosat")).collect();
    let [row] = rows.as_slice() else { panic!("{rows:?}") };
    let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
    assert_eq!(cells, ["protocol", "knn", "logistic", "m-eurosat", "4", "0.55"]);
}
