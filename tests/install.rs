//! The program outside a checkout: what it recommends, completions, manual pages, the time that help takes.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_terrabench");

fn run(program: &Path, folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.current_dir(folder).env("TERRABENCH_CACHE", folder.join("cache"));
    for variable in ["TERRABENCH_HOME", "GEO_BENCH_DIR", "TERRABENCH_DATA"] {
        command.env_remove(variable);
    }
    command.env("XDG_DATA_HOME", folder.join("data")).args(args).output().unwrap()
}

#[track_caller]
fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn an_installed_program_needs_no_checkout_and_recommends_its_own_commands() {
    let folder = tempfile::tempdir().unwrap();
    let installed = folder.path().join("terrabench");
    if std::fs::hard_link(PROGRAM, &installed).is_err() {
        std::fs::copy(PROGRAM, &installed).unwrap();
    }
    let models = printed(&run(&installed, folder.path(), &["models", "--json"]));
    assert!(models.contains("terrafm-b"), "{models}");

    let lacking = run(&installed, folder.path(), &["bench", "geobench", "--weights", "random:0"]);
    let said = String::from_utf8_lossy(&lacking.stderr);
    assert!(said.contains("`terrabench fetch geobench") && !said.contains("cargo xtask"), "{said}");

    let help = printed(&run(&installed, folder.path(), &["bench", "--help"]));
    assert!(help.contains("  terrabench bench geobench --demo\n") && !help.contains("cargo xtask"), "{help}");
}

#[test]
fn a_program_built_in_place_recommends_commands_of_the_checkout() {
    let folder = tempfile::tempdir().unwrap();
    let help = printed(&run(Path::new(PROGRAM), folder.path(), &["bench", "--help"]));
    assert!(help.contains("  cargo xtask bench geobench --demo\n"), "{help}");
}

#[test]
fn completions_know_commands_and_options() {
    let folder = tempfile::tempdir().unwrap();
    for (shell, marks) in [
        ("bash", ["complete -F _terrabench", "--protocol"]),
        ("zsh", ["#compdef terrabench", "--protocol"]),
        ("fish", ["complete -c terrabench", "-l protocol"]),
    ] {
        let script = printed(&run(Path::new(PROGRAM), folder.path(), &["completions", shell]));
        for mark in marks.into_iter().chain(["contribute", "rescore"]) {
            assert!(script.contains(mark), "{shell}: no `{mark}`");
        }
    }
    // The shell itself accepts its script, where it is installed.
    let script = folder.path().join("terrabench.bash");
    std::fs::write(&script, run(Path::new(PROGRAM), folder.path(), &["completions", "bash"]).stdout).unwrap();
    match Command::new("bash").arg("-n").arg(&script).output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(_) => eprintln!("skipped: no bash is here"),
    }
}

#[test]
fn manual_pages_exist_for_the_program_and_each_command() {
    let folder = tempfile::tempdir().unwrap();
    let page = printed(&run(Path::new(PROGRAM), folder.path(), &["man"]));
    assert!(page.contains(".TH terrabench 1") && page.contains("bench"), "{page}");
    let out = folder.path().join("man1");
    let written = run(Path::new(PROGRAM), folder.path(), &["man", "--out", out.to_str().unwrap()]);
    assert!(written.status.success(), "{written:?}");
    for name in ["terrabench.1", "terrabench-bench.1", "terrabench-check.1", "terrabench-report.1"] {
        let page = std::fs::read_to_string(out.join(name)).unwrap();
        assert!(page.contains(".SH OPTIONS") || page.contains(".SH SUBCOMMANDS"), "{name}: {page}");
    }
    // Hidden commands are of no use to a reader.
    assert!(!out.join("terrabench-make-files.1").exists());
}

/// 20 ms on an idle machine, optimised; the limit leaves room for an unoptimised program among other work.
#[test]
fn help_is_printed_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let time = || {
        let start = Instant::now();
        printed(&run(Path::new(PROGRAM), folder.path(), &["--help"]));
        start.elapsed()
    };
    let fastest = (0..5).map(|_| time()).min().unwrap();
    assert!(fastest < Duration::from_millis(400), "{fastest:?}");
}
