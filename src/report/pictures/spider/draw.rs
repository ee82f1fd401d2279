//! Draws the spider plot.

use crate::canvas::{
    ALARM, Anchor, BLACK, Bounds, Color, DEMO_NOTICE, Dash, GREY, GRID, Layer, PALETTE, Picture, Point,
    Shape, Text, WHITE, shortened, text_width, wrapped,
};
use crate::metrics::{Better, Unit};
use crate::report::pictures::labels::{Label, place};
use crate::report::tables::table::{Origin, Rounded};

use super::{Axis, Chart, Series};

const WIDTH: f64 = 900.0;
const RADIUS: f64 = 285.0;
/// Positions of the lowest and the highest model on an axis, as shares of its length.
const LOWEST: f64 = 0.22;
const HIGHEST: f64 = 0.96;
const MARGIN: f64 = 30.0;
const VALUE: f64 = 11.0;
const LEGEND: f64 = 13.0;
const DOT: f64 = 4.0;
/// With more axes, published values are written at the ends of each axis only.
const MOST_WRITTEN_AXES: usize = 12;

/// Colours of measured lines: black first, then dark tones that no published line has.
const MEASURED: [Color; 4] = [BLACK, Color(128, 0, 64), Color(0, 60, 110), Color(96, 72, 0)];

const DASHES: [Dash; 3] =
    [Dash::Strokes(&[7.0, 4.0]), Dash::Strokes(&[2.0, 3.0]), Dash::Strokes(&[10.0, 3.0, 2.0, 3.0])];

/// How a series is drawn.
struct Pen {
    color: Color,
    width: f64,
    dash: Dash,
}

fn pen(series: &Series, among_its_kind: usize) -> Pen {
    match series.origin {
        Origin::Published => Pen {
            color: PALETTE[among_its_kind % PALETTE.len()],
            width: 1.8,
            dash: DASHES[among_its_kind / PALETTE.len() % DASHES.len()],
        },
        Origin::Measured | Origin::Demo => {
            Pen { color: MEASURED[among_its_kind % MEASURED.len()], width: 2.6, dash: Dash::Solid }
        }
    }
}

/// Draws the plot: published lines dashed with hollow points, measured lines solid with filled points. A missing value breaks
/// the line.
pub fn draw(chart: &Chart) -> Picture {
    let n = chart.axes.len();
    let mut grid = Layer::default();
    let top = head(chart, &mut grid);
    let centre: Point = (WIDTH / 2.0, top + 62.0 + RADIUS);
    let direction = |axis: usize| {
        let angle = std::f64::consts::TAU * axis as f64 / n as f64 - std::f64::consts::FRAC_PI_2;
        (angle.cos(), angle.sin())
    };
    let at = |axis: usize, share: f64| {
        let (x, y) = direction(axis);
        (centre.0 + x * RADIUS * share, centre.1 + y * RADIUS * share)
    };
    for ring in [0.25, 0.5, 0.75, 1.0] {
        let points = (0..=n).map(|axis| at(axis % n, ring)).collect();
        grid.shapes.push(Shape::Line { points, color: GRID, width: 1.0, dash: Dash::Solid });
    }
    for (i, axis) in chart.axes.iter().enumerate() {
        grid.shapes.push(Shape::Line {
            points: vec![centre, at(i, 1.0)],
            color: GRID,
            width: 1.0,
            dash: Dash::Solid,
        });
        grid.shapes.extend(axis_title(axis, at(i, 1.0), direction(i), n).map(Shape::Text));
    }
    let share = |axis: usize, value: f64| {
        let values = || chart.series.iter().filter_map(|series| series.values[axis]);
        let (low, high) = (values().fold(f64::MAX, f64::min), values().fold(f64::MIN, f64::max));
        let along = if high > low { (value - low) / (high - low) } else { 0.5 };
        let along = if chart.axes[axis].scale.better == Better::Lower { 1.0 - along } else { along };
        LOWEST + (HIGHEST - LOWEST) * along
    };
    let pens = pens(chart);
    let places: Vec<Vec<Option<Point>>> = chart
        .series
        .iter()
        .map(|series| {
            let values = series.values.iter().enumerate();
            values.map(|(axis, value)| value.map(|value| at(axis, share(axis, value)))).collect()
        })
        .collect();
    let owned = |series: &Series| Layer { owner: Some(series.name.clone()), shapes: Vec::new() };
    let mut areas: Vec<Layer> = chart.series.iter().map(owned).collect();
    let mut lines: Vec<Layer> = areas.clone();
    let mut dots: Vec<Layer> = areas.clone();
    let mut words: Vec<Layer> = areas.clone();
    for (i, (points, pen)) in places.iter().zip(&pens).enumerate() {
        if let Some(closed) = points.iter().copied().collect::<Option<Vec<Point>>>() {
            areas[i].shapes.push(Shape::Area { points: closed, color: pen.color, opacity: 0.06 });
        }
        for points in runs(points) {
            lines[i].shapes.push(Shape::Line { points, color: pen.color, width: pen.width, dash: pen.dash });
        }
        let hollow = chart.series[i].origin == Origin::Published;
        dots[i].shapes.extend(points.iter().flatten().map(|center| Shape::Dot {
            center: *center,
            radius: DOT,
            color: pen.color,
            hollow,
        }));
    }
    let titles: Vec<_> = grid
        .shapes
        .iter()
        .filter_map(|shape| if let Shape::Text(text) = shape { Some(text.bounds()) } else { None })
        .collect();
    let labels: Vec<Label> = chart
        .series
        .iter()
        .enumerate()
        .flat_map(|(i, series)| {
            let bold = series.origin != Origin::Published;
            let values = series.values.iter().zip(&places[i]);
            let written = written(chart, i);
            values.zip(&chart.axes).zip(written).filter_map(move |(((value, place), axis), written)| {
                if !written {
                    return None;
                }
                let text = Rounded::of((*value)?, axis.scale).to_string();
                Some(Label { owner: i, point: (*place)?, text, size: VALUE, bold })
            })
        })
        .collect();
    for (label, text) in place(&labels, &titles, DOT + 1.5, WIDTH) {
        let color = darker(pens[label.owner].color);
        let bounds = text.bounds();
        let shapes = &mut words[label.owner].shapes;
        if let Some(line) = leader(label.point, &bounds) {
            shapes.push(Shape::Line { points: line.to_vec(), color, width: 0.7, dash: Dash::Solid });
        }
        shapes.push(Shape::Area { points: corners(&bounds), color: WHITE, opacity: 0.8 });
        shapes.push(Shape::Text(text.color(color)));
    }
    let (mut legend, mut height) = legend(chart, &pens, centre.1 + RADIUS + 70.0);
    let mut notes = Layer::default();
    for line in chart.notes.iter().flat_map(|note| wrapped(note, WIDTH - 2.0 * MARGIN, VALUE)) {
        notes
            .shapes
            .push(Shape::Text(Text::new(line, (MARGIN, height + VALUE), Anchor::Start, VALUE).color(GREY)));
        height += VALUE * 1.5;
    }
    let mut layers = vec![grid];
    layers.extend(areas.into_iter().chain(lines).chain(dots).chain(words));
    layers.append(&mut legend);
    layers.push(notes);
    let names: Vec<&str> = chart.series.iter().map(|series| series.name.as_str()).collect();
    let demo = if chart.demo { " DEMO, generated data:" } else { "" };
    Picture {
        width: WIDTH,
        height: height + 16.0,
        description: format!("{}:{demo} spider plot of {}", chart.title, names.join(", ")),
        layers,
    }
}

/// Whether the value of a series is written, per axis.
fn written(chart: &Chart, series: usize) -> Vec<bool> {
    let all = chart.axes.len() <= MOST_WRITTEN_AXES || chart.series[series].origin != Origin::Published;
    let is_end = |axis: usize| {
        let values = || chart.series.iter().map(|series| series.values[axis]);
        let ends = [f64::min, f64::max].map(|end| values().flatten().reduce(end));
        // Of equal values the first series'.
        let value = values().nth(series).flatten();
        ends.contains(&value) && values().position(|other| other == value) == Some(series)
    };
    (0..chart.axes.len()).map(|axis| all || is_end(axis)).collect()
}

fn pens(chart: &Chart) -> Vec<Pen> {
    let (mut published, mut measured) = (0, 0);
    let mut pens = Vec::new();
    for series in &chart.series {
        let count = if series.origin == Origin::Published { &mut published } else { &mut measured };
        pens.push(pen(series, *count));
        *count += 1;
    }
    pens
}

/// Draws the title and the explanation of the axes; returns the y coordinate of their end.
fn head(chart: &Chart, layer: &mut Layer) -> f64 {
    let mut y = 34.0;
    let mut line = |text: Text| {
        layer.shapes.push(Shape::Text(text));
    };
    let title = shortened(&chart.title, WIDTH - 2.0 * MARGIN, 20.0, true);
    line(Text::new(title, (WIDTH / 2.0, y), Anchor::Middle, 20.0).bold());
    if chart.demo {
        y += 22.0;
        line(Text::new(DEMO_NOTICE, (WIDTH / 2.0, y), Anchor::Middle, 13.0).bold().color(ALARM));
    }
    y += 21.0;
    let is_percent = |axis: &Axis| axis.scale.unit == Unit::Percent;
    let is_turned = |axis: &Axis| axis.scale.better == Better::Lower;
    let meaning = match (chart.axes.iter().any(is_turned), chart.axes.iter().all(is_percent)) {
        (false, true) => {
            "Each axis runs from the lowest to the highest model shown, outwards; values in percent."
        }
        (false, false) => "Each axis runs from the lowest to the highest model shown, outwards.",
        (true, _) => {
            "Each axis runs from the worst to the best model shown, outwards; axes marked ↓ are reversed because lower is better."
        }
    };
    line(Text::new(meaning, (WIDTH / 2.0, y), Anchor::Middle, 12.0).color(GREY));
    y
}

fn axis_title(axis: &Axis, end: Point, (x, y): (f64, f64), axes: usize) -> [Text; 2] {
    const GAP: f64 = 14.0;
    // Many axes have two near the bottom, whose titles lie side by side.
    let upright = if axes > MOST_WRITTEN_AXES { 0.1 } else { 0.2 };
    let at = (end.0 + x * GAP, end.1 + y * GAP);
    let (anchor, room) = match x {
        x if x > upright => (Anchor::Start, WIDTH - at.0 - 6.0),
        x if x < -upright => (Anchor::End, at.0 - 6.0),
        _ => (Anchor::Middle, WIDTH / 2.0),
    };
    // The two lines are above the end of an axis that points up, and below the end of one that points down.
    let first = at.1 + 4.0 + (y - 1.0) * 8.0 + if y > 0.9 { 6.0 } else { 0.0 };
    [
        Text::new(shortened(&axis.title, room, 13.0, true), (at.0, first), anchor, 13.0).bold(),
        Text::new(shortened(&axis.subtitle, room, VALUE, false), (at.0, first + 15.0), anchor, VALUE)
            .color(GREY),
    ]
}

/// Returns the unbroken parts of a closed line, without parts of a single point.
fn runs(points: &[Option<Point>]) -> Vec<Vec<Point>> {
    let n = points.len();
    let Some(gap) = points.iter().position(Option::is_none) else {
        return vec![points.iter().chain(points.first()).copied().flatten().collect()];
    };
    let mut runs: Vec<Vec<Point>> = vec![Vec::new()];
    for i in 1..=n {
        match points[(gap + i) % n] {
            Some(point) => {
                if let Some(run) = runs.last_mut() {
                    run.push(point);
                }
            }
            None => runs.push(Vec::new()),
        }
    }
    runs.retain(|run| run.len() > 1);
    runs
}

/// Returns a line from a point to its label, if the label is far away.
fn leader(point: Point, bounds: &Bounds) -> Option<[Point; 2]> {
    let end = (point.0.clamp(bounds.left, bounds.right), point.1.clamp(bounds.top, bounds.bottom));
    let distance = (end.0 - point.0).hypot(end.1 - point.1);
    (distance > 12.0).then_some([point, end])
}

fn corners(bounds: &Bounds) -> Vec<Point> {
    let Bounds { left, top, right, bottom } = *bounds;
    vec![(left, top), (right, top), (right, bottom), (left, bottom)]
}

/// Darkens a colour for text on white, to a contrast of 4.5 or more [WCAG 2.1, 1.4.3].
fn darker(Color(red, green, blue): Color) -> Color {
    let dim = |v: u8| (f64::from(v) * 0.65) as u8;
    Color(dim(red), dim(green), dim(blue))
}

/// One model in the legend.
struct LegendItem {
    series: usize,
    name: String,
    width: f64,
}

/// Draws the legend from `y` downwards, one layer per model; returns the layers and the y coordinate of its end.
fn legend(chart: &Chart, pens: &[Pen], mut y: f64) -> (Vec<Layer>, f64) {
    const SAMPLE: f64 = 34.0;
    const GAP: f64 = 22.0;
    let room = WIDTH - 2.0 * MARGIN;
    let items: Vec<LegendItem> = chart
        .series
        .iter()
        .enumerate()
        .map(|(series, of)| {
            let bold = of.origin != Origin::Published;
            let kind = if bold { "" } else { " (published)" };
            let name = shortened(&format!("{}{kind}", of.name), room - SAMPLE - 8.0, LEGEND, bold);
            let width = SAMPLE + 8.0 + text_width(&name, LEGEND, bold);
            LegendItem { series, name, width }
        })
        .collect();
    // Each row of items with its width.
    let mut rows: Vec<(Vec<&LegendItem>, f64)> = Vec::new();
    for item in &items {
        match rows.last_mut() {
            Some((row, width)) if *width + GAP + item.width <= room => {
                *width += GAP + item.width;
                row.push(item);
            }
            _ => rows.push((vec![item], item.width)),
        }
    }
    let mut layers = Vec::new();
    for (row, width) in rows {
        let mut x = (WIDTH - width) / 2.0;
        for LegendItem { series, name, width } in row {
            let (series, pen) = (&chart.series[*series], &pens[*series]);
            let middle = y - LEGEND * 0.35;
            let published = series.origin == Origin::Published;
            let mut text = Text::new(name, (x + SAMPLE + 8.0, y), Anchor::Start, LEGEND);
            text.bold = !published;
            let shapes = vec![
                Shape::Line {
                    points: vec![(x, middle), (x + SAMPLE, middle)],
                    color: pen.color,
                    width: pen.width,
                    dash: pen.dash,
                },
                Shape::Dot {
                    center: (x + SAMPLE / 2.0, middle),
                    radius: DOT,
                    color: pen.color,
                    hollow: published,
                },
                Shape::Text(text),
            ];
            layers.push(Layer { owner: Some(series.name.clone()), shapes });
            x += width + GAP;
        }
        y += LEGEND * 1.8;
    }
    (layers, y)
}
