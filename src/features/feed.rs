//! From samples on disk to batches on a device. The CPU preprocesses in the threads that read; other devices are given stored
//! pixels, which are fewer than the model's, and preprocess them.

use burn::tensor::{Device, Tensor};

use super::images::{BatchBuffers, StoredBatch};
use super::stages::{Stage, timed};
use super::{Extractor, Input, batch_device, images};
use crate::data::{Image, Sample, Split};
use crate::model::{Batch, InputSpec};
use crate::transform::Preprocess;
use crate::transform::augment::{Dihedral, Turn};
use crate::transform::on_device::DevicePreprocess;
use crate::transform::turn_on_device::turn_images;
use crate::{Error, Result, device};

/// Reads samples and makes batches of them for one preprocessing, flip or rotation and device.
pub struct Feed<'a> {
    input: &'a Input,
    preprocess: &'a Preprocess,
    turn: Dihedral,
    device: Device,
    spec: InputSpec,
    /// One per image of a sample; `None` if the CPU preprocesses.
    on_device: Option<Vec<DevicePreprocess>>,
    buffers: BatchBuffers,
}

/// Makes batches for training on a device: images are uploaded as stored, and normalised, resized and turned there.
#[derive(Debug)]
pub struct DeviceFeed {
    spec: InputSpec,
    /// One per image of a sample.
    parts: Vec<DevicePreprocess>,
    /// Without autodiff.
    device: Device,
    buffers: BatchBuffers,
}

impl DeviceFeed {
    /// Creates a feed on `device`, whichever it is.
    pub fn new(input: &Input, preprocess: &Preprocess, device: &Device) -> Self {
        let (spec, device) = (input.spec(), device.clone().inner());
        DeviceFeed {
            parts: parts(&spec, preprocess, &device),
            spec,
            device,
            buffers: BatchBuffers::default(),
        }
    }

    /// Creates a feed if images of `device` are better prepared there: it is not the CPU, and can do it.
    pub fn for_device(input: &Input, preprocess: &Preprocess, device: &Device) -> Option<Self> {
        let inner = device.clone().inner();
        let fits = !device::is_host(&inner) && DevicePreprocess::fits(preprocess, &inner);
        fits.then(|| DeviceFeed::new(input, preprocess, device))
    }

    /// Builds a batch of stored images with a turn per sample: pixels [n, c, height, width] per image of a sample, on the device
    /// without autodiff.
    ///
    /// # Errors
    /// If samples differ in their number of images, or their images do not fit the preprocessing or their turns.
    pub fn batch<'s>(&self, samples: impl Iterator<Item = &'s [Image]>, turns: &[Turn]) -> Result<Batch> {
        let stored = images::upload_stored(&self.spec, samples, &self.device, &self.buffers)?;
        let mut batch = images::batch_of_stored(&self.spec, &stored, &self.parts, Dihedral::Identity)?;
        for input in &mut batch.inputs {
            input.pixels = turn_images(input.pixels.clone(), turns)?;
        }
        Ok(batch)
    }

    /// Like [`DeviceFeed::batch`], on the device with autodiff.
    ///
    /// # Errors
    /// Like [`DeviceFeed::batch`].
    pub fn training_batch<'s>(
        &self,
        samples: impl Iterator<Item = &'s [Image]>,
        turns: &[Turn],
    ) -> Result<Batch> {
        let mut batch = self.batch(samples, turns)?;
        for input in &mut batch.inputs {
            input.pixels = Tensor::from_inner(input.pixels.clone());
        }
        Ok(batch)
    }
}

/// The preprocessing of each image of a sample, with its constants on the device.
fn parts(spec: &InputSpec, preprocess: &Preprocess, device: &Device) -> Vec<DevicePreprocess> {
    let mut first = 0;
    let part = |channels: usize| {
        let part = preprocess.part(first, channels);
        first += channels;
        DevicePreprocess::new(&part, device)
    };
    spec.images.iter().map(|image| image.channels).map(part).collect()
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
        Feed {
            input,
            preprocess,
            turn,
            device,
            spec: input.spec(),
            on_device: None,
            buffers: BatchBuffers::default(),
        }
    }

    /// Where batches are made.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Preprocesses on the device, whichever it is.
    #[must_use]
    pub fn on_device(mut self) -> Self {
        self.on_device = Some(parts(&self.spec, self.preprocess, &self.device));
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
            Some(_) => self.batch_of(&self.upload(samples)?),
        }
    }

    /// Whether images are preprocessed on the device.
    pub fn is_on_device(&self) -> bool {
        self.on_device.is_some()
    }

    /// Uploads images as stored, for [`Feed::batch_of`] of this feed and of those of other preprocessings.
    ///
    /// # Errors
    /// If samples differ in their number of images.
    pub fn upload<'s>(&self, samples: impl Iterator<Item = &'s [Image]>) -> Result<StoredBatch> {
        images::upload_stored(&self.spec, samples, &self.device, &self.buffers)
    }

    /// Builds a batch of uploaded images: pixels [n, c, height, width] per image of a sample.
    ///
    /// # Errors
    /// If the images do not fit the preprocessing, or this feed preprocesses on the CPU.
    pub fn batch_of(&self, stored: &StoredBatch) -> Result<Batch> {
        let parts = self.on_device.as_ref();
        let parts =
            parts.ok_or_else(|| Error::mismatch("stored images in a feed that prepares on the CPU"))?;
        images::batch_of_stored(&self.spec, stored, parts, self.turn)
    }

    /// The memory in which batches are put together.
    pub fn buffers(&self) -> &BatchBuffers {
        &self.buffers
    }
}
