//! The lines of JSON that this program and an encoder process exchange.

use serde::{Deserialize, Serialize};

use crate::model::encoder::Want;
use crate::model::remote::{AnnouncedImage, Announcement};
use crate::task::Sensors;

/// Version of the protocol that is spoken here.
pub(super) const VERSION: u64 = 1;

/// A line to the encoder.
#[derive(Debug, Serialize)]
#[serde(tag = "message", rename_all = "kebab-case")]
pub(super) enum Request<'a> {
    /// What comes.
    Task {
        terrabench: u64,
        suite: &'a str,
        task: &'a str,
        images: Vec<Image<'a>>,
        want: &'static str,
        batch_size: usize,
        normalization: &'a str,
        /// A file in shared memory to try to open.
        #[serde(skip_serializing_if = "Option::is_none")]
        shared: Option<&'a str>,
    },
    /// Images; `bytes` of tensors follow, or are in shared memory.
    Batch {
        id: u64,
        images: usize,
        #[serde(skip_serializing_if = "is_first")]
        image: usize,
        bytes: usize,
        /// The file in shared memory that holds the tensors; nothing follows then.
        #[serde(skip_serializing_if = "Option::is_none")]
        shared: Option<String>,
    },
    /// Nothing more comes.
    End,
}

fn is_first(image: &usize) -> bool {
    *image == 0
}

/// An image of each sample, and its bands.
#[derive(Debug, Serialize)]
pub(crate) struct Image<'a> {
    sensor: &'a str,
    date: Option<&'a str>,
    bands: Vec<Band<'a>>,
    side: usize,
    stored_side: usize,
}

#[derive(Debug, Serialize)]
struct Band<'a> {
    name: &'a str,
    wavelength_nm: Option<f64>,
    bandwidth_nm: Option<f64>,
    gsd_m: Option<f64>,
}

impl<'a> Request<'a> {
    /// Describes a task; `sensors` has the wavelengths of bands, `shared` is a file in shared memory.
    pub(super) fn task(
        about: &'a Announcement,
        want: Want,
        sensors: Option<&Sensors>,
        shared: Option<&'a str>,
    ) -> Self {
        Request::Task {
            terrabench: VERSION,
            suite: &about.suite,
            task: &about.task,
            images: about.images.iter().map(|image| Image::new(image, sensors)).collect(),
            want: name(want),
            batch_size: about.batch_size,
            normalization: &about.normalization,
            shared,
        }
    }
}

impl<'a> Image<'a> {
    /// Describes an image; `sensors` has the wavelengths of bands.
    pub(crate) fn new(image: &'a AnnouncedImage, sensors: Option<&Sensors>) -> Self {
        let band = |band: &crate::task::bands::Band| {
            let spec = sensors.and_then(|sensors| sensors.band(image.sensor, *band).ok());
            // Rounded, because a micrometre times 1000 need not be a short number.
            let nm = |um: Option<f64>| um.map(|um| (um * 1e6).round() / 1e3);
            Band {
                name: band.name(),
                wavelength_nm: nm(spec.and_then(|spec| spec.wavelength_um)),
                bandwidth_nm: nm(spec.and_then(|spec| spec.bandwidth_um)),
                gsd_m: spec.map(|spec| spec.gsd_m),
            }
        };
        Image {
            sensor: image.sensor.name(),
            date: image.date.as_deref(),
            bands: image.bands.iter().map(band).collect(),
            side: image.side,
            stored_side: image.stored_side,
        }
    }
}

/// Returns the name of a request in messages.
pub(super) fn name(want: Want) -> &'static str {
    match want {
        Want::Pooled(_) => "pooled",
        Want::Tokens => "tokens",
        Want::Maps => "maps",
    }
}

/// A line from the encoder. Unknown keys are ignored.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "message", rename_all = "kebab-case")]
pub(super) enum Reply {
    /// The answer to a task.
    Ready(Ready),
    /// The features of a batch; `bytes` of tensors follow.
    Features(Header),
    /// The encoder cannot go on.
    Error {
        text: String,
        #[serde(default)]
        traceback: Option<String>,
    },
}

/// What an encoder says of itself.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Ready {
    /// Version of the protocol.
    pub(super) terrabench: Option<u64>,
    /// `float32` or `stored`.
    #[serde(default)]
    pub(super) pixels: Option<String>,
    #[serde(default)]
    pub(super) identity: Option<String>,
    /// Length of a pooled vector.
    #[serde(default)]
    pub(super) width: Option<usize>,
    /// What it can give; none if it did not say.
    #[serde(default)]
    pub(super) wants: Option<Vec<String>>,
    #[serde(default)]
    pub(super) in_flight: Option<usize>,
    /// Whether it takes batches from shared memory.
    #[serde(default)]
    pub(super) shared: bool,
    #[serde(default)]
    pub(super) fuses: bool,
}

/// The line before the features of a batch.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Header {
    pub(super) id: u64,
    pub(super) bytes: u64,
    /// [rows, columns] of patch tokens.
    #[serde(default)]
    pub(super) grid: Option<[usize; 2]>,
    /// Of each map.
    #[serde(default)]
    pub(super) strides: Option<Vec<usize>>,
}

/// Parses a line from the encoder. The error says what was found instead of a message.
pub(super) fn parse(line: &str) -> Result<Reply, String> {
    let value: serde_json::Value =
        serde_json::from_str(line).map_err(|_| "a line that is not JSON".to_owned())?;
    let Some(kind) = value.get("message").and_then(|kind| kind.as_str()) else {
        return Err("a line of JSON without the key `message`".to_owned());
    };
    if !["ready", "features", "error"].contains(&kind) {
        return Err(format!("the unknown message `{kind}`"));
    }
    let kind = kind.to_owned();
    serde_json::from_value(value)
        .map_err(|problem| format!("a message `{kind}` that does not fit: {problem}"))
}
