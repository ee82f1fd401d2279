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

impl Item {
    /// All files: the images, then the mask.
    pub fn files(&self) -> impl Iterator<Item = &String> {
        let mask = match &self.target {
            Target::Mask(mask) => Some(mask),
            Target::Known(_) => None,
        };
        self.images.iter().chain(mask)
    }
}

/// What a sample is labelled with, or where that stands.
#[derive(Debug, Clone)]
pub enum Target {
    Known(Label),
    /// The mask's file.
    Mask(String),
}
