//! How long operations report their progress. The command line decides what is shown, and where.

/// Receives progress reports.
pub trait Progress {
    /// Starts a step of `total` units; it ends when the returned handle is dropped.
    fn begin(&self, what: &str, total: usize) -> Box<dyn Step>;

    /// Reports a message that deserves its own line.
    fn note(&self, line: &str);
}

/// A step in progress.
pub trait Step {
    /// Reports that `units` more units are done.
    fn advance(&self, units: usize);
}

/// Ignores all progress.
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _: &str, _: usize) -> Box<dyn Step> {
        Box::new(Silent)
    }

    fn note(&self, _: &str) {}
}

impl Step for Silent {
    fn advance(&self, _: usize) {}
}
