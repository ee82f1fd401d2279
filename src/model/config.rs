//! A model's configuration.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::architecture::ArchitectureConfig;
use super::encoder::Pooling;
use crate::home::{Home, read_toml};
use crate::task::bands::{Band, Imputation};
use crate::task::{BandSpec, Sensor, Sensors, Task};
use crate::transform::normalize::NormalizationKind;
use crate::{Error, Result};

/// A model: its architecture, the bands it takes and where its weights come from (`configs/models/*.toml`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ModelConfig {
    /// As in the tables: `TerraFM`.
    pub name: String,
    /// As in the tables: `ViT-Base`.
    pub backbone: String,
    /// The size that images are resized to.
    pub image: ImageSize,
    /// The size for single tasks, by their names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, ImageSize>,
    /// How tokens become the vector of an image. Default: the architecture's usual pooling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pooling: Option<Pooling>,
    pub architecture: ArchitectureConfig,
    /// What the model takes of each sensor that it knows.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sensors: BTreeMap<Sensor, SensorInput>,
    /// What stands in for bands that files lack and the task imputes with nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub impute: Vec<Imputation>,
    /// What a suite's own code does differently with this model, by the suite's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub suites: BTreeMap<String, SuiteRoute>,
    /// Which arithmetic the normalisation sweep uses for this model, as in Galileo's table of models, where a
    /// model that is not listed has `norm_no_clip`.
    #[serde(default = "no_clip")]
    pub normalization: NormalizationKind,
    /// Where the published weights are; a model without them has random ones.
    pub weights: Option<WeightsSource>,
    /// The published row to compare with.
    pub published: Option<PublishedRow>,
}

fn no_clip() -> NormalizationKind {
    NormalizationKind::NormNoClip
}

/// The size of a model's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawImageSize", into = "RawImageSize")]
pub enum ImageSize {
    /// Images are resized to this side in pixels.
    Side(usize),
    /// Images keep the size they are stored in. Written `"native"`.
    Native,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum RawImageSize {
    Side(usize),
    Word(String),
}

impl TryFrom<RawImageSize> for ImageSize {
    type Error = String;

    fn try_from(raw: RawImageSize) -> std::result::Result<Self, String> {
        match raw {
            RawImageSize::Side(0) => Err("image must be above 0".to_owned()),
            RawImageSize::Side(side) => Ok(ImageSize::Side(side)),
            RawImageSize::Word(word) if word == "native" => Ok(ImageSize::Native),
            RawImageSize::Word(word) => {
                Err(format!("image is a number of pixels or \"native\", got {word:?}"))
            }
        }
    }
}

impl From<ImageSize> for RawImageSize {
    fn from(size: ImageSize) -> Self {
        match size {
            ImageSize::Side(side) => RawImageSize::Side(side),
            ImageSize::Native => RawImageSize::Word("native".to_owned()),
        }
    }
}

impl fmt::Display for ImageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImageSize::Side(side) => write!(f, "{side}"),
            ImageSize::Native => f.write_str("native"),
        }
    }
}

/// What a model takes of one sensor.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SensorInput {
    /// In the order of the input channels.
    pub bands: Vec<Band>,
    /// Central wavelength per band in micrometres, for models that look at it: the numbers that the model was trained with,
    /// or none for those of `benchmarks/sensors.toml`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wavelengths: Vec<f64>,
    /// Bandwidth per band in micrometres, likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bandwidths: Vec<f64>,
}

impl SensorInput {
    /// Fills in the wavelengths that `sensors` gives for all of the bands, and their bandwidths, if it has none of its own.
    fn complete(&mut self, sensor: Sensor, sensors: &Sensors) {
        if !self.wavelengths.is_empty() {
            return;
        }
        let of_bands = |number: fn(&BandSpec) -> Option<f64>| -> Vec<f64> {
            let numbers = self.bands.iter().map(|band| number(sensors.band(sensor, *band).ok()?));
            numbers.collect::<Option<_>>().unwrap_or_default()
        };
        (self.wavelengths, self.bandwidths) =
            (of_bands(|band| band.wavelength_um), of_bands(|band| band.bandwidth_um));
    }

    /// What contradicts itself, if anything.
    fn problem(&self) -> Option<String> {
        let count = self.bands.len();
        if count == 0 {
            return Some("has no bands".to_owned());
        }
        let per_band = [("wavelengths", &self.wavelengths), ("bandwidths", &self.bandwidths)];
        per_band.into_iter().find_map(|(what, values)| {
            if !values.is_empty() && values.len() != count {
                Some(format!("has {count} bands, but {} {what}", values.len()))
            } else {
                let wrong = values.iter().find(|value| !value.is_finite() || **value < 0.0)?;
                Some(format!("has {what} of {wrong} micrometres"))
            }
        })
    }
}

/// Which bands a model is fed where the code behind published numbers feeds it others than it was trained on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Inputs {
    /// As the published numbers were made.
    #[default]
    AsPublished,
    /// As the model was trained.
    Corrected,
}

impl fmt::Display for Inputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Inputs::AsPublished => "as-published",
            Inputs::Corrected => "corrected",
        })
    }
}

/// What a suite's own code does differently with a model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SuiteRoute {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageSize>,
    /// The size for single tasks, by their names; it counts more than the suite's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, ImageSize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pooling: Option<Pooling>,
    /// In place of the model's own of the same sensor: the bands that the suite's code feeds, which need not be those that
    /// the model was trained on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sensors: BTreeMap<Sensor, SensorInput>,
    /// Before the model's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub impute: Vec<Imputation>,
}

/// A file of weights on the Hugging Face hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightsSource {
    pub repository: String,
    pub file: String,
    /// A commit of the repository, or a branch where no commit is known.
    #[serde(default = "main_branch")]
    pub revision: String,
}

fn main_branch() -> String {
    "main".to_owned()
}

/// What of a [`ModelConfig`] decides features and numbers. Everything else labels them, or decides through something
/// that is in the keys itself.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct DecidingModel<'a> {
    pub architecture: &'a ArchitectureConfig,
    pub sensors: &'a BTreeMap<Sensor, SensorInput>,
}

/// A row of the published tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedRow {
    pub model: String,
    pub backbone: String,
}

impl ModelConfig {
    /// Reads `configs/models/<name>.toml`, or the file at the path `name`.
    ///
    /// # Errors
    /// Where there is no such file, it has unknown keys, or the architecture contradicts itself.
    pub fn load(home: &Home, name: &str) -> Result<Self> {
        let path = home.config("models", name)?;
        let mut config: ModelConfig = read_toml(&path)?;
        if let Some(problem) = config.problem() {
            return Err(Error::damaged(path, problem));
        }
        if config.architecture.reads_wavelengths() {
            let sensors = Sensors::load(home)?;
            config.sensors.iter_mut().for_each(|(sensor, input)| input.complete(*sensor, &sensors));
        }
        Ok(config)
    }

    /// What contradicts itself, if anything.
    fn problem(&self) -> Option<String> {
        if !self.architecture.has_parameters() {
            let more = !self.sensors.is_empty() || self.weights.is_some() || self.pooling.is_some();
            return more.then(|| "a model without parameters has no sensors, weights or pooling".to_owned());
        }
        if let Some(problem) = self.architecture.problem() {
            return Some(problem);
        }
        if self.normalization == NormalizationKind::Satlas {
            return Some("normalization is satlas, which has no statistics to sweep over".to_owned());
        }
        let known = self.architecture.poolings();
        let asked =
            self.pooling.iter().chain(self.suites.values().filter_map(|route| route.pooling.as_ref()));
        if let Some(unknown) = asked.copied().find(|pooling| !known.contains(pooling)) {
            let known: Vec<String> = known.iter().map(Pooling::to_string).collect();
            return Some(format!("pooling is {unknown}; the architecture has {}", known.join(", ")));
        }
        let routes = self.suites.values().flat_map(|route| &route.sensors);
        let mut inputs = self.sensors.iter().chain(routes);
        inputs.find_map(|(sensor, input)| Some(format!("sensor {sensor} {}", input.problem()?)))
    }

    /// The same model as the suite's own code uses it: its sizes, pooling and imputation and, where `inputs` is as published,
    /// the bands that it feeds.
    #[must_use]
    pub fn in_suite(mut self, suite: &str, inputs: Inputs) -> Self {
        if let Some(mut route) = self.suites.get(suite).cloned() {
            self.image = route.image.unwrap_or(self.image);
            self.images.extend(route.images);
            self.pooling = route.pooling.or(self.pooling);
            if inputs == Inputs::AsPublished {
                self.sensors.extend(route.sensors);
            }
            route.impute.append(&mut self.impute);
            self.impute = route.impute;
        }
        self
    }

    /// The part that decides. A new field must be told here on which side it is.
    pub fn deciding(&self) -> DecidingModel<'_> {
        let ModelConfig {
            architecture,
            sensors,
            // Decide what is made of the pixels and tokens, which is in the keys itself.
            image: _,
            images: _,
            pooling: _,
            impute: _,
            suites: _,
            // Decides which strategies a sweep tries, and these are in the keys.
            normalization: _,
            // Labels; the weights themselves are in the keys by their hash.
            name: _,
            backbone: _,
            weights: _,
            published: _,
        } = self;
        DecidingModel { architecture, sensors }
    }

    /// How tokens become the vector of an image.
    pub fn pooling(&self) -> Pooling {
        let usual = self.architecture.poolings().first().copied();
        self.pooling.or(usual).unwrap_or(Pooling::Mean)
    }

    /// Whether the model takes the images of a sample of these sensors at once, so that it fuses them itself: several, of
    /// different sensors, as its architecture says. Images of one sensor at several dates are encoded one by one.
    pub fn fuses(&self, sensors: &[Sensor]) -> bool {
        let distinct = sensors.iter().enumerate().all(|(place, sensor)| !sensors[..place].contains(sensor));
        sensors.len() > 1 && distinct && self.architecture.fuses(sensors)
    }

    /// Side in pixels of the images of `task` as the model takes them.
    pub fn side(&self, task: &Task) -> usize {
        let size = match (self.images.get(&task.name), task.input_size) {
            (Some(own), _) => *own,
            (None, Some(side)) => ImageSize::Side(side),
            (None, None) => self.image,
        };
        match size {
            ImageSize::Side(side) => side,
            ImageSize::Native => task.image_size,
        }
    }

    /// What the model takes of `sensor`.
    ///
    /// # Errors
    /// If it does not know the sensor.
    pub fn sensor(&self, sensor: Sensor) -> Result<&SensorInput> {
        self.sensors.get(&sensor).ok_or_else(|| {
            let known: Vec<String> = self.sensors.keys().map(Sensor::to_string).collect();
            Error::request(format!("{} {} cannot take images of sensor {sensor}", self.name, self.backbone))
                .help(format!("its sensors are {}", known.join(", ")))
        })
    }
}
