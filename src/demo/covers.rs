//! Land covers: how materials lie on the ground. Coordinates are pixels of 10 m.

use super::ground::Cell;
use super::ground::Material::{self, Asphalt, Broadleaf, Concrete, Grass, MetalRoof, Panel, RedSoil, Soil};
use super::random::{Random, choose};

/// Returns what lies at a point (x, y).
pub type Painter = Box<dyn Fn(f32, f32) -> Cell + Send + Sync>;

/// Whether a point (x, y) is inside the shape.
pub type Shape = Box<dyn Fn(f32, f32) -> bool + Send + Sync>;

/// A material with the range of its state.
pub type Crop = (Material, f32, f32);

/// A cover without edges: water, grassland, heath, sand. `patchy` sets how far the state varies within it, `rough` the
/// strength of the fine texture.
pub fn open(random: &mut Random, (material, low, high): Crop, patchy: f32, rough: f32) -> Painter {
    let (patches, grain) = (random.noise(), random.noise());
    let (state, size) = (random.between(low, high), random.between(8.0, 20.0));
    Box::new(move |x, y| {
        let state = state + patchy * patches.octaves(x / size, y / size, 3);
        Cell::new(material, state).lit(1.0 + rough * grain.octaves(x / 1.6, y / 1.6, 2))
    })
}

/// Trees in stands of either species with lit and shaded crowns; `second` is the fraction of the second species.
pub fn forest(random: &mut Random, species: [Material; 2], second: f32) -> Painter {
    let (stands, crowns, vigour) = (random.noise(), random.noise(), random.noise());
    let (state, size) = (random.between(0.55, 1.0), random.between(6.0, 14.0));
    Box::new(move |x, y| {
        let stand = 0.5 + 0.9 * stands.octaves(x / size, y / size, 3);
        let material = species[usize::from(stand < second)];
        Cell::new(material, state + 0.2 * vigour.octaves(x / 9.0, y / 9.0, 2))
            .lit(0.92 + 0.38 * crowns.octaves(x / 0.9, y / 0.9, 2))
    })
}

/// Parcels about `size` wide in a rotated grid, each with one of `crops` in furrows; `hedge` is the width of
/// the strips of trees between them.
pub fn fields(random: &mut Random, size: f32, crops: &'static [Crop], hedge: f32) -> Painter {
    let frame = Frame::draw(random);
    let (width, height) = (size * random.between(0.6, 1.6), size * random.between(0.6, 1.3));
    let (kind, vigour, offset, patches) = (random.noise(), random.noise(), random.noise(), random.noise());
    let furrow = random.between(0.9, 1.8);
    Box::new(move |x, y| {
        let (u, v) = frame.turn(x, y);
        let (row, down) = split(v / height);
        let (column, across) = split(u / width + offset.at(row, 0));
        if down * height < hedge || across * width < hedge {
            return Cell::new(Broadleaf, 0.7).lit(0.85);
        }
        let (material, low, high) = choose(crops, kind.at(row, column));
        let state = low + (high - low) * vigour.at(row, column);
        let along = if kind.at(column, row) < 0.5 { u } else { v };
        Cell::new(material, state + 0.1 * patches.octaves(x / 5.0, y / 5.0, 2))
            .lit(1.0 + 0.07 * wave(along / furrow))
    })
}

/// Rows of plants on bare or grassy ground: orchards, vineyards, plantations. Rows of neighbouring parcels run in
/// different directions; `gaps` is the fraction of missing plants.
pub fn rows(random: &mut Random, plant: Crop, ground: Crop, spacing: f32, gaps: f32) -> Painter {
    let frame = Frame::draw(random);
    let size = random.between(12.0, 26.0);
    let (way, missing, grain) = (random.noise(), random.noise(), random.noise());
    let states = [random.between(plant.1, plant.2), random.between(ground.1, ground.2)];
    Box::new(move |x, y| {
        let (u, v) = frame.turn(x, y);
        let ((i, _), (j, _)) = (split(u / size), split(v / size));
        let (along, across) = if way.at(i, j) < 0.5 { (u, v) } else { (v, u) };
        let ((row, inside), (place, _)) = (split(across / spacing), split(along / 1.2));
        let rough = 1.0 + 0.12 * grain.octaves(x / 1.5, y / 1.5, 2);
        if inside < 0.5 && missing.at(row, place) >= gaps {
            Cell::new(plant.0, states[0]).lit(rough)
        } else {
            // The plants shade a strip of the ground beside them.
            Cell::new(ground.0, states[1]).lit(if inside < 0.7 { 0.6 * rough } else { rough })
        }
    })
}

/// Parameters of a town: streets and buildings.
#[derive(Debug, Clone, Copy)]
pub struct Town {
    /// Side of a plot.
    pub plot: f32,
    /// Fraction of plots with a building.
    pub built: f32,
    /// Side of a building as a fraction of the plot's.
    pub building: f32,
    /// Length of a building's shadow.
    pub shadow: f32,
    /// Fraction of green ground between buildings.
    pub green: f32,
    /// Material of the remaining ground.
    pub paved: Material,
    pub roofs: &'static [Material],
}

/// Plots with buildings, gardens and shadows; every third line between plots is a street.
pub fn town(random: &mut Random, town: Town) -> Painter {
    let frame = Frame::draw(random);
    let (roof, tint, garden, grain) = (random.noise(), random.noise(), random.noise(), random.noise());
    let plot = town.plot * random.between(0.8, 1.25);
    let built = town.built * random.between(0.8, 1.1);
    let green = town.green * random.between(0.7, 1.2);
    let sun = random.direction();
    let margin = 0.5 - 0.5 * town.building;
    let building = move |u: f32, v: f32| {
        let ((i, across), (j, down)) = (split(u / plot), split(v / plot));
        let inside = |t: f32| t > margin && t < 1.0 - margin;
        (inside(across) && inside(down) && roof.at(i, j) < built).then_some((i, j))
    };
    Box::new(move |x, y| {
        let (u, v) = frame.turn(x, y);
        let rough = 1.0 + 0.1 * grain.smooth(x / 0.8, y / 0.8);
        if let Some((i, j)) = building(u, v) {
            return Cell::new(choose(town.roofs, tint.at(i, j)), tint.at(j, i)).lit(rough);
        }
        let ((i, across), (j, down)) = (split(u / plot), split(v / plot));
        let street = |line: i32, inside: f32| line.rem_euclid(3) == 0 && inside * plot < 0.8;
        let ground = if street(i, across) || street(j, down) {
            Cell::new(Asphalt, 0.5)
        } else if garden.at((x * 0.9) as i32, (y * 0.9) as i32) < green {
            let tree = garden.at((y * 1.3) as i32, (x * 1.3) as i32) < 0.4;
            Cell::new(if tree { Broadleaf } else { Grass }, 0.6).lit(if tree { 0.8 } else { 1.0 })
        } else {
            Cell::new(town.paved, 0.4)
        };
        let shaded = building(u + 0.5 * town.shadow * sun.0, v + 0.5 * town.shadow * sun.1).is_some()
            || building(u + town.shadow * sun.0, v + town.shadow * sun.1).is_some();
        ground.lit(if shaded { 0.45 * rough } else { rough })
    })
}

/// A ring-shaped brick kiln with its yard of clay and bricks.
pub fn kiln(random: &mut Random, base: Painter, side: f32) -> Painter {
    let frame = Frame::inside(random, side);
    let (long, short) = (random.between(6.0, 10.0), random.between(3.2, 5.0));
    let (ragged, tint) = (random.noise(), random.noise());
    Box::new(move |x, y| {
        let (u, v) = frame.turn(x, y);
        let radius = ((u / long) * (u / long) + (v / short) * (v / short)).sqrt();
        let yard = 1.9 + 0.8 * ragged.octaves(x / 6.0, y / 6.0, 2);
        let rough = 1.0 + 0.15 * tint.octaves(x / 1.2, y / 1.2, 2);
        match radius {
            r if r < 0.45 => Cell::new(Soil, 0.6).lit(rough),
            r if r < 1.0 => Cell::new(RedSoil, 0.35).lit(0.75 * rough),
            r if r < yard && tint.at((x / 2.0) as i32, (y / 2.0) as i32) < 0.35 => {
                Cell::new(RedSoil, 0.2).lit(rough)
            }
            r if r < yard => Cell::new(Soil, 0.25).lit(rough),
            _ => base(x, y),
        }
    })
}

/// A field of solar panels near the middle of a scene, a fifth to half of it wide: its shape and its look, dark panels in light frames.
pub fn panels(random: &mut Random, side: f32) -> (Shape, Painter) {
    let frame = Frame::inside(random, side);
    let (long, short) = (random.between(0.1, 0.25) * side, random.between(0.08, 0.18) * side);
    let (width, height) = (0.05 * side, 0.03 * side);
    let tint = random.noise();
    let shape: Shape = Box::new(move |x, y| {
        let (u, v) = frame.turn(x, y);
        u.abs() < long && v.abs() < short
    });
    let paint: Painter = Box::new(move |x, y| {
        let (u, v) = frame.turn(x, y);
        let ((i, across), (j, down)) = (split(u / width), split(v / height));
        match across < 0.06 || down < 0.1 {
            true => Cell::new(MetalRoof, 0.8),
            false => Cell::new(Panel, tint.at(i, j)),
        }
    });
    (shape, paint)
}

/// Paints `top` inside the shape, `base` outside.
pub fn over(base: Painter, shape: Shape, top: Painter) -> Painter {
    Box::new(move |x, y| if shape(x, y) { top(x, y) } else { base(x, y) })
}

/// A road of this width over `base`.
pub fn road(random: &mut Random, base: Painter, side: f32, width: f32) -> Painter {
    let way = strip(random, side, width, 2.0);
    let material = random.pick(&[Asphalt, Asphalt, Concrete]);
    let surface = open(random, (material, 0.2, 0.9), 0.05, 0.04);
    over(base, way, surface)
}

/// Single plants or rocks of about `size`, covering this fraction of the ground.
pub fn scattered(random: &mut Random, size: f32, share: f32) -> Shape {
    let places = random.noise();
    Box::new(move |x, y| places.at((x / size).floor() as i32, (y / size).floor() as i32) < share)
}

/// Clumps of about `size`, covering roughly this fraction of the ground.
pub fn clumps(random: &mut Random, size: f32, share: f32) -> Shape {
    let field = random.noise();
    Box::new(move |x, y| 0.5 + 0.8 * field.octaves(x / size, y / size, 3) < share)
}

/// A strip through the middle third of a scene, deviating from a straight line by up to `stray`.
pub fn strip(random: &mut Random, side: f32, width: f32, stray: f32) -> Shape {
    let frame = Frame::inside(random, side);
    let bend = random.noise();
    Box::new(move |x, y| {
        let (u, v) = frame.turn(x, y);
        (v - stray * bend.octaves(u / 22.0, 0.5, 2)).abs() < 0.5 * width
    })
}

/// One side of a ragged line that cuts off about this fraction of a scene.
pub fn part(random: &mut Random, side: f32, share: f32) -> Shape {
    let direction = random.direction();
    let ragged = random.noise();
    let middle = 0.5 * side;
    // Half of the scene's width in a typical direction; the fraction is exact only for an edge along an axis.
    let shift = (share - 0.5) * side;
    Box::new(move |x, y| {
        let distance = (x - middle) * direction.0 + (y - middle) * direction.1;
        distance + 0.12 * side * ragged.octaves(6.0 * x / side, 6.0 * y / side, 3) < shift
    })
}

/// A rotated coordinate system.
#[derive(Debug, Clone, Copy)]
struct Frame {
    axis: (f32, f32),
    origin: (f32, f32),
}

impl Frame {
    /// Places the origin anywhere.
    fn draw(random: &mut Random) -> Self {
        Frame { axis: random.direction(), origin: (random.between(0.0, 50.0), random.between(0.0, 50.0)) }
    }

    /// Places the origin in the middle third of a scene.
    fn inside(random: &mut Random, side: f32) -> Self {
        let (low, high) = (side / 3.0, 2.0 * side / 3.0);
        Frame { axis: random.direction(), origin: (random.between(low, high), random.between(low, high)) }
    }

    fn turn(self, x: f32, y: f32) -> (f32, f32) {
        let ((a, b), (x, y)) = (self.axis, (x - self.origin.0, y - self.origin.1));
        (a * x + b * y, a * y - b * x)
    }
}

/// Returns the number of the cell and the position in it from 0 to 1.
fn split(position: f32) -> (i32, f32) {
    let cell = position.floor();
    (cell as i32, position - cell)
}

/// A triangle wave in [-1, 1] of period 1.
fn wave(position: f32) -> f32 {
    let inside = position - position.floor();
    (4.0 * inside - 2.0).abs() - 1.0
}

/// Cells of about `size` with straight edges between scattered centres; each point belongs to the nearest centre.
/// Returns a number in [0, 1) that is the same for all points of a cell.
pub fn parcels(random: &mut Random, size: f32) -> impl Fn(f32, f32) -> f32 + Send + Sync + use<> {
    let (places_x, places_y, value) = (random.noise(), random.noise(), random.noise());
    move |x, y| {
        let ((i, _), (j, _)) = (split(x / size), split(y / size));
        let mut nearest = (f32::INFINITY, 0.0);
        for (row, column) in (-1..=1).flat_map(|dj| (-1..=1).map(move |di| (j + dj, i + di))) {
            let dx = (column as f32 + places_x.at(column, row)) - x / size;
            let dy = (row as f32 + places_y.at(column, row)) - y / size;
            let distance = dx * dx + dy * dy;
            if distance < nearest.0 {
                nearest = (distance, value.at(column, row));
            }
        }
        nearest.1
    }
}
