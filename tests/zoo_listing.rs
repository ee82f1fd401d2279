//! What `models` says about the zoo: licences, where weights are, and how close each model is to the original.

use std::process::Command;

use serde_json::Value;
use terrabench::home::Home;
use terrabench::model::config::{Inputs, ModelConfig};
use terrabench::report::tables::published;
use terrabench::task::{PublishedAs, Sensor, Suite};

fn models() -> Vec<(String, ModelConfig)> {
    let home = Home::find().unwrap();
    let names = home.names("configs/models").unwrap();
    names.into_iter().map(|name| (name.clone(), ModelConfig::load(&home, &name).unwrap())).collect()
}

#[test]
fn weights_have_a_licence_and_say_where_it_is_stated() {
    let with_weights: Vec<_> = models().into_iter().filter(|(_, model)| model.weights.is_some()).collect();
    assert!(with_weights.len() > 20, "{}", with_weights.len());
    for (name, model) in with_weights {
        let weights = model.weights.unwrap();
        let stated = [&weights.licence, &weights.licence_source];
        assert!(stated.iter().all(|text| text.as_ref().is_some_and(|text| !text.is_empty())), "{name}");
    }
}

/// The test that a model's file names must exist and measure this model.
#[test]
fn models_with_weights_state_their_parity() {
    for (name, model) in models().into_iter().filter(|(_, model)| model.weights.is_some()) {
        let parity = model.parity.unwrap_or_else(|| panic!("{name} states no parity"));
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(&parity.test);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {path:?}: {error}"));
        assert!(text.contains("assert_parity"), "{name}: {} measures no parity", parity.test);
        assert!(parity.difference > 0.0 && parity.difference < 1e-3, "{name}: {}", parity.difference);
        assert!(!parity.of.is_empty() && !parity.original.is_empty(), "{name}");
    }
}

#[test]
fn the_list_shows_licence_parity_and_the_command_that_fetches() {
    let data = tempfile::tempdir().unwrap();
    let list = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_terrabench"));
        let output =
            command.arg("models").args(arguments).env("TERRABENCH_DATA", data.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let text = list(&[]);
    for line in [
        "  weights: not here: cargo xtask fetch weights satmae-b",
        "  published: https://zenodo.org/records/7338613/files/pretrain-vit-base-e199.pth?download=1, listed on \
         https://zenodo.org/records/7338613",
        "  licence: CC-BY-4.0 (the page on the hub)",
        "  parity: ",
    ] {
        assert!(text.contains(line), "no line {line:?} in\n{text}");
    }
    let lines: Vec<Value> =
        list(&["--json"]).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let presto = lines.iter().find(|model| model["name"] == "presto").unwrap();
    assert_eq!(presto["licence"], "MIT");
    assert_eq!(presto["parity"]["test"], "tests/zoo_presto.rs");
    let parameters = presto["parameters"].as_u64().unwrap();
    assert!((300_000..404_160).contains(&parameters), "{parameters}");
    assert_eq!(presto["width"], 128);
    let random = lines.iter().find(|model| model["name"] == "vit-b").unwrap();
    assert_eq!(random["licence"], Value::Null);
}

/// A measured row stands beside the published one if a table knows it by the names of the model's file.
#[test]
fn every_models_published_row_is_in_a_table() {
    let home = Home::find().unwrap();
    let mut rows = std::collections::BTreeSet::new();
    for suite in home.suites().unwrap() {
        let suite = Suite::load(&home, &suite).unwrap();
        for table in suite.tables.iter().filter(|table| !table.published.is_empty()) {
            let values = published::read(&home.published(&table.published)).unwrap().values;
            for (name, model) in models() {
                let as_published = &table.published_as;
                let (ours, backbone) = (&model.name, &model.backbone);
                let named = |value: &published::PublishedValue| {
                    value.model == *PublishedAs::name(&as_published.models, ours)
                        && value.backbone == *as_published.backbone(ours, backbone)
                };
                if values.iter().any(named) {
                    rows.insert((table.file.clone(), name));
                }
            }
        }
    }
    let found = |table: &str, name: &str| rows.contains(&(table.to_owned(), name.to_owned()));
    for (name, model) in models() {
        if model.published.is_some() {
            assert!(rows.iter().any(|(_, other)| *other == name), "{name} is in no published table");
        }
    }
    for name in ["softcon-b-s1", "softcon-b-s2", "croma-b", "dofa-b-permuted", "copernicus-fm-b", "vit-b"] {
        assert!(found("copernicus-bench", name), "{name} is not in Copernicus-Bench's table");
    }
    for name in ["prithvi2-300m", "satmae-l", "satmaepp-l", "satlas-swin-b", "softcon-b-s2", "galileo-base"] {
        assert!(found("finetune", name), "{name} is not in GEO-Bench's table");
    }
}

/// The wrappers behind the published rows pass some models other bands than they were trained on.
#[test]
fn corrected_inputs_are_the_bands_of_training() {
    let home = Home::find().unwrap();
    let bands = |name: &str, inputs| {
        let model = ModelConfig::load(&home, name).unwrap().in_suite("geobench", inputs);
        let bands: Vec<String> =
            model.sensors[&Sensor::S2_L1C].bands.iter().map(ToString::to_string).collect();
        bands.join(" ")
    };
    for (name, published, trained) in [
        ("satlas-swin-t", "B02 B03 B04 B05 B06 B07 B01 B08 B8A", "B04 B03 B02 B05 B06 B07 B08 B11 B12"),
        ("satlas-swin-b", "B02 B03 B04 B05 B06 B07 B01 B08 B8A", "B04 B03 B02 B05 B06 B07 B08 B11 B12"),
        (
            "mmearth-atto",
            "B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B11 B12",
            "B01 B02 B03 B04 B05 B06 B07 B8A B08 B09 B11 B12",
        ),
        ("prithvi2-300m", "B02 B03 B04 B05 B06 B07", "B02 B03 B04 B8A B11 B12"),
        ("satmae-b", "B01 B02 B03 B04 B05 B06 B07 B08 B8A B09", "B02 B03 B04 B05 B06 B07 B08 B8A B11 B12"),
        ("satmae-l", "B01 B02 B03 B04 B05 B06 B07 B08 B8A B09", "B02 B03 B04 B05 B06 B07 B08 B8A B11 B12"),
        ("satmaepp-l", "B01 B02 B03 B04 B05 B06 B07 B08 B8A B09", "B02 B03 B04 B05 B06 B07 B08 B8A B11 B12"),
    ] {
        assert_eq!(bands(name, Inputs::AsPublished), published, "{name}");
        assert_eq!(bands(name, Inputs::Corrected), trained, "{name}");
    }
}
