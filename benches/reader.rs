//! Reading m-eurosat samples (13 bands, class) to float32 arrays, warm file cache. An element is a sample.
//! The same in Python: benches/peers/reader.py.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Instant;

use criterion::{Criterion, Throughput};
use terrabench::data::{self, Split, loader};
use terrabench::home::Home;
use terrabench::task::Suite;

fn main() {
    let real = std::env::var_os("TERRABENCH_REAL").map(PathBuf::from);
    let root =
        real.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/real")).join("geobench");
    if !root.is_dir() {
        eprintln!("skipped: no real pixels at {} (set TERRABENCH_REAL)", root.display());
        return;
    }
    let suite = Suite::load(&Home::find().unwrap(), "geobench").unwrap();
    let task = suite.task("m-eurosat").unwrap();
    let dataset = data::open(&suite, task, &root, "default").unwrap();
    let bands = dataset.bands().unwrap();
    let places: Vec<(Split, usize)> = Split::ALL
        .iter()
        .flat_map(|split| (0..dataset.samples(*split).len()).map(|index| (*split, index)))
        .collect();
    let read = |place: usize| {
        let (split, index) = places[place];
        dataset.read(split, index, &bands)
    };

    // The best of many passes, as the peer reports it.
    let seconds = |_| {
        let start = Instant::now();
        (0..places.len()).for_each(|place| drop(black_box(read(place).unwrap())));
        start.elapsed().as_secs_f64()
    };
    let best = (0..200).map(seconds).fold(f64::INFINITY, f64::min);
    let (rate, count) = (places.len() as f64 / best, places.len());
    println!("terrabench: {rate:.0} samples/s (1 thread, best of 200 passes over {count} samples)");

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
