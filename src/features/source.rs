//! The interface through which protocols on frozen features obtain them.
//!
//! A protocol sees a [`FeatureSource`] and no encoders, devices or files. [`EncoderSource`] runs an encoder
//! over a task's samples; [`super::vectors::VectorSource`] reads what another program computed.

use std::collections::HashMap;

use burn::tensor::Device;

use super::feed::DeviceFeed;
use super::maps::{MapSource, MapStore};
use super::tiles::{Tokens, thinned_tile_tokens};
use super::{BatchSize, Extractor, FeatureBank, Features, Identity, Input, Replica, sweep};
use crate::audit::observed::PixelSummary;
use crate::data::Target;
use crate::model::Encoder;
use crate::progress::Progress;
use crate::score::subset::subset;
use crate::task::Split;
use crate::transform::augment::Dihedral;
use crate::{Error, Result};

/// Selects features: the split, the normalisation strategy, and the transform of the images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeatureView {
    /// Index into [`FeatureSource::strategies`].
    pub strategy: usize,
    /// The split.
    pub split: Split,
    /// The flip or rotation applied to each image.
    pub turn: Dihedral,
}

impl FeatureView {
    /// Selects the images of `split` without flips or rotations.
    pub fn upright(strategy: usize, split: Split) -> Self {
        FeatureView { strategy, split, turn: Dihedral::Identity }
    }
}

/// Provides the features of one task's samples.
///
/// ```
/// use ndarray::Array2;
/// use terrabench::data::Target;
/// use terrabench::features::Features;
/// use terrabench::features::source::{FeatureSource, FeatureView};
/// use terrabench::features::tiles::Tokens;
/// use terrabench::task::Split;
///
/// /// Two vectors per split, one per class.
/// struct Known;
///
/// impl FeatureSource for Known {
///     fn strategies(&self) -> Vec<String> {
///         vec!["none".into()]
///     }
///
///     fn pooled(&mut self, _: FeatureView) -> terrabench::Result<Features> {
///         Ok(Features {
///             samples: vec!["a".into(), "b".into()],
///             matrix: Array2::eye(2),
///             labels: vec![Target::Class(0), Target::Class(1)],
///         })
///     }
/// }
///
/// let features = Known.pooled(FeatureView::upright(0, Split::Train))?;
/// assert_eq!(features.matrix.dim(), (2, 2));
/// assert!(Known.tokens(0, Split::Train, 32, None).is_err());
/// # Ok::<(), terrabench::Error>(())
/// ```
pub trait FeatureSource {
    /// Returns the names of the available normalisation strategies, at least one, in the order in which they are tried.
    fn strategies(&self) -> Vec<String>;

    /// Returns one vector per sample of a split, in the partition's order.
    ///
    /// # Errors
    /// If a sample cannot be read or encoded, or a feature is not finite.
    fn pooled(&mut self, view: FeatureView) -> Result<Features>;

    /// Returns the patch tokens of a split's tiles of `tile` x `tile` pixels, of at most `limit` images.
    ///
    /// # Errors
    /// If the source has no tokens, a sample cannot be read or cut, or a token is not finite.
    fn tokens(
        &mut self,
        _strategy: usize,
        _split: Split,
        _tile: usize,
        _limit: Option<usize>,
    ) -> Result<Tokens> {
        Err(Error::mismatch("this source provides one vector per image but no patch tokens"))
    }

    /// Returns a source of feature maps, which computes those of each image on request.
    ///
    /// # Errors
    /// If the source has no maps.
    fn maps(&mut self, _strategy: usize) -> Result<MapSource<'_>> {
        Err(Error::mismatch("this source provides one vector per image but no feature maps"))
    }
}

/// The features of a task that were computed so far.
#[derive(Default)]
pub struct KnownFeatures {
    /// Pooled features.
    pub bank: FeatureBank,
    /// Feature maps of the most recent partition and strategy.
    maps: Option<(String, usize, MapStore)>,
    /// Labels and summaries of samples that were read for their labels alone, by the samples' contents.
    pub(super) labels: HashMap<blake3::Hash, (Target, PixelSummary)>,
}

impl KnownFeatures {
    /// Starts with the features in `bank` and no feature maps.
    pub fn new(bank: FeatureBank) -> Self {
        KnownFeatures { bank, ..Self::default() }
    }

    /// Returns the store of that partition and strategy. Drops any other store, so that the limit applies to the total.
    fn map_store(&mut self, partition: &str, strategy: usize, limit: u64) -> MapStore {
        match &self.maps {
            Some((of, at, store)) if of == partition && *at == strategy => store.clone(),
            _ => {
                let store = MapStore::new(limit);
                self.maps = Some((partition.to_owned(), strategy, store.clone()));
                store
            }
        }
    }
}

/// Computes features with an encoder on a device.
pub struct EncoderSource<'a> {
    /// The frozen encoder.
    pub encoder: &'a dyn Encoder,
    /// The encoder's part of the cache key.
    pub identity: Identity<'a>,
    /// The task's samples.
    pub input: &'a Input,
    /// The input's partition, which names its samples.
    pub partition: &'a str,
    /// The encoder's device, without autodiff.
    pub device: &'a Device,
    /// The same encoder on further devices, which share the extraction of pooled vectors.
    pub further: &'a [Replica],
    /// Images per batch.
    pub batch_size: BatchSize,
    /// Number of threads that read and preprocess.
    pub readers: usize,
    /// Bytes of memory for feature maps; the rest spills to disk.
    pub map_limit: u64,
    /// The features computed so far.
    pub known: &'a mut KnownFeatures,
    /// Receives progress and notes.
    pub progress: &'a dyn Progress,
}

impl<'a> EncoderSource<'a> {
    fn extractor(&self, strategy: usize, turn: Dihedral) -> Result<Extractor<'a>> {
        let strategies = &self.input.strategies;
        let prepared = strategies.get(strategy).ok_or_else(|| {
            Error::mismatch(format!("no strategy {strategy}; the input has {}", strategies.len()))
        })?;
        Ok(Extractor {
            encoder: self.encoder,
            device: self.device,
            further: self.further,
            input: self.input,
            strategy: prepared,
            turn,
            batch_size: self.batch_size.clone(),
            readers: self.readers,
        })
    }
}

impl FeatureSource for EncoderSource<'_> {
    fn strategies(&self) -> Vec<String> {
        self.input.strategies.iter().map(|strategy| strategy.name.clone()).collect()
    }

    fn pooled(&mut self, FeatureView { strategy, split, turn }: FeatureView) -> Result<Features> {
        let extractor = self.extractor(strategy, turn)?;
        // Every strategy is tried on train and validation; test is encoded with the chosen one.
        if self.input.strategies.len() > 1 && split != Split::Test {
            let all = (0..self.input.strategies.len()).map(|strategy| self.extractor(strategy, turn));
            let all = all.collect::<Result<Vec<_>>>()?;
            if sweep::can_share(&all) {
                self.known.bank.extract_for_all(all, self.identity, split, self.progress)?;
            }
        }
        self.known.bank.features(&extractor, self.identity, split, self.progress)
    }

    fn tokens(&mut self, strategy: usize, split: Split, tile: usize, limit: Option<usize>) -> Result<Tokens> {
        let images = subset(self.input.dataset.samples(split).len(), limit);
        let step = self.progress.begin(&split.to_string(), images.len());
        // Only training can do with fewer tokens.
        let thinning = match split {
            Split::Train => self.identity.model.architecture.probe_thinning(),
            Split::Valid | Split::Test => 1,
        };
        let extractor = self.extractor(strategy, Dihedral::Identity)?;
        thinned_tile_tokens(&extractor, split, &images, tile, thinning, step.as_ref())
    }

    fn maps(&mut self, strategy: usize) -> Result<MapSource<'_>> {
        let store = self.known.map_store(self.partition, strategy, self.map_limit);
        let device = self.device.clone();
        let extractor = self.extractor(strategy, Dihedral::Identity)?;
        let preprocess = &extractor.strategy.preprocess;
        let feed = match self.encoder.remote() {
            None => DeviceFeed::for_device(self.input, preprocess, self.device),
            // It takes its images from the program's memory.
            Some(_) => None,
        };
        let maps = MapSource::keeping(Box::new(self.encoder), self.input.spec(), device, store);
        Ok(maps.prepared_by(feed))
    }
}
