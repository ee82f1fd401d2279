//! The few routes of the Hugging Face hub that fetching needs, over `ureq`.
//!
//! ```text
//! GET /api/{models,datasets}/R/revision/REV              the commit behind REV, the card's licence
//! GET /api/{models,datasets}/R/tree/COMMIT?recursive=…   path, size, hash of each file; paged by a Link header
//! GET [/datasets]/R/resolve/COMMIT/PATH                  the bytes, by a redirect; Range and If-Range
//! ```

use std::io::Read;
use std::path::PathBuf;

use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use ureq::Body;
use ureq::http::{HeaderMap, Response, StatusCode};

use super::address::Address;
use super::checksum::{Checksums, is_hex};
use super::client::{Client, header};
use super::patience::{Patience, Trouble};
use super::settings::Settings;
use crate::{Error, Result};

/// The answer of one API request is not read beyond this; the hub sends some hundred kilobytes a page.
const LARGEST_ANSWER: u64 = 64 << 20;
/// The listing of one repository is not followed beyond this many pages of (today) 1,000 files.
const MOST_PAGES: usize = 1_000;

/// What a repository holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Model,
    Dataset,
}

impl Kind {
    /// As in the API's paths and in the names of cache folders.
    fn plural(self) -> &'static str {
        match self {
            Kind::Model => "models",
            Kind::Dataset => "datasets",
        }
    }
}

/// A repository at a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    pub kind: Kind,
    /// `owner/name`.
    pub name: String,
    /// A commit, branch or tag.
    pub revision: String,
}

/// What the hub says of a repository at a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// The commit that the revision is.
    pub commit: String,
    /// The licence on its card.
    pub licence: Option<String>,
}

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub path: String,
    /// In bytes.
    pub size: u64,
    pub checksums: Checksums,
}

/// A client of the hub.
pub struct Hub {
    client: Client,
    note: fn(&str),
}

/// The bytes of a file from some offset on.
pub(crate) struct Opened {
    pub body: Box<dyn Read>,
    /// The first byte's offset in the file: what was asked for, or 0.
    pub from: u64,
    /// How many bytes the server announces.
    pub length: Option<u64>,
    /// The version of the file that the server sends, where it can be continued by.
    pub etag: Option<String>,
}

impl Hub {
    /// A client; connects to nothing yet.
    pub fn new(settings: Settings) -> Self {
        Hub { client: Client::new(settings), note: |_| () }
    }

    /// The same client, which tells `note` why it asks for a listing again.
    #[must_use]
    pub fn noting(self, note: fn(&str)) -> Self {
        Hub { note, ..self }
    }

    /// How long this client keeps trying.
    pub(crate) fn patience(&self) -> &Patience {
        &self.client.settings.patience
    }

    /// The commit behind the revision, and the card's licence.
    ///
    /// # Errors
    /// Where the hub cannot be reached, refuses, or knows no such repository.
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
            let problem = format!("{name}: the hub says that `{revision}` is `{}`, no commit", answer.sha);
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

    /// All files of the repository at its revision.
    ///
    /// # Errors
    /// Where the hub cannot be reached, refuses, or knows no such repository.
    pub fn list(&self, repository: &Repository) -> Result<Vec<Entry>> {
        #[derive(Deserialize)]
        struct Item {
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
            let (items, headers) = self.json::<Vec<Item>>(&route, repository)?;
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
        Err(Error::network(format!("{name}: the hub lists files over more than {MOST_PAGES} pages")))
    }

    /// Opens a file of the repository, from byte `from` on if the server can and the file is still the one
    /// with `etag`.
    pub(crate) fn open(
        &self,
        repository: &Repository,
        path: &str,
        from: u64,
        etag: Option<&str>,
    ) -> std::result::Result<Opened, Trouble> {
        let Repository { kind, name, revision } = repository;
        let folder = match kind {
            Kind::Model => "",
            Kind::Dataset => "/datasets",
        };
        let (name, revision, file) = (encode(name, "/"), encode(revision, ""), encode(path, "/"));
        let route = format!("{folder}/{name}/resolve/{revision}/{file}");
        let mut headers = Vec::new();
        if from > 0 {
            headers.push(("range", format!("bytes={from}-")));
            headers.extend(etag.map(|etag| ("if-range", etag.to_owned())));
        }
        let response = self.client.get(&route, &headers, &self.page(repository))?;
        let encoding = encoding(&response)?;
        let is_partial = response.status() == StatusCode::PARTIAL_CONTENT;
        let problem = match (is_partial, encoding) {
            (true, Encoding::Gzip) => Some("the server compresses a part of the file: it can't be continued"),
            (true, Encoding::Plain) if first_byte(response.headers()) != Some(from) => {
                Some("the server sends another range than asked for")
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
            // Its length is that of the compressed bytes, and no offset counts in it.
            Encoding::Gzip => {
                Opened { body: Box::new(MultiGzDecoder::new(body)), from: 0, length: None, etag: None }
            }
        })
    }

    /// The page of a repository, for people.
    fn page(&self, repository: &Repository) -> String {
        let folder = match repository.kind {
            Kind::Model => "",
            Kind::Dataset => "datasets/",
        };
        format!("{}/{folder}{}", self.client.settings.endpoint, repository.name)
    }

    /// Where the hub's own cache holds the file with this SHA-256, if it does.
    pub(crate) fn cached(&self, repository: &Repository, sha256: &str) -> Option<PathBuf> {
        let folder = format!("{}--{}", repository.kind.plural(), repository.name.replace('/', "--"));
        let blob = self.client.settings.cache.as_ref()?.join(folder).join("blobs").join(sha256);
        blob.is_file().then_some(blob)
    }

    /// Requests JSON, as often as patience allows.
    fn json<T: serde::de::DeserializeOwned>(
        &self,
        route: &str,
        repository: &Repository,
    ) -> Result<(T, HeaderMap)> {
        let page = self.page(repository);
        self.patience().retry(&repository.name, &self.note, || {
            let mut response = self.client.get(route, &[], &page)?;
            let encoding = encoding(&response)?;
            let body = response.body_mut().with_config().limit(LARGEST_ANSWER);
            let mut bytes = body.read_to_vec().map_err(|error| self.client.broken(&error))?;
            if encoding == Encoding::Gzip {
                let (packed, mut plain) = (bytes, Vec::new());
                let mut limited = MultiGzDecoder::new(&*packed).take(LARGEST_ANSWER);
                limited.read_to_end(&mut plain).map_err(|error| {
                    Trouble::passing(format!("the hub's answer can't be decompressed: {error}"))
                })?;
                bytes = plain;
            }
            let answer = serde_json::from_slice(&bytes).map_err(|error| {
                Trouble::stubborn(
                    format!("the hub's answer is not understood: {error}"),
                    "does HF_ENDPOINT lead to a hub? A proxy may alter answers, too",
                )
            })?;
            Ok((answer, response.headers().clone()))
        })
    }
}

/// How an answer is compressed, though it was asked for as it is: some proxies do.
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
            format!("the answer is compressed by `{}`, which was not asked for", other.escape_debug()),
            "a proxy or mirror does so: see HTTPS_PROXY and HF_ENDPOINT",
        )),
    }
}

/// The route of the page after `route` of a listing. Only path and query are taken: the host stays the endpoint,
/// whatever a mirror's pages name, and so does the token.
fn next_page(endpoint: &Address, route: &str, headers: &HeaderMap) -> Option<String> {
    let links = header(headers, "link")?;
    let next = links.split(',').find(|link| link.contains("rel=\"next\""))?;
    let url = next.split_once('<')?.1.split_once('>')?.0;
    Some(endpoint.route_of(&endpoint.below(route).join(url)?))
}

/// The first byte that `Content-Range: bytes 5-9/10` names.
fn first_byte(headers: &HeaderMap) -> Option<u64> {
    headers.get("content-range")?.to_str().ok()?.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}

/// Percent-encodes all but letters, digits, `-._~` and the characters of `keep`.
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
