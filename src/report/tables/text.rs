//! Parts of Markdown tables: cells, grids that also read as plain text, escaped names.

use std::fmt::Write;

use super::published::Mark;
use super::table::Value;

/// Formats a cell as `**93.4** [91.8, 94.9] (+0.3) ᵃ`, with several seeds as `93.4 ± 0.2 (+0.3)`, and a published value with the
/// mark of its origin, as `93.4†`.
pub(crate) fn cell_text(value: Option<&Value>) -> String {
    let Some(value) = value else { return "-".to_owned() };
    let number = value.rounded(value.value);
    let mut text = match value.mark {
        Mark::Bold => format!("**{number}**"),
        Mark::Italic => format!("_{number}_"),
        Mark::None => number.to_string(),
    };
    text += value.origin_mark();
    if let Some(spread) = value.spread {
        text += &format!(" ± {}", value.rounded(spread));
    }
    if let Some(interval) = value.interval {
        text += &format!(" [{}, {}]", value.rounded(interval.low), value.rounded(interval.high));
    }
    if let Some(difference) = value.difference() {
        text += &format!(" ({difference:+})");
    }
    let letters: Vec<String> = value.footnotes.iter().map(|place| letter(*place)).collect();
    if !letters.is_empty() {
        text += &format!(" {}", letters.join(","));
    }
    text
}

/// Superscript letters; Unicode lacks one for q.
const LETTERS: &str = "ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻ";

/// Returns the mark of the footnote with that index: `ᵃ`, `ᵇ`, and after the last letter `ᵃᵃ`.
pub(crate) fn letter(place: usize) -> String {
    let letters: Vec<char> = LETTERS.chars().collect();
    let letter = letters.get(place % letters.len()).copied().unwrap_or('*');
    std::iter::repeat_n(letter, place / letters.len() + 1).collect()
}

/// Renders a Markdown table with padded columns: words aligned left, numbers right.
pub(crate) fn grid(header: &[String], rows: &[Vec<String>]) -> String {
    let width = |text: &str| text.chars().count();
    let numeric = |c: char| c.is_ascii_digit() || "+-±.,*_[]() †‡§".contains(c) || LETTERS.contains(c);
    let number = |text: &str| text.chars().all(numeric);
    let numeric: Vec<bool> = (0..header.len())
        .map(|i| rows.iter().filter_map(|row| row.get(i)).all(|text| number(text)))
        .collect();
    let widths: Vec<usize> = (0..header.len())
        .map(|i| {
            let column = rows.iter().filter_map(|row| row.get(i));
            column.chain(header.get(i)).map(|text| width(text)).max().unwrap_or(0).max(3)
        })
        .collect();
    let line = |texts: &[String]| {
        let mut line = String::from("|");
        for ((text, wide), numeric) in texts.iter().zip(&widths).zip(&numeric) {
            let pad = " ".repeat(wide.saturating_sub(width(text)));
            line += &if *numeric { format!(" {pad}{text} |") } else { format!(" {text}{pad} |") };
        }
        line + "\n"
    };
    let rule: Vec<String> = widths
        .iter()
        .zip(&numeric)
        .map(|(wide, numeric)| {
            let dashes = "-".repeat(wide.saturating_sub(1));
            if *numeric { format!("{dashes}:") } else { format!(":{dashes}") }
        })
        .collect();
    let mut text = line(header) + &line(&rule);
    for row in rows {
        text += &line(row);
    }
    text
}

/// Escapes text so that Markdown shows it literally, on one line.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '\\' | '|' | '*' | '_' | '`' | '<' | '>' | '[' | ']' | '&' | '~' => {
                let _ = write!(escaped, "\\{c}");
            }
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Like [`escape`], for sentences: leaves `_` alone, which has no meaning within words.
pub(crate) fn escape_sentence(text: &str) -> String {
    escape(text).replace("\\_", "_")
}
