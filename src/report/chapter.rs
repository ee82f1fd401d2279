//! The report's tables and pictures of one section.

use super::gather::Section;
use super::plain::PlainTable;
use super::tables::table::ResultTable;
use crate::canvas::Picture;
use crate::record::Unreadable;

/// A picture of a section.
pub struct Figure {
    /// File name without extension.
    pub file: String,
    /// The caption, which is also the alternative text.
    pub caption: String,
    /// The picture.
    pub picture: Picture,
    /// Its numbers, shown below it.
    pub table: Option<PlainTable>,
    /// What a paper includes to show it; `None` for pictures that check a run rather than report on it.
    pub latex: Option<String>,
}

impl Figure {
    /// Makes a figure without a table and without LaTeX.
    pub fn new(file: impl Into<String>, caption: impl Into<String>, picture: Picture) -> Self {
        Figure { file: file.into(), caption: caption.into(), picture, table: None, latex: None }
    }
}

/// The report's tables and pictures of one section.
pub struct Chapter<'a> {
    /// The section's records.
    pub section: &'a Section,
    /// All tables with their file names, including those without a measured row.
    pub tables: Vec<(&'a str, ResultTable<'a>)>,
    /// The pictures, in the order of the page.
    pub figures: Vec<Figure>,
    /// What mistaken bands cost: see [`super::mistaken_bands`]. `None` if no cell was measured with both kinds of inputs.
    pub mistaken_bands: Option<PlainTable>,
    /// Unusable records and predictions, which the report leaves out.
    pub unreadable: Vec<Unreadable>,
}

impl Chapter<'_> {
    /// Iterates over the tables with at least one measured row.
    pub fn filled(&self) -> impl Iterator<Item = &(&str, ResultTable<'_>)> {
        self.tables.iter().filter(|(_, table)| !table.measured.is_empty())
    }
}
