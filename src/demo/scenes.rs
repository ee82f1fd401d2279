//! What a sample of each task shows, and its label.

use ndarray::Array2;

use crate::data::Target;

use super::covers::{
    Crop, Painter, Town, clumps, fields, forest, kiln, open, over, parcels, part, road, rows, scattered,
    strip, town,
};
use super::ground::Material::{
    Broadleaf, Burnt, Canola, Concrete, Conifer, Crop as Cereal, DarkRoof, Grass, MetalRoof, RedSoil, Reed,
    Rock, Sand, Shrub, Soil, TileRoof, Water,
};
use super::random::{Random, choose};

/// A labelled square of land, `side` pixels of 10 m wide.
pub struct Scene {
    pub side: usize,
    pub paint: Painter,
    pub target: Target,
}

/// Draws the scene of a sample from its index in the split and the side in pixels.
pub type Draw = fn(&mut Random, usize, usize) -> Scene;

const ARABLE: &[Crop] =
    &[(Cereal, 0.5, 1.0), (Cereal, 0.0, 0.6), (Soil, 0.1, 0.9), (Canola, 0.3, 1.0), (Grass, 0.2, 0.7)];
const MEADOWS: &[Crop] = &[(Grass, 0.45, 1.0), (Grass, 0.3, 0.8), (Grass, 0.6, 1.0)];
const SMALLHOLDINGS: &[Crop] = &[(Cereal, 0.4, 1.0), (Cereal, 0.1, 0.6), (Soil, 0.3, 0.9), (Shrub, 0.3, 0.8)];
const PADDIES: &[Crop] = &[(Cereal, 0.5, 0.9), (Cereal, 0.3, 0.7), (Reed, 0.4, 0.9), (Water, 0.5, 1.0)];

const HOUSES: Town = Town {
    plot: 2.4,
    built: 0.75,
    building: 0.55,
    shadow: 0.6,
    green: 0.65,
    paved: Concrete,
    roofs: &[TileRoof, TileRoof, DarkRoof],
};
const HALLS: Town = Town {
    plot: 8.0,
    built: 0.75,
    building: 0.72,
    shadow: 0.9,
    green: 0.15,
    paved: Concrete,
    roofs: &[MetalRoof, MetalRoof, DarkRoof, Concrete],
};
const VILLAGE: Town = Town {
    plot: 1.8,
    built: 0.6,
    building: 0.6,
    shadow: 0.3,
    green: 0.45,
    paved: RedSoil,
    roofs: &[MetalRoof, TileRoof, RedSoil],
};

// m-eurosat ----------------------------------------------------------------------------------------------------------

/// The ten classes of EuroSAT in alphabetical order, in turn; nearly half of the scenes also show something else.
pub fn eurosat(random: &mut Random, index: usize, side: usize) -> Scene {
    let class = index % 10;
    let width = side as f32;
    let mut paint = land_use(random, class, width);
    if random.chance(0.45) {
        let share = random.between(0.05, 0.3);
        let neighbour = random.pick(&[0, 1, 2, 5, 6, 7]);
        let other = land_use(random, neighbour, width);
        let outside = part(random, width, share);
        paint = over(paint, outside, other);
    }
    Scene { side, paint, target: Target::Class(class) }
}

fn land_use(random: &mut Random, class: usize, side: f32) -> Painter {
    let size = random.between(12.0, 30.0);
    match class {
        0 => fields(random, size, ARABLE, 0.0),
        1 => woodland(random),
        2 => heath(random),
        3 => {
            let base = countryside(random, side);
            let width = random.between(1.6, 3.6);
            road(random, base, side, width)
        }
        4 => town(random, HALLS),
        5 => fields(random, 1.3 * size, MEADOWS, 0.5),
        6 => orchard(random),
        7 => town(random, HOUSES),
        8 => {
            let base = countryside(random, side);
            let (width, stray) = (random.between(5.0, 15.0), random.between(4.0, 14.0));
            let bed = strip(random, side, width, stray);
            let river = open(random, (Water, 0.2, 1.0), 0.1, 0.03);
            over(base, bed, river)
        }
        _ => {
            let water = open(random, (Water, 0.0, 0.8), 0.2, 0.05);
            let land = countryside(random, side);
            let share = random.between(-0.1, 0.25);
            let shore = part(random, side, share);
            over(water, shore, land)
        }
    }
}

fn countryside(random: &mut Random, side: f32) -> Painter {
    match (random.unit() * 5.0) as usize {
        0 => fields(random, 20.0, ARABLE, 0.0),
        1 => fields(random, 22.0, MEADOWS, 0.6),
        2 => heath(random),
        3 => woodland(random),
        _ => {
            let base = fields(random, 16.0, ARABLE, 0.4);
            let houses = town(random, HOUSES);
            let village = part(random, side, 0.3);
            over(base, village, houses)
        }
    }
}

fn woodland(random: &mut Random) -> Painter {
    let second = random.pick(&[0.0, 0.3, 0.6, 1.0]);
    forest(random, [Broadleaf, Conifer], second)
}

fn heath(random: &mut Random) -> Painter {
    let base = open(random, (Grass, 0.0, 0.6), 0.2, 0.06);
    let bushes = open(random, (Shrub, 0.2, 0.9), 0.2, 0.1);
    let (size, share) = (random.between(2.0, 7.0), random.between(0.25, 0.7));
    let where_bushes = clumps(random, size, share);
    over(base, where_bushes, bushes)
}

fn orchard(random: &mut Random) -> Painter {
    let spacing = random.between(1.4, 3.2);
    let ground = random.pick(&[(Soil, 0.2, 0.8), (Grass, 0.2, 0.8), (RedSoil, 0.3, 0.8)]);
    let plant = random.pick(&[(Broadleaf, 0.4, 0.9), (Shrub, 0.5, 1.0)]);
    rows(random, plant, ground, spacing, 0.1)
}

// m-brick-kiln -------------------------------------------------------------------------------------------------------

/// Farmland of a delta, alternately without and with a kiln.
pub fn brick_kiln(random: &mut Random, index: usize, side: usize) -> Scene {
    let class = index % 2;
    let width = side as f32;
    let size = random.between(4.0, 9.0);
    let crops = fields(random, size, PADDIES, 0.0);
    let village = {
        let share = random.between(0.0, 0.25);
        let place = clumps(random, 16.0, share);
        let houses = town(random, VILLAGE);
        over(crops, place, houses)
    };
    let base = {
        // Bare ground like a kiln's yard, more where there is none, so that colour alone does not give the class away.
        let least = if class == 0 { 0.2 } else { 0.0 };
        let share = random.between(least, least + 0.2);
        let place = clumps(random, 9.0, share);
        let soil = random.pick(&[RedSoil, Soil]);
        let bare = open(random, (soil, 0.1, 0.8), 0.1, 0.12);
        over(village, place, bare)
    };
    // Kilns come in groups.
    let kilns = if class == 1 { random.pick(&[2, 3, 4]) } else { 0 };
    let paint = (0..kilns).fold(base, |land, _| kiln(random, land, width));
    Scene { side, paint, target: Target::Class(class) }
}

// m-so2sat -----------------------------------------------------------------------------------------------------------

/// The seventeen local climate zones, in turn; a fifth of the scenes also show another zone.
pub fn climate_zones(random: &mut Random, index: usize, side: usize) -> Scene {
    let class = index % 17;
    let mut paint = climate_zone(random, class);
    if random.chance(0.2) {
        let neighbour = (random.unit() * 17.0) as usize;
        let share = random.between(0.05, 0.3);
        let other = climate_zone(random, neighbour);
        let outside = part(random, side as f32, share);
        paint = over(paint, outside, other);
    }
    Scene { side, paint, target: Target::Class(class) }
}

/// Zones 1 to 10 and A to G [Stewart and Oke 2012], numbered from 0.
#[rustfmt::skip]
fn climate_zone(random: &mut Random, class: usize) -> Painter {
    let zone = |plot, built, building, shadow, green, paved, roofs| Town { plot, built, building, shadow, green, paved, roofs };
    match class {
        0 => town(random, zone(4.5, 0.95, 0.72, 3.5, 0.05, Concrete, &[Concrete, DarkRoof])),
        1 => town(random, zone(3.2, 0.95, 0.75, 1.4, 0.10, Concrete, &[TileRoof, Concrete, DarkRoof])),
        2 => town(random, zone(1.7, 0.95, 0.75, 0.5, 0.12, Concrete, &[TileRoof, TileRoof, DarkRoof])),
        3 => town(random, zone(7.0, 0.65, 0.48, 3.5, 0.65, Concrete, &[Concrete, DarkRoof])),
        4 => town(random, zone(5.0, 0.70, 0.50, 1.4, 0.65, Concrete, &[TileRoof, Concrete, DarkRoof])),
        5 => town(random, zone(2.6, 0.80, 0.50, 0.5, 0.75, Concrete, &[TileRoof, TileRoof, DarkRoof])),
        6 => town(random, zone(1.3, 0.95, 0.80, 0.3, 0.05, RedSoil,  &[MetalRoof, RedSoil])),
        7 => town(random, zone(9.0, 0.80, 0.75, 0.7, 0.10, Concrete, &[MetalRoof, MetalRoof, Concrete])),
        8 => town(random, zone(6.0, 0.40, 0.32, 0.5, 0.95, Soil,     &[TileRoof, MetalRoof])),
        9 => town(random, zone(8.0, 0.60, 0.60, 2.2, 0.05, Soil,     &[MetalRoof, DarkRoof, RedSoil])),
        10 => woodland(random),
        11 => {
            let (base, trees) = (open(random, (Grass, 0.2, 0.9), 0.15, 0.06), woodland(random));
            let stands = clumps(random, 3.0, 0.42);
            over(base, stands, trees)
        }
        12 => heath(random),
        13 => fields(random, 18.0, &[(Grass, 0.3, 1.0), (Cereal, 0.3, 1.0), (Cereal, 0.0, 0.4)], 0.0),
        14 => {
            let pavement = random.pick(&[Rock, Concrete]);
            open(random, (pavement, 0.0, 1.0), 0.15, 0.12)
        }
        15 => {
            let bare = random.pick(&[Sand, Soil, RedSoil]);
            open(random, (bare, 0.0, 0.7), 0.2, 0.05)
        }
        _ => open(random, (Water, 0.0, 1.0), 0.2, 0.05),
    }
}

// m-bigearthnet ------------------------------------------------------------------------------------------------------

/// Positions of some of BigEarthNet's 43 classes in the order of the CORINE nomenclature.
mod corine {
    pub const VINES: usize = 14;
    pub const OLIVES: usize = 16;
    pub const PATCHWORK: usize = 19;
    pub const SCLEROPHYLL: usize = 27;
    pub const SHRUBS: usize = 28;
    pub const ROCK: usize = 30;
}

/// Two landscapes of the Mediterranean, farmed and wild: classes that occur together, most common first. Both are made of bushes on
/// bare ground, in rows or scattered, so that they differ more in texture than in colour.
///
/// Few landscapes, because k-NN takes twenty neighbours and a label must be that of more than half of them.
const LANDSCAPES: [&[usize]; 2] = [
    &[corine::VINES, corine::OLIVES, corine::PATCHWORK],
    &[corine::SCLEROPHYLL, corine::SHRUBS, corine::ROCK],
];

/// Minimum fraction of an image that a class must cover to be among its labels.
const VISIBLE: f32 = 0.04;

/// Two or three covers of one of the landscapes, in turn.
pub fn bigearthnet(random: &mut Random, index: usize, side: usize) -> Scene {
    let landscape = LANDSCAPES[index % LANDSCAPES.len()];
    let count = 2 + (random.unit() * 2.0) as usize;
    let mut classes: Vec<usize> = Vec::new();
    while classes.len() < count {
        // The product of two uniform numbers favours the front of the list.
        let class = choose(landscape, random.unit() * random.unit());
        if !classes.contains(&class) {
            classes.push(class);
        }
    }
    let size = random.between(30.0, 60.0);
    let region = parcels(random, size);
    let places: Vec<usize> = (0..count).collect();
    let place = move |x, y| choose(&places, region(x, y));
    let mut areas = vec![0; count];
    for pixel in (0..side).flat_map(|row| (0..side).map(move |column| (row, column))) {
        let (x, y) = centre(pixel);
        areas[place(x, y)] += 1;
    }
    let visible = |class| {
        let area = classes.iter().position(|drawn| *drawn == class).map_or(0, |place| areas[place]);
        area as f32 >= VISIBLE * (side * side) as f32
    };
    let target = Target::Labels((0..43).map(visible).collect());
    let covers: Vec<Painter> = classes.iter().map(|class| corine_cover(random, *class)).collect();
    let paint: Painter = Box::new(move |x, y| covers[place(x, y)](x, y));
    Scene { side, paint, target }
}

fn corine_cover(random: &mut Random, class: usize) -> Painter {
    match class {
        corine::VINES => rows(random, (Shrub, 0.6, 1.0), (Soil, 0.2, 0.6), 1.3, 0.05),
        corine::OLIVES => rows(random, (Shrub, 0.1, 0.5), (RedSoil, 0.1, 0.5), 2.2, 0.15),
        corine::PATCHWORK => fields(random, 8.0, SMALLHOLDINGS, 0.5),
        corine::SCLEROPHYLL => {
            let (base, bushes) =
                (open(random, (Soil, 0.2, 0.6), 0.1, 0.1), open(random, (Shrub, 0.0, 0.5), 0.1, 0.12));
            let places = clumps(random, 2.5, 0.65);
            over(base, places, bushes)
        }
        corine::SHRUBS => {
            let (base, trees) =
                (open(random, (Shrub, 0.4, 1.0), 0.15, 0.1), forest(random, [Conifer, Broadleaf], 0.4));
            let places = clumps(random, 4.0, 0.4);
            over(base, places, trees)
        }
        _ => open(random, (Rock, 0.0, 0.8), 0.2, 0.2),
    }
}

// m-cashew-plant and m-SA-crop-type ----------------------------------------------------------------------------------

/// Savanna with cashew plantations, well and poorly kept, fields and villages.
pub fn cashew(random: &mut Random, _index: usize, side: usize) -> Scene {
    let savanna = |random: &mut Random| {
        let (base, trees) =
            (open(random, (Grass, 0.1, 0.6), 0.15, 0.08), open(random, (Broadleaf, 0.2, 0.7), 0.1, 0.1));
        let places = scattered(random, 1.5, 0.12);
        over(base, places, trees)
    };
    let covers: Vec<Painter> = (0..7)
        .map(|class| match class {
            1 => rows(random, (Broadleaf, 0.5, 0.9), (Soil, 0.4, 0.8), 1.8, 0.04),
            2 => rows(random, (Broadleaf, 0.2, 0.7), (Shrub, 0.2, 0.7), 2.2, 0.45),
            3 => fields(random, 14.0, SMALLHOLDINGS, 0.0),
            4 => town(random, VILLAGE),
            5 => savanna(random),
            6 => open(random, (Burnt, 0.0, 1.0), 0.2, 0.1),
            _ => heath(random),
        })
        .collect();
    // Small numbers are rare: the background fills most of a scene.
    segmented(random, side, 38.0, &[0, 1, 1, 2, 2, 3, 3, 4, 5, 5, 6], covers)
}

/// Fields of the Western Cape; class 0 was not surveyed.
pub fn crop_types(random: &mut Random, _index: usize, side: usize) -> Scene {
    let covers: Vec<Painter> = (0..10)
        .map(|class| match class {
            1 => fields(random, 30.0, &[(Cereal, 0.75, 1.0)], 0.0),
            2 => fields(random, 34.0, &[(Grass, 0.55, 1.0)], 0.0),
            3 => fields(random, 30.0, &[(Soil, 0.0, 0.7)], 0.0),
            4 => rows(random, (Shrub, 0.6, 1.0), (Soil, 0.2, 0.6), 1.4, 0.05),
            5 => open(random, (Shrub, 0.3, 0.8), 0.25, 0.1),
            6 => fields(random, 34.0, &[(Cereal, 0.3, 0.7), (Grass, 0.2, 0.6)], 0.0),
            7 => fields(random, 40.0, &[(Cereal, 0.45, 0.95)], 0.0),
            8 => fields(random, 40.0, &[(Canola, 0.5, 1.0)], 0.0),
            9 => rows(random, (Shrub, 0.0, 0.5), (Sand, 0.1, 0.6), 1.6, 0.25),
            _ => heath(random),
        })
        .collect();
    segmented(random, side, 30.0, &[0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 7, 8, 9], covers)
}

/// Parcels about `size` wide; each gets a class from `classes` and is painted with that class's cover.
pub fn segmented(
    random: &mut Random,
    side: usize,
    size: f32,
    classes: &'static [usize],
    covers: Vec<Painter>,
) -> Scene {
    let region = parcels(random, size);
    let class = move |x, y| choose(classes, region(x, y));
    let mask = Array2::from_shape_fn((side, side), |pixel| {
        let (x, y) = centre(pixel);
        class(x, y) as i32
    });
    let paint: Painter = Box::new(move |x, y| covers[class(x, y)](x, y));
    Scene { side, paint, target: Target::Mask(mask) }
}

/// The centre (x, y) of the pixel at (row, column).
pub fn centre((row, column): (usize, usize)) -> (f32, f32) {
    (column as f32 + 0.5, row as f32 + 0.5)
}
