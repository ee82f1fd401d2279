//! Encoders in another process, which may be written in any language: `docs/wire-protocol.md` describes what they exchange with
//! this program.
//!
//! `command` is what to start and its identity; `message` and `tensors` are the two halves of a message; `connection` has the
//! threads that write and read, `shared` the memory that batches go through instead; `dialogue` is the conversation, `agreement` its beginning; `encoder` is how the rest of this program sees it.

mod agreement;
mod command;
mod config;
mod connection;
mod dialogue;
mod encoder;
mod message;
mod own;
mod shared;
mod tensors;

pub use self::command::Command;
pub use self::config::{ProcessConfig, TIME_LIMIT};
pub use self::encoder::ProcessEncoder;
pub(crate) use self::message::Image as DescribedImage;
pub(in crate::model) use self::own::every_band;
pub use self::own::{OwnEncoder, TakenBands};

/// Reads a stream as if an encoder had written it, for fuzzing: messages, and the features behind them.
#[doc(hidden)]
pub fn read_everything(bytes: &[u8]) {
    use crate::device::host;
    use crate::model::{Pooling, Want};

    let mut stream = std::io::Cursor::new(bytes);
    while let Ok(connection::Incoming::Message(reply, file)) = connection::next(&mut stream) {
        let message::Reply::Features(header) = reply else { continue };
        for want in [Want::Pooled(Pooling::Class), Want::Tokens, Want::Maps] {
            let _ = tensors::features(&header, &file, 2, want, &host());
        }
    }
}
