//! A short form of `cargo xtask faults`.

use std::path::Path;

#[path = "../xtask/src/faults.rs"]
mod kit;

use self::kit::{Extent, Ground, disturb, table};

#[test]
fn disturbed_runs_end_clearly_and_resume_to_the_same_files() {
    let folder = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_terrabench"));
    let mut ground = Ground::new(program, &folder.path().join("faults")).unwrap();
    let extent = Extent { kills: 1, others: 1, all_works: false };
    let works = ["extraction", "prepare", "report"].map(str::to_owned);
    let rows = disturb(&mut ground, &works, extent).unwrap();
    assert!(rows.len() >= 5, "{}", table(&rows));
    for row in &rows {
        assert!(row.lost.is_empty() && row.survived == row.tried, "{}\n{:?}", table(&rows), row.lost);
    }
}
