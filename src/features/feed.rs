//! From samples on disk to batches on a device. The CPU preprocesses in the threads that read; other devices are given stored
//! pixels, which are fewer than the model's, and preprocess them.

use burn::tensor::Device;

use super::stages::{Stage, timed};
use super::{Extractor, Input, batch_device, images};
use crate::data::{Image, Sample, Split};
use crate::model::{Batch, InputSpec};
use crate::transform::Preprocess;
use crate::transform::augment::Dihedral;
use crate::transform::on_device::DevicePreprocess;
use crate::{Result, device};

/// Reads samples and makes batches of them for one preprocessing, flip or rotation and device.
pub struct Feed<'a> {
    input: &'a Input,
    preprocess: &'a Preprocess,
    turn: Dihedral,
    device: Device,
    spec: InputSpec,
    /// One per image of a sample; `None` if the CPU preprocesses.
    on_device: Option<Vec<DevicePreprocess>>,
}

impl<'a> Feed<'a> {
    /// Creates a feed for an extractor, which preprocesses where the encoder computes if that is another device of this machine.
    pub fn new(extractor: &Extractor<'a>, preprocess: &'a Preprocess, turn: Dihedral) -> Self {
        let device = batch_device(extractor.encoder, extractor.device);
        let feed = Feed::of(extractor.input, preprocess, turn, device);
        if device::is_host(&feed.device) || !DevicePreprocess::fits(preprocess, &feed.device) {
            feed
        } else {
            feed.on_device()
        }
    }

    /// Creates a feed that preprocesses on the CPU and makes batches on `device`.
    pub fn of(input: &'a Input, preprocess: &'a Preprocess, turn: Dihedral, device: Device) -> Self {
        Feed { input, preprocess, turn, device, spec: input.spec(), on_device: None }
    }

    /// Where batches are made.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Preprocesses on the device, whichever it is.
    #[must_use]
    pub fn on_device(mut self) -> Self {
        let mut first = 0;
        let parts = self.spec.images.iter().map(|image| {
            let part = self.preprocess.part(first, image.channels);
            first += image.channels;
            DevicePreprocess::new(&part, &self.device)
        });
        self.on_device = Some(parts.collect());
        self
    }

    /// How the images of a sample enter an encoder.
    pub fn spec(&self) -> &InputSpec {
        &self.spec
    }

    /// Reads a sample and prepares its images for [`Feed::batch`].
    ///
    /// # Errors
    /// If the sample cannot be read or preprocessed.
    pub fn read(&self, split: Split, index: usize) -> Result<Sample> {
        let sample = timed(Stage::Read, || self.input.stored(split, index))?;
        Ok(Sample { images: self.prepared(sample.images)?, ..sample })
    }

    /// Prepares a sample's stored images for [`Feed::batch`].
    ///
    /// # Errors
    /// If they cannot be preprocessed.
    pub fn prepared(&self, stored: Vec<Image>) -> Result<Vec<Image>> {
        if self.on_device.is_some() {
            return Ok(stored);
        }
        let mut images = timed(Stage::Prepare, || self.input.prepared(self.preprocess, stored))?;
        for image in &mut images {
            image.pixels = self.turn.apply(std::mem::take(&mut image.pixels));
        }
        Ok(images)
    }

    /// Builds a batch from the results of [`Feed::read`] or [`Feed::prepared`]: pixels [n, c, height, width] per image of a sample.
    ///
    /// # Errors
    /// If samples differ in their number of images, or their images do not fit the preprocessing.
    pub fn batch<'s>(&self, samples: impl Iterator<Item = &'s [Image]>) -> Result<Batch> {
        match &self.on_device {
            None => images::batch(&self.spec, samples, &self.device),
            Some(parts) => images::batch_of_stored(&self.spec, samples, &self.device, parts, self.turn),
        }
    }
}
