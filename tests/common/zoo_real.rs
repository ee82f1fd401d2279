//! Published weights on real pixels, from the files to features and votes. Runs only where both are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use terrabench::config::EmbeddingDtype;
use terrabench::features::tiles::{Tokens, tile_tokens};
use terrabench::features::{Extractor, FeatureBank, Features, Identity, Input, InputOptions};
use terrabench::home::Home;
use terrabench::model::config::ModelConfig;
use terrabench::model::{self, LoadedModel};
use terrabench::progress::Silent;
use terrabench::protocol::ProtocolConfig;
use terrabench::protocol::knn;
use terrabench::score::Targets;
use terrabench::task::{Split, Suite};
use terrabench::transform::augment::Dihedral;
use terrabench::transform::strategies::Strategies;

use crate::common;
use crate::zoo::{self, Golden, device};

/// The folder of one model's published weights or golden numbers, beside the real pixels.
pub fn folder(model: &str) -> Option<PathBuf> {
    let folder =
        common::real().map(|real| real.join("../golden/zoo").join(model)).filter(|path| path.is_dir());
    if folder.is_none() {
        eprintln!("skipped: no real pixels or no published weights of {model} (TERRABENCH_REAL)");
    }
    folder
}

/// A model with its published weights.
pub struct RealModel {
    config: ModelConfig,
    loaded: LoadedModel,
    real: PathBuf,
}

impl RealModel {
    pub fn load(config: ModelConfig, weights: &Path) -> Self {
        let file = weights.to_str().unwrap().parse().unwrap();
        let loaded = model::load(&config, &file, false, &device()).unwrap();
        assert!(loaded.report.is_complete());
        RealModel { config, loaded, real: common::real().unwrap() }
    }

    fn with_extractor<T>(
        &self,
        [suite, task, partition, normalization]: [&str; 4],
        work: impl FnOnce(&Extractor) -> T,
    ) -> T {
        let home = Home::find().unwrap();
        let suite = Suite::load(&home, suite).unwrap();
        let task = suite.task(task).unwrap();
        let options = InputOptions {
            by_content: false,
            channels: Default::default(),
            normalization: normalization.to_owned(),
            strategies: Strategies::load(&home).unwrap(),
            zeros: false,
        };
        let root = self.real.join(&suite.name);
        let input = Input::open(&suite, task, partition, &root, &self.config, &options).unwrap();
        work(&Extractor {
            encoder: self.loaded.encoder.as_ref(),
            device: &device(),
            further: &[],
            input: &input,
            strategy: input.only().unwrap(),
            turn: Dihedral::Identity,
            batch_size: 4.into(),
            readers: 2,
        })
    }

    /// Pooled features of a split. `place` is suite, task, partition and normalisation.
    pub fn features(&self, place: [&str; 4], split: Split, bank: &mut FeatureBank) -> Features {
        let identity = Identity {
            model: &self.config,
            weights: &self.loaded.weights_id,
            device: "flex",
            precision: Default::default(),
        };
        self.with_extractor(place, |extractor| bank.features(extractor, identity, split, &Silent).unwrap())
    }

    /// Patch tokens of the tiles of the first train image.
    pub fn tile_tokens(&self, place: [&str; 4], side: usize) -> Tokens {
        self.with_extractor(place, |extractor| {
            tile_tokens(extractor, Split::Train, &[0], side, &Silent).unwrap()
        })
    }
}

/// Compares features with the golden rows of their samples; `names` are the samples of the rows.
#[track_caller]
pub fn compare(golden: &Golden, key: &str, names: &[String], features: &Features, tolerance: f64) {
    let rows = golden.get(key);
    let width = features.matrix.ncols();
    let mut compared = 0;
    for (name, feature) in features.samples.iter().zip(features.matrix.rows()) {
        let Some(row) = names.iter().position(|known| known == name) else {
            panic!("{key}: no sample {name}")
        };
        let Some(expected) = rows.get(row * width..(row + 1) * width) else { continue };
        let difference = zoo::difference(&feature.to_vec(), expected);
        assert!(
            difference <= tolerance,
            "{key} of {name} differs by {difference:e}, more than {tolerance:e}"
        );
        compared += 1;
    }
    assert!(compared > 0, "{key}: no sample compared");
    println!("{key}: {compared} samples within {tolerance:e}");
}

/// What k-NN finds, by Galileo's own code.
#[derive(Deserialize)]
pub struct Neighbourhoods {
    /// Per data set: the samples of the golden features.
    pub names: BTreeMap<String, Vec<String>>,
    sets: BTreeMap<String, GoldenSet>,
}

#[derive(Deserialize)]
struct GoldenSet {
    partitions: BTreeMap<String, GoldenPartition>,
}

#[derive(Deserialize)]
struct GoldenPartition {
    train_order: Vec<String>,
    test_order: Vec<String>,
    nearest_similarity: Vec<f32>,
    k20: GoldenVotes,
}

#[derive(Deserialize)]
struct GoldenVotes {
    k: usize,
    value: f64,
    pred: Vec<Prediction>,
    vote_margin: Vec<f64>,
    /// Not where all train samples are neighbours.
    edge_gap: Option<Vec<f64>>,
    neighbours: Vec<Vec<usize>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Prediction {
    Class(usize),
    /// The labels that apply.
    Labels(Vec<usize>),
}

impl Neighbourhoods {
    pub fn open(path: &Path) -> Self {
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    /// Compares the neighbours and votes of a data set in all golden partitions.
    pub fn compare(&self, model: &RealModel, task: &str, normalization: &str) {
        let home = Home::find().unwrap();
        let ProtocolConfig::Knn(mut config) = ProtocolConfig::load(&home, "knn").unwrap() else { panic!() };
        config.embedding_dtype = EmbeddingDtype::F32;
        let suite = Suite::load(&home, "geobench").unwrap();
        let classes = suite.task(task).unwrap().classes;
        let mut bank = FeatureBank::default();
        for (partition, golden) in &self.sets[task].partitions {
            let mut features =
                |split| model.features(["geobench", task, partition, normalization], split, &mut bank);
            let (train, test) = (features(Split::Train), features(Split::Test));
            assert_eq!((&train.samples, &test.samples), (&golden.train_order, &golden.test_order));
            let labels = Targets::from_labels(&train.labels, classes).unwrap();
            let truth = Targets::from_labels(&test.labels, classes).unwrap();
            let found = knn::predict(&config, train.matrix.view(), &labels, test.matrix.view()).unwrap();
            let votes = &golden.k20;
            assert_eq!(found.neighbours.indices.ncols(), votes.k);
            let (mut right, mut sure) = (0, 0);
            for (i, name) in test.samples.iter().enumerate() {
                let what = format!("{task} {partition} {name}");
                let nearest = found.neighbours.similarities[[i, 0]];
                assert!(
                    (nearest - golden.nearest_similarity[i]).abs() < 1e-5,
                    "{what}: similarity {nearest}"
                );
                if votes.edge_gap.as_ref().is_some_and(|gaps| gaps[i] <= 1e-5) {
                    continue;
                }
                let ours: BTreeSet<usize> = found.neighbours.indices.row(i).iter().copied().collect();
                assert_eq!(ours, votes.neighbours[i].iter().copied().collect(), "{what}");
                if votes.vote_margin[i] <= 1e-4 {
                    continue;
                }
                sure += 1;
                match (&found.targets, &votes.pred[i]) {
                    (Targets::Classes { classes, .. }, Prediction::Class(class)) => {
                        assert_eq!(classes[i], *class, "{what}");
                        let Targets::Classes { classes: truth, .. } = &truth else { panic!() };
                        right += usize::from(classes[i] == truth[i]);
                    }
                    (Targets::Labels(flags), Prediction::Labels(labels)) => {
                        let found: Vec<usize> = flags
                            .row(i)
                            .indexed_iter()
                            .filter(|(_, flag)| **flag)
                            .map(|(at, _)| at)
                            .collect();
                        assert_eq!(found, *labels, "{what}");
                    }
                    _ => panic!("{what}: one class or several labels"),
                }
            }
            assert!(sure > 0, "{task} {partition}: no prediction is sure");
            if sure == test.samples.len() && matches!(found.targets, Targets::Classes { .. }) {
                assert!(
                    (right as f64 / sure as f64 - votes.value).abs() < 1e-9,
                    "{task} {partition}: {right}"
                );
            }
        }
    }
}
