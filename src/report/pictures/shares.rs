//! Scores against the share of the training data: one panel per task, one line per model, over all partitions.

use super::stroke;
use crate::canvas::{
    ALARM, Anchor, BLACK, Color, DEMO_NOTICE, Dash, GREY, GRID, Layer, PALETTE, Picture, Point, Shape, Text,
    shortened, text_width, wrapped,
};
use crate::metrics::{Better, Unit};
use crate::report::tables::table::{Origin, ResultTable, TableRow, Value, share};

const WIDTH: f64 = 900.0;
const MARGIN: f64 = 24.0;
const PANEL: f64 = 270.0;
const ACROSS: usize = 2;
const TEXT: f64 = 12.0;

/// More models in one picture would be hard to tell apart.
const MOST_MODELS: usize = 5;

/// A row of the table, drawn as a line.
struct Line<'t, 'a> {
    row: &'t TableRow<'a>,
    name: String,
    color: Color,
    dash: Dash,
}

/// Draws a table whose columns are tasks at several partitions: its measured rows, and the published rows of the same models.
/// `None` if no measured row has values for two shares of one task.
pub fn draw(table: &ResultTable) -> Option<Picture> {
    let mut tasks: Vec<(&str, &str, String)> = Vec::new();
    for column in &table.columns {
        if !tasks.iter().any(|(task, _, _)| *task == column.task) {
            let lower = if column.scale().better == Better::Lower { " (lower is better)" } else { "" };
            tasks.push((&column.task, &column.title, format!("{}{lower}", column.metric_title())));
        }
    }
    let rich = |row: &&TableRow| tasks.iter().any(|(task, _, _)| points(table, row, task).len() > 1);
    let measured: Vec<&TableRow> = table.measured.iter().filter(rich).collect();
    if measured.is_empty() {
        return None;
    }
    let shown = &measured[..measured.len().min(MOST_MODELS)];
    tasks.retain(|(task, _, _)| shown.iter().any(|row| !points(table, row, task).is_empty()));
    let mut lines: Vec<Line> = Vec::new();
    for (i, row) in shown.iter().enumerate() {
        let color = if i == 0 { BLACK } else { PALETTE[(i - 1) % PALETTE.len()] };
        lines.push(Line { row, name: row.full_label(), color, dash: Dash::Solid });
        let same = |other: &&TableRow| (&other.model, &other.backbone) == (&row.model, &row.backbone);
        // Rows that are not compared have no published line.
        let compared = !table.demo && !row.is_partial;
        if let Some(published) = table.published.iter().find(same).filter(|_| compared) {
            // Several measured rows of one model share one published row.
            if !lines.iter().any(|line| std::ptr::eq(line.row, published)) {
                let name = format!("{} {} (published)", published.model, published.backbone);
                lines.push(Line { row: published, name, color, dash: Dash::Strokes(&[6.0, 4.0]) });
            }
        }
    }

    let mut shapes = Vec::new();
    let mut y = 34.0;
    let title = format!("{} against the share of training data", table.title);
    let head = shortened(&title, WIDTH - 2.0 * MARGIN, 18.0, true);
    shapes.push(Shape::Text(Text::new(head, (MARGIN, y), Anchor::Start, 18.0).bold()));
    if table.demo {
        y += 22.0;
        shapes
            .push(Shape::Text(Text::new(DEMO_NOTICE, (MARGIN, y), Anchor::Start, 13.0).bold().color(ALARM)));
    }
    y += 20.0;
    let all_percent = table.columns.iter().all(|column| column.scale().unit == Unit::Percent);
    let unit = if all_percent { "In percent" } else { "In percent, or in the unit named" };
    let meaning =
        format!("{unit}; bars: the interval over the test samples, or the standard deviation over seeds.");
    shapes.push(Shape::Text(Text::new(meaning, (MARGIN, y), Anchor::Start, TEXT).color(GREY)));
    let top = y + 14.0;
    let width = (WIDTH - 2.0 * MARGIN) / ACROSS as f64;
    for (i, (task, title, metric)) in tasks.iter().enumerate() {
        let corner = (MARGIN + width * (i % ACROSS) as f64, top + PANEL * (i / ACROSS) as f64);
        shapes.extend(panel(table, &lines, task, &format!("{title}, {metric}"), corner, width));
    }
    let mut y = top + PANEL * tasks.len().div_ceil(ACROSS) as f64 + 22.0;
    for line in &lines {
        let middle = y - TEXT * 0.35;
        shapes.push(stroke(vec![(MARGIN, middle), (MARGIN + 34.0, middle)], line.color, 2.0, line.dash));
        shapes.push(dot((MARGIN + 17.0, middle), line));
        let name = shortened(&line.name, WIDTH - 3.0 * MARGIN - 34.0, TEXT, false);
        shapes.push(Shape::Text(Text::new(name, (MARGIN + 44.0, y), Anchor::Start, TEXT)));
        y += 20.0;
    }
    if measured.len() > shown.len() {
        let note = format!("{} more measured rows are not drawn.", measured.len() - shown.len());
        for line in wrapped(&note, WIDTH - 2.0 * MARGIN, 11.0) {
            shapes.push(Shape::Text(Text::new(line, (MARGIN, y), Anchor::Start, 11.0).color(GREY)));
            y += 16.0;
        }
    }
    let layers = vec![Layer { owner: None, shapes }];
    Some(Picture { width: WIDTH, height: y, description: title, layers })
}

/// Returns a row's values of one task with their shares of the training data, in ascending order.
fn points<'t, 'a>(table: &ResultTable, row: &'t TableRow<'a>, task: &str) -> Vec<(f64, &'t Value<'a>)> {
    let columns = table.columns.iter().zip(&row.cells).filter(|(c, _)| c.task == task && c.score.is_none());
    let mut points: Vec<(f64, &Value)> =
        columns.filter_map(|(column, cell)| Some((share(&column.partition)?, cell.as_ref()?))).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    points
}

/// Returns the ends of a value's error bar: the interval, or one standard deviation.
fn ends(value: &Value) -> (f64, f64) {
    match (value.interval, value.spread) {
        (Some(interval), _) => (interval.low, interval.high),
        (None, Some(spread)) => (value.value - spread, value.value + spread),
        (None, None) => (value.value, value.value),
    }
}

fn panel(
    table: &ResultTable,
    lines: &[Line],
    task: &str,
    title: &str,
    corner: Point,
    width: f64,
) -> Vec<Shape> {
    let (left, right) = (corner.0 + 44.0, corner.0 + width - 20.0);
    let (top, bottom) = (corner.1 + 34.0, corner.1 + PANEL - 40.0);
    let series: Vec<(&Line, Vec<(f64, &Value)>)> =
        lines.iter().map(|line| (line, points(table, line.row, task))).collect();
    let values = || series.iter().flat_map(|(_, points)| points);
    let shares = || values().map(|(share, _)| *share);
    let (low, high) = values().fold((f64::MAX, f64::MIN), |(low, high), (_, value)| {
        let (bottom, top) = ends(value);
        (low.min(bottom), high.max(top))
    });
    let percent = values().all(|(_, value)| value.scale.unit == Unit::Percent);
    let step = if percent {
        [1.0, 2.0, 5.0, 10.0, 20.0].into_iter().find(|step| (high - low) / step <= 5.0).unwrap_or(50.0)
    } else {
        round_step(high - low)
    };
    let decimals = if step < 1.0 { (-step.log10()).ceil() as usize } else { 0 };
    let (low, high) = ((low / step).floor() * step, ((high / step).ceil() * step).max(low + step));
    let y = |value: f64| bottom - (value - low) / (high - low) * (bottom - top);
    let least = shares().fold(1.0, f64::min).min(0.1).ln();
    let x = |share: f64| left + (share.ln() - least) / -least * (right - left);

    let title = shortened(title, width - 30.0, 13.0, true);
    let mut shapes = vec![Shape::Text(Text::new(title, (left, corner.1 + 20.0), Anchor::Start, 13.0).bold())];
    let mut value = low;
    while value <= high + 1e-9 * step {
        shapes.push(stroke(vec![(left, y(value)), (right, y(value))], GRID, 1.0, Dash::Solid));
        let label = Text::new(format!("{value:.decimals$}"), (left - 6.0, y(value) + 4.0), Anchor::End, 11.0);
        shapes.push(Shape::Text(label.color(GREY)));
        value += step;
    }
    let mut ticks: Vec<f64> = shares().collect();
    ticks.sort_by(f64::total_cmp);
    ticks.dedup();
    let mut free = f64::MIN;
    for share in ticks {
        shapes.push(stroke(vec![(x(share), bottom), (x(share), bottom + 4.0)], GREY, 1.0, Dash::Solid));
        let label = crate::report::percent(share);
        // Omit a label that would touch the previous one, but keep its tick.
        let half = text_width(&label, 11.0, false) / 2.0;
        if x(share) - half > free {
            let label = Text::new(label, (x(share), bottom + 18.0), Anchor::Middle, 11.0);
            shapes.push(Shape::Text(label.color(GREY)));
            free = x(share) + half + 5.0;
        }
    }
    for (line, points) in &series {
        let path: Vec<Point> = points.iter().map(|(share, value)| (x(*share), y(value.value))).collect();
        for (share, value) in points {
            let (low, high) = ends(value);
            if high > low {
                shapes.push(stroke(
                    vec![(x(*share), y(low)), (x(*share), y(high))],
                    line.color,
                    1.2,
                    Dash::Solid,
                ));
            }
        }
        shapes.extend(path.iter().map(|point| dot(*point, line)));
        if path.len() > 1 {
            shapes.push(stroke(path, line.color, 2.0, line.dash));
        }
    }
    shapes
}

/// Returns a round step that fits at most five times into `range`.
fn round_step(range: f64) -> f64 {
    let range = range.max(1e-6);
    let magnitude = 10f64.powf((range / 5.0).log10().floor());
    [1.0, 2.0, 5.0]
        .map(|round| round * magnitude)
        .into_iter()
        .find(|step| range / step <= 5.0)
        .unwrap_or(10.0 * magnitude)
}

fn dot(center: Point, line: &Line) -> Shape {
    Shape::Dot { center, radius: 3.5, color: line.color, hollow: line.row.origin == Origin::Published }
}
