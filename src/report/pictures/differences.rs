//! A bar per measured value: its difference from the published value, with its interval.

use super::text;
use crate::canvas::{
    ALARM, Anchor, BLACK, Color, DEMO_NOTICE, Dash, GREY, GRID, Layer, PALETTE, Picture, Shape, Text,
    shortened, text_width, wrapped,
};
use crate::metrics::{Better, Scale, Unit};
use crate::record::Interval;
use crate::report::tables::table::{ResultTable, Rounded};

/// The bar of one value: its difference from the published value, in percentage points or, if the metric is not in percent, in
/// percent of the published value.
struct Bar {
    row: String,
    column: String,
    /// In the metric's unit.
    difference: Rounded,
    scale: Scale,
    value: f64,
    interval: Option<Interval>,
}

const WIDTH: f64 = 900.0;
/// The greatest widths of the rows' and columns' names.
const ROW: f64 = 270.0;
const COLUMN: f64 = 190.0;
const NUMBERS: f64 = 100.0;
const MARGIN: f64 = 24.0;
const LINE: f64 = 26.0;
const TEXT: f64 = 12.0;

/// Keeps the picture to about a page; the table has all values.
const MOST_BARS: usize = 60;

const BETTER: Color = PALETTE[0];
const WORSE: Color = PALETTE[1];

/// Draws the chart of a table; `None` if no measured value has a published counterpart.
pub fn draw(table: &ResultTable) -> Option<Picture> {
    let mut bars = bars(table);
    let left_out = bars.len().saturating_sub(MOST_BARS);
    bars.truncate(MOST_BARS);
    if bars.is_empty() {
        return None;
    }
    let ends =
        |bar: &Bar| [bar.value, bar.interval.map_or(0.0, |i| i.low), bar.interval.map_or(0.0, |i| i.high)];
    let far = bars.iter().flat_map(ends).fold(0.5, |far: f64, end| far.max(end.abs()));
    let step = tick(far);
    let far = (far / step).ceil() * step;
    let widest = |name: fn(&Bar) -> &str, most: f64| {
        bars.iter().map(|bar| text_width(name(bar), TEXT, false)).fold(0.0, f64::max).min(most)
    };
    let (rows, columns) = (widest(|bar| &bar.row, ROW), widest(|bar| &bar.column, COLUMN));
    let (left, right) = (MARGIN + rows + 16.0 + columns + 12.0, WIDTH - MARGIN - NUMBERS);
    let x = |difference: f64| left + (difference + far) / (2.0 * far) * (right - left);

    let mut shapes = Vec::new();
    let mut y = 34.0;
    let title = format!("{}: measured minus published", table.title);
    shapes.push(text(
        Text::new(shortened(&title, WIDTH - 40.0, 18.0, true), (MARGIN, y), Anchor::Start, 18.0).bold(),
    ));
    if table.demo {
        y += 22.0;
        shapes.push(text(Text::new(DEMO_NOTICE, (MARGIN, y), Anchor::Start, 13.0).bold().color(ALARM)));
    }
    let levels: Vec<String> =
        bars.iter().filter_map(|bar| bar.interval).map(|i| crate::report::percent(i.level)).collect();
    let whiskers = match levels.first() {
        Some(level) => {
            format!(" Whiskers: the {level} bootstrap interval over the test samples, on the same scale.")
        }
        None => String::new(),
    };
    y += 4.0;
    let meaning = format!("{}{whiskers}", meaning(&bars));
    for line in wrapped(&meaning, WIDTH - 2.0 * MARGIN, TEXT) {
        y += 19.0;
        shapes.push(text(Text::new(line, (MARGIN, y), Anchor::Start, TEXT).color(GREY)));
    }
    let top = y + 16.0;
    let bottom = top + LINE * bars.len() as f64;
    let ticks = (far / step).round() as i32;
    for i in -ticks..=ticks {
        let at = x(f64::from(i) * step);
        let (color, width) = if i == 0 { (BLACK, 1.2) } else { (GRID, 1.0) };
        shapes.push(line((at, top), (at, bottom), color, width));
        let label = if i == 0 {
            "0".to_owned()
        } else {
            format!("{:+}", Rounded::of(f64::from(i) * step, Scale::PERCENT))
        };
        shapes.push(text(Text::new(label, (at, bottom + 16.0), Anchor::Middle, 11.0).color(GREY)));
    }
    for (i, bar) in bars.iter().enumerate() {
        let middle = top + LINE * (i as f64 + 0.5);
        let base = middle + TEXT * 0.36;
        let row = shortened(&bar.row, rows, TEXT, false);
        let column = shortened(&bar.column, columns, TEXT, false);
        shapes.push(text(Text::new(row, (MARGIN, base), Anchor::Start, TEXT)));
        shapes.push(text(Text::new(column, (left - 10.0, base), Anchor::End, TEXT).color(GREY)));
        let color = if bar.scale.better.gain(bar.value) < 0.0 { WORSE } else { BETTER };
        let (start, end) = (x(0.0).min(x(bar.value)), x(0.0).max(x(bar.value)));
        let half = LINE * 0.28;
        shapes.push(Shape::Area {
            points: vec![
                (start, middle - half),
                (end, middle - half),
                (end, middle + half),
                (start, middle + half),
            ],
            color,
            opacity: 0.85,
        });
        if let Some(interval) = bar.interval {
            let (low, high) = (x(interval.low), x(interval.high));
            shapes.push(line((low, middle), (high, middle), BLACK, 1.4));
            for end in [low, high] {
                shapes.push(line((end, middle - 5.0), (end, middle + 5.0), BLACK, 1.4));
            }
        }
        let inside = match bar.interval {
            Some(interval) if interval.low > 0.0 || interval.high < 0.0 => " outside",
            Some(_) => " inside",
            None => "",
        };
        let number = format!("{:+}{inside}", bar.difference);
        shapes.push(text(Text::new(number, (right + 12.0, base), Anchor::Start, TEXT).bold()));
    }
    let mut end = bottom + 26.0;
    let mut notes =
        vec!["\"inside\": the published value lies in the interval of the measured one.".to_owned()];
    if left_out > 0 {
        notes.push(format!("{left_out} more values appear in the table only."));
    }
    for note in notes {
        end += 16.0;
        shapes.push(text(Text::new(note, (MARGIN, end), Anchor::Start, 11.0).color(GREY)));
    }
    Some(Picture {
        width: WIDTH,
        height: end + 16.0,
        description: title,
        layers: vec![Layer { owner: None, shapes }],
    })
}

fn bars(table: &ResultTable) -> Vec<Bar> {
    let mut bars = Vec::new();
    for row in &table.measured {
        for (column, cell) in table.columns.iter().zip(&row.cells) {
            let Some((cell, difference, published)) =
                cell.as_ref().and_then(|cell| Some((cell, cell.difference()?, cell.reference?)))
            else {
                continue;
            };
            let scale = column.scale();
            if scale.unit != Unit::Percent && published == 0.0 {
                continue; // No percentage of 0 exists.
            }
            let apart = |value: f64| match scale.unit {
                Unit::Percent => value - published,
                Unit::OfTask | Unit::None => 100.0 * (value - published) / published.abs(),
            };
            bars.push(Bar {
                row: row.full_name(),
                column: column.heading(),
                difference,
                scale,
                value: apart(cell.value),
                interval: cell.interval.map(|interval| Interval {
                    low: apart(interval.low),
                    high: apart(interval.high),
                    ..interval
                }),
            });
        }
    }
    bars
}

/// Explains the bars.
fn meaning(bars: &[Bar]) -> String {
    let is_percent = |bar: &Bar| bar.scale.unit == Unit::Percent;
    let to = "from the published value of the same model and backbone";
    let mut text = match (bars.iter().all(is_percent), bars.iter().any(is_percent)) {
        (true, _) => format!("Difference in percentage points {to}."),
        (false, true) => format!(
            "Difference {to}: in percentage points or, if the metric is not in percent, in percent of that value (with the number \
             in the metric's unit)."
        ),
        (false, false) => format!("Difference {to}, in percent of it; the number is in the metric's unit."),
    };
    if bars.iter().any(|bar| bar.scale.better == Better::Lower) {
        text += " For errors, lower is better: a bar to the left is an improvement.";
    }
    text
}

/// Returns a round step that fits two to five times into `far`.
fn tick(far: f64) -> f64 {
    let magnitude = 10f64.powf((far / 2.0).log10().floor());
    let steps = [1.0, 2.0, 5.0].map(|round| round * magnitude);
    steps.into_iter().rev().find(|step| far / step >= 2.0).unwrap_or(magnitude).max(0.1)
}

fn line(from: (f64, f64), to: (f64, f64), color: Color, width: f64) -> Shape {
    Shape::Line { points: vec![from, to], color, width, dash: Dash::Solid }
}
