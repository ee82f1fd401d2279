//! Configuration of a model.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::architecture::ArchitectureConfig;
use super::encoder::Pooling;
use super::matching::matched_sensors;
pub use super::matching::{BandMatch, MatchedSensor};
use super::process::every_band;
pub use super::published::{Parity, WeightsSource};
pub use super::sensor_input::SensorInput;
use crate::home::{Home, read_toml};
use crate::task::bands::{Band, Imputation};
use crate::task::{Sensor, Sensors, Task, TaskImage};
use crate::transform::normalize::NormalizationKind;
use crate::{Error, Result};

/// A model: its architecture, the bands it takes and where its weights come from (`configs/models/*.toml`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ModelConfig {
    /// Name as in the published tables: `TerraFM`.
    pub name: String,
    /// Encoder as in the published tables: `ViT-Base`.
    pub backbone: String,
    /// Size to which images are resized.
    pub image: ImageSize,
    /// Size for individual tasks, by task name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, ImageSize>,
    /// How tokens are pooled into one vector per image. Default: the architecture's default pooling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pooling: Option<Pooling>,
    /// The architecture and its sizes.
    pub architecture: ArchitectureConfig,
    /// The bands that the model takes of each sensor it supports.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sensors: BTreeMap<Sensor, SensorInput>,
    /// Replacements for bands that the files lack, if the task does not name any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub impute: Vec<Imputation>,
    /// How each suite's own code deviates for this model, by suite name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub suites: BTreeMap<String, SuiteRoute>,
    /// Arithmetic that the normalisation sweep uses for this model, as in Galileo's table of models. Models not listed
    /// there use `norm_no_clip`.
    #[serde(default = "no_clip")]
    pub normalization: NormalizationKind,
    /// Location of the published weights. A model without published weights uses random ones.
    pub weights: Option<WeightsSource>,
    /// Row of the published tables to compare with.
    pub published: Option<PublishedRow>,
    /// How close this implementation is to the original.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parity: Option<Parity>,
    /// The suite's deviations that are not in the fields above, once the model is used in a suite.
    #[serde(skip)]
    pub route: SuiteRoute,
    /// Sensors that the model lacks, and those as which it takes their bands, by preference.
    #[serde(skip)]
    pub matched: BTreeMap<Sensor, Vec<MatchedSensor>>,
    /// Number of blocks that are left, if [`ModelConfig::after_block`] left fewer than the model has.
    #[serde(skip)]
    pub depth: Option<usize>,
}

fn no_clip() -> NormalizationKind {
    NormalizationKind::NormNoClip
}

/// Input size of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawImageSize", into = "RawImageSize")]
pub enum ImageSize {
    /// Resize images to this side in pixels.
    Side(usize),
    /// Keep images at their stored size. Written `"native"`.
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
            RawImageSize::Side(0) => Err("image: expected a size above 0, found 0".to_owned()),
            RawImageSize::Side(side) => Ok(ImageSize::Side(side)),
            RawImageSize::Word(word) if word == "native" => Ok(ImageSize::Native),
            RawImageSize::Word(word) => {
                Err(format!("image: expected a number of pixels or \"native\", found {word:?}"))
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

impl std::str::FromStr for ImageSize {
    type Err = Error;

    /// Parses a number of pixels, or `native`.
    fn from_str(text: &str) -> Result<Self> {
        let raw = match text.parse() {
            Ok(side) => RawImageSize::Side(side),
            Err(_) => RawImageSize::Word(text.to_owned()),
        };
        ImageSize::try_from(raw).map_err(|problem| Error::request(problem).help("such as 224 or native"))
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

/// Which bands a model receives if the code behind its published numbers uses other bands than it was trained on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Inputs {
    /// The bands used for the published numbers.
    #[default]
    AsPublished,
    /// The bands the model was trained on.
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

/// How a suite's own code deviates for a model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SuiteRoute {
    /// Image size in this suite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageSize>,
    /// Image size for individual tasks, by task name; takes precedence over `image`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, ImageSize>,
    /// Pooling in this suite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pooling: Option<Pooling>,
    /// Bands that the suite's code passes to the model, which need not be those it was trained on. They replace the model's
    /// own bands of the same sensor.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sensors: BTreeMap<Sensor, SensorInput>,
    /// Imputations to try before the model's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub impute: Vec<Imputation>,
    /// Like `sensors`, for individual tasks, by task name. The band `zeros` stands for a channel without a band.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub task_sensors: BTreeMap<String, BTreeMap<Sensor, SensorInput>>,
    /// Normalisation in this suite, as on the command line, which overrides it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalization: Option<String>,
    /// Normalisation for individual tasks, by task name; takes precedence over `normalization`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub normalizations: BTreeMap<String, String>,
    /// Protocols that the suite's code uses for this model, by the suite's default protocol that each replaces.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub protocols: BTreeMap<String, String>,
}

/// The part of a [`ModelConfig`] that affects features and numbers. All other fields are labels, or act through something
/// that is part of the cache keys itself.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct DecidingModel<'a> {
    /// The architecture and its sizes.
    pub architecture: &'a ArchitectureConfig,
    /// The bands per sensor.
    pub sensors: &'a BTreeMap<Sensor, SensorInput>,
}

/// A row of the published tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedRow {
    /// Name of the model in the table.
    pub model: String,
    /// Name of the encoder in the table.
    pub backbone: String,
}

/// What a model takes of an image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Taken<'a> {
    /// The sensor that the model is told.
    pub sensor: Sensor,
    /// What the model takes of that sensor.
    pub input: &'a SensorInput,
    /// The bands that the image has, if it is of another sensor; empty otherwise.
    pub matches: &'a [BandMatch],
}

impl<'a> Taken<'a> {
    fn of_match(found: &'a MatchedSensor) -> Self {
        Taken { sensor: found.sensor, input: &found.input, matches: &found.matches }
    }
}

impl ModelConfig {
    /// Reads `configs/models/<name>.toml`, or the file at the path `name`.
    ///
    /// # Errors
    /// If there is no such file, it has unknown keys, or the architecture is inconsistent.
    pub fn load(home: &Home, name: &str) -> Result<Self> {
        let path = home.config("models", name)?;
        let mut config: ModelConfig = read_toml(&path)?;
        if let Some(problem) = config.problem() {
            return Err(Error::damaged(path, problem));
        }
        if config.architecture.outside().is_some() {
            config.check_names(&Sensors::load(home)?).map_err(|error| error.in_file(&path))?;
        }
        if let Some(outside) = config.architecture.outside_mut() {
            let (folder, sensors) = (path.parent().unwrap_or(Path::new("")), Sensors::load(home)?);
            outside.complete(folder, &sensors)?;
            if config.sensors.is_empty() {
                config.sensors = every_band(&sensors);
            }
        }
        if config.architecture.has_parameters() || config.architecture.outside().is_some() {
            config.matched = matched_sensors(&config.sensors, &Sensors::load(home)?);
        }
        if config.architecture.reads_wavelengths() {
            let sensors = Sensors::load(home)?;
            config.sensors.iter_mut().for_each(|(sensor, input)| input.complete(*sensor, &sensors));
        }
        if config.architecture.reads_gsd() {
            let sensors = Sensors::load(home)?;
            config.sensors.iter_mut().for_each(|(sensor, input)| input.complete_gsd(*sensor, &sensors));
        }
        Ok(config)
    }

    /// Describes features that another program computed. The backbone's name may be empty.
    pub fn of_vectors(name: &str, backbone: &str) -> Self {
        ModelConfig {
            name: name.to_owned(),
            backbone: backbone.to_owned(),
            image: ImageSize::Native,
            images: BTreeMap::new(),
            pooling: None,
            architecture: ArchitectureConfig::Vectors,
            sensors: BTreeMap::new(),
            impute: Vec::new(),
            suites: BTreeMap::new(),
            normalization: no_clip(),
            weights: None,
            published: None,
            parity: None,
            route: SuiteRoute::default(),
            matched: BTreeMap::new(),
            depth: None,
        }
    }

    /// Describes an inconsistency, if there is one.
    fn problem(&self) -> Option<String> {
        if let Some(problem) = self.architecture.problem() {
            return Some(problem);
        }
        if self.architecture.outside().is_some() {
            if self.weights.is_some() {
                return Some("expected no weights: this kind of model brings its own".to_owned());
            }
            if self.sensors.is_empty() && !self.architecture.takes_any_bands() {
                return Some(
                    "expected the bands of a sensor, [sensors.s2-l2a] bands = […], found none".to_owned(),
                );
            }
        } else if !self.architecture.has_parameters() {
            let more = !self.sensors.is_empty() || self.weights.is_some() || self.pooling.is_some();
            return more.then(|| {
                "expected no sensors, weights or pooling for a model without parameters".to_owned()
            });
        }
        let published = self.weights.as_ref().and_then(WeightsSource::problem);
        if let Some(problem) = published.or_else(|| self.parity.as_ref().and_then(Parity::problem)) {
            return Some(problem);
        }
        if self.normalization == NormalizationKind::Satlas {
            return Some(
                "normalization: expected a kind with statistics to sweep over, found satlas".to_owned(),
            );
        }
        let known = self.architecture.poolings();
        let asked =
            self.pooling.iter().chain(self.suites.values().filter_map(|route| route.pooling.as_ref()));
        if let Some(unknown) = asked.copied().find(|pooling| !known.contains(pooling)) {
            let known: Vec<String> = known.iter().map(Pooling::to_string).collect();
            return Some(format!("pooling: the architecture supports {}, found {unknown}", known.join(", ")));
        }
        let of_tasks = self.suites.values().flat_map(|route| route.task_sensors.values().flatten());
        let routes = self.suites.values().flat_map(|route| &route.sensors).chain(of_tasks);
        let mut inputs = self.sensors.iter().chain(routes);
        inputs.find_map(|(sensor, input)| Some(format!("sensor {sensor} {}", input.problem()?)))
    }

    /// Checks that sensors and bands are described, except bands that another replaces: a misspelt name would look like one that
    /// the files lack.
    fn check_names(&self, sensors: &Sensors) -> Result<()> {
        let impute = self.impute.iter().chain(self.suites.values().flat_map(|route| &route.impute));
        let replaced: Vec<Band> = impute.map(|pair| pair.target).chain([Band::ZEROS]).collect();
        let of_suites = self
            .suites
            .values()
            .flat_map(|route| route.sensors.iter().chain(route.task_sensors.values().flatten()));
        for (sensor, input) in self.sensors.iter().chain(of_suites) {
            sensors.get(*sensor)?;
            let mut named = input.bands.iter().filter(|band| !replaced.contains(band));
            named.try_for_each(|band| sensors.band(*sensor, *band).map(drop))?;
        }
        Ok(())
    }

    /// Returns the model as the suite's own code uses it: with its sizes, pooling and imputation and, if `inputs` is as
    /// published, with the bands that the suite passes to it.
    #[must_use]
    pub fn in_suite(mut self, suite: &str, inputs: Inputs) -> Self {
        if let Some(mut route) = self.suites.get(suite).cloned() {
            self.image = route.image.unwrap_or(self.image);
            self.images.extend(std::mem::take(&mut route.images));
            self.pooling = route.pooling.or(self.pooling);
            match inputs {
                Inputs::AsPublished => self.sensors.extend(std::mem::take(&mut route.sensors)),
                Inputs::Corrected => route.task_sensors.clear(),
            }
            self.impute.splice(0..0, std::mem::take(&mut route.impute));
            self.route = route;
        }
        self
    }

    /// Returns the part that affects results. A new field must be assigned to one side here.
    pub fn deciding(&self) -> DecidingModel<'_> {
        let ModelConfig {
            architecture,
            sensors,
            // These affect how pixels and tokens are processed, which is itself part of the cache keys.
            image: _,
            images: _,
            pooling: _,
            impute: _,
            suites: _,
            // Determines the strategies that a sweep tries, which are part of the cache keys.
            normalization: _,
            // Bands, normalisation and protocol are in the keys themselves.
            route: _,
            // Acts through the sensor and the bands, which are in the keys themselves.
            matched: _,
            // In the architecture's sizes.
            depth: _,
            // Labels; the weights themselves are in the keys by their hash.
            name: _,
            backbone: _,
            weights: _,
            published: _,
            parity: _,
        } = self;
        DecidingModel { architecture, sensors }
    }

    /// Returns the model without the blocks after the first `count`: features are those after that block, through the final
    /// norm.
    ///
    /// # Errors
    /// If the architecture has no such choice, or fewer blocks.
    pub fn after_block(mut self, count: usize) -> Result<Self> {
        let name = format!("{} {}", self.name, self.backbone);
        let Some(blocks) = self.architecture.blocks() else {
            return Err(Error::request(format!(
                "{name}: a model of kind `{}` has no equal blocks to take features after",
                self.architecture.kind()
            ))
            .help("leave out the depth"));
        };
        if count == 0 || count > blocks {
            return Err(Error::request(format!(
                "{name}: expected a block from 1 to {blocks}, found {count}"
            ))
            .help(format!("{blocks} is the whole model")));
        }
        if count < blocks {
            self.architecture.keep_blocks(count);
            self.depth = Some(count);
        }
        Ok(self)
    }

    /// Returns the pooling of tokens into one vector per image.
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

    /// Returns the side in pixels of the images of `task` as the model takes them.
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

    /// Returns the normalisation that the suite's own code uses for the model on `task`, if it has its own.
    pub fn suite_normalization(&self, task: &Task) -> Option<&str> {
        let SuiteRoute { normalization, normalizations, .. } = &self.route;
        normalizations.get(&task.name).or(normalization.as_ref()).map(String::as_str)
    }

    /// Returns what the model takes of an image of `task`: its bands of the image's sensor or, if it lacks that one, those of the
    /// sensor as which it takes it.
    ///
    /// # Errors
    /// If the model has no way to take the sensor.
    pub fn taken(&self, task: &Task, image: &TaskImage) -> Result<Taken<'_>> {
        let TaskImage { sensor: stored, input_sensor, .. } = image;
        let matched = self.matched.get(stored).map_or(&[][..], Vec::as_slice);
        let as_sensor = |found: &'_ MatchedSensor| found.sensor == *input_sensor;
        // With --sensor, the model is told another one than that of the images.
        let of_bands = stored != input_sensor && stored.is_camera();
        if let Some(found) = matched.iter().find(|found| of_bands && as_sensor(found)) {
            return Ok(Taken::of_match(found));
        }
        let own = if of_bands { *stored } else { *input_sensor };
        match (self.sensor_on(task, own), matched.first()) {
            (Ok(input), _) => Ok(Taken { sensor: own, input, matches: &[] }),
            (Err(_), Some(found)) => Ok(Taken::of_match(found)),
            (Err(error), None) => Err(error),
        }
    }

    /// Returns the sensor that the model is told of an image of `task`; the image's own if the model has no way to take it.
    pub fn told(&self, task: &Task, image: &TaskImage) -> Sensor {
        self.taken(task, image).map_or(image.input_sensor, |taken| taken.sensor)
    }

    /// Returns what the model takes of `sensor` on `task`.
    ///
    /// # Errors
    /// If the model does not support the sensor.
    pub fn sensor_on(&self, task: &Task, sensor: Sensor) -> Result<&SensorInput> {
        let own = self.route.task_sensors.get(&task.name).and_then(|sensors| sensors.get(&sensor));
        own.map_or_else(|| self.sensor(sensor), Ok)
    }

    /// Returns what the model takes of `sensor`.
    ///
    /// # Errors
    /// If the model does not support the sensor.
    pub fn sensor(&self, sensor: Sensor) -> Result<&SensorInput> {
        self.sensors.get(&sensor).ok_or_else(|| {
            let known: Vec<String> = self.sensors.keys().map(Sensor::to_string).collect();
            let problem = format!("{} {} has no such sensor: {sensor}", self.name, self.backbone);
            let instead = match sensor.has_alternatives() {
                true => "--sensor tells the model one of them",
                false => "`cargo xtask models` lists the sensors of the others",
            };
            Error::request(problem).help(format!(
                "supported sensors: {}; {instead}, and a model of your own may name [sensors.{sensor}] in its TOML",
                known.join(", ")
            ))
        })
    }
}
