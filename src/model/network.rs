//! What every architecture provides: its sizes, and a network built from them.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::Device;

use super::encoder::{Encoder, Pooling};
use super::in_parts::InParts;
use super::sensor_input::SensorInput;
use crate::nn::heads::upernet::MapLevel;
use crate::task::{Metadata, MetadataKind, Sensor};

/// The sizes of an architecture, as given in a model's TOML.
pub trait Sizes {
    /// Describes an inconsistency in the sizes, if there is one.
    fn problem(&self) -> Option<String>;

    /// The poolings that the architecture supports, its default first.
    fn poolings(&self) -> &'static [Pooling];

    /// The feature maps for dense tasks, in the order in which the encoder returns them.
    fn maps(&self) -> Vec<MapLevel>;

    /// Whether [`Sizes::maps`] lists the maps. Otherwise only the opened encoder knows them.
    fn states_maps(&self) -> bool {
        true
    }

    /// Whether it accepts any selection of a sensor's bands, for example because it embeds them by wavelength.
    fn takes_any_bands(&self) -> bool {
        false
    }

    /// Whether it looks at the wavelengths and bandwidths of bands.
    fn reads_wavelengths(&self) -> bool {
        false
    }

    /// Whether it looks at the ground sampling distance of the images, as given for the sensor.
    fn reads_gsd(&self) -> bool {
        false
    }

    /// Whether it gives patch tokens. Networks that give feature maps do.
    fn gives_tokens(&self) -> bool {
        !self.maps().is_empty()
    }

    /// What it uses of what is known about an image besides its pixels. It is given nothing else in
    /// [`super::encoder::Context`].
    fn metadata(&self) -> &[MetadataKind] {
        &[]
    }

    /// Names what the original takes about an image besides the `given` metadata and the images of `sensors`, each with what
    /// stands in for it: `date (July assumed)`, `place (masked)`. Records say so.
    fn stand_ins(&self, _given: Metadata, _sensors: &[Sensor]) -> Vec<String> {
        Vec::new()
    }

    /// Whether it takes an image of each of these sensors at once, one [`super::encoder::Input`] per sensor, and gives one
    /// feature of all.
    fn fuses(&self, _sensors: &[Sensor]) -> bool {
        false
    }

    /// How tokens are pooled in fine-tuning where `pooling` is asked for: see [`Network::for_finetuning`].
    fn finetuned_pooling(&self, pooling: Pooling) -> Pooling {
        pooling
    }

    /// Number of blocks after which features can be taken, each followed by the same final norm; `None` where the parts differ,
    /// as in pyramids.
    fn blocks(&self) -> Option<usize> {
        None
    }

    /// Keeps the first `count` blocks, at least 1, and the feature maps that they give. Does nothing if [`Sizes::blocks`] is
    /// `None`.
    fn keep_blocks(&mut self, _count: usize) {}

    /// The segmentation probe is trained on one of so many tokens along each side of a tile, and on all of them if it is 1:
    /// models with a token per pixel have too many.
    fn probe_thinning(&self) -> usize {
        1
    }
}

/// A network that encodes images. Its parameters are named by their paths through its fields.
pub trait Network: Encoder + Module {
    /// The sizes from which it is built.
    type Config: Sizes;

    /// Builds a network for these sensors, whose weights must still be filled in.
    fn new(config: &Self::Config, sensors: &BTreeMap<Sensor, SensorInput>, device: &Device) -> Self;

    /// Returns the name in the official checkpoint of the parameter called `name` here.
    fn checkpoint_name(name: &str) -> String {
        name.to_owned()
    }

    /// Returns the network as the original fine-tunes it on pooled features, which may differ from how it is used frozen.
    #[must_use]
    fn for_finetuning(self) -> Self
    where
        Self: Sized,
    {
        self
    }

    /// Returns the fastest encoder with the same results, for use once the weights no longer change.
    fn frozen(self) -> Box<dyn Encoder>
    where
        Self: Sized + 'static,
    {
        Box::new(InParts(self))
    }
}
