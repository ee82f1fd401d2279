//! What is agreed on with an encoder process: how it takes pixels, who it is, how large its features are.

use std::sync::Arc;
use std::time::Duration;

use burn::tensor::Tensor;

use super::dialogue::Dialogue;
use super::message::{self, Ready, VERSION};
use crate::model::encoder::{Batch, Context, Encoded, Input, Map, Want};
use crate::model::remote::{Agreement, AnnouncedImage, Announcement};
use crate::nn::heads::upernet::MapLevel;
use crate::{Error, Result, device};

impl Dialogue {
    /// Checks an answer, and that it is the same as before.
    pub(super) fn agree(&mut self, ready: &Ready, want: Want) -> Result<()> {
        let refused = |dialogue: &mut Self, problem: String, help: &str| {
            Err(dialogue.fail(problem, help, Duration::ZERO))
        };
        match ready.terrabench {
            Some(VERSION) => {}
            other => {
                let found = other.map_or("none".to_owned(), |version| version.to_string());
                let problem = format!("expected \"terrabench\":{VERSION} in `ready`, found {found}");
                return refused(
                    self,
                    problem,
                    "the number is the version of the protocol in docs/wire-protocol.md",
                );
            }
        }
        let takes_stored = match ready.pixels.as_deref() {
            Some("float32") => false,
            Some("stored") => true,
            other => {
                let found = other.unwrap_or("none");
                let problem =
                    format!("expected \"pixels\":\"float32\" or \"stored\" in `ready`, found {found}");
                return refused(self, problem, "float32: normalised and resized; stored: as in the files");
            }
        };
        let Some(declared) = ready.identity.as_ref().filter(|identity| !identity.is_empty()) else {
            let problem = "expected \"identity\":\"…\" in `ready`, found none".to_owned();
            return refused(
                self,
                problem,
                "any text that changes with the weights, such as the hash of their file: it keeps old features from being used for new weights",
            );
        };
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.hash.unwrap_or_else(|| blake3::hash(b"")).as_bytes()).update(declared.as_bytes());
        let identity = format!("process:{}", &hasher.finalize().to_hex()[..32]);
        if self.identity.get_or_insert_with(|| declared.clone()) != declared {
            let before = self.identity.take().unwrap_or_default();
            let problem = format!("its identity changed during the run from `{before}` to `{declared}`");
            return refused(self, problem, "one run measures one model: start one run per set of weights");
        }
        let agreement = Agreement { identity, takes_stored, fuses: ready.fuses };
        if self.agreement.get_or_insert_with(|| agreement.clone()) != &agreement {
            let problem = "it answers differently to the same task: pixels or fuses changed".to_owned();
            return refused(self, problem, "give the same answer whatever is wanted of a task");
        }
        if let Some(wants) = &ready.wants
            && !wants.iter().any(|can| can == message::name(want))
        {
            return Err(Error::mismatch(format!(
                "{self}: the protocol needs {}, the encoder gives {}",
                message::name(want),
                wants.join(", ")
            ))
            .help("choose another protocol, or let the encoder list and give it in `wants`"));
        }
        Ok(())
    }

    /// Learns the sizes of features, from one image of zeros where the encoder did not state them.
    pub(super) fn learn_sizes(&mut self, about: &Announcement, want: Want) -> Result<()> {
        let fuses = self.agreement.as_ref().is_some_and(|agreement| agreement.fuses);
        let stored = self.agreement.as_ref().is_some_and(|agreement| agreement.takes_stored);
        let each: Vec<&[AnnouncedImage]> =
            if fuses { vec![&about.images] } else { about.images.chunks(1).collect() };
        for (place, images) in each.into_iter().enumerate() {
            let bands = images.iter().map(|image| image.bands.len()).sum();
            let stated = self.ready.as_ref().and_then(|ready| ready.width);
            match (want, stated) {
                (Want::Pooled(_), Some(width)) => drop(self.widths.insert(bands, width)),
                (Want::Pooled(_), None) if !self.widths.contains_key(&bands) => {
                    let width = self.of_zeros(images, want, place, stored)?.pooled()?.dims()[1];
                    self.widths.insert(bands, width);
                }
                (Want::Maps, _) if self.levels.is_empty() => {
                    let maps = self.of_zeros(images, want, place, stored)?.maps()?;
                    let level = |map: &Map| MapLevel { width: map.values.dims()[1], stride: map.stride };
                    self.levels = maps.iter().map(level).collect();
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Encodes one sample of zeros.
    fn of_zeros(
        &mut self,
        images: &[AnnouncedImage],
        want: Want,
        place: usize,
        stored: bool,
    ) -> Result<Encoded> {
        let host = device::host();
        let input = |image: &AnnouncedImage| {
            let side = if stored { image.stored_side } else { image.side };
            Input {
                sensor: image.sensor,
                bands: Arc::from(image.bands.as_slice()),
                pixels: Tensor::zeros([1, image.bands.len(), side, side], &host),
                context: Context::default(),
            }
        };
        let batch = Batch { inputs: images.iter().map(input).collect() };
        let place = if images.len() == 1 { place } else { 0 };
        let sent = self.send_batch(batch, want, place)?;
        self.encoded(sent)
    }
}
