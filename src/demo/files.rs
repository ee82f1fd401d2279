//! The files of a task in GEO-Bench's layout: samples, partitions, statistics, specifications.

use std::collections::BTreeMap;
use std::path::Path;

use hdf5_pure::{AttrValue, FileBuilder};
use rayon::prelude::*;
use serde::Serialize;

use crate::data::{Split, Target};
use crate::error::AtPath;
use crate::task::bands::Band;
use crate::task::{Suite, TargetKind, Task};
use crate::{Error, Result};

use super::describe::{self, Date};
use super::pickle::{Value, repr};
use super::random::Random;
use super::scenes::Scene;
use super::statistics::Statistics;
use super::tasks::{BYTE, Camera, Content, Pixels};
use super::{brightness, sensor};

/// The eight planes of Sentinel-1 in So2Sat.
const RADAR: [&str; 8] = [
    "01 - VH.Real",
    "02 - VH.Imaginary",
    "03 - VV.Real",
    "04 - VV.Imaginary",
    "05 - VH.LEE Filtered",
    "06 - VV.LEE Filtered",
    "07 - VH.LEE Filtered.Real",
    "08 - VV.LEE Filtered.Imaginary",
];

/// Percentages of the training samples for which there is a partition.
const SHARES: [usize; 7] = [1, 2, 5, 10, 20, 50, 100];

/// Minimum number of training samples in a partition; single-class tasks have at least one per class.
const SMALLEST: usize = 4;

/// Writes all files of a task into its directory below `root`.
///
/// # Errors
/// If a file cannot be written.
pub fn write_task(suite: &Suite, task: &Task, content: &Content, seed: u64, root: &Path) -> Result<()> {
    let directory = root.join(&task.directory);
    std::fs::create_dir_all(&directory).at(&directory)?;
    let layout = TaskFiles { suite, task, content, seed };

    let mut names: Vec<Vec<String>> = Vec::new();
    let mut first = 0;
    for split in Split::ALL {
        let count = content.count(split);
        names.push((first..first + count).map(content.named).collect());
        let samples: Vec<Vec<Plane>> = (0..count)
            .into_par_iter()
            .map(|index| {
                let sample = layout.sample(split, index, first + index);
                let path = directory.join(format!("{}.hdf5", names[split as usize][index]));
                std::fs::write(&path, layout.encode(&sample).at(&path)?).at(&path)?;
                Ok(sample.planes)
            })
            .collect::<Result<_>>()?;
        first += count;
        if split == Split::Train {
            write_json(&directory.join("band_stats.json"), &statistics(&samples))?;
            let bands = samples.first().into_iter().flatten().map(|plane| plane.info.clone()).collect();
            let path = directory.join("task_specs.pkl");
            std::fs::write(&path, describe::specifications(task, content, bands).pickle()).at(&path)?;
        }
    }

    let [train, valid, test] =
        names.try_into().map_err(|_| Error::mismatch("the demo needs exactly three splits"))?;
    let write_partition = |name: &str, count: usize| {
        let partition = Partition { train: &train[..count.min(train.len())], valid: &valid, test: &test };
        write_json(&directory.join(format!("{name}_partition.json")), &partition)
    };
    write_partition("default", train.len())?;
    for share in SHARES {
        let smallest = if task.target == TargetKind::Class { task.classes.max(SMALLEST) } else { SMALLEST };
        let count = (train.len() * share).div_ceil(100).max(smallest);
        write_partition(&format!("{}.{:02}x_train", share / 100, share % 100), count)?;
    }
    Ok(())
}

/// Samples of a split that [`write_many`] draws.
pub const DRAWN: usize = 40;

/// Like [`write_task`], with so many samples per split. The first ones of a split are drawn; the others are those again with
/// shifted pixels, so that every file has another content.
///
/// # Errors
/// Like [`write_task`].
pub fn write_many(
    suite: &Suite,
    task: &Task,
    content: &Content,
    counts: [usize; 3],
    root: &Path,
) -> Result<()> {
    let directory = root.join(&task.directory);
    std::fs::create_dir_all(&directory).at(&directory)?;
    let layout = TaskFiles { suite, task, content, seed: 0 };
    let mut names: Vec<Vec<String>> = Vec::new();
    let mut first = 0;
    for (split, count) in Split::ALL.into_iter().zip(counts) {
        let drawn: Vec<Sample> =
            (0..DRAWN).into_par_iter().map(|index| layout.sample(split, index, index)).collect();
        let own: Vec<String> = (first..first + count).map(|number| format!("made_{number:06}")).collect();
        first += count;
        own.par_iter().enumerate().try_for_each(|(index, name)| {
            let path = directory.join(format!("{name}.hdf5"));
            let sample = drawn[index % DRAWN].shifted(index / DRAWN);
            std::fs::write(&path, layout.encode(&sample).at(&path)?).at(&path)
        })?;
        if split == Split::Train {
            let planes: Vec<Vec<Plane>> = drawn.into_iter().map(|sample| sample.planes).collect();
            write_json(&directory.join("band_stats.json"), &statistics(&planes))?;
            let bands = planes.first().into_iter().flatten().map(|plane| plane.info.clone()).collect();
            let path = directory.join("task_specs.pkl");
            std::fs::write(&path, describe::specifications(task, content, bands).pickle()).at(&path)?;
        }
        names.push(own);
    }
    if let [train, valid, test] = names.as_slice() {
        write_json(&directory.join("default_partition.json"), &Partition { train, valid, test })?;
    }
    Ok(())
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    std::fs::write(path, serde_json::to_string_pretty(value).at(path)?).at(path)
}

#[derive(Serialize)]
struct Partition<'a> {
    train: &'a [String],
    valid: &'a [String],
    test: &'a [String],
}

/// One dataset of a sample's file.
struct Plane {
    /// Name without a date.
    name: String,
    /// The official package's description of the band.
    info: Value,
    values: Stored,
    /// Height, width and bands, if they differ from those of the other planes.
    shape: Option<[u64; 3]>,
}

impl Plane {
    fn new(name: &str, info: Value, values: Stored) -> Self {
        Plane { name: name.to_owned(), info, values, shape: None }
    }
}

/// Pixels as stored, row by row.
enum Stored {
    Int16(Vec<i16>),
    Int64(Vec<i64>),
    Float32(Vec<f32>),
    Uint8(Vec<u8>),
}

/// The planes of a sample, including the mask, and the label of a sample without a mask.
struct Sample {
    side: usize,
    date: Option<Date>,
    planes: Vec<Plane>,
    mask: Option<Plane>,
    label: Option<Value>,
}

impl Sample {
    /// The same sample with the pixels of all planes, and the mask's, moved on by so many places.
    fn shifted(&self, places: usize) -> Self {
        let plane = |plane: &Plane| Plane {
            name: plane.name.clone(),
            info: plane.info.clone(),
            values: plane.values.shifted(places),
            shape: plane.shape,
        };
        Sample {
            side: self.side,
            date: self.date,
            planes: self.planes.iter().map(plane).collect(),
            mask: self.mask.as_ref().map(plane),
            label: self.label.clone(),
        }
    }
}

/// Everything that determines the form of a task's files.
struct TaskFiles<'a> {
    suite: &'a Suite,
    task: &'a Task,
    content: &'a Content,
    seed: u64,
}

impl TaskFiles<'_> {
    /// Draws the sample at `index` of a split; its `number` among all samples decides its date. Task, split, index and seed name
    /// its random stream, so its pixels depend on nothing else.
    fn sample(&self, split: Split, index: usize, number: usize) -> Sample {
        let drawn = if self.seed == 0 { String::new() } else { format!(" seed {}", self.seed) };
        let name = format!("{} {} {split} {index}{drawn}", self.suite.name, self.task.name);
        let mut random = Random::named(&name);
        let scene = (self.content.draw)(&mut random, index, self.task.image_size);
        let planes = match self.content.camera {
            Camera::Sentinel2 => self.satellite(&mut random, &scene),
            camera => self.photograph(&mut random, &scene, camera),
        };
        let label_type = || describe::label_type(self.task, self.content);
        let (mut mask, mut label) = (None, None);
        match scene.target {
            Target::Class(class) => label = Some(Value::Int(class as i32)),
            Target::Labels(labels) => {
                let labels: Vec<i64> = labels.into_iter().map(i64::from).collect();
                label = Some(Value::int64_array(&labels));
            }
            Target::Mask(classes) => {
                let values = match self.content.pixels {
                    // As in m-chesapeake.
                    Pixels::Fraction => Stored::Int64(classes.into_iter().map(i64::from).collect()),
                    _ => Stored::Uint8(classes.into_iter().map(|class| class as u8).collect()),
                };
                mask = Some(Plane::new("label", label_type(), values));
            }
            Target::Value(value) => label = Some(Value::Float(f64::from(value))),
            Target::ValueMap(map) => {
                mask = Some(Plane::new("label", label_type(), Stored::Float32(map.into_iter().collect())));
            }
        }
        Sample { side: scene.side, date: (self.content.date)(number), planes, mask, label }
    }

    /// The planes of Sentinel-1 and Sentinel-2.
    fn satellite(&self, random: &mut Random, scene: &Scene) -> Vec<Plane> {
        let bands = self.bands();
        let contents: Vec<Band> = bands.iter().map(|band| band.content).collect();
        let view = sensor::optical(random, scene, &contents, self.task.sensor, self.content.cloudy);
        let mut planes = Vec::new();
        if self.content.radar {
            for (name, values) in RADAR.iter().zip(sensor::radar(random, scene)) {
                planes.push(Plane::new(name, describe::radar_info(name), Stored::Float32(values)));
            }
        }
        for (band, numbers) in bands.iter().zip(view.bands) {
            let info = describe::optical_info(band.named, band.name);
            planes.push(Plane::new(band.name, info, self.store(numbers)));
        }
        if self.content.cloud_probability {
            let percent = view.cloud_probability.into_iter().map(|percent| percent as u8).collect();
            planes.push(Plane::new(
                describe::CLOUD_PROBABILITY,
                describe::cloud_info(),
                Stored::Uint8(percent),
            ));
        }
        planes
    }

    /// The planes of a camera.
    fn photograph(&self, random: &mut Random, scene: &Scene, camera: Camera) -> Vec<Plane> {
        let mut planes = Vec::new();
        for (channel, values) in camera.channels().iter().zip(brightness::photograph(random, scene, camera)) {
            let info = describe::channel_info(channel, camera == Camera::Landsat8, self.task);
            planes.push(Plane::new(channel.name, info, self.store(values)));
        }
        if camera == Camera::AerialWithLidar {
            let side = scene.side.div_ceil(brightness::COARSE) as u64;
            let heights = Stored::Float32(brightness::heights(random, scene));
            let spectra = Stored::Int16(brightness::spectra(random, scene));
            planes.push(Plane {
                shape: Some([side, side, 1]),
                ..Plane::new(describe::HEIGHTS, describe::heights_info(), heights)
            });
            planes.push(Plane {
                shape: Some([side, side, brightness::SPECTRAL as u64]),
                ..Plane::new(describe::SPECTRA, describe::spectra_info(), spectra)
            });
        }
        planes
    }

    /// The Sentinel-2 bands in the order of their names.
    fn bands(&self) -> Vec<StoredBand<'_>> {
        let lacks = |band: &Band| *band > Band::B12 || self.content.without.contains(band);
        self.suite
            .bands
            .iter()
            .filter(|(band, _)| !lacks(band))
            .map(|(band, name)| {
                // The contents of the official m-eurosat bands do not match their names; the demo reproduces that.
                // m-brick-kiln is excluded because it draws no quick-look.
                let by_content = self.task.quick_look.is_none().then_some(&self.task.by_content);
                let other = by_content.and_then(|bands| bands.iter().find(|(_, stored)| *stored == name));
                StoredBand { named: *band, name, content: other.map_or(*band, |(content, _)| *content) }
            })
            .collect()
    }

    fn store(&self, numbers: Vec<f32>) -> Stored {
        match self.content.pixels {
            Pixels::Int16 => Stored::Int16(numbers.into_iter().map(|number| number as i16).collect()),
            Pixels::Float32 => {
                Stored::Float32(numbers.into_iter().map(|number| number / self.task.scale).collect())
            }
            Pixels::Uint8 => {
                // The cast to u8 saturates at 255, as bright clouds do in the official files.
                Stored::Uint8(numbers.into_iter().map(|number| (number / BYTE).round() as u8).collect())
            }
            Pixels::Brightness => Stored::Uint8(numbers.into_iter().map(|number| number as u8).collect()),
            Pixels::Fraction => Stored::Float32(numbers.into_iter().map(|number| number / 255.0).collect()),
        }
    }

    /// Encodes a sample as an HDF5 file.
    fn encode(&self, sample: &Sample) -> Result<Vec<u8>, hdf5_pure::Error> {
        let shape = [sample.side as u64; 2];
        let is_dated = |plane: &Plane| plane.name != "label" || self.content.has_dated_mask;
        let mut file = FileBuilder::new();
        let mut attributes: Vec<(Value, Value)> = Vec::new();
        let mut order = Vec::new();
        if let Some(label) = &sample.label {
            attributes.push(("label".into(), label.clone()));
        }
        for plane in sample.planes.iter().chain(&sample.mask) {
            let date = sample.date.filter(|_| is_dated(plane));
            let name = match date {
                Some((year, month, day)) => format!("{}_{year:04}-{month:02}-{day:02}", plane.name),
                None => plane.name.clone(),
            };
            let dataset = file.create_dataset(&name);
            match &plane.values {
                Stored::Int16(values) => dataset.with_i16_data(values),
                Stored::Int64(values) => dataset.with_i64_data(values),
                Stored::Float32(values) => dataset.with_f32_data(values),
                Stored::Uint8(values) => dataset.with_u8_data(values),
            }
            .with_shape(plane.shape.as_ref().map_or(shape.as_slice(), |shape| shape));
            let resolution = match plane.shape {
                None => describe::resolution(self.task),
                Some(_) => Value::Int(1),
            };
            attributes
                .push((Value::Text(name.clone()), describe::dataset(plane.info.clone(), resolution, date)));
            order.push(Value::Text(name));
        }
        attributes.push(("bands_order".into(), Value::List(order)));
        file.set_attr("pickle", AttrValue::VarLenString(repr(&Value::Dict(attributes).pickle())));
        file.finish()
    }
}

/// A Sentinel-2 band in a file: the band that its name says, and the band that its pixels show.
struct StoredBand<'a> {
    named: Band,
    name: &'a str,
    content: Band,
}

/// Statistics by band name without date.
fn statistics(samples: &[Vec<Plane>]) -> BTreeMap<&str, Statistics> {
    let count = samples.first().map_or(0, Vec::len);
    (0..count)
        .into_par_iter()
        .map(|band| {
            let mut values: Vec<f64> =
                samples.iter().flat_map(|planes| planes[band].values.to_f64()).collect();
            (samples[0][band].name.as_str(), Statistics::of(&mut values))
        })
        .collect()
}

impl Stored {
    fn shifted(&self, places: usize) -> Self {
        fn shifted<T: Copy>(values: &[T], places: usize) -> Vec<T> {
            let mut moved = values.to_vec();
            moved.rotate_left(places % values.len().max(1));
            moved
        }
        match self {
            Stored::Int16(values) => Stored::Int16(shifted(values, places)),
            Stored::Int64(values) => Stored::Int64(shifted(values, places)),
            Stored::Float32(values) => Stored::Float32(shifted(values, places)),
            Stored::Uint8(values) => Stored::Uint8(shifted(values, places)),
        }
    }

    fn to_f64(&self) -> Vec<f64> {
        match self {
            Stored::Int16(values) => values.iter().copied().map(f64::from).collect(),
            Stored::Int64(values) => values.iter().map(|value| *value as f64).collect(),
            Stored::Float32(values) => values.iter().copied().map(f64::from).collect(),
            Stored::Uint8(values) => values.iter().copied().map(f64::from).collect(),
        }
    }
}
