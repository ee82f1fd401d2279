//! The step of `cargo xtask test` that looks at dependencies: licences, advisories, duplicates, sources.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Result;

use crate::{cargo, console, run};

/// Runs cargo-deny with `deny.toml`, or says that it was skipped. Advisories need their database, which only a network or an earlier
/// run provides; without it the other checks run.
pub fn check(root: &Path) -> Result<()> {
    let quiet = |command: &mut Command| {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
    };
    if !quiet(cargo(root, ["deny", "--version"]).env_remove("RUSTFLAGS")) {
        console::note(
            "skipped: cargo-deny is not installed; `cargo install cargo-deny` adds the check of licences and advisories",
        );
        return Ok(());
    }
    // It looks at the dependencies of all systems in deny.toml, and a build has fetched those of this one.
    if !quiet(&mut cargo(root, ["fetch", "--locked"])) {
        console::note(
            "skipped: crates of other systems are not here, and there is no registry to fetch them from",
        );
        return Ok(());
    }
    run(&mut cargo(
        root,
        ["deny", "--offline", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"],
    ))?;
    // An offline check fails for lack of the database just as for a finding: fetching tells them apart.
    if quiet(&mut cargo(root, ["deny", "fetch", "db"])) {
        run(&mut cargo(root, ["deny", "check", "advisories"]))
    } else {
        console::note("skipped: the database of advisories is not here, and there is no network to fetch it");
        Ok(())
    }
}
