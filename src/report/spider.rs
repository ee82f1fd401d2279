//! The spider plot: an axis a column of a suite's tables, a line a model.

use super::labels::{Label, place};
use super::table::{Column, Origin, ResultTable, Row, Tenths};
use crate::canvas::{
    Anchor, BLACK, Color, Dash, GREY, GRID, Layer, PALETTE, Picture, Point, Shape, Text, WHITE, shortened,
    text_width, wrapped,
};
use crate::suite::Spider;
use crate::{Error, Result};

/// What the plot shows, before it is drawn.
#[derive(Debug, Clone)]
pub struct Chart {
    pub title: String,
    /// Of generated data.
    pub demo: bool,
    /// Clockwise from above; at least three.
    pub axes: Vec<Axis>,
    pub series: Vec<Series>,
    /// What a reader must know besides.
    pub notes: Vec<String>,
}

/// One column of a table.
#[derive(Debug, Clone)]
pub struct Axis {
    /// The table's `file`, and the task's name.
    pub table: String,
    pub task: String,
    /// As in the tables: `m-EuroSat`.
    pub title: String,
    /// The metric, and what tells the axis from another of the same task: `k-NN, F1`.
    pub subtitle: String,
}

/// One model.
#[derive(Debug, Clone)]
pub struct Series {
    pub name: String,
    /// By which it is chosen, with and without its backbone.
    pub model: String,
    pub backbone: String,
    pub origin: Origin,
    /// One an axis, in percent.
    pub values: Vec<Option<f64>>,
}

/// What the user wants to see; nothing chosen is the default.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// `TerraFM` or `TerraFM ViT-Base`.
    pub models: Vec<String>,
    /// `knn`, `m-eurosat` or `knn/m-eurosat`.
    pub axes: Vec<String>,
}

/// A plot needs as many axes to have an area.
pub const FEWEST_AXES: usize = 3;

/// More measured rows than this are drawn only if asked for: the eye cannot follow them.
const MOST_MEASURED: usize = 3;

/// The most lines of all, asked for or not.
const MOST_SERIES: usize = 12;

/// The plot of these tables, each with its `file`; nothing where no model has a value on the axes.
///
/// Published rows of one model are one line, its better size on each axis; asked for by model and backbone, that size
/// alone. A measured row is a line of its own. A demo's plot shows the demo's rows only.
///
/// # Errors
/// Where fewer than three axes are left, or there are more models than can be told apart. Names that nothing here has are
/// passed over: [`unknown`] finds them.
pub fn chart(spider: &Spider, tables: &[(&str, &ResultTable)], choice: &Choice) -> Result<Option<Chart>> {
    let demo = tables.iter().any(|(_, table)| table.demo);
    let columns = chosen_axes(&all_axes(spider, tables), choice);
    if columns.is_empty() && !choice.axes.is_empty() {
        return Ok(None);
    }
    if columns.len() < FEWEST_AXES {
        return Err(Error::request(format!(
            "{} axes; a spider plot has at least {FEWEST_AXES}",
            columns.len()
        ))
        .help("name more with --axes"));
    }
    let mut notes = Vec::new();
    let published = if demo { Vec::new() } else { published(spider, &columns, choice, &mut notes) };
    let measured = measured(tables, &columns, choice, &mut notes);
    let series: Vec<Series> = published.into_iter().chain(measured).collect();
    if series.len() > MOST_SERIES {
        return Err(Error::request(format!(
            "{} models in one spider plot; more than {MOST_SERIES} cannot be told apart",
            series.len()
        ))
        .help("name fewer with --models, with their backbones"));
    }
    if series.is_empty() {
        return Ok(None);
    }
    let axes = columns.into_iter().map(|found| found.axis).collect();
    Ok(Some(Chart { title: spider.title.clone(), demo, axes, series, notes }))
}

/// The names of the choice that no table here has.
pub fn unknown<'c>(spider: &Spider, tables: &[(&str, &ResultTable)], choice: &'c Choice) -> Vec<&'c str> {
    let axes = all_axes(spider, tables);
    let rows = || tables.iter().flat_map(|(_, table)| table.published.iter().chain(&table.measured));
    let no_axis = choice.axes.iter().filter(|name| !axes.iter().any(|found| found.axis.is(name)));
    let no_model =
        choice.models.iter().filter(|name| !rows().any(|row| named(name, &row.model, &row.backbone)));
    no_axis.chain(no_model).map(String::as_str).collect()
}

/// An axis and where its values are.
struct Found<'t, 'a> {
    axis: Axis,
    table: &'t ResultTable<'a>,
    column: usize,
}

impl Axis {
    fn is(&self, name: &str) -> bool {
        name == self.table || name == self.task || name.split_once('/') == Some((&self.table, &self.task))
    }
}

fn all_axes<'t, 'a>(spider: &Spider, tables: &[(&str, &'t ResultTable<'a>)]) -> Vec<Found<'t, 'a>> {
    let mut found = Vec::new();
    for axes in &spider.axes {
        for (file, table) in tables.iter().filter(|(file, _)| *file == axes.table) {
            let columns = table.columns.iter().enumerate();
            let of_metric =
                columns.filter(|(_, column)| column.partition == axes.partition && column.score.is_none());
            found.extend(of_metric.map(|(i, column)| Found {
                axis: Axis {
                    table: (*file).to_owned(),
                    task: column.task.clone(),
                    title: column.title.clone(),
                    subtitle: subtitle(&axes.label, column),
                },
                table,
                column: i,
            }));
        }
    }
    found
}

fn subtitle(label: &str, column: &Column) -> String {
    if label.is_empty() { column.metric_title() } else { format!("{label}, {}", column.metric_title()) }
}

/// Those asked for, in the order in which they were; all of them where none was.
fn chosen_axes<'t, 'a>(all: &[Found<'t, 'a>], choice: &Choice) -> Vec<Found<'t, 'a>> {
    let mut order: Vec<usize> = Vec::new();
    for name in &choice.axes {
        for (i, _) in all.iter().enumerate().filter(|(_, found)| found.axis.is(name)) {
            if !order.contains(&i) {
                order.push(i);
            }
        }
    }
    if choice.axes.is_empty() {
        order = (0..all.len()).collect();
    }
    let copy = |i: usize| {
        let found = &all[i];
        Found { axis: found.axis.clone(), table: found.table, column: found.column }
    };
    order.into_iter().map(copy).collect()
}

/// Whether a row is the one that `name` means: letters and digits decide, as the source has both `Prithvi-2.0` and
/// `Prithvi 2.0`.
fn named(name: &str, model: &str, backbone: &str) -> bool {
    same(name, model) || same(name, &format!("{model} {backbone}"))
}

fn same(a: &str, b: &str) -> bool {
    // `SatMAE++` is another model than `SatMAE`.
    let plain = |name: &str| -> String {
        name.chars().filter(|c| c.is_alphanumeric() || *c == '+').flat_map(char::to_lowercase).collect()
    };
    plain(a) == plain(b)
}

fn published(spider: &Spider, columns: &[Found], choice: &Choice, notes: &mut Vec<String>) -> Vec<Series> {
    let names = if choice.models.is_empty() { &spider.models } else { &choice.models };
    let mut all: Vec<Series> = Vec::new();
    for name in names {
        let rows_of = |found: &Found| -> Vec<(String, String, Option<f64>)> {
            let rows = found.table.published.iter().filter(|row| named(name, &row.model, &row.backbone));
            rows.map(|row| (row.model.clone(), row.backbone.clone(), value(row, found.column))).collect()
        };
        let best = |found: &Found| {
            let values = rows_of(found).into_iter().filter_map(|(_, _, value)| value);
            values.max_by(f64::total_cmp)
        };
        let values: Vec<Option<f64>> = columns.iter().map(best).collect();
        let Some((model, _, _)) = columns.iter().find_map(|found| rows_of(found).into_iter().next()) else {
            continue;
        };
        if values.iter().all(Option::is_none) || all.iter().any(|other| other.name == *name) {
            continue;
        }
        let mut backbones: Vec<String> =
            columns.iter().flat_map(&rows_of).map(|(_, backbone, _)| backbone).collect();
        backbones.sort();
        backbones.dedup();
        if backbones.len() > 1 {
            notes.push(format!("{model}: on each axis the best of {}.", backbones.join(", ")));
        }
        let with_backbone = !same(name, &model);
        let backbone = if with_backbone { backbones.concat() } else { String::new() };
        let name = match with_backbone {
            true => format!("{model} {backbone}"),
            // The plot's own spelling, where the tables have two.
            false if choice.models.is_empty() => name.clone(),
            false => model.clone(),
        };
        all.push(Series { name, model, backbone, origin: Origin::Published, values });
    }
    all
}

fn value(row: &Row, column: usize) -> Option<f64> {
    Some(row.cells.get(column)?.as_ref()?.value)
}

/// What makes a measured model: its name, backbone, weights, and how it takes bands.
type Identity<'a> = (&'a str, &'a str, &'a str, &'a str);

fn identity<'a>(row: &Row<'a>) -> Option<Identity<'a>> {
    let record = *row.cells.iter().flatten().find_map(|cell| cell.records.first())?;
    let made = &record.provenance;
    Some((&record.cell.model, &record.cell.backbone, &made.weights, &made.band_names))
}

/// The protocol behind a row's value.
fn protocol<'a>(row: &Row<'a>, column: usize) -> Option<&'a str> {
    Some(&row.cells.get(column)?.as_ref()?.records.first()?.cell.protocol)
}

fn measured(
    tables: &[(&str, &ResultTable)],
    columns: &[Found],
    choice: &Choice,
    notes: &mut Vec<String>,
) -> Vec<Series> {
    let mut identities: Vec<Identity> =
        tables.iter().flat_map(|(_, table)| &table.measured).filter_map(identity).collect();
    identities.sort_unstable();
    identities.dedup();
    let mut all = Vec::new();
    for identity_of in &identities {
        let (model, backbone, weights, band_names) = *identity_of;
        if !choice.models.is_empty() && !choice.models.iter().any(|name| named(name, model, backbone)) {
            continue;
        }
        let mut by_protocol: Vec<(&str, Vec<String>)> = Vec::new();
        let mut values = Vec::new();
        for found in columns {
            let rows = || found.table.measured.iter().filter(|row| identity(row) == Some(*identity_of));
            // A table of several protocols names the published one first.
            let order = |row: &&Row| {
                let name = protocol(row, found.column);
                found.table.protocols.iter().position(|known| Some(known.as_str()) == name)
            };
            let row = rows().filter(|row| value(row, found.column).is_some()).min_by_key(order);
            values.push(row.and_then(|row| value(row, found.column)));
            let Some(name) = row.and_then(|row| protocol(row, found.column)) else { continue };
            if found.table.protocols.len() > 1 {
                match by_protocol.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, titles)) => titles.push(found.axis.title.clone()),
                    None => by_protocol.push((name, vec![found.axis.title.clone()])),
                }
            }
        }
        if values.iter().all(Option::is_none) {
            continue;
        }
        let same = identities.iter().filter(|other| (other.0, other.1) == (model, backbone));
        let mut qualifiers: Vec<String> = Vec::new();
        if weights.starts_with("random:") {
            qualifiers.push("random weights".to_owned());
        }
        if same.filter(|other| other.2 != weights).count() > 0 {
            qualifiers.push(super::table::short(weights).to_owned());
        }
        if band_names != "as-named" {
            qualifiers.push(format!("bands {band_names}"));
        }
        let origin =
            if columns.iter().any(|found| found.table.demo) { Origin::Demo } else { Origin::Measured };
        let kind = if origin == Origin::Demo { "demo" } else { "measured" };
        let words: Vec<&str> = std::iter::once(kind).chain(qualifiers.iter().map(String::as_str)).collect();
        let name = format!("{model} {backbone} ({})", words.join(", "));
        for (protocol, titles) in by_protocol {
            notes.push(format!("{name}: {} by {protocol}.", titles.join(", ")));
        }
        all.push(Series { name, model: model.to_owned(), backbone: backbone.to_owned(), origin, values });
    }
    if choice.models.is_empty() && all.len() > MOST_MEASURED {
        // Those with most values; the notes of the others go with them.
        all.sort_by_key(|series| std::cmp::Reverse(series.values.iter().flatten().count()));
        let dropped = all.split_off(MOST_MEASURED);
        notes.retain(|note| !dropped.iter().any(|series| note.starts_with(&format!("{}:", series.name))));
        notes.push(format!("{} more measured models are not drawn; --models chooses.", dropped.len()));
    }
    all
}

const WIDTH: f64 = 900.0;
const RADIUS: f64 = 285.0;
/// Where the lowest and the highest model lie on an axis, as shares of its length.
const LOWEST: f64 = 0.22;
const HIGHEST: f64 = 0.96;
const MARGIN: f64 = 30.0;
const VALUE: f64 = 11.0;
const LEGEND: f64 = 13.0;
const DOT: f64 = 4.0;

/// Measured lines: black first, then dark tones that no published line has.
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

/// Draws the plot: published lines dashed with hollow points, measured ones solid with full ones. A missing value breaks
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
        grid.shapes.extend(axis_title(axis, at(i, 1.0), direction(i)).map(Shape::Text));
    }
    let share = |axis: usize, value: f64| {
        let values = || chart.series.iter().filter_map(|series| series.values[axis]);
        let (low, high) = (values().fold(f64::MAX, f64::min), values().fold(f64::MIN, f64::max));
        let along = if high > low { (value - low) / (high - low) } else { 0.5 };
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
            values.filter_map(move |(value, place)| {
                let text = Tenths::of((*value)?).to_string();
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

/// Title and what the axes mean; returns where they end.
fn head(chart: &Chart, layer: &mut Layer) -> f64 {
    let mut y = 34.0;
    let mut line = |text: Text| {
        layer.shapes.push(Shape::Text(text));
    };
    let title = shortened(&chart.title, WIDTH - 2.0 * MARGIN, 20.0, true);
    line(Text::new(title, (WIDTH / 2.0, y), Anchor::Middle, 20.0).bold());
    if chart.demo {
        y += 22.0;
        line(
            Text::new(crate::canvas::DEMO_NOTICE, (WIDTH / 2.0, y), Anchor::Middle, 13.0)
                .bold()
                .color(crate::canvas::ALARM),
        );
    }
    y += 21.0;
    let meaning = "Each axis runs from the lowest to the highest model shown, outwards; values in percent.";
    line(Text::new(meaning, (WIDTH / 2.0, y), Anchor::Middle, 12.0).color(GREY));
    y
}

fn axis_title(axis: &Axis, end: Point, (x, y): (f64, f64)) -> [Text; 2] {
    const GAP: f64 = 14.0;
    let at = (end.0 + x * GAP, end.1 + y * GAP);
    let (anchor, room) = match x {
        x if x > 0.2 => (Anchor::Start, WIDTH - at.0 - 6.0),
        x if x < -0.2 => (Anchor::End, at.0 - 6.0),
        _ => (Anchor::Middle, WIDTH / 2.0),
    };
    // The two lines stand above the end of an axis that points up, below that of one that points down.
    let first = at.1 + 4.0 + (y - 1.0) * 8.0 + if y > 0.9 { 6.0 } else { 0.0 };
    [
        Text::new(shortened(&axis.title, room, 13.0, true), (at.0, first), anchor, 13.0).bold(),
        Text::new(shortened(&axis.subtitle, room, VALUE, false), (at.0, first + 15.0), anchor, VALUE)
            .color(GREY),
    ]
}

/// The unbroken parts of a closed line; one of a single point is no line.
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

/// From a point to its label, where that stands apart.
fn leader(point: Point, bounds: &crate::canvas::Bounds) -> Option<[Point; 2]> {
    let end = (point.0.clamp(bounds.left, bounds.right), point.1.clamp(bounds.top, bounds.bottom));
    let distance = (end.0 - point.0).hypot(end.1 - point.1);
    (distance > 12.0).then_some([point, end])
}

fn corners(bounds: &crate::canvas::Bounds) -> Vec<Point> {
    let crate::canvas::Bounds { left, top, right, bottom } = *bounds;
    vec![(left, top), (right, top), (right, bottom), (left, bottom)]
}

/// Dark enough to be read as text on white: a contrast of 4.5 or more [WCAG 2.1, 1.4.3].
fn darker(Color(red, green, blue): Color) -> Color {
    let dim = |v: u8| (f64::from(v) * 0.65) as u8;
    Color(dim(red), dim(green), dim(blue))
}

/// The legend from `y` downwards, a layer a model, and where it ends.
fn legend(chart: &Chart, pens: &[Pen], mut y: f64) -> (Vec<Layer>, f64) {
    const SAMPLE: f64 = 34.0;
    const GAP: f64 = 22.0;
    let room = WIDTH - 2.0 * MARGIN;
    let items: Vec<(usize, String, f64)> = chart
        .series
        .iter()
        .enumerate()
        .map(|(i, series)| {
            let bold = series.origin != Origin::Published;
            let kind = if bold { "" } else { " (published)" };
            let name = shortened(&format!("{}{kind}", series.name), room - SAMPLE - 8.0, LEGEND, bold);
            let width = SAMPLE + 8.0 + text_width(&name, LEGEND, bold);
            (i, name, width)
        })
        .collect();
    let mut rows: Vec<(Vec<&(usize, String, f64)>, f64)> = Vec::new();
    for item in &items {
        match rows.last_mut() {
            Some((row, width)) if *width + GAP + item.2 <= room => {
                *width += GAP + item.2;
                row.push(item);
            }
            _ => rows.push((vec![item], item.2)),
        }
    }
    let mut layers = Vec::new();
    for (row, width) in rows {
        let mut x = (WIDTH - width) / 2.0;
        for (i, name, width) in row {
            let (series, pen) = (&chart.series[*i], &pens[*i]);
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
