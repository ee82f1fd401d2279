//! Files of Landslide4Sense's layout: one HDF5 file per image and one per mask.

use std::path::Path;

use hdf5_pure::FileBuilder;
use rayon::prelude::*;

use crate::data::landslide4sense::PLANES;
use crate::data::{Split, Target};
use crate::error::AtPath;
use crate::task::{Sensor, Suite, Task};
use crate::{Error, Result};

use super::{land, named, sensor};

/// Number of train, valid and test images.
const COUNTS: [usize; 3] = [8, 4, 6];

/// How many of the planes are bands of Sentinel-2; slope and height follow.
const BANDS: usize = 12;

/// Digital numbers per stored unit: the authors divided each band by a constant, so that pixels are near 1.
const UNIT: f32 = 1_500.0;

/// Writes the suite's files below `root`.
///
/// # Errors
/// If a file cannot be written, or the suite has a task of another shape.
pub fn write(suite: &Suite, seed: u64, root: &Path) -> Result<()> {
    for task in &suite.tasks {
        let folder = root.join(&task.directory);
        for (split, name) in Split::ALL.into_iter().zip(["train", "validation", "test"]) {
            let (images, masks) = (folder.join("images").join(name), folder.join("annotations").join(name));
            std::fs::create_dir_all(&images).at(&images)?;
            std::fs::create_dir_all(&masks).at(&masks)?;
            (0..COUNTS[split as usize]).into_par_iter().try_for_each(|index| {
                let [image, mask] = files(suite, task, split, index, seed)?;
                let number = index + 1;
                let path = images.join(format!("image_{number}.h5"));
                std::fs::write(&path, image).at(&path)?;
                let path = masks.join(format!("mask_{number}.h5"));
                std::fs::write(&path, mask).at(&path)
            })?;
        }
    }
    Ok(())
}

/// Encodes an image and its mask.
fn files(suite: &Suite, task: &Task, split: Split, index: usize, seed: u64) -> Result<[Vec<u8>; 2]> {
    let side = task.image_size;
    let mut random = named(suite, &task.name, split, index, seed);
    let scene = land::landslides(&mut random, side);
    let bands = PLANES.iter().take(BANDS).map(|plane| plane.parse()).collect::<Result<Vec<_>>>()?;
    let view = sensor::optical(&mut random, &scene, &bands, Sensor::S2_L1C, 0.1);
    let heights = random.noise();
    let height = |x: f32, y: f32| 1.0 + heights.octaves(x / 60.0, y / 60.0, 3);
    let mut pixels = Vec::with_capacity(side * side * PLANES.len());
    for place in 0..side * side {
        let (x, y) = ((place % side) as f32, (place / side) as f32);
        pixels.extend(view.bands.iter().map(|band| band.get(place).copied().unwrap_or(0.0) / UNIT));
        // Slope and height: the files hold both, no model here takes them.
        pixels.push((height(x + 1.0, y) - height(x, y)).abs() * 50.0);
        pixels.push(height(x, y));
    }
    let Target::Mask(mask) = scene.target else {
        return Err(Error::mismatch(format!("task `{}`: the demo needs a class per pixel", task.name)));
    };
    let mask: Vec<u8> = mask.into_iter().map(|class| class as u8).collect();
    let (rows, planes) = (side as u64, PLANES.len() as u64);
    let mut image = FileBuilder::new();
    image.create_dataset("img").with_f32_data(&pixels).with_shape(&[rows, rows, planes]);
    let mut labels = FileBuilder::new();
    labels.create_dataset("mask").with_u8_data(&mask).with_shape(&[rows, rows]);
    Ok([image.finish().map_err(Error::mismatch)?, labels.finish().map_err(Error::mismatch)?])
}
