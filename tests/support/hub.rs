//! A server on this machine that speaks the hub's routes and misbehaves on demand.
//!
//! Plain HTTP/1.1 over std's sockets, one thread a connection, one answer a connection. Files are reached as
//! on the hub: `resolve` redirects to another host name (`localhost` instead of `127.0.0.1`), which
//! answers ranges. It is also a CONNECT proxy that takes every host for itself.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use sha1::Digest;

/// The commit that every revision is.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the server does wrong, once, when a file's bytes are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mischief {
    /// Closes the connection after so many bytes of the body.
    Drop(usize),
    /// Announces and sends so many bytes, whatever the file has.
    Length(usize),
    /// Sends no length, and so many bytes too many.
    TooMany(usize),
    /// Flips a bit of every byte.
    WrongBytes,
    /// Sends so many bytes of the body, then nothing for a while, then closes.
    Stall(usize, Duration),
    /// Answers with this status, and perhaps `Retry-After`.
    Status(u16, Option<u64>),
    /// Sends the whole file with 200 though a range was asked for.
    IgnoreRange,
    /// Sends from byte 0 on, but says that it is the range that was asked for.
    OtherRange,
    /// Answers with this status, these headers and this body.
    Answer(u16, Vec<(&'static str, String)>, &'static str),
    /// Compresses the answer, which nobody asked for.
    Gzip,
    /// Answers with so many megabytes of zeros, compressed to a few kilobytes each.
    GzipBomb(usize),
}

/// A request that came.
#[derive(Debug, Clone)]
pub struct Seen {
    pub path: String,
    pub range: Option<String>,
    pub if_range: Option<String>,
    pub token: Option<String>,
}

#[derive(Default)]
struct State {
    /// Path in the repository -> bytes.
    files: BTreeMap<String, Vec<u8>>,
    /// Files that are listed as git's own, not as large ones.
    in_git: Vec<String>,
    /// SHA-256 that is listed instead of the true one.
    listed: BTreeMap<String, String>,
    mischief: BTreeMap<String, VecDeque<Mischief>>,
    /// The same mischief every time.
    always: BTreeMap<String, Mischief>,
    seen: Vec<Seen>,
    connects: Vec<String>,
    token: Option<String>,
    /// The path below which the hub is.
    below: String,
    /// The address of another server, to which `resolve` leads.
    storage: Option<String>,
    /// Answers a proxy's request for a way so.
    proxy_refusal: Option<String>,
}

/// Where mischief of the hub's own answers is kept: no file is called so.
const HUB: &str = "//hub";

/// The server; it ends when it goes out of scope.
pub struct Server {
    port: u16,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    /// Files a page of the listing.
    page: Arc<AtomicU16>,
    accepting: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves `files`, by path in the repository `owner/name`, whatever its kind.
    pub fn start(files: &[(&str, &[u8])]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let files = files.iter().map(|(path, bytes)| ((*path).to_owned(), bytes.to_vec())).collect();
        let state = Arc::new(Mutex::new(State { files, ..State::default() }));
        let stop = Arc::new(AtomicBool::new(false));
        let page = Arc::new(AtomicU16::new(1_000));
        let accepting = {
            let (state, stop, page) = (state.clone(), stop.clone(), page.clone());
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    let Ok(stream) = stream else { continue };
                    let serving = Serving {
                        port,
                        state: state.clone(),
                        page: usize::from(page.load(Ordering::SeqCst)),
                        gzip: AtomicBool::new(false),
                    };
                    // A client that goes away in the middle is no failure of the server.
                    std::thread::spawn(move || serving.connection(&stream).ok());
                }
            })
        };
        Server { port, state, stop, page, accepting: Some(accepting) }
    }

    fn state<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap())
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}{}", self.port, self.state(|state| state.below.clone()))
    }

    /// The hub is below this path, as some mirrors are; links of pages name it.
    pub fn lie_below(&self, path: &str) {
        self.state(|state| path.clone_into(&mut state.below));
    }

    /// Files lie on another server.
    pub fn store_at(&self, address: &str) {
        self.state(|state| state.storage = Some(address.to_owned()));
    }

    /// As a proxy, refuses every way with this status line.
    pub fn refuse_ways(&self, status: &str) {
        self.state(|state| state.proxy_refusal = Some(status.to_owned()));
    }

    /// The next requests for what the repository is and lists are answered so, one after the other.
    pub fn misbehave_as_hub(&self, mischief: &[Mischief]) {
        self.misbehave(HUB, mischief);
    }

    /// The next requests for `path`'s bytes are answered so, one after the other.
    pub fn misbehave(&self, path: &str, mischief: &[Mischief]) {
        self.state(|state| {
            state.mischief.entry(path.to_owned()).or_default().extend(mischief.iter().cloned())
        });
    }

    /// Every request for `path`'s bytes is answered so; none ends it.
    pub fn always(&self, path: &str, mischief: Option<Mischief>) {
        self.state(|state| match mischief {
            Some(mischief) => state.always.insert(path.to_owned(), mischief),
            None => state.always.remove(path),
        });
    }

    /// Lists `path` as a file that git itself holds.
    pub fn in_git(&self, path: &str) {
        self.state(|state| state.in_git.push(path.to_owned()));
    }

    /// Lists another hash than the file has.
    pub fn list_as(&self, path: &str, sha256: &str) {
        self.state(|state| state.listed.insert(path.to_owned(), sha256.to_owned()));
    }

    pub fn put(&self, path: &str, bytes: &[u8]) {
        self.state(|state| state.files.insert(path.to_owned(), bytes.to_vec()));
    }

    /// Refuses requests without this token.
    pub fn require(&self, token: &str) {
        self.state(|state| state.token = Some(token.to_owned()));
    }

    /// Lists so many files a page.
    pub fn page(&self, files: u16) {
        self.page.store(files, Ordering::SeqCst);
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.state(|state| state.seen.clone())
    }

    /// The requests for bytes of `path` so far.
    pub fn asked(&self, path: &str) -> Vec<Seen> {
        let end = format!("/bytes/{path}");
        self.seen().into_iter().filter(|seen| seen.path == end).collect()
    }

    /// The hosts that CONNECT was asked for.
    pub fn connects(&self) -> Vec<String> {
        self.state(|state| state.connects.clone())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).ok();
        if let Some(accepting) = self.accepting.take() {
            accepting.join().ok();
        }
    }
}

/// What one connection needs to know.
struct Serving {
    port: u16,
    state: Arc<Mutex<State>>,
    page: usize,
    /// Whether this answer is compressed.
    gzip: AtomicBool,
}

#[derive(Clone)]
struct Request {
    method: String,
    path: String,
    query: String,
    headers: BTreeMap<String, String>,
}

impl Serving {
    fn connection(&self, stream: &TcpStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.set_write_timeout(Some(Duration::from_secs(20)))?;
        let mut reader = BufReader::new(stream);
        let mut request = read_request(&mut reader)?;
        if request.method == "CONNECT" {
            let refusal = {
                let mut state = self.state.lock().unwrap();
                state.connects.push(request.path);
                state.proxy_refusal.clone()
            };
            if let Some(status) = refusal {
                return send(stream, &status, &[], b"");
            }
            (&mut &*stream).write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
            request = read_request(&mut reader)?;
        }
        self.answer(stream, &request)
    }

    fn answer(&self, stream: &TcpStream, request: &Request) -> std::io::Result<()> {
        let header = |name: &str| request.headers.get(name).cloned();
        let mut state = self.state.lock().unwrap();
        let Some(path) = request.path.strip_prefix(&state.below).map(str::to_owned) else {
            return send(stream, "404 Not Found", &[], b"");
        };
        let request = &Request { path, ..request.clone() };
        state.seen.push(Seen {
            path: request.path.clone(),
            range: header("range"),
            if_range: header("if-range"),
            token: header("authorization"),
        });
        let refused = state
            .token
            .as_ref()
            .is_some_and(|token| header("authorization") != Some(format!("Bearer {token}")));
        if let Some(path) = request.path.strip_prefix("/bytes/") {
            if refused && state.in_git.iter().any(|known| known == path) {
                return send(stream, "401 Unauthorized", &[], b"");
            }
            let once = state.mischief.get_mut(path).and_then(VecDeque::pop_front);
            let mischief = once.or_else(|| state.always.get(path).cloned());
            let bytes = state.files.get(path).cloned();
            drop(state);
            return match bytes {
                Some(bytes) => send_bytes(stream, request, &bytes, mischief),
                None => send(stream, "404 Not Found", &[], b""),
            };
        }
        if refused {
            return send(stream, "401 Unauthorized", &[], b"");
        }
        let path = request.path.strip_prefix("/datasets").unwrap_or(&request.path);
        if let Some(file) = path.strip_prefix(&format!("/owner/name/resolve/{COMMIT}/")) {
            if !state.files.contains_key(file) {
                return send(stream, "404 Not Found", &[], b"");
            }
            // Files that git holds stay on the hub's host, where the token is asked for.
            let location = if let Some(storage) = &state.storage {
                format!("{storage}/bytes/{file}?X-Amz-Signature=signed")
            } else if state.in_git.iter().any(|known| known == file) {
                format!("/bytes/{file}")
            } else {
                format!("http://localhost:{}/bytes/{file}", self.port)
            };
            let linked = format!("\"{}\"", sha256(&state.files[file]));
            return send(stream, "302 Found", &[("Location", &location), ("X-Linked-ETag", &linked)], b"");
        }
        let mischief = state.mischief.get_mut(HUB).and_then(VecDeque::pop_front);
        match mischief.or_else(|| state.always.get(HUB).cloned()) {
            Some(Mischief::Answer(status, headers, body)) => {
                return send_answer(stream, status, &headers, body);
            }
            Some(Mischief::GzipBomb(megabytes)) => {
                return send(stream, "200 OK", &[("Content-Encoding", "gzip")], &bomb(megabytes));
            }
            Some(Mischief::Gzip) => self.gzip.store(true, Ordering::SeqCst),
            _ => self.gzip.store(false, Ordering::SeqCst),
        }
        let api = ["/api/models/owner/name/", "/api/datasets/owner/name/"];
        match api.iter().find_map(|prefix| request.path.strip_prefix(prefix)) {
            Some(rest) if rest.starts_with("revision/") => {
                let about = format!("{{\"sha\":\"{COMMIT}\",\"cardData\":{{\"license\":\"cc-by-4.0\"}}}}");
                self.send_json(stream, &[], about.as_bytes())
            }
            Some(rest) if rest == format!("tree/{COMMIT}") => self.list(stream, request, &state),
            _ => send(stream, "404 Not Found", &[], b""),
        }
    }

    fn list(&self, stream: &TcpStream, request: &Request, state: &State) -> std::io::Result<()> {
        let start: usize = request.query.split_once("cursor=").map_or(0, |(_, n)| n.parse().unwrap_or(0));
        let items: Vec<String> = state
            .files
            .iter()
            .skip(start)
            .take(self.page)
            .map(|(path, bytes)| {
                let size = bytes.len();
                let git = git_hash(bytes);
                let lfs = if state.in_git.contains(path) {
                    String::new()
                } else {
                    let hash = state.listed.get(path).cloned().unwrap_or_else(|| sha256(bytes));
                    format!(",\"lfs\":{{\"oid\":\"{hash}\",\"size\":{size},\"pointerSize\":130}}")
                };
                format!("{{\"type\":\"file\",\"oid\":\"{git}\",\"size\":{size},\"path\":{path:?}{lfs}}}")
            })
            .chain([r#"{"type":"directory","oid":"00","size":0,"path":"folder"}"#.to_owned()])
            .collect();
        let body = format!("[{}]", items.join(","));
        let next = start + self.page;
        // As some mirrors do, the link names the real hub's host.
        let link = format!(
            "<https://hub.invalid{}{}?recursive=true&cursor={next}>; rel=\"next\"",
            state.below, request.path
        );
        let headers = [("Link", link.as_str())];
        let headers = if next < state.files.len() { &headers[..] } else { &[] };
        self.send_json(stream, headers, body.as_bytes())
    }

    fn send_json(&self, stream: &TcpStream, headers: &[(&str, &str)], body: &[u8]) -> std::io::Result<()> {
        if self.gzip.load(Ordering::SeqCst) {
            let headers = [headers, &[("Content-Encoding", "gzip")]].concat();
            return send(stream, "200 OK", &headers, &gzipped(body));
        }
        send(stream, "200 OK", headers, body)
    }
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

/// Many members of one megabyte of zeros.
fn bomb(megabytes: usize) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packed.write_all(&vec![0; 1 << 20]).unwrap();
    packed.finish().unwrap().repeat(megabytes)
}

fn send_answer(
    stream: &TcpStream,
    status: u16,
    headers: &[(&'static str, String)],
    body: &str,
) -> std::io::Result<()> {
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    send(stream, &format!("{status} Trouble"), &headers, body.as_bytes())
}

fn read_request(reader: &mut BufReader<&TcpStream>) -> std::io::Result<Request> {
    let mut line = String::new();
    reader.by_ref().take(1 << 16).read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.by_ref().take(1 << 16).read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.trim().to_owned()),
            None => break,
        };
    }
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    Ok(Request { method, path: path.to_owned(), query: query.to_owned(), headers })
}

fn send(mut stream: &TcpStream, status: &str, headers: &[(&str, &str)], body: &[u8]) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    stream.write_all(body)
}

/// The bytes of a file, or of the range that was asked for, with or without mischief.
fn send_bytes(
    mut stream: &TcpStream,
    request: &Request,
    bytes: &[u8],
    mischief: Option<Mischief>,
) -> std::io::Result<()> {
    let etag = format!("\"etag-{}\"", &sha256(bytes)[..8]);
    let asked = request
        .headers
        .get("range")
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let unchanged = request.headers.get("if-range").is_none_or(|condition| *condition == etag);
    let asked = asked.filter(|_| unchanged && mischief != Some(Mischief::IgnoreRange));
    if asked.is_some_and(|from| from >= bytes.len()) {
        return send(stream, "416 Range Not Satisfiable", &[], b"");
    }
    let (status, from) = match asked {
        Some(from) => ("206 Partial Content", from),
        None => ("200 OK", 0),
    };
    let (end, total) = (bytes.len().saturating_sub(1), bytes.len());
    let said = if mischief == Some(Mischief::OtherRange) { 0 } else { from };
    let mut body = bytes[said..].to_vec();
    let mut length = Some(body.len());
    let pause = match &mischief {
        Some(Mischief::Stall(_, time)) => *time,
        _ => Duration::ZERO,
    };
    match mischief {
        Some(Mischief::Status(code, wait)) => {
            let wait = wait.map(|seconds| seconds.to_string());
            let headers: Vec<_> = wait.iter().map(|wait| ("Retry-After", wait.as_str())).collect();
            return send(stream, &format!("{code} Trouble"), &headers, b"");
        }
        Some(Mischief::Answer(status, headers, text)) => return send_answer(stream, status, &headers, text),
        Some(Mischief::GzipBomb(megabytes)) => {
            return send(stream, "200 OK", &[("Content-Encoding", "gzip")], &bomb(megabytes));
        }
        Some(Mischief::Gzip) => {
            return send(stream, "200 OK", &[("Content-Encoding", "gzip")], &gzipped(bytes));
        }
        Some(Mischief::Stall(after, _)) => body.truncate(after),
        Some(Mischief::Drop(after)) => body.truncate(after),
        Some(Mischief::Length(announced)) => {
            body.resize(announced, 7);
            length = Some(announced);
        }
        Some(Mischief::TooMany(more)) => {
            body.resize(body.len() + more, 7);
            length = None;
        }
        Some(Mischief::WrongBytes) => body.iter_mut().for_each(|byte| *byte ^= 1),
        Some(Mischief::IgnoreRange | Mischief::OtherRange) | None => {}
    }
    let mut head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nETag: {etag}\r\n");
    if asked.is_some() {
        head.push_str(&format!("Content-Range: bytes {said}-{end}/{total}\r\n"));
    }
    if let Some(length) = length {
        head.push_str(&format!("Content-Length: {length}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    stream.write_all(&body)?;
    std::thread::sleep(pause);
    Ok(())
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(&sha2::Sha256::digest(bytes))
}

fn git_hash(bytes: &[u8]) -> String {
    let mut state = sha1::Sha1::new_with_prefix(format!("blob {}\0", bytes.len()));
    state.update(bytes);
    hex(&state.finalize())
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
