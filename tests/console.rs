//! Outputs without a reader or on a full disk, and an incompletely set environment: no run is lost.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::LazyLock;

use crate::common::demo;

fn terrabench(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_terrabench"));
    command
        .env("TERRABENCH_CACHE", demo::cache("geobench", folder.join("cache")))
        .env("TERRABENCH_DATA", folder.join("data"));
    command.env("XDG_DATA_HOME", folder.join("platform")).env_remove("TERRABENCH_HOME");
    command
}

/// Benchmarks one small demo task on two partitions, with results in `out`.
fn bench(folder: &Path, out: &str) -> Command {
    let mut command = terrabench(folder);
    command.args(["bench", "geobench", "--demo", "--threads", "1", "--task", "m-eurosat", "--out"]);
    command.arg(folder.join(out)).env("RUST_LOG", "debug");
    command
}

fn records(folder: &Path, out: &str) -> usize {
    std::fs::read_dir(folder.join(out).join("geobench-demo/records")).map_or(0, Iterator::count)
}

/// A folder in which `bench` ran into `out` with closed outputs, and its exit status.
static RUN: LazyLock<(tempfile::TempDir, ExitStatus)> = LazyLock::new(|| {
    let here = tempfile::tempdir().unwrap();
    let status = bench(here.path(), "out").stdout(closed()).stderr(closed()).status().unwrap();
    (here, status)
});

/// An output whose reader has left, like with `| head`.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// An output on a full disk.
#[cfg(target_os = "linux")]
fn full() -> Stdio {
    std::fs::File::options().write(true).open("/dev/full").unwrap().into()
}

/// Returns the exit status with the given standard output.
fn ends(command: &mut Command, stdout: Stdio) -> ExitStatus {
    let output = command.stdout(stdout).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("panicked") && !said.contains("Broken pipe"), "{command:?}: {said}");
    output.status
}

#[test]
fn closed_or_full_outputs_lose_no_result() {
    let (here, status) = &*RUN;
    assert_eq!((status.code(), records(here.path(), "out")), (Some(0), 2));
    assert!(here.path().join("out/geobench-demo/knn.md").is_file());

    #[cfg(target_os = "linux")]
    {
        let status = bench(here.path(), "full").stdout(full()).stderr(full()).status().unwrap();
        assert_eq!((status.code(), records(here.path(), "full")), (Some(0), 2));
    }
}

#[test]
fn exit_codes_keep_their_meaning_without_a_reader() {
    let (here, _) = &*RUN;
    let out = here.path().join("out");
    let worse = here.path().join("worse");
    std::fs::create_dir_all(worse.join("geobench-demo/records")).unwrap();
    for entry in std::fs::read_dir(out.join("geobench-demo/records")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let mut record: serde_json::Value = serde_json::from_str(&text).unwrap();
        record["value"] = 0.5.into();
        let to = worse.join("geobench-demo/records").join(path.file_name().unwrap());
        std::fs::write(to, record.to_string()).unwrap();
    }
    let data = std::fs::read_dir(here.path().join("cache")).unwrap().map(|entry| entry.unwrap().path());
    let data =
        data.filter(|path| path.to_string_lossy().contains("geobench-demo")).find(|path| path.is_dir());
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let (out, worse, data) = (path(&out), path(&worse), path(&data.unwrap()));
    let report = path(&here.path().join("report"));
    let cases: [(&[&str], i32); 10] = [
        (&["check", "--records", &out, "--reference", &out], 0),
        (&["check", "--records", &worse, "--reference", &out], 1),
        (&["check", "--records", "/no/such", "--reference", &out], 2),
        (&["rescore", "--results", &out], 0),
        (&["compare", &out, &out], 0),
        (&["cache", "--list"], 0),
        (&["doctor"], 0),
        (&["doctor", "--json"], 0),
        (&["report", "--results", &out, "--out", &report], 0),
        (&["inspect", "--task", "m-eurosat", "--json", "--data", &data], 0),
    ];
    for (args, code) in cases {
        assert_eq!(ends(terrabench(here.path()).args(args), closed()).code(), Some(code), "closed: {args:?}");
        // If the result itself cannot be written, that is a failure; if it is stored elsewhere, it is only
        // noted.
        #[cfg(target_os = "linux")]
        {
            let lies_elsewhere = ["check", "report"].contains(&args[0]);
            let expected = if lies_elsewhere { code } else { 1 };
            let status = ends(terrabench(here.path()).args(args), full());
            assert_eq!(status.code(), Some(expected), "full: {args:?}");
        }
    }
}

#[test]
fn no_code_prints_with_macros_that_panic() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders: Vec<PathBuf> = vec![root.join("src"), root.join("xtask/src")];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            // Tests may use them: their output is the test runner's.
            let program = text.split("#[cfg(test)]\nmod ").next().unwrap();
            for (number, line) in program.lines().enumerate() {
                for printing in ["print!(", "println!(", "dbg!("] {
                    let at = format!("{}:{}", path.display(), number + 1);
                    assert!(
                        !line.contains(printing),
                        "{at}: use terrabench::console instead of {printing}...)"
                    );
                }
            }
        }
    }
    assert!(files > 100, "{files} files seen");
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn empty_variables_count_as_unset() {
    let here = tempfile::tempdir().unwrap();
    let mut command = terrabench(here.path());
    for name in ["TERRABENCH_CACHE", "TERRABENCH_DATA", "TERRABENCH_HOME", "GEO_BENCH_DIR", "RUST_LOG"] {
        command.env(name, "");
    }
    command.env("XDG_CACHE_HOME", here.path().join("caches")).env("HOME", here.path());
    let output = command.args(["cache", "--list"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    // Not the working directory, which an empty name would refer to.
    let folder = here.path().join("caches/terrabench");
    assert!(told.contains(&format!("entries of {}", folder.display())), "{told}{}", said(&output));

    let mut bench = terrabench(here.path());
    bench.args(["bench", "geobench", "--weights", "random:0"]).env("GEO_BENCH_DIR", "");
    let told = said(&bench.output().unwrap());
    assert!(told.contains("neither --data nor $GEO_BENCH_DIR names a folder"), "{told}");
}

#[test]
fn home_is_a_checkout_or_the_named_folder() {
    let here = tempfile::tempdir().unwrap();
    // Another project may have folders of these names.
    for folder in ["project/benchmarks", "project/configs"] {
        std::fs::create_dir_all(here.path().join(folder)).unwrap();
    }
    let run = |home: Option<&Path>| {
        let mut command = terrabench(here.path());
        command.args(["bench", "geobnch"]).current_dir(here.path().join("project"));
        if let Some(home) = home {
            command.env("TERRABENCH_HOME", home);
        }
        said(&command.output().unwrap())
    };
    // The embedded files.
    let own = run(None);
    assert!(own.contains("did you mean `geobench`") && own.contains("copernicus-bench"), "{own}");

    let home = here.path().join("home");
    for folder in ["benchmarks/published", "configs/models", "configs/protocols"] {
        std::fs::create_dir_all(home.join(folder)).unwrap();
    }
    std::fs::write(home.join("benchmarks/geobnch.toml"), "my = 'suite'").unwrap();
    let named = run(Some(&home));
    assert!(named.contains(home.join("benchmarks/geobnch.toml").to_str().unwrap()), "{named}");

    let wrong = run(Some(&here.path().join("project")));
    assert!(wrong.contains("did you mean `geobench`"), "{wrong}");
    let empty = run(Some(&here.path().join("project/benchmarks")));
    let problem = "expected a folder with `benchmarks/` or `configs/`, found neither";
    assert!(empty.contains(problem), "{empty}");

    // A file in the folder overrides the embedded one; the others are kept.
    let models = here.path().join("mine/configs/models");
    std::fs::create_dir_all(&models).unwrap();
    std::fs::write(models.join("demo.toml"), "name = 3").unwrap();
    let bench = |model: &str| {
        let mut command = terrabench(here.path());
        let output = command
            .args(["bench", "geobench", "--task", "m-eurosat", "--model", model])
            .current_dir(here.path().join("project"))
            .env("TERRABENCH_HOME", here.path().join("mine"))
            .output();
        said(&output.unwrap())
    };
    let mine = bench("demo");
    assert!(mine.contains(models.join("demo.toml").to_str().unwrap()) && mine.contains("name"), "{mine}");
    assert!(bench("terrafm-b").contains("GEO_BENCH_DIR"), "{}", bench("terrafm-b"));

    // The command line takes precedence over the environment.
    let mut command = terrabench(here.path());
    command.args(["bench", "geobnch", "--home"]).arg(&home).env("TERRABENCH_HOME", here.path().join("mine"));
    let typed = said(&command.output().unwrap());
    assert!(typed.contains(home.join("benchmarks/geobnch.toml").to_str().unwrap()), "{typed}");
}

#[test]
fn implausible_numbers_are_refused_with_the_allowed_maximum() {
    let here = tempfile::tempdir().unwrap();
    let refused = |option: &str, number: &str, told: &str| {
        let output = bench(here.path(), "out").args([option, number]).output().unwrap();
        let said = said(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(option) && said.contains(told), "{said}");
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let most = format!("must be at most {} on this machine ({cores} cores)", 64.max(4 * cores));
    let mut features = terrabench(here.path());
    features.args(["features", "--task", "m-eurosat", "--split", "test", "--out", "x", "--threads", "5000"]);
    assert!(said(&features.output().unwrap()).contains(&most));
    for number in ["5000", "100000", "18446744073709551616"] {
        let output =
            terrabench(here.path()).args(["bench", "geobench", "--threads", number]).output().unwrap();
        assert!(output.status.code() == Some(2) && said(&output).contains(&most), "{}", said(&output));
    }
    for number in ["4097", "1000000000", "18446744073709551616"] {
        refused("--batch-size", number, "must be at most 4096");
    }
    refused("--batch-size", "0", "must be at least 1");
}
