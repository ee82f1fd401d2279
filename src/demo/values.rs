//! Scenes of the demo's regression tasks: how much of an image is wooded, and how high the trees are.

use ndarray::Array2;

use crate::data::Target;

use super::covers::{Painter, clumps, fields, forest, open, over, part};
use super::ground::Cell;
use super::ground::Material::{Broadleaf, Conifer, Crop as Cereal, Grass, Shrub, Soil};
use super::random::{Noise, Random};
use super::scenes::{Scene, centre};

/// Trees on farmland or heath; the target is the percentage of the image that they cover.
pub fn tree_cover(random: &mut Random, _index: usize, side: usize) -> Scene {
    let base = if random.chance(0.6) {
        fields(random, 16.0, &[(Cereal, 0.1, 0.8), (Soil, 0.1, 0.9), (Grass, 0.2, 0.7)], 0.0)
    } else {
        open(random, (Grass, 0.0, 0.6), 0.2, 0.06)
    };
    let second = random.pick(&[0.0, 0.5, 1.0]);
    let trees = forest(random, [Broadleaf, Conifer], second);
    let (size, share) = (random.between(6.0, 14.0), random.between(0.0, 1.0));
    // Two copies of the same field: one is painted, the other is counted.
    let again = random.clone();
    let stands = clumps(random, size, share);
    let counted = clumps(&mut { again }, size, share);
    let pixels = (0..side).flat_map(|row| (0..side).map(move |column| centre((row, column))));
    let wooded = pixels.filter(|(x, y)| counted(*x, *y)).count();
    let percent = 100.0 * wooded as f32 / (side * side) as f32;
    Scene { side, paint: over(base, stands, trees), target: Target::Value(percent) }
}

/// Height of the tallest trees in metres.
const TALLEST: f32 = 30.0;

/// Woods whose trees grow taller and darker in some places than in others; the target map contains tree heights in metres,
/// 0 outside the woods. A strip along one side was not surveyed.
pub fn tree_height(random: &mut Random, _index: usize, side: usize) -> Scene {
    let width = side as f32;
    let base = open(random, (Grass, 0.0, 0.6), 0.2, 0.06);
    let (growth, size) = (random.noise(), random.between(14.0, 26.0));
    let vigour = random.between(-0.2, 0.3);
    let (clump, share) = (random.between(12.0, 24.0), random.between(0.4, 0.9));
    let again = random.clone();
    let stands = clumps(random, clump, share);
    let measured = clumps(&mut { again }, clump, share);
    let unsurveyed = {
        let share = random.between(0.0, 0.3);
        part(random, width, share)
    };
    let grown = move |x: f32, y: f32| grown(growth, size, vigour, (x, y));
    let target = Array2::from_shape_fn((side, side), |pixel| {
        let (x, y) = centre(pixel);
        match (unsurveyed(x, y), measured(x, y)) {
            (true, _) => f32::NAN,
            (false, true) => TALLEST * grown(x, y),
            (false, false) => 0.0,
        }
    });
    let crowns = random.noise();
    let woods: Painter = Box::new(move |x, y| {
        let grown = grown(x, y);
        let material = if grown < 0.25 { Shrub } else { Conifer };
        let rough = 1.0 + 0.3 * grown * crowns.octaves(x / 0.9, y / 0.9, 2);
        Cell::new(material, grown).lit((1.15 - 0.4 * grown) * rough)
    });
    Scene { side, paint: over(base, stands, woods), target: Target::ValueMap(target) }
}

/// How far the trees at a point have grown, from 0.1 to 1.
fn grown(growth: Noise, size: f32, vigour: f32, (x, y): (f32, f32)) -> f32 {
    (0.5 + vigour + 0.8 * growth.octaves(x / size, y / size, 2)).clamp(0.1, 1.0)
}
