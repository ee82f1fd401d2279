//! The few routes of the Hugging Face hub that fetching needs, over `ureq`.
//!
//! ```text
//! GET /api/{models,datasets}/R/revision/REV              the commit behind REV, the card's licence
//! GET /api/{models,datasets}/R/tree/COMMIT?recursive=…   path, size, hash of each file; paged by a Link header
//! GET [/datasets]/R/resolve/COMMIT/PATH                  the bytes, by a redirect; Range and If-Range
//! ```
//!
//! As the Python client does, it honours `HF_ENDPOINT`, `HF_TOKEN` (else `HF_TOKEN_PATH`, else the token
//! that `hf auth login` left in `HF_HOME`), `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`, and
//! takes files from the cache in `HF_HOME` that are there already. `SSL_CERT_FILE` names certificates to
//! trust instead of the built-in ones.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use ureq::http::{HeaderMap, Response, StatusCode};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Body, Proxy};

use super::catalogue::is_hex;
use super::checksum::Checksums;
use super::patience::{Patience, Trouble};
use crate::error::AtPath;
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

/// How the hub is reached.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Without a slash at the end.
    pub endpoint: String,
    pub token: Option<String>,
    /// The hub's own cache on this machine.
    pub cache: Option<PathBuf>,
    pub proxy: Option<Proxy>,
    /// Certificates to trust instead of the built-in ones.
    pub certificates: Option<Vec<Certificate<'static>>>,
    pub patience: Patience,
}

impl Settings {
    /// The settings that environment variables ask for; `get` looks one up.
    ///
    /// # Errors
    /// Where one of them cannot be: not a URL, no certificates in the file.
    pub fn from_environment(get: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let get = |name: &str| get(name).filter(|value| !value.trim().is_empty());
        let endpoint = get("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        let endpoint = endpoint.trim().trim_end_matches('/').to_owned();
        if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
            return Err(Error::request(format!(
                "HF_ENDPOINT is `{endpoint}`, no http:// or https:// address"
            )));
        }
        let home = get("HF_HOME").map(PathBuf::from).or_else(|| {
            let cache = get("XDG_CACHE_HOME").map(PathBuf::from);
            cache.or_else(|| Some(dirs::home_dir()?.join(".cache"))).map(|dir| dir.join("huggingface"))
        });
        let token = get("HF_TOKEN").or_else(|| {
            let file =
                get("HF_TOKEN_PATH").map(PathBuf::from).or_else(|| Some(home.clone()?.join("token")))?;
            std::fs::read_to_string(file).ok()
        });
        let cache = get("HF_HUB_CACHE").map(PathBuf::from).or_else(|| Some(home?.join("hub")));
        Ok(Settings {
            proxy: proxy(&endpoint, &get)?,
            endpoint,
            token: token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()),
            cache,
            certificates: get("SSL_CERT_FILE").map(certificates).transpose()?,
            patience: Patience::default(),
        })
    }
}

/// The proxy on the way to `endpoint`.
fn proxy(endpoint: &str, get: &dyn Fn(&str) -> Option<String>) -> Result<Option<Proxy>> {
    let own = if endpoint.starts_with("https:") {
        ["HTTPS_PROXY", "https_proxy"]
    } else {
        ["HTTP_PROXY", "http_proxy"]
    };
    let either = |names: [&'static str; 2]| names.into_iter().find_map(|name| Some((name, get(name)?)));
    let Some((name, url)) = either(own).or_else(|| either(["ALL_PROXY", "all_proxy"])) else {
        return Ok(None);
    };
    let wrong = |_| Error::request(format!("{name} is `{url}`, which names no proxy"));
    let proxy = Proxy::new(&url).map_err(wrong)?;
    let mut builder = Proxy::builder(proxy.protocol()).host(proxy.host()).port(proxy.port());
    if let Some(user) = proxy.username() {
        builder = builder.username(user);
    }
    if let Some(password) = proxy.password() {
        builder = builder.password(password);
    }
    let (_, without) = either(["NO_PROXY", "no_proxy"]).unwrap_or_default();
    for host in without.split(',').map(str::trim).filter(|host| !host.is_empty()) {
        builder = builder.no_proxy(host);
        // Elsewhere `example.com` means its subdomains too; here only `.example.com` does.
        if !host.starts_with(['.', '*']) {
            builder = builder.no_proxy(&format!(".{host}"));
        }
    }
    builder.build().map(Some).map_err(wrong)
}

fn certificates(path: String) -> Result<Vec<Certificate<'static>>> {
    let pem = std::fs::read(&path).at(&path).map_err(|error| error.help("SSL_CERT_FILE names it"))?;
    let found: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if found.is_empty() {
        return Err(Error::file(&path, "holds no PEM certificate").help("SSL_CERT_FILE names it"));
    }
    Ok(found)
}

/// A client of the hub.
pub struct Hub {
    agent: ureq::Agent,
    settings: Settings,
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
        Hub { agent, settings }
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
        self.settings.patience.retry(repository, &|_| (), || {
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

    fn settings(variables: &[(&str, &str)]) -> Result<Settings> {
        Settings::from_environment(&|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_environment_decides() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "hf_file\n").unwrap();
        let home = folder.path().to_str().unwrap();

        let plain = settings(&[("HF_HOME", home)]).unwrap();
        assert_eq!(plain.endpoint, "https://huggingface.co");
        assert_eq!(plain.token.as_deref(), Some("hf_file"));
        assert_eq!(plain.cache, Some(folder.path().join("hub")));
        assert_eq!(plain.proxy, None);

        let set = [("HF_ENDPOINT", "http://mirror:8080/"), ("HF_TOKEN", "hf_env"), ("HF_HUB_CACHE", "/c")];
        let set = settings(&[&set[..], &[("HF_HOME", home)]].concat()).unwrap();
        assert_eq!(set.endpoint, "http://mirror:8080");
        assert_eq!(set.token.as_deref(), Some("hf_env"));
        assert_eq!(set.cache, Some("/c".into()));
    }

    #[test]
    fn the_proxy_is_that_of_the_scheme() {
        let both = [("HTTPS_PROXY", "http://secure:1"), ("http_proxy", "http://user:word@plain:2")];
        let host = |variables: &[(&str, &str)]| {
            settings(variables).unwrap().proxy.map(|proxy| (proxy.host().to_owned(), proxy.port()))
        };
        assert_eq!(host(&both), Some(("secure".into(), 1)));
        let plain = [&both[..], &[("HF_ENDPOINT", "http://mirror")]].concat();
        assert_eq!(host(&plain), Some(("plain".into(), 2)));
        assert_eq!(settings(&plain).unwrap().proxy.unwrap().password(), Some("word"));
        assert_eq!(host(&[("ALL_PROXY", "socks5h://all:3")]), Some(("all".into(), 3)));

        let without = [&both[..], &[("NO_PROXY", "localhost, huggingface.co")]].concat();
        let proxy = settings(&without).unwrap().proxy.unwrap();
        let passes = |url: &str| !proxy.is_no_proxy(&url.parse().unwrap());
        assert!(!passes("https://huggingface.co/a"));
        assert!(!passes("https://cdn.huggingface.co/a"));
        assert!(passes("https://example.com/a"));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let error = |variables: &[(&str, &str)]| settings(variables).unwrap_err().to_string();
        assert!(error(&[("HF_ENDPOINT", "hub")]).contains("HF_ENDPOINT is `hub`"));
        assert!(error(&[("HTTPS_PROXY", "ftp://x")]).contains("HTTPS_PROXY is `ftp://x`"));
        assert!(error(&[("SSL_CERT_FILE", "/no/such.pem")]).contains("SSL_CERT_FILE"));
    }

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
