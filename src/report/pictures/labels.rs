//! Places values beside their points so that none covers another.

use std::f64::consts::TAU;

use crate::canvas::{Anchor, Bounds, Point, Text};

/// A value to be written near a point.
#[derive(Debug, Clone)]
pub struct Label {
    /// Index of the series it belongs to.
    pub owner: usize,
    /// The point it describes.
    pub point: Point,
    /// The text.
    pub text: String,
    /// Font size in the picture's units.
    pub size: f64,
    /// Whether the text is bold.
    pub bold: bool,
}

/// Length of a step away from the point.
const STEP: f64 = 3.0;
/// Greatest number of steps.
const FARTHEST: usize = 80;
const DIRECTIONS: usize = 24;
/// Free space around a label.
const AIR: f64 = 1.5;

/// Places each label as near to its point as possible: clear of the points (discs of `radius`), of the `taken` areas and of
/// other labels, and between 0 and `width`. Omits labels for which there is no room.
pub fn place<'l>(labels: &'l [Label], taken: &[Bounds], radius: f64, width: f64) -> Vec<(&'l Label, Text)> {
    let dots: Vec<Bounds> = labels.iter().map(|label| around(label.point, radius)).collect();
    // Crowded points choose first; isolated ones find room anyway.
    let crowd = |label: &Label| {
        let near = |other: &&Label| distance(label.point, other.point) < 4.0 * label.size;
        labels.iter().filter(near).count()
    };
    let mut order: Vec<(usize, &Label)> = labels.iter().map(|label| (crowd(label), label)).collect();
    order.sort_by_key(|(crowd, _)| std::cmp::Reverse(*crowd));
    let mut placed: Vec<(&Label, Text)> = Vec::new();
    let mut covered: Vec<Bounds> = taken.to_vec();
    for (_, label) in order {
        let free = |text: &Text| {
            let bounds = text.bounds().grown(AIR);
            bounds.left >= 0.0
                && bounds.right <= width
                && bounds.top >= 0.0
                && !covered.iter().chain(&dots).any(|other| bounds.overlaps(other))
        };
        if let Some(text) = candidates(label, radius).find(free) {
            covered.push(text.bounds());
            placed.push((label, text));
        }
    }
    placed
}

/// Iterates over candidate positions from near to far, first to the sides.
fn candidates(label: &Label, radius: f64) -> impl Iterator<Item = Text> {
    let at = |text: &str, point: Point| {
        let mut text = Text::new(text, point, Anchor::Middle, label.size);
        text.bold = label.bold;
        text
    };
    let bounds = at(&label.text, (0.0, 0.0)).bounds();
    let (half_width, half_height) = ((bounds.right - bounds.left) / 2.0, (bounds.bottom - bounds.top) / 2.0);
    // Offset from the middle of the box to the baseline.
    let base = -(bounds.top + bounds.bottom) / 2.0;
    (0..FARTHEST).flat_map(move |step| {
        (0..DIRECTIONS).map(move |turn| {
            // Right and left first, then away from both, up to straight above and below.
            let away = (turn / 4) as f64 / (DIRECTIONS - 4) as f64;
            let angle = match turn % 4 {
                0 => away,
                1 => 0.5 - away,
                2 => -away,
                _ => 0.5 + away,
            } * TAU;
            let reach = radius + AIR + 0.5 + STEP * step as f64;
            let (x, y) = (angle.cos(), angle.sin());
            let middle =
                (label.point.0 + x * (reach + half_width), label.point.1 + y * (reach + half_height) + base);
            at(&label.text, middle)
        })
    })
}

fn around((x, y): Point, radius: f64) -> Bounds {
    Bounds { left: x - radius, top: y - radius, right: x + radius, bottom: y + radius }
}

fn distance(a: Point, b: Point) -> f64 {
    (a.0 - b.0).hypot(a.1 - b.1)
}
