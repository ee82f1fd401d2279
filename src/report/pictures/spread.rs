//! A strip per choice with a dot per value, and the published values as lines.

use super::{stroke, text};
use crate::canvas::{
    ALARM, Anchor, BLACK, Color, DEMO_NOTICE, Dash, GREY, GRID, Layer, PALETTE, Picture, Shape, Text, WHITE,
    shortened, wrapped,
};
use crate::report::spread::Spread;

const WIDTH: f64 = 900.0;
const MARGIN: f64 = 24.0;
const TEXT: f64 = 12.0;
const ROW: f64 = 19.0;
const DOT: f64 = 4.5;
/// The room of the values' names, left of the plot.
const NAMES: f64 = 260.0;
/// The room of the numbers, right of the plot.
const NUMBERS: f64 = 60.0;
const DASHES: [Dash; 2] = [Dash::Strokes(&[6.0, 4.0]), Dash::Strokes(&[2.0, 3.0])];

/// Draws the values; `None` if there are none.
pub fn draw(spread: &Spread) -> Option<Picture> {
    let metric = spread.metric()?;
    let scale = metric.about().scale;
    let mut shapes = Vec::new();
    let mut y = 34.0;
    let title = spread.title();
    let head = shortened(&title, WIDTH - 2.0 * MARGIN, 17.0, true);
    shapes.push(text(Text::new(head, (MARGIN, y), Anchor::Start, 17.0).bold()));
    if spread.demo {
        y += 22.0;
        shapes.push(text(Text::new(DEMO_NOTICE, (MARGIN, y), Anchor::Start, 13.0).bold().color(ALARM)));
    }
    let meaning = format!(
        "{}, higher is {}. One choice is changed at a time; the ring is the default. Bars are the intervals of the values.",
        metric.about().title,
        if scale.better.is_better(1.0, 0.0) { "better" } else { "worse" }
    );
    y += 4.0;
    for line in wrapped(&meaning, WIDTH - 2.0 * MARGIN, TEXT) {
        y += 18.0;
        shapes.push(text(Text::new(line, (MARGIN, y), Anchor::Start, TEXT).color(GREY)));
    }
    for (place, line) in spread.published.iter().enumerate() {
        y += 20.0;
        let (color, dash) = published_style(place);
        shapes.push(stroke(vec![(MARGIN, y - 4.0), (MARGIN + 34.0, y - 4.0)], color, 2.0, dash));
        let told = format!("published: {} by {}: {}", line.value, line.protocol, line.source);
        let told = shortened(&told, WIDTH - 2.0 * MARGIN - 44.0, TEXT, false);
        shapes.push(text(Text::new(told, (MARGIN + 44.0, y), Anchor::Start, TEXT)));
    }
    let (left, right) = (MARGIN + NAMES, WIDTH - MARGIN - NUMBERS);
    let of_metric = || spread.measured().filter(|measured| measured.metric == metric);
    let numbers = of_metric()
        .flat_map(|m| [Some(m.value), m.interval.map(|i| i.low), m.interval.map(|i| i.high)])
        .flatten()
        .chain(spread.published.iter().map(|line| line.value));
    let (low, high) = numbers.fold((f64::MAX, f64::MIN), |(low, high), x| (low.min(x), high.max(x)));
    let step = round_step((high - low).max(1e-9) / 6.0);
    let (low, high) = ((low / step).floor() * step, (high / step).ceil().max(low / step + 1.0) * step);
    let x = |value: f64| left + (value - low) / (high - low) * (right - left);
    let top = y + 26.0;
    let rows: usize = spread.strips.iter().map(|strip| strip.values.len() + 1).sum();
    let bottom = top + rows as f64 * ROW + spread.strips.len() as f64 * 6.0;
    let steps = ((high - low) / step).round() as usize;
    for place in 0..=steps {
        let tick = low + place as f64 * step;
        shapes.push(stroke(vec![(x(tick), top), (x(tick), bottom)], GRID, 1.0, Dash::Solid));
        let label = format!("{}", (tick * 1e6).round() / 1e6);
        for at in [top - 6.0, bottom + 16.0] {
            shapes.push(text(Text::new(label.clone(), (x(tick), at), Anchor::Middle, 11.0).color(GREY)));
        }
    }
    for (place, line) in spread.published.iter().enumerate() {
        let (color, dash) = published_style(place);
        shapes.push(stroke(vec![(x(line.value), top), (x(line.value), bottom)], color, 2.0, dash));
    }
    let mut y = top;
    for strip in &spread.strips {
        y += ROW + 3.0;
        let head = shortened(&strip.title, NAMES - 8.0, TEXT, true);
        shapes.push(text(Text::new(head, (MARGIN, y), Anchor::Start, TEXT).bold()));
        for value in &strip.values {
            y += ROW;
            let name = shortened(&value.label, NAMES - 24.0, TEXT, false);
            shapes.push(text(Text::new(name, (left - 10.0, y), Anchor::End, TEXT)));
            let middle = y - 4.0;
            match &value.outcome {
                Ok(measured) if measured.metric == metric => {
                    if let Some(interval) = measured.interval {
                        let ends = vec![(x(interval.low), middle), (x(interval.high), middle)];
                        shapes.push(stroke(ends, PALETTE[5], 3.0, Dash::Solid));
                    }
                    shapes.push(Shape::Dot {
                        center: (x(measured.value), middle),
                        radius: DOT,
                        color: BLACK,
                        hollow: value.is_default,
                    });
                    let number = scale.shown(measured.value);
                    shapes.push(text(Text::new(number, (WIDTH - MARGIN, y), Anchor::End, TEXT)));
                }
                Ok(measured) => {
                    let about = measured.metric.about();
                    let number = format!("{} {}", about.title, about.scale.shown(measured.value));
                    let number = Text::new(number, (WIDTH - MARGIN, y), Anchor::End, TEXT).color(GREY);
                    // A long name reaches into the plot, whose lines would run through it.
                    let behind = vec![(number.bounds().left - 4.0, middle), (right, middle)];
                    if behind[0].0 < right {
                        shapes.push(stroke(behind, WHITE, ROW - 2.0, Dash::Solid));
                    }
                    shapes.push(text(number));
                }
                Err(_) => {
                    let none = Text::new("no value", (WIDTH - MARGIN, y), Anchor::End, TEXT);
                    shapes.push(text(none.color(GREY)));
                }
            }
        }
        y += 3.0;
    }
    Some(Picture {
        width: WIDTH,
        height: bottom + 32.0,
        description: title,
        layers: vec![Layer { owner: None, shapes }],
    })
}

fn published_style(place: usize) -> (Color, Dash) {
    (PALETTE[place % (PALETTE.len() - 1)], DASHES[place / (PALETTE.len() - 1) % DASHES.len()])
}

/// Returns 1, 2 or 5 times a power of ten, at least `least`.
fn round_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0].into_iter().map(|round| round * power).find(|step| *step >= least).unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::round_step;

    #[test]
    fn steps_are_round() {
        assert_eq!([0.13, 0.2, 1.1, 4.0, 6.0].map(round_step), [0.2, 0.2, 2.0, 5.0, 10.0]);
    }
}
