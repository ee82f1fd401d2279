//! How many samples a second are read to float32 arrays with a warm file cache, one thread: m-eurosat (13 bands, class), the small sets of
//! GEO-Bench's Landsat and aerial tasks, those of GEO-Bench-2, and Copernicus-Bench's tasks of Sentinel-3 and Sentinel-5P.
//!
//! `cargo bench --bench reader -- [--tasks A,B] [--rounds N] [--repetitions N] [--peer PYTHON] [--geobench2 PYTHON] [--copernicus PYTHON]`
//!
//! With `--peer`, a Python that has the package geobench, passes alternate with those of the official loader (benches/peers/reader.py);
//! with `--geobench2`, one that has geobenchv2, and with `--copernicus`, one that has torchgeo, with the benchmark's own classes
//! (benches/peers/geobench2.py, copernicus.py). Before timing, both sides must have read as many samples and, but for GEO-Bench-2,
//! whose classes normalise, the same sum of all pixels. Sets that are not there are skipped.

mod common;

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, ensure};
use common::measured::{Comparison, Peer, skip};
use common::{Missing, Script, number, option};
use terrabench::data::{self, Dataset, Split, loader};
use terrabench::home::Home;
use terrabench::task::Suite;

const GROUP: &str = "Readers";
/// How many times as fast as the official loader every reader should be.
const GOAL: f64 = 10.0;
/// Largest accepted difference of the sums of all pixels, relative to them: PyTorch's and ours are added in another order.
const TOLERANCE: f64 = 1e-6;

/// A data set that a peer reads too.
struct Set {
    suite: &'static str,
    task: &'static str,
    /// The variable that names the folder of its sets, and the folder's name beside the checkout.
    at: (&'static str, &'static str),
    /// The set's folder in it.
    folder: &'static str,
    /// The bands that the peer can read together; `None` for all.
    bands: Option<&'static [&'static str]>,
}

const REAL: (&str, &str) = ("TERRABENCH_REAL", "real");
const MADE: (&str, &str) = ("TERRABENCH_MADE", "made");
const RGB: Option<&[&str]> = Some(&["Red", "Green", "Blue"]);

const fn set(
    suite: &'static str,
    task: &'static str,
    at: (&'static str, &'static str),
    folder: &'static str,
) -> Set {
    Set { suite, task, at, folder, bands: None }
}

const SETS: [Set; 16] = [
    set("geobench", "m-eurosat", REAL, "geobench"),
    set("geobench", "m-forestnet", MADE, "geobench-more"),
    set("geobench", "m-pv4ger", MADE, "geobench-more"),
    set("geobench", "m-pv4ger-seg", MADE, "geobench-more"),
    set("geobench", "m-chesapeake", MADE, "geobench-more"),
    Set { bands: RGB, ..set("geobench", "m-NeonTree", MADE, "geobench-more") },
    set("geobench", "m-nz-cattle", REAL, "geobench-more"),
    set("geobench-2", "benv2", REAL, "geobench2"),
    set("geobench-2", "biomassters", REAL, "geobench2"),
    set("geobench-2", "cloudsen12", MADE, "geobench2"),
    set("copernicus-bench", "cloud-s3", MADE, "copernicus-bench"),
    set("copernicus-bench", "lc100cls-s3", MADE, "copernicus-bench"),
    set("copernicus-bench", "lc100seg-s3", MADE, "copernicus-bench"),
    set("copernicus-bench", "biomass-s3", MADE, "copernicus-bench"),
    set("copernicus-bench", "aq-no2-s5p", MADE, "copernicus-bench"),
    set("copernicus-bench", "aq-o3-s5p", MADE, "copernicus-bench"),
];

impl Set {
    fn root(&self) -> PathBuf {
        let (variable, beside) = self.at;
        let named = std::env::var_os(variable).map(PathBuf::from);
        named
            .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared").join(beside))
            .join(self.folder)
    }
}

fn places(dataset: &dyn Dataset) -> Vec<(Split, usize)> {
    let of_split = |split: &Split| {
        let split = *split;
        (0..dataset.samples(split).len()).map(move |index| (split, index))
    };
    Split::ALL.iter().flat_map(of_split).collect()
}

fn main() -> Result<()> {
    let home = Home::find()?;
    let (rounds, passes) = (number("--rounds", 3)?, number("--repetitions", 5)?);
    let asked = option("--tasks");
    let is_asked =
        |set: &&Set| asked.as_ref().is_none_or(|names| names.split(',').any(|name| name == set.task));
    for set in SETS.iter().filter(is_asked) {
        let suite = Suite::load(&home, set.suite)?;
        let root = set.root();
        let name = format!("{}, one thread", set.task);
        let Ok(dataset) = data::open(&suite, suite.task(set.task)?, &root, "default") else {
            let why = format!("no small set at {} (set {})", root.display(), set.at.0);
            skip(GROUP, name, why)?;
            continue;
        };
        let mut bands = dataset.bands()?;
        if let Some(names) = set.bands {
            bands.iter_mut().for_each(|bands| bands.retain(|band| names.contains(&band.as_str())));
        }
        let places = places(dataset.as_ref());
        let count = places.len();
        let pass = || -> Result<f64> {
            let start = Instant::now();
            for (split, index) in &places {
                black_box(dataset.read(*split, *index, &bands)?);
            }
            Ok(count as f64 / start.elapsed().as_secs_f64())
        };
        let (named, script) = match set.suite {
            "geobench" => ("--peer", "reader.py"),
            "copernicus-bench" => ("--copernicus", "copernicus.py"),
            _ => ("--geobench2", "geobench2.py"),
        };
        let peer = Script::asked(named, script)
            .map(|peer| peer.with("--task", set.task).with("--root", root.display()));
        let what = format!(
            "{}, {} channels, {count} samples, one thread",
            set.task,
            bands.iter().map(Vec::len).sum::<usize>()
        );
        let mut comparison = Comparison::new(GROUP, what, "samples/s").goal(GOAL);
        let peer = match peer.map(|peer| Ok((peer.columns::<2>(0)?, peer))) {
            None => None,
            Some(Ok(([counts, sums], peer))) => {
                ensure!(
                    counts == [count as f64],
                    "{}: the peer read {counts:?} samples, ours {count}",
                    set.task
                );
                if set.suite != "geobench-2" {
                    let mut sum = 0.0;
                    for (split, index) in &places {
                        let sample = dataset.read(*split, *index, &bands)?;
                        sum += sample
                            .images
                            .iter()
                            .flat_map(|image| &image.pixels)
                            .map(|v| f64::from(*v))
                            .sum::<f64>();
                    }
                    let same = (sum - sums[0]).abs() <= TOLERANCE * sum.abs();
                    ensure!(same, "{}: the sum of all pixels is {sum}, the peer's {}", set.task, sums[0]);
                    comparison.note = "the same sum of all pixels".into();
                }
                Some(peer)
            }
            Some(Err(error)) => match anyhow::Error::downcast::<Missing>(error) {
                Ok(missing) => {
                    comparison.note = format!("no peer: {missing}");
                    None
                }
                Err(error) => return Err(error),
            },
        };
        pass()?;
        let mut theirs = Vec::new();
        for _ in 0..rounds {
            for _ in 0..passes {
                comparison.ours.push(pass()?);
            }
            if let Some(peer) = &peer {
                let [_, rates] = peer.columns::<2>(passes)?;
                theirs.extend(rates);
            }
        }
        if !theirs.is_empty() {
            let name =
                if set.suite == "geobench" { "the official loader" } else { "the benchmark's own class" };
            comparison.peers.push(Peer { name: name.into(), values: theirs });
        }
        comparison.tell()?;
        if set.task == "m-eurosat" {
            in_order(&places, |split, index| dataset.read(split, index, &bands))?;
        }
    }
    Ok(())
}

/// The same samples read by two threads, given on in order.
fn in_order<T: Send>(
    places: &[(Split, usize)],
    read: impl Fn(Split, usize) -> terrabench::Result<T> + Sync,
) -> Result<()> {
    let pass = || {
        let start = Instant::now();
        let at = |place: usize| read(places[place].0, places[place].1);
        let done = loader::ordered(places.len(), 2, 16, at, |samples| samples.filter(Result::is_ok).count());
        ensure!(done == places.len(), "a sample cannot be read");
        Ok(done as f64 / start.elapsed().as_secs_f64())
    };
    let ours = (0..15).map(|_| pass()).collect::<Result<_>>()?;
    let what = "m-eurosat, given on in order by two threads";
    Comparison { ours, ..Comparison::new(GROUP, what, "samples/s") }.tell()
}
