//! Number of samples per task and the contents of their files.

use crate::task::Split;
use crate::task::bands::Band;

use super::describe::Date;
use super::scenes::{self, Draw};
use super::{brightness, values};

/// The particulars of one task's files.
pub struct Content {
    /// Number of train, valid and test samples.
    pub counts: [usize; 3],
    pub draw: Draw,
    pub camera: Camera,
    pub pixels: Pixels,
    /// Name of a sample's file, without its ending, from its number among all samples.
    pub named: fn(usize) -> String,
    /// Whether the Sentinel-1 planes precede the Sentinel-2 bands.
    pub radar: bool,
    /// Fraction of the samples with clouds.
    pub cloudy: f32,
    /// Whether a plane with the cloud probability in percent follows the bands.
    pub cloud_probability: bool,
    /// The date that the official samples append to the names of their bands, from the number of the sample.
    pub date: fn(usize) -> Option<Date>,
    /// Whether the name of the mask has the date too.
    pub has_dated_mask: bool,
    /// Sentinel-2 bands missing from the official files.
    pub without: &'static [Band],
    pub class_names: &'static [&'static str],
}

/// What took the images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Camera {
    Sentinel2,
    Landsat8,
    /// Red, green and blue from an aeroplane.
    Aerial,
    AerialNearInfrared,
    /// With tree heights and many narrow bands in larger pixels, as NeonTree has them.
    AerialWithLidar,
}

/// How pixels are stored. The first three hold digital numbers, the others what a camera records from 0 to 255.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pixels {
    Int16,
    /// Divided by the task's scale.
    Float32,
    /// Divided by [`BYTE`].
    Uint8,
    /// As recorded, in bytes.
    Brightness,
    /// Divided by 255, in float32.
    Fraction,
}

/// Digital numbers per step of a stored byte.
pub const BYTE: f32 = 40.0;

impl Content {
    /// Number of samples in a split.
    pub fn count(&self, split: Split) -> usize {
        self.counts[split as usize]
    }
}

/// Defaults of a task: Sentinel-2 digital numbers without date or radar. Samples, scenes and classes are missing.
pub const PLAIN: Content = Content {
    counts: [0; 3],
    draw: scenes::eurosat,
    camera: Camera::Sentinel2,
    named: |number| format!("demo_{number:04}"),
    pixels: Pixels::Int16,
    radar: false,
    cloudy: 0.1,
    cloud_probability: false,
    date: |_| None,
    has_dated_mask: false,
    without: &[],
    class_names: &[],
};

/// Names of the tasks that have a demo, without those of [`brightness::NAMES`].
pub const NAMES: [&str; 10] = [
    "m-eurosat",
    "m-bigearthnet",
    "m-so2sat",
    "m-brick-kiln",
    "m-cashew-plant",
    "m-SA-crop-type",
    "two-sensors",
    "two-sensor-crops",
    "demo-tree-cover",
    "demo-tree-height",
];

/// Returns the contents of a task's demo. The counts keep those of [`NAMES`] together below 85 MB and every class of m-eurosat, m-so2sat
/// and m-brick-kiln in each split.
pub fn content(task: &str) -> Option<Content> {
    Some(match task {
        "m-eurosat" => Content { counts: [70, 10, 40], draw: scenes::eurosat, class_names: EUROSAT, ..PLAIN },
        // All planes have the same type, so that the task can be packed.
        "two-sensors" => Content {
            counts: [40, 10, 20],
            draw: scenes::eurosat,
            pixels: Pixels::Float32,
            radar: true,
            without: &[Band::B01, Band::B09, Band::B10],
            class_names: EUROSAT,
            ..PLAIN
        },
        "two-sensor-crops" => Content {
            counts: [4, 2, 2],
            draw: scenes::crop_types,
            pixels: Pixels::Float32,
            radar: true,
            without: &[Band::B01, Band::B09, Band::B10],
            class_names: CROP_TYPES,
            ..PLAIN
        },
        "m-bigearthnet" => Content {
            counts: [40, 4, 16],
            draw: scenes::bigearthnet,
            pixels: Pixels::Float32,
            without: &[Band::B10],
            class_names: CORINE,
            ..PLAIN
        },
        "m-so2sat" => Content {
            counts: [68, 17, 34],
            draw: scenes::climate_zones,
            pixels: Pixels::Float32,
            radar: true,
            without: &[Band::B01, Band::B09, Band::B10],
            class_names: &[
                "Compact high rise",
                "Compact mid rise",
                "Compact low rise",
                "Open high rise",
                "Open mid rise",
                "Open low rise",
                "Lightweight low rise",
                "Large low rise",
                "Sparsely built",
                "Heavy industry",
                "Dense trees",
                "Scattered trees",
                "Bush, scrub",
                "Low plants",
                "Bare rock or paved",
                "Bare soil or sand",
                "Water",
            ],
            ..PLAIN
        },
        "m-brick-kiln" => Content {
            counts: [32, 4, 20],
            draw: scenes::brick_kiln,
            class_names: &["not brick kiln", "brick kiln"],
            ..PLAIN
        },
        "m-cashew-plant" => Content {
            counts: [2, 1, 1],
            draw: scenes::cashew,
            cloudy: 0.75,
            cloud_probability: true,
            date: |_| Some((2019, 11, 5)),
            without: &[Band::B10],
            class_names: &[
                "no data",
                "well-managed plantation",
                "poorly-managed plantation",
                "non-plantation",
                "residential",
                "background",
                "uncertain",
            ],
            ..PLAIN
        },
        "m-SA-crop-type" => Content {
            counts: [2, 1, 1],
            draw: scenes::crop_types,
            pixels: Pixels::Uint8,
            cloudy: 0.75,
            cloud_probability: true,
            without: &[Band::B10],
            class_names: CROP_TYPES,
            ..PLAIN
        },
        "demo-tree-cover" => Content {
            counts: [60, 20, 40],
            draw: values::tree_cover,
            cloudy: 0.0,
            without: &[Band::B10],
            ..PLAIN
        },
        "demo-tree-height" => Content {
            counts: [16, 6, 8],
            draw: values::tree_height,
            cloudy: 0.0,
            without: &[Band::B10],
            ..PLAIN
        },
        _ => return brightness::content(task),
    })
}

const EUROSAT: &[&str] = &[
    "Annual Crop",
    "Forest",
    "Herbaceous Vegetation",
    "Highway",
    "Industrial Buildings",
    "Pasture",
    "Permanent Crop",
    "Residential Buildings",
    "River",
    "Sea & Lake",
];

const CROP_TYPES: &[&str] = &[
    "no data",
    "lucerne",
    "planted pasture",
    "fallow",
    "wine grapes",
    "weeds",
    "small grain grazing",
    "wheat",
    "canola",
    "rooibos",
];

/// Level 3 of the CORINE land cover nomenclature in its order, without glaciers.
const CORINE: &[&str] = &[
    "Continuous urban fabric",
    "Discontinuous urban fabric",
    "Industrial or commercial units",
    "Road and rail networks and associated land",
    "Port areas",
    "Airports",
    "Mineral extraction sites",
    "Dump sites",
    "Construction sites",
    "Green urban areas",
    "Sport and leisure facilities",
    "Non-irrigated arable land",
    "Permanently irrigated land",
    "Rice fields",
    "Vineyards",
    "Fruit trees and berry plantations",
    "Olive groves",
    "Pastures",
    "Annual crops associated with permanent crops",
    "Complex cultivation patterns",
    "Land principally occupied by agriculture, with significant areas of natural vegetation",
    "Agro-forestry areas",
    "Broad-leaved forest",
    "Coniferous forest",
    "Mixed forest",
    "Natural grassland",
    "Moors and heathland",
    "Sclerophyllous vegetation",
    "Transitional woodland/shrub",
    "Beaches, dunes, sands",
    "Bare rock",
    "Sparsely vegetated areas",
    "Burnt areas",
    "Inland marshes",
    "Peatbogs",
    "Salt marshes",
    "Salines",
    "Intertidal flats",
    "Water courses",
    "Water bodies",
    "Coastal lagoons",
    "Estuaries",
    "Sea and ocean",
];
