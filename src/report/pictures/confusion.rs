//! Confusion matrices and label counts, from the predictions stored with a record.

use ndarray::Array2;

use crate::canvas::{
    ALARM, Anchor, BLACK, Color, DEMO_NOTICE, Dash, GREY, GRID, Layer, PALETTE, Picture, Shape, Text, WHITE,
    shortened, text_width, wrapped,
};
use crate::record::Record;
use crate::score::{Predictions, Targets};
use crate::task::Task;

const MARGIN: f64 = 24.0;
const WIDTH: f64 = 900.0;

/// Draws the confusion matrix of a record's predictions; for several labels per image, how many of each were found, missed
/// and wrongly predicted. `None` if the predictions do not suit the task.
pub fn draw(task: &Task, record: &Record, predictions: &Predictions) -> Option<Picture> {
    let what = subject(record);
    match &*predictions.decided() {
        Predictions::Targets { predicted: Targets::Labels(predicted), truth: Targets::Labels(truth) } => {
            Some(labels(task, record.demo, &what, predicted, truth))
        }
        decided => Some(matrix(task, record.demo, &what, &decided.confusion(task)?)),
    }
}

/// Names the model, protocol, training data and seed of a record.
pub(super) fn subject(record: &Record) -> String {
    let cell = &record.cell;
    let made = &record.provenance;
    let partial = if made.partial_weights() { format!(" ({})", made.coverage()) } else { String::new() };
    format!(
        "{} {}{partial}, {}, {}, seed {}",
        cell.model,
        cell.backbone,
        cell.protocol,
        crate::report::tables::table::partition_title(&cell.partition),
        cell.seed
    )
}

fn name(task: &Task, class: usize) -> String {
    task.class_names.get(class).cloned().unwrap_or_else(|| class.to_string())
}

/// Draws the title and an explanation; returns the y coordinate of their end.
pub(super) fn head(shapes: &mut Vec<Shape>, title: &str, demo: bool, meaning: &[String]) -> f64 {
    let mut y = 34.0;
    let title = shortened(title, WIDTH - 2.0 * MARGIN, 18.0, true);
    shapes.push(Shape::Text(Text::new(title, (MARGIN, y), Anchor::Start, 18.0).bold()));
    if demo {
        y += 22.0;
        shapes
            .push(Shape::Text(Text::new(DEMO_NOTICE, (MARGIN, y), Anchor::Start, 13.0).bold().color(ALARM)));
    }
    for line in meaning.iter().flat_map(|text| wrapped(text, WIDTH - 2.0 * MARGIN, 12.0)) {
        y += 18.0;
        shapes.push(Shape::Text(Text::new(line, (MARGIN, y), Anchor::Start, 12.0).color(GREY)));
    }
    y + 18.0
}

fn matrix(task: &Task, demo: bool, what: &str, counts: &Array2<u64>) -> Picture {
    let n = counts.nrows();
    let mut shapes = Vec::new();
    let title = format!("{}: confusion matrix", task.title);
    let unit = if task.target == crate::task::TargetKind::Mask { "pixels" } else { "images" };
    let meaning = format!(
        "Rows: the label; columns: the prediction; in percent of the label's {unit} in the test split."
    );
    let top = head(&mut shapes, &title, demo, &[what.to_owned(), meaning]);
    let size = (600.0 / n as f64).clamp(16.0, 100.0);
    let text = (size * 0.34).clamp(7.0, 13.0);
    let names: Vec<String> = (0..n).map(|class| shortened(&name(task, class), 170.0, 12.0, false)).collect();
    let widest = names.iter().map(|name| text_width(name, 12.0, false)).fold(20.0, f64::max);
    let left = MARGIN + widest + 10.0;
    // Columns have names if all names fit; otherwise numbers refer to the rows.
    let numbered = names.iter().any(|name| text_width(name, text, false) > size - 2.0);
    let heading = |class: usize| if numbered { (class + 1).to_string() } else { names[class].clone() };
    let grid = top + 20.0;
    for row in 0..n {
        let total: u64 = counts.row(row).sum();
        let y = grid + size * row as f64;
        let label = match (numbered, task.class_names.is_empty()) {
            (true, true) => heading(row),
            (true, false) => format!("{} {}", names[row], row + 1),
            (false, _) => names[row].clone(),
        };
        let label = shortened(&label, left - 8.0, 12.0, false);
        shapes.push(Shape::Text(Text::new(label, (left - 6.0, y + size / 2.0 + 4.0), Anchor::End, 12.0)));
        let above = (left + size * (row as f64 + 0.5), grid - 6.0);
        shapes.push(Shape::Text(Text::new(heading(row), above, Anchor::Middle, text)));
        for column in 0..n {
            let x = left + size * column as f64;
            let share = if total == 0 { 0.0 } else { counts[(row, column)] as f64 / total as f64 };
            let corners = vec![(x, y), (x + size, y), (x + size, y + size), (x, y + size)];
            shapes.push(Shape::Area { points: corners, color: shade(share), opacity: 1.0 });
            if counts[(row, column)] > 0 {
                let number = percent(share);
                let color = if share > 0.45 { WHITE } else { BLACK };
                let at = (x + size / 2.0, y + size / 2.0 + text * 0.36);
                shapes.push(Shape::Text(Text::new(number, at, Anchor::Middle, text).color(color)));
            }
        }
        let total = Text::new(
            total.to_string(),
            (left + size * n as f64 + 8.0, y + size / 2.0 + 4.0),
            Anchor::Start,
            11.0,
        );
        shapes.push(Shape::Text(total.color(GREY)));
    }
    let side = size * n as f64;
    for i in 0..=n {
        let at = size * i as f64;
        for (from, to) in
            [((left + at, grid), (left + at, grid + side)), ((left, grid + at), (left + side, grid + at))]
        {
            shapes.push(Shape::Line { points: vec![from, to], color: GRID, width: 0.7, dash: Dash::Solid });
        }
    }
    let caption = Text::new(unit, (left + side + 8.0, grid - 6.0), Anchor::Start, 11.0).color(GREY);
    shapes.push(Shape::Text(caption));
    Picture {
        width: WIDTH,
        height: grid + side + 24.0,
        description: title,
        layers: vec![Layer { owner: None, shapes }],
    }
}

/// Formats whole percents, with `<1` for shares that would round to 0.
fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent < 0.5 { "<1".to_owned() } else { format!("{percent:.0}") }
}

/// Returns a colour from white to dark blue, which also reads as light to dark in greyscale.
fn shade(share: f64) -> Color {
    let between = |from: f64, to: f64| (from + (to - from) * share.sqrt()) as u8;
    Color(between(255.0, 8.0), between(255.0, 48.0), between(255.0, 107.0))
}

fn labels(task: &Task, demo: bool, what: &str, predicted: &Array2<bool>, truth: &Array2<bool>) -> Picture {
    const LINE: f64 = 18.0;
    const KINDS: [(&str, Color); 3] =
        [("found", PALETTE[0]), ("missed", PALETTE[4]), ("wrongly predicted", PALETTE[3])];
    let n = truth.ncols().min(predicted.ncols());
    let counts: Vec<[usize; 3]> = (0..n)
        .map(|label| {
            let pairs = truth.column(label).into_iter().zip(predicted.column(label));
            pairs.fold([0; 3], |[found, missed, wrong], pair| match pair {
                (true, true) => [found + 1, missed, wrong],
                (true, false) => [found, missed + 1, wrong],
                (false, true) => [found, missed, wrong + 1],
                (false, false) => [found, missed, wrong],
            })
        })
        .collect();
    let mut shapes = Vec::new();
    let title = format!("{}: labels found, missed and wrongly predicted", task.title);
    let meaning = format!("Images of the test split by label; {} in all.", truth.nrows());
    let top = head(&mut shapes, &title, demo, &[what.to_owned(), meaning]);
    let mut x = MARGIN;
    for (kind, color) in KINDS {
        shapes.push(block(x, top, 14.0, 12.0, color));
        shapes.push(Shape::Text(Text::new(kind, (x + 20.0, top + 10.5), Anchor::Start, 12.0)));
        x += 20.0 + text_width(kind, 12.0, false) + 24.0;
    }
    let names: Vec<String> = (0..n).map(|label| shortened(&name(task, label), 240.0, 11.0, false)).collect();
    let widest = names.iter().map(|name| text_width(name, 11.0, false)).fold(20.0, f64::max);
    let left = MARGIN + widest + 10.0;
    let most = counts.iter().map(|counts| counts.iter().sum()).max().unwrap_or(0).max(1);
    let room = WIDTH - MARGIN - 110.0 - left;
    let mut y = top + 26.0;
    for (name, counts) in names.into_iter().zip(&counts) {
        let base = y + LINE / 2.0 + 4.0;
        shapes.push(Shape::Text(Text::new(name, (left - 8.0, base), Anchor::End, 11.0)));
        let mut x = left;
        for (count, (_, color)) in counts.iter().zip(KINDS) {
            let width = room * *count as f64 / most as f64;
            if *count > 0 {
                shapes.push(block(x, y + 2.0, width, LINE - 4.0, color));
            }
            x += width;
        }
        y += LINE;
        if counts.iter().all(|count| *count == 0) {
            continue;
        }
        let numbers: Vec<String> = counts.iter().map(usize::to_string).collect();
        shapes.push(Shape::Text(
            Text::new(numbers.join(" / "), (x + 8.0, base), Anchor::Start, 11.0).color(GREY),
        ));
    }
    Picture {
        width: WIDTH,
        height: y + 20.0,
        description: title,
        layers: vec![Layer { owner: None, shapes }],
    }
}

fn block(x: f64, y: f64, width: f64, height: f64, color: Color) -> Shape {
    let points = vec![(x, y), (x + width, y), (x + width, y + height), (x, y + height)];
    Shape::Area { points, color, opacity: 1.0 }
}
