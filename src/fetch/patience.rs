//! How often and how long a request is tried again.

use std::time::Duration;

use crate::{Error, Result};

/// How long to keep trying.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patience {
    /// Failures in a row, without progress, after which it ends; more where much is left to fetch.
    pub tries: u32,
    /// Before the second try; doubled before each further one, up to [`LONGEST_PAUSE`].
    pub first_wait: Duration,
    /// At most at one time where the server names it. The hub's windows of requests last 300 s.
    pub longest_wait: Duration,
    /// A connection that sends nothing for so long is dropped.
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

/// Between two tries, where the server names no time.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Tries where trying again hardly helps: with the usual waits they take three seconds.
const FEW_TRIES: u32 = 3;
/// One more try for each of these bytes that are left to fetch: who fetches for hours can wait out an outage.
const BYTES_PER_TRY: u64 = 500_000_000;
/// With much left, at most so many times the usual tries: 17 minutes of waiting.
const MOST_PATIENCE: u32 = 4;
/// So many times as many refusals that say when to come back: others behind the same address use up its requests.
const ASKED_TO_WAIT: u32 = 4;
/// So many times the usual waits where a server limits requests and does not say for how long: four minutes.
const UNTOLD_WINDOW: u32 = 8;

/// Why a request did not succeed.
#[derive(Debug)]
pub enum Trouble {
    /// May go away: a dropped connection, a server that is busy.
    Passing { error: Error, wait: Wait },
    /// Will hardly go away: a host that nobody knows, a web page instead of the answer.
    Stubborn(Error),
    /// The part that is here can't be continued from this answer: begin anew.
    Restart(Error),
    /// Will stay.
    Final(Error),
}

/// How long to wait before the next try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Longer each time.
    Usual,
    /// As long as the server asks.
    Asked(Duration),
    /// The server limits requests and does not say for how long.
    Untold,
}

impl Trouble {
    /// A trouble that may go away.
    pub fn passing(problem: impl ToString) -> Self {
        Trouble::Passing { error: Error::network(problem), wait: Wait::Usual }
    }

    /// A trouble that will hardly go away, with what the user can do about it.
    pub fn stubborn(problem: impl ToString, remedy: impl ToString) -> Self {
        Trouble::Stubborn(Error::network(problem).help(remedy))
    }

    /// A trouble that will stay, with what the user can do about it.
    pub fn fatal(problem: impl ToString, remedy: impl ToString) -> Self {
        Trouble::Final(Error::network(problem).help(remedy))
    }
}

/// Failures in a row.
#[derive(Debug, Default)]
pub struct Failures {
    count: u32,
    /// Refusals that said when to come back.
    asked: u32,
}

impl Failures {
    /// Something went forward: earlier failures are forgiven.
    pub fn forgive(&mut self) {
        *self = Failures::default();
    }

    /// Counts a failure about `subject` and waits before the next try. `left` bytes are still to fetch.
    ///
    /// # Errors
    /// Where patience is at its end, or the trouble will stay.
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
    /// Failures in a row after which it ends where `left` bytes are still to fetch.
    pub fn tries_for(&self, left: u64) -> u32 {
        let more = u32::try_from(left / BYTES_PER_TRY).unwrap_or(u32::MAX);
        self.tries.saturating_add(more).min(self.tries.saturating_mul(MOST_PATIENCE))
    }

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
                Err(trouble) => failures.wait(trouble, subject, self, 0, note)?,
            }
        }
    }
}

/// The same error, which now names its subject and says what came of it.
fn about(subject: &str, error: Error, outcome: &str) -> Error {
    match error.path() {
        None => error.reworded(|problem| format!("{subject}: {problem}{outcome}")),
        Some(_) => error,
    }
}

/// The same error without its remedy.
fn bare(error: Error) -> Error {
    error.help("")
}

/// The same error, which also says that nothing is lost.
fn again(error: Error) -> Error {
    let remedy = error.remedy();
    let what = "the same command, run again later, goes on where it stopped";
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

    /// How long it waits before each try until it gives up.
    fn waits(wait: Wait, left: u64) -> Vec<String> {
        let patience = Patience { first_wait: Duration::from_micros(1), ..Patience::default() };
        let (mut failures, noted) = (Failures::default(), std::cell::RefCell::new(Vec::new()));
        let note = |line: &str| noted.borrow_mut().push(line.to_owned());
        let trouble = || Trouble::Passing { error: Error::network("busy"), wait };
        while failures.wait(trouble(), "w.bin", &patience, left, &note).is_ok() {}
        noted.into_inner()
    }

    #[test]
    fn patience_grows_with_what_is_left() {
        let patience = Patience::default();
        let tries = [0, 499_999_999, 8_400_000_000, 1 << 50].map(|left| patience.tries_for(left));
        assert_eq!(tries, [6, 6, 22, 24]);
        assert_eq!((waits(Wait::Usual, 0).len(), waits(Wait::Usual, 1_000_000_000).len()), (5, 7));
        // Others use up the requests of the same address: who is told when to come back comes back more often.
        assert_eq!(waits(Wait::Asked(Duration::from_micros(1)), 0).len(), 23);
    }

    #[test]
    fn stubborn_trouble_is_tried_for_seconds_only() {
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
            error.starts_with("w.bin: nobody knows the host (3 tries)\n  help: look at the name. The same")
        );
    }
}
