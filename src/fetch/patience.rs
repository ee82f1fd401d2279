//! How often and how long to retry a request.

use std::time::Duration;

use crate::{Error, Result};

/// How long to keep trying.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patience {
    /// Number of consecutive failures without progress before giving up; more if much is left to fetch.
    pub tries: u32,
    /// Wait before the second try; doubled before each further one, up to [`LONGEST_PAUSE`].
    pub first_wait: Duration,
    /// Maximum wait that a server may ask for at a time. The hub's rate limit windows last 300 s.
    pub longest_wait: Duration,
    /// A connection that receives nothing for this long is dropped.
    pub stall: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            tries: 6,
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(600),
            stall: Duration::from_secs(60),
        }
    }
}

/// Maximum wait between two tries if the server does not specify one.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Number of tries when trying again hardly helps; with the default waits they take three seconds.
const FEW_TRIES: u32 = 3;
/// One more try per this many bytes left to fetch: a fetch that takes hours can wait out an outage.
const BYTES_PER_TRY: u64 = 500_000_000;
/// Maximum factor by which the tries grow if much is left: 17 minutes of waiting.
const MOST_PATIENCE: u32 = 4;
/// Factor on tries if the server says when to come back: others behind the same address use up its requests.
const ASKED_TO_WAIT: u32 = 4;
/// Factor on waits if a server limits requests without saying for how long: four minutes.
const UNTOLD_WINDOW: u32 = 8;

/// Why a request did not succeed.
#[derive(Debug)]
pub enum Trouble {
    /// May go away: a dropped connection, a busy server.
    Passing {
        /// What happened.
        error: Error,
        /// How long to wait before the next try.
        wait: Wait,
    },
    /// Will hardly go away: an unknown host, a web page instead of a response.
    Stubborn(Error),
    /// The local part cannot be resumed from this response; start over.
    Restart(Error),
    /// Will not go away.
    Final(Error),
}

/// How long to wait before the next try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Longer each time.
    Usual,
    /// As long as the server asks.
    Asked(Duration),
    /// The server limits requests without saying for how long.
    Untold,
}

impl Trouble {
    /// Creates a failure that may go away.
    pub fn passing(problem: impl ToString) -> Self {
        Trouble::Passing { error: Error::network(problem), wait: Wait::Usual }
    }

    /// Creates a failure that will hardly go away, with advice for the user.
    pub fn stubborn(problem: impl ToString, remedy: impl ToString) -> Self {
        Trouble::Stubborn(Error::network(problem).help(remedy))
    }

    /// Creates a failure that will not go away, with advice for the user.
    pub fn fatal(problem: impl ToString, remedy: impl ToString) -> Self {
        Trouble::Final(Error::network(problem).help(remedy))
    }
}

/// Consecutive failures.
#[derive(Debug, Default)]
pub struct Failures {
    count: u32,
    /// Failures for which the server said when to come back.
    asked: u32,
}

impl Failures {
    /// Resets the count after progress.
    pub fn forgive(&mut self) {
        *self = Failures::default();
    }

    /// Counts a failure concerning `subject` and waits before the next try. `left` bytes are still to be
    /// fetched.
    ///
    /// # Errors
    /// If patience has run out or the failure is final.
    pub fn wait(
        &mut self,
        trouble: Trouble,
        subject: &str,
        patience: &Patience,
        left: u64,
        note: &dyn Fn(&str),
    ) -> Result<()> {
        let tries = patience.tries_for(left);
        let (error, wait, tries) = match trouble {
            Trouble::Passing { error, wait } => (error, wait, tries),
            Trouble::Restart(error) => (error, Wait::Usual, tries),
            Trouble::Stubborn(error) => (error, Wait::Usual, patience.tries.min(FEW_TRIES)),
            Trouble::Final(error) => return Err(about(subject, error, "")),
        };
        let (count, most) = match wait {
            Wait::Asked(_) => (&mut self.asked, tries.saturating_mul(ASKED_TO_WAIT)),
            Wait::Usual | Wait::Untold => (&mut self.count, tries),
        };
        *count += 1;
        if *count >= most {
            return Err(again(about(subject, error, &format!(" ({count} tries)"))));
        }
        let doubled = patience.first_wait.saturating_mul(2u32.saturating_pow(*count - 1));
        let pause = match wait {
            Wait::Usual => doubled.min(LONGEST_PAUSE),
            Wait::Untold => doubled.saturating_mul(UNTOLD_WINDOW).min(patience.longest_wait),
            Wait::Asked(pause) => pause.max(patience.first_wait),
        };
        if pause > patience.longest_wait {
            return Err(again(about(subject, error, &format!(" and asks to wait {} s", pause.as_secs()))));
        }
        note(&format!("{}; trying again in {:.0} s", about(subject, bare(error), ""), pause.as_secs_f64()));
        std::thread::sleep(pause);
        Ok(())
    }
}

impl Patience {
    /// Returns after how many consecutive failures to give up if `left` bytes are still to be fetched.
    pub fn tries_for(&self, left: u64) -> u32 {
        let more = u32::try_from(left / BYTES_PER_TRY).unwrap_or(u32::MAX);
        self.tries.saturating_add(more).min(self.tries.saturating_mul(MOST_PATIENCE))
    }

    /// Runs `attempt` until it succeeds, waiting in between; messages name `subject`.
    ///
    /// # Errors
    /// If patience runs out or the failure is final.
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
                Err(trouble) => failures.wait(trouble, subject, self, 0, note)?,
            }
        }
    }
}

/// Adds the subject and the outcome to an error.
fn about(subject: &str, error: Error, outcome: &str) -> Error {
    match error.path() {
        None => error.reworded(|problem| format!("{subject}: {problem}{outcome}")),
        Some(_) => error,
    }
}

/// Removes an error's advice.
fn bare(error: Error) -> Error {
    error.help("")
}

/// Adds to an error's advice that nothing is lost.
fn again(error: Error) -> Error {
    let remedy = error.remedy();
    let what = "run the same command again later to resume";
    let remedy = if remedy.is_empty() { what.to_owned() } else { format!("{remedy}. {}", sentence(what)) };
    error.help(remedy)
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the notes written before each try until it gives up.
    fn waits(wait: Wait, left: u64) -> Vec<String> {
        let patience = Patience { first_wait: Duration::from_micros(1), ..Patience::default() };
        let (mut failures, noted) = (Failures::default(), std::cell::RefCell::new(Vec::new()));
        let note = |line: &str| noted.borrow_mut().push(line.to_owned());
        let trouble = || Trouble::Passing { error: Error::network("busy"), wait };
        while failures.wait(trouble(), "w.bin", &patience, left, &note).is_ok() {}
        noted.into_inner()
    }

    #[test]
    fn patience_grows_with_bytes_left() {
        let patience = Patience::default();
        let tries = [0, 499_999_999, 8_400_000_000, 1 << 50].map(|left| patience.tries_for(left));
        assert_eq!(tries, [6, 6, 22, 24]);
        assert_eq!((waits(Wait::Usual, 0).len(), waits(Wait::Usual, 1_000_000_000).len()), (5, 7));
        // Others use up the requests of the same address, so asking to wait grants more tries.
        assert_eq!(waits(Wait::Asked(Duration::from_micros(1)), 0).len(), 23);
    }

    #[test]
    fn stubborn_failures_are_retried_briefly() {
        let patience = Patience { first_wait: Duration::from_micros(1), ..Patience::default() };
        let mut failures = Failures::default();
        let mut wait = || {
            let trouble = Trouble::stubborn("nobody knows the host", "look at the name");
            failures.wait(trouble, "w.bin", &patience, 1 << 40, &|_| ())
        };
        wait().unwrap();
        wait().unwrap();
        let error = wait().unwrap_err().to_string();
        assert!(
            error.starts_with(
                "w.bin: nobody knows the host (3 tries)\n  help: look at the name. Run the same"
            )
        );
    }
}
