//! Encoders in another process, which may be written in any language. `docs/wire-protocol.md` describes what they exchange
//! with this program.

mod config;

pub use self::config::ProcessConfig;
