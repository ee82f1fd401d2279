//! The groups of bands from which Presto and Galileo make tokens.

use burn::tensor::Tensor;

use super::sensor_input::SensorInput;
use crate::task::bands::Band;

/// A group of bands that becomes one token. Its discriminant is the row of its encoding in both models' tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
pub(crate) enum Group {
    S1 = 0,
    Rgb = 1,
    RedEdge = 2,
    Nir10m = 3,
    Nir20m = 4,
    Swir = 5,
}

impl Group {
    pub(crate) const ALL: [Group; 6] =
        [Group::S1, Group::Rgb, Group::RedEdge, Group::Nir10m, Group::Nir20m, Group::Swir];

    pub(crate) fn bands(self) -> &'static [Band] {
        match self {
            Group::S1 => &[Band::VV, Band::VH],
            Group::Rgb => &[Band::B02, Band::B03, Band::B04],
            Group::RedEdge => &[Band::B05, Band::B06, Band::B07],
            Group::Nir10m => &[Band::B08],
            Group::Nir20m => &[Band::B8A],
            Group::Swir => &[Band::B11, Band::B12],
        }
    }
}

/// A group and the channels of a sensor's images that feed it.
#[derive(Debug, Clone)]
pub(crate) struct GroupChannels {
    pub(crate) group: Group,
    channels: Vec<usize>,
}

impl GroupChannels {
    /// Returns the groups whose bands are all in `input`. Upstream masks the others.
    pub(crate) fn of(input: &SensorInput) -> Vec<GroupChannels> {
        let channel = |band: &Band| input.bands.iter().position(|known| known == band);
        let group = |group: Group| {
            let channels = group.bands().iter().map(channel).collect::<Option<Vec<usize>>>()?;
            Some(GroupChannels { group, channels })
        };
        Group::ALL.into_iter().filter_map(group).collect()
    }

    /// Selects the group's bands: [n, bands, …] to [n, its bands, …].
    pub(crate) fn pick<const D: usize>(&self, images: &Tensor<D>) -> Tensor<D> {
        let channel = |channel: &usize| images.clone().slice_dim(1, *channel..channel + 1);
        Tensor::cat(self.channels.iter().map(channel).collect(), 1)
    }
}
