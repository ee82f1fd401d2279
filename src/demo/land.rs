//! Scenes of the demos of Copernicus-Bench and Landslide4Sense: land cover per pixel, floods, landslides.

use ndarray::Array2;

use crate::data::Target;

use super::covers::{Painter, Shape, Town, clumps, fields, forest, open, over, town};
use super::ground::Material::{
    Broadleaf, Concrete, Conifer, Crop as Cereal, DarkRoof, Grass, RedSoil, Reed, Rock, Shrub, Soil,
    TileRoof, Water,
};
use super::random::Random;
use super::scenes::{Scene, centre, segmented};

const HOUSES: Town = Town {
    plot: 2.4,
    built: 0.75,
    building: 0.55,
    shadow: 0.6,
    green: 0.6,
    paved: Concrete,
    roofs: &[TileRoof, TileRoof, DarkRoof],
};

/// Number of land covers of [`cover`].
pub const COVERS: usize = 8;

/// Draws a land cover by its number: forest, shrubs, grass, wetland, crops, town, bare ground, water.
fn cover(random: &mut Random, number: usize) -> Painter {
    match number {
        0 => forest(random, [Broadleaf, Conifer], 0.4),
        1 => open(random, (Shrub, 0.2, 0.9), 0.2, 0.1),
        2 => open(random, (Grass, 0.2, 0.8), 0.2, 0.06),
        3 => open(random, (Reed, 0.2, 0.8), 0.25, 0.06),
        4 => fields(random, 18.0, &[(Cereal, 0.4, 1.0), (Cereal, 0.0, 0.6), (Soil, 0.1, 0.9)], 0.0),
        5 => town(random, HOUSES),
        6 => open(random, (Rock, 0.0, 0.8), 0.2, 0.2),
        _ => open(random, (Water, 0.1, 0.9), 0.1, 0.03),
    }
}

/// Parcels of land covers; the mask holds the number of each.
pub fn covers(random: &mut Random, side: usize) -> Scene {
    let painters = (0..COVERS).map(|number| cover(random, number)).collect();
    segmented(random, side, side as f32 / 3.0, &[0, 0, 1, 2, 2, 3, 4, 4, 4, 5, 6, 7], painters)
}

/// Land before and after a flood, and the mask: 0 no water, 1 permanent water, 2 flood.
pub fn flood(random: &mut Random, side: usize) -> [Scene; 2] {
    let size = random.between(30.0, 60.0);
    let (low, high) = (random.between(0.1, 0.3), random.between(0.35, 0.6));
    let drawn = random.clone();
    // The same field of heights at two levels: what is under water before is so afterwards.
    let lake = |level: f32| -> Shape { clumps(&mut drawn.clone(), size, level) };
    let (permanent, flooded) = (lake(low), lake(high));
    let mask = Array2::from_shape_fn((side, side), |pixel| {
        let (x, y) = centre(pixel);
        if permanent(x, y) { 1 } else { 2 * i32::from(flooded(x, y)) }
    });
    let scene = |level: f32| {
        let mut again = drawn.clone();
        let land = covers(&mut again, side).paint;
        let water = open(&mut again, (Water, 0.1, 0.9), 0.1, 0.03);
        Scene { side, paint: over(land, lake(level), water), target: Target::Mask(mask.clone()) }
    };
    [scene(low), scene(high)]
}

/// Wooded slopes with bare scars where they slid; the mask is 1 there.
pub fn landslides(random: &mut Random, side: usize) -> Scene {
    let woods = forest(random, [Broadleaf, Conifer], 0.3);
    let meadows = open(random, (Grass, 0.2, 0.9), 0.2, 0.06);
    let (size, share) = (random.between(14.0, 26.0), random.between(0.3, 0.6));
    let land = {
        let place = clumps(random, size, share);
        over(meadows, place, woods)
    };
    let (size, share) = (random.between(8.0, 16.0), random.between(0.12, 0.25));
    let drawn = random.clone();
    let scars = || clumps(&mut drawn.clone(), size, share);
    let slid = scars();
    let mask = Array2::from_shape_fn((side, side), |pixel| {
        let (x, y) = centre(pixel);
        i32::from(slid(x, y))
    });
    let material = random.pick(&[RedSoil, Soil, Rock]);
    let bare = open(random, (material, 0.1, 0.7), 0.1, 0.15);
    Scene { side, paint: over(land, scars(), bare), target: Target::Mask(mask) }
}
