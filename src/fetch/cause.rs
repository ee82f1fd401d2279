//! What kept a request from its answer, by cause: what to do differs, and so does how long to try.

use std::io::ErrorKind;

use rustls::CertificateError;

use super::address::Address;
use super::clock::date;
use super::patience::Trouble;
use super::proxy::NamedProxy;

/// A request that got no answer.
pub(crate) struct Unanswered<'a> {
    pub to: &'a Address,
    pub proxy: Option<&'a NamedProxy>,
    /// Whether the hub has answered this process before: what is amiss now may pass.
    pub answered_before: bool,
}

impl Unanswered<'_> {
    /// Why, from what the client says.
    pub fn trouble(&self, error: &ureq::Error) -> Trouble {
        use ureq::Error as E;
        let origin = self.to.origin();
        if let Some(tls) = tls(error) {
            return self.encryption(tls);
        }
        match error {
            E::HostNotFound => self.unknown_host(),
            E::Io(io) if is_lookup(io) => {
                // Without a network the resolver says so; where it knows that there is no such name, it stays so.
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
            _ => Trouble::fatal(format!("{origin}: {error}"), "HF_ENDPOINT names the hub; is it an address?"),
        }
    }

    fn unknown_host(&self) -> Trouble {
        match self.proxy {
            Some(proxy) => Trouble::stubborn(
                format!("the name of the proxy {proxy} is not known here (DNS)"),
                format!("is there a network? {} names the proxy: correct or unset it", proxy.variable),
            ),
            None => Trouble::stubborn(
                format!("the name `{}` is not known here (DNS)", self.to.host()),
                "is there a network? HTTPS_PROXY names the way through a proxy, HF_ENDPOINT another hub",
            ),
        }
    }

    /// Nothing listens there.
    fn unreached(&self, error: &std::io::Error) -> Trouble {
        match self.proxy {
            Some(proxy) => Trouble::stubborn(
                format!("no answer from the proxy {proxy}: {error}"),
                format!(
                    "correct or unset {}; NO_PROXY lists hosts that need no proxy: {}",
                    proxy.variable,
                    self.to.host()
                ),
            ),
            None => Trouble::stubborn(
                format!("no answer from {}: {error}", self.to.origin()),
                "is there a network? HTTPS_PROXY names the way through a proxy, HF_ENDPOINT another hub",
            ),
        }
    }

    fn passing(&self, error: &dyn std::fmt::Display) -> Trouble {
        let by = self.proxy.map_or(String::new(), |proxy| format!(" by the proxy {proxy}"));
        Trouble::passing(format!("no answer from {}{by}: {error}", self.to.origin()))
    }

    fn refused_by_proxy(&self, what: &str) -> Trouble {
        let Some(proxy) = self.proxy else { return self.passing(&what) };
        let variable = proxy.variable;
        let problem = format!("the proxy {proxy} does not lead to {}: {what}", self.to.origin());
        if what.contains("407") {
            let remedy = format!("it asks for a login: set {variable} to http://USER:PASSWORD@host:port");
            return Trouble::fatal(problem, remedy);
        }
        let remedy = format!(
            "ask who runs it to allow {}, or reach it without: add it to NO_PROXY or unset {variable}",
            self.to.host()
        );
        Trouble::stubborn(problem, remedy)
    }

    fn encryption(&self, error: &rustls::Error) -> Trouble {
        use CertificateError as C;
        let origin = self.to.origin();
        let set_clock = "is the clock right (`date -u`)? If it is, the fault is the server's, or that of a proxy that \
                         opens connections";
        let rustls::Error::InvalidCertificate(certificate) = error else {
            return Trouble::stubborn(
                format!("{origin} speaks no encryption that is understood: {error}"),
                "is it an http:// address? HF_ENDPOINT names the hub, HTTPS_PROXY the proxy",
            );
        };
        match certificate {
            C::NotValidYetContext { time, not_before } => Trouble::fatal(
                format!(
                    "the certificate of {origin} is not valid before {}, and by this machine's clock it is {}",
                    date(not_before.as_secs()),
                    date(time.as_secs())
                ),
                set_clock,
            ),
            C::ExpiredContext { time, not_after } => Trouble::fatal(
                format!(
                    "the certificate of {origin} expired on {}, and by this machine's clock it is {}",
                    date(not_after.as_secs()),
                    date(time.as_secs())
                ),
                set_clock,
            ),
            C::NotValidYet | C::Expired => {
                Trouble::fatal(format!("the certificate of {origin} is not valid now: {error}"), set_clock)
            }
            C::NotValidForNameContext { presented, .. } => Trouble::fatal(
                format!(
                    "the certificate of {origin} is for other hosts ({})",
                    presented.iter().map(|name| bare(name)).collect::<Vec<_>>().join(", ")
                ),
                "a network that asks to log in answers so, and so does a server under another name: see HF_ENDPOINT \
                 and HTTPS_PROXY",
            ),
            C::NotValidForName => Trouble::fatal(
                format!("the certificate of {origin} is for another host"),
                "a network that asks to log in answers so, and so does a server under another name: see HF_ENDPOINT \
                 and HTTPS_PROXY",
            ),
            _ => Trouble::fatal(
                format!("the certificate of {origin} is not trusted: {certificate}"),
                "where a proxy opens encrypted connections, set SSL_CERT_FILE to a PEM file with its certificate",
            ),
        }
    }
}

/// The error of encryption behind what the client says, which passes it on as one of input.
fn tls(error: &ureq::Error) -> Option<&rustls::Error> {
    match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(io) => {
            io.get_ref()?.downcast_ref().or_else(|| io.get_ref()?.source()?.downcast_ref())
        }
        _ => None,
    }
}

/// The host of `DnsName("host")`.
fn bare(name: &str) -> &str {
    name.split('"').nth(1).unwrap_or(name)
}

/// Whether a name was looked up in vain: std has no kind for it.
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
    fn what_may_pass_is_tried_longer_once_the_hub_has_answered() {
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
    fn certificates_are_refused_at_once_with_their_remedy() {
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
        assert!(said.contains("before 2026-01-01") && said.contains("clock it is 1970-01-01"), "{said}");
        let late = CertificateError::ExpiredContext { time: at(1_767_225_600), not_after: at(5) };
        assert!(
            refused(late).contains("expired on 1970-01-01, and by this machine's clock it is 2026-01-01")
        );
        assert!(refused(CertificateError::NotValidForName).contains("for another host"));
    }
}
