//! A second model whose features stand beside the first one's, image by image.

use ndarray::{Axis, concatenate};

use super::{Origin, Runner};
use crate::features::source::{FeatureSource, FeatureView, KnownFeatures};
use crate::features::{Agreed, Features};
use crate::progress::Progress;
use crate::protocol::Needs;
use crate::record::{Beside, Cell, Deciding};
use crate::run::plan::PlannedCell;
use crate::task::Task;
use crate::{Error, Result};

/// The second model of a cell.
pub(super) struct Other<'a> {
    pub(super) runner: &'a Runner<'a>,
    pub(super) agreed: &'a Agreed,
    pub(super) known: &'a mut KnownFeatures,
}

impl Other<'_> {
    /// Returns the fingerprint of the same cell of the second model alone.
    pub(super) fn fingerprint(&self, task: &Task, planned: &PlannedCell) -> Result<String> {
        let input = &self.agreed.input;
        let decoding = input.dataset.decoding().hash();
        let protocol = planned.protocol.deciding(&task.name);
        let data = input.fingerprint(planned.protocol.splits())?;
        let (bands, imputed) = (input.channel_names(), input.imputed());
        let deciding = Deciding {
            weights: &self.agreed.weights,
            data: &data,
            normalization: &input.normalization,
            bands: &bands,
            imputed: &imputed,
            strategies: &input.strategies,
            image_size: input.image_size(),
            ..self.runner.asked(task, &planned.cell, &protocol, &decoding)
        };
        deciding.fingerprint()
    }

    /// Describes the second model for records.
    pub(super) fn described(&self) -> Beside {
        let model = self.runner.setting.model;
        Beside { model: format!("{} {}", model.name, model.backbone), weights: self.agreed.weights.clone() }
    }

    /// Joins each feature of `first` with the second model's of the same image.
    ///
    /// # Errors
    /// If the protocol needs more than one vector per image, or a model's normalisation is to be chosen on validation.
    pub(super) fn joined<'s>(
        &'s mut self,
        first: Box<dyn FeatureSource + 's>,
        cell: &'s Cell,
        needs: Needs,
        progress: &'s dyn Progress,
    ) -> Result<Box<dyn FeatureSource + 's>> {
        if needs != Needs::Pooled {
            let problem =
                format!("protocol `{}` needs more than one vector per image of two models", cell.protocol);
            return Err(Error::request(problem).help("choose knn, linear-probe or logistic"));
        }
        self.agreed.input.only()?;
        if first.strategies().len() != 1 {
            return Err(Error::request("two models side by side need one normalisation each, found a sweep")
                .help("choose one with --normalization, such as dataset"));
        }
        let origin = Origin { weights_id: &self.agreed.weights, vectors: None };
        let second = self.runner.source(&self.agreed.input, cell, origin, self.known, progress)?;
        Ok(Box::new(Joined { first, second }))
    }
}

struct Joined<'a> {
    first: Box<dyn FeatureSource + 'a>,
    second: Box<dyn FeatureSource + 'a>,
}

impl FeatureSource for Joined<'_> {
    fn strategies(&self) -> Vec<String> {
        self.first.strategies()
    }

    fn pooled(&mut self, view: FeatureView) -> Result<Features> {
        let first = self.first.pooled(view)?;
        let second = self.second.pooled(FeatureView { strategy: 0, ..view })?;
        if first.samples != second.samples {
            return Err(Error::mismatch(format!(
                "{}: two models have features of different samples",
                view.split
            )));
        }
        let matrix = concatenate![Axis(1), first.matrix, second.matrix];
        Ok(Features { matrix, ..first })
    }
}
