//! What all searches over learning rates share: a network with its optimiser, written to snapshots while it is trained,
//! and taken up again after the program was stopped.

use std::path::Path;

use burn::module::Module;
use burn::tensor::Device;

use super::optim::{Optimizer, Rule};
use super::snapshot::{self, Snapshot, SnapshotPace, Standing};
use super::state::{self, State};
use crate::config::TrainingConfig;
use crate::metrics::Better;
use crate::progress::Progress;
use crate::score::decision::first_best;
use crate::{Error, Result};

/// A network in training.
pub struct Trainee<M> {
    /// On a device with autodiff.
    pub network: M,
    /// Its optimiser, with what it remembers of earlier steps.
    pub optimizer: Optimizer,
}

/// A search that [`SnapshotKeeper::resume`] took up again.
pub struct Resumed<M> {
    /// How far it is.
    pub standing: Standing,
    /// What was kept of the best so far beside its score.
    pub best: State,
    /// The network and the optimiser after the last epoch of `standing`.
    pub trainee: Trainee<M>,
}

/// Writes the snapshots of one search and reads them.
pub struct SnapshotKeeper<'a> {
    path: &'a Path,
    rule: Rule,
    /// Of the parameters, without autodiff.
    device: Device,
    progress: &'a dyn Progress,
    pace: SnapshotPace,
}

impl<'a> SnapshotKeeper<'a> {
    /// Keeps snapshots of a search by `config` in the file at `path`; networks are on `device`.
    pub fn new(path: &'a Path, config: &TrainingConfig, device: &Device, progress: &'a dyn Progress) -> Self {
        let (rule, _) = Rule::of(config.optimizer);
        SnapshotKeeper { path, rule, device: device.clone().inner(), progress, pace: SnapshotPace::default() }
    }

    /// A network at the start of a training.
    pub fn begin<M>(&self, network: M) -> Trainee<M> {
        Trainee { network, optimizer: Optimizer::new(self.rule) }
    }

    /// Takes up the search where its snapshot left off; none if there is no snapshot. One that is damaged, or that `check`
    /// refuses, counts as none and is reported. `start` gives a network whose numbers are replaced.
    pub fn resume<M: Module>(
        &self,
        start: impl FnOnce() -> Result<M>,
        check: impl FnOnce(&Standing, &M) -> Result<()>,
    ) -> Option<Resumed<M>> {
        let restore = |snapshot: Snapshot| {
            let Snapshot { standing, best, network, optimizer } = snapshot;
            let start = start()?;
            check(&standing, &start)?;
            let network = state::load(start, &network)?;
            let optimizer = Optimizer::resume(self.rule, &optimizer, &self.device)?;
            Ok(Resumed { standing, best, trainee: Trainee { network, optimizer } })
        };
        match Snapshot::load(self.path).and_then(|snapshot| snapshot.map(restore).transpose()) {
            Ok(resumed) => resumed,
            Err(error) => {
                let (path, problem) = (self.path.display(), error.problem());
                self.progress
                    .note(&format!("ignoring the snapshot {path}: {problem}; starting from epoch 0"));
                None
            }
        }
    }

    /// Writes a snapshot if one is due or `must` be. Returns whether it did.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn keep<M: Module>(
        &mut self,
        standing: &Standing,
        best: &State,
        trainee: &Trainee<M>,
        must: bool,
    ) -> Result<bool> {
        let is_due = must || self.pace.is_due();
        if is_due {
            let Trainee { network, optimizer } = trainee;
            let path = self.path;
            self.pace.write(|| snapshot::save(path, standing, best, network, optimizer))?;
        }
        Ok(is_due)
    }
}

/// The place of the best score, the first of equal ones, and the score; none where a training diverged.
pub fn best_of(better: Better, scores: &[Option<f64>]) -> Option<(usize, f64)> {
    let place = first_best(better, scores.iter().map(|score| score.unwrap_or(f64::NAN)))?;
    Some((place, scores[place]?))
}

/// Whether the finished epochs of a learning rate, in order, end with `patience` of them that were not better than an earlier one.
pub fn is_stopped(better: Better, scores: &[Option<f64>], patience: Option<usize>) -> bool {
    let done = scores.iter().take_while(|score| score.is_some()).count();
    let best = best_of(better, &scores[..done]);
    patience.zip(best).is_some_and(|(patience, (best, _))| done - 1 - best >= patience)
}

/// The error of a snapshot whose standing does not fit the search.
pub fn foreign() -> Error {
    Error::mismatch("it belongs to a different run")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_training_stops_after_epochs_without_a_better_one() {
        let stops = |scores: &[f64], patience| {
            let scores: Vec<Option<f64>> = scores.iter().copied().map(Some).collect();
            is_stopped(Better::Lower, &scores, patience)
        };
        assert!(!stops(&[3.0, 2.0, 2.5], Some(2)));
        assert!(stops(&[3.0, 2.0, 2.5, 2.0], Some(2)), "an equal one is not better");
        assert!(!stops(&[3.0, 2.0, 2.5, 1.9], Some(2)));
        assert!(!stops(&[3.0, 4.0, 5.0, 6.0], None));
        assert!(!stops(&[], Some(1)));
        // One that diverged did not stop; what is left of a stopped one is empty.
        assert!(!is_stopped(Better::Lower, &[Some(3.0), None, None], Some(2)));
        assert!(is_stopped(Better::Lower, &[Some(3.0), Some(4.0), Some(4.0), None], Some(2)));
    }
}
