//! Reliability diagrams: how often predictions of some confidence are right.

use super::confusion::{head, subject};
use super::{stroke, text};
use crate::canvas::{Anchor, BLACK, Color, Dash, GREY, GRID, Layer, PALETTE, Picture, Shape, Text};
use crate::metrics::calibration::CalibrationBin;
use crate::record::Record;
use crate::report::calibration::Calibration;
use crate::task::{TargetKind, Task};

const WIDTH: f64 = 900.0;
const LEFT: f64 = 90.0;
/// Side of the square plot.
const SIDE: f64 = 460.0;
/// Height of the bars below it.
const SHARES: f64 = 100.0;
const TEXT: f64 = 11.0;

/// Draws the diagram of a record.
pub fn draw(task: &Task, record: &Record, calibration: &Calibration) -> Picture {
    let mut shapes = Vec::new();
    let title = format!("{}: reliability of the probabilities", task.title);
    let (decision, axis) = match task.target {
        TargetKind::Labels => ("the probability of each label of each image", "share of labels that apply"),
        _ => ("the probability of each image's predicted class", "share of right predictions"),
    };
    let Calibration { bins, decisions, error, confidence, accuracy } = calibration;
    let meaning = format!(
        "Bars: {axis} for {decision}; the diagonal is perfect calibration. Below: share of the {decisions} decisions per bin."
    );
    let numbers = format!(
        "Expected calibration error {error:.1} points; mean confidence {:.1} %, {axis} {:.1} %.",
        100.0 * confidence,
        100.0 * accuracy
    );
    let top = head(&mut shapes, &title, record.demo, &[subject(record), meaning, numbers]) + 14.0;
    let (bottom, right) = (top + SIDE, LEFT + SIDE);
    let x = |share: f64| LEFT + share * SIDE;
    let y = |share: f64| bottom - share * SIDE;
    for tick in 0..=5 {
        let share = f64::from(tick) / 5.0;
        shapes.push(stroke(vec![(LEFT, y(share)), (right, y(share))], GRID, 1.0, Dash::Solid));
        let label = format!("{:.0} %", 100.0 * share);
        shapes.push(text(Text::new(label.clone(), (LEFT - 8.0, y(share) + 4.0), Anchor::End, TEXT)));
        shapes.push(text(Text::new(label, (x(share), bottom + 16.0), Anchor::Middle, TEXT)));
    }
    let filled = || bins.iter().filter(|bin| bin.count > 0);
    for bin in filled() {
        shapes.push(bar(x(bin.above) + 1.0, x(bin.up_to) - 1.0, y(bin.accuracy), bottom, PALETTE[0], 0.75));
    }
    shapes.push(stroke(vec![(x(0.0), y(0.0)), (x(1.0), y(1.0))], BLACK, 1.4, Dash::Strokes(&[6.0, 4.0])));
    for bin in filled() {
        // From the mean confidence of the bin to how often it is right.
        let at = x(bin.confidence);
        shapes.push(stroke(
            vec![(at, y(bin.confidence)), (at, y(bin.accuracy))],
            PALETTE[1],
            2.5,
            Dash::Solid,
        ));
        shapes.push(Shape::Dot {
            center: (at, y(bin.accuracy)),
            radius: 3.5,
            color: PALETTE[1],
            hollow: false,
        });
    }
    let middle = (LEFT + right) / 2.0;
    shapes.push(text(Text::new("confidence", (middle, bottom + 34.0), Anchor::Middle, 12.0).color(GREY)));
    shapes.push(text(Text::new(axis, (LEFT, top - 8.0), Anchor::Start, 12.0).color(GREY)));

    let base = bottom + 52.0 + SHARES;
    let share = |bin: &CalibrationBin| bin.count as f64 / (*decisions).max(1) as f64;
    let most = bins.iter().map(share).fold(f64::MIN_POSITIVE, f64::max);
    for bin in filled() {
        let height = SHARES * share(bin) / most;
        shapes.push(bar(x(bin.above) + 1.0, x(bin.up_to) - 1.0, base - height, base, GREY, 0.6));
    }
    shapes.push(stroke(vec![(LEFT, base), (right, base)], GRID, 1.0, Dash::Solid));
    let most = format!("{:.0} %", 100.0 * most);
    shapes.push(text(Text::new(most, (LEFT - 8.0, base - SHARES + 4.0), Anchor::End, TEXT)));
    shapes.push(text(Text::new("0 %", (LEFT - 8.0, base + 4.0), Anchor::End, TEXT)));
    legend(&mut shapes, right + 30.0, top + 20.0);
    Picture {
        width: WIDTH,
        height: base + 24.0,
        description: title,
        layers: vec![Layer { owner: None, shapes }],
    }
}

/// Beside the plot, where nothing is covered.
fn legend(shapes: &mut Vec<Shape>, left: f64, top: f64) {
    let words =
        |text: &str, y: f64| Shape::Text(Text::new(text, (left + 28.0, y + 4.0), Anchor::Start, 12.0));
    shapes.push(bar(left, left + 18.0, top - 7.0, top + 7.0, PALETTE[0], 0.75));
    shapes.push(words("how often the bin is right", top));
    let y = top + 24.0;
    shapes.push(stroke(vec![(left + 9.0, y - 8.0), (left + 9.0, y + 4.0)], PALETTE[1], 2.5, Dash::Solid));
    shapes.push(Shape::Dot { center: (left + 9.0, y + 4.0), radius: 3.5, color: PALETTE[1], hollow: false });
    shapes.push(words("distance to its mean confidence", y));
    let y = top + 48.0;
    shapes.push(stroke(vec![(left, y), (left + 18.0, y)], BLACK, 1.4, Dash::Strokes(&[6.0, 4.0])));
    shapes.push(words("perfect calibration", y));
}

fn bar(left: f64, right: f64, top: f64, bottom: f64, color: Color, opacity: f64) -> Shape {
    let points = vec![(left, top), (right, top), (right, bottom), (left, bottom)];
    Shape::Area { points, color, opacity }
}
