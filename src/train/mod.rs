//! Training a network: epochs, gradients, optimisers, schedules, snapshots.

pub mod epoch;
pub mod gradients;
pub mod optim;
pub mod schedule;
pub mod snapshot;
pub mod state;
