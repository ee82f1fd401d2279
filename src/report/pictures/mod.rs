//! Pictures of results: one file per picture.

pub mod aggregate;
pub mod capabilities;
pub(crate) mod confusion;
pub mod cost;
pub mod differences;
pub(crate) mod labels;
pub mod map;
pub mod profile;
pub mod ranks;
pub mod reliability;
pub mod shares;
pub mod spider;
pub mod spread;

use crate::canvas::{Color, Dash, Point, Shape, Text};

/// A text as a shape.
fn text(text: Text) -> Shape {
    Shape::Text(text)
}

/// A line through points.
fn stroke(points: Vec<Point>, color: Color, width: f64, dash: Dash) -> Shape {
    Shape::Line { points, color, width, dash }
}
