//! The few routes of the Hugging Face hub that fetching needs, using `ureq`.
//!
//! ```text
//! GET /api/{models,datasets}/R/revision/REV              the commit of REV, the licence on the card
//! GET /api/{models,datasets}/R/tree/COMMIT?recursive=…   path, size and hash of each file; paged by a Link header
//! GET [/datasets]/R/resolve/COMMIT/PATH                  the bytes, through a redirect; Range and If-Range
//! ```

use std::io::Read;
use std::path::PathBuf;

use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use ureq::Body;
use ureq::http::{HeaderMap, Response, StatusCode};

use super::address::Address;
use super::checksum::{Checksums, is_hex};
use super::client::{Client, Place, header};
use super::patience::{Patience, Trouble};
use super::settings::Settings;
use crate::{Error, Result};

/// Maximum size of an API response in bytes; the hub sends a few hundred kilobytes per page.
const LARGEST_ANSWER: u64 = 64 << 20;
/// Maximum number of pages per listing, of (currently) 1,000 files each.
const MOST_PAGES: usize = 1_000;

/// The kind of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A model repository.
    Model,
    /// A data set repository.
    Dataset,
    /// Not on the hub: the name is the page that describes the file, and paths are whole web addresses.
    Web,
}

impl Kind {
    /// Returns the name used in API paths and cache folders.
    fn plural(self) -> &'static str {
        match self {
            Kind::Model => "models",
            Kind::Dataset => "datasets",
            Kind::Web => "web",
        }
    }
}

/// A repository at a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// Whether it holds a model or a data set.
    pub kind: Kind,
    /// `owner/name`.
    pub name: String,
    /// A commit, branch or tag.
    pub revision: String,
}

impl Repository {
    /// Formats name and short revision: `owner/name at 1f2e3d4c5b6a`.
    pub fn told(&self) -> String {
        match self.kind {
            Kind::Web => self.name.clone(),
            Kind::Model | Kind::Dataset => {
                format!("{} at {}", self.name, self.revision.get(..12).unwrap_or(&self.revision))
            }
        }
    }
}

/// What the hub says about a repository at a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// The commit that the revision resolves to.
    pub commit: String,
    /// The licence on the repository's card.
    pub licence: Option<String>,
}

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path in the repository.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// The hashes that the hub lists.
    pub checksums: Checksums,
}

/// A client of the hub.
pub struct Hub {
    client: Client,
    note: fn(&str),
}

/// The bytes of a file, starting at some offset.
pub(crate) struct Opened {
    pub body: Box<dyn Read>,
    /// Offset of the first byte: the requested one, or 0.
    pub from: u64,
    /// Number of bytes that the server announces.
    pub length: Option<u64>,
    /// The version of the file being sent, if it can be used to resume.
    pub etag: Option<String>,
}

impl Hub {
    /// Creates a client without connecting.
    pub fn new(settings: Settings) -> Self {
        Hub { client: Client::new(settings), note: |_| () }
    }

    /// Returns the client with a function that receives a note whenever a listing is requested again.
    #[must_use]
    pub fn noting(self, note: fn(&str)) -> Self {
        Hub { note, ..self }
    }

    /// Returns how long this client keeps trying.
    pub(crate) fn patience(&self) -> &Patience {
        &self.client.settings.patience
    }

    /// Asks for the commit behind the revision and the card's licence.
    ///
    /// # Errors
    /// If the hub cannot be reached, refuses, or has no such repository.
    pub fn about(&self, repository: &Repository) -> Result<About> {
        #[derive(Deserialize)]
        struct Answer {
            sha: String,
            #[serde(rename = "cardData")]
            card: Option<Card>,
        }
        #[derive(Deserialize)]
        struct Card {
            license: Option<serde_json::Value>,
        }
        let Repository { kind, name, revision } = repository;
        let route = format!("/api/{}/{}/revision/{}", kind.plural(), encode(name, "/"), encode(revision, ""));
        let (answer, _) = self.json::<Answer>(&route, repository)?;
        if !is_hex(&answer.sha, 40) {
            let problem =
                format!("{name}: expected a commit for `{revision}`, but the hub says `{}`", answer.sha);
            return Err(Error::network(problem));
        }
        let licence = answer.card.and_then(|card| card.license).and_then(|licence| match licence {
            serde_json::Value::String(licence) => Some(licence),
            serde_json::Value::Array(several) => {
                Some(several.iter().filter_map(|one| one.as_str()).collect::<Vec<_>>().join(", "))
            }
            _ => None,
        });
        Ok(About { commit: answer.sha, licence })
    }

    /// Lists all files of the repository at its revision.
    ///
    /// # Errors
    /// If the hub cannot be reached, refuses, or has no such repository.
    pub fn list(&self, repository: &Repository) -> Result<Vec<Entry>> {
        #[derive(Deserialize)]
        struct HubFile {
            #[serde(rename = "type")]
            kind: String,
            path: String,
            #[serde(default)]
            size: u64,
            oid: String,
            lfs: Option<Lfs>,
        }
        #[derive(Deserialize)]
        struct Lfs {
            oid: String,
            size: u64,
        }
        let Repository { kind, name, revision } = repository;
        let (kind, encoded) = (kind.plural(), encode(name, "/"));
        let mut route = format!("/api/{kind}/{encoded}/tree/{}?recursive=true", encode(revision, ""));
        let mut entries = Vec::new();
        for _ in 0..MOST_PAGES {
            let (items, headers) = self.json::<Vec<HubFile>>(&route, repository)?;
            for item in items.into_iter().filter(|item| item.kind == "file") {
                let mut checksums = Checksums::default();
                let size = match item.lfs {
                    Some(lfs) => {
                        checksums.sha256 = Some(lfs.oid).filter(|hash| is_hex(hash, 64));
                        lfs.size
                    }
                    None => {
                        checksums.git = Some(item.oid).filter(|hash| is_hex(hash, 40));
                        item.size
                    }
                };
                entries.push(Entry { path: item.path, size, checksums });
            }
            match next_page(&self.client.settings.endpoint, &route, &headers) {
                Some(next) => route = next,
                None => return Ok(entries),
            }
        }
        Err(Error::network(format!("{name}: the hub's file list has more than {MOST_PAGES} pages")))
    }

    /// Opens a file of the repository, starting at byte `from` if the server supports it and the file still has
    /// the given `etag`.
    pub(crate) fn open(
        &self,
        repository: &Repository,
        path: &str,
        from: u64,
        etag: Option<&str>,
    ) -> std::result::Result<Opened, Trouble> {
        let Repository { kind, name, revision } = repository;
        let (name, revision, file) = (encode(name, "/"), encode(revision, ""), encode(path, "/"));
        let place = match kind {
            Kind::Model => Place::Route(format!("/{name}/resolve/{revision}/{file}")),
            Kind::Dataset => Place::Route(format!("/datasets/{name}/resolve/{revision}/{file}")),
            Kind::Web => Place::Address(path.to_owned()),
        };
        let mut headers = Vec::new();
        if from > 0 {
            headers.push(("range", format!("bytes={from}-")));
            headers.extend(etag.map(|etag| ("if-range", etag.to_owned())));
        }
        let response = self.client.get(&place, &headers, &self.page(repository))?;
        let encoding = encoding(&response)?;
        let is_partial = response.status() == StatusCode::PARTIAL_CONTENT;
        let problem = match (is_partial, encoding) {
            (true, Encoding::Gzip) => {
                Some("the server compressed the rest of the file, so it cannot be resumed")
            }
            (true, Encoding::Plain) if first_byte(response.headers()) != Some(from) => {
                Some("the server sent a different range than requested")
            }
            _ => None,
        };
        if let Some(problem) = problem {
            return Err(Trouble::Restart(Error::network(problem)));
        }
        let etag =
            header(response.headers(), "etag").filter(|etag| !etag.starts_with("W/")).map(str::to_owned);
        let length = response.body().content_length();
        let body = response.into_body().into_reader();
        Ok(match encoding {
            Encoding::Plain => {
                Opened { body: Box::new(body), from: if is_partial { from } else { 0 }, length, etag }
            }
            // The announced length counts compressed bytes, and offsets do not apply to them.
            Encoding::Gzip => {
                Opened { body: Box::new(MultiGzDecoder::new(body)), from: 0, length: None, etag: None }
            }
        })
    }

    /// Asks for the size in bytes of the file at a web address.
    ///
    /// # Errors
    /// If the server cannot be reached, refuses, or does not announce the size.
    pub(crate) fn size(&self, repository: &Repository, address: &str) -> Result<u64> {
        self.patience().retry(&repository.name, &self.note, || {
            self.open(repository, address, 0, None)?.length.ok_or_else(|| {
                Trouble::fatal(
                    format!("{address}: the server does not announce the file's size"),
                    format!("download it from {} and pass it with --weights", self.page(repository)),
                )
            })
        })
    }

    /// Returns the web page of a repository.
    fn page(&self, repository: &Repository) -> String {
        let folder = match repository.kind {
            Kind::Model => "",
            Kind::Dataset => "datasets/",
            Kind::Web => return format!("https://{}", repository.name),
        };
        format!("{}/{folder}{}", self.client.settings.endpoint, repository.name)
    }

    /// Returns the path of the file with this SHA-256 in the hub's local cache, if it is there.
    pub(crate) fn cached(&self, repository: &Repository, sha256: &str) -> Option<PathBuf> {
        let folder = format!("{}--{}", repository.kind.plural(), repository.name.replace('/', "--"));
        let blob = self.client.settings.cache.as_ref()?.join(folder).join("blobs").join(sha256);
        blob.is_file().then_some(blob)
    }

    /// Requests JSON, retrying as patience allows.
    fn json<T: serde::de::DeserializeOwned>(
        &self,
        route: &str,
        repository: &Repository,
    ) -> Result<(T, HeaderMap)> {
        let page = self.page(repository);
        self.patience().retry(&repository.name, &self.note, || {
            let mut response = self.client.get(&Place::Route(route.to_owned()), &[], &page)?;
            let encoding = encoding(&response)?;
            let body = response.body_mut().with_config().limit(LARGEST_ANSWER);
            let mut bytes = body.read_to_vec().map_err(|error| self.client.broken(&error))?;
            if encoding == Encoding::Gzip {
                let (packed, mut plain) = (bytes, Vec::new());
                let mut limited = MultiGzDecoder::new(&*packed).take(LARGEST_ANSWER);
                limited.read_to_end(&mut plain).map_err(|error| {
                    Trouble::passing(format!("cannot decompress the hub's response: {error}"))
                })?;
                bytes = plain;
            }
            let answer = serde_json::from_slice(&bytes).map_err(|error| {
                Trouble::stubborn(
                    format!("cannot parse the hub's response: {error}"),
                    "check that HF_ENDPOINT is a hub and that no proxy alters responses",
                )
            })?;
            Ok((answer, response.headers().clone()))
        })
    }
}

/// How a response is compressed. Uncompressed data is requested, but some proxies compress it anyway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Plain,
    Gzip,
}

fn encoding(response: &Response<Body>) -> std::result::Result<Encoding, Trouble> {
    let encoding =
        header(response.headers(), "content-encoding").unwrap_or_default().trim().to_ascii_lowercase();
    match encoding.as_str() {
        "" | "identity" => Ok(Encoding::Plain),
        "gzip" | "x-gzip" => Ok(Encoding::Gzip),
        other => Err(Trouble::stubborn(
            format!("expected an uncompressed response, got `{}`", other.escape_debug()),
            "a proxy or mirror compresses responses: check HTTPS_PROXY and HF_ENDPOINT",
        )),
    }
}

/// Returns the route of the page after `route` in a listing. Only path and query are used: the host remains the
/// endpoint, whatever a mirror's pages say, and so does the recipient of the token.
fn next_page(endpoint: &Address, route: &str, headers: &HeaderMap) -> Option<String> {
    let links = header(headers, "link")?;
    let next = links.split(',').find(|link| link.contains("rel=\"next\""))?;
    let url = next.split_once('<')?.1.split_once('>')?.0;
    Some(endpoint.route_of(&endpoint.below(route).join(url)?))
}

/// Returns the first byte of a header such as `Content-Range: bytes 5-9/10`.
fn first_byte(headers: &HeaderMap) -> Option<u64> {
    headers.get("content-range")?.to_str().ok()?.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}

/// Percent-encodes everything but letters, digits, `-._~` and the characters in `keep`.
fn encode(text: &str, keep: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        let c = char::from(byte);
        if byte.is_ascii_alphanumeric() || "-._~".contains(c) || (byte.is_ascii() && keep.contains(c)) {
            encoded.push(c);
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_on_the_same_host() {
        let link = |endpoint: &str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("link", value.parse().unwrap());
            next_page(&Address::parse(endpoint).unwrap().0, "/api/x?recursive=true", &headers)
        };
        let next = Some("/api/x?cursor=a%3D".to_owned());
        for endpoint in ["https://huggingface.co", "http://mirror:81/hf/"] {
            for url in [
                "https://elsewhere/api/x?cursor=a%3D",
                "/api/x?cursor=a%3D",
                "?cursor=a%3D",
                "http://mirror:81/hf/api/x?cursor=a%3D",
            ] {
                if endpoint.contains("/hf") || !url.contains("/hf") {
                    assert_eq!(link(endpoint, &format!("<{url}>; rel=\"next\"")), next, "{endpoint} {url}");
                }
            }
        }
        assert_eq!(link("https://huggingface.co", "<https://elsewhere/first>; rel=\"first\""), None);
    }

    #[test]
    fn paths_are_encoded() {
        assert_eq!(encode("a b/ü%.zip", "/"), "a%20b/%C3%BC%25.zip");
        assert_eq!(encode("refs/pr/1", ""), "refs%2Fpr%2F1");
    }
}
