//! Training of networks: epochs, gradients, optimisers, schedules and snapshots.

pub mod epoch;
pub mod gradients;
pub mod optim;
pub mod schedule;
pub mod search;
pub mod snapshot;
pub mod state;
