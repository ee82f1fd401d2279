//! Measures how fast samples are read to float32 arrays with a warm file cache: m-eurosat (13 bands, class) and the small sets of
//! GEO-Bench's Landsat and aerial tasks and of GEO-Bench-2; skips sets that are missing. An element is a sample. The peers in Python are
//! benches/peers/reader.py and benches/peers/geobench2.py.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Instant;

use criterion::{Criterion, Throughput};
use terrabench::data::{self, Dataset, Split, loader};
use terrabench::home::Home;
use terrabench::task::Suite;

/// Task, the variable with the folder that holds its sets, the folder beside the checkout, and the set in it.
const SMALL_SETS: [(&str, &str, &str, &str); 6] = [
    ("m-forestnet", "TERRABENCH_MADE", "made", "geobench-more"),
    ("m-pv4ger", "TERRABENCH_MADE", "made", "geobench-more"),
    ("m-pv4ger-seg", "TERRABENCH_MADE", "made", "geobench-more"),
    ("m-chesapeake", "TERRABENCH_MADE", "made", "geobench-more"),
    ("m-NeonTree", "TERRABENCH_MADE", "made", "geobench-more"),
    ("m-nz-cattle", "TERRABENCH_REAL", "real", "geobench-more"),
];

fn folder(variable: &str, beside: &str, set: &str) -> PathBuf {
    let named = std::env::var_os(variable).map(PathBuf::from);
    named.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared").join(beside)).join(set)
}

/// Prints the best of many passes, as the peer reports it.
fn report(task: &str, dataset: &dyn Dataset, passes: usize) {
    let bands = dataset.bands().unwrap();
    let places = places(dataset);
    let seconds = |_| {
        let start = Instant::now();
        places
            .iter()
            .for_each(|(split, index)| drop(black_box(dataset.read(*split, *index, &bands).unwrap())));
        start.elapsed().as_secs_f64()
    };
    let best = (0..passes).map(seconds).fold(f64::INFINITY, f64::min);
    let (rate, count) = (places.len() as f64 / best, places.len());
    println!("{task}: {rate:.0} samples/s (1 thread, best of {passes} passes over {count} samples)");
}

fn places(dataset: &dyn Dataset) -> Vec<(Split, usize)> {
    let of_split = |split: &Split| {
        let split = *split;
        (0..dataset.samples(split).len()).map(move |index| (split, index))
    };
    Split::ALL.iter().flat_map(of_split).collect()
}

/// The same of GEO-Bench-2.
const CONTAINERS: [(&str, &str, &str, &str); 3] = [
    ("benv2", "TERRABENCH_REAL", "real", "geobench2"),
    ("biomassters", "TERRABENCH_REAL", "real", "geobench2"),
    ("cloudsen12", "TERRABENCH_MADE", "made", "geobench2"),
];

fn main() {
    let home = Home::find().unwrap();
    let suite = Suite::load(&home, "geobench").unwrap();
    let newer = Suite::load(&home, "geobench-2").unwrap();
    let sets = SMALL_SETS.iter().map(|set| (&suite, set));
    for (suite, (name, variable, beside, set)) in sets.chain(CONTAINERS.iter().map(|set| (&newer, set))) {
        let root = folder(variable, beside, set);
        match data::open(suite, suite.task(name).unwrap(), &root, "default") {
            Ok(dataset) => report(name, dataset.as_ref(), 200),
            Err(_) => eprintln!("skipped: no small set of {name} at {} (set {variable})", root.display()),
        }
    }
    let root = folder("TERRABENCH_REAL", "real", "geobench");
    if !root.is_dir() {
        eprintln!("skipped: no real pixels at {} (set TERRABENCH_REAL)", root.display());
        return;
    }
    let task = suite.task("m-eurosat").unwrap();
    let dataset = data::open(&suite, task, &root, "default").unwrap();
    report("m-eurosat", dataset.as_ref(), 200);
    let bands = dataset.bands().unwrap();
    let places = places(dataset.as_ref());
    let read = |place: usize| {
        let (split, index) = places[place];
        dataset.read(split, index, &bands)
    };

    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("m-eurosat");
    group.throughput(Throughput::Elements(places.len() as u64));
    group.bench_function("1 thread", |bencher| {
        bencher.iter(|| (0..places.len()).for_each(|place| drop(black_box(read(place).unwrap()))));
    });
    group.bench_function("2 threads, in order", |bencher| {
        bencher.iter(|| {
            loader::ordered(places.len(), 2, 16, read, |samples| {
                samples.for_each(|sample| drop(black_box(sample.unwrap())))
            });
        });
    });
    group.finish();
    criterion.final_summary();
}
