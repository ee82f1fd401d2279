//! Web addresses: parsed once, compared by origin, displayed without secrets.

use std::fmt;

/// An `http` or `https` address without user name and fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    secure: bool,
    /// In lower case; an IPv6 address keeps its brackets.
    host: String,
    port: u16,
    /// Starts with `/`, or is empty.
    path: String,
    /// Without the leading `?`.
    query: Option<String>,
}

impl Address {
    /// Parses an address. The second value is the part before an `@`: `user:password`. Returns `None` if the
    /// text is not an `http` or `https` address.
    pub fn parse(text: &str) -> Option<(Self, Option<String>)> {
        let (scheme, rest) = text.trim().split_once("://")?;
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, route) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (login, place) = match authority.rsplit_once('@') {
            Some((login, place)) => (Some(login.to_owned()), place),
            None => (None, authority),
        };
        let digits = place.rsplit_once(':').filter(|(_, port)| !port.contains(']'));
        let (host, port) = match digits {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (place, if secure { 443 } else { 80 }),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._~%".contains(c);
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_host = match bare {
            Some(bare) => bare.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.chars().all(plain),
        };
        let mut address =
            Address { secure, host: host.to_ascii_lowercase(), port, path: String::new(), query: None };
        address.set_route(route);
        is_host.then_some((address, login))
    }

    /// Resolves the `Location` header of a response from this address; `None` if it is not a web address.
    pub fn join(&self, location: &str) -> Option<Self> {
        let location = location.trim();
        if location.contains("://") {
            return Address::parse(location).map(|(address, _)| address);
        }
        if let Some(rest) = location.strip_prefix("//") {
            let scheme = if self.secure { "https" } else { "http" };
            return Address::parse(&format!("{scheme}://{rest}")).map(|(address, _)| address);
        }
        let location = location.split('#').next().unwrap_or_default();
        let mut next = Address { query: None, ..self.clone() };
        if location.starts_with('/') {
            next.set_route(location);
        } else if location.starts_with('?') {
            next.set_route(&format!("{}{location}", self.path));
        } else {
            let folder = self.path.rsplit_once('/').map_or("", |(folder, _)| folder);
            next.set_route(&format!("{folder}/{location}"));
        }
        Some(next)
    }

    /// Appends `route`, which starts with `/`, to this address.
    #[must_use]
    pub fn below(&self, route: &str) -> Self {
        let mut address = self.clone();
        address.set_route(&format!("{}{route}", self.path.trim_end_matches('/')));
        address
    }

    /// Sets path and query, percent-encoding characters that an address must not contain.
    fn set_route(&mut self, route: &str) {
        let mut encoded = String::new();
        for byte in route.bytes() {
            if byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte) {
                encoded.push(char::from(byte));
            } else {
                encoded.push_str(&format!("%{byte:02X}"));
            }
        }
        let (path, query) = match encoded.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (encoded.as_str(), None),
        };
        let mut parts: Vec<&str> = Vec::new();
        for part in path.split('/').skip(1) {
            match part {
                "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        self.path = parts.iter().map(|part| format!("/{part}")).collect();
        self.query = query;
    }

    /// Whether secrets for this address may be sent to `other`: both have the same scheme, host and port.
    pub fn is_same_origin(&self, other: &Address) -> bool {
        (self.secure, &self.host, self.port) == (other.secure, &other.host, other.port)
    }

    /// Whether the scheme is `https`.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// Returns the host; an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// Returns the port, which is 443 or 80 if the address names none.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns path and query of `next` relative to this address if it is below it, else unchanged.
    pub fn route_of(&self, next: &Address) -> String {
        let own = self.path.trim_end_matches('/');
        let path = next.path.strip_prefix(own).filter(|rest| rest.starts_with('/')).unwrap_or(&next.path);
        match &next.query {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        }
    }

    /// Returns scheme, host and port, such as `https://huggingface.co`.
    pub fn origin(&self) -> String {
        let (scheme, usual) = if self.secure { ("https", 443) } else { ("http", 80) };
        let port = if self.port == usual { String::new() } else { format!(":{}", self.port) };
        format!("{scheme}://{}{port}", self.host)
    }

    /// Returns the complete address for a request. Signed links carry secrets in their query, so never display
    /// it.
    pub(crate) fn full(&self) -> String {
        let query = self.query.as_ref().map_or(String::new(), |query| format!("?{query}"));
        let path = if self.path.is_empty() { "/" } else { &self.path };
        format!("{}{path}{query}", self.origin())
    }
}

/// Omits the query, which may contain a signature.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin(), self.path.trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap().0
    }

    #[test]
    fn addresses_are_parsed() {
        for (text, shown) in [
            ("https://huggingface.co", "https://huggingface.co"),
            ("HTTP://Mirror:8080//", "http://mirror:8080"),
            (" http://mirror/a/b?c=d#e ", "http://mirror/a/b"),
            ("http://[::1]:81/a", "http://[::1]:81/a"),
            ("http://mirror:80", "http://mirror"),
        ] {
            assert_eq!(address(text).to_string(), shown, "{text}");
        }
        let (with_login, login) = Address::parse("http://user:p@ss@mirror/a").unwrap();
        assert_eq!(with_login.to_string(), "http://mirror/a");
        assert_eq!(login.as_deref(), Some("user:p@ss"));
        for wrong in
            ["hub", "ftp://hub", "http://", "http://:80", "http://a b", "http://a:x", "http://[1]", ""]
        {
            assert_eq!(Address::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn redirect_locations_are_resolved() {
        let from = address("https://hub/x/y?z");
        for (location, to) in [
            ("http://cdn:81/f?s=%3D", "http://cdn:81/f?s=%3D"),
            ("//cdn/f", "https://cdn/f"),
            ("/f?q", "https://hub/f?q"),
            ("f", "https://hub/x/f"),
            ("../f/./g", "https://hub/f/g"),
            ("?page=2", "https://hub/x/y?page=2"),
            ("/ü f", "https://hub/%C3%BC%20f"),
        ] {
            assert_eq!(from.join(location).unwrap().full(), to);
        }
        assert_eq!(from.join("ftp://hub/f"), None);
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let hub = address("https://hub/a");
        assert!(hub.is_same_origin(&address("https://HUB:443/b")));
        for other in ["http://hub/a", "https://hub:444/a", "https://cdn.hub/a"] {
            assert!(!hub.is_same_origin(&address(other)), "{other}");
        }
    }

    #[test]
    fn routes_below_a_path_do_not_repeat_it() {
        let mirror = address("http://mirror/hf");
        assert_eq!(mirror.below("/api?a").full(), "http://mirror/hf/api?a");
        assert_eq!(mirror.route_of(&address("http://mirror/hf/api?a")), "/api?a");
        assert_eq!(mirror.route_of(&address("https://huggingface.co/api?a")), "/api?a");
        assert_eq!(mirror.route_of(&address("http://mirror/hfx/api")), "/hfx/api");
    }
}
