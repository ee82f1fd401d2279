//! Small tables of text that are the same in `report.md` and on the page: rankings, the checklist.

use super::tables::text::{escape, grid};
use crate::canvas::xml_text;

/// A table of text with remarks below it.
#[derive(Debug, Clone, Default)]
pub struct PlainTable {
    /// Headings of the columns.
    pub header: Vec<String>,
    /// One text per column.
    pub rows: Vec<Vec<String>>,
    /// Remarks, one sentence or more each.
    pub notes: Vec<String>,
}

impl PlainTable {
    /// Renders the table and its remarks as Markdown.
    pub fn markdown(&self) -> String {
        let escaped = |texts: &[String]| texts.iter().map(|text| escape(text)).collect::<Vec<_>>();
        let rows: Vec<Vec<String>> = self.rows.iter().map(|row| escaped(row)).collect();
        let mut text = grid(&escaped(&self.header), &rows);
        if !self.notes.is_empty() {
            text += "\n";
        }
        for note in &self.notes {
            text += &format!("- {}\n", escape(note));
        }
        text
    }

    /// Renders the table and its remarks as HTML.
    pub fn html(&self, label: &str) -> String {
        let head: String =
            self.header.iter().map(|text| format!("<th scope=\"col\">{}</th>", xml_text(text))).collect();
        let cells = |row: &[String]| -> String {
            row.iter().map(|text| format!("<td>{}</td>", prose(text))).collect()
        };
        let rows: String = self.rows.iter().map(|row| format!("<tr>{}</tr>\n", cells(row))).collect();
        let notes: String = self.notes.iter().map(|note| format!("<p>{}</p>\n", prose(note))).collect();
        format!(
            "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{}\">\n<table class=\"plain\">\n\
             <thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n</div>\n{notes}",
            xml_text(label)
        )
    }
}

/// Escapes a text for a page, and sets what stands between backticks as code.
fn prose(text: &str) -> String {
    let parts: Vec<&str> = text.split('`').collect();
    let part = |(place, part): (usize, &&str)| match place % 2 {
        0 => xml_text(part),
        _ if place + 1 < parts.len() => format!("<code>{}</code>", xml_text(part)),
        // A backtick without a second one.
        _ => format!("`{}", xml_text(part)),
    };
    parts.iter().enumerate().map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::prose;

    #[test]
    fn names_between_backticks_are_set_as_code() {
        assert_eq!(prose("run `a < b` again"), "run <code>a &lt; b</code> again");
        assert_eq!(prose("a ` b"), "a ` b");
    }
}
