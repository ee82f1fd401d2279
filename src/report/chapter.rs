//! What the report says of one section.

use super::gather::Section;
use super::tables::table::ResultTable;
use crate::canvas::Picture;
use crate::record::Unreadable;

/// A picture of a section.
pub struct Figure {
    /// Without an ending.
    pub file: String,
    pub caption: String,
    pub picture: Picture,
}

/// What the report says of one section.
pub struct Chapter<'a> {
    pub section: &'a Section,
    /// Each with the name of its file; also those without a row of ours.
    pub tables: Vec<(&'a str, ResultTable<'a>)>,
    pub figures: Vec<Figure>,
    /// Records and predictions that the report goes without.
    pub unreadable: Vec<Unreadable>,
}

impl Chapter<'_> {
    /// The tables that have a row of ours.
    pub fn filled(&self) -> impl Iterator<Item = &(&str, ResultTable<'_>)> {
        self.tables.iter().filter(|(_, table)| !table.measured.is_empty())
    }
}
