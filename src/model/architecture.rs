//! The supported architectures.
//!
//! To add one: write a file beside this one with a config struct and a module that implements [`Encoder`] and [`Network`],
//! add one line to the list at the end of this file, and add one TOML per size to `configs/models/`. A model that is not
//! computed by a network of this program implements [`Outside`] instead, and has its line in the second list.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::encoder::{Batch, Encoded, Encoder, Pooling, Want};
pub use super::network::{Network, Sizes};
pub use super::outside::Outside;
use super::parameters;
use super::sensor_input::SensorInput;
use crate::nn::heads::upernet::MapLevel;
use crate::task::{Metadata, MetadataKind, Sensor};
use crate::{Error, Result};

/// Declares the architectures, one per line: name in TOML files, variant, network, config. Those computed outside this
/// program have no network.
macro_rules! architectures {
    (
        networks { $($kind:literal => $variant:ident($network:ty, $config:ty);)* }
        outside { $($outside_kind:literal => $outside_variant:ident($outside_config:ty);)* }
    ) => {
        /// An architecture and its sizes.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "kind")]
        pub enum ArchitectureConfig {
            $(#[doc = concat!("The architecture `", $kind, "`.")] #[serde(rename = $kind)] $variant($config),)*
            $(#[doc = concat!("A model of the kind `", $outside_kind, "`, computed outside this program's networks.")]
            #[serde(rename = $outside_kind)] $outside_variant($outside_config),)*
            /// [`super::image_stats`]: plain pixel statistics, without parameters.
            #[serde(rename = "image-stats")]
            ImageStats,
            /// No model: another program computed the features, which are in files.
            #[serde(rename = "vectors")]
            Vectors,
            /// [`super::rcf`]: random convolutional features, without parameters.
            #[serde(rename = "rcf")]
            Rcf(super::rcf::RcfConfig),
        }

        impl ArchitectureConfig {
            /// Name in TOML files, such as `terrafm`.
            pub fn kind(&self) -> &'static str {
                match self {
                    $(ArchitectureConfig::$variant(_) => $kind,)*
                    $(ArchitectureConfig::$outside_variant(_) => $outside_kind,)*
                    ArchitectureConfig::ImageStats => "image-stats",
                    ArchitectureConfig::Vectors => "vectors",
                    ArchitectureConfig::Rcf(_) => "rcf",
                }
            }

            fn sizes_mut(&mut self) -> Option<&mut dyn Sizes> {
                match self {
                    $(ArchitectureConfig::$variant(config) => Some(config),)*
                    $(ArchitectureConfig::$outside_variant(config) => Some(config),)*
                    ArchitectureConfig::ImageStats | ArchitectureConfig::Rcf(_) | ArchitectureConfig::Vectors => None,
                }
            }

            fn sizes(&self) -> Option<&dyn Sizes> {
                match self {
                    $(ArchitectureConfig::$variant(config) => Some(config),)*
                    $(ArchitectureConfig::$outside_variant(config) => Some(config),)*
                    ArchitectureConfig::ImageStats | ArchitectureConfig::Rcf(_) | ArchitectureConfig::Vectors => None,
                }
            }

            /// Returns the model if it is computed outside this program's networks.
            pub fn outside(&self) -> Option<&dyn Outside> {
                match self {
                    $(ArchitectureConfig::$outside_variant(config) => Some(config),)*
                    _ => None,
                }
            }

            /// Returns the model, to complete it, if it is computed outside this program's networks.
            pub(crate) fn outside_mut(&mut self) -> Option<&mut dyn Outside> {
                match self {
                    $(ArchitectureConfig::$outside_variant(config) => Some(config),)*
                    _ => None,
                }
            }
        }

        /// A network of any architecture, as taken by every protocol that trains.
        #[derive(Module, Debug)]
        #[allow(clippy::large_enum_variant, reason = "there is one per run")]
        pub enum Architecture {
            $(#[doc = concat!("A network of the architecture `", $kind, "`.")] $variant($network),)*
        }

        impl Architecture {
            /// Builds the network described by `config`, whose weights must still be filled in.
            ///
            /// # Errors
            /// If the architecture has no parameters.
            pub fn new(
                config: &ArchitectureConfig,
                sensors: &BTreeMap<Sensor, SensorInput>,
                device: &Device,
            ) -> Result<Self> {
                match config {
                    $(ArchitectureConfig::$variant(config) => {
                        Ok(Architecture::$variant(<$network as Network>::new(config, sensors, device)))
                    })*
                    $(ArchitectureConfig::$outside_variant(_) => Err(no_gradients($outside_kind)),)*
                    ArchitectureConfig::ImageStats | ArchitectureConfig::Rcf(_) => {
                        Err(Error::mismatch(format!("{} has no parameters to train", config.kind()))
                            .help("choose a protocol on frozen features: knn, linear-probe or logistic"))
                    }
                    ArchitectureConfig::Vectors => Err(Error::mismatch("files of features have no model to train")
                        .help("choose a protocol on frozen features: knn, linear-probe or logistic")),
                }
            }

            /// Returns the name in the official checkpoint of the parameter called `name` here.
            pub fn checkpoint_name(&self, name: &str) -> String {
                match self {
                    $(Architecture::$variant(_) => <$network as Network>::checkpoint_name(name),)*
                }
            }

            /// Returns the network as the original fine-tunes it on pooled features: see [`Network::for_finetuning`].
            #[must_use]
            pub fn for_finetuning(self) -> Self {
                match self {
                    $(Architecture::$variant(network) => {
                        Architecture::$variant(Network::for_finetuning(network))
                    })*
                }
            }

            /// Returns the fastest encoder with the same results, for use once the weights no longer change.
            pub fn frozen(self) -> Box<dyn Encoder> {
                match self {
                    $(Architecture::$variant(network) => Network::frozen(network),)*
                }
            }
        }

        impl Encoder for Architecture {
            fn width(&self, pooling: Pooling, bands: usize) -> usize {
                match self {
                    $(Architecture::$variant(network) => network.width(pooling, bands),)*
                }
            }

            fn encode(&self, batch: &Batch, want: Want) -> Result<Encoded> {
                match self {
                    $(Architecture::$variant(network) => network.encode(batch, want),)*
                }
            }
        }
    };
}

impl Architecture {
    /// Lists the name in the official checkpoint and the shape in PyTorch's layout of every parameter.
    pub fn parameters(&self) -> Vec<(String, Vec<usize>)> {
        let list = parameters::list(self).into_iter();
        list.map(|(name, shape)| (self.checkpoint_name(&name), shape)).collect()
    }

    /// Sets every parameter to the numbers that `values` returns for its name in the official checkpoint and its shape.
    ///
    /// # Errors
    /// The first error of `values`, or if it returns a different number of values than the shape has.
    pub fn fill(self, mut values: impl FnMut(&str, &[usize]) -> Result<Vec<f32>>) -> Result<Self> {
        let names: BTreeMap<String, String> = parameters::list(&self)
            .into_iter()
            .map(|(name, _)| {
                let stored = self.checkpoint_name(&name);
                (name, stored)
            })
            .collect();
        parameters::fill(self, |name, shape| values(names.get(name).map_or(name, String::as_str), shape))
    }
}

impl ArchitectureConfig {
    /// Whether the model takes every band in its files, whatever it is called, instead of the bands of one sensor.
    pub fn takes_every_stored_band(&self) -> bool {
        matches!(
            self,
            ArchitectureConfig::ImageStats | ArchitectureConfig::Rcf(_) | ArchitectureConfig::Vectors
        )
    }

    /// Whether the model takes pixels as stored, never normalised.
    pub fn takes_stored_pixels(&self) -> bool {
        matches!(self, ArchitectureConfig::ImageStats | ArchitectureConfig::Vectors)
    }

    /// Whether another program computed the features, so that no model runs and nothing is known of its input.
    pub fn is_vectors(&self) -> bool {
        *self == ArchitectureConfig::Vectors
    }

    /// Whether it has parameters, which are loaded from weights and can be trained.
    pub fn has_parameters(&self) -> bool {
        let without = matches!(
            self,
            ArchitectureConfig::ImageStats | ArchitectureConfig::Rcf(_) | ArchitectureConfig::Vectors
        );
        !without && self.outside().is_none()
    }

    /// Whether it accepts any selection of a sensor's bands.
    pub fn takes_any_bands(&self) -> bool {
        self.sizes().is_some_and(Sizes::takes_any_bands)
    }

    /// Whether it looks at the wavelengths and bandwidths of bands.
    pub fn reads_wavelengths(&self) -> bool {
        self.sizes().is_some_and(Sizes::reads_wavelengths)
    }

    /// Whether it looks at the ground sampling distance of the images, as given for the sensor.
    pub fn reads_gsd(&self) -> bool {
        self.sizes().is_some_and(Sizes::reads_gsd)
    }

    /// Whether it gives patch tokens.
    pub fn gives_tokens(&self) -> bool {
        self.sizes().is_some_and(Sizes::gives_tokens)
    }

    /// What it uses of what is known about an image besides its pixels.
    pub fn metadata(&self) -> &[MetadataKind] {
        self.sizes().map_or(&[], Sizes::metadata)
    }

    /// Names what the original takes about an image and is not given here: see [`Sizes::stand_ins`].
    pub fn stand_ins(&self, given: Metadata, sensors: &[Sensor]) -> Vec<String> {
        self.sizes().map_or(Vec::new(), |sizes| sizes.stand_ins(given, sensors))
    }

    /// Whether it takes an image of each of these sensors at once.
    pub fn fuses(&self, sensors: &[Sensor]) -> bool {
        self.sizes().is_some_and(|sizes| sizes.fuses(sensors))
    }

    /// How tokens are pooled in fine-tuning where `pooling` is asked for: see [`Sizes::finetuned_pooling`].
    pub fn finetuned_pooling(&self, pooling: Pooling) -> Pooling {
        self.sizes().map_or(pooling, |sizes| sizes.finetuned_pooling(pooling))
    }

    /// The segmentation probe is trained on one of so many tokens along each side of a tile: see [`Sizes`].
    pub fn probe_thinning(&self) -> usize {
        self.sizes().map_or(1, Sizes::probe_thinning)
    }

    /// Describes an inconsistency in the sizes, if there is one.
    pub fn problem(&self) -> Option<String> {
        match self {
            ArchitectureConfig::Rcf(config) => config.problem(),
            _ => self.sizes().and_then(Sizes::problem),
        }
    }

    /// The supported poolings, the default first; empty if the model has no tokens.
    pub fn poolings(&self) -> &'static [Pooling] {
        self.sizes().map_or(&[], Sizes::poolings)
    }

    /// Keeps the first `count` blocks: see [`Sizes::keep_blocks`].
    pub(crate) fn keep_blocks(&mut self, count: usize) {
        if let Some(sizes) = self.sizes_mut() {
            sizes.keep_blocks(count);
        }
    }

    /// Number of blocks after which features can be taken: see [`Sizes::blocks`].
    pub fn blocks(&self) -> Option<usize> {
        self.sizes().and_then(Sizes::blocks)
    }

    /// Whether [`ArchitectureConfig::maps`] lists the feature maps. Otherwise only the opened encoder knows them.
    pub fn states_maps(&self) -> bool {
        self.sizes().is_none_or(Sizes::states_maps)
    }

    /// The feature maps for dense tasks, in the order in which the encoder returns them.
    pub fn maps(&self) -> Vec<MapLevel> {
        self.sizes().map_or(Vec::new(), Sizes::maps)
    }
}

/// Creates the error for training a model that is computed outside this program's networks.
fn no_gradients(kind: &str) -> Error {
    Error::mismatch(format!(
        "a model of kind `{kind}` gives features but no gradients, so it cannot be trained"
    ))
    .help("choose a protocol on frozen features: knn, linear-probe, logistic, segmentation-probe or upernet")
}

architectures! {
    networks {
        "anysat" => AnySat(super::anysat::AnySat, super::anysat::AnySatConfig);
        "copernicus-fm" => CopernicusFm(super::copernicus_fm::CopernicusFm, super::copernicus_fm::CopernicusFmConfig);
        "dofa" => Dofa(super::dofa::Dofa, super::dofa::DofaConfig);
        "terrafm" => TerraFm(super::terrafm::TerraFm, super::terrafm::TerraFmConfig);
        "vit" => Vit(super::vit::Vit, super::vit::VitConfig);
        "satmae" => SatMae(super::satmae::SatMae, super::satmae::SatMaeConfig);
        "prithvi2" => Prithvi2(super::prithvi2::Prithvi2, super::prithvi2::Prithvi2Config);
        "croma" => Croma(super::croma::Croma, super::croma::CromaConfig);
        "softcon" => SoftCon(super::softcon::SoftCon, super::softcon::SoftConConfig);
        "decur" => Decur(super::decur::Decur, super::decur::DecurConfig);
        "galileo" => Galileo(super::galileo::Galileo, super::galileo::GalileoConfig);
        "presto" => Presto(super::presto::Presto, super::presto::PrestoConfig);
        "mmearth" => MmEarth(super::mmearth::MmEarth, super::mmearth::MmEarthConfig);
        "satlas" => Satlas(super::satlas::Satlas, super::satlas::SatlasConfig);
    }
    outside {
        "onnx" => Onnx(super::onnx::OnnxConfig);
        "process" => Process(super::process::ProcessConfig);
    }
}
