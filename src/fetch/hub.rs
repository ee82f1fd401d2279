//! The few routes of the Hugging Face hub that fetching needs, over `ureq`.
//!
//! ```text
//! GET /api/{models,datasets}/R/revision/REV              the commit behind REV, the card's licence
//! GET /api/{models,datasets}/R/tree/COMMIT?recursive=…   path, size, hash of each file; paged by a Link header
//! GET [/datasets]/R/resolve/COMMIT/PATH                  the bytes, by a redirect; Range and If-Range
//! ```

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use ureq::Body;
use ureq::http::{HeaderMap, Response, StatusCode};
use ureq::tls::{RootCerts, TlsConfig};

use super::checksum::{Checksums, is_hex};
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
    agent: ureq::Agent,
    settings: Settings,
    note: fn(&str),
}

/// The bytes of a file from some offset on.
pub(super) struct Opened {
    pub response: Response<Body>,
    /// The first byte's offset in the file: what was asked for, or 0.
    pub from: u64,
}

impl Hub {
    /// A client; connects to nothing yet.
    pub fn new(settings: Settings) -> Self {
        let stall = Some(settings.patience.stall);
        let roots = settings.certificates.as_deref().map_or(RootCerts::WebPki, RootCerts::new_with_certs);
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .redirect_auth_headers(ureq::config::RedirectAuthHeaders::SameHost)
            .user_agent(concat!("terrabench/", env!("CARGO_PKG_VERSION")))
            .proxy(settings.proxy.clone())
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .timeout_resolve(stall)
            .timeout_connect(stall)
            .timeout_recv_response(stall)
            .timeout_per_read(stall)
            .build()
            .into();
        Hub { agent, settings, note: |_| () }
    }

    /// The same client, which tells `note` why it asks for a listing again.
    #[must_use]
    pub fn noting(self, note: fn(&str)) -> Self {
        Hub { note, ..self }
    }

    /// How long this client keeps trying.
    pub(super) fn patience(&self) -> &Patience {
        &self.settings.patience
    }

    /// The hub's address.
    pub fn endpoint(&self) -> &str {
        &self.settings.endpoint
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
        let (answer, _) = self.json::<Answer>(&route, name)?;
        if !is_hex(&answer.sha, 40) {
            let problem = format!("{name}: the hub says that `{revision}` is `{}`, no commit", answer.sha);
            return Err(Error::request(problem));
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
            let (items, headers) = self.json::<Vec<Item>>(&route, name)?;
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
            match next_page(&headers) {
                Some(next) => route = next,
                None => return Ok(entries),
            }
        }
        Err(Error::request(format!("{name}: the hub lists files over more than {MOST_PAGES} pages")))
    }

    /// Opens a file of the repository, from byte `from` on if the server can and the file is still the one
    /// with `etag`.
    pub(super) fn open(
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
        let response = self.get(&route, &headers)?;
        let from = if response.status() == StatusCode::PARTIAL_CONTENT {
            match first_byte(response.headers()) {
                Some(first) if first == from => from,
                _ => return Err(Trouble::passing("the server sends another range than asked for")),
            }
        } else {
            0
        };
        Ok(Opened { response, from })
    }

    /// Where the hub's own cache holds the file with this SHA-256, if it does.
    pub(super) fn cached(&self, repository: &Repository, sha256: &str) -> Option<PathBuf> {
        let folder = format!("{}--{}", repository.kind.plural(), repository.name.replace('/', "--"));
        let blob = self.settings.cache.as_ref()?.join(folder).join("blobs").join(sha256);
        blob.is_file().then_some(blob)
    }

    /// Requests JSON, as often as patience allows.
    fn json<T: serde::de::DeserializeOwned>(&self, route: &str, repository: &str) -> Result<(T, HeaderMap)> {
        self.settings.patience.retry(repository, &self.note, || {
            let mut response = self.get(route, &[])?;
            let body = response.body_mut().with_config().limit(LARGEST_ANSWER);
            let bytes = body.read_to_vec().map_err(|error| Trouble::of(error, &self.settings.endpoint))?;
            let answer = serde_json::from_slice(&bytes)
                .map_err(|error| Trouble::passing(format!("the hub's answer is not understood: {error}")))?;
            Ok((answer, response.headers().clone()))
        })
    }

    /// One request; any answer but success is trouble.
    fn get(&self, route: &str, headers: &[(&str, String)]) -> std::result::Result<Response<Body>, Trouble> {
        let mut request = self.agent.get(format!("{}{route}", self.settings.endpoint));
        if let Some(token) = &self.settings.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let response = request.call().map_err(|error| Trouble::of(error, &self.settings.endpoint))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let told = format!("the server answers {status}");
        Err(match status.as_u16() {
            401 | 403 => Trouble::Final(Error::request(told).help(match self.settings.token {
                None => {
                    "set HF_TOKEN to an access token of your account; where the repository is gated, \
                     accept its terms on its page first"
                }
                Some(_) => {
                    "the token in use (HF_TOKEN, or the one of `hf auth login`) may not read this: \
                     give it read access, and where the repository is gated, accept its terms on its page"
                }
            })),
            404 => Trouble::Final(Error::request(told).help(
                "there is no such repository, revision or file; a private one shows itself only to a \
                 token in HF_TOKEN that may read it",
            )),
            416 => Trouble::BeyondEnd,
            408 | 425 | 429 | 500..=599 => {
                Trouble::Passing { what: told, wait: retry_after(response.headers()) }
            }
            _ => Trouble::Final(Error::request(told)),
        })
    }
}

/// The route of the next page of a listing. Only path and query are taken: the host stays the endpoint,
/// whatever a mirror's pages name, and so does the token.
fn next_page(headers: &HeaderMap) -> Option<String> {
    let links = headers.get("link")?.to_str().ok()?;
    let next = links.split(',').find(|link| link.contains("rel=\"next\""))?;
    let url = next.split_once('<')?.1.split_once('>')?.0;
    let route = match url.split_once("://") {
        Some((_, rest)) => &rest[rest.find('/')?..],
        None => url,
    };
    route.starts_with('/').then(|| route.to_owned())
}

/// The first byte that `Content-Range: bytes 5-9/10` names.
fn first_byte(headers: &HeaderMap) -> Option<u64> {
    headers.get("content-range")?.to_str().ok()?.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get("retry-after")?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
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
        let link = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("link", value.parse().unwrap());
            next_page(&headers)
        };
        let next = Some("/api/x?cursor=a%3D".to_owned());
        assert_eq!(link("<https://elsewhere/api/x?cursor=a%3D>; rel=\"next\""), next);
        assert_eq!(link("</api/x?cursor=a%3D>; rel=\"next\""), next);
        assert_eq!(link("<https://elsewhere/first>; rel=\"first\""), None);
    }

    #[test]
    fn paths_are_encoded() {
        assert_eq!(encode("a b/ü%.zip", "/"), "a%20b/%C3%BC%25.zip");
        assert_eq!(encode("refs/pr/1", ""), "refs%2Fpr%2F1");
    }
}
