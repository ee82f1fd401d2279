//! Files of Copernicus-Bench's layouts: GeoTIFF images with a list per split, and HDF5 for LCZ-S2. `data/copernicus.rs` describes
//! them. Images are of official size where that is cheap, and smaller where the suite resamples them anyway.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use hdf5_pure::FileBuilder;
use rayon::prelude::*;

use crate::data::{Split, Target};
use crate::error::AtPath;
use crate::task::bands::Band;
use crate::task::{DatasetLayout, Sensor, Suite, Task};
use crate::{Error, Result};

use super::random::Random;
use super::scenes::{self, Scene};
use super::sensor::{self, View};
use super::tiff::{self, Corner, Numbers};
use super::{land, named, values};

/// Number of train, valid and test samples of tasks with labels per image: a batch of Copernicus-Bench's linear probe has 64.
const IMAGES: [usize; 3] = [68, 17, 34];
/// The same of tasks with a class or number per pixel.
const MAPS: [usize; 3] = [6, 3, 4];
/// The same of Cloud-S2, whose images are large.
const CLOUDS: [usize; 3] = [4, 2, 2];

/// Sides in pixels of images that the suite resamples, or that it takes of any size.
const PLACE: usize = 48;
const SWATH: usize = 128;
const COLUMN: usize = 40;

const SPLITS: [(Split, &str); 3] = [(Split::Train, "train"), (Split::Valid, "val"), (Split::Test, "test")];

/// Codes of the land covers of `land::covers` in DFC2020's masks and in LC100's.
const DFC2020: [u8; land::COVERS] = [1, 2, 4, 5, 6, 7, 9, 10];
const LC100: [u8; land::COVERS] = [114, 20, 30, 90, 40, 50, 60, 80];

/// The classes of BigEarthNet with 19 classes of those that `scenes::bigearthnet` paints, numbered as in CORINE.
const OF_CORINE: [(usize, usize); 18] = [
    (1, 0),
    (2, 1),
    (11, 2),
    (14, 3),
    (16, 3),
    (17, 4),
    (19, 5),
    (22, 8),
    (23, 9),
    (24, 10),
    (25, 11),
    (26, 12),
    (27, 12),
    (28, 13),
    (29, 14),
    (34, 15),
    (39, 17),
    (42, 18),
];

/// Minimum share of an image that a class covers to be among its labels.
const VISIBLE: f32 = 0.04;

/// For each of OLCI's 21 bands the band of Sentinel-2 that is nearest in wavelength.
const OLCI: [Band; 21] = [
    Band::B01,
    Band::B01,
    Band::B01,
    Band::B02,
    Band::B02,
    Band::B03,
    Band::B04,
    Band::B04,
    Band::B04,
    Band::B04,
    Band::B05,
    Band::B06,
    Band::B06,
    Band::B06,
    Band::B06,
    Band::B07,
    Band::B8A,
    Band::B8A,
    Band::B8A,
    Band::B09,
    Band::B8A,
];

/// Writes the suite's files below `root`. Tasks that share a folder share its files.
///
/// # Errors
/// If a file cannot be written.
pub fn write(suite: &Suite, seed: u64, root: &Path) -> Result<()> {
    let mut written = BTreeSet::new();
    for task in &suite.tasks {
        if !written.insert(&task.directory) {
            continue;
        }
        let folder = Folder { suite, task, seed, path: root.join(&task.directory) };
        match task.layout {
            Some(DatasetLayout::Cloud) => folder.cloud_s2(),
            Some(DatasetLayout::CloudS3) => folder.cloud_s3(),
            Some(DatasetLayout::Eurosat | DatasetLayout::EurosatSpatial) => folder.eurosat(),
            Some(DatasetLayout::BigearthnetS1 | DatasetLayout::BigearthnetS2) => folder.bigearthnet(),
            Some(DatasetLayout::Dfc2020S1 | DatasetLayout::Dfc2020S2) => folder.dfc2020(),
            Some(DatasetLayout::Flood) => folder.flood(),
            Some(DatasetLayout::Lcz) => folder.lcz(),
            Some(DatasetLayout::Lc100Cls | DatasetLayout::Lc100Seg) => folder.lc100(),
            Some(DatasetLayout::BiomassS3) => folder.biomass(),
            Some(DatasetLayout::AirQuality) => folder.air_quality(),
            None => Err(Error::mismatch(format!("task {} has no `layout`", task.name))),
        }?;
    }
    Ok(())
}

/// A folder of the release.
struct Folder<'a> {
    suite: &'a Suite,
    /// The first task that reads it.
    task: &'a Task,
    seed: u64,
    path: PathBuf,
}

/// A sample's place in its split, and its number among all samples of the folder.
#[derive(Debug, Clone, Copy)]
struct Place {
    split: Split,
    index: usize,
    number: usize,
}

impl Place {
    fn corner(self, pixel: f64) -> Corner {
        Corner { longitude: 5.0 + 0.07 * self.number as f64, latitude: 47.0, pixel }
    }
}

/// Degrees per pixel of 10 m, 300 m and 1 km.
const TEN_METRES: f64 = 0.000_09;
const SENTINEL_3: f64 = 0.002_7;
const SENTINEL_5P: f64 = 0.01;

impl Folder<'_> {
    fn random(&self, place: Place) -> Random {
        let folder = self.task.directory.to_string_lossy().replace('\\', "/");
        named(self.suite, &folder, place.split, place.index, self.seed)
    }

    /// The bands of a task of this suite with that layout.
    fn stored_bands(&self, layout: DatasetLayout) -> Result<Vec<Band>> {
        let task = self.suite.tasks.iter().find(|task| task.layout == Some(layout));
        let names = task.map(|task| task.stored_bands.as_slice()).unwrap_or_default();
        names.iter().map(|name| name.parse()).collect()
    }

    /// Runs `sample` for each sample of each split in parallel and returns what it gives, by split.
    fn samples<T: Send>(
        &self,
        counts: [usize; 3],
        sample: impl Fn(Place) -> Result<T> + Sync,
    ) -> Result<[Vec<T>; 3]> {
        let mut first = 0;
        let mut split = |split: Split, count: usize| {
            let place = |index| Place { split, index, number: first + index };
            let made: Result<Vec<T>> = (0..count).into_par_iter().map(|index| sample(place(index))).collect();
            first += count;
            made
        };
        let [train, valid, test] = counts;
        Ok([split(Split::Train, train)?, split(Split::Valid, valid)?, split(Split::Test, test)?])
    }

    /// Writes a file below the folder.
    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) -> Result<()> {
        let path = self.path.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).at(parent)?;
        }
        std::fs::write(&path, bytes).at(&path)
    }

    /// Writes an image whose bands are planes of numbers.
    fn image(
        &self,
        name: &str,
        side: usize,
        planes: &[Vec<f32>],
        store: fn(Vec<f32>) -> Numbers,
        corner: Corner,
    ) -> Result<()> {
        let numbers = store(tiff::interleaved(side, planes));
        self.put(name, tiff::encode(side, planes.len(), &numbers, corner))
    }

    /// Writes one list per split.
    fn lists<T>(
        &self,
        name: impl Fn(&str) -> String,
        header: &str,
        samples: &[Vec<T>; 3],
        line: impl Fn(&T) -> String,
    ) -> Result<()> {
        for ((_, split), samples) in SPLITS.iter().zip(samples) {
            let lines: Vec<String> = samples.iter().map(&line).collect();
            self.put(&name(split), format!("{header}{}\n", lines.join("\n")))?;
        }
        Ok(())
    }

    fn cloud_s2(&self) -> Result<()> {
        let bands = self.stored_bands(DatasetLayout::Cloud)?;
        let names = self.samples(CLOUDS, |place| {
            let mut random = self.random(place);
            let scene = land::covers(&mut random, self.task.image_size);
            let view = sensor::optical(&mut random, &scene, &bands, Sensor::S2_L1C, 0.9);
            let name = format!(
                "ROI_{:05}__20190{}04T101031_20190704T101400_T32TPT",
                place.number,
                4 + place.number % 5
            );
            let corner = place.corner(TEN_METRES);
            self.image(&format!("s2_toa/{name}.tif"), scene.side, &view.bands, uint16, corner)?;
            let mask = cloud_mask(&view, [0, 1, 2, 3]);
            self.put(
                &format!("cloud/{name}.tif"),
                tiff::encode(scene.side, 1, &Numbers::Uint8(mask), corner),
            )?;
            Ok(name)
        })?;
        self.lists(|split| format!("{split}.csv"), "", &names, String::clone)
    }

    fn cloud_s3(&self) -> Result<()> {
        let names = self.samples(MAPS, |place| {
            let mut random = self.random(place);
            let scene = land::covers(&mut random, SWATH);
            let (planes, view) = olci(&mut random, &scene, 0.9);
            let name = format!(
                "S3A_OL_1_EFR____20200703T154217_20200703T154517_20200704T235959_0179_060_{:03}_2160_LN1_O_NT_002.tif",
                place.number
            );
            let corner = place.corner(SENTINEL_3);
            self.image(&format!("s3_olci/{name}"), SWATH, &planes, Numbers::Float32, corner)?;
            let mask = Numbers::Uint8(cloud_mask(&view, [1, 3, 2, 4]));
            self.put(&format!("cloud_multi/{name}"), tiff::encode(SWATH, 1, &mask, corner))?;
            Ok(name)
        })?;
        self.lists(|split| format!("{split}.csv"), "", &names, String::clone)
    }

    fn eurosat(&self) -> Result<()> {
        let is_radar = self.task.sensor == Sensor::S1;
        let bands: Vec<Band> = match is_radar {
            true => Vec::new(),
            false => self.task.stored_bands.iter().map(|name| name.parse()).collect::<Result<_>>()?,
        };
        let names = self.samples(IMAGES, |place| {
            let mut random = self.random(place);
            let scene = scenes::eurosat(&mut random, place.index, self.task.image_size);
            let class = self.class_name(&scene)?;
            let name = format!("{class}_{}", place.number + 1);
            let file = format!("all_imgs/{class}/{name}.tif");
            let corner = place.corner(TEN_METRES);
            if is_radar {
                let planes = radar(&mut random, &scene).map(decibels);
                self.image(&file, scene.side, &planes, Numbers::Float32, corner)?;
            } else {
                let view = sensor::optical(&mut random, &scene, &bands, Sensor::S2_L1C, 0.1);
                self.image(&file, scene.side, &view.bands, uint16, corner)?;
            }
            Ok(format!("{name}.jpg"))
        })?;
        self.lists(|split| format!("eurosat-{split}.txt"), "", &names, String::clone)?;
        if !is_radar {
            // The same images, split another way.
            let all: Vec<&String> = names.iter().flatten().collect();
            let [_, valid, test] = IMAGES;
            let (first, train) = all.split_at(valid + test);
            let (valid, test) = first.split_at(valid);
            let names = [train.to_vec(), valid.to_vec(), test.to_vec()];
            self.lists(|split| format!("eurosat-spatial-{split}.txt"), "", &names, |name| (*name).clone())?;
        }
        Ok(())
    }

    fn class_name(&self, scene: &Scene) -> Result<&str> {
        let Target::Class(class) = scene.target else { return Err(self.unfit("a class per image")) };
        self.task.class_names.get(class).map(String::as_str).ok_or_else(|| self.unfit("the official classes"))
    }

    fn unfit(&self, needs: &str) -> Error {
        Error::mismatch(format!("task `{}` of {}: the demo needs {needs}", self.task.name, self.suite.title))
            .help("restore the task's entry in benchmarks/copernicus-bench.toml")
    }

    fn bigearthnet(&self) -> Result<()> {
        let bands = self.stored_bands(DatasetLayout::BigearthnetS2)?;
        let lines = self.samples(IMAGES, |place| {
            let mut random = self.random(place);
            let scene = scenes::bigearthnet(&mut random, place.index, self.task.image_size);
            let Target::Labels(corine) = &scene.target else {
                return Err(self.unfit("several labels per image"));
            };
            let has = |class: usize| {
                OF_CORINE.iter().any(|(from, to)| *to == class && corine.get(*from).copied().unwrap_or(false))
            };
            let labels: Vec<&str> =
                (0..self.task.classes).map(|class| if has(class) { "1" } else { "0" }).collect();
            let number = place.number;
            let s1 = format!("S1A_IW_GRDH_1SDV_20170613T165043_33UUP_{number}_39_allbands.tif");
            let s2 = format!("S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_{number}_39_allbands.tif");
            let corner = place.corner(TEN_METRES);
            let planes = radar(&mut random, &scene).map(decibels);
            self.image(&format!("BigEarthNet-S1-5%/{s1}"), scene.side, &planes, Numbers::Float32, corner)?;
            let view = sensor::optical(&mut random, &scene, &bands, Sensor::S2_L2A, 0.1);
            self.image(&format!("BigEarthNet-S2-5%/{s2}"), scene.side, &view.bands, uint16, corner)?;
            Ok(format!("{s1},{s2},{}", labels.join(",")))
        })?;
        let quoted: Vec<String> = self.task.class_names.iter().map(|name| format!("\"{name}\"")).collect();
        let header = format!("s1_path,s2_path,{}\n", quoted.join(","));
        self.lists(|split| format!("multilabel-{split}.csv"), &header, &lines, String::clone)
    }

    fn dfc2020(&self) -> Result<()> {
        let bands = self.stored_bands(DatasetLayout::Dfc2020S2)?;
        let names = self.samples(MAPS, |place| {
            let mut random = self.random(place);
            let scene = land::covers(&mut random, self.task.image_size);
            let of = |kind: &str| format!("{kind}/ROIs0000_test_{kind}_0_p{}.tif", place.number);
            let corner = place.corner(TEN_METRES);
            let planes = radar(&mut random, &scene).map(decibels);
            self.image(&of("s1"), scene.side, &planes, Numbers::Float32, corner)?;
            let view = sensor::optical(&mut random, &scene, &bands, Sensor::S2_L1C, 0.1);
            self.image(&of("s2"), scene.side, &view.bands, uint16, corner)?;
            let mask = Numbers::Uint8(self.coded(&scene, &DFC2020)?);
            self.put(&of("dfc"), tiff::encode(scene.side, 1, &mask, corner))?;
            Ok(format!("ROIs0000_test_dfc_0_p{}.tif", place.number))
        })?;
        self.lists(|split| format!("dfc-{split}-new.csv"), "", &names, String::clone)
    }

    /// The mask of a scene, with a code for each class.
    fn coded(&self, scene: &Scene, codes: &[u8]) -> Result<Vec<u8>> {
        let Target::Mask(mask) = &scene.target else { return Err(self.unfit("a class per pixel")) };
        Ok(mask.iter().map(|class| codes.get(*class as usize).copied().unwrap_or(0)).collect())
    }

    fn flood(&self) -> Result<()> {
        let names = self.samples(MAPS, |place| {
            let mut random = self.random(place);
            let [before, after] = land::flood(&mut random, self.task.image_size);
            let (name, folder) = (format!("demo_{}", place.number), format!("data/470/{:02}", place.number));
            let corner = place.corner(TEN_METRES);
            for (scene, start, date) in [(&before, "SL1", "20190405"), (&after, "MS1", "20190417")] {
                let [vv, vh] = radar(&mut random, scene);
                for (band, plane) in [("IVV", vv), ("IVH", vh)] {
                    let file = format!("{folder}/{start}_{band}_470_{:02}_{date}.tif", place.number);
                    self.image(&file, scene.side, &[plane], Numbers::Float32, corner)?;
                }
            }
            let mask = Numbers::Uint8(self.coded(&before, &[0, 1, 2])?);
            let file = format!("{folder}/MK0_MLU_470_{:02}_20190417.tif", place.number);
            self.put(&file, tiff::encode(before.side, 1, &mask, corner))?;
            Ok((name, format!("470/{:02}", place.number)))
        })?;
        for ((_, split), samples) in SPLITS.iter().zip(&names) {
            let grids: Vec<String> =
                samples.iter().map(|(name, path)| format!("\"{name}\": {{\"path\": \"{path}\"}}")).collect();
            self.put(&format!("grid_dict_{split}.json"), format!("{{{}}}\n", grids.join(",\n ")))?;
        }
        Ok(())
    }

    fn lcz(&self) -> Result<()> {
        let bands = self.stored_bands(DatasetLayout::Lcz)?;
        let (side, classes) = (self.task.image_size, self.task.classes);
        let samples = self.samples(IMAGES, |place| {
            let mut random = self.random(place);
            let scene = scenes::climate_zones(&mut random, place.index, side);
            let radar = sensor::radar(&mut random, &scene);
            let view = sensor::optical(&mut random, &scene, &bands, Sensor::S2_L1C, 0.1);
            let Target::Class(class) = scene.target else { return Err(self.unfit("a class per image")) };
            Ok((view.bands, radar, class))
        })?;
        for ((_, split), samples) in SPLITS.iter().zip(&samples) {
            let pixels = |planes: &[Vec<f32>], scale: f32| -> Vec<f32> {
                let at = |place: usize| {
                    planes.iter().map(move |plane| plane.get(place).copied().unwrap_or(0.0) / scale)
                };
                (0..side * side).flat_map(at).collect()
            };
            let optical: Vec<f32> =
                samples.iter().flat_map(|(bands, _, _)| pixels(bands, self.task.scale)).collect();
            let radar: Vec<f32> = samples.iter().flat_map(|(_, planes, _)| pixels(planes, 1.0)).collect();
            let labels: Vec<u8> = samples
                .iter()
                .flat_map(|(_, _, class)| (0..classes).map(move |c| u8::from(c == *class)))
                .collect();
            let (count, side) = (samples.len() as u64, side as u64);
            let mut file = FileBuilder::new();
            file.create_dataset("sen1").with_f32_data(&radar).with_shape(&[count, side, side, 8]);
            let shape = [count, side, side, bands.len() as u64];
            file.create_dataset("sen2").with_f32_data(&optical).with_shape(&shape);
            file.create_dataset("label").with_u8_data(&labels).with_shape(&[count, classes as u64]);
            self.put(&format!("lcz_{split}.h5"), file.finish().map_err(Error::mismatch)?)?;
        }
        Ok(())
    }

    /// Writes the images of a place at two dates and returns the name of the first.
    fn place(&self, place: Place, random: &mut Random, scene: &Scene) -> Result<String> {
        let mut names = Vec::new();
        for month in [4, 8] {
            let (planes, _) = olci(random, scene, 0.1);
            let name = format!("S3B_2019{month:02}10T135525_2019{month:02}11T135559.tif");
            let file = format!("s3_olci/{}/{name}", of_place(place));
            self.image(&file, scene.side, &planes, Numbers::Float32, place.corner(SENTINEL_3))?;
            names.push(name);
        }
        Ok(names.swap_remove(0))
    }

    fn lc100(&self) -> Result<()> {
        let by_layout = |layout| self.suite.tasks.iter().find(|task| task.layout == Some(layout));
        let remap = by_layout(DatasetLayout::Lc100Seg).map(|task| task.remap.clone()).unwrap_or_default();
        let classes = self.task.classes;
        let samples = self.samples(IMAGES, |place| {
            let mut random = self.random(place);
            let scene = land::covers(&mut random, PLACE);
            let file = self.place(place, &mut random, &scene)?;
            let mask = self.coded(&scene, &LC100)?;
            let share = |code: i32| {
                mask.iter().filter(|pixel| i32::from(**pixel) == code).count() as f32
                    / mask.len().max(1) as f32
            };
            let covers =
                |class: usize| remap.iter().any(|(code, to)| *to == class as i32 && share(*code) >= VISIBLE);
            let labels: Vec<&str> = (0..classes).map(|class| if covers(class) { "1" } else { "0" }).collect();
            let labels = labels.join(",");
            let corner = place.corner(SENTINEL_3);
            let name = of_place(place);
            self.put(&format!("lc100/{name}.tif"), tiff::encode(PLACE, 1, &Numbers::Uint8(mask), corner))?;
            Ok((name, file, labels))
        })?;
        let names: Vec<String> = (0..classes).map(|class| format!("class_{class}")).collect();
        let header = format!("fname,{}\n", names.join(","));
        let line = |(place, _, labels): &(String, String, String)| format!("{place},{labels}");
        self.lists(|split| format!("multilabel-{split}.csv"), &header, &samples, line)?;
        let line = |(place, file, _): &(String, String, String)| format!("{place},{file}");
        self.lists(|split| format!("static_fnames-{split}.csv"), "", &samples, line)
    }

    fn biomass(&self) -> Result<()> {
        let samples = self.samples(MAPS, |place| {
            let mut random = self.random(place);
            let scene = values::tree_height(&mut random, place.index, PLACE);
            let file = self.place(place, &mut random, &scene)?;
            let Target::ValueMap(heights) = &scene.target else {
                return Err(self.unfit("a number per pixel"));
            };
            // About 12 Mg/ha per metre; the release has no code for what was not measured.
            let biomass = heights.iter().map(|height| (12.0 * height.max(0.0)).round() as u16).collect();
            let name = of_place(place);
            let map = tiff::encode(PLACE, 1, &Numbers::Uint16(biomass), place.corner(SENTINEL_3));
            self.put(&format!("biomass/{name}.tif"), map)?;
            Ok((name, file))
        })?;
        let line = |(place, file): &(String, String)| format!("{place},{file}");
        self.lists(|split| format!("static_fnames-{split}.csv"), "", &samples, line)
    }

    fn air_quality(&self) -> Result<()> {
        // The mean and spread of the columns in mol/m2, and of the labels.
        let is_ozone = self.task.directory.ends_with("o3");
        let column = if is_ozone { (0.14, 0.012) } else { (1e-4, 6e-5) };
        let statistics = self.task.target_statistics.ok_or_else(|| self.unfit("`target-statistics`"))?;
        let names = self.samples(MAPS, |place| {
            let mut random = self.random(place);
            let (air, ground, size) = (random.noise(), random.noise(), random.between(8.0, 16.0));
            let year = move |x: f32, y: f32| air.octaves(x / size, y / size, 3);
            let points = || (0..COLUMN * COLUMN).map(|i| ((i % COLUMN) as f32, (i / COLUMN) as f32));
            let name = format!("demo_{:03}", place.number);
            let corner = place.corner(SENTINEL_5P);
            let seasons = [
                "2021-01-01_2021-03-31",
                "2021-04-01_2021-06-30",
                "2021-07-01_2021-09-30",
                "2021-10-01_2021-12-31",
            ];
            let files = [("s5p_annual", "2021-01-01_2021-12-31")].into_iter();
            for (folder, date) in files.chain(seasons.map(|season| ("s5p_seasonal", season))) {
                let noise: Vec<f32> = points().map(|_| random.normal()).collect();
                let at =
                    |((x, y), noise): ((f32, f32), f32)| column.0 + column.1 * (year(x, y) + 0.1 * noise);
                let plane: Vec<f32> = points().zip(noise).map(at).collect();
                self.image(
                    &format!("{folder}/{name}/{date}.tif"),
                    COLUMN,
                    &[plane],
                    Numbers::Float32,
                    corner,
                )?;
            }
            let label = points().map(|(x, y)| {
                let value = statistics.mean
                    + statistics.std * 1.5 * (year(x, y) + 0.3 * ground.octaves(x / 5.0, y / 5.0, 2));
                // The sea has no stations.
                if x < 3.0 { f32::NEG_INFINITY } else { value.max(0.0) }
            });
            let label = Numbers::Float32(label.collect());
            self.put(&format!("label_annual/{name}.tif"), tiff::encode(COLUMN, 1, &label, corner))?;
            Ok(name)
        })?;
        self.lists(|split| format!("{split}.csv"), "", &names, String::clone)
    }
}

/// Name of a place in LC100 and Biomass: a number, longitude and latitude.
fn of_place(place: Place) -> String {
    format!("{:07}_{:.2}_47.00", place.number, 5.0 + 0.07 * place.number as f64)
}

/// Truncates digital numbers to uint16, as files store them.
pub(super) fn uint16(numbers: Vec<f32>) -> Numbers {
    Numbers::Uint16(numbers.into_iter().map(|number| number as u16).collect())
}

/// The classes of a cloud mask: clear, thick cloud, thin cloud, shadow.
pub(super) fn cloud_mask(view: &View, [clear, thick, thin, shadow]: [u8; 4]) -> Vec<u8> {
    let class = |(percent, shade): (&f32, &f32)| match *percent {
        percent if percent > 60.0 => thick,
        percent if percent > 15.0 => thin,
        _ if *shade > 0.5 => shadow,
        _ => clear,
    };
    view.cloud_probability.iter().zip(&view.shade).map(class).collect()
}

/// VV and VH as linear backscatter.
pub(super) fn radar(random: &mut Random, scene: &Scene) -> [Vec<f32>; 2] {
    let [_, _, _, _, vh, vv, _, _] = sensor::radar(random, scene);
    [vv, vh]
}

/// OLCI's 21 bands as stored, and the view that they come from.
fn olci(random: &mut Random, scene: &Scene, cloudy: f32) -> (Vec<Vec<f32>>, View) {
    let mut bands: Vec<Band> = OLCI.to_vec();
    bands.sort();
    bands.dedup();
    let view = sensor::optical(random, scene, &bands, Sensor::S2_L1C, cloudy);
    let of =
        |band: &Band| bands.iter().position(|other| other == band).and_then(|place| view.bands.get(place));
    let planes = OLCI.iter().map(|band| of(band).cloned().unwrap_or_default()).collect();
    (planes, view)
}

/// Converts linear backscatter to decibels with additions, multiplications and divisions only, which give the same bits on every
/// machine.
pub(super) fn decibels(linear: Vec<f32>) -> Vec<f32> {
    linear.into_iter().map(|power| decibel(power.max(1e-6))).collect()
}

/// 10 log10 of a positive normal number, to about 1e-4.
fn decibel(power: f32) -> f32 {
    let bits = power.to_bits();
    let exponent = (bits >> 23) as i32 - 127;
    let mantissa = f32::from_bits((bits & 0x007f_ffff) | 0x3f80_0000);
    // ln m = 2 artanh((m - 1) / (m + 1))
    let t = (mantissa - 1.0) / (mantissa + 1.0);
    let square = t * t;
    let logarithm = 2.0 * t * (1.0 + square * (1.0 / 3.0 + square * (0.2 + square * (1.0 / 7.0))));
    4.342_944_8 * (exponent as f32 * std::f32::consts::LN_2 + logarithm)
}

#[cfg(test)]
mod tests {
    use super::decibel;

    #[test]
    fn decibels_are_ten_times_the_logarithm() {
        for power in [1e-6_f32, 0.003, 0.05, 0.5, 1.0, 1.999, 3.0] {
            let expected = 10.0 * power.log10();
            assert!((decibel(power) - expected).abs() < 1e-3, "{power}: {} and {expected}", decibel(power));
        }
    }
}
