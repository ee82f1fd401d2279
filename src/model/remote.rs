//! Encoders that are told which samples come, and that work on several batches at a time: those in another process.

use ndarray::Array3;

use super::encoder::{Batch, Context, Encoded, Want};
use crate::Result;
use crate::nn::heads::upernet::MapLevel;
use crate::task::Sensor;
use crate::task::bands::Band;

/// What an encoder is told before the batches of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct Announcement {
    /// Name of the suite.
    pub suite: String,
    /// Name of the task.
    pub task: String,
    /// The images of each sample, at least one.
    pub images: Vec<AnnouncedImage>,
    /// What is wanted of each image.
    pub want: Want,
    /// The most images in a batch.
    pub batch_size: usize,
    /// The normalisation of the pixels by name.
    pub normalization: String,
}

/// One of the images of each sample.
#[derive(Debug, Clone, PartialEq)]
pub struct AnnouncedImage {
    /// The sensor.
    pub sensor: Sensor,
    /// Label of its date, such as `before`, if a sample has several images of the sensor.
    pub date: Option<String>,
    /// The band of each channel.
    pub bands: Vec<Band>,
    /// Side of the images in pixels after resizing.
    pub side: usize,
    /// Side in pixels of the images as stored.
    pub stored_side: usize,
}

/// What an encoder answers to an [`Announcement`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreement {
    /// What stands for the weights in records and keys: see [`super::architecture::Outside::identity`].
    pub identity: String,
    /// Whether it takes pixels as stored, neither normalised nor resized.
    pub takes_stored: bool,
    /// Whether it takes all images of a sample at once.
    pub fuses: bool,
}

/// One image of each sample of a batch, as they were read: joining them to a tensor would copy pixels that are only passed on.
#[derive(Debug, Clone, Default)]
pub struct Unstacked {
    /// Pixels [c, h, w] per sample, all of one size.
    pub pixels: Vec<Array3<f32>>,
    /// When and where each image was taken.
    pub context: Context,
}

/// A batch that is being encoded. Calling it waits for the result.
pub type Pending<'a> = Box<dyn FnOnce() -> Result<Encoded> + 'a>;

/// An encoder that is told which samples come, and that works on several batches at a time.
pub trait RemoteEncoder {
    /// Tells it which samples come next.
    ///
    /// # Errors
    /// If it cannot be reached, refuses, or answers differently from before.
    fn announce(&self, announcement: &Announcement) -> Result<Agreement>;

    /// Returns how many batches it likes to have at a time, at least one.
    fn in_flight(&self) -> usize;

    /// Starts to encode a batch of announced samples. A batch with one image per sample, while several were announced, says
    /// with `image` which of them it is.
    ///
    /// # Errors
    /// If it cannot be reached or refuses.
    fn begin(&self, batch: Batch, want: Want, image: usize) -> Result<Pending<'_>>;

    /// Like [`RemoteEncoder::begin`]: one entry of `inputs` per image of a sample. Features come back to this program's memory.
    ///
    /// # Errors
    /// If it cannot be reached or refuses.
    fn begin_unstacked(&self, inputs: Vec<Unstacked>, want: Want, image: usize) -> Result<Pending<'_>>;

    /// Returns the sizes of the feature maps of an image, after an announcement that wants maps.
    ///
    /// # Errors
    /// If no maps were announced.
    fn map_levels(&self) -> Result<Vec<MapLevel>>;
}
