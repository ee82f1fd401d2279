//! Collects the input of [`crate::audit`]'s checks from what a cell read and computed anyway.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use crate::Result;
use crate::audit::features::{self as of_features, FeatureSummary};
use crate::audit::{self, CellData, Finding};
use crate::data::{Dataset, Split};
use crate::features::maps::MapSource;
use crate::features::source::{FeatureSource, FeatureView};
use crate::features::tiles::Tokens;
use crate::features::vectors;
use crate::features::{Features, ImageInput, Input, Preparation};
use crate::protocol::Protocol;
use crate::record::{Note, Record, Store};
use crate::task::Task;
use crate::transform::augment::Dihedral;
use crate::transform::normalize::BandStatistics;

/// Summaries of a cell's features, by normalisation strategy and split.
#[derive(Debug, Default)]
pub(crate) struct FeatureLog(BTreeMap<(usize, Split), FeatureSummary>);

impl FeatureLog {
    /// Summarises features, once per strategy and split.
    pub(crate) fn note(&mut self, strategy: usize, split: Split, features: &Features) {
        let summary = || FeatureSummary::of(features.matrix.view());
        self.0.entry((strategy, split)).or_insert_with(summary);
    }

    /// Returns findings about the features of the `chosen` strategy, and about `strategies` that had no effect.
    fn findings(&self, chosen: usize, strategies: &[Preparation]) -> Vec<Finding> {
        let of_chosen = self.0.iter().filter(|((strategy, _), _)| *strategy == chosen);
        let splits = of_chosen.map(|((_, split), summary)| (*split, summary.clone())).collect();
        let mut findings = of_features::check(&splits);
        // Two names of the same numbers, such as statistics that equal the data set's, rightly give the same features.
        let is_new = |place: usize| {
            let preprocess = strategies.get(place).map(|strategy| &strategy.preprocess);
            strategies.iter().take(place).all(|earlier| Some(&earlier.preprocess) != preprocess)
        };
        let of_train = self.0.iter().filter(|((place, split), _)| *split == Split::Train && is_new(*place));
        let digests: Vec<_> = of_train
            .filter_map(|((place, _), summary)| Some((strategies.get(*place)?.name.as_str(), summary.digest)))
            .collect();
        // Constant features are equal for every strategy, and were found above.
        if findings.is_empty() {
            findings.extend(of_features::without_effect(&digests));
        }
        findings
    }

    /// Returns the digest of the test features of the `chosen` strategy.
    fn digest(&self, chosen: usize) -> Option<String> {
        self.0.get(&(chosen, Split::Test)).map(|summary| summary.digest.to_hex().to_string())
    }
}

/// A source that summarises its features as it returns them.
pub(crate) struct LoggedSource<'a> {
    pub source: Box<dyn FeatureSource + 'a>,
    pub log: &'a mut FeatureLog,
}

impl FeatureSource for LoggedSource<'_> {
    fn strategies(&self) -> Vec<String> {
        self.source.strategies()
    }

    fn pooled(&mut self, view: FeatureView) -> Result<Features> {
        let features = self.source.pooled(view)?;
        if view.turn == Dihedral::Identity {
            self.log.note(view.strategy, view.split, &features);
        }
        Ok(features)
    }

    fn tokens(&mut self, strategy: usize, split: Split, tile: usize, limit: Option<usize>) -> Result<Tokens> {
        self.source.tokens(strategy, split, tile, limit)
    }

    fn maps(&mut self, strategy: usize) -> Result<MapSource<'_>> {
        self.source.maps(strategy)
    }
}

/// A finished cell, ready to be checked.
pub(crate) struct Audited<'a> {
    pub task: &'a Task,
    pub protocol: &'a dyn Protocol,
    pub input: &'a Input,
    pub demo: bool,
    /// `as-named` or `by-content`; `None` if it is unknown what the model received.
    pub band_names: Option<&'a str>,
    /// Summaries of the frozen features; empty if the encoder was trained.
    pub features: &'a FeatureLog,
}

impl Audited<'_> {
    /// Runs the checks and adds the digest of the features and the findings to the record.
    pub(crate) fn fill(&self, record: &mut Record, earlier: &Earlier, store: &Store) {
        let strategies = self.input.strategy_names();
        let chosen = record.selected.get("normalization");
        let chosen = chosen.and_then(|name| strategies.iter().position(|known| known == name)).unwrap_or(0);
        record.provenance.features = self.features.digest(chosen);
        let mut findings = self.of_data(record, chosen);
        findings.extend(self.features.findings(chosen, &self.input.strategies));
        findings.extend(earlier.without_effect(record, store));
        record.notes.extend(
            findings
                .into_iter()
                .map(|f| Note::new(f.check.to_string(), format!("{}; {}", f.found, f.remedy))),
        );
    }

    fn of_data(&self, record: &Record, chosen: usize) -> Vec<Finding> {
        let Input { dataset, strategies, seen, .. } = self.input;
        let stored = self.input.channel_names();
        let source = record.selected.get("normalization").unwrap_or(&record.provenance.normalization);
        let in_use = strategies.get(chosen).and_then(|strategy| {
            Some((source.as_str(), strategy.preprocess.normalization.statistics(stored.len())?))
        });
        let own = own_statistics(dataset.as_ref(), &self.input.stored_bands());
        let of_look = self
            .task
            .quick_look
            .as_ref()
            .and_then(|look| own_statistics(dataset.as_ref(), std::slice::from_ref(&look.bands)));
        // Nobody knows how pixels became features that another program computed.
        let (own, of_look, channels) = match self.band_names {
            Some(_) => (own, of_look, self.native_channels(&stored)),
            None => (None, None, Vec::new()),
        };
        let observed = seen.all();
        audit::examine(&CellData {
            task: self.task,
            partition: &record.cell.partition,
            demo: self.demo,
            band_names: self.band_names.unwrap_or(vectors::UNKNOWN),
            samples: Split::ALL.into_iter().map(|split| (split, dataset.samples(split))).collect(),
            observed: &observed,
            channels: &channels,
            in_use,
            own,
            quick_look_means: of_look.map(|look| look.iter().map(|band| band.mean).collect()),
            k: self.protocol.neighbours(),
        })
    }

    /// Returns the channels that receive their own band, neither zeros nor a substitute, with the names of the stored bands.
    /// `names` covers all channels.
    fn native_channels<'n>(&self, names: &'n [String]) -> Vec<(usize, &'n str)> {
        let of_image = |image: &ImageInput| {
            let is_native = |channel: usize| {
                let band = image.bands.get(channel);
                band.is_none_or(|band| image.selection.imputed.iter().all(|pair| pair.target != *band))
            };
            (0..image.channels()).map(is_native).collect::<Vec<bool>>()
        };
        let native: Vec<bool> = self.input.images.iter().flat_map(of_image).collect();
        let named = names.iter().enumerate().zip(native).filter(|(_, native)| *native);
        named.map(|((channel, name), _)| (channel, name.as_str())).collect()
    }
}

/// Returns a data set's own statistics of these bands per image; `None` if the files do not contain them, because computing
/// them would read every image.
fn own_statistics(dataset: &dyn Dataset, bands: &[Vec<String>]) -> Option<Vec<BandStatistics>> {
    dataset.statistics_content().ok().flatten()?;
    let of_image = |(image, bands): (usize, &Vec<String>)| dataset.statistics(image, bands).ok();
    Some(bands.iter().enumerate().map(of_image).collect::<Option<Vec<_>>>()?.concat())
}

/// The records that existed before the run, for comparison of their features. Read once, when first needed.
#[derive(Debug, Default)]
pub(crate) struct Earlier(OnceCell<Vec<Record>>);

impl Earlier {
    /// Finds an earlier record with the same test features as `record`, although settings differ that should change them.
    fn without_effect(&self, record: &Record, store: &Store) -> Option<Finding> {
        let digest = record.provenance.features.as_ref()?;
        // Writing the tables reports unreadable records.
        let all = self.0.get_or_init(|| store.usable().map(|usable| usable.records).unwrap_or_default());
        let same_test = |other: &&Record| {
            let (a, b) = (&record.cell, &other.cell);
            // Features from files have unknown settings; they may well be those that this program computed.
            !record.provenance.is_vectors()
                && !other.provenance.is_vectors()
                && (&a.suite, &a.task, &a.model, &a.backbone) == (&b.suite, &b.task, &b.model, &b.backbone)
                && record.demo == other.demo
                && other.provenance.features.as_ref() == Some(digest)
        };
        all.iter().filter(same_test).find_map(|other| {
            of_features::without_effect_beside(&other.file_name(), &differing(record, other))
        })
    }
}

/// Returns the settings that should change features and differ between two records.
fn differing(one: &Record, other: &Record) -> Vec<String> {
    let normalization = |record: &Record| {
        record.selected.get("normalization").unwrap_or(&record.provenance.normalization).clone()
    };
    let (a, b) = (&one.provenance, &other.provenance);
    let pairs = [
        ("sensor", a.sensors() != b.sensors()),
        ("normalisation", normalization(one) != normalization(other)),
        // By name or by content, the same stored bands give the same features.
        ("bands", a.bands != b.bands),
        ("imputation", a.imputed != b.imputed),
        ("input size", a.image_size != b.image_size),
    ];
    pairs.into_iter().filter(|(_, differ)| *differ).map(|(name, _)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;
    use crate::transform::Preprocess;
    use crate::transform::normalize::Normalization;

    #[test]
    fn only_different_normalisations_with_equal_features_have_no_effect() {
        let strategy = |name: &str, side: usize| Preparation {
            name: name.to_owned(),
            preprocess: Preprocess {
                normalization: Normalization::Identity,
                height: side,
                width: side,
                align_corners: false,
                zeroed: Vec::new(),
            },
        };
        let matrix = Array2::from_shape_fn((40, 8), |(i, j)| ((i * 31 + j * 17) % 101) as f32 / 101.0 - 0.3);
        let samples = (0..40).map(|i| i.to_string()).collect();
        let features = Features { samples, matrix, labels: Vec::new() };
        let mut log = FeatureLog::default();
        (0..3).for_each(|place| log.note(place, Split::Train, &features));
        let found = log.findings(0, &[strategy("a", 8), strategy("b", 8), strategy("c", 9)]);
        let texts: Vec<&str> = found.iter().map(|finding| finding.found.as_str()).collect();
        assert_eq!(texts, ["normalisations give identical features: a = c"]);
        assert!(log.findings(0, &[strategy("a", 8), strategy("b", 8), strategy("c", 8)]).is_empty());
    }
}
