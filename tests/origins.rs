//! Who measured a published value: the column `origin`, its marks in tables, and what is not known.

use std::collections::BTreeMap;

use terrabench::home::Home;
use terrabench::report::tables::published::{self, Published, ValueOrigin};
use terrabench::report::tables::table::fill;
use terrabench::report::{csv, markdown};
use terrabench::task::Suite;

fn suite() -> (Home, Suite) {
    let home = Home::find().unwrap();
    let suite = Suite::load(&home, "geobench").unwrap();
    (home, suite)
}

/// Counts the values of a published file by origin.
fn origins(file: &str) -> BTreeMap<String, usize> {
    let (home, _) = suite();
    let mut counts = BTreeMap::new();
    for value in published::read(&home.published(file)).unwrap().values {
        let origin = match value.origin {
            ValueOrigin::Copied(from) => format!("copied: {from}"),
            other => other.word().to_owned(),
        };
        *counts.entry(origin).or_default() += 1;
    }
    counts
}

#[test]
fn every_published_value_says_who_measured_it() {
    let counts = |pairs: &[(&str, usize)]| pairs.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
    const GALILEO: &str = "copied: Galileo (arXiv 2502.09356), Table";
    let (knn, tuned, probe) = (format!("{GALILEO} 13"), format!("{GALILEO} 14"), format!("{GALILEO} 15"));
    assert_eq!(origins("geobench-knn.csv"), counts(&[(knn.as_str(), 88), ("own", 16), ("unknown", 8)]));
    // Four values are not those of Galileo's table under the same name.
    let exceptions = [
        format!("{tuned}, which has 98.4"),
        format!("{probe}, where it is ViT-Base's and ViT-Large has 34.3"),
        format!("{probe}, where it is Swin-Tiny's and Swin-Base has 24.5"),
        format!("{probe}, where it is Swin-Tiny's and Swin-Base has 22.4"),
    ];
    let mut expected = vec![(tuned.as_str(), 43), (probe.as_str(), 19), ("own", 12)];
    expected.extend(exceptions.iter().map(|name| (name.as_str(), 1)));
    assert_eq!(origins("geobench-finetune.csv"), counts(&expected));
    let copied = "copied: Copernicus-Bench (arXiv 2503.11849)";
    assert_eq!(origins("copernicus-bench.csv"), counts(&[(copied, 48), ("own", 11), ("rerun", 3)]));
    assert_eq!(origins("landslide4sense.csv"), counts(&[("own", 2), ("unknown", 2)]));
    // A file without the column knows nothing.
    assert_eq!(read_text(&format!("{HEAD}{GOOD}")).unwrap().values[0].origin, ValueOrigin::Unknown);
}

#[test]
fn copied_values_are_marked_and_exceptions_named() {
    let (home, suite) = suite();
    let table = suite.tables.iter().find(|table| table.file == "finetune").unwrap();
    let source = published::of_table(&home, table).unwrap();
    let filled = fill(table, &suite, &source, &[], false).unwrap();
    let text = markdown(&filled);
    assert!(text.contains(" _98.9_† |") && text.contains(" **99.0** |"), "{text}");
    let exception = "- † copied from Galileo (arXiv 2502.09356), Table 14, which has 98.4: Satlas Swin-Base, m-Brick-Kiln (100 %).\n";
    assert!(text.contains(exception), "{text}");
    assert!(text.contains("Table 14: 43 values.\n"), "{text}");
    let text = csv(&filled).unwrap();
    assert!(
        text.contains(
            ",copied,\"Galileo (arXiv 2502.09356), Table 14, which has 98.4\",\"README of github.com/"
        ),
        "{text}"
    );
    let knn = suite.tables.iter().find(|table| table.file == "knn").unwrap();
    let source = published::of_table(&home, knn).unwrap();
    let text = markdown(&fill(knn, &suite, &source, &[], false).unwrap());
    assert!(
        text.contains(" 76.0§ |") && text.contains("- § not known whether copied or rerun: 8 values.\n"),
        "{text}"
    );
}

#[test]
fn values_of_another_paper_in_a_file_say_where_they_were_printed() {
    let home = Home::find().unwrap();
    let values = published::read(&home.published("copernicus-bench.csv")).unwrap().values;
    for value in values {
        let elsewhere = value.printed.starts_with("results of Copernicus-Bench");
        assert_eq!(elsewhere, value.dataset == "flood-s1", "{value:?}");
    }
}

/// Reads a file of published values with this text.
fn read_text(text: &str) -> terrabench::Result<Published> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("numbers.csv");
    std::fs::write(&path, text).unwrap();
    published::read(&path)
}

const HEAD: &str = "# Source: a paper\nmodel,backbone,dataset,protocol,metric,value,mark\n";
const GOOD: &str = "M,B,m-eurosat,knn,accuracy,84.1,bold\n";

#[test]
fn an_origin_is_one_of_four() {
    let head = HEAD.replace("mark", "mark,origin");
    let read = |origin: &str| read_text(&format!("{head}M,B,m-eurosat,knn,accuracy,84.1,,{origin}\n"));
    let origin = |text: &str| read(text).unwrap().values[0].origin.clone();
    assert_eq!(origin("rerun"), ValueOrigin::Rerun);
    assert_eq!(origin("\"copied: A, Table 1\""), ValueOrigin::Copied("A, Table 1".into()));
    assert_eq!(origin(""), ValueOrigin::Unknown);
    for bad in ["copied", "copied:", "stolen"] {
        let error = read(bad).unwrap_err().to_string();
        assert!(error.contains("line 3: ") && error.contains(&format!("found `{bad}`")), "{error}");
    }
}
