//! How long work reports how far it is. What is shown, and where, is the command line's business.

/// Receives what is being done.
pub trait Progress {
    /// A step of `total` units begins; it ends when the returned handle is dropped.
    fn begin(&self, what: &str, total: usize) -> Box<dyn Step>;

    /// Something worth a line of its own.
    fn note(&self, line: &str);
}

/// A step under way.
pub trait Step {
    /// This many more units are done.
    fn advance(&self, units: usize);
}

/// Shows nothing.
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
