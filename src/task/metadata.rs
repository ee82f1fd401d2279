//! What is known about an image besides its pixels: where and when it was taken, and how large a pixel is on the ground.
//! Some models use it.

use serde::{Deserialize, Serialize};

use super::{DatasetLayout, Task};

/// Metadata that may be known about an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MetadataKind {
    /// Longitude and latitude.
    Place,
    /// Days since 1970-01-01.
    Date,
    /// Ground area of a patch, from the pixel size before any resizing.
    Area,
}

impl std::fmt::Display for MetadataKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            MetadataKind::Place => "place",
            MetadataKind::Date => "date",
            MetadataKind::Area => "area",
        })
    }
}

impl MetadataKind {
    /// All kinds.
    pub const ALL: [MetadataKind; 3] = [MetadataKind::Place, MetadataKind::Date, MetadataKind::Area];
}

/// The metadata that a model is given with each image of a task: what the task's files say and the model uses.
///
/// ```
/// use terrabench::home::Home;
/// use terrabench::task::{Metadata, MetadataKind, Suite};
///
/// let suite = Suite::load(&Home::find()?, "copernicus-bench")?;
/// let given = Metadata::of(suite.task("eurosat-s2")?, &MetadataKind::ALL);
/// assert_eq!(given.to_string(), "place, area");
/// # Ok::<(), terrabench::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Metadata {
    /// Whether longitude and latitude are given.
    pub place: bool,
    /// Whether the date is given.
    pub date: bool,
    /// Ground sampling distance of the stored pixels in metres, if the area is given.
    pub gsd_m: Option<f32>,
}

impl Metadata {
    /// Of what the files of `task` say, the kinds that the model uses.
    pub fn of(task: &Task, used: &[MetadataKind]) -> Self {
        let known = task.known_metadata();
        let has = |kind| known.contains(&kind) && used.contains(&kind);
        Metadata {
            place: has(MetadataKind::Place),
            date: has(MetadataKind::Date),
            gsd_m: task.gsd_m.filter(|_| has(MetadataKind::Area)),
        }
    }

    /// Whether this kind is given.
    pub fn has(self, kind: MetadataKind) -> bool {
        match kind {
            MetadataKind::Place => self.place,
            MetadataKind::Date => self.date,
            MetadataKind::Area => self.gsd_m.is_some(),
        }
    }

    /// Lists the kinds that are given.
    pub fn kinds(self) -> Vec<MetadataKind> {
        MetadataKind::ALL.into_iter().filter(|kind| self.has(*kind)).collect()
    }

    /// Whether nothing is given.
    pub fn is_empty(&self) -> bool {
        self.kinds().is_empty()
    }
}

impl std::fmt::Display for Metadata {
    /// Formats as `place, area`, or `none`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kinds: Vec<String> = self.kinds().iter().map(MetadataKind::to_string).collect();
        f.write_str(&if kinds.is_empty() { "none".to_owned() } else { kinds.join(", ") })
    }
}

impl Task {
    /// Lists what the task's files say about each image, as the reference implementation reads them
    /// [zhu-xlab/Copernicus-FM, Copernicus-Bench/src/datasets]: places by georeference, dates by file name.
    pub fn known_metadata(&self) -> Vec<MetadataKind> {
        use MetadataKind::{Area, Date, Place};
        let mut known = match self.layout {
            Some(
                DatasetLayout::Cloud
                | DatasetLayout::CloudS3
                | DatasetLayout::BigearthnetS1
                | DatasetLayout::BigearthnetS2
                | DatasetLayout::Flood
                | DatasetLayout::Lc100Cls
                | DatasetLayout::Lc100Seg
                | DatasetLayout::BiomassS3
                | DatasetLayout::AirQuality,
            ) => vec![Place, Date],
            Some(DatasetLayout::Eurosat | DatasetLayout::EurosatSpatial) => vec![Place],
            Some(DatasetLayout::Dfc2020S1 | DatasetLayout::Dfc2020S2 | DatasetLayout::Lcz) | None => vec![],
        };
        known.extend(self.gsd_m.map(|_| Area));
        known
    }
}
