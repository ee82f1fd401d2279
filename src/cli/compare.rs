//! `compare`: two models, paired.

use std::io::Write;

use super::args::CompareArgs;
use crate::report::compare::{compare, markdown, side};

/// Runs the command.
pub fn run(args: &CompareArgs) -> anyhow::Result<()> {
    let (a, b) = (side(&args.a, &args.results)?, side(&args.b, &args.results)?);
    let rows = compare(&a, &b)?;
    write!(std::io::stdout().lock(), "{}", markdown(&rows, &args.a, &args.b))?;
    Ok(())
}
