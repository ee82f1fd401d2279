//! `cargo xtask perf`: every bench beside its peers, one page and pictures of what they measured.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::wheel::{NO_PYTHON, in_environment, python};
use crate::{cargo, console, run};

/// Arguments of `perf`.
#[derive(Debug, clap::Args)]
pub struct PerfArgs {
    /// Fewer benches, rounds, models and sizes: about 3 minutes on two cores once everything is built and installed
    #[arg(long)]
    quick: bool,

    /// Only this bench (repeatable): reader, geotiff, process, transform, zoo, backbone, knn, linear_probe, logistic, finetune,
    /// upernet, job, growth
    #[arg(long = "only", value_name = "BENCH")]
    only: Vec<String>,

    /// Time this program alone
    #[arg(long)]
    no_peers: bool,

    /// Folder of the Python environments that the peers run in; what is missing there is installed with pip
    #[arg(long, value_name = "DIR", default_value = "target/peers")]
    peers: PathBuf,

    /// Folder with checkouts of the models' original code, as benches/zoo.rs says [default: $TERRABENCH_ORIGINALS]
    #[arg(long, value_name = "DIR")]
    originals: Option<PathBuf>,

    /// Folder for perf.md and its pictures
    #[arg(long, value_name = "DIR", default_value = "results")]
    out: PathBuf,
}

/// A Python environment that peers run in.
struct Environment {
    name: &'static str,
    packages: &'static [&'static str],
    /// Packages whose dependencies are not wanted.
    alone: &'static [&'static str],
    /// What must be importable.
    module: &'static str,
    /// Packages whose versions the page names.
    shown: &'static [&'static str],
}

const TORCH: Environment = Environment {
    name: "torch",
    packages: &[
        "torch==2.9.0",
        "torchvision==0.24.0",
        "numpy",
        "safetensors",
        "einops",
        "timm",
        "PyYAML",
        "scikit-learn",
        "rasterio",
        "pyproj",
    ],
    alone: &["satlaspretrain-models"],
    module: "torch, safetensors, sklearn, rasterio, pyproj, timm, einops",
    shown: &["torch", "scikit-learn", "rasterio"],
};

const GEOBENCH: Environment = Environment {
    name: "geobench",
    packages: &["geobench==1.0.0"],
    alone: &[],
    module: "geobench",
    shown: &["geobench"],
};

const GEOBENCH_2: Environment = Environment {
    name: "geobench2",
    packages: &["geobenchv2"],
    alone: &[],
    module: "geobench_v2",
    shown: &["geobenchv2"],
};

/// For the classes of Copernicus-Bench, which come from a checkout ([`PerfArgs::originals`]).
const COPERNICUS: Environment = Environment {
    name: "copernicus",
    packages: &[
        "torch==2.9.0",
        "torchgeo",
        "rasterio",
        "opencv-python-headless",
        "kornia",
        "pyproj",
        "pandas",
    ],
    alone: &[],
    module: "torchgeo, rasterio, cv2, kornia, pyproj, pandas",
    shown: &[],
};

/// It is in no registry: whoever has its repository installs it into this environment.
const TORCHGEO: Environment =
    Environment { name: "torchgeo-bench", packages: &[], alone: &[], module: "torchgeo_bench", shown: &[] };

/// A bench and its arguments.
struct Work {
    bench: &'static str,
    /// Options that name the Python of an environment.
    peers: &'static [(&'static str, &'static Environment)],
    full: &'static str,
    /// Of `--quick`; `None` leaves the bench out.
    quick: Option<&'static str>,
}

const WORKS: [Work; 13] = [
    Work {
        bench: "reader",
        peers: &[("--peer", &GEOBENCH), ("--geobench2", &GEOBENCH_2), ("--copernicus", &COPERNICUS)],
        full: "",
        quick: Some("--tasks m-eurosat,biomassters --rounds 1 --repetitions 2"),
    },
    Work { bench: "geotiff", peers: &[("--peer", &TORCH)], full: "", quick: Some("--tiles 200 --rounds 2") },
    Work { bench: "process", peers: &[], full: "", quick: Some("--rounds 2") },
    Work {
        bench: "transform",
        peers: &[("--peer", &TORCH)],
        full: "",
        quick: Some("--rounds 1 --repetitions 3"),
    },
    Work {
        bench: "zoo",
        peers: &[("--peer", &TORCH)],
        full: "--rounds 2 --repetitions 2 --batches 1,8,32",
        quick: Some("--rounds 1 --repetitions 1 --models terrafm-b"),
    },
    Work { bench: "backbone", peers: &[("--peer", &TORCH)], full: "", quick: None },
    Work {
        bench: "knn",
        peers: &[("--peer", &TORCH)],
        full: "",
        quick: Some("--quick --rounds 1 --repetitions 3"),
    },
    Work { bench: "linear_probe", peers: &[("--peer", &TORCH)], full: "--rounds 3", quick: None },
    Work {
        bench: "logistic",
        peers: &[("--peer", &TORCH)],
        full: "",
        quick: Some("--rounds 1 --strengths 5"),
    },
    Work {
        bench: "finetune",
        peers: &[("--peer", &TORCH)],
        full: "",
        quick: Some("--rounds 1 --repetitions 1"),
    },
    Work { bench: "upernet", peers: &[("--peer", &TORCH)], full: "--steps 9", quick: Some("--steps 1") },
    Work { bench: "job", peers: &[("--peer", &TORCHGEO)], full: "", quick: None },
    Work { bench: "growth", peers: &[], full: "", quick: Some("--quick") },
];

/// Runs the benches in turn, then writes the page. A bench that fails is named there, and the others run.
///
/// # Errors
/// If a bench failed, or the page cannot be written.
pub fn command(root: &Path, options: &PerfArgs) -> Result<()> {
    let works: Vec<&Work> = WORKS
        .iter()
        .filter(|work| options.only.is_empty() || options.only.iter().any(|name| name == work.bench))
        .filter(|work| !options.quick || work.quick.is_some() || !options.only.is_empty())
        .collect();
    if let Some(unknown) = options.only.iter().find(|name| WORKS.iter().all(|work| work.bench != **name)) {
        let known: Vec<&str> = WORKS.iter().map(|work| work.bench).collect();
        bail!("no bench `{unknown}`\nhelp: expected one of {}", known.join(", "));
    }
    let mut build = cargo(root, ["bench", "--no-run", "--bench", "perf"]);
    works.iter().for_each(|work| {
        build.args(["--bench", work.bench]);
    });
    run(&mut build)?;

    let measured = root.join("target/perf-measured.jsonl");
    if measured.exists() {
        std::fs::remove_file(&measured).with_context(|| format!("cannot remove {}", measured.display()))?;
    }
    let folder = root.join(&options.peers);
    let mut environments: Vec<(&str, Option<PathBuf>)> = Vec::new();
    let (mut versions, mut failed) = (Vec::new(), Vec::new());
    for work in works {
        let mut bench = cargo(root, ["bench", "--quiet", "--bench", work.bench, "--"]);
        for (option, environment) in work.peers {
            if options.no_peers {
                continue;
            }
            let found = match environments.iter().find(|(name, _)| *name == environment.name) {
                Some((_, found)) => found.clone(),
                None => {
                    let found = prepared(environment, &folder);
                    if let Some(python) = &found {
                        versions.extend(shown(environment, python));
                    }
                    environments.push((environment.name, found.clone()));
                    found
                }
            };
            if let Some(python) = found {
                bench.arg(option).arg(python);
            }
        }
        let words = work.quick.filter(|_| options.quick).unwrap_or(work.full);
        bench.args(words.split_whitespace()).env("TERRABENCH_MEASURED", &measured);
        if let Some(originals) = &options.originals {
            bench.env("TERRABENCH_ORIGINALS", std::path::absolute(originals)?);
        }
        let start = Instant::now();
        if let Err(error) = run(&mut bench) {
            console::note(format_args!("error: {error:#}"));
            failed.push(work.bench);
        }
        console::note(format_args!("{}: {:.0} s", work.bench, start.elapsed().as_secs_f64()));
    }
    if !measured.exists() {
        bail!("nothing was measured");
    }
    let mut page = cargo(root, ["bench", "--quiet", "--bench", "perf", "--"]);
    page.arg("--measured").arg(&measured).arg("--out").arg(root.join(&options.out));
    page.args(["--command", &words_of(options), "--versions", &versions.join(", ")]);
    run(&mut page)?;
    match failed[..] {
        [] => Ok(()),
        _ => bail!("failed: {}; the page holds what the others measured", failed.join(", ")),
    }
}

/// The command as the page names it.
fn words_of(options: &PerfArgs) -> String {
    let mut words = String::from("cargo xtask perf");
    if options.quick {
        words += " --quick";
    }
    if options.no_peers {
        words += " --no-peers";
    }
    options.only.iter().for_each(|bench| words += &format!(" --only {bench}"));
    words
}

/// The Python of an environment, which is made if it is not there. `None`, with a word, where it cannot be had.
fn prepared(environment: &Environment, folder: &Path) -> Option<PathBuf> {
    let Environment { name, packages, alone, module, .. } = environment;
    let own = folder.join(name);
    let installed = in_environment(&own, "python");
    let works = |python: &Path| {
        let mut import = Command::new(python);
        import.args(["-c", &format!("import {module}")]).stdin(Stdio::null());
        import.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    if works(&installed) {
        return Some(installed);
    }
    let skip = |why: &str| {
        console::note(format_args!("skipped: the peers of `{name}`: {why}"));
        None
    };
    if packages.is_empty() {
        return skip(&format!(
            "{} cannot import {module}; benches/job.rs says how to install it there",
            installed.display()
        ));
    }
    let Some(base) = python() else { return skip(NO_PYTHON) };
    match install(&base, &own, packages, alone) {
        Ok(()) if works(&installed) => Some(installed),
        Ok(()) => skip(&format!("pip installed {}, but `import {module}` fails", packages.join(" "))),
        Err(error) => skip(&format!("{error:#}")),
    }
}

fn install(base: &OsString, own: &Path, packages: &[&str], alone: &[&str]) -> Result<()> {
    run(Command::new(base).args(["-m", "venv"]).arg(own))?;
    let python = in_environment(own, "python");
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    run(Command::new(&python).args(pip).args(packages))?;
    match alone {
        [] => Ok(()),
        _ => run(Command::new(&python).args(pip).arg("--no-deps").args(alone)),
    }
}

/// The versions of an environment's packages.
fn shown(environment: &Environment, python: &Path) -> Vec<String> {
    let version = |package: &&str| {
        let code = format!("import importlib.metadata as m; print(m.version('{package}'))");
        let output = Command::new(python)
            .args(["-c", &code])
            .output()
            .ok()
            .filter(|output| output.status.success())?;
        Some(format!("{package} {}", String::from_utf8_lossy(&output.stdout).trim()))
    };
    environment.shown.iter().filter_map(version).collect()
}
