//! A performance profile: for each model, on which share of the tasks its error is at most so many times the least error
//! [Dolan and Moré 2002]. Lines further up and to the left are better.

use super::{stroke, text};
use crate::canvas::{
    ALARM, Anchor, BLACK, Color, DEMO_NOTICE, Dash, GREY, GRID, Layer, PALETTE, Picture, Point, Text,
    shortened, wrapped,
};
use crate::report::ranking::{Ranking, Standing};
use crate::report::tables::table::Origin;

const WIDTH: f64 = 900.0;
const MARGIN: f64 = 24.0;
const HEIGHT: f64 = 300.0;
const TEXT: f64 = 12.0;
/// The room of the legend, right of the plot.
const LEGEND: f64 = 320.0;
const DASHES: [Dash; 2] = [Dash::Solid, Dash::Strokes(&[6.0, 4.0])];
/// More lines in one picture would be hard to tell apart.
const MOST_MODELS: usize = 10;
/// Greatest multiple on the axis; models beyond it count as missing the task.
const FARTHEST: f64 = 20.0;

/// Draws the profile of the ranking's best models and of the measured ones.
pub fn draw(ranking: &Ranking) -> Picture {
    let shown = shown(&ranking.standings);
    let mut shapes = Vec::new();
    let mut y = 34.0;
    let title = format!("Performance profile: {}", ranking.title);
    let head = shortened(&title, WIDTH - 2.0 * MARGIN, 18.0, true);
    shapes.push(text(Text::new(head, (MARGIN, y), Anchor::Start, 18.0).bold()));
    if ranking.demo {
        y += 22.0;
        shapes.push(text(Text::new(DEMO_NOTICE, (MARGIN, y), Anchor::Start, 13.0).bold().color(ALARM)));
    }
    let meaning = format!(
        "Share of the {} tasks on which a model's error is at most so many times the least error of all {} models.",
        ranking.tasks.len(),
        ranking.standings.len()
    );
    y += 4.0;
    for line in wrapped(&meaning, WIDTH - 2.0 * MARGIN, TEXT) {
        y += 19.0;
        shapes.push(text(Text::new(line, (MARGIN, y), Anchor::Start, TEXT).color(GREY)));
    }
    let (left, right) = (MARGIN + 48.0, WIDTH - MARGIN - LEGEND - 24.0);
    let (top, bottom) = (y + 20.0, y + 20.0 + HEIGHT);
    let ratios =
        || shown.iter().flat_map(|(standing, ..)| &standing.ratios).filter(|ratio| ratio.is_finite());
    let far = ratios().fold(1.1, |far: f64, ratio| far.max(*ratio)).min(FARTHEST) * 1.02;
    let x = |ratio: f64| left + ratio.ln() / far.ln() * (right - left);
    let height = |share: f64| bottom - share * (bottom - top);
    for share in [0.0, 0.25, 0.5, 0.75, 1.0] {
        shapes.push(stroke(vec![(left, height(share)), (right, height(share))], GRID, 1.0, Dash::Solid));
        let label = crate::report::percent(share);
        shapes.push(text(Text::new(label, (left - 8.0, height(share) + 4.0), Anchor::End, 11.0).color(GREY)));
    }
    for tick in ticks(far) {
        shapes.push(stroke(vec![(x(tick), top), (x(tick), bottom)], GRID, 1.0, Dash::Solid));
        let label = Text::new(format!("{tick}"), (x(tick), bottom + 18.0), Anchor::Middle, 11.0);
        shapes.push(text(label.color(GREY)));
    }
    let label =
        Text::new("multiple of the least error", ((left + right) / 2.0, bottom + 36.0), Anchor::Middle, TEXT);
    shapes.push(text(label.color(GREY)));
    // The best model is drawn last, on top.
    for (standing, color, dash) in shown.iter().rev() {
        let path = steps(&standing.ratios, far).into_iter().map(|(ratio, share)| (x(ratio), height(share)));
        shapes.push(stroke(path.collect(), *color, 2.0, *dash));
    }
    let mut at = top + 8.0;
    for (standing, color, dash) in &shown {
        let start = right + 28.0;
        shapes.push(stroke(vec![(start, at - 4.0), (start + 32.0, at - 4.0)], *color, 2.0, *dash));
        let name = shortened(&standing.name, LEGEND - 46.0, TEXT, false);
        shapes.push(text(Text::new(name, (start + 42.0, at), Anchor::Start, TEXT)));
        at += 24.0;
    }
    let mut end = bottom + 44.0;
    if ranking.standings.len() > shown.len() {
        let more = ranking.standings.len() - shown.len();
        end += 16.0;
        let note = format!("{more} more models take part but are not drawn.");
        shapes.push(text(Text::new(note, (MARGIN, end), Anchor::Start, 11.0).color(GREY)));
    }
    Picture {
        width: WIDTH,
        height: end + 16.0,
        description: title,
        layers: vec![Layer { owner: None, shapes }],
    }
}

/// Chooses the measured models and the best published ones, sorted by rank; measured lines are black, the others coloured.
fn shown(standings: &[Standing]) -> Vec<(&Standing, Color, Dash)> {
    let is_measured = |standing: &&Standing| standing.origin != Origin::Published;
    let measured = standings.iter().filter(is_measured).count().min(MOST_MODELS - 4);
    let (mut ours, mut theirs) = (0, 0);
    let mut chosen = Vec::new();
    for standing in standings {
        if is_measured(&standing) && ours < measured {
            // Black with two dashes, then colours, as for published models.
            let color =
                if ours < DASHES.len() { BLACK } else { PALETTE[(PALETTE.len() - ours) % PALETTE.len()] };
            chosen.push((standing, color, DASHES[ours % DASHES.len()]));
            ours += 1;
        } else if !is_measured(&standing) && theirs < MOST_MODELS - measured {
            chosen.push((
                standing,
                PALETTE[theirs % PALETTE.len()],
                DASHES[theirs / PALETTE.len() % DASHES.len()],
            ));
            theirs += 1;
        }
    }
    chosen
}

/// Returns the corners of the line: (multiple, share of tasks), from multiple 1 to `far`.
fn steps(ratios: &[f64], far: f64) -> Vec<Point> {
    let mut sorted = ratios.to_vec();
    sorted.sort_by(f64::total_cmp);
    let share = |count: usize| count as f64 / sorted.len() as f64;
    let mut corners = vec![(1.0, 0.0)];
    for (count, ratio) in sorted.iter().enumerate().filter(|(_, ratio)| **ratio <= far) {
        corners.push((*ratio, share(count)));
        corners.push((*ratio, share(count + 1)));
    }
    let last = corners.last().map_or(0.0, |(_, share)| *share);
    corners.push((far, last));
    corners
}

/// Returns round multiples up to `far`.
fn ticks(far: f64) -> Vec<f64> {
    let fine = [1.0, 1.05, 1.1, 1.2, 1.3, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0];
    let coarse = [1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0];
    let chosen: &[f64] = if far < 2.0 { &fine } else { &coarse };
    chosen.iter().copied().filter(|tick| *tick <= far).collect()
}
