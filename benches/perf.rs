//! Makes a page and pictures of what the benches measured; `cargo xtask perf` runs them and this.
//!
//! `cargo bench --bench perf -- --measured FILE --out FOLDER [--command WORDS] [--versions WORDS]`

#[path = "common/measured.rs"]
#[allow(dead_code, reason = "this bench only reads")]
mod measured;
#[path = "perf/page.rs"]
mod page;
#[path = "perf/pictures.rs"]
mod pictures;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use terrabench::canvas::png;
use terrabench::program::Program;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let option = |name: &str| {
        arguments.iter().position(|argument| argument == name).and_then(|at| arguments.get(at + 1)).cloned()
    };
    let file = option("--measured").context("--measured FILE: expected the file that the benches wrote")?;
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    let measured = measured::read(&text).with_context(|| file.clone())?;
    let out = PathBuf::from(option("--out").unwrap_or_else(|| "results".into()));
    let about = page::About {
        command: option("--command").unwrap_or_else(|| "cargo xtask perf".into()),
        program: program(),
        machine: machine(),
        peers: option("--versions").unwrap_or_default(),
        date: option("--date").unwrap_or_default(),
    };
    std::fs::create_dir_all(&out)?;
    let write = |name: &str, contents: &[u8]| {
        let path = out.join(name);
        std::fs::write(&path, contents).with_context(|| format!("cannot write {}", path.display()))?;
        println!("{}", path.display());
        Ok::<_, anyhow::Error>(())
    };
    let mut drawn = Vec::new();
    for (name, picture) in
        [("perf.png", pictures::ratios(&measured)), ("perf-growth.png", pictures::growth(&measured))]
    {
        if let Some(picture) = picture {
            write(name, &png(&picture, 1.5)?)?;
            drawn.push((name, picture.description));
        }
    }
    write("perf.md", page::page(&measured, &about, &drawn).as_bytes())
}

fn program() -> String {
    let Program { version, revision, is_dirty } = Program::new(revision::revision!());
    match revision {
        None => version,
        Some(revision) => {
            let short = revision.get(..10).unwrap_or(&revision);
            format!("{version}, revision {short}{}", if is_dirty { " with changes" } else { "" })
        }
    }
}

/// The processor, its cores and vector instructions, and the memory, as far as the system tells.
fn machine() -> String {
    let read = |path: &str, key: &str| {
        let text = std::fs::read_to_string(Path::new(path)).unwrap_or_default();
        let line =
            text.lines().find_map(|line| Some(line.strip_prefix(key)?.split_once(':')?.1.trim().to_owned()));
        line.filter(|value| !value.is_empty())
    };
    let processor = read("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let threads = rayon::current_num_threads();
    let mut words = vec![format!("{threads} threads on {processor}"), vectors().to_owned()];
    if let Some(memory) = read("/proc/meminfo", "MemTotal")
        && let Some(kibibytes) =
            memory.split_whitespace().next().and_then(|number| number.parse::<f64>().ok())
    {
        words.push(format!("{:.0} GiB of memory", kibibytes / 1_048_576.0));
    }
    words.push(std::env::consts::OS.to_owned());
    words.join(", ")
}

#[cfg(target_arch = "x86_64")]
fn vectors() -> &'static str {
    match (is_x86_feature_detected!("avx512f"), is_x86_feature_detected!("avx512bf16")) {
        (true, true) => "AVX-512 with bfloat16",
        (true, false) => "AVX-512 without bfloat16",
        (false, _) if is_x86_feature_detected!("avx2") => "AVX2, no AVX-512",
        _ => "no AVX2",
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn vectors() -> &'static str {
    "not x86-64"
}
