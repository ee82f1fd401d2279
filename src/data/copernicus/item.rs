//! A sample before it is read: which files it is made of.

use crate::data::Target;

/// A sample as its list names it.
#[derive(Debug, Clone)]
pub struct ListedSample {
    pub name: String,
    /// The image's files, below the data set's folder: one with all bands, or one a band.
    pub images: Vec<String>,
    pub target: TargetPlace,
}

impl ListedSample {
    /// All files: the images, then the mask.
    pub fn files(&self) -> impl Iterator<Item = &String> {
        let mask = match &self.target {
            TargetPlace::File(mask) => Some(mask),
            TargetPlace::Known(_) => None,
        };
        self.images.iter().chain(mask)
    }
}

/// A sample's target, or where it stands.
#[derive(Debug, Clone)]
pub enum TargetPlace {
    Known(Target),
    /// The mask's file.
    File(String),
}
