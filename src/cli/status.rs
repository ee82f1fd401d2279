//! `status`: shows how far the cells of results folders are.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use super::cluster_args::StatusArgs;
use crate::console;
use crate::error::AtPath;
use crate::run::sharing::{CLAIMS, described};
use crate::run::status::Status;
use crate::{Error, Result};

/// Cells to do that are listed, unless all are asked for.
const LISTED: usize = 5;

/// Runs the command.
pub fn run(args: &StatusArgs) -> anyhow::Result<()> {
    loop {
        let folders = folders(args)?;
        let shown = folders.iter().map(|folder| Status::of(folder)).collect::<Result<Vec<_>>>()?;
        let mut text = String::new();
        for status in &shown {
            match args.json {
                true => writeln!(text, "{}", serde_json::to_string(status)?)?,
                false => text.push_str(&describe(status, args.all)),
            }
        }
        console::print(text)?;
        match args.watch {
            Some(seconds) if !shown.iter().all(Status::is_over) => {
                std::thread::sleep(Duration::from_secs_f64(seconds));
            }
            _ => return Ok(()),
        }
    }
}

/// The folders of suites below the results.
fn folders(args: &StatusArgs) -> Result<Vec<PathBuf>> {
    let is_suite = |folder: &Path| folder.join("records").is_dir() || folder.join(CLAIMS).is_dir();
    let none = |problem: String| {
        Error::not_found(&args.results, problem).help("name the folder that `bench` wrote with --results")
    };
    if !args.results.is_dir() {
        return Err(none("no such folder".to_owned()));
    }
    if let Some(suite) = &args.suite {
        let folder = args.results.join(suite);
        return match is_suite(&folder) {
            true => Ok(vec![folder]),
            false => Err(none(format!("no results of {suite} found"))),
        };
    }
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(&args.results).at(&args.results)? {
        let folder = entry.at(&args.results)?.path();
        if is_suite(&folder) {
            folders.push(folder);
        }
    }
    folders.sort();
    if folders.is_empty() { Err(none("no results found".to_owned())) } else { Ok(folders) }
}

/// Describes a status in lines.
fn describe(status: &Status, all: bool) -> String {
    let Status { folder, done, records, running, failed, to_do, seconds_left, unreadable } = status;
    let (dead, live): (Vec<_>, Vec<_>) = running.iter().partition(|running| running.is_dead);
    let mut text = format!(
        "{}: {done} done, {} running, {} failed, {} to do",
        folder.display(),
        live.len(),
        failed.len(),
        to_do.len()
    );
    if let Some(left) = seconds_left {
        text.push_str(&format!(", about {} left", time(*left)));
    }
    text.push('\n');
    if records > done {
        text.push_str(&format!("  {records} records in all\n"));
    }
    if *unreadable > 0 {
        text.push_str(&format!("  {unreadable} files among the records cannot be read: `report` says why\n"));
    }
    for running in live {
        let left = match running.seconds_left {
            Some(left) if left > 0.0 => format!(", about {} left", time(left)),
            Some(_) => ", longer than usual".to_owned(),
            None => String::new(),
        };
        let (what, place, since) = (&running.what, &running.place, time(running.seconds));
        text.push_str(&format!("  running  {what}: on {place}, for {since}{left}\n"));
    }
    for running in dead {
        let (what, place, silent) = (&running.what, &running.place, time(running.silent));
        text.push_str(&format!(
            "  left     {what}: {place} has ended, or is silent for {silent}; taken over by whoever comes\n"
        ));
    }
    for failure in failed {
        let error = failure.error.replace('\n', "\n           ");
        let at = UNIX_EPOCH + Duration::from_secs(failure.at);
        let ago = at.elapsed().map_or(0.0, |ago| ago.as_secs_f64());
        let (what, place, ago) = (described(&failure.cell), &failure.place, time(ago));
        text.push_str(&format!("  failed   {what}: on {place}, {ago} ago: {error}\n"));
    }
    // Cells that an ended process left are to do as well, but listed already.
    let is_left = |name: &String| running.iter().any(|running| running.is_dead && running.what == *name);
    let others: Vec<String> = to_do.iter().map(described).filter(|name| !is_left(name)).collect();
    let listed = if all { others.len() } else { LISTED };
    for name in others.iter().take(listed) {
        text.push_str(&format!("  to do    {name}\n"));
    }
    if others.len() > listed {
        text.push_str(&format!("  to do    and {} more (--all lists them)\n", others.len() - listed));
    }
    text
}

/// Formats a time as `40 s`, `3 min` or `2.5 h`.
fn time(seconds: f64) -> String {
    if seconds < 100.0 {
        format!("{seconds:.0} s")
    } else if seconds < 6000.0 {
        format!("{:.0} min", seconds / 60.0)
    } else {
        format!("{:.1} h", seconds / 3600.0)
    }
}

#[cfg(test)]
mod tests {
    use super::time;

    #[test]
    fn times_are_short() {
        assert_eq!([0.4, 99.0, 125.0, 9000.0].map(time), ["0 s", "99 s", "2 min", "2.5 h"]);
    }
}
