//! The supported architectures.
//!
//! To add one: write a file beside this one with a config struct and a module that implements [`Encoder`] and [`Network`],
//! add one line to the list at the end of this file, and add one TOML per size to `configs/models/`.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::encoder::{Batch, Encoded, Encoder, Pooling, Want};
pub use super::network::{Network, Sizes};
use super::parameters;
use super::sensor_input::SensorInput;
use crate::nn::heads::upernet::MapLevel;
use crate::task::Sensor;
use crate::{Error, Result};

/// Declares the architectures, one per line: name in TOML files, variant, network, config.
macro_rules! architectures {
    ($($kind:literal => $variant:ident($network:ty, $config:ty);)*) => {
        /// An architecture and its sizes.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "kind")]
        pub enum ArchitectureConfig {
            $(#[doc = concat!("The architecture `", $kind, "`.")] #[serde(rename = $kind)] $variant($config),)*
            /// [`super::image_stats`]: plain pixel statistics, without parameters.
            #[serde(rename = "image-stats")]
            ImageStats,
            /// [`super::rcf`]: random convolutional features, without parameters.
            #[serde(rename = "rcf")]
            Rcf(super::rcf::RcfConfig),
        }

        impl ArchitectureConfig {
            /// Name in TOML files, such as `terrafm`.
            pub fn kind(&self) -> &'static str {
                match self {
                    $(ArchitectureConfig::$variant(_) => $kind,)*
                    ArchitectureConfig::ImageStats => "image-stats",
                    ArchitectureConfig::Rcf(_) => "rcf",
                }
            }

            fn sizes(&self) -> Option<&dyn Sizes> {
                match self {
                    $(ArchitectureConfig::$variant(config) => Some(config),)*
                    ArchitectureConfig::ImageStats | ArchitectureConfig::Rcf(_) => None,
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
                    ArchitectureConfig::ImageStats | ArchitectureConfig::Rcf(_) => {
                        Err(Error::mismatch(format!("{} has no parameters to train", config.kind()))
                            .help("choose a protocol on frozen features: knn, linear-probe or logistic"))
                    }
                }
            }

            /// Returns the name in the official checkpoint of the parameter called `name` here.
            pub fn checkpoint_name(&self, name: &str) -> String {
                match self {
                    $(Architecture::$variant(_) => <$network as Network>::checkpoint_name(name),)*
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
        !self.has_parameters()
    }

    /// Whether the model takes pixels as stored, never normalised.
    pub fn takes_stored_pixels(&self) -> bool {
        *self == ArchitectureConfig::ImageStats
    }

    /// Whether it has parameters, which are loaded from weights and can be trained.
    pub fn has_parameters(&self) -> bool {
        !matches!(self, ArchitectureConfig::ImageStats | ArchitectureConfig::Rcf(_))
    }

    /// Whether it accepts any selection of a sensor's bands.
    pub fn takes_any_bands(&self) -> bool {
        self.sizes().is_some_and(Sizes::takes_any_bands)
    }

    /// Whether it looks at the wavelengths and bandwidths of bands.
    pub fn reads_wavelengths(&self) -> bool {
        self.sizes().is_some_and(Sizes::reads_wavelengths)
    }

    /// Whether it takes an image of each of these sensors at once.
    pub fn fuses(&self, sensors: &[Sensor]) -> bool {
        self.sizes().is_some_and(|sizes| sizes.fuses(sensors))
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

    /// The feature maps for dense tasks, in the order in which the encoder returns them.
    pub fn maps(&self) -> Vec<MapLevel> {
        self.sizes().map_or(Vec::new(), Sizes::maps)
    }
}

architectures! {
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
