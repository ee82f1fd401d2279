//! Table rows: one setting each, footnotes or separate rows for differences, labels for partial weights and notes.

use crate::sample::{identify, record};
use terrabench::home::Home;
use terrabench::model::Coverage;
use terrabench::record::{Aspect, Note, Record, SettingKey, protocol_settings};
use terrabench::report::tables::published::{self, Mark};
use terrabench::report::tables::table::{ResultTable, SETTING, TableRow, fill};
use terrabench::report::{csv, markdown};
use terrabench::task::Sensor;
use terrabench::task::bands::{Band, Imputation};
use terrabench::task::{Metric, Suite};

use crate::common::demo;

/// Returns a record of the k-NN table with its own fingerprint.
fn measured(task: &str, value: f64, change: impl FnOnce(&mut Record)) -> Record {
    let mut record = record();
    record.cell.task = task.into();
    record.metric = if task == "m-bigearthnet" { Metric::MicroF1 } else { Metric::Accuracy };
    record.value = value;
    record.interval = None;
    record.provenance.imputed = Vec::new();
    change(&mut record);
    identify(&mut record);
    record
}

fn with_table<T>(records: &[Record], demo: bool, look: impl FnOnce(&ResultTable) -> T) -> T {
    let home = Home::find().unwrap();
    let suite = Suite::load(&home, "geobench").unwrap();
    let table = &suite.tables[0];
    let published = published::read(&home.published(&table.published)).unwrap();
    look(&fill(table, &suite, &published, records, demo).unwrap())
}

fn labels(table: &ResultTable) -> Vec<String> {
    table.measured.iter().map(TableRow::label).collect()
}

/// Returns the values of a row by column, with the texts of their footnotes.
fn cells(table: &ResultTable, row: usize) -> Vec<(String, f64, Vec<String>)> {
    let columns = table.columns.iter().zip(&table.measured[row].cells);
    let cells = columns.filter_map(|(column, cell)| Some((column.task.clone(), cell.as_ref()?)));
    let text = |place: &usize| table.footnotes[*place].text.clone();
    cells.map(|(task, cell)| (task, cell.value, cell.footnotes.iter().map(text).collect())).collect()
}

#[test]
fn value_with_a_different_setting_has_a_footnote() {
    let so2sat = |record: &mut Record| {
        record.provenance.imputed = vec![Imputation { source: Band::B02, target: Band::B01 }];
    };
    let records = [
        measured("m-eurosat", 90.0, |_| ()),
        measured("m-bigearthnet", 60.0, |_| ()),
        measured("m-so2sat", 50.0, so2sat),
        measured("m-brick-kiln", 80.0, |record| record.provenance.normalization = "satlas".into()),
    ];
    with_table(&records, false, |table| {
        assert_eq!(labels(table), ["TerraFM (measured)"]);
        let marked: Vec<(String, Vec<String>)> =
            cells(table, 0).into_iter().map(|(task, _, notes)| (task, notes)).collect();
        let imputed = "imputed B02 for B01; the rest of the row: imputed nothing";
        let normalised = "normalisation satlas; the rest of the row: normalisation dataset";
        assert_eq!(
            marked,
            [
                ("m-eurosat".to_owned(), vec![]),
                ("m-bigearthnet".to_owned(), vec![]),
                ("m-so2sat".to_owned(), vec![imputed.to_owned()]),
                ("m-brick-kiln".to_owned(), vec![normalised.to_owned()]),
            ]
        );
        let text = markdown(table);
        for expected in [
            " 50.0 (-5.1) ᵃ |",
            " 80.0 (-14.5) ᵇ |",
            &format!("- ᵃ {imputed}.\n"),
            "- TerraFM ViT-Base (measured): sensor s2-l1c, channels all, pooling class, bands as-named, imputed nothing, normalisation dataset, input 224 x 224.\n",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
        let lines = csv(table).unwrap();
        assert!(lines.contains(&format!(",{SETTING}: {imputed},,,\n")), "{lines}");
    });
}

#[test]
fn column_measured_in_two_settings_makes_two_rows() {
    let sensor = |record: &mut Record| {
        record.provenance.sensor = Sensor::S2_L2A;
        record.provenance.finished += 5;
    };
    let records = [
        measured("m-eurosat", 90.0, |_| ()),
        measured("m-bigearthnet", 60.0, |_| ()),
        measured("m-so2sat", 50.0, |_| ()),
        measured("m-eurosat", 91.0, sensor),
        measured("m-bigearthnet", 61.0, |record| {
            sensor(record);
            record.provenance.normalization = "satlas".into();
        }),
    ];
    with_table(&records, false, |table| {
        assert_eq!(
            labels(table),
            [
                "TerraFM (measured, sensor s2-l1c, normalisation dataset)",
                "TerraFM (measured, sensor s2-l2a, normalisation dataset)",
                "TerraFM (measured, sensor s2-l2a, normalisation satlas)",
            ]
        );
        let values = |row| cells(table, row).into_iter().map(|(_, value, _)| value).collect::<Vec<_>>();
        assert_eq!([values(0), values(1), values(2)], [vec![90.0, 60.0, 50.0], vec![91.0], vec![61.0]]);
        assert!(table.footnotes.is_empty() && table.left_out.is_empty(), "{:?}", table.footnotes);
    });
}

/// The task decides between radar and optical, so this is not a difference in setting.
#[test]
fn radar_task_is_not_a_different_setting() {
    let records = [
        measured("m-eurosat", 90.0, |_| ()),
        measured("m-so2sat", 50.0, |record| record.provenance.sensor = Sensor::S1),
    ];
    with_table(&records, false, |table| assert!(table.footnotes.is_empty(), "{:?}", table.footnotes));
}

#[test]
fn protocols_with_different_settings_are_two_rows_and_unknown_ones_are_superseded() {
    let k = |k: &'static str, finished: u64| {
        move |record: &mut Record| {
            record.protocol_settings = [("k".to_owned(), k.to_owned())].into();
            record.provenance.finished = finished;
            record.provenance.data = k.into();
        }
    };
    let mut records = [
        measured("m-eurosat", 90.0, k("20", 10)),
        measured("m-eurosat", 80.0, k("5", 9)),
        // Schema 1, which does not record k.
        measured("m-eurosat", 70.0, |record| record.provenance.finished = 8),
    ];
    // Different k means different settings and fingerprints.
    for (i, record) in records.iter_mut().enumerate() {
        record.settings = format!("{i:032x}");
        record.fingerprint = format!("{i:032x}");
    }
    with_table(&records, false, |table| {
        assert_eq!(labels(table), ["TerraFM (measured, k 20)", "TerraFM (measured, k 5)"]);
        let left_out: Vec<f64> = table.left_out.iter().map(|left_out| left_out.record.value).collect();
        assert_eq!(left_out, [70.0]);
    });
}

#[test]
fn partial_weights_are_labelled_everywhere_and_not_compared() {
    let partial = |record: &mut Record| {
        record.provenance.weights = "blake3:5f3c9a1be20476d8a1c2+random:0".into();
        record.provenance.coverage = Coverage::Partial { loaded: Some(1), parameters: Some(150) };
    };
    let records = [measured("m-eurosat", 99.9, partial)];
    with_table(&records, false, |table| {
        assert_eq!(labels(table), ["TerraFM (measured, partial weights: 1 of 150 parameters)"]);
        let cell = table.measured[0].cells[0].as_ref().unwrap();
        assert_eq!((cell.difference(), cell.mark), (None, Mark::None));
        let best = table.published.iter().filter_map(|row| row.cells[0].as_ref());
        assert_eq!(
            best.filter(|cell| cell.mark == Mark::Bold).count(),
            1,
            "the best of the others stays bold"
        );
        let text = markdown(table);
        assert!(!text.contains("Measured against published"), "{text}");
        assert!(text.contains("5f3c9a1be204, partial weights: 1 of 150 parameters"), "{text}");
        let lines = csv(table).unwrap();
        assert!(lines.contains("\nTerraFM (partial weights: 1 of 150 parameters),"), "{lines}");
    });
    // An older record shows partial weights only in its weights' id; the demo's table labels them too.
    let records = [measured("m-eurosat", 50.0, |record| {
        partial(record);
        record.provenance.coverage = Coverage::Partial { loaded: None, parameters: None };
        record.demo = true;
    })];
    with_table(&records, true, |table| assert_eq!(labels(table), ["TerraFM (demo, partial weights)"]));
}

#[test]
fn notes_of_records_are_footnotes_once_each() {
    let duplicates = Note::new("duplicates", "3 test images are the same | as others");
    let records = [
        measured("m-eurosat", 90.0, |record| record.notes = vec![duplicates.clone()]),
        measured("m-bigearthnet", 60.0, |record| {
            record.notes = vec![Note::new("constant-features", "=all equal"), duplicates.clone()];
        }),
    ];
    with_table(&records, false, |table| {
        assert_eq!(table.footnotes.len(), 2);
        let text = markdown(table);
        assert!(text.contains(" 90.0 (-4.2) ᵃ |") && text.contains(" 60.0 (-8.7) ᵇ,ᵃ |"), "{text}");
        assert!(text.contains("- ᵃ 3 test images are the same \\| as others.\n"), "{text}");
    });
}

#[test]
fn csv_text_is_never_a_formula() {
    for name in ["=cmd|' /C calc'!A0", "+1+2", "-3", "@SUM(A1)", "\tx", "\nx"] {
        let records = [measured("m-eurosat", 40.0, |record| {
            record.cell.model = name.into();
            record.cell.backbone = name.into();
        })];
        with_table(&records, false, |table| {
            let text = csv(table).unwrap();
            let harmless = |field: &str| {
                if name.starts_with('\n') { format!("\"'{field}\"") } else { format!("'{field}") }
            };
            let expected = format!("{},{},measured", harmless(name), harmless(name));
            assert!(text.contains(&expected), "{expected} in {text}");
        });
    }
    // Numbers stay numbers: a negative difference has no apostrophe.
    with_table(&[measured("m-eurosat", 90.0, |_| ())], false, |table| {
        assert!(csv(table).unwrap().contains(",90.0,,,94.2,-4.2,,"), "{}", csv(table).unwrap());
    });
}

#[test]
fn setting_names_only_what_differs() {
    let plain = SettingKey::of(&measured("m-eurosat", 90.0, |_| ()));
    let other = SettingKey::of(&measured("m-eurosat", 90.0, |record| {
        record.short = true;
        record.provenance.weights = "random:1".into();
        record.provenance.image_size = 112;
    }));
    assert_eq!(other.among([&plain]), "weights random:1, shortened, input 112 x 112");
    assert_eq!(plain.among([&plain]), "");
    assert!(plain.is_same(&plain) && !plain.is_same(&other));
    let without = |key: &SettingKey| {
        key.clone().without(|aspect| {
            matches!(aspect, Aspect::Weights | Aspect::Coverage | Aspect::Length | Aspect::InputSize)
        })
    };
    assert_eq!(without(&plain), without(&other));
    assert!(plain.to_string().contains("sensor s2-l1c") && plain.to_string().contains("whole weights"));
}

#[test]
fn protocol_settings_are_named_and_exclude_the_interval() {
    let home = Home::find().unwrap();
    let load = |name: &str| terrabench::protocol::ProtocolConfig::load(&home, name).unwrap();
    let settings = protocol_settings(&load("knn")).unwrap();
    let expected = [("embedding-dtype", "f32"), ("k", "20"), ("kind", "knn"), ("temperature", "0.07")];
    assert_eq!(settings, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    let settings = protocol_settings(&load("linear-probe")).unwrap();
    assert!(
        settings.contains_key("optimizer.kind") && settings.contains_key("learning-rates"),
        "{settings:?}"
    );
}

/// End to end, with a file that contains one parameter of the model.
#[test]
fn run_with_partial_weights_records_how_many_parameters_they_cover() {
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("one.safetensors");
    let bytes: Vec<u8> = std::iter::repeat_n(1.0f32.to_le_bytes(), 192).flatten().collect();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![192], &bytes).unwrap();
    std::fs::write(&weights, safetensors::serialize([("norm.weight", view)], None).unwrap()).unwrap();
    let out = folder.path().join("results");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_terrabench"))
        .env("TERRABENCH_CACHE", demo::cache("geobench", folder.path().join("cache")))
        .args(["bench", "geobench", "--demo", "--task", "m-eurosat", "--partition", "0.01x_train"])
        .args(["--allow-partial", "--weights"])
        .arg(&weights)
        .arg("--out")
        .arg(&out)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let records = terrabench::record::Store::open(out.join("geobench-demo")).unwrap().all().unwrap();
    let Coverage::Partial { loaded: Some(1), parameters: Some(parameters) } = records[0].provenance.coverage
    else {
        panic!("{:?}", records[0].provenance.coverage)
    };
    assert!(parameters > 50, "{parameters}");
    let told = format!("partial weights: 1 of {parameters} parameters");
    assert!(said.contains(&told), "{said}");
    let table = std::fs::read_to_string(out.join("geobench-demo/knn.md")).unwrap();
    assert!(table.contains(&format!("(demo, {told})")), "{table}");
}
