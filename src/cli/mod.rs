//! The command line: one file a command.

pub mod fetch;
pub mod fetch_args;
