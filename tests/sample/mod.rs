//! A record to vary in tests.

use std::collections::BTreeMap;

use terrabench::model::Coverage;
use terrabench::record::{Cell, Interval, Provenance, Record, SCHEMA, fingerprint};
use terrabench::task::Metric;
use terrabench::task::Sensor;
use terrabench::task::bands::{Band, Imputation};

/// TerraFM ViT-Base on m-eurosat. Whoever changes what decides its number calls [`identify`] afterwards.
pub fn record() -> Record {
    let mut record = Record {
        schema: SCHEMA,
        fingerprint: String::new(),
        settings: String::new(),
        request: String::new(),
        predictions: None,
        demo: false,
        short: false,
        cell: Cell {
            suite: "geobench".into(),
            task: "m-eurosat".into(),
            partition: "default".into(),
            protocol: "knn".into(),
            model: "TerraFM".into(),
            backbone: "ViT-Base".into(),
            seed: 0,
        },
        metric: Metric::Accuracy,
        value: 94.5,
        interval: Some(Interval { low: 93.0, high: 95.9, level: 0.95 }),
        scores: BTreeMap::from([("accuracy".into(), 94.5)]),
        selected: BTreeMap::from([("k".into(), "20".into()), ("temperature".into(), "0.07".into())]),
        samples: BTreeMap::from([("test".into(), 1000), ("train".into(), 2000)]),
        protocol_settings: BTreeMap::new(),
        notes: Vec::new(),
        provenance: Provenance {
            terrabench: "0.1.0".into(),
            git_revision: None,
            git_dirty: false,
            configs: BTreeMap::new(),
            weights: "5f3c9a1be20476d8a1c2".into(),
            coverage: Coverage::Whole,
            data: "0f1e2d3c4b5a6978".into(),
            features: None,
            sensor: Sensor::S2_L1C,
            images: Vec::new(),
            pooling: Some(terrabench::model::Pooling::Class),
            channels: "all".into(),
            inputs: Default::default(),
            bands: vec!["02 - Blue".into(), "11 - SWIR".into()],
            band_names: "as-named".into(),
            imputed: vec![Imputation { source: Band::B11, target: Band::B10 }],
            matched: Vec::new(),
            normalization: "dataset".into(),
            image_size: 224,
            depth: None,
            resize: None,
            beside: None,
            speed: None,
            precision: Default::default(),
            declared: BTreeMap::new(),
            origin: None,
            metadata: Vec::new(),
            stand_ins: Vec::new(),
            command: String::new(),
            device: "flex".into(),
            gpu: None,
            driver: None,
            threads: 2,
            finished: 1_700_000_000,
            wall_seconds: 12.5,
        },
    };
    identify(&mut record);
    record
}

/// Gives a record fingerprints that follow from its cell and settings.
pub fn identify(record: &mut Record) {
    let made = &record.provenance;
    let settings = (record.demo, &made.weights, &made.band_names, &made.normalization);
    let cell = &record.cell;
    let of_all_seeds = Cell { seed: 0, ..cell.clone() };
    (record.settings, record.fingerprint) =
        (fingerprint(&(settings, of_all_seeds)).unwrap(), fingerprint(&(settings, cell)).unwrap());
}
