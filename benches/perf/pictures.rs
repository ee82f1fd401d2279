//! Pictures of what was measured: ratios to the fastest peer, and growth with the size of the work.

use terrabench::canvas::{
    Anchor, BLACK, Color, Dash, GREY, GRID, Layer, PALETTE, Picture, Point, Shape, Text, shortened,
    text_width,
};

use super::measured::{Comparison, Growth, Measured, grouped};

const WIDTH: f64 = 900.0;
const MARGIN: f64 = 24.0;
const SIZE: f64 = 12.0;
/// Where the axis of ratios begins, behind the names.
const NAMES: f64 = 430.0;
const ROW: f64 = 22.0;
/// Height of a panel of growth with its title.
const PANEL: f64 = 220.0;

fn text(words: impl Into<String>, at: Point, anchor: Anchor, size: f64, color: Color) -> Shape {
    Shape::Text(Text::new(words, at, anchor, size).color(color))
}

fn line(points: Vec<Point>, color: Color, width: f64, dash: Dash) -> Shape {
    Shape::Line { points, color, width, dash }
}

fn dot(center: Point, radius: f64, color: Color, hollow: bool) -> Shape {
    Shape::Dot { center, radius, color, hollow }
}

/// Round numbers from `low` to `high`.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let powers = (low.log10().floor() as i32)..=(high.log10().ceil() as i32);
    let round = powers.flat_map(|power| [1.0, 2.0, 5.0].map(|round| round * 10f64.powi(power)));
    round.filter(|tick| (low..=high).contains(tick)).collect()
}

/// A row per comparison that has a peer: the ratio to its fastest peer, the range, and the goal. `None` without any.
pub fn ratios(measured: &[Measured]) -> Option<Picture> {
    let mut rows: Vec<(&Comparison, super::measured::Spread)> = measured
        .iter()
        .filter_map(|measured| match measured {
            Measured::Comparison(comparison) => {
                let peer = comparison.best_peer()?;
                Some((comparison, comparison.ratio(peer)?))
            }
            _ => None,
        })
        .collect();
    // A group whose bench ran twice stays together.
    let groups: Vec<&str> = rows.iter().map(|(comparison, _)| comparison.group.as_str()).collect();
    rows.sort_by_key(|(comparison, _)| groups.iter().position(|group| *group == comparison.group));
    let all = || {
        rows.iter()
            .flat_map(|(comparison, ratio)| [ratio.least, ratio.most, comparison.goal.unwrap_or(1.0), 1.0])
    };
    if rows.is_empty() {
        return None;
    }
    let (low, high) = (all().fold(f64::MAX, f64::min) / 1.15, all().fold(f64::MIN, f64::max) * 1.15);
    let right = WIDTH - MARGIN - 20.0;
    let x = |ratio: f64| NAMES + (ratio / low).ln() / (high / low).ln() * (right - NAMES);
    let mut shapes = Vec::new();
    let title = "How many times as fast as the fastest peer";
    shapes.push(Shape::Text(Text::new(title, (MARGIN, 34.0), Anchor::Start, 18.0).bold()));
    let meaning = "Dot: ratio of medians; bar: range; ring: goal. Right of the line at 1 this program is faster. perf.md names the peers.";
    shapes.push(text(meaning, (MARGIN, 56.0), Anchor::Start, SIZE, GREY));
    let top = 76.0;
    let mut y = top;
    let mut drawn = Vec::new();
    let mut group = "";
    for (comparison, ratio) in &rows {
        if comparison.group != group {
            group = &comparison.group;
            y += ROW + 4.0;
            drawn.push(Shape::Text(Text::new(group, (MARGIN, y), Anchor::Start, SIZE).bold()));
        }
        y += ROW;
        let name = shortened(&comparison.what, NAMES - MARGIN - 36.0, 11.0, false);
        drawn.push(text(name, (MARGIN + 8.0, y), Anchor::Start, 11.0, BLACK));
        let (height, color) =
            (y - 4.0, if ratio.median >= comparison.goal.unwrap_or(1.0) { PALETTE[2] } else { PALETTE[1] });
        drawn.push(line(vec![(x(ratio.least), height), (x(ratio.most), height)], color, 3.0, Dash::Solid));
        if let Some(goal) = comparison.goal {
            drawn.push(dot((x(goal), height), 5.0, GREY, true));
        }
        drawn.push(dot((x(ratio.median), height), 4.0, color, false));
        let value = format!("{:.2}", ratio.median);
        let (end, wide) =
            (x(ratio.most.max(comparison.goal.unwrap_or(0.0))) + 9.0, text_width(&value, 11.0, false));
        // At the edge the number stands on the other side.
        let (at, anchor) = if end + wide > WIDTH - 4.0 {
            (x(ratio.least.min(comparison.goal.unwrap_or(f64::MAX))) - 9.0, Anchor::End)
        } else {
            (end, Anchor::Start)
        };
        drawn.push(text(value, (at, y), anchor, 11.0, BLACK));
    }
    let bottom = y + 10.0;
    for tick in ticks(low, high) {
        let (color, width) = if tick == 1.0 { (BLACK, 1.2) } else { (GRID, 1.0) };
        shapes.push(line(vec![(x(tick), top + 10.0), (x(tick), bottom)], color, width, Dash::Solid));
        shapes.push(text(format!("{tick}"), (x(tick), bottom + 18.0), Anchor::Middle, 11.0, GREY));
    }
    shapes.extend(drawn);
    let description = format!("{title}, {} comparisons", rows.len());
    Some(Picture {
        width: WIDTH,
        height: bottom + 34.0,
        description,
        layers: vec![Layer { owner: None, shapes }],
    })
}

/// A panel per kind of work, both axes logarithmic. `None` without any.
pub fn growth(measured: &[Measured]) -> Option<Picture> {
    let growths: Vec<&Growth> = measured
        .iter()
        .filter_map(|measured| match measured {
            Measured::Growth(growth) if growth.points.len() > 1 => Some(growth),
            _ => None,
        })
        .collect();
    if growths.is_empty() {
        return None;
    }
    let mut shapes = Vec::new();
    let title = "Time by size";
    shapes.push(Shape::Text(Text::new(title, (MARGIN, 34.0), Anchor::Start, 18.0).bold()));
    let meaning = "Both axes logarithmic. Grey: time proportional to the size, through the last point.";
    shapes.push(text(meaning, (MARGIN, 56.0), Anchor::Start, SIZE, GREY));
    let across = (WIDTH - 2.0 * MARGIN) / 2.0;
    for (number, growth) in growths.iter().enumerate() {
        let left = MARGIN + across * (number % 2) as f64;
        let top = 80.0 + (PANEL + 70.0) * (number / 2) as f64;
        shapes.extend(panel(growth, left, top, across - 20.0));
    }
    let height = 80.0 + (PANEL + 70.0) * growths.len().div_ceil(2) as f64;
    let description = format!(
        "{title}: {}",
        growths.iter().map(|growth| growth.what.as_str()).collect::<Vec<_>>().join("; ")
    );
    Some(Picture { width: WIDTH, height, description, layers: vec![Layer { owner: None, shapes }] })
}

fn panel(growth: &Growth, left: f64, top: f64, width: f64) -> Vec<Shape> {
    let mut shapes = Vec::new();
    let name = shortened(&growth.what, width, SIZE, true);
    shapes.push(Shape::Text(Text::new(name, (left, top + 12.0), Anchor::Start, SIZE).bold()));
    let (start, end) = (left + 52.0, left + width - 12.0);
    let (upper, lower) = (top + 26.0, top + PANEL);
    let ends = |of: fn(&super::measured::Point) -> f64| {
        let values = || growth.points.iter().map(of).map(|value| value.max(1e-9));
        (values().fold(f64::MAX, f64::min) / 1.5, values().fold(f64::MIN, f64::max) * 1.5)
    };
    let ((x0, x1), (y0, y1)) = (ends(|point| point.at), ends(|point| point.seconds));
    let x = |at: f64| start + (at / x0).ln() / (x1 / x0).ln() * (end - start);
    let y = |seconds: f64| lower - (seconds.max(1e-9) / y0).ln() / (y1 / y0).ln() * (lower - upper);
    // Powers of ten alone where the axis spans many.
    let chosen = |low: f64, high: f64| {
        let all = ticks(low, high);
        let is_wide = high / low > 50.0;
        all.into_iter().filter(move |tick| !is_wide || (tick.log10() - tick.log10().round()).abs() < 1e-9)
    };
    for tick in chosen(y0, y1) {
        shapes.push(line(vec![(start, y(tick)), (end, y(tick))], GRID, 1.0, Dash::Solid));
        shapes.push(text(format!("{tick} s"), (start - 6.0, y(tick) + 4.0), Anchor::End, 10.0, GREY));
    }
    for tick in chosen(x0, x1) {
        shapes.push(line(vec![(x(tick), upper), (x(tick), lower)], GRID, 1.0, Dash::Solid));
        shapes.push(text(grouped(tick), (x(tick), lower + 15.0), Anchor::Middle, 10.0, GREY));
    }
    shapes.push(text(&growth.along, ((start + end) / 2.0, lower + 32.0), Anchor::Middle, 11.0, GREY));
    if let Some(last) = growth.points.last() {
        // From the edge of the panel at which the line leaves it.
        let slope = last.seconds / last.at;
        let from = x0.max(y0 / slope);
        shapes.push(line(
            vec![(x(from), y(slope * from)), (x(last.at), y(last.seconds))],
            GREY,
            1.0,
            Dash::Strokes(&[4.0, 4.0]),
        ));
    }
    let points: Vec<Point> = growth.points.iter().map(|point| (x(point.at), y(point.seconds))).collect();
    shapes.push(line(points.clone(), PALETTE[0], 2.0, Dash::Solid));
    shapes.extend(points.into_iter().map(|point| dot(point, 3.5, PALETTE[0], false)));
    shapes
}
