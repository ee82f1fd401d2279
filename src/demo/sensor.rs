//! From a scene to stored numbers: weather, atmosphere, optics, noise.

use crate::task::Sensor;
use crate::task::bands::Band;

use super::ground::{Cell, backscatter, reflectance};
use super::random::{Noise, Random, mix};
use super::scenes::Scene;

/// Sub-samples along each side of a 10 m pixel, so that details smaller than a pixel mix.
const FINE: usize = 2;

/// Range of a band's digital numbers: 0 stands for "no data", and brighter clouds saturate.
pub const RANGE: (f32, f32) = (1.0, 16_000.0);

/// Path radiance of a clear sky times 10,000, and the transmittance of the atmosphere, by band (B01 … B12).
const PATH: [f32; 13] = [980., 720., 440., 270., 210., 150., 125., 105., 90., 45., 8., 12., 6.];
const CLEAR: [f32; 13] = [0.78, 0.83, 0.88, 0.92, 0.93, 0.94, 0.95, 0.95, 0.96, 0.38, 0.0, 0.95, 0.94];
/// Reflectance of a thick cloud times 10,000.
const CLOUD: [f32; 13] =
    [6800., 6700., 6500., 6500., 6600., 6700., 6800., 6900., 7000., 2900., 160., 4600., 3600.];

/// Conditions that differ between overpasses.
struct Weather {
    /// Factor on all bands, from the sun's height and the viewing angle.
    gain: f32,
    /// Aerosol, in multiples of a clear sky's path radiance.
    haze: f32,
    /// Offset to the state of every material.
    season: f32,
    clouds: Option<Clouds>,
}

/// A field of clouds and their shadows.
struct Clouds {
    field: Noise,
    size: f32,
    threshold: f32,
    shadow: (f32, f32),
}

impl Weather {
    fn draw(random: &mut Random, cloudy: f32) -> Self {
        let clouds = random.chance(cloudy).then(|| {
            let direction = random.direction();
            let length = random.between(6.0, 14.0);
            Clouds {
                field: random.noise(),
                size: random.between(14.0, 30.0),
                threshold: random.between(0.15, 0.5),
                shadow: (direction.0 * length, direction.1 * length),
            }
        });
        Weather {
            gain: random.between(0.92, 1.08),
            haze: random.between(0.85, 1.3),
            season: random.between(-0.1, 0.1),
            clouds,
        }
    }
}

impl Clouds {
    /// Fraction of the ground that is hidden, from 0 to 1.
    fn cover(&self, x: f32, y: f32) -> f32 {
        let field = self.field.octaves(x / self.size, y / self.size, 4);
        (2.5 * (field - self.threshold)).clamp(0.0, 1.0)
    }
}

/// A scene as Sentinel-2 records it.
pub struct View {
    /// Digital numbers (reflectance times 10,000) per requested band, row by row: whole numbers within
    /// [`RANGE`].
    pub bands: Vec<Vec<f32>>,
    /// Cloud probability in percent, row by row.
    pub cloud_probability: Vec<f32>,
    /// How much of each pixel lies in a cloud's shadow, from 0 to 1, row by row.
    pub shade: Vec<f32>,
}

/// Renders a scene as Sentinel-2 records it, processed to `level`, with clouds at the probability `cloudy`.
pub fn optical(random: &mut Random, scene: &Scene, bands: &[Band], level: Sensor, cloudy: f32) -> View {
    let weather = Weather::draw(random, cloudy);
    let ground = Ground::survey(scene, &weather);
    let bands = bands
        .iter()
        .map(|band| {
            let fine = ground.radiance(*band, level, &weather);
            sense(random, &fine, scene.side, pixel(*band))
        })
        .collect();
    let cloud_probability = shrink(&ground.hidden, scene.side * FINE, FINE, scene.side)
        .into_iter()
        .map(|share| (100.0 * share).round())
        .collect();
    let shade = shrink(&ground.shaded, scene.side * FINE, FINE, scene.side);
    View { bands, cloud_probability, shade }
}

/// Pixel size of a band in multiples of 10 m.
fn pixel(band: Band) -> usize {
    match band {
        Band::B02 | Band::B03 | Band::B04 | Band::B08 => 1,
        Band::B01 | Band::B09 | Band::B10 => 6,
        _ => 2,
    }
}

/// A scene at sub-pixel resolution: what lies at each point, how much of it a cloud hides, and how much a cloud shades.
struct Ground {
    cells: Vec<Cell>,
    hidden: Vec<f32>,
    shaded: Vec<f32>,
}

impl Ground {
    fn survey(scene: &Scene, weather: &Weather) -> Self {
        let points = scene.side * FINE;
        let mut ground = Ground {
            cells: Vec::with_capacity(points * points),
            hidden: Vec::with_capacity(points * points),
            shaded: Vec::with_capacity(points * points),
        };
        for row in 0..points {
            for column in 0..points {
                let at = |index: usize| (index as f32 + 0.5) / FINE as f32;
                let (x, y) = (at(column), at(row));
                let mut cell = (scene.paint)(x, y);
                cell.state = (cell.state + weather.season).clamp(0.0, 1.0);
                let (mut hidden, mut shaded) = (0.0, 0.0);
                if let Some(clouds) = &weather.clouds {
                    hidden = clouds.cover(x, y);
                    shaded = clouds.cover(x + clouds.shadow.0, y + clouds.shadow.1);
                    cell = cell.lit(1.0 - 0.55 * shaded);
                }
                ground.cells.push(cell);
                ground.hidden.push(hidden);
                ground.shaded.push(shaded);
            }
        }
        ground
    }

    /// Digital numbers before the optics, one per point.
    fn radiance(&self, band: Band, level: Sensor, weather: &Weather) -> Vec<f32> {
        let of = |table: &[f32; 13]| table.get(band.place()).copied().unwrap_or(0.0);
        // Surface reflectance: remove the atmosphere except for the haze that the correction misjudges.
        let (path, clear) = match level {
            Sensor::S2_L2A => (0.25 * (weather.haze - 1.0) * of(&PATH), 1.0),
            _ => (weather.haze * of(&PATH), of(&CLEAR)),
        };
        self.cells
            .iter()
            .zip(&self.hidden)
            .map(|(cell, hidden)| {
                let surface = weather.gain * cell.light * reflectance(cell.material, cell.state, band);
                mix(path + clear * surface, weather.gain * of(&CLOUD), *hidden)
            })
            .collect()
    }
}

/// Simulates a row of detectors: pixels of `pixel` times 10 m, a separate gain per detector, noise; then resamples to
/// 10 m and rounds.
fn sense(random: &mut Random, fine: &[f32], side: usize, pixel: usize) -> Vec<f32> {
    let count = side.div_ceil(pixel);
    let mut native = shrink(fine, side * FINE, pixel * FINE, count);
    let detectors: Vec<f32> = (0..count).map(|_| 1.0 + 0.006 * random.normal()).collect();
    for (value, detector) in native.iter_mut().zip(detectors.iter().cycle()) {
        *value = *value * detector + (5.0 + 0.012 * *value) * random.normal();
    }
    enlarge(&native, count, pixel, side)
        .into_iter()
        .map(|value| value.round().clamp(RANGE.0, RANGE.1))
        .collect()
}

/// Averages a `side` x `side` square over blocks of `step` x `step`, `count` along each side; blocks that reach past the
/// edge average the values inside.
pub(super) fn shrink(values: &[f32], side: usize, step: usize, count: usize) -> Vec<f32> {
    let mut means = Vec::with_capacity(count * count);
    for row in 0..count {
        for column in 0..count {
            let (rows, columns) =
                (row * step..side.min((row + 1) * step), column * step..side.min((column + 1) * step));
            let area = (rows.len() * columns.len()) as f32;
            let sum: f32 = rows.map(|r| values[r * side..][columns.clone()].iter().sum::<f32>()).sum();
            means.push(sum / area);
        }
    }
    means
}

/// Interpolates `count` x `count` pixels, each `step` wide, linearly to `side` x `side`.
pub(super) fn enlarge(values: &[f32], count: usize, step: usize, side: usize) -> Vec<f32> {
    if step == 1 {
        return values.to_vec();
    }
    let place = |index: usize| {
        let position = ((index as f32 + 0.5) / step as f32 - 0.5).clamp(0.0, (count - 1) as f32);
        let before = position.floor();
        let first = before as usize;
        (first, (first + 1).min(count - 1), position - before)
    };
    let mut result = Vec::with_capacity(side * side);
    for row in 0..side {
        let (upper, lower, down) = place(row);
        for column in 0..side {
            let (left, right, across) = place(column);
            let at = |r: usize| mix(values[r * count + left], values[r * count + right], across);
            result.push(mix(at(upper), at(lower), down));
        }
    }
    result
}

/// Renders Sentinel-1's view as the eight planes of So2Sat: VH and VV as complex numbers (real, imaginary), then the
/// filtered VH and VV intensity, and the real and imaginary part of their covariance.
pub fn radar(random: &mut Random, scene: &Scene) -> [Vec<f32>; 8] {
    let side = scene.side;
    let mut planes: [Vec<f32>; 8] = Default::default();
    let gain = random.between(0.75, 1.3);
    for row in 0..side {
        for column in 0..side {
            let cell = (scene.paint)(column as f32 + 0.5, row as f32 + 0.5);
            let (vv, vh) = backscatter(cell.material);
            // Speckle: the echoes of many scatterers add up to a complex number with normally distributed parts.
            let mut speckle = |power: f32| {
                let deviation = (0.5 * gain * power).sqrt();
                (deviation * random.normal(), deviation * random.normal())
            };
            let ((vh_real, vh_imaginary), (vv_real, vv_imaginary)) = (speckle(vh), speckle(vv));
            for (plane, value) in planes.iter_mut().zip([
                vh_real,
                vh_imaginary,
                vv_real,
                vv_imaginary,
                vh_real * vh_real + vh_imaginary * vh_imaginary,
                vv_real * vv_real + vv_imaginary * vv_imaginary,
                vh_real * vv_real + vh_imaginary * vv_imaginary,
                vh_imaginary * vv_real - vh_real * vv_imaginary,
            ]) {
                plane.push(value);
            }
        }
    }
    for plane in &mut planes[4..] {
        *plane = smooth(plane, side);
    }
    planes
}

/// Averages over 5 x 5 pixels, fewer at the edges.
fn smooth(values: &[f32], side: usize) -> Vec<f32> {
    let window = |index: usize| index.saturating_sub(2)..side.min(index + 3);
    let mut means = Vec::with_capacity(side * side);
    for row in 0..side {
        for column in 0..side {
            let (rows, columns) = (window(row), window(column));
            let area = (rows.len() * columns.len()) as f32;
            let sum: f32 = rows.map(|r| values[r * side..][columns.clone()].iter().sum::<f32>()).sum();
            means.push(sum / area);
        }
    }
    means
}
