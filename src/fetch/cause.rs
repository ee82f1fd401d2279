//! Classifies failed requests by cause, which determines the advice to the user and how long to keep trying.

use std::io::ErrorKind;

use rustls::CertificateError;

use super::address::Address;
use super::clock::date;
use super::patience::Trouble;
use super::proxy::NamedProxy;

/// A request that got no response.
pub(crate) struct Unanswered<'a> {
    pub to: &'a Address,
    pub proxy: Option<&'a NamedProxy>,
    /// Whether the hub has responded to this process before; if so, the failure may be temporary.
    pub answered_before: bool,
}

impl Unanswered<'_> {
    /// Classifies the client's error.
    pub fn trouble(&self, error: &ureq::Error) -> Trouble {
        use ureq::Error as E;
        let origin = self.to.origin();
        if let Some(tls) = tls(error) {
            return self.encryption(tls);
        }
        match error {
            E::HostNotFound => self.unknown_host(),
            E::Io(io) if is_lookup(io) => {
                // Without a network the resolver reports a temporary failure; if it knows that the name does
                // not exist, trying again is pointless.
                if io.to_string().contains("emporary") && self.answered_before {
                    self.passing(io)
                } else {
                    self.unknown_host()
                }
            }
            E::Io(io) => match io.kind() {
                ErrorKind::ConnectionRefused
                | ErrorKind::NetworkUnreachable
                | ErrorKind::HostUnreachable
                | ErrorKind::AddrNotAvailable
                    if !self.answered_before =>
                {
                    self.unreached(io)
                }
                _ => self.passing(io),
            },
            E::Timeout(_) | E::ConnectionFailed | E::Protocol(_) => self.passing(error),
            E::ConnectProxyFailed(what) => self.refused_by_proxy(what),
            _ => Trouble::fatal(format!("{origin}: {error}"), "check that HF_ENDPOINT is a valid address"),
        }
    }

    fn unknown_host(&self) -> Trouble {
        match self.proxy {
            Some(proxy) => Trouble::stubborn(
                format!("cannot resolve the name of the proxy {proxy} (DNS)"),
                format!("check the network connection, and correct or unset {}", proxy.variable),
            ),
            None => Trouble::stubborn(
                format!("cannot resolve the name `{}` (DNS)", self.to.host()),
                "check the network connection; if it needs a proxy, set HTTPS_PROXY; to use another hub, set HF_ENDPOINT",
            ),
        }
    }

    /// Nothing listens at the address.
    fn unreached(&self, error: &std::io::Error) -> Trouble {
        match self.proxy {
            Some(proxy) => Trouble::stubborn(
                format!("no answer from the proxy {proxy}: {error}"),
                format!("correct or unset {}, or add {} to NO_PROXY", proxy.variable, self.to.host()),
            ),
            None => Trouble::stubborn(
                format!("no answer from {}: {error}", self.to.origin()),
                "check the network connection; if it needs a proxy, set HTTPS_PROXY; to use another hub, set HF_ENDPOINT",
            ),
        }
    }

    fn passing(&self, error: &dyn std::fmt::Display) -> Trouble {
        let by = self.proxy.map_or(String::new(), |proxy| format!(" through the proxy {proxy}"));
        Trouble::passing(format!("no answer from {}{by}: {error}", self.to.origin()))
    }

    fn refused_by_proxy(&self, what: &str) -> Trouble {
        let Some(proxy) = self.proxy else { return self.passing(&what) };
        let variable = proxy.variable;
        let problem = format!("the proxy {proxy} cannot connect to {}: {what}", self.to.origin());
        if what.contains("407") {
            let remedy =
                format!("the proxy requires a login: set {variable} to http://USER:PASSWORD@host:port");
            return Trouble::fatal(problem, remedy);
        }
        let remedy = format!(
            "ask its operator to allow {}, or bypass the proxy by adding that host to NO_PROXY or unsetting {variable}",
            self.to.host()
        );
        Trouble::stubborn(problem, remedy)
    }

    fn encryption(&self, error: &rustls::Error) -> Trouble {
        use CertificateError as C;
        let origin = self.to.origin();
        let set_clock = "check this machine's clock (`date -u`); if it is right, the server is at fault, or a proxy that \
                         intercepts connections";
        let rustls::Error::InvalidCertificate(certificate) = error else {
            return Trouble::stubborn(
                format!("the TLS handshake with {origin} failed: {error}"),
                "check that HF_ENDPOINT and HTTPS_PROXY do not use https:// for a server that only supports http://",
            );
        };
        match certificate {
            C::NotValidYetContext { time, not_before } => Trouble::fatal(
                format!(
                    "the certificate of {origin} is not valid before {}, but this machine's clock says {}",
                    date(not_before.as_secs()),
                    date(time.as_secs())
                ),
                set_clock,
            ),
            C::ExpiredContext { time, not_after } => Trouble::fatal(
                format!(
                    "the certificate of {origin} expired on {}, but this machine's clock says {}",
                    date(not_after.as_secs()),
                    date(time.as_secs())
                ),
                set_clock,
            ),
            C::NotValidYet | C::Expired => Trouble::fatal(
                format!("the certificate of {origin} is not currently valid: {error}"),
                set_clock,
            ),
            C::NotValidForNameContext { presented, .. } => Trouble::fatal(
                format!(
                    "the certificate of {origin} is for other hosts ({})",
                    presented.iter().map(|name| bare(name)).collect::<Vec<_>>().join(", ")
                ),
                "the network may require a login, or the server may be addressed by the wrong name: check HF_ENDPOINT \
                 and HTTPS_PROXY",
            ),
            C::NotValidForName => Trouble::fatal(
                format!("the certificate of {origin} is for another host"),
                "the network may require a login, or the server may be addressed by the wrong name: check HF_ENDPOINT \
                 and HTTPS_PROXY",
            ),
            _ => Trouble::fatal(
                format!("the certificate of {origin} is not trusted: {certificate}"),
                "if a proxy intercepts encrypted connections, set SSL_CERT_FILE to a PEM file with its certificate",
            ),
        }
    }
}

/// Extracts the TLS error, which the client may wrap into an I/O error.
fn tls(error: &ureq::Error) -> Option<&rustls::Error> {
    match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(io) => {
            io.get_ref()?.downcast_ref().or_else(|| io.get_ref()?.source()?.downcast_ref())
        }
        _ => None,
    }
}

/// Extracts the host from `DnsName("host")`.
fn bare(name: &str) -> &str {
    name.split('"').nth(1).unwrap_or(name)
}

/// Whether a name lookup failed; std has no error kind for it.
fn is_lookup(error: &std::io::Error) -> bool {
    error.to_string().starts_with("failed to lookup address information")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    fn trouble(error: ureq::Error, answered_before: bool) -> Trouble {
        let (to, _) = Address::parse("https://hub.example").unwrap();
        Unanswered { to: &to, proxy: None, answered_before }.trouble(&error)
    }

    #[test]
    fn temporary_failures_are_retried_longer_once_the_hub_has_answered() {
        let refused = || ureq::Error::Io(io::ErrorKind::ConnectionRefused.into());
        assert!(matches!(trouble(refused(), false), Trouble::Stubborn(_)));
        assert!(matches!(trouble(refused(), true), Trouble::Passing { .. }));
        let lookup = |why: &str| {
            ureq::Error::Io(io::Error::other(format!("failed to lookup address information: {why}")))
        };
        let temporary = "Temporary failure in name resolution";
        assert!(matches!(trouble(lookup(temporary), false), Trouble::Stubborn(_)));
        assert!(matches!(trouble(lookup(temporary), true), Trouble::Passing { .. }));
        assert!(matches!(trouble(lookup("Name or service not known"), true), Trouble::Stubborn(_)));
    }

    #[test]
    fn certificate_errors_are_final_and_advise() {
        use rustls::pki_types::UnixTime;
        let refused = |why| {
            let why = rustls::Error::InvalidCertificate(why);
            match trouble(ureq::Error::Io(io::Error::new(io::ErrorKind::InvalidData, why)), false) {
                Trouble::Final(error) => error.to_string(),
                other => panic!("{other:?}"),
            }
        };
        let at = |seconds| UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        let said = refused(CertificateError::UnknownIssuer);
        assert!(said.contains("not trusted") && said.contains("set SSL_CERT_FILE"), "{said}");
        let early = CertificateError::NotValidYetContext { time: at(5), not_before: at(1_767_225_600) };
        let said = refused(early);
        assert!(said.contains("before 2026-01-01") && said.contains("clock says 1970-01-01"), "{said}");
        let late = CertificateError::ExpiredContext { time: at(1_767_225_600), not_after: at(5) };
        assert!(refused(late).contains("expired on 1970-01-01, but this machine's clock says 2026-01-01"));
        assert!(refused(CertificateError::NotValidForName).contains("for another host"));
    }
}
