//! The GEO-Bench tasks of Landsat and aerial images: contents, scenes, and the camera, whose pixels are brightness without a unit.
//!
//! Each sample of some tasks has its own date, and names contain places, as in the official files.

use ndarray::Array2;

use crate::data::Target;
use crate::task::bands::Band;

use super::covers::{
    Painter, Shape, Town, clumps, fields, forest, open, over, panels, parcels, rows, scattered, strip, town,
};
use super::describe::Date;
use super::ground::Cell;
use super::ground::Material::{
    Asphalt, Broadleaf, Burnt, Concrete, Conifer, Crop as Cereal, DarkRoof, Grass, MetalRoof, RedSoil, Reed,
    Rock, Sand, Shrub, Soil, TileRoof, Water,
};
use super::ground::reflectance;
use super::random::{Random, mix};
use super::scenes::{Scene, centre, segmented};
use super::sensor::{enlarge, shrink};
use super::tasks::{Camera, Content, PLAIN, Pixels};

/// The tasks of this file. They are large and written only for runs that name one of them.
pub const NAMES: [&str; 6] =
    ["m-forestnet", "m-pv4ger", "m-pv4ger-seg", "m-chesapeake", "m-NeonTree", "m-nz-cattle"];

/// Returns the contents of a task's demo, about 85 MB for all six. Every class is in each split.
pub fn content(task: &str) -> Option<Content> {
    Some(match task {
        "m-forestnet" => Content {
            counts: [24, 12, 12],
            draw: forest_loss,
            pixels: Pixels::Brightness,
            camera: Camera::Landsat8,
            named: |number| {
                let ((latitude, longitude), (year, month, day)) =
                    (place(number, -6.0, 95.0), loss_date(number));
                format!("{latitude:.6}_{longitude:.6}_{year:04}_{month:02}_{day:02}")
            },
            date: |number| Some(loss_date(number)),
            class_names: &[
                "Oil palm plantation",
                "Timber plantation",
                "Other large-scale plantations",
                "Grassland shrubland",
                "Small-scale agriculture",
                "Small-scale mixed plantation",
                "Small-scale oil palm plantation",
                "Mining",
                "Fish pond",
                "Logging",
                "Secondary forest",
                "Other",
            ],
            ..PLAIN
        },
        "m-pv4ger" => Content {
            counts: [24, 4, 12],
            draw: solar,
            pixels: Pixels::Brightness,
            camera: Camera::Aerial,
            named: |number| {
                let (latitude, longitude) = place(number, 50.0, 6.0);
                format!("{latitude:.6},{longitude:.6}")
            },
            class_names: SOLAR,
            ..PLAIN
        },
        "m-pv4ger-seg" => Content {
            counts: [6, 2, 3],
            draw: solar_mask,
            pixels: Pixels::Brightness,
            camera: Camera::Aerial,
            named: |number| {
                let (latitude, longitude) = place(number, 51.0, 7.0);
                format!("{latitude:.6},{longitude:.6}")
            },
            class_names: SOLAR,
            ..PLAIN
        },
        "m-chesapeake" => Content {
            counts: [4, 2, 2],
            draw: land_cover,
            pixels: Pixels::Fraction,
            camera: Camera::AerialNearInfrared,
            named: |number| format!("id_{number:06}"),
            // As the official files have it, one place too early for the numbers in the masks.
            class_names: &[
                "water",
                "tree canopy / forest",
                "low vegetation / field",
                "barren land",
                "impervious (other)",
                "impervious (road)",
                "no data",
            ],
            ..PLAIN
        },
        "m-NeonTree" => Content {
            counts: [4, 2, 2],
            draw: trees,
            pixels: Pixels::Brightness,
            camera: Camera::AerialWithLidar,
            named: |number| format!("DEMO_{number:03}_image_crop_{:02}", 3 * number % 100),
            class_names: &["no tree", "tree"],
            ..PLAIN
        },
        "m-nz-cattle" => Content {
            counts: [4, 2, 2],
            draw: cattle,
            pixels: Pixels::Brightness,
            camera: Camera::Aerial,
            named: |number| {
                let (latitude, longitude) = place(number, -37.0, 175.0);
                format!("{number:03}_Demo_(2016-2017)_{longitude:.6},{latitude:.6}")
            },
            date: |_| Some((2016, 1, 1)),
            has_dated_mask: true,
            class_names: &["no cattle", "cattle"],
            ..PLAIN
        },
        _ => return None,
    })
}

const SOLAR: &[&str] = &["no solar pv", "solar pv"];

/// Invented latitude and longitude for the name of a file, different for each number.
fn place(number: usize, latitude: f64, longitude: f64) -> (f64, f64) {
    (latitude + number as f64 / 16.0, longitude + (7 * number % 50) as f64 / 8.0)
}

fn loss_date(number: usize) -> Date {
    (2013 + (number % 4) as u16, 1 + (5 * number % 12) as u8, 1 + (11 * number % 28) as u8)
}

// Scenes --------------------------------------------------------------------------------------------------------------

/// Shows `paint` with pixels of `metres` instead of 10.
fn zoomed(paint: Painter, metres: f32) -> Painter {
    let step = metres / 10.0;
    Box::new(move |x, y| paint(x * step, y * step))
}

/// What forests were cut for: the twelve classes of ForestNet in turn.
fn forest_loss(random: &mut Random, index: usize, side: usize) -> Scene {
    let class = index % 12;
    let woods = |random: &mut Random| forest(random, [Broadleaf, Conifer], 0.1);
    let paint = match class {
        0 => rows(random, (Broadleaf, 0.5, 0.9), (Soil, 0.3, 0.8), 6.0, 0.04),
        1 => rows(random, (Conifer, 0.4, 1.0), (Grass, 0.3, 0.8), 4.0, 0.05),
        2 => rows(random, (Shrub, 0.4, 0.9), (RedSoil, 0.2, 0.7), 5.0, 0.1),
        3 => {
            let (base, bushes) =
                (open(random, (Grass, 0.2, 0.8), 0.2, 0.1), open(random, (Shrub, 0.2, 0.9), 0.2, 0.1));
            let place = clumps(random, 12.0, 0.5);
            over(base, place, bushes)
        }
        4 => fields(random, 16.0, &[(Cereal, 0.4, 1.0), (Cereal, 0.1, 0.6), (Soil, 0.3, 0.9)], 0.0),
        5 => rows(random, (Broadleaf, 0.3, 0.9), (Shrub, 0.3, 0.8), 5.0, 0.45),
        6 => {
            let (palms, land) =
                (rows(random, (Broadleaf, 0.5, 0.9), (Soil, 0.3, 0.8), 6.0, 0.2), woods(random));
            let lots = scattered(random, 30.0, 0.5);
            over(land, lots, palms)
        }
        7 => {
            let (pits, ponds) =
                (open(random, (Sand, 0.0, 0.8), 0.3, 0.2), open(random, (Water, 0.4, 1.0), 0.1, 0.03));
            let place = clumps(random, 10.0, 0.35);
            over(pits, place, ponds)
        }
        8 => fields(random, 22.0, &[(Water, 0.2, 1.0), (Water, 0.0, 0.7), (Reed, 0.2, 0.7)], 1.5),
        9 => {
            let (mut land, width) = (woods(random), side as f32);
            for _ in 0..4 {
                let (track, soil) =
                    (strip(random, width, 5.0, 20.0), open(random, (RedSoil, 0.1, 0.6), 0.1, 0.1));
                land = over(land, track, soil);
            }
            land
        }
        10 => {
            let (base, regrowth) = (woods(random), open(random, (Shrub, 0.6, 1.0), 0.2, 0.1));
            let place = clumps(random, 18.0, 0.5);
            over(base, place, regrowth)
        }
        _ => open(random, (Burnt, 0.0, 1.0), 0.2, 0.1),
    };
    Scene { side, paint: zoomed(paint, 15.0), target: Target::Class(class) }
}

const SUBURB: Town = Town {
    plot: 1.8,
    built: 0.8,
    building: 0.6,
    shadow: 0.3,
    green: 0.6,
    paved: Concrete,
    roofs: &[TileRoof, TileRoof, DarkRoof, MetalRoof],
};

/// A street of houses, or fields.
fn neighbourhood(random: &mut Random) -> Painter {
    let paint = match random.chance(0.75) {
        true => town(random, SUBURB),
        false => fields(random, 3.0, &[(Cereal, 0.2, 1.0), (Soil, 0.2, 0.8), (Grass, 0.3, 0.9)], 0.0),
    };
    zoomed(paint, 0.1)
}

/// Houses alternately without and with solar panels. Those without have a dark roof of the same form, so that colour alone does not
/// give the class away.
fn solar(random: &mut Random, index: usize, side: usize) -> Scene {
    let class = index % 2;
    let base = neighbourhood(random);
    let (place, panels) = panels(random, side as f32);
    let top = if class == 1 { panels } else { zoomed(open(random, (DarkRoof, 0.3, 1.0), 0.2, 0.1), 0.1) };
    Scene { side, paint: over(base, place, top), target: Target::Class(class) }
}

/// Houses with solar panels on one of them; the mask is 1 there.
fn solar_mask(random: &mut Random, _index: usize, side: usize) -> Scene {
    let base = neighbourhood(random);
    let (place, panels) = panels(random, side as f32);
    let mask = Array2::from_shape_fn((side, side), |pixel| {
        let (x, y) = centre(pixel);
        i32::from(place(x, y))
    });
    Scene { side, paint: over(base, place, panels), target: Target::Mask(mask) }
}

/// Parcels of the land covers of Chesapeake by their numbers; 0 is ground without a label.
fn land_cover(random: &mut Random, _index: usize, side: usize) -> Scene {
    let covers = (0..7)
        .map(|class| {
            let paint = match class {
                0 => fields(random, 20.0, &[(Cereal, 0.2, 1.0), (Soil, 0.2, 0.8)], 0.0),
                1 => open(random, (Water, 0.1, 0.9), 0.1, 0.03),
                2 => forest(random, [Broadleaf, Conifer], 0.3),
                3 => open(random, (Grass, 0.2, 0.9), 0.2, 0.06),
                4 => {
                    let material = random.pick(&[Soil, Sand, Rock]);
                    open(random, (material, 0.1, 0.7), 0.2, 0.12)
                }
                5 => town(random, Town { green: 0.0, built: 0.9, ..SUBURB }),
                _ => open(random, (Asphalt, 0.1, 0.8), 0.05, 0.04),
            };
            zoomed(paint, 1.0)
        })
        .collect();
    segmented(random, side, side as f32 / 5.0, &[0, 1, 2, 2, 3, 3, 4, 5, 6], covers)
}

/// An oval at a place.
#[derive(Debug, Clone, Copy)]
struct Oval {
    centre: (f32, f32),
    /// Half axes.
    size: (f32, f32),
    /// Direction of the first axis.
    axis: (f32, f32),
    /// From 0 to 1: what distinguishes one from the others.
    kind: f32,
}

impl Oval {
    /// Distance from the centre: below 1 inside.
    fn distance(&self, (x, y): (f32, f32)) -> f32 {
        let (x, y) = (x - self.centre.0, y - self.centre.1);
        let (u, v) = (self.axis.0 * x + self.axis.1 * y, self.axis.0 * y - self.axis.1 * x);
        let (u, v) = (u / self.size.0, v / self.size.1);
        (u * u + v * v).sqrt()
    }

    /// The nearest of `ovals` that contains the point, and how far inside.
    fn at(ovals: &[Oval], point: (f32, f32)) -> Option<(&Oval, f32)> {
        let inside =
            ovals.iter().map(|oval| (oval, oval.distance(point))).filter(|(_, distance)| *distance < 1.0);
        inside.min_by(|a, b| a.1.total_cmp(&b.1))
    }
}

/// Single trees on grass; the mask is 1 in the inner part of each crown, as upstream shrinks its boxes to 0.6.
fn trees(random: &mut Random, _index: usize, side: usize) -> Scene {
    let width = side as f32;
    let base = zoomed(open(random, (Grass, 0.0, 0.6), 0.2, 0.1), 0.3);
    let crowns: Vec<Oval> = (0..25)
        .map(|_| {
            let radius = random.between(0.02, 0.07) * width;
            Oval {
                centre: (random.between(0.0, width), random.between(0.0, width)),
                size: (radius, radius * random.between(0.8, 1.0)),
                axis: random.direction(),
                kind: random.unit(),
            }
        })
        .collect();
    let mask = Array2::from_shape_fn((side, side), |pixel| {
        i32::from(Oval::at(&crowns, centre(pixel)).is_some_and(|(_, distance)| distance < 0.6))
    });
    let leaves = random.noise();
    let paint: Painter = Box::new(move |x, y| match Oval::at(&crowns, (x, y)) {
        Some((crown, distance)) => {
            let material = if crown.kind < 0.5 { Broadleaf } else { Conifer };
            let rough = 1.0 + 0.4 * leaves.octaves(x / 5.0, y / 5.0, 2);
            Cell::new(material, 1.0 - 0.5 * crown.kind).lit((1.2 - 0.7 * distance) * rough)
        }
        None => base(x, y),
    });
    Scene { side, paint, target: Target::Mask(mask) }
}

/// Cattle on a pasture with rocks of the same size; the mask is a disc of 6 pixels about each animal.
fn cattle(random: &mut Random, _index: usize, side: usize) -> Scene {
    let width = side as f32;
    let pasture = zoomed(open(random, (Grass, 0.4, 1.0), 0.15, 0.08), 0.3);
    let mut ovals = |count: usize, long: f32, short: f32| -> Vec<Oval> {
        (0..count)
            .map(|_| Oval {
                centre: (random.between(0.04, 0.96) * width, random.between(0.04, 0.96) * width),
                size: (long, short),
                axis: random.direction(),
                kind: random.unit(),
            })
            .collect()
    };
    let (animals, rocks) = (ovals(14, 9.0, 3.5), ovals(8, 6.0, 5.0));
    let mask = Array2::from_shape_fn((side, side), |pixel| {
        let (x, y) = centre(pixel);
        let near = |animal: &Oval| {
            let (dx, dy) = (x - animal.centre.0, y - animal.centre.1);
            dx * dx + dy * dy < 36.0
        };
        i32::from(animals.iter().any(near))
    });
    let paint: Painter = Box::new(move |x, y| {
        if let Some((animal, _)) = Oval::at(&animals, (x, y)) {
            return match animal.kind {
                kind if kind < 0.5 => Cell::new(Burnt, 1.0).lit(0.4),
                kind if kind < 0.8 => Cell::new(RedSoil, 1.0).lit(0.7),
                _ => Cell::new(Sand, 0.0).lit(1.2),
            };
        }
        match Oval::at(&rocks, (x, y)) {
            Some((rock, _)) => Cell::new(Rock, rock.kind),
            None => pasture(x, y),
        }
    });
    Scene { side, paint, target: Target::Mask(mask) }
}

// The camera ----------------------------------------------------------------------------------------------------------

/// A band of a camera.
pub struct Channel {
    /// Name in the files.
    pub name: &'static str,
    /// Common name.
    pub common: &'static str,
    /// Centre wavelength in micrometres.
    pub wavelength: f64,
    /// Side of the detector's pixels in pixels of the image.
    pub pixel: usize,
    /// The band of Sentinel-2 that is nearest.
    like: Band,
    /// Step of brightness per reflectance of 0.0001, and the brightness of black, out of 255.
    response: (f32, f32),
}

const fn channel(name: &'static str, common: &'static str, wavelength: f64, like: Band) -> Channel {
    Channel { name, common, wavelength, pixel: 1, like, response: (0.06, 50.0) }
}

/// Landsat's visible bands are sharpened with the panchromatic one; its infrared is not.
const LANDSAT: [Channel; 6] = [
    Channel { response: (0.025, 60.0), ..channel("04 - Red", "red", 0.6546, Band::B04) },
    Channel { response: (0.025, 60.0), ..channel("03 - Green", "green", 0.5614, Band::B03) },
    Channel { response: (0.025, 60.0), ..channel("02 - Blue", "blue", 0.482, Band::B02) },
    Channel { response: (0.03, 40.0), pixel: 2, ..channel("05 - NIR", "nir", 0.8647, Band::B8A) },
    Channel { response: (0.03, 40.0), pixel: 2, ..channel("06 - SWIR1", "swir1", 1.6089, Band::B11) },
    Channel { response: (0.03, 40.0), pixel: 2, ..channel("07 - SWIR2", "swir2", 2.2007, Band::B12) },
];

const AERIAL: [Channel; 4] = [
    channel("Red", "red", 0.665, Band::B04),
    channel("Green", "green", 0.56, Band::B03),
    channel("Blue", "blue", 0.49, Band::B02),
    channel("NearInfrared", "nir", 0.876, Band::B8A),
];

impl Camera {
    /// Its bands in the order of `task_specs.pkl`; none for Sentinel-2, whose bands [`super::sensor`] renders.
    pub fn channels(self) -> &'static [Channel] {
        match self {
            Camera::Sentinel2 => &[],
            Camera::Landsat8 => &LANDSAT,
            Camera::Aerial | Camera::AerialWithLidar => &AERIAL[..3],
            Camera::AerialNearInfrared => &AERIAL,
        }
    }
}

/// Renders a scene as a camera records it: whole numbers from 0 to 255 per channel, row by row. Landsat's are paled outside a
/// polygon, as upstream does it outside that of the lost forest.
pub fn photograph(random: &mut Random, scene: &Scene, camera: Camera) -> Vec<Vec<f32>> {
    let side = scene.side;
    let (gain, haze, season) =
        (random.between(0.88, 1.12), random.between(0.8, 1.2), random.between(-0.1, 0.1));
    let grain = random.noise();
    let cells: Vec<Cell> = (0..side * side)
        .map(|place| {
            let (x, y) = centre((place / side, place % side));
            let mut cell = (scene.paint)(x, y);
            cell.state = (cell.state + season).clamp(0.0, 1.0);
            cell.lit(gain * (1.0 + 0.08 * grain.smooth(x / 1.7, y / 1.7)))
        })
        .collect();
    let polygon: Option<Shape> = (camera == Camera::Landsat8).then(|| {
        let size = random.between(0.25, 0.5) * side as f32;
        let region = parcels(random, size);
        let middle = region(0.5 * side as f32, 0.5 * side as f32);
        Box::new(move |x, y| region(x, y) == middle) as Shape
    });
    let channels = camera.channels().iter().map(|channel| {
        let tint = random.between(0.93, 1.07);
        let (step, black) = channel.response;
        let sharp: Vec<f32> = cells
            .iter()
            .map(|cell| {
                haze * black + tint * step * cell.light * reflectance(cell.material, cell.state, channel.like)
            })
            .collect();
        let count = side.div_ceil(channel.pixel);
        let seen = enlarge(&shrink(&sharp, side, channel.pixel, count), count, channel.pixel, side);
        let pixels = seen.into_iter().enumerate().map(|(place, value)| {
            let value = (value + (1.0 + 0.012 * value) * random.normal()).round().clamp(0.0, 255.0);
            let (x, y) = centre((place / side, place % side));
            match &polygon {
                Some(polygon) if !polygon(x, y) => ((192.0 * value + 63.0 * 255.0) / 255.0).floor(),
                _ => value,
            }
        });
        pixels.collect()
    });
    channels.collect()
}

/// Side of NeonTree's lidar and hyperspectral pixels, in pixels of its photographs.
pub const COARSE: usize = 10;

/// Number of channels of NeonTree's hyperspectral images.
pub const SPECTRAL: usize = 369;

/// Range of their wavelengths in micrometres [NEON, Imaging Spectrometer].
const SPECTRUM: (f32, f32) = (0.38, 2.51);

/// The bands of Sentinel-2 that see the ground, with their centres in micrometres.
const KNOWN: [(Band, f32); 12] = [
    (Band::B01, 0.443),
    (Band::B02, 0.49),
    (Band::B03, 0.56),
    (Band::B04, 0.665),
    (Band::B05, 0.705),
    (Band::B06, 0.74),
    (Band::B07, 0.783),
    (Band::B08, 0.842),
    (Band::B8A, 0.865),
    (Band::B09, 0.945),
    (Band::B11, 1.61),
    (Band::B12, 2.19),
];

/// What stands at the centre of each coarse pixel, row by row.
fn coarse(scene: &Scene) -> impl Iterator<Item = Cell> {
    let count = scene.side.div_ceil(COARSE);
    (0..count * count).map(move |place| {
        let at = |index: usize| (index as f32 + 0.5) * COARSE as f32;
        (scene.paint)(at(place % count), at(place / count))
    })
}

/// Height above ground in metres per coarse pixel, row by row.
pub fn heights(random: &mut Random, scene: &Scene) -> Vec<f32> {
    let height = |cell: Cell| match cell.material {
        Broadleaf | Conifer => (18.0 * cell.light + random.normal()).max(2.0),
        _ => 0.0,
    };
    coarse(scene).map(height).collect()
}

/// Reflectance times 10,000 of [`SPECTRAL`] channels per coarse pixel, row by row, all channels of a pixel together: linear between
/// the bands of Sentinel-2.
pub fn spectra(random: &mut Random, scene: &Scene) -> Vec<i16> {
    let mut values = Vec::new();
    for cell in coarse(scene) {
        let known =
            KNOWN.map(|(band, wavelength)| (wavelength, reflectance(cell.material, cell.state, band)));
        for channel in 0..SPECTRAL {
            let wavelength = mix(SPECTRUM.0, SPECTRUM.1, channel as f32 / (SPECTRAL - 1) as f32);
            let after =
                known.iter().position(|(known, _)| *known > wavelength).unwrap_or(known.len() - 1).max(1);
            let ((left, low), (right, high)) = (known[after - 1], known[after]);
            let share = ((wavelength - left) / (right - left)).clamp(0.0, 1.0);
            let value = cell.light * mix(low, high, share) * (1.0 + 0.02 * random.normal());
            values.push(value.clamp(0.0, 15_000.0) as i16);
        }
    }
    values
}
