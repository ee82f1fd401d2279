//! A sample before it is read: the files it consists of.

use crate::data::Target;

/// A sample as listed.
#[derive(Debug, Clone)]
pub struct ListedSample {
    pub name: String,
    /// The image's files relative to the data set's folder: one file with all bands, or one file per band.
    pub images: Vec<String>,
    pub target: TargetPlace,
}

impl ListedSample {
    /// All files: the images, then the mask if there is one.
    pub fn files(&self) -> impl Iterator<Item = &String> {
        let mask = match &self.target {
            TargetPlace::File(mask) => Some(mask),
            TargetPlace::Known(_) => None,
        };
        self.images.iter().chain(mask)
    }
}

/// A sample's target, or the file that contains it.
#[derive(Debug, Clone)]
pub enum TargetPlace {
    Known(Target),
    /// File of the mask.
    File(String),
}
