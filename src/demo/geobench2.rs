//! Files of GEO-Bench-2's layout: one container per task, with a container of GeoTIFFs per sample. `data/geobench2.rs` describes
//! them. The four tasks here have a class per image, classes per pixel, numbers per pixel, and both Sentinels.

use std::path::Path;

use polars::prelude::{Column, DataFrame, NamedFrom, Series};
use rayon::prelude::*;

use crate::data::{Split, Target};
use crate::error::AtPath;
use crate::formats::parquet;
use crate::formats::tortilla::{self, HEADER};
use crate::task::bands::Band;
use crate::task::{Sensor, Suite, Task};
use crate::{Error, Result};

use super::copernicus::{cloud_mask, decibels, radar, uint16};
use super::random::Random;
use super::tiff::{self, Corner, Numbers};
use super::{land, named, scenes, sensor, values};

/// The tasks with a demo. Those of one folder share its files.
pub const NAMES: [&str; 4] = ["so2sat", "so2sat-s1", "cloudsen12", "biomassters"];

/// Number of train, valid and test samples of tasks with a label per image.
const IMAGES: [usize; 3] = [68, 17, 34];
/// The same of tasks with a class or number per pixel.
const MAPS: [usize; 3] = [6, 3, 4];

/// Side in pixels of images with a class or number per pixel. Official ones are larger, and models get them resized.
const MAP: usize = 128;

/// Tonnes of biomass per hectare for each metre that trees are high, about as in forests of the north.
const BIOMASS: f32 = 9.0;

const SPLITS: [(Split, &str); 3] =
    [(Split::Train, "train"), (Split::Valid, "validation"), (Split::Test, "test")];

/// A file in a sample's container.
struct File {
    id: String,
    modality: Option<&'static str>,
    bytes: Vec<u8>,
}

/// A sample: its files and, if a column holds it, its class.
struct Contained {
    files: Vec<File>,
    class: Option<i64>,
}

/// Writes the containers of the tasks with a demo below `root`.
///
/// # Errors
/// If a file cannot be written, or a task is not as the benchmark describes it.
pub fn write(suite: &Suite, seed: u64, root: &Path) -> Result<()> {
    let tasks = suite.tasks.iter().filter(|task| NAMES.contains(&task.name.as_str()));
    for task in tasks.filter(|task| !is_variant(suite, task)) {
        let unfit = |needs: &str| {
            Error::mismatch(format!("task `{}` of {}: the demo needs {needs}", task.name, suite.title))
                .help("restore the task's entry in benchmarks/geobench-2.toml")
        };
        let container = task.container.as_ref().ok_or_else(|| unfit("a container"))?;
        let counts = if container.label_column.is_some() { IMAGES } else { MAPS };
        let bands: Vec<Band> = task.stored_bands.iter().map(|name| name.parse()).collect::<Result<_>>()?;
        let what = task.directory.to_string_lossy().replace('\\', "/");
        let (mut samples, mut splits) = (Vec::new(), Vec::new());
        for ((split, name), count) in SPLITS.into_iter().zip(counts) {
            let sample = |index: usize| {
                let mut random = named(suite, &what, split, index, seed);
                sample(task, &bands, index, &mut random)
                    .ok_or_else(|| unfit("the official classes and labels"))
            };
            samples.extend((0..count).into_par_iter().map(sample).collect::<Result<Vec<_>>>()?);
            splits.extend(std::iter::repeat_n(name, count));
        }
        let folder = root.join(&task.directory);
        std::fs::create_dir_all(&folder).at(&folder)?;
        let path = folder.join(format!("{}.tortilla", container.name));
        let column = container.label_column.as_deref().unwrap_or("labels");
        let bytes = outer(samples, splits, column).at(&path)?;
        std::fs::write(&path, bytes).at(&path)?;
    }
    Ok(())
}

/// Whether the task reads another sensor of a folder that a task before it describes.
fn is_variant(suite: &Suite, task: &Task) -> bool {
    let first = suite.tasks.iter().find(|other| other.directory == task.directory);
    first.is_some_and(|first| first.name != task.name)
}

/// Draws the scene of a sample and encodes its files; `None` if the scene has a label of another kind.
fn sample(task: &Task, bands: &[Band], index: usize, random: &mut Random) -> Option<Contained> {
    let corner = Corner { longitude: 5.0 + 0.07 * index as f64, latitude: 47.0, pixel: 0.000_09 };
    let image = |side: usize, planes: &[Vec<f32>], store: fn(Vec<f32>) -> Numbers| {
        let numbers = store(tiff::interleaved(side, planes));
        tiff::encode(side, planes.len(), &numbers, corner)
    };
    let file = |id: &str, modality: Option<&'static str>, bytes: Vec<u8>| File {
        id: id.to_owned(),
        modality,
        bytes,
    };
    match task.name.as_str() {
        "so2sat" => {
            let scene = scenes::climate_zones(random, index, task.image_size);
            let Target::Class(class) = scene.target else { return None };
            // The release stores VH before VV, and calls them VV and VH.
            let [vh, _, vv, ..] = sensor::radar(random, &scene);
            // The suite's constants are those of level 1C, though the task is said to be of level 2A.
            let view = sensor::optical(random, &scene, bands, Sensor::S2_L1C, 0.1);
            let reflectance: Vec<Vec<f32>> = view
                .bands
                .into_iter()
                .map(|band| band.into_iter().map(|x| x / task.scale).collect())
                .collect();
            let files = vec![
                file("s1", None, image(scene.side, &[vh, vv], Numbers::Float32)),
                file("s2", None, image(scene.side, &reflectance, Numbers::Float32)),
            ];
            (class < task.classes).then(|| Contained { files, class: i64::try_from(class).ok() })
        }
        "cloudsen12" => {
            let scene = land::covers(random, MAP);
            let view = sensor::optical(random, &scene, bands, Sensor::S2_L2A, 0.9);
            let mask = Numbers::Uint8(cloud_mask(&view, [0, 1, 2, 3]));
            let files = vec![
                file("s2", None, image(MAP, &view.bands, uint16)),
                file("label", None, tiff::encode(MAP, 1, &mask, corner)),
            ];
            Some(Contained { files, class: None })
        }
        _ => {
            let scene = values::tree_height(random, index, MAP);
            let Target::ValueMap(heights) = &scene.target else { return None };
            // Every pixel of the release has a number.
            let biomass =
                heights.iter().map(|height| BIOMASS * if height.is_nan() { 0.0 } else { *height }).collect();
            let [[vv, vh], [vv_down, vh_down]] = [(), ()].map(|()| radar(random, &scene).map(decibels));
            let view = sensor::optical(random, &scene, bands, Sensor::S2_L2A, 0.1);
            let files = vec![
                file("s1_00", Some("S1"), image(MAP, &[vv, vh, vv_down, vh_down], Numbers::Float32)),
                file("s2_00", Some("S2"), image(MAP, &view.bands, uint16)),
                file("agbm", Some("AGBM"), tiff::encode(MAP, 1, &Numbers::Float32(biomass), corner)),
            ];
            Some(Contained { files, class: None })
        }
    }
}

/// Encodes the container of all samples, whose classes are in `column`.
fn outer(samples: Vec<Contained>, splits: Vec<&str>, column: &str) -> std::result::Result<Vec<u8>, String> {
    let classes: Vec<i64> = samples.iter().filter_map(|sample| sample.class).collect();
    let inner = |(number, sample): (usize, Contained)| {
        let modalities: Vec<Option<&str>> = sample.files.iter().map(|file| file.modality).collect();
        let rows = sample.files.into_iter().map(|file| (file.id, "GTiff", file.bytes)).collect();
        let bytes = tortilla(rows, vec![Series::new("modality".into(), modalities).into()])?;
        Ok((format!("sample_{number:04}"), "TORTILLA", bytes))
    };
    let rows = samples.into_iter().enumerate().map(inner).collect::<std::result::Result<_, String>>()?;
    let mut columns: Vec<Column> = vec![Series::new(tortilla::SPLIT.into(), splits).into()];
    if !classes.is_empty() {
        columns.push(Series::new(column.into(), classes).into());
    }
    tortilla(rows, columns)
}

/// Encodes a container of files: id, format and bytes of each, and further columns of the index.
fn tortilla(
    rows: Vec<(String, &str, Vec<u8>)>,
    further: Vec<Column>,
) -> std::result::Result<Vec<u8>, String> {
    let mut offset = HEADER;
    let (mut ids, mut formats, mut offsets, mut lengths) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (id, format, bytes) in &rows {
        ids.push(id.as_str());
        formats.push(*format);
        offsets.push(offset.cast_signed());
        lengths.push((bytes.len() as u64).cast_signed());
        offset += bytes.len() as u64;
    }
    let mut columns: Vec<Column> = vec![
        Series::new(tortilla::ID.into(), ids).into(),
        Series::new(tortilla::FORMAT.into(), formats).into(),
        Series::new(tortilla::OFFSET.into(), offsets).into(),
        Series::new(tortilla::LENGTH.into(), lengths).into(),
    ];
    columns.extend(further);
    let frame = DataFrame::new(rows.len(), columns).map_err(|problem| problem.to_string())?;
    let index = parquet::write(&frame)?;
    let mut bytes = b"#y".to_vec();
    for number in [offset, index.len() as u64, 1] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.resize(usize::try_from(HEADER).map_err(|problem| problem.to_string())?, 0);
    rows.iter().for_each(|(_, _, file)| bytes.extend(file));
    bytes.extend(index);
    Ok(bytes)
}
