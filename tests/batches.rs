//! `batches`: the stream of a split's images, as programs in other languages read it.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use safetensors::SafeTensors;
use serde_json::Value;

use crate::common::demo;

const TASK: [&str; 5] = ["batches", "--demo", "--task", "m-eurosat", "--split"];
const OWN: [&str; 6] = ["--encoder", "encode", "--input-bands", "B04,B08", "--input-size", "16"];

fn terrabench(cache: &Path, args: &[&[&str]]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_terrabench"));
    command
        .env("TERRABENCH_CACHE", demo::cache("geobench", cache))
        .args(args.concat())
        .stdout(Stdio::piped());
    command
}

/// Splits a stream into its messages and the bytes that follow them.
fn messages(stream: &[u8]) -> Vec<(Value, Vec<u8>)> {
    let mut reader = BufReader::new(stream);
    let mut all = Vec::new();
    let mut line = String::new();
    while reader.read_line(&mut line).unwrap() > 0 {
        let message: Value = serde_json::from_str(&line).unwrap();
        let mut bytes = vec![0; message["bytes"].as_u64().unwrap_or(0) as usize];
        reader.read_exact(&mut bytes).unwrap();
        all.push((message, bytes));
        line.clear();
    }
    all
}

#[test]
fn a_split_comes_in_batches_with_names_and_labels_whatever_the_threads() {
    let folder = tempfile::tempdir().unwrap();
    let run = |threads: &str| {
        let args = [&TASK[..], &["test"], &OWN, &["--batch-size", "16", "--threads", threads]];
        let output = terrabench(folder.path(), &args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let stream = run("1");
    assert_eq!(stream, run("3"));
    let all = messages(&stream);
    let kinds: Vec<&str> = all.iter().map(|(message, _)| message["message"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["split", "batch", "batch", "batch", "end"]);
    let (split, _) = &all[0];
    assert_eq!(
        (&split["samples"], &split["terrabench"], &split["split"]),
        (&40.into(), &1.into(), &"test".into())
    );
    let bands: Vec<&str> = split["images"][0]["bands"]
        .as_array()
        .unwrap()
        .iter()
        .map(|band| band["name"].as_str().unwrap())
        .collect();
    assert_eq!((bands, &split["images"][0]["side"]), (vec!["B04", "B08"], &16.into()));
    assert_eq!(split["images"][0]["bands"][0]["wavelength_nm"], 664.6);
    let mut names: Vec<String> = Vec::new();
    for ((message, bytes), n) in all[1..4].iter().zip([16, 16, 8]) {
        let file = SafeTensors::deserialize(bytes).unwrap();
        assert_eq!(file.tensor("image0").unwrap().shape(), [n, 2, 16, 16]);
        assert_eq!(file.tensor("labels").unwrap().shape(), [n]);
        names.extend(
            message["samples"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()),
        );
    }
    names.dedup();
    assert_eq!(names.len(), 40);
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    // Larger than a pipe holds.
    let args = [&TASK[..], &["train"], &["--encoder", "encode"]];
    let mut child = terrabench(folder.path(), &args).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("\"split\""), "{line}");
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_sweep_of_normalisations_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let args = [&TASK[..], &["test"], &OWN, &["--normalization", "sweep"]];
    let output = terrabench(folder.path(), &args).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && output.stdout.is_empty(), "{said}");
    assert!(said.contains("exactly one normalisation"), "{said}");
}
