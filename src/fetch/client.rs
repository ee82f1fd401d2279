//! Sends one request to the hub: redirects, secrets, proxies, and the meaning of responses.
//!
//! Redirects are followed here because each hop needs its own decision about the proxy and about the token,
//! which only the hub's own origin may see.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ureq::Body;
use ureq::http::{HeaderMap, Response, StatusCode};
use ureq::tls::{RootCerts, TlsConfig};

use super::address::Address;
use super::cause::Unanswered;
use super::clock::asked_wait;
use super::patience::{Trouble, Wait};
use super::proxy::NamedProxy;
use super::secret::cleaned;
use super::settings::Settings;

/// Maximum number of redirects per request.
const MOST_HOPS: usize = 10;
/// How many bytes of an error response are read to find its reason.
const LONGEST_REFUSAL: u64 = 4_096;

type Tried<T> = std::result::Result<T, Trouble>;

/// What to request.
pub(crate) enum Place {
    /// Path and query below the hub's endpoint.
    Route(String),
    /// A web address elsewhere.
    Address(String),
}

/// Sends requests to the hub.
pub(crate) struct Client {
    pub settings: Settings,
    straight: ureq::Agent,
    /// One agent per proxy, so that connections are reused and certificates parsed only once.
    through: Vec<(NamedProxy, ureq::Agent)>,
    /// Whether the hub has responded yet.
    answered: AtomicBool,
}

impl Client {
    /// Creates a client without connecting.
    pub fn new(settings: Settings) -> Self {
        let agent = |proxy| agent(&settings, proxy);
        let through =
            settings.proxies.iter().map(|named| (named.clone(), agent(Some(named.proxy.clone())))).collect();
        Client { straight: agent(None), through, settings, answered: AtomicBool::new(false) }
    }

    /// Requests `place`; the response must be a success. `page` is the web page to show to users in advice.
    pub fn get(&self, place: &Place, headers: &[(&str, String)], page: &str) -> Tried<Response<Body>> {
        if let Some(variable) = self.settings.offline {
            let remedy =
                format!("unset {variable} to fetch; files that are already here can be used without it");
            return Err(Trouble::fatal(format!("{variable} is set, so the hub was not contacted"), remedy));
        }
        let mut address = match place {
            Place::Route(route) => self.settings.endpoint.below(route),
            Place::Address(text) => {
                let parsed = Address::parse(text).map(|(address, _)| address);
                parsed.ok_or_else(|| {
                    Trouble::fatal(
                        format!("{text:?} is not a web address"),
                        format!("download the file from {page} and pass it with --weights"),
                    )
                })?
            }
        };
        for _ in 0..MOST_HOPS {
            let response = self.ask(&address, headers)?;
            let status = response.status();
            if status.is_success() {
                return page_instead(&address, &response).map_or(Ok(response), Err);
            }
            if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Err(self.refusal(place, &address, response, page));
            }
            let location =
                response.headers().get("location").map(|value| String::from_utf8_lossy(value.as_bytes()));
            address = match location.and_then(|location| address.join(&location)) {
                Some(next) => next,
                None => {
                    let problem = format!("{address} answered {status} without a valid location");
                    return Err(Trouble::stubborn(problem, ALTERED));
                }
            };
        }
        let problem = format!("more than {MOST_HOPS} redirects, the last one to {address}");
        Err(Trouble::stubborn(problem, ALTERED))
    }

    /// Sends one request without following redirects.
    fn ask(&self, address: &Address, headers: &[(&str, String)]) -> Tried<Response<Body>> {
        let proxy = self.settings.proxies.on_the_way_to(address);
        let agent = proxy
            .and_then(|proxy| self.through.iter().find(|(known, _)| known == proxy))
            .map_or(&self.straight, |(_, agent)| agent);
        let mut request = agent.get(address.full());
        if let Some(secret) = self.authorization().filter(|_| self.is_hub(address)) {
            request = request.header("authorization", secret);
        }
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let response = request.call().map_err(|error| {
            let answered_before = self.answered.load(Ordering::Relaxed);
            Unanswered { to: address, proxy, answered_before }.trouble(&error)
        })?;
        self.answered.store(true, Ordering::Relaxed);
        Ok(response)
    }

    /// Classifies a failure while the body of a response was read.
    pub fn broken(&self, error: &ureq::Error) -> Trouble {
        let to = &self.settings.endpoint;
        let proxy = self.settings.proxies.on_the_way_to(to);
        Unanswered { to, proxy, answered_before: true }.trouble(error)
    }

    fn is_hub(&self, address: &Address) -> bool {
        self.settings.endpoint.is_same_origin(address)
    }

    /// A login in HF_ENDPOINT takes precedence: a mirror asks for it before it looks at any token.
    fn authorization(&self) -> Option<String> {
        let login = self.settings.login.as_ref();
        let basic = login.map(|login| format!("Basic {}", BASE64_STANDARD.encode(login.expose())));
        basic.or_else(|| self.settings.token.as_ref().map(|token| format!("Bearer {}", token.expose())))
    }

    /// Classifies an error response.
    fn refusal(&self, place: &Place, address: &Address, response: Response<Body>, page: &str) -> Trouble {
        let (parts, body) = response.into_parts();
        let (status, headers) = (parts.status, parts.headers);
        let reason = self.reason(&headers, body);
        let told = reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
        let code = header(&headers, "x-error-code");
        match status.as_u16() {
            416 => Trouble::Restart(crate::Error::network(
                "the server has fewer bytes of the file than it lists",
            )),
            408 | 425 | 429 | 500..=599 => Trouble::Passing {
                error: crate::Error::network(format!("the server answered {status}{told}")),
                wait: match asked_wait(&headers, SystemTime::now()) {
                    Some(wait) => Wait::Asked(wait),
                    None if status == StatusCode::TOO_MANY_REQUESTS => Wait::Untold,
                    None => Wait::Usual,
                },
            },
            _ if matches!(place, Place::Address(_)) => Trouble::fatal(
                format!("{} answered {status}{told}", address.origin()),
                format!("the file may have moved: download it from {page} and pass it with --weights"),
            ),
            _ if !self.is_hub(address) => Trouble::stubborn(
                format!("{}, where the hub redirects to, answered {status}{told}", address.origin()),
                "such links expire: check for a caching proxy and a wrong clock",
            ),
            401 | 403 if code == Some("GatedRepo") => Trouble::fatal(
                format!("the server answered {status}{told}"),
                match self.settings.token {
                    None => format!(
                        "accept the terms on {page}, then set HF_TOKEN to an access token of that account"
                    ),
                    Some(_) => {
                        format!("accept the terms on {page} with the account of the token in use (HF_TOKEN)")
                    }
                },
            ),
            401 | 403 => Trouble::fatal(
                format!("the server answered {status}{told}"),
                match (&self.settings.login, &self.settings.token) {
                    (Some(_), _) => "the user and password in HF_ENDPOINT have no read access".to_owned(),
                    (None, None) => format!(
                        "set HF_TOKEN to an access token of your account; if the repository is gated, accept its \
                         terms on {page} first"
                    ),
                    (None, Some(_)) => format!(
                        "the token in use (HF_TOKEN, or the one from `hf auth login`) has no read access: grant it read \
                         access and, if the repository is gated, accept its terms on {page}"
                    ),
                },
            ),
            404 => Trouble::fatal(
                format!("the server answered {status}{told}"),
                match code {
                    Some("RevisionNotFound") => {
                        format!("the revision no longer exists: see {page}")
                    }
                    _ => format!(
                        "no such repository, revision or file ({page}); a private repository is only visible to a \
                         token in HF_TOKEN with read access"
                    ),
                },
            ),
            _ => Trouble::Final(crate::Error::network(format!("the server answered {status}{told}"))),
        }
    }

    /// Extracts the server's own explanation: from the hub's header, the hub's JSON, or the storage's XML.
    fn reason(&self, headers: &HeaderMap, body: Body) -> Option<String> {
        let said = header(headers, "x-error-message").map(str::to_owned).or_else(|| {
            let mut bytes = Vec::new();
            // A body that cannot be read has no reason to show.
            body.into_reader().take(LONGEST_REFUSAL).read_to_end(&mut bytes).ok()?;
            let text = String::from_utf8_lossy(&bytes);
            let json = serde_json::from_str::<serde_json::Value>(&text).ok();
            let json = json.and_then(|json| Some(json.get("error")?.as_str()?.to_owned()));
            let xml = || Some(text.split_once("<Message>")?.1.split_once("</Message>")?.0.to_owned());
            json.or_else(xml)
        })?;
        Some(self.settings.cleaned(&said)).filter(|said| !said.is_empty())
    }
}

const ALTERED: &str =
    "something between here and the hub alters responses: check HF_ENDPOINT and HTTPS_PROXY";

/// Detects a captive portal, which responds to every request with its own page.
fn page_instead(address: &Address, response: &Response<Body>) -> Option<Trouble> {
    let kind = header(response.headers(), "content-type")?;
    kind.trim_start().to_ascii_lowercase().starts_with("text/html").then(|| {
        Trouble::stubborn(
            format!("expected data, got a web page from {}", address.origin()),
            "the network may require a login (hotel, campus): open any page in a browser. Otherwise check HF_ENDPOINT \
             and HTTPS_PROXY",
        )
    })
}

pub(crate) fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

fn agent(settings: &Settings, proxy: Option<ureq::Proxy>) -> ureq::Agent {
    let stall = Some(settings.patience.stall);
    let roots = settings.certificates.as_deref().map_or(RootCerts::WebPki, RootCerts::new_with_certs);
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        // Sizes and ranges refer to the file's uncompressed bytes.
        .accept_encoding("identity")
        .user_agent(concat!("terrabench/", env!("CARGO_PKG_VERSION")))
        .proxy(proxy)
        .tls_config(TlsConfig::builder().root_certs(roots).build())
        .timeout_resolve(stall)
        .timeout_connect(stall)
        .timeout_recv_response(stall)
        .timeout_per_read(stall)
        .build()
        .into()
}

impl Settings {
    /// Puts a message of the server on one line and removes secrets that it may repeat.
    fn cleaned(&self, text: &str) -> String {
        let own = self.login.iter().chain(&self.token).map(|secret| secret.expose());
        let passwords = own.clone().filter_map(|login| login.split_once(':')).map(|(_, password)| password);
        let proxies = self.proxies.iter().filter_map(NamedProxy::password);
        cleaned(text, own.chain(passwords).chain(proxies))
    }
}
