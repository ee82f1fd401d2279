//! How often and how long a request is tried again.

use std::time::Duration;

use crate::{Error, Result};

/// How long to keep trying.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patience {
    /// Failures in a row, without progress, after which it ends.
    pub tries: u32,
    /// Before the second try; doubled before each further one.
    pub first_wait: Duration,
    /// At most, also where the server names a time.
    pub longest_wait: Duration,
    /// A connection that sends nothing for so long is dropped.
    pub stall: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            tries: 6,
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(300),
            stall: Duration::from_secs(60),
        }
    }
}

/// Why a request did not succeed.
#[derive(Debug)]
pub enum Trouble {
    /// May go away: a dropped connection, a server that is busy.
    Passing {
        what: String,
        /// How long the server asks to wait.
        wait: Option<Duration>,
    },
    /// The range begins at or after the file's end.
    BeyondEnd,
    /// Will stay.
    Final(Error),
}

impl Trouble {
    /// A trouble that may go away.
    pub fn passing(what: impl ToString) -> Self {
        Trouble::Passing { what: what.to_string(), wait: None }
    }

    /// What the client says of a request to `endpoint`.
    pub fn of(error: ureq::Error, endpoint: &str) -> Self {
        use ureq::Error as E;
        match &error {
            E::HostNotFound
            | E::Io(_)
            | E::Timeout(_)
            | E::ConnectionFailed
            | E::Protocol(_)
            | E::ConnectProxyFailed(_) => Trouble::passing(format!("no answer from {endpoint}: {error}")),
            E::Rustls(_) | E::Tls(_) => Trouble::Final(Error::request(format!("{endpoint}: {error}")).help(
                "where a proxy opens encrypted connections, set SSL_CERT_FILE to a PEM file with \
                     its certificate",
            )),
            _ => Trouble::Final(Error::request(format!("{endpoint}: {error}"))),
        }
    }
}

/// Failures in a row.
#[derive(Debug, Default)]
pub struct Failures(u32);

impl Failures {
    /// Something went forward: earlier failures are forgiven.
    pub fn forgive(&mut self) {
        self.0 = 0;
    }

    /// Counts a failure about `subject` and waits before the next try.
    ///
    /// # Errors
    /// Where patience is at its end, or the trouble will stay.
    pub fn wait(
        &mut self,
        trouble: Trouble,
        subject: &str,
        patience: &Patience,
        note: &dyn Fn(&str),
    ) -> Result<()> {
        let (what, asked) = match trouble {
            Trouble::Passing { what, wait } => (what, wait),
            Trouble::BeyondEnd => ("the server has less of the file than it lists".to_owned(), None),
            Trouble::Final(error) => return Err(about(subject, error)),
        };
        self.0 += 1;
        if self.0 >= patience.tries {
            return Err(Error::request(format!("{subject}: {what} ({} tries)", self.0))
                .help("is there a network? HTTPS_PROXY names the way through a proxy, HF_ENDPOINT another hub. The same command, run again later, goes on where it stopped"));
        }
        let doubled = patience.first_wait.saturating_mul(2u32.saturating_pow(self.0 - 1));
        let pause = asked.unwrap_or(doubled.min(patience.longest_wait));
        if pause > patience.longest_wait {
            return Err(Error::request(format!("{subject}: {what} and asks to wait {} s", pause.as_secs()))
                .help("run the same command again then: it goes on where it stopped"));
        }
        note(&format!("{subject}: {what}; trying again in {:.0} s", pause.as_secs_f64()));
        std::thread::sleep(pause);
        Ok(())
    }
}

impl Patience {
    /// Runs `attempt` about `subject` until it succeeds, waiting in between.
    ///
    /// # Errors
    /// Where patience is at its end, or the trouble will stay.
    pub fn retry<T>(
        &self,
        subject: &str,
        note: &dyn Fn(&str),
        mut attempt: impl FnMut() -> std::result::Result<T, Trouble>,
    ) -> Result<T> {
        let mut failures = Failures::default();
        loop {
            match attempt() {
                Ok(done) => return Ok(done),
                Err(trouble) => failures.wait(trouble, subject, self, note)?,
            }
        }
    }
}

/// The same error, which now names its subject.
fn about(subject: &str, error: Error) -> Error {
    match error {
        Error::Request { problem, remedy } => {
            Error::Request { problem: format!("{subject}: {problem}"), remedy }
        }
        other => other,
    }
}
