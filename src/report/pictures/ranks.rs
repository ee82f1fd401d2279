//! A critical-difference picture: the average ranks of models with their intervals, and lines that join models which the tasks
//! cannot tell apart.

use super::text;
use crate::canvas::{
    ALARM, Anchor, BLACK, Color, DEMO_NOTICE, Dash, GREY, GRID, Layer, PALETTE, Picture, Point, Shape, Text,
    shortened, text_width, wrapped,
};
use crate::report::ranking::{Ranking, Standing};
use crate::report::tables::table::Origin;

const WIDTH: f64 = 900.0;
const MARGIN: f64 = 24.0;
const LINE: f64 = 26.0;
const TEXT: f64 = 12.0;
/// The greatest width of a model's name.
const NAME: f64 = 300.0;
/// Distance between two joining lines.
const JOIN: f64 = 11.0;
/// Keeps the picture to about a page; the table has all models.
const MOST_MODELS: usize = 40;

/// Joins by the Nemenyi test and by drawing again.
const NEMENYI: Color = PALETTE[1];
const DRAWN: Color = PALETTE[0];

/// Draws the ranking.
pub fn draw(ranking: &Ranking) -> Picture {
    let shown = &ranking.standings[..ranking.standings.len().min(MOST_MODELS)];
    let mut shapes = Vec::new();
    let mut y = 34.0;
    let title = format!("Ranking over tasks: {}", ranking.title);
    let head = shortened(&title, WIDTH - 2.0 * MARGIN, 18.0, true);
    shapes.push(text(Text::new(head, (MARGIN, y), Anchor::Start, 18.0).bold()));
    if ranking.demo {
        y += 22.0;
        shapes.push(text(Text::new(DEMO_NOTICE, (MARGIN, y), Anchor::Start, 13.0).bold().color(ALARM)));
    }
    y += 4.0;
    for line in wrapped(&ranking.verdict(), WIDTH - 2.0 * MARGIN, TEXT) {
        y += 19.0;
        // The reader must not miss that the tasks decide nothing.
        let color = if ranking.is_undecided() { ALARM } else { GREY };
        shapes.push(text(Text::new(line, (MARGIN, y), Anchor::Start, TEXT).color(color)));
    }
    let drawn = joins(shown, |standing| &standing.groups);
    let nemenyi = joins(shown, |standing| &standing.nemenyi);
    let widest = shown.iter().map(|standing| text_width(&standing.name, TEXT, false)).fold(0.0, f64::max);
    let left = MARGIN + widest.min(NAME) + 16.0;
    let numbers = WIDTH - MARGIN - JOIN * (drawn.len() + nemenyi.len() + 1).min(24) as f64 - 12.0;
    let right = numbers - 48.0;
    let least = shown.iter().map(|s| s.interval.low.min(s.rank)).fold(f64::MAX, f64::min).floor();
    let most = shown.iter().map(|s| s.interval.high.max(s.rank)).fold(least + 1.0, f64::max).ceil();
    let x = |rank: f64| left + (rank - least) / (most - least) * (right - left);

    // The critical difference, as a bar above the ranks.
    y += 26.0;
    let label = format!("critical difference {:.1}", ranking.critical);
    let fits = ranking.critical <= most - least;
    let end = if fits { x(least + ranking.critical) } else { right };
    shapes.push(stroke((left, y), (end, y), NEMENYI, 2.5));
    for at in if fits { vec![left, end] } else { vec![left] } {
        shapes.push(stroke((at, y - 5.0), (at, y + 5.0), NEMENYI, 2.5));
    }
    let label = if fits { label } else { format!("{label}, longer than this axis") };
    shapes.push(text(Text::new(label, (left, y - 9.0), Anchor::Start, 11.0).color(NEMENYI)));
    let top = y + 14.0;
    let bottom = top + LINE * shown.len() as f64;

    let step = [1.0, 2.0, 5.0, 10.0].into_iter().find(|step| (most - least) / step <= 15.0).unwrap_or(20.0);
    let mut rank = least;
    while rank <= most {
        shapes.push(stroke((x(rank), top), (x(rank), bottom), GRID, 1.0));
        let label = Text::new(format!("{rank}"), (x(rank), bottom + 16.0), Anchor::Middle, 11.0);
        shapes.push(text(label.color(GREY)));
        rank += step;
    }
    let middle = |place: usize| top + LINE * (place as f64 + 0.5);
    for (place, standing) in shown.iter().enumerate() {
        let (y, measured) = (middle(place), standing.origin != Origin::Published);
        let name = shortened(&standing.name, NAME, TEXT, false);
        shapes.push(text(Text::new(name, (MARGIN, y + TEXT * 0.36), Anchor::Start, TEXT)));
        let color = if measured { BLACK } else { GREY };
        let (low, high) = (x(standing.interval.low), x(standing.interval.high));
        shapes.push(stroke((low, y), (high, y), color, 1.4));
        for end in [low, high] {
            shapes.push(stroke((end, y - 4.0), (end, y + 4.0), color, 1.4));
        }
        shapes.push(Shape::Dot { center: (x(standing.rank), y), radius: 4.0, color, hollow: !measured });
        let number =
            Text::new(format!("{:.2}", standing.rank), (right + 12.0, y + TEXT * 0.36), Anchor::Start, TEXT);
        shapes.push(text(number));
    }
    let mut at = numbers + 6.0;
    for (groups, color) in [(&nemenyi, NEMENYI), (&drawn, DRAWN)] {
        for (first, last) in groups {
            if at > WIDTH - MARGIN {
                break;
            }
            shapes.push(stroke((at, middle(*first) - 6.0), (at, middle(*last) + 6.0), color, 3.0));
            at += JOIN;
        }
        at += JOIN;
    }
    let mut end = bottom + 28.0;
    let (sampled, all) = ranking.sampled;
    let mut notes = vec![format!(
        "Average rank over {} (1 is best). Filled: measured. Whiskers: 95 % of draws of tasks and, for {sampled} of {all} values, of \
         test samples.",
        ranking.tasks.join(", ")
    )];
    notes.push("Lines at the right join models that are not told apart: by the Nemenyi test (left), by the draws (right).".to_owned());
    if ranking.standings.len() > shown.len() {
        notes
            .push(format!("{} more models appear in the table only.", ranking.standings.len() - shown.len()));
    }
    for line in notes.iter().flat_map(|note| wrapped(note, WIDTH - 2.0 * MARGIN, 11.0)) {
        end += 16.0;
        shapes.push(text(Text::new(line, (MARGIN, end), Anchor::Start, 11.0).color(GREY)));
    }
    Picture {
        width: WIDTH,
        height: end + 16.0,
        description: title,
        layers: vec![Layer { owner: None, shapes }],
    }
}

/// Returns the first and last member of each group of at least two.
fn joins<'s>(standings: &'s [Standing], of: impl Fn(&'s Standing) -> &'s Vec<usize>) -> Vec<(usize, usize)> {
    let count = standings.iter().flat_map(&of).max().map_or(0, |last| last + 1);
    let ends = |group: usize| {
        let members = |standing: &'s Standing| of(standing).contains(&group);
        let first = standings.iter().position(members)?;
        let last = standings.iter().rposition(members)?;
        (last > first).then_some((first, last))
    };
    (0..count).filter_map(ends).collect()
}

fn stroke(from: Point, to: Point, color: Color, width: f64) -> Shape {
    Shape::Line { points: vec![from, to], color, width, dash: Dash::Solid }
}
