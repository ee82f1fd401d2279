//! Mutated inputs for every reader of foreign bytes. A short form runs with the tests; `cargo xtask fuzz` runs this file for as long
//! as it is told, through the variables below, and collects what failed.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use terrabench::fuzzing::{MOST_BYTES, PREDICTED, TARGETS};
use terrabench::home::Home;
use terrabench::task::Suite;

use crate::common::fixture;
use crate::parquet_file::{self, Cells};
use crate::sample;
use crate::tortilla::{self, Contained, Labelled};

/// Names one target: this process is then a worker of `cargo xtask fuzz`.
const TARGET: &str = "TERRABENCH_FUZZ";
/// Seconds to work.
const SECONDS: &str = "TERRABENCH_FUZZ_SECONDS";
/// Folder for inputs that fail. The one in work is among the temporary files.
const FAILURES: &str = "TERRABENCH_FUZZ_FAILURES";
/// Start of the random numbers.
const SEED: &str = "TERRABENCH_FUZZ_SEED";
/// Milliseconds that an input may take.
const LIMIT: &str = "TERRABENCH_FUZZ_LIMIT";
/// Folder into which the seeds are written, for cargo-fuzz.
const CORPUS: &str = "TERRABENCH_FUZZ_CORPUS";

/// Inputs per target in the tests.
const FEW: usize = 60;
/// What one of them may take on a slow machine without optimisation.
const PATIENCE: Duration = Duration::from_secs(20);
/// Inputs do not grow beyond this.
const LONGEST: usize = 1 << 20;

/// Counts the bytes that a thread holds.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(change: isize) {
    // While a thread ends, its counters may be gone.
    let _ = HELD.try_with(|held| {
        let now = held.get().saturating_add(change);
        held.set(now);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(now)));
    });
}

fn size(bytes: usize) -> isize {
    isize::try_from(bytes).unwrap_or(isize::MAX)
}

// SAFETY: every method passes its arguments on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(size(layout.size()));
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(size(layout.size()));
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        count(-size(layout.size()));
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, new: usize) -> *mut u8 {
        count(size(new) - size(layout.size()));
        unsafe { System.realloc(place, layout, new) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Small, fast and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % (end.max(1) as u64)) as usize
    }
}

/// Numbers at which readers go wrong.
const INTERESTING: [u64; 12] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    u64::MAX,
    1 << 40,
];

/// Words that mean something to the readers of texts.
const WORDS: [&str; 14] = [
    "-1",
    "1e999",
    "NaN",
    "null",
    "[]",
    "{}",
    "\"\"",
    "..",
    "/",
    "\u{0}",
    "\u{feff}",
    "99999999999999999999",
    "\n",
    ",,",
];

/// Changes an input in one to six places.
fn mutate(input: &mut Vec<u8>, others: &[Vec<u8>], random: &mut Random) {
    for _ in 0..=random.below(6) {
        let at = random.below(input.len());
        match random.below(10) {
            0 if !input.is_empty() => input[at] ^= 1 << random.below(8),
            1 if !input.is_empty() => input[at] = random.next() as u8,
            2 => input.truncate(at),
            3 => {
                let end = (at + random.below(64)).min(input.len());
                input.drain(at.min(end)..end);
            }
            4 => {
                let end = (at + random.below(256)).min(input.len());
                let block = input[at.min(end)..end].to_vec();
                let to = random.below(input.len() + 1);
                input.splice(to..to, block);
            }
            5 | 6 => {
                let number = INTERESTING[random.below(INTERESTING.len())];
                let number = number.wrapping_add(random.below(3) as u64).wrapping_sub(1);
                let width = 1 << random.below(4);
                let mut bytes = number.to_le_bytes();
                if random.below(4) == 0 {
                    bytes[..width].reverse();
                }
                for (place, byte) in input.iter_mut().skip(at).zip(&bytes[..width]) {
                    *place = *byte;
                }
            }
            7 => {
                let word = WORDS[random.below(WORDS.len())];
                input.splice(at..at, word.bytes());
            }
            8 => {
                let other = &others[random.below(others.len())];
                let from = random.below(other.len());
                let end = (from + random.below(512)).min(other.len());
                let to = (at + end - from).min(input.len());
                input.splice(at.min(to)..to, other[from..end].iter().copied());
            }
            _ => {
                // A run of digits becomes another number.
                if let Some(start) = input[at.min(input.len())..].iter().position(u8::is_ascii_digit) {
                    let start = at + start;
                    let run = input[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                    let number = INTERESTING[random.below(INTERESTING.len())].to_string();
                    input.splice(start..start + run, number.bytes());
                }
            }
        }
        input.truncate(LONGEST);
    }
}

/// Files of a folder of the repository that are not too large.
fn files(folder: &Path) -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .map_or(Vec::new(), |entries| entries.map(|entry| entry.unwrap().path()).collect());
    paths.retain(|path| path.is_file() && path.metadata().unwrap().len() < 300_000);
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn zipped(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        writer.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn tiff() -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let mut encoder = tiff::encoder::TiffEncoder::new(&mut bytes).unwrap();
    let pixels: Vec<f32> = (0..64).map(|pixel| pixel as f32).collect();
    encoder.write_image::<tiff::encoder::colortype::Gray32Float>(8, 8, &pixels).unwrap();
    bytes.into_inner()
}

fn tensor_file() -> Vec<u8> {
    use safetensors::tensor::{Dtype, TensorView};
    let data = vec![0; 24];
    let view = || TensorView::new(Dtype::F32, vec![2, 3], &data).unwrap();
    let tensors = [("pooled", view()), ("tokens", view()), ("map0", view())];
    safetensors::serialize(tensors, None).unwrap()
}

/// Features as lists, or as one column per dimension.
fn parquet_features(lists: bool) -> Vec<u8> {
    let names = ["a", "b", "c"].map(|name| Some(name.to_owned()));
    let mut columns = vec![("samples", Cells::Texts(names.into()))];
    match lists {
        true => columns.push(("features", Cells::FloatLists(vec![vec![0.5, 1.5]; 3]))),
        false => {
            columns.push(("x0", Cells::Doubles(vec![0.5; 3])));
            columns.push(("x1", Cells::Doubles(vec![1.0, 2.0, 3.0])));
        }
    }
    parquet_file::encode(&columns)
}

/// A container of one sample with one file and labels.
fn container() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("any.tortilla");
    let file = Contained::tiff("image", &ndarray::Array3::from_elem((2, 3, 4), 7_u16));
    let labels = Labelled::Names(vec!["A", "B"]);
    tortilla::write_tortilla(&path, "labels", &[("one".to_owned(), "train", labels, vec![file])]);
    std::fs::read(path).unwrap()
}

fn frames() -> Vec<u8> {
    let file = tensor_file();
    let header = format!(
        "{{\"message\":\"features\",\"id\":0,\"bytes\":{},\"grid\":[1,3],\"strides\":[4]}}\n",
        file.len()
    );
    let ready =
        b"{\"message\":\"ready\",\"terrabench\":1,\"identity\":\"x\",\"width\":3,\"wants\":[\"pooled\"]}\n";
    [&ready[..], header.as_bytes(), &file, b"{\"message\":\"error\",\"text\":\"no\"}\n"].concat()
}

fn predictions() -> Vec<u8> {
    use terrabench::record::predictions::{Named, write};
    use terrabench::score::{Predictions, Targets};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.safetensors");
    let of = |classes: [usize; 3]| Targets::Classes { classes: classes.to_vec(), count: 2 };
    let predictions = Predictions::Targets { predicted: of([0, 1, 1]), truth: of([0, 1, 0]) };
    let samples = ["a", "b", "c"].map(String::from).to_vec();
    let named = Named { samples, predictions, scoring: None, supplement: Default::default() };
    write(&path, PREDICTED, &named).unwrap();
    std::fs::read(path).unwrap()
}

/// A sample, its partition and a packed split with its index, the first two from generated data.
fn generated() -> &'static [Vec<u8>; 3] {
    static MADE: OnceLock<[Vec<u8>; 3]> = OnceLock::new();
    MADE.get_or_init(|| {
        let suite = Suite::load(&Home::find().unwrap(), "geobench").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let root = terrabench::demo::provide(&suite, folder.path()).unwrap();
        let directory = root.join(&suite.task("m-eurosat").unwrap().directory);
        let mut paths: Vec<PathBuf> =
            std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let with = |end: &str| paths.iter().find(|path| path.to_string_lossy().ends_with(end)).unwrap();
        let packed = fixture("packed-format-1/m-eurosat");
        let index = std::fs::read(packed.join("index.json")).unwrap();
        let split = std::fs::read(packed.join("test.h5")).unwrap();
        let length = u32::try_from(index.len()).unwrap().to_le_bytes();
        [
            std::fs::read(with(".hdf5")).unwrap(),
            std::fs::read(with("_partition.json")).unwrap(),
            [&length[..], &index, &split].concat(),
        ]
    })
}

/// Undamaged inputs of a target, and those of `fuzz/corpus/`: more of them, and what once failed.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let text = |text: &str| text.as_bytes().to_vec();
    let mut seeds = match target {
        "pickle" => {
            let all = files(&fixture("checkpoints/weights")).into_iter();
            let mut all: Vec<_> = all.filter(|bytes| !bytes.starts_with(b"PK")).collect();
            all.push(text("\u{80}\u{2}}q\u{0}(X\u{3}\u{0}\u{0}\u{0}abcK\u{1}u."));
            all
        }
        "hdf5" => files(&fixture("hdf5")),
        "sample" => vec![generated()[0].clone()],
        "partition" => {
            vec![generated()[1].clone(), text(r#"{"train":["one"],"valid":["one"],"test":["one"]}"#)]
        }
        "packed" => vec![generated()[2].clone()],
        "geotiff" => vec![tiff()],
        "lists" => vec![
            text("\u{0}a.tif,b.tif\nc.tif\n"),
            text("\u{1}Forest/Forest_1.tif\nRiver/River_2.tif\n"),
            text("\u{2}name,1,0,1,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0\n"),
            text("\u{5}{\"0\":{\"activation\":\"A\",\"clip_id\":\"1\",\"type\":\"x\"}}"),
        ],
        "checkpoint" => files(&fixture("checkpoints/weights")),
        "safetensors" => vec![tensor_file()],
        "arrays" => files(&fixture("vectors")),
        "parquet" => vec![parquet_features(true), parquet_features(false)],
        "tortilla" => vec![container()],
        "onnx_model" => {
            let mut all = files(&repository("configs/models"));
            all.truncate(6);
            all.push(text("name=\"X\"\nbackbone=\"Y\"\n[architecture]\nkind=\"onnx\"\nfile=\"any.onnx\"\n"));
            all
        }
        "onnx_file" => files(&fixture("onnx")).into_iter().filter(|bytes| bytes.len() < 10_000).collect(),
        "frames" => vec![frames()],
        "protocol" => files(&repository("configs/protocols")),
        "archive" => vec![zipped(&[("set/a", b"a"), ("set/b/c", &[7; 3000])])],
        "record" => vec![serde_json::to_vec(&sample::record()).unwrap()],
        "predictions" => vec![predictions()],
        other => panic!("the target {other} has no seeds"),
    };
    assert!(!seeds.is_empty(), "{target}: no seed was found");
    seeds.extend(files(&repository("fuzz/corpus").join(target)));
    seeds
}

/// What became of the inputs of a target.
#[derive(Default)]
struct Outcome {
    inputs: usize,
    slowest: Duration,
    most_bytes: usize,
    failures: Vec<String>,
}

/// Passes mutated seeds to a target while `goes_on`. `begin` is told each input before it is read.
fn work(
    target: &str,
    random: &mut Random,
    limit: Duration,
    mut goes_on: impl FnMut(usize) -> bool,
    mut begin: impl FnMut(&[u8]),
    mut keep: impl FnMut(&str, &[u8]),
) -> Outcome {
    let read = TARGETS.iter().find(|(name, _)| *name == target).expect("a known target").1;
    let seeds = seeds(target);
    let mut outcome = Outcome::default();
    while goes_on(outcome.inputs) {
        let mut input = seeds[outcome.inputs % seeds.len()].clone();
        // The seeds themselves come first.
        if outcome.inputs >= seeds.len() {
            input = seeds[random.below(seeds.len())].clone();
            mutate(&mut input, &seeds, random);
        }
        begin(&input);
        let held = HELD.get();
        PEAK.set(held);
        let start = worked();
        let done = catch_unwind(AssertUnwindSafe(|| read(&input)));
        let took = worked().saturating_sub(start);
        let bytes = usize::try_from(PEAK.get() - held).unwrap_or(0);
        let mut fail = |kind: &str, told: String| {
            keep(kind, &input);
            outcome.failures.push(format!("{target}: {told}"));
        };
        if let Err(panic) = done {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            fail("panic", format!("panicked: {}", text.unwrap_or_default()));
        }
        if took > limit {
            fail("slow", format!("took {took:?}"));
        }
        if bytes > MOST_BYTES {
            fail("memory", format!("held {bytes} bytes"));
        }
        outcome.inputs += 1;
        outcome.slowest = outcome.slowest.max(took);
        outcome.most_bytes = outcome.most_bytes.max(bytes);
    }
    outcome
}

/// How long this thread has worked: its CPU time where the system tells it, as other work on the machine says nothing about a
/// reader. Waiting without end is found by the watcher of a worker.
fn worked() -> Duration {
    static BEGUN: OnceLock<Instant> = OnceLock::new();
    let wall_clock = BEGUN.get_or_init(Instant::now).elapsed();
    let cpu = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanoseconds = cpu.and_then(|text| text.split_whitespace().next()?.parse().ok());
    nanoseconds.map_or(wall_clock, Duration::from_nanos)
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// One worker of `cargo xtask fuzz`.
fn worker(target: &str) {
    let number = |name: &str, default: u64| {
        std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
    };
    let folder = PathBuf::from(std::env::var_os(FAILURES).expect("a folder for failures"));
    std::fs::create_dir_all(&folder).unwrap();
    let current = std::env::temp_dir().join(format!("current-{target}"));
    let end = Instant::now() + Duration::from_secs(number(SECONDS, 60));
    let limit = Duration::from_millis(number(LIMIT, 1000));
    let begun: Arc<Mutex<Option<Instant>>> = Arc::default();
    // An input that never ends is found from outside.
    let watched = Arc::clone(&begun);
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_millis(200));
            let since = watched.lock().unwrap().map_or(Duration::ZERO, |begun| begun.elapsed());
            if since > 20 * limit {
                std::process::abort();
            }
        }
    });
    let mut random = Random(number(SEED, 1) | 1);
    let begin = |input: &[u8]| {
        std::fs::write(&current, input).unwrap();
        *begun.lock().unwrap() = Some(Instant::now());
    };
    let keep = |kind: &str, input: &[u8]| {
        std::fs::write(folder.join(format!("{target}-{kind}-{:016x}", hash(input))), input).unwrap();
    };
    let outcome = work(target, &mut random, limit, |_| Instant::now() < end, begin, keep);
    std::fs::remove_file(&current).ok();
    let mut seen = std::collections::BTreeSet::new();
    let told = outcome.failures.iter().filter(|failure| seen.insert((*failure).clone()));
    told.take(20).for_each(|failure| eprintln!("{failure}"));
    println!(
        "fuzz {target}: {} inputs, slowest {} ms, most {} kB, {} failures",
        outcome.inputs,
        outcome.slowest.as_millis(),
        outcome.most_bytes / 1000,
        outcome.failures.len()
    );
}

#[test]
fn no_reader_panics_hangs_or_takes_much_memory() {
    if let Some(folder) = std::env::var_os(CORPUS) {
        for (target, _) in TARGETS {
            let folder = Path::new(&folder).join(target);
            std::fs::create_dir_all(&folder).unwrap();
            for seed in seeds(target) {
                std::fs::write(folder.join(format!("{:016x}", hash(&seed))), seed).unwrap();
            }
        }
        return;
    }
    if let Ok(target) = std::env::var(TARGET) {
        return worker(&target);
    }
    let mut failures = Vec::new();
    for (target, _) in TARGETS {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let outcome = work(target, &mut random, PATIENCE, |done| done < FEW, |_| (), |_, _| ());
        assert_eq!(outcome.inputs, FEW);
        failures.extend(outcome.failures);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_target_has_a_file_for_cargo_fuzz() {
    let manifest = std::fs::read_to_string(repository("fuzz/Cargo.toml")).unwrap();
    for (target, _) in TARGETS {
        assert!(manifest.contains(&format!("name = \"{target}\"")), "{target} is not in fuzz/Cargo.toml");
        let source = std::fs::read_to_string(repository("fuzz/fuzz_targets").join(format!("{target}.rs")));
        assert!(source.unwrap().contains(&format!("\"{target}\"")), "{target}");
    }
}

#[test]
fn the_counting_allocator_sees_what_a_thread_holds() {
    let before = HELD.get();
    PEAK.set(before);
    let some = vec![1_u8; 3_000_000];
    assert!(HELD.get() - before >= 3_000_000);
    drop(some);
    assert!(HELD.get() - before < 100_000 && PEAK.get() - before >= 3_000_000);
}

#[test]
fn mutations_change_inputs_in_many_ways() {
    let seed = b"{\"train\": [\"a\", \"b\"], \"n\": 12}".to_vec();
    let mut random = Random(5);
    let all: std::collections::BTreeSet<Vec<u8>> = (0..200)
        .map(|_| {
            let mut input = seed.clone();
            mutate(&mut input, std::slice::from_ref(&seed), &mut random);
            input
        })
        .collect();
    assert!(all.len() > 150, "{} different inputs", all.len());
}
