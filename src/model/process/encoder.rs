//! An encoder in another process, as the rest of this program sees it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::command::Command;
use super::dialogue::Dialogue;
use crate::Result;
use crate::model::encoder::{Batch, Encoded, Encoder, Pooling, Want};
use crate::model::remote::{Agreement, Announcement, Pending, RemoteEncoder, Unstacked};
use crate::nn::heads::upernet::MapLevel;
use crate::task::Sensors;

/// An encoder in another process, which is started when the first task is announced and ends when this is dropped.
pub struct ProcessEncoder(Mutex<Dialogue>);

impl ProcessEncoder {
    /// Describes the process that `resolved` starts. `command` is what it is called in messages and identities; `sensors`
    /// has the wavelengths that it is told; `limit` is the longest time without an answer.
    pub fn new(command: Command, resolved: Command, sensors: Option<Sensors>, limit: Duration) -> Self {
        ProcessEncoder(Mutex::new(Dialogue::new(command, resolved, sensors, limit)))
    }

    fn dialogue(&self) -> MutexGuard<'_, Dialogue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Encoder for ProcessEncoder {
    /// 0 before the first announcement that wants pooled vectors of images with so many bands.
    fn width(&self, _: Pooling, bands: usize) -> usize {
        self.dialogue().width(bands)
    }

    fn encode(&self, batch: &Batch, want: Want) -> Result<Encoded> {
        self.begin(batch.clone(), want, 0)?()
    }

    fn remote(&self) -> Option<&dyn RemoteEncoder> {
        Some(self)
    }
}

impl RemoteEncoder for ProcessEncoder {
    fn announce(&self, announcement: &Announcement) -> Result<Agreement> {
        self.dialogue().announce(announcement)
    }

    fn in_flight(&self) -> usize {
        self.dialogue().in_flight()
    }

    fn begin(&self, batch: Batch, want: Want, image: usize) -> Result<Pending<'_>> {
        let sent = self.dialogue().send(batch, want, image)?;
        Ok(Box::new(move || self.dialogue().features(sent)))
    }

    fn begin_unstacked(&self, inputs: Vec<Unstacked>, want: Want, image: usize) -> Result<Pending<'_>> {
        let sent = self.dialogue().send_unstacked(inputs, want, image)?;
        Ok(Box::new(move || self.dialogue().features(sent)))
    }

    fn map_levels(&self) -> Result<Vec<MapLevel>> {
        self.dialogue().map_levels()
    }
}
