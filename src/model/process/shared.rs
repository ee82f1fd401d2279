//! Memory that this program and an encoder on the same machine share: a batch is written into it once and never passes a pipe.
//!
//! Each slot is an anonymous file in memory, which the encoder opens through `/proc`. It has no name in any folder, so nothing is
//! left behind however the program ends. Only Linux has such files; elsewhere, and where the encoder cannot open them (in a
//! container of its own), batches go through the pipe.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

/// The slots of a conversation. Each holds one batch until its features have come.
#[derive(Default)]
pub(super) struct Slots(Vec<Slot>);

struct Slot {
    memory: Arc<File>,
    path: String,
    /// The batch that it holds.
    batch: Option<u64>,
}

/// Where a batch is written.
pub(super) struct Target {
    pub(super) memory: Arc<File>,
    /// How the encoder opens it.
    pub(super) path: String,
}

impl Slots {
    /// Returns the path of a slot for an encoder to try; `None` where the system has no such memory.
    pub(super) fn example(&mut self) -> Option<String> {
        if self.0.is_empty() {
            self.0.push(Slot::new()?);
        }
        self.0.first().map(|slot| slot.path.clone())
    }

    /// Takes a free slot for a batch, a new one if all are in use.
    pub(super) fn take(&mut self, batch: u64) -> Option<Target> {
        let place = match self.0.iter().position(|slot| slot.batch.is_none()) {
            Some(place) => place,
            None => {
                self.0.push(Slot::new()?);
                self.0.len() - 1
            }
        };
        let slot = &mut self.0[place];
        slot.batch = Some(batch);
        Some(Target { memory: Arc::clone(&slot.memory), path: slot.path.clone() })
    }

    /// The features of a batch came: its slot may be written again.
    pub(super) fn free(&mut self, batch: u64) {
        for slot in self.0.iter_mut().filter(|slot| slot.batch == Some(batch)) {
            slot.batch = None;
        }
    }

    /// No batch is under way.
    pub(super) fn free_all(&mut self) {
        self.0.iter_mut().for_each(|slot| slot.batch = None);
    }
}

impl Slot {
    #[cfg(target_os = "linux")]
    fn new() -> Option<Self> {
        use std::os::fd::AsRawFd;
        let memory = rustix::fs::memfd_create("terrabench", rustix::fs::MemfdFlags::CLOEXEC).ok()?;
        let path = format!("/proc/{}/fd/{}", std::process::id(), memory.as_raw_fd());
        Some(Slot { memory: Arc::new(memory.into()), path, batch: None })
    }

    #[cfg(not(target_os = "linux"))]
    fn new() -> Option<Self> {
        None
    }
}

/// Writes a file from its start, wherever its cursor is.
pub(super) struct FromStart<'a> {
    memory: &'a File,
    at: u64,
}

impl<'a> FromStart<'a> {
    pub(super) fn new(memory: &'a File) -> Self {
        FromStart { memory, at: 0 }
    }
}

#[cfg(unix)]
impl Write for FromStart<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = std::os::unix::fs::FileExt::write_at(self.memory, bytes, self.at)?;
        self.at += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(not(unix))]
impl Write for FromStart<'_> {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "no shared memory on this system"))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_read_through_its_path_and_used_again_once_free() {
        let mut slots = Slots::default();
        let example = slots.example().unwrap();
        let first = slots.take(0).unwrap();
        assert_eq!(first.path, example);
        FromStart::new(&first.memory).write_all(b"long before").unwrap();
        FromStart::new(&first.memory).write_all(b"after").unwrap();
        assert_eq!(std::fs::read(&first.path).unwrap(), b"afterbefore");
        assert_ne!(slots.take(1).unwrap().path, first.path);
        slots.free(0);
        assert_eq!(slots.take(2).unwrap().path, first.path);
        assert_ne!(slots.take(3).unwrap().path, first.path);
    }
}
