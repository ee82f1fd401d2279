//! Accuracy against cost: one point per model, and the Pareto front, which joins the models that no cheaper one equals.

use super::labels::{Label, place};
use super::{stroke, text};
use crate::canvas::{
    ALARM, Anchor, BLACK, Bounds, DEMO_NOTICE, Dash, GREY, GRID, Layer, PALETTE, Picture, Point, Shape, Text,
    shortened, wrapped,
};
use crate::report::ranking::{Ranking, Standing};

const WIDTH: f64 = 900.0;
const MARGIN: f64 = 24.0;
const HEIGHT: f64 = 380.0;
const TEXT: f64 = 12.0;
const DOT: f64 = 4.5;
/// With fewer there is nothing to compare.
const FEWEST_MODELS: usize = 2;
/// The greatest width of a model's name.
const NAME: f64 = 260.0;

/// A model with known cost.
struct Priced<'r> {
    name: &'r str,
    gflops: f64,
    mean: f64,
}

/// Draws the models whose cost is known; `None` if there are fewer than two.
pub fn draw(ranking: &Ranking) -> Option<Picture> {
    let models: Vec<Priced> = ranking.standings.iter().filter_map(priced).collect();
    if models.len() < FEWEST_MODELS {
        return None;
    }
    let mut shapes = Vec::new();
    let mut y = 34.0;
    let title = format!("Accuracy by cost: {}", ranking.title);
    let head = shortened(&title, WIDTH - 2.0 * MARGIN, 18.0, true);
    shapes.push(text(Text::new(head, (MARGIN, y), Anchor::Start, 18.0).bold()));
    if ranking.demo {
        y += 22.0;
        shapes.push(text(Text::new(DEMO_NOTICE, (MARGIN, y), Anchor::Start, 13.0).bold().color(ALARM)));
    }
    y += 4.0;
    let meaning = format!(
        "Mean of {} in percent. GFLOPs for one image, counted from the architecture (two per multiply-add). The line joins the \
         models that no cheaper one equals. Models whose cost is not known are left out.",
        ranking.tasks.join(", ")
    );
    for line in wrapped(&meaning, WIDTH - 2.0 * MARGIN, TEXT) {
        y += 19.0;
        shapes.push(text(Text::new(line, (MARGIN, y), Anchor::Start, TEXT).color(GREY)));
    }
    let (left, right) = (MARGIN + 40.0, WIDTH - MARGIN - 20.0);
    let (top, bottom) = (y + 20.0, y + 20.0 + HEIGHT);
    let ends = |of: fn(&Priced) -> f64| {
        let values = || models.iter().map(of);
        (values().fold(f64::MAX, f64::min), values().fold(f64::MIN, f64::max))
    };
    let (cheapest, dearest) = ends(|model| model.gflops.max(1e-6));
    // Half a doubling of room on either side, so that a single cost has a scale too.
    let (cheapest, dearest) = (cheapest / 1.5, dearest * 1.5);
    let (worst, best) = ends(|model| model.mean);
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().find(|step| (best - worst) / step <= 6.0).unwrap_or(20.0);
    let (low, high) = ((worst / step).floor() * step, ((best / step).floor() + 1.0) * step);
    let x =
        |gflops: f64| left + (gflops.max(1e-6) / cheapest).ln() / (dearest / cheapest).ln() * (right - left);
    let height = |mean: f64| bottom - (mean - low) / (high - low) * (bottom - top);
    let mut tick = low;
    while tick <= high + 1e-9 {
        shapes.push(stroke(vec![(left, height(tick)), (right, height(tick))], GRID, 1.0, Dash::Solid));
        let label = Text::new(format!("{tick}"), (left - 8.0, height(tick) + 4.0), Anchor::End, 11.0);
        shapes.push(text(label.color(GREY)));
        tick += step;
    }
    for tick in ticks(cheapest, dearest) {
        shapes.push(stroke(vec![(x(tick), top), (x(tick), bottom)], GRID, 1.0, Dash::Solid));
        shapes.push(text(
            Text::new(format!("{tick}"), (x(tick), bottom + 18.0), Anchor::Middle, 11.0).color(GREY),
        ));
    }
    let axis = Text::new("GFLOPs per image", ((left + right) / 2.0, bottom + 36.0), Anchor::Middle, TEXT);
    shapes.push(text(axis.color(GREY)));
    let at = |model: &Priced| (x(model.gflops), height(model.mean));
    let path: Vec<Point> = front(&models).into_iter().map(|place| at(&models[place])).collect();
    let taken = covered(&path);
    shapes.push(stroke(path, PALETTE[0], 2.0, Dash::Strokes(&[6.0, 4.0])));
    shapes.extend(models.iter().map(|model| Shape::Dot {
        center: at(model),
        radius: DOT,
        color: BLACK,
        hollow: false,
    }));
    let labels: Vec<Label> = models
        .iter()
        .enumerate()
        .map(|(owner, model)| Label {
            owner,
            point: at(model),
            text: shortened(model.name, NAME, TEXT, false),
            size: TEXT,
            bold: false,
        })
        .collect();
    shapes.extend(place(&labels, &taken, DOT + 2.0, right).into_iter().map(|(_, label)| Shape::Text(label)));
    Some(Picture {
        width: WIDTH,
        height: bottom + 52.0,
        description: title,
        layers: vec![Layer { owner: None, shapes }],
    })
}

/// Returns small areas along the path, which labels must leave free.
fn covered(path: &[Point]) -> Vec<Bounds> {
    const STEPS: usize = 60;
    let segment = |pair: &[Point]| -> Vec<Bounds> {
        let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
        let at = |step: usize| {
            let share = step as f64 / STEPS as f64;
            let (x, y) = (x0 + share * (x1 - x0), y0 + share * (y1 - y0));
            Bounds { left: x, top: y, right: x, bottom: y }.grown(3.0)
        };
        (0..=STEPS).map(at).collect()
    };
    path.windows(2).flat_map(segment).collect()
}

fn priced(standing: &Standing) -> Option<Priced<'_>> {
    Some(Priced { name: &standing.name, gflops: standing.cost?.gflops(), mean: standing.mean? })
}

/// Returns the models on the front, from the cheapest: each is better than every cheaper one.
fn front(models: &[Priced]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..models.len()).collect();
    // Of models that cost the same, the best comes first.
    order.sort_by(|a, b| {
        let (a, b) = (&models[*a], &models[*b]);
        a.gflops.total_cmp(&b.gflops).then(b.mean.total_cmp(&a.mean))
    });
    let mut best = f64::NEG_INFINITY;
    order.retain(|place| {
        let is_better = models[*place].mean > best;
        best = best.max(models[*place].mean);
        is_better
    });
    order
}

/// Returns round costs between the ends: 1, 2 and 5 times powers of ten.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let powers = (low.log10().floor() as i32)..=(high.log10().ceil() as i32);
    let round = powers.flat_map(|power| [1.0, 2.0, 5.0].map(|round| round * 10f64.powi(power)));
    round.filter(|tick| (low..=high).contains(tick)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_holds_what_no_cheaper_model_equals() {
        let model = |gflops: f64, mean: f64| Priced { name: "", gflops, mean };
        let models =
            [model(10.0, 80.0), model(5.0, 80.0), model(1.0, 70.0), model(5.0, 60.0), model(20.0, 81.0)];
        assert_eq!(front(&models), [2, 1, 4]);
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(ticks(0.9, 22.0), [1.0, 2.0, 5.0, 10.0, 20.0]);
    }
}
