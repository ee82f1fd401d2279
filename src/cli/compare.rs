//! `compare`: a paired comparison of two models.

use std::process::ExitCode;

use super::args::CompareArgs;
use super::used;
use super::wanted::wanted;
use crate::console;
use crate::gate::Suites;
use crate::gate::compare::{Comparison, compare, markdown, side};
use crate::home::Home;
use crate::record::Unreadable;

/// Runs the command. Exits with 1 if a record's value differs from what its predictions give.
pub fn run(home: &Home, args: &CompareArgs) -> anyhow::Result<ExitCode> {
    let (a, b) = (side(&args.a, &args.results)?, side(&args.b, &args.results)?);
    let suites = Suites::load(home, a.kept.iter().chain(&b.kept).map(|kept| &kept.record));
    let Comparison { rows, unreadable } = compare(a.kept, b.kept, &wanted(&args.wanted)?, &suites)?;
    console::print(markdown(&rows, &args.a, &args.b))?;
    // Both sides may come from the same folder.
    let mut all: Vec<Unreadable> = a.unreadable;
    for one in b.unreadable.into_iter().chain(unreadable) {
        if all.iter().all(|other| other.path != one.path) {
            all.push(one);
        }
    }
    let code = used(&all);
    Ok(if rows.iter().any(|row| row.is_contradictory) { ExitCode::FAILURE } else { code })
}
