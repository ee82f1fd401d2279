//! Training of networks: epochs, gradients, optimisers, schedules and snapshots.

pub mod epoch;
pub(crate) mod gradients;
pub mod losses;
pub mod optim;
pub mod schedule;
pub(crate) mod search;
pub mod snapshot;
pub mod state;
