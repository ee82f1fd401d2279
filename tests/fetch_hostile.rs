//! A hub that wants to harm: tokens, floods of headers, bombs, and archives full of entries.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use terrabench::fetch::hub::Hub;
use terrabench::fetch::secret::Secret;
use terrabench::fetch::settings::Settings;

use crate::common::python;
use crate::fetch::{Target, archive, fetch, fetch_with, files, order, program, settings, source};
use crate::hub_server::{Mischief, Server};

const TOKEN: &str = "hf_VerySecretTokenOfThisTest";

#[test]
fn a_redirect_of_the_hubs_own_answers_takes_no_token_along() {
    let (server, thief) = (Server::start(&[("w.bin", b"weights")]), Server::start(&[("w.bin", b"weights")]));
    // Each answer of the hub leads to the same path elsewhere.
    let elsewhere = format!("{}/api/datasets/owner/name/revision/main", thief.endpoint());
    server.misbehave_as_hub(&[Mischief::Answer(307, vec![("Location", elsewhere)], "")]);
    let settings = Settings { token: Some(Secret::new(TOKEN)), ..settings(&server) };
    let target = Target::new();
    let wanted = order(vec![source("w.bin")]);
    fetch_with(&Hub::new(settings), &wanted, &target.folder(), false).unwrap();
    assert!(!thief.seen().is_empty(), "nothing was redirected");
    assert!(thief.seen().iter().all(|seen| seen.token.is_none()), "{:?}", thief.seen());
}

#[test]
fn endless_redirects_and_floods_of_headers_are_errors() {
    let many = || (0..20_000).map(|n| ("X-Flood", n.to_string())).collect();
    let long = || vec![("X-Flood", "x".repeat(20 << 20))];
    for (what, headers) in [("many", many as fn() -> Vec<(&'static str, String)>), ("long", long)] {
        let server = Server::start(&[("w.bin", b"weights")]);
        server.always("//hub", Some(Mischief::Answer(200, headers(), "{}")));
        let target = Target::new();
        let error = fetch(&server, &[source("w.bin")], &target.folder()).unwrap_err().to_string();
        assert!(error.contains("owner/name") && error.len() < 1000, "{what}: {error}");
        assert!(files(&target.folder()).is_empty());
    }
    let server = Server::start(&[("w.bin", b"weights")]);
    let here = format!("{}/api/datasets/owner/name/revision/main", server.endpoint());
    server.always("//hub", Some(Mischief::Answer(302, vec![("Location", here)], "")));
    let target = Target::new();
    let error = fetch(&server, &[source("w.bin")], &target.folder()).unwrap_err().to_string();
    assert!(error.contains("more than 10 redirects"), "{error}");
}

#[test]
fn a_gzip_bomb_ends_where_the_listed_size_ends() {
    let server = Server::start(&[("w.bin", b"weights")]);
    server.always("w.bin", Some(Mischief::GzipBomb(64)));
    let target = Target::new();
    let error = fetch(&server, &[source("w.bin")], &target.folder()).unwrap_err().to_string();
    assert!(error.contains("more than the 7 bytes"), "{error}");
    assert!(files(&target.folder()).iter().all(|file| !file.ends_with("w.bin")));
}

/// Runs the program with little memory, so that unpacking a bomb would end it.
#[cfg(target_os = "linux")]
#[test]
fn a_gzip_bomb_as_the_hubs_answer_takes_little_memory() {
    let server = Server::start(&[("TerraFM-B.pth", b"weights")]);
    // Four gigabytes.
    server.always("//hub", Some(Mischief::GzipBomb(4096)));
    let here = tempfile::tempdir().unwrap();
    let full = program(&server, here.path());
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -v 2500000; exec \"$@\"", "sh"])
        .arg(full.get_program())
        .args(full.get_args());
    for (name, value) in full.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot parse the hub's response"), "{said}");
}

#[test]
fn an_archive_of_a_hundred_thousand_entries_is_checked_entry_by_entry() {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    // What macOS adds is skipped, so that nothing but one file is written.
    for n in 0..100_000 {
        writer.add_directory(format!("__MACOSX/{n}"), options).unwrap();
    }
    writer.start_file("set/a", options).unwrap();
    writer.write_all(b"a").unwrap();
    let good = writer.finish().unwrap().into_inner();
    // One name among them leads out of the folder.
    let mut evil = good.clone();
    let plain = b"__MACOSX/99999/";
    while let Some(at) = evil.windows(plain.len()).position(|window| window == plain) {
        evil[at..at + plain.len()].copy_from_slice(b"__MACOSX/../../");
    }
    for (bytes, expected) in [(good, None), (evil, Some("points outside its folder"))] {
        let server = Server::start(&[("set.zip", &bytes)]);
        let target = Target::new();
        let done = fetch(&server, &[archive("set.zip", "set")], &target.folder());
        match expected {
            None => {
                done.unwrap();
                assert_eq!(target.read("set/a"), b"a");
            }
            Some(words) => {
                let error = done.unwrap_err().to_string();
                assert!(error.contains(words), "{error}");
                assert!(!target.folder().join("set").exists());
            }
        }
        assert!(target.is_alone());
    }
}

/// All that a command said and wrote below a folder.
fn everything(output: &Output, folder: &Path) -> String {
    let mut all =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            match path.is_dir() {
                true => open.push(path),
                false => all.push_str(&String::from_utf8_lossy(&std::fs::read(path).unwrap())),
            }
        }
    }
    all
}

#[test]
fn tokens_are_in_no_log_record_or_error() {
    for mischief in [None, Some(Mischief::Answer(401, vec![("X-Error-Message", TOKEN.to_owned())], TOKEN))] {
        let server = Server::start(&[("TerraFM-B.pth", b"weights")]);
        server.require(TOKEN);
        server.always("//hub", mischief.clone());
        let here = tempfile::tempdir().unwrap();
        let mut command = program(&server, here.path());
        command.env("HF_TOKEN", TOKEN).env("RUST_LOG", "trace").env("RUST_BACKTRACE", "1");
        let output = command.output().unwrap();
        assert_eq!(
            output.status.success(),
            mischief.is_none(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(server.seen().iter().any(|seen| seen.token.is_some()), "no token was sent");
        assert!(!everything(&output, here.path()).contains(TOKEN));
    }
}

#[test]
fn tokens_in_an_encoders_command_are_in_no_record_and_no_log() {
    let Some(python) = python::plain("an encoder with a token") else { return };
    let here = tempfile::tempdir().unwrap();
    let script = crate::common::fixture("process/encode.py");
    std::fs::create_dir(here.path().join("encoder")).unwrap();
    let encoder = format!("{python} {} plain {TOKEN}", script.display());
    let mut command = Command::new(env!("CARGO_BIN_EXE_terrabench"));
    // The encoder writes a file of that name.
    command.current_dir(here.path().join("encoder"));
    command.env("TERRABENCH_CACHE", here.path().join("cache")).env("HF_TOKEN", TOKEN);
    command.args(["bench", "geobench", "--demo", "--task", "m-eurosat", "--partition", "default"]);
    command.args(["--protocol", "knn", "--input-size", "32", "--encoder", &encoder]);
    let output = command.arg("--out").arg(here.path().join("out")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let all = everything(&output, here.path());
    assert!(all.contains("encode.py plain ***"), "the command is recorded without the token");
    assert!(!all.contains(TOKEN));
}
