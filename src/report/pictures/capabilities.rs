//! Scores of models over groups of tasks: a row per model, a column per group, darker where the score is higher.

use super::text;
use crate::canvas::{
    ALARM, Anchor, BLACK, Color, DEMO_NOTICE, GREY, Layer, Picture, Shape, Text, WHITE, shortened, wrapped,
};
use crate::report::capabilities::CapabilityScores;

const WIDTH: f64 = 1000.0;
const MARGIN: f64 = 24.0;
const LINE: f64 = 24.0;
const TEXT: f64 = 12.0;
/// The width of the models' names.
const NAME: f64 = 210.0;
/// Keeps the picture to about a page; the table has all models.
const MOST_MODELS: usize = 40;

/// Colours of the scores 0 and below, and 1 and above.
const LOW: Color = Color(247, 250, 253);
const HIGH: Color = Color(0, 114, 178);

/// Draws the scores.
pub fn draw(scores: &CapabilityScores) -> Picture {
    let shown = &scores.models[..scores.models.len().min(MOST_MODELS)];
    let mut shapes = Vec::new();
    let mut y = 34.0;
    let title = format!("Scores by capability: {}", scores.title);
    let head = shortened(&title, WIDTH - 2.0 * MARGIN, 18.0, true);
    shapes.push(text(Text::new(head, (MARGIN, y), Anchor::Start, 18.0).bold()));
    if scores.demo {
        y += 22.0;
        shapes.push(text(Text::new(DEMO_NOTICE, (MARGIN, y), Anchor::Start, 13.0).bold().color(ALARM)));
    }
    let left = MARGIN + NAME + 8.0;
    let column = (WIDTH - MARGIN - left) / scores.groups.len().max(1) as f64;
    let middle = |group: usize| left + column * (group as f64 + 0.5);
    let heads: Vec<Vec<String>> = scores
        .groups
        .iter()
        .map(|group| wrapped(&group.replace('-', "- "), column - 6.0, TEXT - 1.0))
        .collect();
    let lines = heads.iter().map(Vec::len).max().unwrap_or(0);
    y += 14.0;
    for (group, head) in heads.iter().enumerate() {
        for (line, words) in head.iter().enumerate() {
            // Aligned at the bottom.
            let at = y + 14.0 * (lines - head.len() + line + 1) as f64;
            let word = shortened(words, column - 4.0, TEXT - 1.0, false);
            shapes.push(text(Text::new(word, (middle(group), at), Anchor::Middle, TEXT - 1.0).color(GREY)));
        }
    }
    y += 14.0 * lines as f64 + 8.0;
    for model in shown {
        let name = Text::new(
            shortened(&model.name, NAME, TEXT, model.is_measured),
            (MARGIN, y + LINE * 0.5 + TEXT * 0.36),
            Anchor::Start,
            TEXT,
        );
        shapes.push(text(if model.is_measured { name.bold() } else { name }));
        for (group, score) in model.scores.iter().enumerate() {
            let Some(score) = score else { continue };
            let share = score.clamp(0.0, 1.0);
            let (x, edge) = (left + column * group as f64, 1.0);
            let corners = [
                (x + edge, y + edge),
                (x + column - edge, y + edge),
                (x + column - edge, y + LINE - edge),
                (x + edge, y + LINE - edge),
            ];
            shapes.push(Shape::Area { points: corners.to_vec(), color: between(share), opacity: 1.0 });
            let number = Text::new(
                format!("{score:.2}"),
                (middle(group), y + LINE * 0.5 + TEXT * 0.36),
                Anchor::Middle,
                TEXT,
            );
            shapes.push(text(number.color(if share > 0.55 { WHITE } else { BLACK })));
        }
        y += LINE;
    }
    let mut notes = vec!["Bold: measured. Empty: a task of the group is missing.".to_owned()];
    notes.extend(scores.notes.iter().cloned());
    if scores.models.len() > shown.len() {
        notes.push(format!("{} more models appear in the table only.", scores.models.len() - shown.len()));
    }
    y += 8.0;
    for line in notes.iter().flat_map(|note| wrapped(note, WIDTH - 2.0 * MARGIN, 11.0)) {
        y += 16.0;
        shapes.push(text(Text::new(line, (MARGIN, y), Anchor::Start, 11.0).color(GREY)));
    }
    Picture {
        width: WIDTH,
        height: y + 16.0,
        description: title,
        layers: vec![Layer { owner: None, shapes }],
    }
}

/// The colour of a score from 0 to 1.
fn between(share: f64) -> Color {
    let mix = |low: u8, high: u8| (f64::from(low) + share * (f64::from(high) - f64::from(low))).round() as u8;
    Color(mix(LOW.0, HIGH.0), mix(LOW.1, HIGH.1), mix(LOW.2, HIGH.2))
}
