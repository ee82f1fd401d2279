//! `compare`: two models, paired.

use super::args::CompareArgs;
use crate::console;
use crate::report::compare::{compare, markdown, side};

/// Runs the command.
pub fn run(args: &CompareArgs) -> anyhow::Result<()> {
    let (a, b) = (side(&args.a, &args.results)?, side(&args.b, &args.results)?);
    let rows = compare(&a, &b)?;
    Ok(console::print(markdown(&rows, &args.a, &args.b))?)
}
