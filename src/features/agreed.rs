//! An input as agreed with an encoder that is told which samples come: it may take pixels as stored, or all images at once.

use super::{ImageInput, Input, Preparation};
use crate::model::remote::{AnnouncedImage, Announcement};
use crate::model::{Encoder, Want};
use crate::task::Suite;
use crate::transform::Preprocess;
use crate::transform::normalize::Normalization;
use crate::transform::strategies;
use crate::{Error, Result};

/// An input and the encoder's identity.
pub struct Agreed {
    /// The samples, prepared as the encoder takes them.
    pub input: Input,
    /// What stands for the weights in records and keys.
    pub weights: String,
    /// What the encoder was told; none if it needs not be told anything.
    pub announcement: Option<Announcement>,
}

impl Agreed {
    /// Tells `encoder` which samples of `input` come, and what is wanted first. `asked` is the normalisation on the command
    /// line.
    ///
    /// # Errors
    /// If the encoder cannot be reached or refuses, or it takes pixels as stored and another normalisation was asked for. The
    /// input comes back with the error.
    #[expect(clippy::result_large_err, reason = "the input is not copied")]
    pub fn negotiate(
        encoder: &dyn Encoder,
        suite: &Suite,
        mut input: Input,
        want: Want,
        batch_size: usize,
        asked: &str,
    ) -> Result<Self, (Error, Input)> {
        match input.announce(encoder, suite, want, batch_size, asked) {
            Ok((weights, announcement)) => Ok(Agreed { input, weights, announcement: Some(announcement) }),
            Err(error) => Err((error, input)),
        }
    }

    /// Tells `encoder` what is wanted next, if it must be told.
    ///
    /// # Errors
    /// As [`Agreed::negotiate`].
    pub fn announce(&self, encoder: &dyn Encoder, want: Want) -> Result<()> {
        let (Some(announcement), Some(remote)) = (&self.announcement, encoder.remote()) else {
            return Ok(());
        };
        remote.announce(&Announcement { want, ..announcement.clone() }).map(drop)
    }
}

impl Input {
    /// Tells `encoder` what comes and adapts to its answer. Returns its identity and what it was told.
    fn announce(
        &mut self,
        encoder: &dyn Encoder,
        suite: &Suite,
        want: Want,
        batch_size: usize,
        asked: &str,
    ) -> Result<(String, Announcement)> {
        let input = self;
        let Some(remote) = encoder.remote() else {
            return Err(Error::mismatch("this encoder is not told what comes"));
        };
        let announcement = Announcement {
            suite: suite.name.clone(),
            task: input.task.name.clone(),
            images: input.announced_images(suite)?,
            want,
            batch_size,
            normalization: input.normalization.clone(),
        };
        let agreement = remote.announce(&announcement)?;
        if agreement.takes_stored {
            if ![strategies::DEFAULT, strategies::NONE].contains(&asked) {
                let problem =
                    format!("the encoder takes pixels as stored, so they cannot be normalised by `{asked}`");
                return Err(Error::request(problem)
                    .help("leave out --normalization, or let the encoder ask for float32"));
            }
            input.leave_as_stored();
        }
        input.fused = agreement.fuses && input.images.len() > 1;
        Ok((agreement.identity, announcement))
    }

    /// Describes the images of each sample to whoever takes them.
    ///
    /// # Errors
    /// If the stored name of a band cannot be told.
    pub(crate) fn announced_images(&self, suite: &Suite) -> Result<Vec<AnnouncedImage>> {
        // A model that ignores the bands' names has none, but who is told of its images needs one per channel.
        let bands = |image: &ImageInput| match image.bands.as_ref() {
            [] => image
                .selection
                .stored
                .iter()
                .map(|name| suite.band_of(&self.task, name))
                .collect::<Result<Vec<_>>>(),
            bands => Ok(bands.to_vec()),
        };
        let announced = |image: &ImageInput| {
            Ok(AnnouncedImage {
                sensor: image.sensor,
                date: image.date.clone(),
                bands: bands(image)?,
                side: self.image_size(),
                stored_side: self.task.image_size,
            })
        };
        self.images.iter().map(announced).collect()
    }

    /// Neither normalises nor resizes pixels.
    fn leave_as_stored(&mut self) {
        let side = self.task.image_size;
        let name = strategies::NONE.to_owned();
        let preprocess = self.strategies.first().map(|strategy| Preprocess {
            normalization: Normalization::Identity,
            height: side,
            width: side,
            ..strategy.preprocess.clone()
        });
        self.strategies = preprocess.map(|preprocess| Preparation { name, preprocess }).into_iter().collect();
        self.normalization = strategies::NONE.to_owned();
        self.keeps_size = true;
    }
}
