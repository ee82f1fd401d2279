//! Fetching from a misbehaving hub: each case ends with the right bytes, or with a clear error and no file
//! under its final name.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::hub_server::{COMMIT, Mischief, Server, sha256};
use terrabench::Result;
use terrabench::cli::fetch::describe;
use terrabench::fetch::address::Address;
use terrabench::fetch::catalogue::{Catalogue, CataloguePart, Order, Source, weights};
use terrabench::fetch::hub::{Hub, Kind, Repository};
use terrabench::fetch::patience::Patience;
use terrabench::fetch::proxy::Proxies;
use terrabench::fetch::secret::Secret;
use terrabench::fetch::settings::Settings;
use terrabench::fetch::{self, Outcome, State, Survey, Track, Unwatched, Watch, Work, gigabytes, ledger};
use terrabench::home::Home;
use terrabench::model::config::ModelConfig;
use terrabench::task::Suite;
use zip::write::SimpleFileOptions;

fn patience() -> Patience {
    Patience {
        tries: 4,
        first_wait: Duration::from_millis(2),
        longest_wait: Duration::from_secs(3),
        stall: Duration::from_millis(400),
    }
}

pub(crate) fn settings(server: &Server) -> Settings {
    settings_for(&server.endpoint())
}

fn settings_for(endpoint: &str) -> Settings {
    Settings {
        endpoint: Address::parse(endpoint).unwrap().0,
        login: None,
        token: None,
        offline: None,
        cache: None,
        proxies: Proxies::default(),
        certificates: None,
        patience: patience(),
    }
}

/// Returns the settings from these variables, with little patience and nothing from this machine.
fn settings_from(variables: &[(&str, &str)]) -> Settings {
    let own = variables.iter().chain(&[("HF_HOME", "/no/such/folder")]);
    let own: Vec<_> = own.copied().collect();
    let get = |name: &str| own.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    Settings { patience: patience(), cache: None, ..Settings::from_environment(&get).unwrap() }
}

pub(crate) fn source(path: &str) -> Source {
    Source { path: path.into(), to: None, unpack: None, sha256: None, md5: None, size: None }
}

pub(crate) fn archive(path: &str, unpack: &str) -> Source {
    Source { unpack: Some(unpack.into()), ..source(path) }
}

pub(crate) fn order(sources: Vec<Source>) -> Order {
    Order {
        title: "Test".into(),
        repository: Repository { kind: Kind::Dataset, name: "owner/name".into(), revision: "main".into() },
        parts: vec![CataloguePart { name: "task".into(), licence: None, sources }],
        expansion: 2.0,
        licences: None,
    }
}

pub(crate) fn fetch_with(hub: &Hub, order: &Order, folder: &Path, keep: bool) -> Result<Outcome> {
    let survey = Survey::take(hub, order, folder)?;
    fetch::run(hub, &survey, keep, &Unwatched)
}

/// Fetches `sources` from `server` into `folder`.
pub(crate) fn fetch(server: &Server, sources: &[Source], folder: &Path) -> Result<Outcome> {
    fetch_with(&Hub::new(settings(server)), &order(sources.to_vec()), folder, false)
}

/// Returns bytes in which no two offsets share a long run.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u32;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

fn zipped(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in files {
        let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
        writer.start_file(*name, options).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// Lists all files below `folder` except the ledger.
pub(crate) fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push(path.strip_prefix(folder).unwrap().to_string_lossy().into_owned());
            }
        }
    }
    found.retain(|path| !path.starts_with(".terrabench"));
    found.sort();
    found
}

/// A folder to fetch into, inside another one where nothing may appear.
pub(crate) struct Target {
    around: tempfile::TempDir,
}

impl Target {
    pub(crate) fn new() -> Self {
        let around = tempfile::tempdir().unwrap();
        std::fs::create_dir(around.path().join("data")).unwrap();
        Target { around }
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.around.path().join("data")
    }

    pub(crate) fn read(&self, path: &str) -> Vec<u8> {
        std::fs::read(self.folder().join(path)).unwrap()
    }

    pub(crate) fn is_alone(&self) -> bool {
        std::fs::read_dir(self.around.path()).unwrap().count() == 1
    }
}

/// Fetches `w.bin` with `mischief` before the first good response; returns the number of requests for its
/// bytes.
fn recovers(mischief: &[Mischief]) -> usize {
    let bytes = noise(300_000);
    let server = Server::start(&[("w.bin", &bytes)]);
    server.misbehave("w.bin", mischief);
    let target = Target::new();
    fetch(&server, &[source("w.bin")], &target.folder())
        .unwrap_or_else(|error| panic!("{mischief:?}: {error}"));
    assert!(target.read("w.bin") == bytes, "{mischief:?}: other bytes");
    assert_eq!(files(&target.folder()), ["w.bin"], "{mischief:?}");
    server.asked("w.bin").len()
}

/// Fetches `w.bin` with `mischief` in every response; returns the error.
fn fails(mischief: Mischief) -> String {
    let server = Server::start(&[("w.bin", &noise(300_000))]);
    server.always("w.bin", Some(mischief.clone()));
    let target = Target::new();
    let error = fetch(&server, &[source("w.bin")], &target.folder()).expect_err("it must fail").to_string();
    assert!(!target.folder().join("w.bin").exists(), "{mischief:?}: a bad file has its final name");
    error
}

#[test]
fn nothing_is_fetched_twice() {
    let (weights, pixels) = (noise(5_000), noise(700));
    let packed = zipped(&[("set/a.h5", &pixels), ("set/deep/b.h5", b"b")]);
    let server = Server::start(&[("w.bin", &weights), ("class/set.zip", &packed), ("README.md", b"text")]);
    server.in_git("README.md");
    let target = Target::new();
    let wanted = [source("w.bin"), archive("class/set.zip", "class/set"), source("README.md")];

    let first = fetch(&server, &wanted, &target.folder()).unwrap();
    assert_eq!(first.brought, ["README.md", "class/set", "w.bin"]);
    assert_eq!(files(&target.folder()), ["README.md", "class/set/a.h5", "class/set/deep/b.h5", "w.bin"]);
    assert_eq!(target.read("class/set/a.h5"), pixels);
    let line = &ledger::read(&target.folder()).unwrap()["w.bin"];
    assert_eq!(
        (line.commit.as_str(), line.checksum.clone()),
        (COMMIT, format!("sha256:{}", sha256(&weights)))
    );

    let second = fetch(&server, &wanted, &target.folder()).unwrap();
    assert_eq!((second.here, second.brought.len()), (3, 0));
    for path in ["w.bin", "class/set.zip", "README.md"] {
        assert_eq!(server.asked(path).len(), 1, "{path} was fetched twice");
    }

    // Only damaged files are downloaded again.
    std::fs::write(target.folder().join("class/set/a.h5"), "short").unwrap();
    std::fs::write(target.folder().join("class/set/mine.txt"), "mine").unwrap();
    let third = fetch(&server, &wanted, &target.folder()).unwrap();
    assert_eq!((third.here, third.brought), (2, vec!["class/set".to_owned()]));
    assert_eq!(target.read("class/set/a.h5"), pixels);
    assert_eq!(target.read("class/set/mine.txt"), b"mine");
}

#[test]
fn archives_stay_when_kept() {
    let packed = zipped(&[("set/a", b"a")]);
    let server = Server::start(&[("set.zip", &packed)]);
    let target = Target::new();
    let hub = Hub::new(settings(&server));
    let wanted = order(vec![archive("set.zip", "set")]);
    fetch_with(&hub, &wanted, &target.folder(), true).unwrap();
    assert_eq!(files(&target.folder()), ["set.zip", "set/a"]);

    // The archive is still here: a lost file comes from it, not from the hub.
    std::fs::remove_file(target.folder().join("set/a")).unwrap();
    fetch_with(&hub, &wanted, &target.folder(), false).unwrap();
    assert_eq!(files(&target.folder()), ["set/a"]);
    assert_eq!(server.asked("set.zip").len(), 1);
}

#[test]
fn downloads_resume_after_dropped_connections() {
    let bytes = noise(300_000);
    let server = Server::start(&[("w.bin", &bytes)]);
    server.misbehave("w.bin", &[Mischief::Drop(100_000), Mischief::Drop(50_000)]);
    let target = Target::new();
    fetch(&server, &[source("w.bin")], &target.folder()).unwrap();
    assert!(target.read("w.bin") == bytes);
    let asked = server.asked("w.bin");
    let ranges: Vec<_> = asked.iter().map(|seen| seen.range.as_deref()).collect();
    assert_eq!(ranges, [None, Some("bytes=100000-"), Some("bytes=150000-")]);
    assert!(asked[1].if_range.as_ref().is_some_and(|etag| etag.starts_with("\"etag-")), "{:?}", asked[1]);
}

#[test]
fn an_interrupted_fetch_resumes_in_the_next_run() {
    let bytes = noise(300_000);
    let server = Server::start(&[("w.bin", &bytes)]);
    server.misbehave("w.bin", &[Mischief::Drop(200_000)]);
    server.always("w.bin", Some(Mischief::Status(503, None)));
    let target = Target::new();
    let error = fetch(&server, &[source("w.bin")], &target.folder()).unwrap_err().to_string();
    assert!(error.contains("w.bin") && error.contains("503") && error.contains("to resume"), "{error}");
    assert!(!target.folder().join("w.bin").exists());

    server.always("w.bin", None);
    let hub = Hub::new(settings(&server));
    let survey = Survey::take(&hub, &order(vec![source("w.bin")]), &target.folder()).unwrap();
    assert_eq!(survey.parts[0].items[0].state, State::Missing { part: 200_000 });
    assert_eq!(survey.to_fetch(), 100_000);
    fetch::run(&hub, &survey, false, &Unwatched).unwrap();
    assert_eq!(server.asked("w.bin").last().unwrap().range.as_deref(), Some("bytes=200000-"));
    assert!(target.read("w.bin") == bytes);
    assert_eq!(files(&target.folder()), ["w.bin"]);
}

#[test]
fn a_damaged_part_is_downloaded_again() {
    let bytes = noise(300_000);
    let server = Server::start(&[("w.bin", &bytes)]);
    let part = format!("w.bin.{}.part", &sha256(&bytes)[..8]);
    for spoilt in [vec![0; 200_000], vec![0; 400_000], vec![0; 300_000]] {
        let target = Target::new();
        std::fs::write(target.folder().join(&part), spoilt).unwrap();
        fetch(&server, &[source("w.bin")], &target.folder()).unwrap();
        assert!(target.read("w.bin") == bytes);
        assert_eq!(files(&target.folder()), ["w.bin"]);
    }
}

#[test]
fn servers_recover() {
    assert_eq!(recovers(&[]), 1);
    assert_eq!(recovers(&[Mischief::Drop(0), Mischief::Drop(299_999)]), 3);
    assert_eq!(recovers(&[Mischief::Length(1_000)]), 2);
    assert_eq!(recovers(&[Mischief::Length(400_000)]), 2);
    assert_eq!(recovers(&[Mischief::TooMany(1)]), 2);
    assert_eq!(recovers(&[Mischief::WrongBytes]), 2);
    assert_eq!(recovers(&[Mischief::Status(500, None), Mischief::Status(502, None)]), 3);
    assert_eq!(recovers(&[Mischief::Stall(1_000, Duration::from_secs(2))]), 2);
    assert_eq!(recovers(&[Mischief::Drop(100_000), Mischief::IgnoreRange]), 2);
    assert_eq!(recovers(&[Mischief::Drop(100_000), Mischief::OtherRange]), 3);
    assert_eq!(recovers(&[Mischief::Drop(100_000), Mischief::Status(416, None)]), 3);
    assert_eq!(recovers(&[Mischief::Drop(100_000), Mischief::WrongBytes]), 3);
}

#[test]
fn retry_after_is_respected() {
    let start = Instant::now();
    assert_eq!(recovers(&[Mischief::Status(429, Some(1))]), 2);
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());

    let error = fails(Mischief::Status(429, Some(3_600)));
    assert!(error.contains("asks to wait 3600 s"), "{error}");
}

#[test]
fn permanent_server_failures_end_in_a_clear_error() {
    let cases = [
        (Mischief::Status(500, None), "500"),
        (Mischief::Length(1_000), "expected 300000 bytes, but the server announces 1000"),
        (Mischief::TooMany(1), "more than the 300000 bytes"),
        (Mischief::WrongBytes, "SHA-256"),
        (Mischief::Drop(0), "connection lost after 0 of 300000 bytes"),
    ];
    for (mischief, told) in cases {
        let error = fails(mischief);
        assert!(error.contains("owner/name: w.bin") && error.contains(told), "{error}");
    }
}

#[test]
fn refusals_mention_the_token() {
    let server = Server::start(&[("w.bin", b"weights"), ("README.md", b"text")]);
    server.in_git("README.md");
    server.require("hf_right");
    let target = Target::new();
    let error = fetch(&server, &[source("w.bin")], &target.folder()).unwrap_err().to_string();
    assert!(error.contains("401") && error.contains("set HF_TOKEN"), "{error}");
    assert_eq!(server.seen().len(), 1, "a refusal was tried again");

    let with = |token: &str| {
        let settings = Settings { token: Some(Secret::new(token)), ..settings(&server) };
        let wanted = order(vec![source("w.bin"), source("README.md")]);
        fetch_with(&Hub::new(settings), &wanted, &target.folder(), false)
    };
    let error = with("hf_wrong").unwrap_err().to_string();
    assert!(error.contains("has no read access"), "{error}");
    with("hf_right").unwrap();
    assert_eq!((target.read("w.bin"), target.read("README.md")), (b"weights".to_vec(), b"text".to_vec()));
    assert!(server.asked("w.bin").iter().all(|seen| seen.token.is_none()), "the token went to another host");

    server.put("v.bin", b"more");
    server.always("v.bin", Some(Mischief::Status(403, None)));
    let settings = Settings { token: Some(Secret::new("hf_right")), ..settings(&server) };
    let error = fetch_with(&Hub::new(settings), &order(vec![source("v.bin")]), &target.folder(), false);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("where the hub redirects to, answered 403"), "{error}");
    assert!(!target.folder().join("v.bin").exists());
}

#[test]
fn missing_files_and_repositories_are_reported() {
    let server = Server::start(&[("TerraFM-B.pth", b"weights")]);
    let target = Target::new();
    let error = fetch(&server, &[source("TerraFM-L.pth")], &target.folder()).unwrap_err().to_string();
    assert!(
        error.contains("no file `TerraFM-L.pth`") && error.contains("available files: TerraFM-B.pth"),
        "{error}"
    );

    let mut other = order(vec![source("TerraFM-B.pth")]);
    other.repository.name = "no/such".into();
    let hub = Hub::new(settings(&server));
    let error = fetch_with(&hub, &other, &target.folder(), false).unwrap_err().to_string();
    assert!(error.contains("no/such") && error.contains("404"), "{error}");
    assert_eq!(files(&target.folder()), [""; 0]);
}

#[test]
fn pinned_hashes_are_compared_with_the_listing_and_the_bytes() {
    let server = Server::start(&[("w.bin", b"weights")]);
    let target = Target::new();
    let pinned = Source { sha256: Some("0".repeat(64)), ..source("w.bin") };
    let error = fetch(&server, &[pinned], &target.folder()).unwrap_err().to_string();
    assert!(error.contains("in the hub's listing: expected SHA-256"), "{error}");
    assert_eq!(server.asked("w.bin").len(), 0);

    // The published MD5 is not in the hub's listing, so only the bytes can reveal a mismatch.
    let wrong = Source { md5: Some("0".repeat(32)), ..source("w.bin") };
    let error = fetch(&server, &[wrong], &target.folder()).unwrap_err().to_string();
    assert!(error.contains("MD5") && error.contains("nothing was kept"), "{error}");
    assert_eq!(files(&target.folder()), [""; 0]);
    // md5sum of "weights"
    let right = Source { md5: Some("63f4f1e9b725370f459720575cd5f953".into()), ..source("w.bin") };
    fetch(&server, &[right], &target.folder()).unwrap();
    assert_eq!(target.read("w.bin"), b"weights");

    server.put("v.bin", b"other weights");
    server.list_as("v.bin", &sha256(b"weights"));
    let error = fetch(&server, &[source("v.bin")], &target.folder()).unwrap_err().to_string();
    assert!(error.contains(&format!("expected SHA-256 {}", sha256(b"weights"))), "{error}");
    assert_eq!(files(&target.folder()), ["w.bin"]);
}

#[test]
fn hostile_archives_are_refused() {
    let link = {
        let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        writer.add_symlink("set/link", "/etc", SimpleFileOptions::default()).unwrap();
        writer.start_file("set/link/passwd", SimpleFileOptions::default()).unwrap();
        writer.finish().unwrap().into_inner()
    };
    let bomb = zipped(&[("set/zeros", &vec![0; 20 << 20])]);
    // The name is replaced in the finished archive, because no writer would accept it.
    let named = |name: &str| {
        let plain = "set/..........";
        let mut bytes = zipped(&[(plain, b"evil")]);
        let name = format!("{name:x<width$}", width = plain.len());
        while let Some(at) = bytes.windows(plain.len()).position(|window| window == plain.as_bytes()) {
            bytes[at..at + plain.len()].copy_from_slice(name.as_bytes());
        }
        bytes
    };
    let cases = [
        (named("../evil"), "points outside its folder"),
        (named("set/../../e"), "points outside its folder"),
        (named("/tmp/e"), "points outside its folder"),
        (named("set\\..\\..\\e"), "points outside its folder"),
        (zipped(&[("set/a", b"a"), ("other/b", b"b")]), "expected all files in `set/`, found `other/b`"),
        (link, "link or a device"),
        (bomb, "limit is 100 times"),
        (b"PK no archive".to_vec(), "set.zip"),
        (zipped(&[]), "contains no files"),
    ];
    for (bytes, told) in cases {
        let server = Server::start(&[("set.zip", &bytes)]);
        let target = Target::new();
        let error = fetch(&server, &[archive("set.zip", "set")], &target.folder()).unwrap_err().to_string();
        assert!(error.contains(told), "expected {told:?}: {error}");
        assert!(!target.folder().join("set").exists(), "{told}: unpacked");
        assert!(target.is_alone(), "{told}: there is something outside");
        assert!(ledger::read(&target.folder()).unwrap().is_empty());
    }
}

#[test]
fn archives_that_lie_about_sizes_are_refused() {
    let honest = zipped(&[("set/a", &noise(40_000))]);
    let size = 40_000u32.to_le_bytes();
    for (declared, told) in [(20_000u32, ["has more than", "damaged"]), (60_000, ["ends after", "damaged"])] {
        let mut bytes = honest.clone();
        while let Some(at) = bytes.windows(4).position(|window| window == size) {
            bytes[at..at + 4].copy_from_slice(&declared.to_le_bytes());
        }
        let server = Server::start(&[("set.zip", &bytes)]);
        let target = Target::new();
        let error = fetch(&server, &[archive("set.zip", "set")], &target.folder()).unwrap_err().to_string();
        assert!(told.iter().any(|told| error.contains(told)), "declared {declared}: {error}");
        assert!(!target.folder().join("set").exists());
    }
    // One byte of the packed data differs; the CRC detects it.
    let mut bytes = zipped(&[("set/a", &noise(40_000))]);
    bytes[20_000] ^= 1;
    let server = Server::start(&[("set.zip", &bytes)]);
    let target = Target::new();
    let error = fetch(&server, &[archive("set.zip", "set")], &target.folder()).unwrap_err().to_string();
    assert!(error.contains("`set/a` is damaged"), "{error}");
    assert!(!target.folder().join("set").exists());
}

#[test]
fn listed_names_must_stay_inside_the_folder() {
    let server = Server::start(&[("../evil.h5", b"evil")]);
    let target = Target::new();
    let error = fetch(&server, &[source("*/evil.h5")], &target.folder()).unwrap_err().to_string();
    assert!(error.contains("points outside its folder"), "{error}");
    assert!(target.is_alone());
}

#[test]
fn files_of_others_are_left_unchanged() {
    let server = Server::start(&[("set.zip", &zipped(&[("set/a", b"new")])), ("w.bin", b"weights")]);
    let target = Target::new();
    std::fs::create_dir(target.folder().join("set")).unwrap();
    std::fs::write(target.folder().join("set/a"), "old").unwrap();
    std::fs::write(target.folder().join("w.bin"), "weights").unwrap();
    let done = fetch(&server, &[archive("set.zip", "set"), source("w.bin")], &target.folder()).unwrap();
    assert_eq!(done.foreign, [target.folder().join("set")]);
    assert_eq!(target.read("set/a"), b"old");
    // A single file is recognised by its hash, whoever put it there.
    assert_eq!((server.asked("set.zip").len(), server.asked("w.bin").len()), (0, 0));

    std::fs::write(target.folder().join("v.bin"), "other!!").unwrap();
    server.put("v.bin", b"weights");
    fetch(&server, &[source("v.bin")], &target.folder()).unwrap();
    assert_eq!(target.read("v.bin"), b"weights");
}

#[test]
fn a_new_revision_replaces_the_old_one() {
    let server = Server::start(&[("set.zip", &zipped(&[("set/a", b"a"), ("set/gone", b"old")]))]);
    let target = Target::new();
    fetch(&server, &[archive("set.zip", "set")], &target.folder()).unwrap();
    std::fs::write(target.folder().join("set/mine"), "mine").unwrap();
    server.put("set.zip", &zipped(&[("set/a", b"A"), ("set/new", b"new")]));
    fetch(&server, &[archive("set.zip", "set")], &target.folder()).unwrap();
    assert_eq!(files(&target.folder()), ["set/a", "set/mine", "set/new"]);
    assert_eq!(target.read("set/a"), b"A");
}

#[test]
fn concurrent_fetches_share_the_work() {
    let bytes = noise(2_000_000);
    let packed = zipped(&[("set/a", &bytes)]);
    let server = Server::start(&[("w.bin", &bytes), ("set.zip", &packed)]);
    let target = Target::new();
    let wanted = [source("w.bin"), archive("set.zip", "set")];
    let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
        let runs: Vec<_> =
            (0..4).map(|_| scope.spawn(|| fetch(&server, &wanted, &target.folder()).unwrap())).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    assert_eq!(outcomes.iter().map(|outcome| outcome.brought.len()).sum::<usize>(), 2);
    assert_eq!((server.asked("w.bin").len(), server.asked("set.zip").len()), (1, 1));
    assert!(target.read("w.bin") == bytes && target.read("set/a") == bytes);
    assert_eq!(files(&target.folder()), ["set/a", "w.bin"]);
}

#[test]
fn one_failure_ends_the_run_and_keeps_complete_files() {
    let server = Server::start(&[("a.bin", b"a"), ("b.bin", b"b")]);
    server.always("b.bin", Some(Mischief::Status(500, None)));
    let target = Target::new();
    fetch(&server, &[source("a.bin"), source("b.bin")], &target.folder()).unwrap_err();
    assert_eq!(files(&target.folder())[0], "a.bin");
    server.always("b.bin", None);
    let done = fetch(&server, &[source("a.bin"), source("b.bin")], &target.folder()).unwrap();
    assert_eq!((done.here, done.brought), (1, vec!["b.bin".to_owned()]));
}

#[test]
fn listings_span_several_pages() {
    let names: Vec<String> = (1..=37).map(|n| format!("images/train/image_{n}.h5")).collect();
    let mut listed: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), name.as_bytes())).collect();
    listed.push(("annotations/train/image_1.h5", b"stray"));
    listed.push(("annotations/train/mask_1.h5", b"mask"));
    let server = Server::start(&listed);
    server.page(10);
    let target = Target::new();
    let wanted = [source("images/*/image_*.h5"), source("annotations/*/mask_*.h5")];
    let done = fetch(&server, &wanted, &target.folder()).unwrap();
    assert_eq!(done.brought.len(), 38);
    assert_eq!(target.read("images/train/image_37.h5"), names[36].as_bytes());
    assert!(!target.folder().join("annotations/train/image_1.h5").exists());
    let pages = server.seen().iter().filter(|seen| seen.path.contains("/tree/")).count();
    assert_eq!(pages, 4);
}

#[test]
fn proxies_are_used() {
    let server = Server::start(&[("w.bin", b"weights")]);
    let address = server.endpoint();
    let through = |no_proxy: &str| {
        let variables =
            [("HF_ENDPOINT", "http://hub.invalid"), ("HTTP_PROXY", address.as_str()), ("NO_PROXY", no_proxy)];
        let settings = settings_from(&variables);
        let target = Target::new();
        fetch_with(&Hub::new(settings), &order(vec![source("w.bin")]), &target.folder(), false)
    };
    // The name does not exist, so anything that arrives came through the proxy.
    through("").unwrap();
    assert!(server.connects().contains(&"hub.invalid:80".to_owned()), "{:?}", server.connects());
    let error = through("hub.invalid").unwrap_err().to_string();
    assert!(error.contains("cannot resolve the name `hub.invalid` (DNS) (3 tries)"), "{error}");
}

#[test]
fn the_hubs_own_cache_is_used() {
    let (weights, packed) = (noise(5_000), zipped(&[("set/a", b"a")]));
    let server = Server::start(&[("w.bin", &weights), ("set.zip", &packed)]);
    let cache = tempfile::tempdir().unwrap();
    let blobs = cache.path().join("datasets--owner--name/blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(blobs.join(sha256(&packed)), &packed).unwrap();
    // Damaged, so it must come from the hub.
    std::fs::write(blobs.join(sha256(&weights)), vec![0; weights.len()]).unwrap();
    let settings = Settings { cache: Some(cache.path().to_owned()), ..settings(&server) };
    let target = Target::new();
    let wanted = order(vec![source("w.bin"), archive("set.zip", "set")]);
    fetch_with(&Hub::new(settings.clone()), &wanted, &target.folder(), false).unwrap();
    assert_eq!((server.asked("w.bin").len(), server.asked("set.zip").len()), (1, 0));
    assert_eq!(files(&target.folder()), ["set/a", "w.bin"]);
    assert!(blobs.join(sha256(&packed)).exists());

    std::fs::write(blobs.join(sha256(&weights)), &weights).unwrap();
    let other = Target::new();
    fetch_with(&Hub::new(settings), &wanted, &other.folder(), false).unwrap();
    assert_eq!(server.asked("w.bin").len(), 1);
    assert!(other.read("w.bin") == weights);
}

#[test]
fn disk_space_is_checked_before_fetching() {
    let big = zipped(&[("set/a", &noise(100_000))]);
    let server = Server::start(&[("set.zip", &big), ("w.bin", &noise(50_000))]);
    let target = Target::new();
    let hub = Hub::new(settings(&server));
    let wanted = order(vec![archive("set.zip", "set"), source("w.bin")]);
    let survey = Survey::take(&hub, &wanted, &target.folder()).unwrap();
    let packed = big.len() as u64;
    assert_eq!(survey.to_fetch(), packed + 50_000);
    assert_eq!(survey.disk(false), 3 * packed + 50_000);
    survey.fits(3 * packed + 50_000, false).unwrap();
    let error = survey.fits(3 * packed + 49_999, false).unwrap_err().to_string();
    assert!(error.contains("are needed here") && error.contains("--task"), "{error}");

    fetch::run(&hub, &survey, false, &Unwatched).unwrap();
    let survey = Survey::take(&hub, &wanted, &target.folder()).unwrap();
    assert_eq!((survey.to_fetch(), survey.disk(false)), (0, 0));
}

#[test]
fn sizes_and_licences_are_shown() {
    let packed = zipped(&[("set/a", &noise(100_000))]);
    let server = Server::start(&[("set.zip", &packed), ("w.bin", &noise(50_000)), ("v.bin", &[0; 1_000])]);
    let target = Target::new();
    let hub = Hub::new(settings(&server));
    let part = |name: &str, licence: Option<&str>, sources| CataloguePart {
        name: name.into(),
        licence: licence.map(str::to_owned),
        sources,
    };
    let wanted = Order {
        parts: vec![
            part("first-s1", Some("MIT"), vec![archive("set.zip", "set")]),
            part("first-s2", Some("MIT"), vec![]),
            part("second", None, vec![source("w.bin"), source("v.bin")]),
        ],
        licences: Some("see LICENSE".into()),
        ..order(vec![])
    };
    let survey = Survey::take(&hub, &wanted, &target.folder()).unwrap();
    let shown = describe(&survey, false, 7_000_000_000);
    let (first, size) = shown.split_once('\n').unwrap();
    assert!(first.starts_with("Test: owner/name at 0123456789ab, into "), "{first}");
    let packed = packed.len() as u64;
    let (fetch, disk) = (gigabytes(packed + 51_000), gigabytes(3 * packed + 51_000));
    let expected = format!(
        "  first-s1  {:>10}  MIT
  first-s2    as above  MIT
  second      51.00 kB  2 files
Licence: cc-by-4.0 (the repository's card); see LICENSE
To fetch: {fetch}; disk needed: about {disk}, free: 7.00 GB
",
        gigabytes(packed)
    );
    assert_eq!(size, expected);

    // Some of it is already here.
    std::fs::create_dir(target.folder().join("set")).unwrap();
    fetch_with(&hub, &order(vec![source("w.bin")]), &target.folder(), false).unwrap();
    let shown = describe(&Survey::take(&hub, &wanted, &target.folder()).unwrap(), false, 0);
    assert!(shown.contains("MIT  present, but not from this command: left as it is\n"), "{shown}");
    assert!(shown.contains("second      51.00 kB  2 files  50.00 kB of it present\n"), "{shown}");
    fetch_with(&hub, &order(vec![source("v.bin")]), &target.folder(), false).unwrap();
    let shown = describe(&Survey::take(&hub, &wanted, &target.folder()).unwrap(), false, 0);
    assert!(shown.contains("2 files  already present\n") && shown.contains("To fetch: 0 B;"), "{shown}");
}

/// Records all progress reports.
#[derive(Default)]
struct Told(Mutex<Vec<(Work, String, u64)>>, std::sync::Arc<Mutex<Vec<u64>>>);

struct TrackTold(std::sync::Arc<Mutex<Vec<u64>>>);

impl Watch for Told {
    fn begin(&self, work: Work, what: &str, total: u64) -> Box<dyn Track> {
        self.0.lock().unwrap().push((work, what.to_owned(), total));
        Box::new(TrackTold(self.1.clone()))
    }

    fn note(&self, _: &str) {}
}

impl Track for TrackTold {
    fn at(&self, bytes: u64) {
        self.0.lock().unwrap().push(bytes);
    }
}

#[test]
fn progress_is_reported() {
    let packed = zipped(&[("set/a", &noise(600_000))]);
    let server = Server::start(&[("set.zip", &packed)]);
    let target = Target::new();
    let hub = Hub::new(settings(&server));
    let survey = Survey::take(&hub, &order(vec![archive("set.zip", "set")]), &target.folder()).unwrap();
    let told = Told::default();
    fetch::run(&hub, &survey, false, &told).unwrap();
    let packed = packed.len() as u64;
    let expected = [(Work::Fetch, "set.zip".into(), packed), (Work::Unpack, "set".into(), 600_000)];
    assert_eq!(*told.0.lock().unwrap(), expected);
    let seen = told.1.lock().unwrap();
    assert!(seen.contains(&packed) && seen.last() == Some(&600_000), "{seen:?}");
}

/// The committed catalogues parse, contain all tasks, and agree with the suites.
#[test]
fn catalogues_are_valid() {
    let home = Home::find().unwrap();
    let geobench = Catalogue::load(&home, "geobench").unwrap();
    let suite = Suite::load(&home, "geobench").unwrap();
    assert_eq!((&geobench.name, &geobench.title), (&suite.name, &suite.title));
    assert_eq!((&geobench.environment, &geobench.repository), (&suite.environment, &suite.repository));
    let order = geobench.order(&[]).unwrap();
    let folders = |order: &Order| {
        let sources = order.parts.iter().flat_map(|part| part.sources.clone());
        sources.map(|source| source.unpack.unwrap()).collect::<Vec<_>>()
    };
    let expected: Vec<_> = suite.tasks.iter().map(|task| task.directory.to_str().unwrap()).collect();
    // The six tasks that only run if they are named are only fetched if they are named.
    assert_eq!(folders(&order), expected[..6]);
    let every: Vec<String> = suite.tasks.iter().map(|task| task.name.clone()).collect();
    assert_eq!(folders(&geobench.order(&every).unwrap()), expected);
    assert_eq!(folders(&geobench.order(&["m-so2sat".into()]).unwrap()), ["classification_v1.0/m-so2sat"]);
    let error = geobench.order(&["m-nothing".into()]).unwrap_err().to_string();
    assert!(error.contains("no task `m-nothing`") && error.contains("m-eurosat"), "{error}");

    let copernicus = Catalogue::load(&home, "copernicus-bench").unwrap();
    let all = copernicus.order(&[]).unwrap();
    let names: Vec<_> = all.parts.iter().map(|part| part.name.as_str()).collect();
    let published = std::fs::read_to_string(home.published("copernicus-bench.csv")).unwrap();
    for name in &names {
        assert!(published.contains(&format!(",{name},")), "{name} is in no published table");
    }
    assert_eq!(names.len(), 8);
    assert_eq!(all.parts.iter().map(|part| part.sources.len()).sum::<usize>(), 8);
    assert_eq!(copernicus.order(&["flood-s1".into()]).unwrap().parts.len(), 1);
    let s2 = copernicus.order(&["dfc2020-s2".into()]).unwrap();
    assert_eq!(s2.parts[0].sources[0].path, "l2_dfc2020_s1s2/dfc2020.zip");

    // Each task can be fetched; the lists of EuroSAT by longitude are in a repository of their own.
    let copernicus_suite = Suite::load(&home, "copernicus-bench").unwrap();
    for task in &copernicus_suite.tasks {
        let order = copernicus.order(std::slice::from_ref(&task.name)).unwrap();
        let source = &order.parts[0].sources[0];
        assert!(source.md5.is_some() && order.parts[0].licence.is_some(), "{}", task.name);
        if let Some(folder) = &source.unpack {
            assert!(task.directory.starts_with(folder), "{}: {folder}", task.name);
            assert_eq!(source.to.as_deref().map(Path::new), task.archive.as_deref(), "{}", task.name);
        }
    }
    assert!(copernicus.other_orders(&[]).is_empty());
    let others = copernicus.other_orders(&["eurosat-spatial".into()]);
    let [lists] = others.as_slice() else { panic!("{} orders", others.len()) };
    assert_eq!((lists.repository.name.as_str(), lists.parts[0].sources.len()), ("torchgeo/eurosat", 3));

    let landslide = Catalogue::load(&home, "landslide4sense").unwrap().order(&[]).unwrap();
    assert_eq!(landslide.parts[0].sources.len(), 2);
    assert!(Catalogue::load(&home, "no-such").is_err());
}

#[test]
fn weights_are_fetched_to_their_location() {
    let home = Home::find().unwrap();
    let model = ModelConfig::load(&home, "terrafm-b").unwrap();
    let mut order = weights("terrafm-b", &model).unwrap();
    assert_eq!(order.repository.name, "MBZUAI/TerraFM");
    order.repository.name = "owner/name".into();
    let server = Server::start(&[("TerraFM-B.pth", b"weights")]);
    let target = Target::new();
    fetch_with(&Hub::new(settings(&server)), &order, &target.folder(), false).unwrap();
    assert_eq!(target.read("MBZUAI/TerraFM/TerraFM-B.pth"), b"weights");
    assert!(server.seen().iter().any(|seen| seen.path.starts_with("/api/models/")));
    assert!(server.seen().iter().any(|seen| seen.path.starts_with("/owner/name/resolve/")));
}

/// Orders a file at a web address of its own, here one that the test's server offers.
fn linked(server: &Server, file: Source) -> Order {
    let path = format!("{}/owner/name/resolve/{COMMIT}/w.bin", server.endpoint());
    let mut order = order(vec![Source { path, to: Some("example.org/page/w.bin".into()), ..file }]);
    order.repository =
        Repository { kind: Kind::Web, name: "example.org/page".into(), revision: "main".into() };
    order.parts[0].licence = Some("MIT".into());
    order
}

/// A hub that nobody runs: files elsewhere need none, and must not see its token.
fn no_hub() -> Hub {
    let token = Some(Secret::new("token-of-the-hub".to_owned()));
    Hub::new(Settings { token, ..settings_for("http://127.0.0.1:9") })
}

#[test]
fn weights_outside_the_hub_are_fetched_from_their_address() {
    let bytes = noise(5_000);
    let server = Server::start(&[("w.bin", &bytes)]);
    let sizes = [None, Some(5_000)];
    let hashes = [None, Some(sha256(&bytes))];
    for (size, sha256) in sizes.into_iter().flat_map(|size| hashes.clone().map(|hash| (size, hash))) {
        let order = linked(&server, Source { size, sha256, ..source("") });
        let target = Target::new();
        let survey = Survey::take(&no_hub(), &order, &target.folder()).unwrap();
        let told = describe(&survey, false, 1 << 40);
        assert!(told.contains("Test: example.org/page, into") && told.contains("  MIT"), "{told}");
        assert_eq!(survey.to_fetch(), 5_000);
        fetch_with(&no_hub(), &order, &target.folder(), false).unwrap();
        assert!(target.read("example.org/page/w.bin") == bytes);
        let again = fetch_with(&no_hub(), &order, &target.folder(), false).unwrap();
        assert_eq!((again.brought.len(), again.here), (0, 1));
        let lines = ledger::read(&target.folder()).unwrap();
        assert_eq!(
            lines["example.org/page/w.bin"].checksum,
            format!("sha256:{}", crate::hub_server::sha256(&bytes))
        );
    }
    assert!(server.seen().iter().all(|seen| seen.token.is_none()));
}

#[test]
fn a_file_elsewhere_that_is_not_the_published_one_is_refused() {
    let server = Server::start(&[("w.bin", b"weights")]);
    let target = Target::new();
    let fetched = |file: Source| {
        let order = linked(&server, file);
        fetch_with(&no_hub(), &order, &target.folder(), false).unwrap_err().to_string()
    };
    let error = fetched(Source { md5: Some("0".repeat(32)), size: Some(7), ..source("") });
    assert!(error.contains("wrong twice: expected MD5"), "{error}");
    let error = fetched(Source { size: Some(8), ..source("") });
    assert!(error.contains("expected 8 bytes, but the server announces 7"), "{error}");
    server.always("w.bin", Some(Mischief::Answer(404, vec![], "")));
    let error = fetched(source(""));
    assert!(
        error.contains("download it from https://example.org/page and pass it with --weights"),
        "{error}"
    );
    assert!(!target.folder().join("example.org/page/w.bin").exists());
}

/// Models whose weights are not on the hub name an address, and all that is known to verify the file.
#[test]
fn models_outside_the_hub_have_an_address() {
    let home = Home::find().unwrap();
    for (name, address, file, is_hashed) in [
        ("satmae-b", "https://zenodo.org/", "zenodo.org/records/7338613/pretrain-vit-base-e199.pth", true),
        ("satmae-l", "https://zenodo.org/", "zenodo.org/records/7338613/pretrain-vit-large-e199.pth", true),
        (
            "mmearth-atto",
            "https://sid.erda.dk/",
            "sid.erda.dk/sharelink/g23YOnaaTp/checkpoint-199.pth",
            false,
        ),
        ("presto", "https://github.com/", "github.com/nasaharvest/presto/default_model.pt", true),
    ] {
        let model = ModelConfig::load(&home, name).unwrap();
        let order = weights(name, &model).unwrap();
        assert_eq!(order.repository.kind, Kind::Web, "{name}");
        let source = &order.parts[0].sources[0];
        assert!(source.path.starts_with(address) && Address::parse(&source.path).is_some(), "{source:?}");
        assert_eq!(source.to.as_deref(), Some(file), "{name}");
        assert_eq!(source.checksums().identity().is_some(), is_hashed, "{name}");
    }
}

/// Responses without body of a server that limits requests.
fn refusals(headers: &[(&'static str, String)]) -> Mischief {
    Mischief::Answer(429, headers.to_vec(), "")
}

#[test]
fn rate_limits_of_the_hub_are_respected() {
    let window = || refusals(&[("RateLimit", "\"resolvers\";r=0;t=1".into())]);
    let fraction = refusals(&[("Retry-After", "0.5".into())]);
    let start = Instant::now();
    // The first of these dates is the current time by the server's own clock.
    let date = refusals(&[
        ("Date", "Sun, 06 Nov 1994 08:49:36 GMT".into()),
        ("Retry-After", "Sun, 06 Nov 1994 08:49:37 GMT".into()),
    ]);
    assert_eq!(recovers(&[window(), fraction, date]), 4);
    assert!(start.elapsed() >= Duration::from_millis(2_500), "{:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());

    let error = fails(refusals(&[("RateLimit", "\"resolvers\";r=0;t=99999".into())]));
    assert!(error.contains("asks to wait 99999 s") && error.contains("later to resume"), "{error}");
}

#[test]
fn more_tries_if_the_server_says_when_to_retry() {
    // Others behind the same address use up the window's requests, so four tries would not suffice.
    let soon = || refusals(&[("Retry-After", "0".into())]);
    assert_eq!(recovers(&std::array::from_fn::<_, 10, _>(|_| soon())), 11);
}

#[test]
fn every_received_byte_counts_as_progress() {
    let drops = std::array::from_fn::<_, 12, _>(|_| Mischief::Drop(20_000));
    assert_eq!(recovers(&drops), 13);
}

#[test]
fn a_server_that_sends_nothing_more_ends_the_fetch() {
    let server = Server::start(&[("w.bin", &noise(300_000))]);
    server.misbehave("w.bin", &[Mischief::Drop(150_000)]);
    server.always("w.bin", Some(Mischief::Drop(0)));
    let target = Target::new();
    let error = fetch(&server, &[source("w.bin")], &target.folder()).unwrap_err().to_string();
    assert!(error.contains("connection lost after 150000 of 300000 bytes"), "{error}");
    assert_eq!(
        server.asked("w.bin").len(),
        4,
        "after progress, which counts as the first failure, three more"
    );
}

#[test]
fn bytes_of_an_earlier_run_do_not_count_as_wrong_twice() {
    let bytes = noise(300_000);
    let server = Server::start(&[("w.bin", &bytes)]);
    // Both the part and the first response are damaged, which counts once, not twice.
    server.misbehave("w.bin", &[Mischief::WrongBytes]);
    let target = Target::new();
    let part = format!("w.bin.{}.part", &sha256(&bytes)[..8]);
    std::fs::write(target.folder().join(&part), vec![0; 300_000]).unwrap();
    fetch(&server, &[source("w.bin")], &target.folder()).unwrap();
    assert!(target.read("w.bin") == bytes);
    assert_eq!(files(&target.folder()), ["w.bin"]);
}

#[test]
fn compressed_answers_are_decompressed() {
    assert_eq!(recovers(&[Mischief::Gzip]), 1);
    assert_eq!(recovers(&[Mischief::Drop(100_000), Mischief::Gzip]), 2);
    let server = Server::start(&[("w.bin", b"weights")]);
    server.misbehave_as_hub(&[Mischief::Gzip, Mischief::Gzip]);
    let target = Target::new();
    fetch(&server, &[source("w.bin")], &target.folder()).unwrap();
    assert_eq!(target.read("w.bin"), b"weights");

    let brotli = Mischief::Answer(200, vec![("Content-Encoding", "br".into())], "?");
    let error = fails(brotli);
    assert!(error.contains("expected an uncompressed response, got `br` (3 tries)"), "{error}");
}

#[test]
fn web_pages_are_not_data() {
    let page = || Mischief::Answer(200, vec![("Content-Type", "text/html; charset=utf-8".into())], "<html>");
    let error = fails(page());
    assert!(error.contains("expected data, got a web page from"), "{error}");
    let server = Server::start(&[("w.bin", b"weights")]);
    server.misbehave_as_hub(&[page(), page(), page()]);
    let target = Target::new();
    let error = fetch(&server, &[source("w.bin")], &target.folder()).unwrap_err().to_string();
    assert!(error.contains("web page") && error.contains("login"), "{error}");
    assert_eq!(server.seen().len(), 3);
}

#[test]
fn the_hubs_own_explanation_is_shown() {
    let words = "Access to dataset owner/name is restricted and you are not in the authorized list.";
    let refused = |code: u16, token: Option<&str>| {
        let server = Server::start(&[("w.bin", b"weights")]);
        let headers = vec![("X-Error-Code", "GatedRepo".to_owned()), ("X-Error-Message", words.to_owned())];
        server.misbehave_as_hub(&[Mischief::Answer(code, headers, "{}")]);
        let settings = Settings { token: token.map(Secret::new), ..settings(&server) };
        let target = Target::new();
        let wanted = order(vec![source("w.bin")]);
        let error =
            fetch_with(&Hub::new(settings), &wanted, &target.folder(), false).unwrap_err().to_string();
        let page = format!("accept the terms on {}/datasets/owner/name", server.endpoint());
        assert!(error.contains(words) && error.contains(&page), "{error}");
        assert_eq!(server.seen().len(), 1);
        error
    };
    for code in [401, 403] {
        assert!(refused(code, None).contains("then set HF_TOKEN"));
        assert!(refused(code, Some("hf_x")).contains("the account of the token in use"));
    }

    let server = Server::start(&[("w.bin", b"weights")]);
    let target = Target::new();
    let expired = "<Error><Code>AccessDenied</Code><Message>Request has\n expired</Message></Error>";
    server.always("w.bin", Some(Mischief::Answer(403, vec![], expired)));
    let error = fetch(&server, &[source("w.bin")], &target.folder()).unwrap_err().to_string();
    assert!(error.contains("answered 403 Forbidden: Request has expired (3 tries)"), "{error}");
    assert!(!error.contains("HF_TOKEN"), "{error}");
}

#[test]
fn the_token_is_sent_to_one_origin_only() {
    let (server, storage) =
        (Server::start(&[("w.bin", b"weights")]), Server::start(&[("w.bin", b"weights")]));
    // Another port of the same host is another origin.
    server.store_at(&storage.endpoint());
    let settings = Settings { token: Some(Secret::new("hf_secret")), ..settings(&server) };
    let target = Target::new();
    fetch_with(&Hub::new(settings), &order(vec![source("w.bin")]), &target.folder(), false).unwrap();
    assert!(server.seen().iter().all(|seen| seen.token.as_deref() == Some("Bearer hf_secret")));
    assert_eq!(storage.asked("w.bin").len(), 1);
    assert!(storage.asked("w.bin").iter().all(|seen| seen.token.is_none()), "{:?}", storage.seen());
}

#[test]
fn messages_never_contain_secrets() {
    let server = Server::start(&[("w.bin", b"weights")]);
    let address = server.endpoint();
    let with_login = address.replace("http://", "HTTP://user:geheim@");
    let target = Target::new();
    let wanted = order(vec![source("w.bin")]);
    let hub =
        |endpoint: &str| Hub::new(settings_from(&[("HF_ENDPOINT", endpoint), ("HF_TOKEN", "hf_secret")]));
    fetch_with(&hub(&with_login), &wanted, &target.folder(), false).unwrap();
    // base64 of user:geheim
    assert!(server.seen()[0].token.as_deref() == Some("Basic dXNlcjpnZWhlaW0="), "{:?}", server.seen());

    let silent = |endpoint: &str, expected: &str| {
        let target = Target::new();
        let error = fetch_with(&hub(endpoint), &wanted, &target.folder(), false).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        for secret in ["geheim", "hf_secret", "signed"] {
            assert!(!error.contains(secret), "{error}");
        }
    };
    let repeats = || vec![("X-Error-Message", "hf_secret of user:geheim (geheim) is wrong".to_owned())];
    server.misbehave_as_hub(&[Mischief::Answer(401, repeats(), "")]);
    silent(&with_login, "*** of *** (***) is wrong");
    silent("http://user:geheim@127.0.0.1:9/x", "no answer from http://127.0.0.1:9");
    // Signatures of links are secrets too.
    server.store_at("http://127.0.0.1:9");
    silent(&address, "no answer from http://127.0.0.1:9");
}

#[test]
fn errors_name_a_failing_proxy() {
    let server = Server::start(&[("w.bin", b"weights")]);
    let through = |proxy: &str| {
        let settings = settings_from(&[("HF_ENDPOINT", "http://hub.invalid"), ("http_proxy", proxy)]);
        let target = Target::new();
        let wanted = order(vec![source("w.bin")]);
        fetch_with(&Hub::new(settings), &wanted, &target.folder(), false).unwrap_err().to_string()
    };
    let error = through("http://user:geheim@127.0.0.1:9");
    let told = "no answer from the proxy http://127.0.0.1:9 (http_proxy): Connection refused";
    assert!(error.contains(told) && error.contains("unset http_proxy"), "{error}");
    assert!(!error.contains("geheim") && error.contains("(3 tries)"), "{error}");

    let address = server.endpoint();
    server.refuse_ways("407 Proxy Authentication Required");
    let error = through(&address);
    assert!(error.contains(&format!("the proxy {address} (http_proxy) cannot connect to")), "{error}");
    assert!(error.contains("407") && error.contains("USER:PASSWORD"), "{error}");
    assert_eq!(server.connects().len(), 1, "a proxy that requires a login was tried again");
    server.refuse_ways("403 Forbidden");
    let error = through(&address);
    assert!(error.contains("403") && error.contains("NO_PROXY"), "{error}");
}

#[test]
fn offline_mode_sends_no_requests() {
    let server = Server::start(&[("w.bin", b"weights")]);
    let endpoint = server.endpoint();
    let settings = settings_from(&[("HF_ENDPOINT", &*endpoint), ("HF_HUB_OFFLINE", "1")]);
    let target = Target::new();
    let wanted = order(vec![source("w.bin")]);
    let error = fetch_with(&Hub::new(settings), &wanted, &target.folder(), false).unwrap_err().to_string();
    assert!(error.contains("HF_HUB_OFFLINE is set") && error.contains("unset HF_HUB_OFFLINE"), "{error}");
    assert_eq!(server.seen().len(), 0);
}

#[test]
fn pages_below_a_path_are_followed() {
    let names: Vec<String> = (1..=7).map(|n| format!("images/{n}.h5")).collect();
    let listed: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), name.as_bytes())).collect();
    let server = Server::start(&listed);
    server.page(3);
    server.lie_below("/mirror/hf");
    let target = Target::new();
    // Only API and routes are below the path: the bytes are at the root of the same server.
    server.store_at(&server.endpoint());
    let done = fetch(&server, &[source("images/*.h5")], &target.folder()).unwrap();
    assert_eq!(done.brought.len(), 7);
}

#[cfg(target_os = "linux")]
#[test]
fn archives_are_unpacked_onto_another_disk() {
    use std::os::unix::fs::{MetadataExt, symlink};
    let target = Target::new();
    let disk = |folder: &Path| folder.metadata().unwrap().dev();
    let other =
        tempfile::tempdir_in("/dev/shm").ok().filter(|other| disk(other.path()) != disk(&target.folder()));
    let Some(other) = other else {
        eprintln!("skipped: /dev/shm is not a separate disk");
        return;
    };
    symlink(other.path(), target.folder().join("class")).unwrap();
    let server = Server::start(&[("set.zip", &zipped(&[("set/a", b"a"), ("set/deep/b", b"b")]))]);
    fetch(&server, &[archive("set.zip", "class/set")], &target.folder()).unwrap();
    assert_eq!(target.read("class/set/deep/b"), b"b");
    // File by file, because the folder already exists.
    server.put("set.zip", &zipped(&[("set/a", b"A"), ("set/new", b"new")]));
    fetch(&server, &[archive("set.zip", "class/set")], &target.folder()).unwrap();
    assert_eq!(target.read("class/set/a"), b"A");
    assert_eq!(files(other.path()), ["set/a", "set/new"]);
}

/// Starts a server whose certificate (`tests/fixtures/tls`) is self-signed and issued for other.example.
/// Returns its port and a counter of connections.
fn encrypted() -> (u16, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let at = |name: &str| crate::common::fixture("tls").join(name);
    let certificate = CertificateDer::from_pem_file(at("other.example.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(at("other.example.key")).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.unwrap().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    let config = std::sync::Arc::new(config);
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = count.clone();
    // The thread ends with the process.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let mut connection = rustls::ServerConnection::new(config.clone()).unwrap();
            connection.complete_io(&mut stream.unwrap()).ok();
        }
    });
    (port, count)
}

#[test]
fn certificate_errors_are_final_and_advise() {
    let (port, count) = encrypted();
    let certificate = crate::common::fixture("tls/other.example.pem");
    let endpoint = format!("https://localhost:{port}");
    let asked = |variables: &[(&str, &str)]| {
        let settings = settings_from(&[&[("HF_ENDPOINT", &*endpoint)], variables].concat());
        let target = Target::new();
        let wanted = order(vec![source("w.bin")]);
        let before = count.load(std::sync::atomic::Ordering::SeqCst);
        let error =
            fetch_with(&Hub::new(settings), &wanted, &target.folder(), false).unwrap_err().to_string();
        assert_eq!(count.load(std::sync::atomic::Ordering::SeqCst) - before, 1, "tried again: {error}");
        error
    };
    let error = asked(&[]);
    assert!(error.contains("is not trusted") && error.contains("set SSL_CERT_FILE"), "{error}");
    let error = asked(&[("SSL_CERT_FILE", certificate.to_str().unwrap())]);
    assert!(error.contains("is for other hosts (other.example)"), "{error}");
}

/// Runs the program: `terrabench fetch weights` from the server's `owner/name`.
pub(crate) fn program(server: &Server, folder: &Path) -> Command {
    let model = folder.join("model.toml");
    if !model.exists() {
        let home = Path::new(env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(home.join("configs/models/terrafm-b.toml")).unwrap();
        std::fs::write(&model, text.replace("MBZUAI/TerraFM", "owner/name")).unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_terrabench"));
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HF_TOKEN", "SSL_CERT_FILE"] {
        command.env_remove(name);
    }
    command
        .env("HF_ENDPOINT", server.endpoint())
        .env("HF_HOME", folder.join("hub"))
        .env("TERRABENCH_DATA", folder.join("data"))
        .args(["fetch", "weights"])
        .arg(model)
        .stdin(Stdio::null());
    command
}

const WEIGHTS: &str = "data/weights/owner/name/TerraFM-B.pth";

#[test]
fn the_program_fetches_and_prints_the_path() {
    let server = Server::start(&[("TerraFM-B.pth", b"weights")]);
    let here = tempfile::tempdir().unwrap();
    let run = |more: &[&str]| {
        let output = program(&server, here.path()).args(more).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        said
    };
    let said = run(&["--dry-run"]);
    assert!(said.contains("To fetch: 7 B") && said.contains("cc-by-4.0"), "{said}");
    assert!(!here.path().join("data").exists());
    let weights = here.path().join(WEIGHTS);
    assert!(run(&[]).ends_with(&format!("\n{}\n", weights.display())));
    assert_eq!(std::fs::read(&weights).unwrap(), b"weights");
    assert!(run(&[]).contains("Nothing to fetch"));
    assert_eq!(server.asked("TerraFM-B.pth").len(), 1);
}

#[test]
fn a_killed_fetch_resumes() {
    let bytes = noise(3_000_000);
    let server = Server::start(&[("TerraFM-B.pth", &bytes)]);
    server.misbehave("TerraFM-B.pth", &[Mischief::Stall(1_000_000, Duration::from_secs(10))]);
    let here = tempfile::tempdir().unwrap();
    let weights = here.path().join(WEIGHTS);
    let part = weights.with_file_name(format!("TerraFM-B.pth.{}.part", &sha256(&bytes)[..8]));

    let mut killed = program(&server, here.path()).stdout(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    while part.metadata().map_or(0, |file| file.len()) < 1_000_000 {
        assert!(start.elapsed() < Duration::from_secs(20), "nothing came");
        std::thread::sleep(Duration::from_millis(10));
    }
    // On Unix, this is SIGKILL.
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(!weights.exists());

    // Two processes resume at once: one waits for the other.
    let both: Vec<_> =
        (0..2).map(|_| program(&server, here.path()).stdout(Stdio::null()).spawn().unwrap()).collect();
    for mut one in both {
        assert!(one.wait().unwrap().success());
    }
    assert!(std::fs::read(&weights).unwrap() == bytes);
    let ranges: Vec<_> = server.asked("TerraFM-B.pth").into_iter().map(|seen| seen.range).collect();
    assert_eq!(ranges, [None, Some("bytes=1000000-".to_owned())]);
}
