//! Stopping on request, and what a worker's panic becomes.
//!
//! [`listen`] takes over Ctrl-C and SIGTERM. The first of them only sets a flag: long loops call [`check`] between two steps, so
//! that the current write is finished and everything before it stays. The second ends the program at once, after it has removed
//! unfinished temporary files and ended child processes (see [`at_exit`]).
//!
//! ```
//! use terrabench::stop;
//!
//! for image in 0..3 {
//!     stop::check()?; // an error of kind `Stopped` once somebody pressed Ctrl-C
//!     println!("image {image}");
//! }
//! # Ok::<(), terrabench::Error>(())
//! ```

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{Error, Result};

/// A request to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopRequest {
    /// Ctrl-C (SIGINT).
    Interrupt,
    /// SIGTERM, which job schedulers and `kill` send.
    Terminate,
}

impl StopRequest {
    /// The exit code that shells give to a program that the signal ended: 130 or 143.
    pub fn exit_code(self) -> u8 {
        match self {
            StopRequest::Interrupt => 130,
            StopRequest::Terminate => 143,
        }
    }
}

impl fmt::Display for StopRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StopRequest::Interrupt => "Ctrl-C",
            StopRequest::Terminate => "SIGTERM",
        })
    }
}

/// 0, or the exit code of the first request.
static ASKED: AtomicU8 = AtomicU8::new(0);

/// The first request to stop, if there was one.
pub fn asked() -> Option<StopRequest> {
    match ASKED.load(Ordering::Relaxed) {
        0 => None,
        130 => Some(StopRequest::Interrupt),
        _ => Some(StopRequest::Terminate),
    }
}

/// Long loops call this between two steps.
///
/// # Errors
/// Of kind [`crate::ErrorKind::Stopped`] once a request to stop came.
pub fn check() -> Result<()> {
    match asked() {
        None => Ok(()),
        Some(request) => Err(Error::stopped(format!("stopped by {request}"))),
    }
}

/// What a signal led to, for [`listen`] to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// The program stops after its current step.
    Stopping(StopRequest),
    /// The program stops now.
    AtOnce(StopRequest),
    /// The terminal was closed; the program goes on.
    HungUp,
}

/// Takes over SIGINT, SIGTERM and SIGHUP of this process. A closed terminal (SIGHUP) stops nothing. `is_asking` says whether the
/// command calls [`check`]; if not, the first signal already ends it. `tell` is called before anything happens. Elsewhere than on
/// Unix, signals keep their usual effect.
///
/// # Errors
/// If the system refuses.
#[cfg(unix)]
pub fn listen(is_asking: bool, tell: fn(Heard)) -> io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            let request = match signal {
                SIGINT => StopRequest::Interrupt,
                SIGTERM => StopRequest::Terminate,
                _ => {
                    tell(Heard::HungUp);
                    continue;
                }
            };
            let is_first =
                ASKED.compare_exchange(0, request.exit_code(), Ordering::Relaxed, Ordering::Relaxed).is_ok();
            if is_first && is_asking {
                tell(Heard::Stopping(request));
                continue;
            }
            tell(Heard::AtOnce(request));
            clean_up();
            // Without destructors: other threads still use what these would destroy.
            signal_hook::low_level::exit(i32::from(request.exit_code()));
        }
    })?;
    Ok(())
}

/// Does nothing on this system.
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub fn listen(_: bool, _: fn(Heard)) -> io::Result<()> {
    Ok(())
}

type Work = Box<dyn FnOnce() + Send>;

/// What remains to be done if the program ends at once.
static AT_EXIT: Mutex<BTreeMap<u64, Work>> = Mutex::new(BTreeMap::new());

fn at_exit_list() -> MutexGuard<'static, BTreeMap<u64, Work>> {
    AT_EXIT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Withdraws what [`at_exit`] registered when it is dropped.
#[derive(Debug)]
#[must_use = "dropping it withdraws the work"]
pub struct AtExit(u64);

impl Drop for AtExit {
    fn drop(&mut self) {
        // The work may own what is registered here too, so it is dropped without the lock.
        let work = at_exit_list().remove(&self.0);
        drop(work);
    }
}

/// Registers what to do if a second signal ends the program: remove an unfinished file, end a child process. It must be quick.
pub fn at_exit(work: impl FnOnce() + Send + 'static) -> AtExit {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    at_exit_list().insert(number, Box::new(work));
    AtExit(number)
}

#[cfg(unix)]
fn clean_up() {
    let all = std::mem::take(&mut *at_exit_list());
    for work in all.into_values() {
        // One that fails must not keep the others from their work.
        let _ = catch_unwind(AssertUnwindSafe(work));
    }
}

thread_local! {
    /// The sample that this thread works on.
    static SAMPLE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Notes the sample that this thread works on, which a panic then names: `m-eurosat test Forest_12`.
pub fn note_sample(name: impl fmt::Display) {
    use fmt::Write;
    SAMPLE.with_borrow_mut(|sample| {
        sample.clear();
        let _ = write!(sample, "{name}");
    });
}

/// Runs a worker's `work` on one item. A panic becomes an error of kind [`crate::ErrorKind::Defect`] that names the sample which
/// [`note_sample`] noted on this thread, or else the item's number.
///
/// # Errors
/// Those of `work`, or its panic.
pub fn guarded<T>(item: usize, work: impl FnOnce() -> Result<T>) -> Result<T> {
    SAMPLE.with_borrow_mut(String::clear);
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        let sample = SAMPLE.with_borrow(Clone::clone);
        let place = if sample.is_empty() { format!("item {item}") } else { sample };
        Err(Error::defect(format!("{place}: a worker of this program failed: {text}")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn a_panic_names_the_sample_or_else_the_item() {
        let error = guarded::<()>(7, || panic!("index {} out of range", 9)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Defect);
        assert_eq!(error.problem(), "item 7: a worker of this program failed: index 9 out of range");
        let named = || {
            note_sample(format_args!("m-eurosat test {}", "Forest_12"));
            panic!("odd")
        };
        let error = guarded::<()>(7, named).unwrap_err();
        assert!(error.problem().starts_with("m-eurosat test Forest_12: "), "{error}");
        // The name does not outlive its item.
        let error = guarded::<()>(8, || panic!("odd")).unwrap_err();
        assert!(error.problem().starts_with("item 8: "), "{error}");
    }
}
