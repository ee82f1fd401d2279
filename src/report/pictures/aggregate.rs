//! Scores over several tasks: one line per model with its interval, between the lowest and highest values of the tasks.

use super::text;
use crate::canvas::{
    ALARM, Anchor, BLACK, Color, DEMO_NOTICE, Dash, GREY, GRID, Layer, Picture, Point, Shape, Text,
    shortened, text_width, wrapped,
};
use crate::report::aggregate::{ModelScore, Scores};
use crate::report::tables::table::Origin;

const WIDTH: f64 = 900.0;
const MARGIN: f64 = 24.0;
const LINE: f64 = 26.0;
const TEXT: f64 = 12.0;
/// The greatest width of a model's name.
const NAME: f64 = 300.0;
/// Keeps the picture to about a page; the table has all models.
const MOST_MODELS: usize = 40;

/// Draws the scores.
pub fn draw(scores: &Scores) -> Picture {
    let shown = &scores.models[..scores.models.len().min(MOST_MODELS)];
    let mut shapes = Vec::new();
    let mut y = 34.0;
    let head = shortened(&scores.title, WIDTH - 2.0 * MARGIN, 18.0, true);
    shapes.push(text(Text::new(head, (MARGIN, y), Anchor::Start, 18.0).bold()));
    if scores.demo {
        y += 22.0;
        shapes.push(text(Text::new(DEMO_NOTICE, (MARGIN, y), Anchor::Start, 13.0).bold().color(ALARM)));
    }
    let tasks: Vec<&str> = scores.tasks.iter().map(|(title, _)| title.as_str()).collect();
    let about = format!("Interquartile mean over {}", tasks.join(", "));
    for line in wrapped(&about, WIDTH - 2.0 * MARGIN, TEXT) {
        y += 19.0;
        shapes.push(text(Text::new(line, (MARGIN, y), Anchor::Start, TEXT).color(GREY)));
    }
    let widest = shown.iter().map(|model| text_width(&model.name, TEXT, false)).fold(0.0, f64::max);
    let (left, right) = (MARGIN + widest.min(NAME) + 16.0, WIDTH - MARGIN - 60.0);
    let ends = |model: &ModelScore| model.interval.map_or([model.score; 2], |i| [i.low, i.high]);
    let all = || shown.iter().flat_map(|model| ends(model).into_iter().chain([model.score]));
    let step = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];
    let (least, most) = (all().fold(0.0, f64::min), all().fold(1.0, f64::max));
    let step = step.into_iter().find(|step| (most - least) / step <= 12.0).unwrap_or(20.0);
    let (first, last) = ((least / step).floor() as i64, (most / step).ceil() as i64);
    let (low, high) = (first as f64 * step, last as f64 * step);
    let x = |score: f64| left + (score - low) / (high - low) * (right - left);
    let top = y + 22.0;
    let bottom = top + LINE * shown.len() as f64;
    for number in first..=last {
        let at = number as f64 * step;
        // The ranges of the tasks end here.
        let color = if at == 0.0 || (at - 1.0).abs() < 1e-9 { GREY } else { GRID };
        shapes.push(stroke((x(at), top), (x(at), bottom), color, 1.0));
        let label = Text::new(format!("{at:.1}"), (x(at), bottom + 16.0), Anchor::Middle, 11.0);
        shapes.push(text(label.color(GREY)));
    }
    for (place, model) in shown.iter().enumerate() {
        let (y, is_measured) = (top + LINE * (place as f64 + 0.5), model.origin != Origin::Published);
        let name = shortened(&model.name, NAME, TEXT, false);
        shapes.push(text(Text::new(name, (MARGIN, y + TEXT * 0.36), Anchor::Start, TEXT)));
        let color = if is_measured { BLACK } else { GREY };
        if model.interval.is_some() {
            let [low, high] = ends(model).map(x);
            shapes.push(stroke((low, y), (high, y), color, 1.4));
            for end in [low, high] {
                shapes.push(stroke((end, y - 4.0), (end, y + 4.0), color, 1.4));
            }
        }
        shapes.push(Shape::Dot { center: (x(model.score), y), radius: 4.0, color, hollow: !is_measured });
        let number =
            Text::new(format!("{:.2}", model.score), (right + 14.0, y + TEXT * 0.36), Anchor::Start, TEXT);
        shapes.push(text(number));
    }
    let mut end = bottom + 28.0;
    let mut notes = vec![
        "0: the lowest value of each task, 1: the highest. Filled: measured. Whiskers: 95 % of draws of seeds within each task; none \
         with one seed per task."
            .to_owned(),
    ];
    if scores.models.len() > shown.len() {
        notes.push(format!("{} more models appear in the table only.", scores.models.len() - shown.len()));
    }
    for line in notes.iter().flat_map(|note| wrapped(note, WIDTH - 2.0 * MARGIN, 11.0)) {
        end += 16.0;
        shapes.push(text(Text::new(line, (MARGIN, end), Anchor::Start, 11.0).color(GREY)));
    }
    let layers = vec![Layer { owner: None, shapes }];
    Picture { width: WIDTH, height: end + 16.0, description: scores.title.clone(), layers }
}

fn stroke(from: Point, to: Point, color: Color, width: f64) -> Shape {
    Shape::Line { points: vec![from, to], color, width, dash: Dash::Solid }
}
