//! A sample before it is read: which files it is made of.

use crate::data::Label;

/// A sample as its list names it.
#[derive(Debug, Clone)]
pub struct Item {
    pub name: String,
    /// The image's files, below the data set's folder: one with all bands, or one a band.
    pub images: Vec<String>,
    pub target: Target,
}

/// What a sample is labelled with, or where that stands.
#[derive(Debug, Clone)]
pub enum Target {
    Known(Label),
    /// The mask's file.
    Mask(String),
}
