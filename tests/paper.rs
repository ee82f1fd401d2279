//! The report for papers: LaTeX that compiles, captions that say how the numbers were made, the bibliography, PDF pictures, and
//! the checklist.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{made, sample};
use terrabench::canvas::{Anchor, Color, Dash, Layer, Picture, Shape, Text, pdf};
use terrabench::home::Home;
use terrabench::model::config::ModelConfig;
use terrabench::record::{Record, Store};
use terrabench::report::latex;
use terrabench::report::latex::bibliography::Bibliography;
use terrabench::report::tables::published;
use terrabench::report::tables::table::fill;
use terrabench::report::{Choice, Style, write_all};
use terrabench::task::Suite;

/// Returns the program's path, or prints that it is not there.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file());
    if found.is_none() {
        eprintln!("skipped: no {name} on PATH");
    }
    found
}

/// Writes a report of made-up results, one of them with a name full of LaTeX.
fn report(folder: &Path, style: Style) {
    let results = made::results(folder);
    let store = Store::open(results.join("geobench")).unwrap();
    let nasty = made::made("geobench", "m-eurosat", |record| {
        record.cell.model = "\\input{x} $a_b$ 50 % #1 & {~^}\\".into();
        record.cell.backbone = "中文 µ²".into();
        record.provenance.weights = "random:0".into();
    });
    store.put(&nasty).unwrap();
    for record in made::real().iter().filter(|record| record.cell.partition == "default") {
        made::predict(&store, record);
    }
    write_all(&Home::find().unwrap(), &results, &results, &Choice::default(), style).unwrap();
}

fn text(path: PathBuf) -> String {
    std::fs::read_to_string(&path).unwrap_or_else(|problem| panic!("{}: {problem}", path.display()))
}

#[test]
fn the_document_compiles_without_changes() {
    let Some(latex) = program("pdflatex") else { return };
    for style in [Style { intervals: false }, Style { intervals: true }] {
        let folder = tempfile::tempdir().unwrap();
        report(folder.path(), style);
        let run = |program: &Path, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).current_dir(folder.path()).output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{}: {said}", program.display());
            said
        };
        let compile = || run(&latex, &["-halt-on-error", "-interaction=nonstopmode", "report.tex"]);
        compile();
        if let Some(bibtex) = program("bibtex") {
            let said = run(&bibtex, &["report"]);
            assert!(!said.contains("Warning"), "{said}");
        }
        compile();
        let said = compile();
        // Nothing sticks out of the page, and every reference is resolved.
        assert!(!said.contains("Overfull") && !said.contains("undefined"), "{said}");
        assert!(std::fs::metadata(folder.path().join("report.pdf")).unwrap().len() > 10_000);
    }
}

#[test]
fn best_is_bold_second_underlined_and_intervals_stand_on_request() {
    let folder = tempfile::tempdir().unwrap();
    report(folder.path(), Style::default());
    let plain = text(folder.path().join("geobench/finetune.tex"));
    for part in [
        "\\toprule",
        "\\midrule",
        "\\bottomrule",
        "\\multicolumn{1}{c}{m-EuroSat}",
        "\\textbf{98.6}",
        "\\underline{98.9}\\rlap{\\textsuperscript{\\dag{}}}",
        "\\label{tab:geobench/finetune}",
        "TerraFM (measured, linear-probe) & ViT-Base & ",
    ] {
        assert!(plain.contains(part), "no {part} in {plain}");
    }
    assert!(!plain.contains("\\textsubscript"), "{plain}");
    let folder = tempfile::tempdir().unwrap();
    report(folder.path(), Style { intervals: true });
    let with = text(folder.path().join("geobench/finetune.tex"));
    assert!(with.contains("97.2\\textsubscript{[95.5, 98.7]}"), "{with}");
}

#[test]
fn captions_name_protocols_weights_seeds_and_versions() {
    let folder = tempfile::tempdir().unwrap();
    report(folder.path(), Style::default());
    let table = text(folder.path().join("geobench/knn.tex"));
    let spider = text(folder.path().join("geobench/spider.tex"));
    for said in [&table, &spider] {
        for part in [
            "knn",
            "TerraFM ViT-Base ViT-Base5f3c",
            "seed 0;",
            "; Terrabench 0.1.0",
            "0.1.0 (revision 0123456789ab)",
        ] {
            assert!(said.contains(part), "no {part} in {said}");
        }
    }
    assert!(table.contains("Measured rows: protocol knn;"), "{table}");
    assert!(spider.contains("protocols knn, linear-probe, segmentation-probe;"), "{spider}");
    assert!(spider.contains("\\includegraphics[width=\\linewidth]{geobench/spider.pdf}"), "{spider}");
    let demo = text(folder.path().join("geobench-demo/knn.tex"));
    assert!(demo.contains("These are not benchmark results") && !demo.contains("SatMAE"), "{demo}");
    // The table names what it draws on, and no other data set.
    let keys = table.lines().find(|line| line.contains("\\cite{")).unwrap();
    for key in ["helber2019eurosat", "danish2025terrafm", "tseng2025galileo", "wu2018instance"] {
        assert!(keys.contains(key), "no {key} in {keys}");
    }
    assert!(!keys.contains("ghorbanzadeh2022landslide4sense"), "{keys}");
}

#[test]
fn the_bibliography_holds_what_the_report_used() {
    let folder = tempfile::tempdir().unwrap();
    report(folder.path(), Style::default());
    let found = text(folder.path().join("references.bib"));
    for key in [
        "lacoste2023geobench",
        "helber2019eurosat",
        "danish2025terrafm",
        "ghorbanzadeh2022landslide4sense",
        "demsar2006comparisons",
    ] {
        assert!(found.contains(&format!("{{{key},")), "no {key} in {found}");
    }
    // No report on Copernicus-Bench's tasks, no entry for them; the model of one's own is named as missing.
    assert!(!found.contains("{bountos2024kurosiwo,"), "{found}");
    assert!(found.contains("% No entry for the model \\input{x}"), "{found}");
}

#[test]
fn every_suite_task_protocol_and_model_has_an_entry() {
    let home = Home::find().unwrap();
    let bibliography = Bibliography::load(&home).unwrap();
    let mut names: BTreeSet<String> = BTreeSet::new();
    for suite in home.suites().unwrap() {
        let suite = Suite::load(&home, &suite).unwrap();
        names.extend(suite.tasks.iter().map(|task| task.name.clone()));
        for table in &suite.tables {
            let values = published::of_table(&home, table).unwrap().values;
            names.extend(values.into_iter().map(|value| value.model));
        }
        names.insert(suite.name);
    }
    for model in home.names("configs/models").unwrap() {
        names.insert(ModelConfig::load(&home, &model).unwrap().name);
    }
    names.extend(home.names("configs/protocols").unwrap());
    assert!(names.len() > 50, "{names:?}");
    let missing: Vec<&String> = names.iter().filter(|name| !bibliography.lists(name)).collect();
    assert!(missing.is_empty(), "add to benchmarks/bibliography/uses.toml: {missing:?}");
}

#[test]
fn a_bibliography_without_the_named_entry_is_refused() {
    let home = Home::find().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("benchmarks/bibliography");
    std::fs::create_dir_all(&place).unwrap();
    std::fs::copy(home.path("benchmarks/bibliography/references.bib"), place.join("references.bib")).unwrap();
    let uses = text(home.path("benchmarks/bibliography/uses.toml"));
    std::fs::write(place.join("uses.toml"), uses.replace("danish2025terrafm", "danish2026terrafm")).unwrap();
    let error = Bibliography::load(&Home::of(folder.path()).unwrap()).unwrap_err().to_string();
    assert!(error.contains("uses.toml") && error.contains("`danish2026terrafm`"), "{error}");
}

/// A picture with every kind of shape.
fn picture() -> Picture {
    let red = Color(200, 0, 0);
    let words = |words: &str, y: f64| Text::new(words, (100.0, y), Anchor::Middle, 14.0);
    let shapes = vec![
        Shape::Area { points: vec![(10.0, 10.0), (60.0, 10.0), (30.0, 60.0)], color: red, opacity: 0.5 },
        Shape::Line {
            points: vec![(0.0, 0.0), (200.0, 80.0)],
            color: red,
            width: 2.0,
            dash: Dash::Strokes(&[6.0, 4.0]),
        },
        Shape::Dot { center: (150.0, 40.0), radius: 8.0, color: red, hollow: true },
        Shape::Text(words("Größe (R²) ↓", 50.0)),
        Shape::Text(words("bold words", 80.0).bold()),
    ];
    Picture {
        width: 200.0,
        height: 100.0,
        description: "A picture".into(),
        layers: vec![Layer { owner: None, shapes }],
    }
}

#[test]
fn a_pdf_embeds_its_fonts_and_its_text_can_be_found() {
    let bytes = pdf(&picture()).unwrap();
    assert_eq!(bytes, pdf(&picture()).unwrap());
    // 200 x 100 CSS pixels in points; two parts of a font of 750 kB.
    let raw = String::from_utf8_lossy(&bytes);
    assert!(raw.starts_with("%PDF-1.") && raw.contains("/MediaBox [0 0 150 75]"), "{raw}");
    assert_eq!(raw.matches("/FontFile2").count(), 2);
    assert!(bytes.len() < 40_000, "{} bytes", bytes.len());
    let Some(reader) = program("pdftotext") else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("picture.pdf");
    std::fs::write(&path, bytes).unwrap();
    let output = Command::new(reader).arg(&path).arg("-").output().unwrap();
    let found = String::from_utf8(output.stdout).unwrap();
    assert!(found.contains("Größe (R²) ↓") && found.contains("bold words"), "{found}");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Returns the checklist at the head of `report.md` for these records.
fn checklist(records: &[Record]) -> Vec<Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("geobench")).unwrap();
    records.iter().for_each(|record| drop(store.put(record).unwrap()));
    write_all(&Home::find().unwrap(), folder.path(), folder.path(), &Choice::default(), Style::default())
        .unwrap();
    let report = text(folder.path().join("report.md"));
    let (head, _) = report.split_once("\n## GEO-Bench\n").unwrap();
    let is_rule = |line: &str| line.chars().all(|c| "|:- ".contains(c));
    let rows = head.lines().filter(|line| line.starts_with('|') && !is_rule(line));
    let cells = |line: &str| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
    rows.map(cells).collect()
}

#[test]
fn the_checklist_says_what_each_row_lacks() {
    let record = |task: &str, seed: u64, change: &dyn Fn(&mut Record)| {
        made::made("geobench", task, |record| {
            record.cell.seed = seed;
            change(record);
            sample::identify(record);
        })
    };
    let tasks = ["m-eurosat", "m-bigearthnet", "m-so2sat", "m-brick-kiln"];
    let found = checklist(&[record("m-eurosat", 0, &|record| record.interval = None)]);
    let demands: Vec<&str> = found[1..7].iter().map(|row| row[1].as_str()).collect();
    assert_eq!(
        demands,
        [
            "Weights under a named licence",
            "A shared core of tasks",
            "Baselines marked as copied or rerun",
            "Variance",
            "One harness",
            "Controls for data, architecture and algorithm"
        ]
    );
    assert_eq!(found[2][2..], ["0 of 1 row", "tasks are missing (1 row)"]);
    assert_eq!(found[3][2], "all measured rows, 104 of 112 published values");
    assert!(found[3][3].contains("origin of 8 published values unknown"), "{found:?}");
    assert!(
        found[4][3].starts_with("one seed (1 row)")
            || found[4][3].starts_with("no interval (1 row); one seed"),
        "{found:?}"
    );
    assert_eq!(found[5][2..], ["1 of 1 row", "-"]);
    let row = found.last().unwrap();
    assert_eq!(row[1], "TerraFM ViT-Base (measured)");
    assert!(row[6].contains("random weights") && row[6].contains("image statistics"), "{row:?}");

    // Several seeds on every task and share, beside random weights and image statistics, lack nothing but what nobody knows.
    let mut records = Vec::new();
    for task in tasks {
        for partition in ["default", "0.01x_train"] {
            for seed in [0, 1] {
                for weights in ["5f3c9a1be20476d8a1c2", "random:0", "none"] {
                    let mut made = record(task, seed, &|record| {
                        record.cell.partition = partition.into();
                        record.provenance.weights = weights.into();
                        if weights == "none" {
                            record.cell.model = "Image statistics".into();
                        }
                    });
                    made.value -= seed as f64;
                    records.push(made);
                }
            }
        }
    }
    let found = checklist(&records);
    assert!([2, 4, 5, 6].iter().all(|demand| found[*demand][2..] == ["3 of 3 rows", "-"]), "{found:?}");

    // Seeds that decide nothing are no variance.
    let same = [0, 1].map(|seed| record("m-eurosat", seed, &|_| ()));
    let found = checklist(&same);
    assert_eq!(found[4][3], "seeds that change nothing (1 row)");
}

#[test]
fn a_table_of_data_sets_as_rows_is_set_the_same_way() {
    let home = Home::find().unwrap();
    let suite = Suite::load(&home, "copernicus-bench").unwrap();
    let published = published::of_table(&home, &suite.tables[0]).unwrap();
    let filled = fill(&suite.tables[0], &suite, &published, &[], false).unwrap();
    let found = latex::table(&filled, "copernicus-bench/copernicus-bench", &[], Style::default());
    assert!(found.contains("Data set & Metric & Supervised & Random & SoftCon"), "{found}");
    let flood = found.lines().find(|line| line.starts_with("Flood-S1 & mIoU & ")).unwrap();
    // Printed by Copernicus-Bench itself: three reruns, and no mark for its own rows.
    assert_eq!(flood.matches("\\ddag").count(), 3, "{flood}");
    assert!(found.contains("printed in results of Copernicus-Bench"), "{found}");
}
