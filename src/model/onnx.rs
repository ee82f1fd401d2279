//! Models in ONNX files, run by an engine that is not part of this program: ONNX Runtime, loaded when a model needs it.
//! `docs/onnx.md` explains the TOML key by key.
//!
//! The file is described by the names of its inputs and outputs. Everything that can be checked without an engine is checked
//! against the file's header before one is loaded.

mod arrays;
mod check;
mod encoder;
mod engine;
mod extra;
mod runtime;
#[cfg(feature = "tract")]
mod tract;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use self::encoder::OnnxEncoder;
pub use self::engine::EngineName;
pub use self::extra::{ExtraInput, ExtraValue};
use super::encoder::{Encoder, Pooling};
use super::network::Sizes;
use super::outside::Outside;
use super::sensor_input::SensorInput;
use crate::Result;
use crate::formats::onnx::OnnxFile;
use crate::nn::heads::upernet::MapLevel;
use crate::task::{Sensor, Sensors};

/// Returns the version of the ONNX Runtime on this machine, after loading it.
///
/// # Errors
/// If there is none, or it cannot be loaded.
pub fn runtime_version() -> Result<&'static str> {
    runtime::version()
}

/// A model in an ONNX file, as in a model's TOML.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct OnnxConfig {
    /// Path of the ONNX file, relative to the TOML's folder. Not part of any key: the identity contains the file's hash.
    #[serde(skip_serializing)]
    pub file: PathBuf,
    /// The inputs that take pixels.
    pub pixels: PixelInputs,
    /// The other inputs that the file requires.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<ExtraInput>,
    /// The output with one vector per image: [n, d].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pooled: Option<String>,
    /// The output with one vector per patch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<TokenOutput>,
    /// The outputs with feature maps, from fine to coarse or from the first layer to the last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub maps: Vec<MapOutput>,
    /// Length d of a pooled vector, for files that do not state it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<usize>,
    /// The engine to use instead of the first that is available. Not part of any key: the identity contains the engine.
    #[serde(default, skip_serializing)]
    pub engine: Option<EngineName>,
    /// Name of the device as on the command line, see [`Outside::run_on`].
    #[serde(skip)]
    device: String,
}

/// The names of the inputs that take pixels [n, c, h, w].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PixelInputs {
    /// One input for images of any supported sensor.
    One(String),
    /// An input per sensor, for models that take an image of each at once.
    PerSensor(BTreeMap<Sensor, String>),
}

impl PixelInputs {
    /// Returns the name of the input that takes images of `sensor`.
    fn of(&self, sensor: Sensor) -> Option<&str> {
        match self {
            PixelInputs::One(name) => Some(name),
            PixelInputs::PerSensor(names) => names.get(&sensor).map(String::as_str),
        }
    }

    /// Lists the names of all inputs that take pixels.
    fn names(&self) -> Vec<&str> {
        match self {
            PixelInputs::One(name) => vec![name],
            PixelInputs::PerSensor(names) => names.values().map(String::as_str).collect(),
        }
    }
}

/// An output with patch tokens: [n, leading + rows * columns, d] or [n, d, rows, columns].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TokenOutput {
    /// Name of the output.
    pub name: String,
    /// Number of tokens before those of the patches: the class token and any registers.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub leading: usize,
    /// Rows and columns of patches. Default: a grid with the aspect ratio of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grid: Option<[usize; 2]>,
}

/// An output with a feature map: [n, d, rows, columns] or, row by row, [n, leading + rows * columns, d].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MapOutput {
    /// Name of the output.
    pub name: String,
    /// Number of channels, d.
    pub width: usize,
    /// Side in pixels of the input area that one position of the map represents.
    pub stride: usize,
    /// Number of tokens before those of the patches, for outputs of tokens.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub leading: usize,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl Sizes for OnnxConfig {
    fn problem(&self) -> Option<String> {
        let outputs = self.pooled.iter().chain(self.tokens.iter().map(|tokens| &tokens.name));
        let outputs: Vec<&String> = outputs.chain(self.maps.iter().map(|map| &map.name)).collect();
        let inputs = self.pixels.names();
        let extra = || self.inputs.iter().map(|input| input.name.as_str());
        if self.file.as_os_str().is_empty() {
            Some("file: expected the path of an ONNX file, found an empty one".to_owned())
        } else if inputs.is_empty() || inputs.iter().copied().chain(extra()).any(str::is_empty) {
            Some("pixels: expected the name of the input that takes pixels, found an empty one".to_owned())
        } else if let Some(twice) = extra().enumerate().find_map(|(place, name)| {
            (inputs.contains(&name) || extra().take(place).any(|other| other == name)).then_some(name)
        }) {
            Some(format!("inputs: expected each input once, found `{twice}` twice"))
        } else if outputs.is_empty() {
            Some("expected `pooled`, `tokens` or `maps`, the names of outputs, found none of them".to_owned())
        } else if outputs.iter().any(|name| name.is_empty()) {
            Some("pooled, tokens, maps: expected the names of outputs, found an empty one".to_owned())
        } else if self.width == Some(0) || self.maps.iter().any(|map| map.width == 0 || map.stride == 0) {
            Some("width, stride: expected numbers above 0, found a 0".to_owned())
        } else if self.tokens.as_ref().and_then(|tokens| tokens.grid).is_some_and(|grid| grid.contains(&0)) {
            Some("tokens: grid: expected [rows, columns] above 0, found a 0".to_owned())
        } else {
            self.inputs.iter().find_map(ExtraInput::problem)
        }
    }

    /// [`Pooling::Head`] is the output `pooled`; the others are computed from `tokens`.
    fn poolings(&self) -> &'static [Pooling] {
        let class = self.tokens.as_ref().map(|tokens| tokens.leading > 0);
        match (&self.pooled, class) {
            (Some(_), None) => &[Pooling::Head],
            (Some(_), Some(false)) => &[Pooling::Head, Pooling::Mean],
            (Some(_), Some(true)) => &[Pooling::Head, Pooling::Class, Pooling::Mean, Pooling::MeanAll],
            (None, Some(false)) => &[Pooling::Mean],
            (None, Some(true)) => &[Pooling::Class, Pooling::Mean, Pooling::MeanAll],
            (None, None) => &[],
        }
    }

    fn maps(&self) -> Vec<MapLevel> {
        self.maps.iter().map(|map| MapLevel { width: map.width, stride: map.stride }).collect()
    }

    fn gives_tokens(&self) -> bool {
        self.tokens.is_some()
    }

    fn takes_any_bands(&self) -> bool {
        self.reads_wavelengths()
    }

    fn reads_wavelengths(&self) -> bool {
        self.inputs.iter().any(|input| input.value.is_per_band())
    }

    fn reads_gsd(&self) -> bool {
        self.inputs.iter().any(|input| input.value == ExtraValue::GsdM)
    }

    fn fuses(&self, sensors: &[Sensor]) -> bool {
        match &self.pixels {
            PixelInputs::One(_) => false,
            PixelInputs::PerSensor(names) => {
                names.len() == sensors.len() && sensors.iter().all(|sensor| names.contains_key(sensor))
            }
        }
    }
}

impl Outside for OnnxConfig {
    fn complete(&mut self, folder: &Path, _: &Sensors) -> Result<()> {
        self.file = folder.join(&self.file);
        Ok(())
    }

    fn run_on(&mut self, device: &str) {
        device.clone_into(&mut self.device);
    }

    /// Returns `onnx:<hash of the file and its external data>+<engine>`.
    fn identity(&self) -> Result<Option<String>> {
        let header = OnnxFile::read(&self.file)?;
        let engine = engine::identity(self.engine)?;
        Ok(Some(format!("onnx:{}+{engine}", header.hash(&self.file)?)))
    }

    fn open(&self, sensors: &BTreeMap<Sensor, SensorInput>, device: &Device) -> Result<Box<dyn Encoder>> {
        Ok(Box::new(OnnxEncoder::open(self, sensors, device)?))
    }
}
