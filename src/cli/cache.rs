//! `cache`: lists the contents of the feature cache and removes entries.

use std::time::Duration;

use indicatif::{DecimalBytes, HumanDuration};

use super::args::CacheArgs;
use crate::console;
use crate::features::cache::{Cache, Listed};

/// Runs the command.
pub fn run(args: &CacheArgs) -> anyhow::Result<()> {
    let cache = Cache::of_user()?;
    if args.prune {
        let older_than = args.older_than.map(|days| Duration::from_secs(u64::from(days) * 24 * 60 * 60));
        let removed = cache.prune(older_than, args.to)?;
        console::print(format_args!("removed {} in {} entries\n", bytes(&removed), removed.len()))?;
    }
    let entries = cache.list()?;
    if args.list {
        let lines: Vec<String> = entries.iter().map(|entry| line(entry) + "\n").collect();
        console::print(lines.concat())?;
    }
    let folder = cache.folder().display();
    Ok(console::print(format_args!("{} in {} entries of {folder}\n", bytes(&entries), entries.len()))?)
}

/// `1.23 MB   2 days  m-eurosat  TerraFM ViT-Base  dataset-1.0-standardize  flex  <key>`.
fn line(entry: &Listed) -> String {
    let size = DecimalBytes(entry.size).to_string();
    let age = HumanDuration(entry.age).to_string();
    let about = entry.about.as_ref().map_or("(no description)".to_owned(), |about| {
        let weights = about.weights.get(..20).unwrap_or(&about.weights);
        format!("{}  {}  {weights}  {}  {}", about.task, about.model, about.normalization, about.device)
    });
    format!("{size:>10}  {age:>12}  {about}  {}", entry.key)
}

fn bytes(entries: &[Listed]) -> DecimalBytes {
    DecimalBytes(entries.iter().map(|entry| entry.size).sum())
}
