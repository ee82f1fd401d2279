//! Records identify the program and the configuration files independently.

use std::path::Path;
use std::process::Command;

use terrabench::record::Store;

use crate::common::demo;

fn git(folder: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(folder).args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &to);
        } else {
            std::fs::copy(&path, &to).unwrap();
        }
    }
}

#[test]
fn records_name_the_programs_revision_and_hash_configs_separately() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    // Configuration files in a separate checkout, with another revision and a modified k-NN protocol.
    let home = folder.path().join("home");
    ["benchmarks", "configs"].iter().for_each(|name| copy(&here.join(name), &home.join(name)));
    let knn = home.join("configs/protocols/knn.toml");
    let text = std::fs::read_to_string(&knn).unwrap() + "\n# ours\n";
    std::fs::write(&knn, &text).unwrap();
    let commit = ["-c", "user.name=A", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false"];
    let commit = [&commit[..], &["commit", "--quiet", "-m", "x"]].concat();
    let other = git(&home, &["init", "--quiet"])
        .and_then(|_| git(&home, &["add", "."]))
        .and_then(|_| git(&home, &commit))
        .and_then(|_| git(&home, &["rev-parse", "HEAD"]));

    let output = Command::new(env!("CARGO_BIN_EXE_terrabench"))
        .current_dir(&home)
        .env("TERRABENCH_CACHE", demo::cache("geobench", folder.path().join("cache")))
        .args([
            "bench",
            "geobench",
            "--demo",
            "--task",
            "m-eurosat",
            "--partition",
            "default",
            "--out",
            "out",
        ])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let records = Store::open(home.join("out/geobench-demo")).unwrap().all().unwrap();
    let made = &records[0].provenance;
    assert_eq!(made.terrabench, env!("CARGO_PKG_VERSION"));
    assert!(other.is_none() || made.git_revision != other, "the revision is that of the configs' folder");
    // If this crate is a checkout, the program was built from it.
    if git(here, &["ls-files", "--error-unmatch", "Cargo.toml"]).is_some() {
        assert_eq!(made.git_revision, git(here, &["rev-parse", "HEAD"]));
    }
    let names: Vec<&str> = made.configs.keys().map(String::as_str).collect();
    assert_eq!(names, ["model", "normalization", "protocol", "suite"]);
    assert_eq!(made.configs["protocol"], blake3::hash(text.as_bytes()).to_hex().to_string());
    let suite = std::fs::read(here.join("benchmarks/geobench.toml")).unwrap();
    assert_eq!(made.configs["suite"], blake3::hash(&suite).to_hex().to_string());
}
