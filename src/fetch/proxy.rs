//! Decides whether an address is reached through a proxy or directly, as configured in the environment.
//!
//! `NO_PROXY` lists what is reached directly: `*`, host names including all subdomains (`example.com`, also
//! written `.example.com` or `*.example.com`), addresses, and ranges of addresses (`10.0.0.0/8`), each
//! optionally with a port (`example.com:8080`, `[::1]:80`).

use std::fmt;
use std::net::IpAddr;

use super::address::Address;
use super::secret::without_login;
use crate::{Error, Result};

/// The proxies of both schemes, and the hosts reached without one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    http: Option<NamedProxy>,
    https: Option<NamedProxy>,
    exempt: Vec<Exemption>,
}

/// A proxy and the variable that configures it.
#[derive(Clone, PartialEq, Eq)]
pub struct NamedProxy {
    pub(crate) proxy: ureq::Proxy,
    /// Name of the variable, such as `HTTPS_PROXY`.
    pub variable: &'static str,
}

impl NamedProxy {
    fn new(variable: &'static str, url: &str) -> Result<Self> {
        let proxy = ureq::Proxy::new(url.trim()).map_err(|_| {
            let shown = without_login(url);
            Error::request(format!("{variable} is `{shown}`, not a valid proxy address")).help(format!(
                "set {variable} to an address such as http://proxy.example.com:3128, or unset it"
            ))
        })?;
        Ok(NamedProxy { proxy, variable })
    }

    pub(crate) fn password(&self) -> Option<&str> {
        self.proxy.password()
    }
}

/// `http://proxy:3128 (HTTPS_PROXY)`, without user name and password.
impl fmt::Display for NamedProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.proxy.uri().scheme_str().unwrap_or("http");
        write!(f, "{scheme}://{}:{} ({})", self.proxy.host(), self.proxy.port(), self.variable)
    }
}

impl fmt::Debug for NamedProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An entry of `NO_PROXY`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Exemption {
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Hosts {
    All,
    /// This name and all subdomains.
    Name(String),
    /// Addresses that share this many leading bits with this one.
    Range(IpAddr, u32),
}

impl Proxies {
    /// Reads the proxies from the environment; `get` looks up a variable that is set and not empty.
    ///
    /// # Errors
    /// If a variable is not a valid proxy address.
    pub(crate) fn from_environment(get: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let first = |names: &[&'static str]| {
            names
                .iter()
                .find_map(|name| Some((*name, get(name)?)))
                .map(|(name, url)| NamedProxy::new(name, &url))
        };
        let without = get("NO_PROXY").or_else(|| get("no_proxy")).unwrap_or_default();
        let entries = without.split([',', ' ']).map(str::trim).filter(|entry| !entry.is_empty());
        Ok(Proxies {
            http: first(&["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]).transpose()?,
            https: first(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]).transpose()?,
            exempt: entries.map(Exemption::parse).collect(),
        })
    }

    /// Returns the proxy for `address`; `None` if it is reached directly.
    pub fn on_the_way_to(&self, address: &Address) -> Option<&NamedProxy> {
        let proxy = if address.is_secure() { &self.https } else { &self.http };
        proxy.as_ref().filter(|_| !self.exempt.iter().any(|exemption| exemption.holds(address)))
    }

    /// Iterates over all proxies.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &NamedProxy> {
        self.http.iter().chain(&self.https)
    }
}

impl Exemption {
    fn parse(entry: &str) -> Self {
        let entry = entry.split_once("://").map_or(entry, |(_, rest)| rest).trim_end_matches('/');
        if let Some(range) = range(entry) {
            return Exemption { hosts: range, port: None };
        }
        let (host, port) = match entry.rsplit_once(':').map(|(host, port)| (host, port.parse())) {
            Some((host, Ok(port))) => (host, Some(port)),
            _ => (entry, None),
        };
        let hosts = range(host).unwrap_or_else(|| match host {
            "*" => Hosts::All,
            name => {
                let name = name.strip_prefix('*').unwrap_or(name);
                Hosts::Name(name.trim_matches('.').to_ascii_lowercase())
            }
        });
        Exemption { hosts, port }
    }

    fn holds(&self, address: &Address) -> bool {
        let host = address.host().trim_end_matches('.');
        let named = match &self.hosts {
            Hosts::All => true,
            Hosts::Name(name) => {
                host.strip_suffix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            Hosts::Range(network, bits) => {
                host.parse().is_ok_and(|address| first_bits(address, *bits) == first_bits(*network, *bits))
            }
        };
        named && self.port.is_none_or(|port| port == address.port())
    }
}

/// Parses an address or a range of addresses: `10.0.0.0/8`, `10.1.2.3`, `::1`, `[::1]`.
fn range(text: &str) -> Option<Hosts> {
    let text = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let (network, bits) = match text.split_once('/') {
        Some((network, bits)) => (network, Some(bits.parse::<u32>().ok()?)),
        None => (text, None),
    };
    let network: IpAddr = network.parse().ok()?;
    let all = if network.is_ipv4() { 32 } else { 128 };
    Some(Hosts::Range(network, bits.unwrap_or(all).min(all)))
}

/// Returns whether the address is IPv4, and its first `bits`.
fn first_bits(address: IpAddr, bits: u32) -> (bool, u128) {
    match address {
        IpAddr::V4(address) => (true, u128::from(address.to_bits().checked_shr(32 - bits).unwrap_or(0))),
        IpAddr::V6(address) => (false, address.to_bits().checked_shr(128 - bits).unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Result<Proxies> {
        Proxies::from_environment(&|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap().0
    }

    #[test]
    fn the_scheme_selects_the_proxy() {
        let both = proxies(&[("HTTPS_PROXY", "http://secure:1"), ("http_proxy", "http://user:word@plain:2")])
            .unwrap();
        let way = |text| both.on_the_way_to(&address(text)).map(ToString::to_string);
        assert_eq!(way("https://hub").as_deref(), Some("http://secure:1 (HTTPS_PROXY)"));
        assert_eq!(way("http://hub").as_deref(), Some("http://plain:2 (http_proxy)"));
        assert_eq!(both.iter().next().unwrap().password(), Some("word"));
        let all = proxies(&[("ALL_PROXY", "socks5h://all:3")]).unwrap();
        assert_eq!(format!("{all:?}").matches("socks5h://all:3 (ALL_PROXY)").count(), 2);
    }

    #[test]
    fn passwords_of_proxies_are_not_shown() {
        let error = proxies(&[("HTTPS_PROXY", "ftp://user:word@x")]).unwrap_err().to_string();
        assert!(error.contains("HTTPS_PROXY is `ftp://***@x`") && !error.contains("word"), "{error}");
        let shown = format!("{:?}", proxies(&[("HTTP_PROXY", "http://user:word@x")]).unwrap());
        assert!(!shown.contains("word"), "{shown}");
    }

    #[test]
    fn no_proxy_supports_names_addresses_ranges_and_ports() {
        let straight = |entries: &str, text: &str| {
            let variables = [("ALL_PROXY", "http://proxy:1"), ("NO_PROXY", entries)];
            proxies(&variables).unwrap().on_the_way_to(&address(text)).is_none()
        };
        for (entries, text) in [
            ("*", "https://hub"),
            ("localhost, Example.com", "https://example.com"),
            ("example.com", "https://cdn.EXAMPLE.com"),
            (".example.com", "https://cdn.example.com"),
            ("*.example.com", "https://cdn.example.com"),
            ("a b", "http://b"),
            ("hub:8080", "http://hub:8080"),
            ("hub:443", "https://hub"),
            ("10.0.0.0/8", "http://10.9.8.7:81"),
            ("127.0.0.0/8", "http://127.0.0.1:5000"),
            ("10.1.2.3", "http://10.1.2.3"),
            ("10.1.2.3:81", "http://10.1.2.3:81"),
            ("0.0.0.0/0", "http://1.2.3.4"),
            ("fe80::/10", "http://[fe80::1]:80"),
            ("::1", "http://[::1]"),
            ("[::1]:81", "http://[::1]:81"),
        ] {
            assert!(straight(entries, text), "{entries} does not hold {text}");
        }
        for (entries, text) in [
            ("", "https://hub"),
            ("example.com", "https://notexample.com"),
            ("hub:8080", "http://hub"),
            ("10.0.0.0/8", "http://11.0.0.1"),
            ("10.0.0.0/8", "http://10.example.com"),
            ("10.1.2.3:81", "http://10.1.2.3"),
            ("fe80::/10", "http://[2001::1]"),
            ("0.0.0.0/0", "http://[::1]"),
        ] {
            assert!(!straight(entries, text), "{entries} holds {text}");
        }
    }
}
