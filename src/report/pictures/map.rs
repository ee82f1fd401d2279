//! Maps of a test split: images with similar features are near each other, and classes have colours and marks.

use ndarray::Array2;

use super::confusion::{head, subject};
use crate::canvas::{
    Anchor, BLACK, Color, Dash, GREY, GRID, Layer, PALETTE, Picture, Point, Shape, Text, shortened,
    text_width,
};
use crate::record::Record;
use crate::record::predictions::Named;
use crate::score::Targets;
use crate::solve::embedding::{is_by_tsne, plane};
use crate::task::Task;

const WIDTH: f64 = 900.0;
const MARGIN: f64 = 24.0;
/// Side of the square map.
const SIDE: f64 = 560.0;
const RADIUS: f64 = 3.4;
const TEXT: f64 = 11.0;
/// Distance between two lines of the legend.
const LINE: f64 = 17.0;
/// Every map is drawn with the same random start.
const SEED: u64 = 0;

/// Colours that colour-blind readers can tell apart; classes that share one have different marks.
const COLORS: [Color; 7] = [PALETTE[0], PALETTE[1], PALETTE[2], PALETTE[3], PALETTE[4], PALETTE[5], BLACK];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Disc,
    Cross,
    Square,
    Ring,
    Triangle,
    Plus,
    Diamond,
    Frame,
    Wedge,
    Rhombus,
    Tent,
}

const MARKS: [Mark; 11] = [
    Mark::Disc,
    Mark::Cross,
    Mark::Square,
    Mark::Ring,
    Mark::Triangle,
    Mark::Plus,
    Mark::Diamond,
    Mark::Frame,
    Mark::Wedge,
    Mark::Rhombus,
    Mark::Tent,
];

/// Draws the map of a record's test images; `None` if no features are stored beside its predictions, or they are all the same.
pub fn draw(task: &Task, record: &Record, named: &Named) -> Option<Picture> {
    let map = named.supplement.map.as_ref()?;
    let truth = named.predictions.truth()?;
    let groups = groups(&truth, &map.samples, task.classes)?;
    // Features that cannot be laid out have no map; the record stays.
    let places = plane(map.features.view(), SEED).ok().flatten()?;
    let (drawn, all) = (map.samples.len(), named.samples.len());
    let mut shapes = Vec::new();
    let title = format!("{}: map of the test images by their features", task.title);
    let some = match drawn == all {
        true => format!("all {all} test images"),
        false => format!("{drawn} of {all} test images, evenly spread over the split"),
    };
    let mut meaning = vec![
        subject(record),
        match is_by_tsne(drawn) {
            true => format!(
                "t-SNE of up to 50 principal components of the features of {some}. Near points have similar features; distances \
                 between groups and the axes mean nothing."
            ),
            false => format!(
                "The first two principal components of the features of {some}, which are too few for t-SNE. Points that are close together differ little \
                 in these two."
            ),
        },
    ];
    if let Targets::Labels(_) = *truth {
        meaning.push(
            "An image with several labels has the colour of that label which most of the images here have."
                .to_owned(),
        );
    }
    let top = head(&mut shapes, &title, record.demo, &meaning) + 4.0;
    let frame = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0), (0.0, 0.0)];
    let frame = frame.map(|(x, y)| (MARGIN + x * SIDE, top + y * SIDE)).to_vec();
    shapes.push(Shape::Line { points: frame, color: GRID, width: 1.0, dash: Dash::Solid });
    for (point, group) in placed(&places, top).into_iter().zip(&groups) {
        match group {
            Some(class) => mark(&mut shapes, *class, point),
            None => shapes.push(Shape::Dot { center: point, radius: 1.2, color: GREY, hollow: false }),
        }
    }
    let height = legend(&mut shapes, task, &groups, top);
    Some(Picture {
        width: WIDTH,
        height: top + SIDE.max(height) + MARGIN,
        description: title,
        layers: vec![Layer { owner: None, shapes }],
    })
}

/// Returns the class of each sample or, for several labels, that of its labels which most of the samples have; `None` without a
/// label. Returns no groups if a sample or class does not exist.
fn groups(truth: &Targets, samples: &[usize], classes: usize) -> Option<Vec<Option<usize>>> {
    if samples.iter().any(|sample| *sample >= truth.len()) || truth.outputs() != classes {
        return None;
    }
    match truth {
        Targets::Classes { classes: all, count } => {
            let class = |sample: &usize| Some(all[*sample]).filter(|class| class < count);
            Some(samples.iter().map(class).collect())
        }
        Targets::Labels(labels) => {
            let common = |label: usize| samples.iter().filter(|sample| labels[[**sample, label]]).count();
            let common: Vec<usize> = (0..classes).map(common).collect();
            // The lowest of equally common labels.
            let most = |sample: &usize| {
                let of_sample = (0..classes).rev().filter(|label| labels[[*sample, *label]]);
                of_sample.max_by_key(|label| common[*label])
            };
            Some(samples.iter().map(most).collect())
        }
        Targets::Values(_) => None,
    }
}

/// Scales the map to the frame; both axes alike, as distances count.
fn placed(places: &Array2<f64>, top: f64) -> Vec<Point> {
    let ends = |axis: usize| {
        let column = places.column(axis);
        column.fold((f64::MAX, f64::MIN), |(low, high), x| (low.min(*x), high.max(*x)))
    };
    let ((left, right), (low, high)) = (ends(0), ends(1));
    let room = SIDE - 6.0 * RADIUS;
    let scale = room / (right - left).max(high - low).max(f64::MIN_POSITIVE);
    let (middle_x, middle_y) = ((left + right) / 2.0, (low + high) / 2.0);
    let place = |row: ndarray::ArrayView1<f64>| {
        (MARGIN + SIDE / 2.0 + (row[0] - middle_x) * scale, top + SIDE / 2.0 - (row[1] - middle_y) * scale)
    };
    places.outer_iter().map(place).collect()
}

/// Lists the classes that occur, right of the map; returns its height.
fn legend(shapes: &mut Vec<Shape>, task: &Task, groups: &[Option<usize>], top: f64) -> f64 {
    let names = task.class_labels();
    let count = |class: usize| groups.iter().filter(|group| **group == Some(class)).count();
    let occurring: Vec<(usize, usize)> =
        (0..task.classes).map(|class| (class, count(class))).filter(|(_, count)| *count > 0).collect();
    let left = MARGIN + SIDE + 20.0;
    let per_column = ((SIDE / LINE) as usize).max(1);
    let columns = occurring.len().div_ceil(per_column).clamp(1, 3);
    let per_column = occurring.len().div_ceil(columns).max(1);
    let width = (WIDTH - MARGIN - left) / columns as f64;
    for (place, (class, count)) in occurring.iter().enumerate() {
        let x = left + width * (place / per_column) as f64;
        let y = top + LINE * ((place % per_column) as f64 + 0.5);
        mark(shapes, *class, (x + RADIUS + 1.0, y));
        let number = format!("{count}");
        let room = width - 2.0 * RADIUS - 16.0 - text_width(&number, TEXT, false);
        let name = shortened(&names[*class], room.max(10.0), TEXT, false);
        let after = x + 2.0 * RADIUS + 8.0;
        let behind = after + text_width(&name, TEXT, false) + 6.0;
        shapes.push(Shape::Text(Text::new(name, (after, y + 4.0), Anchor::Start, TEXT)));
        shapes.push(Shape::Text(Text::new(number, (behind, y + 4.0), Anchor::Start, TEXT).color(GREY)));
    }
    LINE * per_column as f64
}

/// Draws a class's mark.
fn mark(shapes: &mut Vec<Shape>, class: usize, (x, y): Point) {
    let color = COLORS[class % COLORS.len()];
    let r = RADIUS;
    let area = |corners: &[Point]| Shape::Area {
        points: corners.iter().map(|(dx, dy)| (x + dx * r, y + dy * r)).collect(),
        color,
        opacity: 1.0,
    };
    let line = |ends: &[Point]| Shape::Line {
        points: ends.iter().map(|(dx, dy)| (x + dx * r, y + dy * r)).collect(),
        color,
        width: 1.5,
        dash: Dash::Solid,
    };
    match MARKS[class / COLORS.len() % MARKS.len()] {
        Mark::Disc => shapes.push(Shape::Dot { center: (x, y), radius: r - 0.75, color, hollow: false }),
        Mark::Ring => shapes.push(Shape::Dot { center: (x, y), radius: r - 0.75, color, hollow: true }),
        Mark::Cross => {
            shapes.push(line(&[(-0.9, -0.9), (0.9, 0.9)]));
            shapes.push(line(&[(-0.9, 0.9), (0.9, -0.9)]));
        }
        Mark::Plus => {
            shapes.push(line(&[(-1.2, 0.0), (1.2, 0.0)]));
            shapes.push(line(&[(0.0, -1.2), (0.0, 1.2)]));
        }
        Mark::Square => shapes.push(area(&[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)])),
        Mark::Frame => shapes.push(line(&[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9), (-0.9, -1.1)])),
        Mark::Triangle => shapes.push(area(&[(0.0, -1.2), (1.1, 0.9), (-1.1, 0.9)])),
        Mark::Tent => shapes.push(line(&[(0.0, -1.2), (1.1, 0.9), (-1.1, 0.9), (0.0, -1.2)])),
        Mark::Wedge => shapes.push(area(&[(0.0, 1.2), (1.1, -0.9), (-1.1, -0.9)])),
        Mark::Diamond => shapes.push(area(&[(0.0, -1.3), (1.3, 0.0), (0.0, 1.3), (-1.3, 0.0)])),
        Mark::Rhombus => {
            shapes.push(line(&[(0.0, -1.3), (1.3, 0.0), (0.0, 1.3), (-1.3, 0.0), (0.1, -1.4)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn an_image_with_several_labels_has_the_colour_of_the_most_common_one() {
        let labels =
            array![[true, true, false], [false, true, false], [false, false, false], [true, false, true]];
        let truth = Targets::Labels(labels);
        // Labels 0 and 1 are on two images each.
        assert_eq!(groups(&truth, &[0, 1, 2, 3], 3), Some(vec![Some(0), Some(1), None, Some(0)]));
        assert_eq!(groups(&truth, &[4], 3), None);
    }

    #[test]
    fn every_class_of_a_large_task_has_its_own_look() {
        let look = |class: usize| (COLORS[class % COLORS.len()], MARKS[class / COLORS.len() % MARKS.len()]);
        let looks: Vec<_> = (0..62).map(look).collect();
        for (class, own) in looks.iter().enumerate() {
            assert!(!looks[..class].contains(own), "class {class}");
        }
    }
}
