//! `examples/ci/`: its steps, played in order in a bare folder with the program.

use std::path::Path;
use std::process::Command;

#[test]
#[cfg(unix)]
fn the_steps_of_the_example_do_what_they_say() {
    let folder = tempfile::tempdir().unwrap();
    let play = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/ci/play.sh");
    let output = Command::new("sh")
        .arg(play)
        .arg(env!("CARGO_BIN_EXE_terrabench"))
        .current_dir(folder.path())
        .env("TERRABENCH_CACHE", folder.path().join("cache"))
        .env_remove("TERRABENCH_HOME")
        .output()
        .unwrap();
    let [told, log] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    assert!(output.status.success(), "{told}\n{log}");
    assert!(told.ends_with("played: every step did what it should\n"), "{told}");
}

#[test]
fn both_services_call_every_step_in_order() {
    let steps = ["restore", "measure", "check", "comment", "verdict"];
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/ci");
    for file in ["github/action.yml", "gitlab/.gitlab-ci.yml"] {
        let text = std::fs::read_to_string(root.join(file)).unwrap();
        let places: Vec<Option<usize>> = steps
            .iter()
            .map(|step| {
                let called = [format!("gate.sh\" {step}"), format!("gate.sh {step}")];
                called.iter().filter_map(|call| text.find(call)).min()
            })
            .collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{file}: {places:?}");
        assert!(
            text.contains("check.xml") || text.contains("terrabench-report/"),
            "{file} publishes no JUnit"
        );
    }
}
