//! A small data set in memory, and everything that a protocol needs around it: no files but a snapshot's.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use ndarray::{Array2, Array3};
use terrabench::Result;
use terrabench::data::decoding::Decoding;
use terrabench::data::{Dataset, RawSample, Sample, Split, Target};
use terrabench::features::{ImageInput, Input, Preparation};
use terrabench::home::{Home, read_toml};
use terrabench::model::config::ModelConfig;
use terrabench::model::weights::Weights;
use terrabench::model::{self};
use terrabench::progress::Silent;
use terrabench::protocol::TrainingSetup;
use terrabench::task::Sensor;
use terrabench::task::bands::Selection;
use terrabench::task::{Family, Metric, Suite, TargetKind, Task};
use terrabench::transform::Preprocess;
use terrabench::transform::normalize::{BandStatistics, Normalization, NormalizationKind};

use crate::common::fixture;

/// Bands of the tiny model.
pub const BANDS: usize = 12;

/// Height and width of an image in pixels.
pub const SIDE: usize = 48;

/// A number from 0 to 1 that depends on `place` alone, on every machine (SplitMix64).
pub fn unit(place: u64) -> f64 {
    let mut x = place.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x ^ (x >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Images whose labels can be learnt: each class has a band of its own that is brighter.
pub struct Generated {
    label: TargetKind,
    classes: usize,
    names: [Vec<String>; 3],
    decoding: Decoding,
    /// Each pixel is moved by so much of itself at most: as rounding would.
    pub jitter: f32,
    /// A split of whose maps nothing is measured.
    pub unmeasured: Option<Split>,
}

impl Generated {
    /// With so many samples in train, valid and test.
    pub fn new(task: &Task, samples: [usize; 3]) -> Self {
        let names = samples.map(|count| (0..count).map(|i| format!("sample {i}")).collect());
        let decoding = Decoding::of(Family::Geobench, task);
        Generated {
            label: task.target,
            classes: task.classes,
            names,
            decoding,
            jitter: 0.0,
            unmeasured: None,
        }
    }

    fn place(split: Split, index: usize) -> u64 {
        (split as u64 * 1000 + index as u64) * 1_000_000
    }

    fn label(&self, split: Split, index: usize) -> Target {
        let applies = |class: usize| unit(Self::place(split, index) + 900_000 + class as u64) < 0.4;
        let class = |y: usize, x: usize| (y / 12 + x / 12 + index) % self.classes;
        match self.label {
            TargetKind::Class => Target::Class(index % self.classes),
            TargetKind::Labels => Target::Labels((0..self.classes).map(applies).collect()),
            TargetKind::Mask => Target::Mask(Array2::from_shape_fn((SIDE, SIDE), |(y, x)| {
                // Some pixels do not count.
                if (y + x) % 11 == 0 { -1 } else { class(y, x) as i32 }
            })),
            TargetKind::Value => Target::Value(unit(Self::place(split, index) + 800_000) as f32),
            TargetKind::ValueMap => Target::ValueMap(Array2::from_shape_fn((SIDE, SIDE), |(y, x)| {
                // Some pixels are not measured.
                if (y + x) % 11 == 0 { f32::NAN } else { class(y, x) as f32 + 0.5 }
            })),
        }
    }
}

impl Dataset for Generated {
    fn decoding(&self) -> &Decoding {
        &self.decoding
    }
    fn read(&self, split: Split, index: usize, bands: &[Vec<String>]) -> Result<Sample> {
        let bands = &bands[0];
        let label = self.label(split, index);
        let bright = |band: usize, y: usize, x: usize| match &label {
            Target::Class(class) => band == *class,
            Target::Labels(labels) => labels.get(band).copied().unwrap_or(false),
            Target::Mask(mask) => mask[[y, x]] == band as i32,
            Target::Value(value) => band == 0 && unit((y * SIDE + x) as u64) < f64::from(*value),
            Target::ValueMap(map) => map[[y, x]] as usize == band,
        };
        let image = Array3::from_shape_fn((bands.len(), SIDE, SIDE), |(band, y, x)| {
            let band: usize = bands[band].parse().unwrap();
            let place = Self::place(split, index) + ((band * SIDE + y) * SIDE + x) as u64;
            let pixel = (300.0 * unit(place)) as f32 + if bright(band, y, x) { 400.0 } else { 0.0 };
            pixel * (1.0 + self.jitter * (unit(place + 7) as f32 - 0.5))
        });
        let label = match label {
            Target::ValueMap(map) if self.unmeasured == Some(split) => {
                Target::ValueMap(map.mapv(|_| f32::NAN))
            }
            label => label,
        };
        let images = vec![crate::common::image(Sensor::S2_L1C, image)];
        Ok(Sample { name: self.names[split as usize][index].clone(), images, target: label })
    }
    fn samples(&self, split: Split) -> &[String] {
        &self.names[split as usize]
    }
    fn files(&self, _: Split) -> Vec<PathBuf> {
        Vec::new()
    }
    fn bands(&self) -> Result<Vec<Vec<String>>> {
        Ok(vec![bands()])
    }
    fn read_raw(&self, _: Split, _: usize) -> Result<RawSample> {
        unreachable!("only `inspect` reads all bands")
    }
    fn statistics(&self, _: usize, bands: &[String]) -> Result<Vec<BandStatistics>> {
        Ok(vec![BandStatistics { mean: 200.0, std: 150.0 }; bands.len()])
    }
    fn contents(&self, split: Split) -> Result<Vec<blake3::Hash>> {
        let content = |name: &String| blake3::hash(format!("{split} {name}").as_bytes());
        Ok(self.names[split as usize].iter().map(content).collect())
    }
}

/// The stored names.
pub fn bands() -> Vec<String> {
    (0..BANDS).map(|band| band.to_string()).collect()
}

/// A task with such labels.
pub fn task(label: TargetKind, classes: usize, metric: Metric) -> Task {
    let suite = Suite::load(&Home::find().unwrap(), "geobench").unwrap();
    let mut task = suite.task("m-eurosat").unwrap().clone();
    (task.target, task.classes, task.metric, task.class_names) = (label, classes, metric, Vec::new());
    task.ignore = Some(-1);
    task
}

/// The data set as the tiny model takes it, normalised in each of these ways and resized to `side` pixels.
pub fn input(task: &Task, dataset: Generated, kinds: &[NormalizationKind], side: usize) -> Input {
    let statistics = dataset.statistics(0, &bands()).unwrap();
    let prepare = |kind: &NormalizationKind| Preparation {
        name: kind.to_string(),
        preprocess: Preprocess {
            normalization: Normalization::new(*kind, &statistics, 2.0).unwrap(),
            height: side,
            width: side,
            align_corners: false,
            zeroed: Vec::new(),
        },
    };
    Input {
        dataset: Box::new(dataset),
        task: task.clone(),
        images: vec![ImageInput {
            label: None,
            date: None,
            sensor: Sensor::S2_L1C,
            bands: [].into(),
            selection: Selection { stored: bands(), imputed: Vec::new(), zeroed: Vec::new() },
            matches: Vec::new(),
        }],
        fused: false,
        pooling: terrabench::model::Pooling::Class,
        metadata: Default::default(),
        keeps_size: false,
        normalization: "generated".to_owned(),
        strategies: kinds.iter().map(prepare).collect(),
        seen: Default::default(),
    }
}

/// The tiny model and its weights.
pub fn tiny() -> (ModelConfig, Weights) {
    let weights = fixture("model/tiny.safetensors").to_str().unwrap().parse().unwrap();
    (read_toml(&fixture("model/tiny.toml")).unwrap(), weights)
}

/// Setup of a protocol that trains with gradients; its snapshot is `folder`/snapshot.safetensors.
pub fn subject<'a>(task: &'a Task, input: &'a Input, folder: &Path) -> TrainingSetup<'a> {
    let (config, weights) = tiny();
    let device = Device::flex().autodiff();
    TrainingSetup {
        task,
        input,
        strategy: input.only().unwrap(),
        encoder: Some(model::trainable(&config, &weights, false, &device).unwrap()),
        maps: config.architecture.maps(),
        device,
        on_device: false,
        batch_size: 8,
        readers: 2,
        snapshot: folder.join("snapshot.safetensors"),
        progress: &Silent,
    }
}
