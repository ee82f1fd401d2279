//! The choices behind one number: the same model on the same task with one choice changed at a time.

use std::fmt;
use std::str::FromStr;

use super::plan;
use crate::home::Home;
use crate::model::Pooling;
use crate::model::config::{ImageSize, ModelConfig};
use crate::protocol::ProtocolConfig;
use crate::task::bands::{Band, Channels};
use crate::task::{ResizeRule, Sensor, Suite, Task, TaskImage};
use crate::transform::bandspec::BandspecKind;
use crate::transform::strategies::{BANDSPEC_ZSCORE, DATASET, NONE, SWEEP, Strategies, Strategy};
use crate::{Error, Result, suggest};

/// Something that a user may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Aspect {
    /// How features are scored.
    Protocol,
    /// How pixels are normalised.
    Normalization,
    /// How tokens become one vector.
    Pooling,
    /// After which block features are taken.
    Depth,
    /// As which sensor's the model takes the images.
    Stem,
    /// The side of the model's input.
    Size,
    /// How images are resized to it.
    Resize,
    /// Whether a second model's features stand beside.
    Beside,
    /// Which bands the model receives.
    Channels,
    /// All of torchgeo-bench's choices, one after the other.
    Torchgeo,
}

impl Aspect {
    /// All of them, in the order of tables and pictures.
    pub const ALL: [Aspect; 10] = [
        Aspect::Protocol,
        Aspect::Normalization,
        Aspect::Pooling,
        Aspect::Depth,
        Aspect::Stem,
        Aspect::Size,
        Aspect::Resize,
        Aspect::Beside,
        Aspect::Channels,
        Aspect::Torchgeo,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Aspect::Protocol => "protocol",
            Aspect::Normalization => "normalization",
            Aspect::Pooling => "pooling",
            Aspect::Depth => "depth",
            Aspect::Stem => "stem",
            Aspect::Size => "size",
            Aspect::Resize => "resize",
            Aspect::Beside => "beside",
            Aspect::Channels => "channels",
            Aspect::Torchgeo => "torchgeo",
        }
    }

    /// Its heading.
    pub fn title(self) -> &'static str {
        match self {
            Aspect::Protocol => "Protocol",
            Aspect::Normalization => "Normalisation",
            Aspect::Pooling => "Pooling",
            Aspect::Depth => "Features after block",
            Aspect::Stem => "Sensor told to the model",
            Aspect::Size => "Input size",
            Aspect::Resize => "Resize rule",
            Aspect::Beside => "Beside a second model",
            Aspect::Channels => "Bands",
            Aspect::Torchgeo => "Step by step to torchgeo-bench",
        }
    }
}

impl FromStr for Aspect {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Aspect::ALL.into_iter().find(|aspect| aspect.name() == text).ok_or_else(|| {
            let names = Aspect::ALL.map(Aspect::name);
            Error::request(format!("unknown choice `{text}`")).help(suggest::help(text, &names, "choices"))
        })
    }
}

/// Everything that is chosen for one cell. `None` stands for what the model and the suite choose.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// Name of the protocol.
    pub protocol: String,
    /// Name of the normalisation.
    pub normalization: Option<String>,
    /// The pooling.
    pub pooling: Option<Pooling>,
    /// Number of blocks.
    pub depth: Option<usize>,
    /// The sensor that the model is told.
    pub stem: Option<Sensor>,
    /// Side of the model's input in pixels.
    pub size: Option<usize>,
    /// The resize rule.
    pub resize: Option<ResizeRule>,
    /// Whether the second model's features stand beside.
    pub beside: bool,
    /// The bands that the model receives.
    pub channels: Channels,
}

impl View {
    /// Everything as model and suite choose it.
    pub fn of(protocol: &str) -> Self {
        View {
            protocol: protocol.to_owned(),
            normalization: None,
            pooling: None,
            depth: None,
            stem: None,
            size: None,
            resize: None,
            beside: false,
            channels: Channels::All,
        }
    }

    /// The same of any protocol: cells with equal inputs share their features.
    #[must_use]
    pub fn of_any_protocol(&self) -> Self {
        View { protocol: String::new(), ..self.clone() }
    }

    /// Returns the model as this view takes it on `task`.
    ///
    /// # Errors
    /// If the model has fewer blocks.
    pub fn model(&self, model: &ModelConfig, task: &Task) -> Result<ModelConfig> {
        let mut model = model.clone();
        model.pooling = self.pooling.or(model.pooling);
        if let Some(side) = self.size {
            model.images.insert(task.name.clone(), ImageSize::Side(side));
        }
        match self.depth {
            Some(blocks) => model.after_block(blocks),
            None => Ok(model),
        }
    }

    /// Returns the suite as this view takes it.
    pub fn suite(&self, suite: &Suite) -> Suite {
        let suite = suite.clone();
        let suite = match self.stem {
            Some(sensor) => suite.with_input_sensor(sensor),
            None => suite,
        };
        match self.resize {
            Some(rule) => suite.with_resize(rule),
            None => suite,
        }
    }
}

/// One change of a view.
#[derive(Debug, Clone, PartialEq)]
enum Change {
    Nothing,
    Protocol(String),
    Normalization(String),
    Pooling(Pooling),
    Depth(usize),
    Stem(Sensor),
    Size(usize),
    Resize(ResizeRule),
    Beside,
    Channels(Channels),
}

impl Change {
    fn of(&self, view: &View) -> View {
        let mut view = view.clone();
        match self.clone() {
            Change::Nothing => {}
            Change::Protocol(name) => view.protocol = name,
            Change::Normalization(name) => view.normalization = Some(name),
            Change::Pooling(pooling) => view.pooling = Some(pooling),
            Change::Depth(blocks) => view.depth = Some(blocks),
            Change::Stem(sensor) => view.stem = Some(sensor),
            Change::Size(side) => view.size = Some(side),
            Change::Resize(rule) => view.resize = Some(rule),
            Change::Beside => view.beside = true,
            Change::Channels(channels) => view.channels = channels,
        }
        view
    }
}

/// A cell of a strip.
#[derive(Debug, Clone, PartialEq)]
pub struct StripCell {
    /// The value of the choice: `torchgeo-knn`.
    pub label: String,
    /// Whether it is what model and suite choose.
    pub is_default: bool,
    /// Everything that is chosen.
    pub view: View,
}

/// All values of one choice, or of two that are crossed.
#[derive(Debug, Clone, PartialEq)]
pub struct Strip {
    /// The choice.
    pub title: String,
    /// Its values, the default first.
    pub cells: Vec<StripCell>,
}

/// What a spread varies.
pub struct Wanted<'a> {
    /// The suite.
    pub suite: &'a Suite,
    /// The task, one of the suite's.
    pub task: &'a Task,
    /// The model as the suite uses it.
    pub model: &'a ModelConfig,
    /// The default of every choice.
    pub base: &'a View,
    /// The name of the default normalisation.
    pub normalization: &'a str,
    /// The known normalisations.
    pub strategies: &'a Strategies,
    /// The protocols that fit.
    pub protocols: &'a [String],
    /// Whether all of Galileo's strategies are tried instead of one per source.
    pub all_normalizations: bool,
    /// Further blocks to take features after.
    pub depths: &'a [usize],
    /// Further input sizes.
    pub sizes: &'a [usize],
    /// The name of the second model, if there is one.
    pub beside: Option<&'a str>,
    /// The choices to vary.
    pub vary: &'a [Aspect],
    /// Pairs of choices to cross.
    pub cross: &'a [(Aspect, Aspect)],
}

/// Returns a strip per choice and per crossed pair, and what is left out with the reason.
pub fn strips(wanted: &Wanted) -> (Vec<Strip>, Vec<String>) {
    let mut notes = Vec::new();
    let mut strips = Vec::new();
    for aspect in wanted.vary {
        let cells = match aspect {
            Aspect::Torchgeo => wanted.towards_torchgeo(),
            _ => wanted.values(*aspect).map(|values| {
                let cell = |(label, change): (String, Change)| StripCell {
                    is_default: change == Change::Nothing,
                    view: change.of(wanted.base),
                    label,
                };
                values.into_iter().map(cell).collect()
            }),
        };
        match cells {
            Ok(cells) => strips.push(Strip { title: aspect.title().to_owned(), cells }),
            Err(why) => notes.push(format!("{}: {why}", aspect.title())),
        }
    }
    for (a, b) in wanted.cross {
        match (wanted.values(*a), wanted.values(*b)) {
            (Ok(first), Ok(second)) => {
                let cells = first.iter().flat_map(|(label, change)| {
                    second.iter().map(move |(other_label, other)| StripCell {
                        label: format!("{label}, {other_label}"),
                        is_default: *change == Change::Nothing && *other == Change::Nothing,
                        view: other.of(&change.of(wanted.base)),
                    })
                });
                strips
                    .push(Strip { title: format!("{} x {}", a.title(), b.title()), cells: cells.collect() });
            }
            (Err(why), _) | (_, Err(why)) => notes.push(format!("{} x {}: {why}", a.title(), b.title())),
        }
    }
    (strips, notes)
}

type Values = Vec<(String, Change)>;

impl Wanted<'_> {
    /// Lists the values of a choice, the default first; the error says why there is no choice.
    fn values(&self, aspect: Aspect) -> Result<Values, String> {
        let mut values: Values = vec![(self.default(aspect), Change::Nothing)];
        values.extend(match aspect {
            Aspect::Protocol => self.others(self.protocols, &self.base.protocol, Change::Protocol),
            Aspect::Normalization => {
                let names = self.normalizations();
                self.others(&names, self.normalization, Change::Normalization)
            }
            Aspect::Pooling => {
                let own = self.model.pooling();
                let others = self.model.architecture.poolings().iter().filter(|pooling| **pooling != own);
                others.map(|pooling| (pooling.to_string(), Change::Pooling(*pooling))).collect()
            }
            Aspect::Depth => self.depths()?,
            Aspect::Stem => self.stems(),
            Aspect::Size => self.sizes()?,
            Aspect::Resize => {
                if self.model.architecture.takes_every_stored_band() {
                    return Err("the model's images are always resized by one rule".to_owned());
                }
                let own = ResizeRule::of(self.suite.align_corners);
                let others = [ResizeRule::HalfPixel, ResizeRule::AlignCorners].into_iter();
                let others = others.filter(|rule| *rule != own);
                let is_resized = self.model.side(self.task) != self.task.image_size;
                if !is_resized {
                    return Err("images have the size of the model's input".to_owned());
                }
                others.map(|rule| (rule.to_string(), Change::Resize(rule))).collect()
            }
            Aspect::Beside => match self.beside {
                Some(name) => vec![(format!("with {name}"), Change::Beside)],
                None => return Err("no second model was named (--beside)".to_owned()),
            },
            Aspect::Channels => self.channels()?,
            Aspect::Torchgeo => return Err("it changes several choices, so it cannot be crossed".to_owned()),
        });
        match values.len() {
            1 => Err(format!("there is only one: {}", values[0].0)),
            _ => Ok(values),
        }
    }

    /// Names the default of a choice.
    fn default(&self, aspect: Aspect) -> String {
        match aspect {
            Aspect::Protocol | Aspect::Torchgeo => self.base.protocol.clone(),
            Aspect::Normalization => self.normalization.to_owned(),
            Aspect::Pooling => self.model.pooling().to_string(),
            Aspect::Depth => self.model.architecture.blocks().unwrap_or_default().to_string(),
            Aspect::Stem => self.sensor().to_string(),
            Aspect::Size => self.model.side(self.task).to_string(),
            Aspect::Resize => ResizeRule::of(self.suite.align_corners).to_string(),
            Aspect::Beside => "alone".to_owned(),
            Aspect::Channels => "all".to_owned(),
        }
    }

    /// The sensor that the model is told of the first image.
    fn sensor(&self) -> Sensor {
        let told = |image: &TaskImage| self.model.told(self.task, image);
        self.task.sources().first().map_or(self.task.input_sensor, told)
    }

    fn others(&self, names: &[String], own: &str, change: fn(String) -> Change) -> Values {
        let others = names.iter().filter(|name| *name != own);
        others.map(|name| (name.clone(), change(name.clone()))).collect()
    }

    /// Lists the normalisations that suit the task and the model.
    fn normalizations(&self) -> Vec<String> {
        let architecture = &self.model.architecture;
        if architecture.takes_stored_pixels() {
            return Vec::new();
        }
        let mut names = vec![DATASET.to_owned(), NONE.to_owned()];
        if self.strategies.knows_bands_of(&self.task.name) {
            names.extend(BandspecKind::ALL.iter().map(ToString::to_string));
        }
        if architecture.takes_every_stored_band() {
            return names;
        }
        let swept = self.strategies.sweep(self.sensor(), self.model.normalization);
        let mut sources: Vec<&str> = Vec::new();
        for strategy in &swept {
            match strategy {
                Strategy::Statistics { source, .. } if !self.all_normalizations => {
                    if !sources.contains(&source.as_str()) {
                        sources.push(source);
                        // The middle one of the source's multipliers.
                        let of_source: Vec<&Strategy> = swept
                            .iter()
                            .filter(
                                |other| matches!(other, Strategy::Statistics { source: own, .. } if own == source),
                            )
                            .collect();
                        names.push(of_source[of_source.len() / 2].to_string());
                    }
                }
                other => names.push(other.to_string()),
            }
        }
        if swept.len() > 1 {
            names.push(SWEEP.to_owned());
        }
        names
    }

    fn depths(&self) -> Result<Values, String> {
        let kind = self.model.architecture.kind();
        let Some(blocks) = self.model.architecture.blocks() else {
            return Err(format!("no choice, as a model of kind `{kind}` has no equal blocks"));
        };
        let mut depths = vec![blocks / 4, blocks / 2, 3 * blocks / 4, blocks.saturating_sub(1)];
        depths.extend(self.depths);
        depths.sort_unstable();
        depths.dedup();
        depths.retain(|depth| (1..blocks).contains(depth));
        Ok(depths.into_iter().map(|depth| (depth.to_string(), Change::Depth(depth))).collect())
    }

    /// Lists the optical sensors that the model may be told instead of the task's.
    fn stems(&self) -> Values {
        let own = self.sensor();
        let optical = [Sensor::S2_L1C, Sensor::S2_L2A];
        if !optical.contains(&own) {
            return Vec::new();
        }
        let others =
            optical.into_iter().filter(|sensor| *sensor != own && self.model.sensors.contains_key(sensor));
        others.map(|sensor| (sensor.to_string(), Change::Stem(sensor))).collect()
    }

    /// Lists input sizes: half of the default, the stored size, 224, each rounded to whole patches, and those asked for.
    fn sizes(&self) -> Result<Values, String> {
        let own = self.model.side(self.task);
        let strides: Vec<usize> = self.model.architecture.maps().iter().map(|map| map.stride).collect();
        let step = match strides.iter().max() {
            Some(step) => *step,
            None if self.model.architecture.takes_every_stored_band() => 1,
            None if self.sizes.is_empty() => {
                return Err("the sizes that the model takes are not known (name some with --size)".to_owned());
            }
            None => 1,
        };
        let rounded = |side: usize| ((side + step / 2) / step * step).max(step);
        let mut sizes = vec![rounded(own / 2), rounded(self.task.image_size), rounded(224)];
        sizes.retain(|side| *side <= own.max(224));
        sizes.extend(self.sizes);
        sizes.sort_unstable();
        sizes.dedup();
        sizes.retain(|side| *side != own);
        Ok(sizes.into_iter().map(|side| (side.to_string(), Change::Size(side))).collect())
    }

    /// Lists red, green and blue, and all bands but one.
    fn channels(&self) -> Result<Values, String> {
        if self.model.architecture.takes_every_stored_band() {
            return Err("the model takes every stored band".to_owned());
        }
        let sources = self.task.sources();
        let source = sources.first().ok_or_else(|| "the task has no image".to_owned())?;
        let taken = self.model.taken(self.task, source).map_err(|error| error.to_string())?;
        let bands = match taken.matches {
            [] => taken.input.bands.clone(),
            matches => matches.iter().map(|pair| pair.target).collect(),
        };
        let mut values = Vec::new();
        if [Band::B04, Band::B03, Band::B02].iter().all(|band| bands.contains(band)) {
            values.push(("rgb".to_owned(), Change::Channels(Channels::Rgb)));
        }
        if bands.len() > 2 {
            values.extend(bands.iter().filter(|band| **band != Band::ZEROS).map(|left_out| {
                let rest = bands.iter().filter(|band| *band != left_out).copied().collect();
                (format!("without {left_out}"), Change::Channels(Channels::Named(rest)))
            }));
        }
        Ok(values)
    }

    /// Applies torchgeo-bench's choices one after the other, so that the last cell is its number.
    fn towards_torchgeo(&self) -> Result<Vec<StripCell>, String> {
        const PROTOCOL: &str = "torchgeo-knn";
        if !self.strategies.knows_bands_of(&self.task.name) {
            return Err(format!(
                "torchgeo-bench's statistics of the bands of {} are not known",
                self.task.name
            ));
        }
        if !self.protocols.iter().any(|name| name == PROTOCOL) {
            return Err(format!("{PROTOCOL} does not score the task"));
        }
        let mut changes = vec![(format!("start: {}", self.base.protocol), Change::Nothing)];
        if let Some((name, change)) =
            self.stems().into_iter().find(|(name, _)| *name == Sensor::S2_L2A.name())
        {
            changes.push((format!("+ sensor {name}"), change));
        }
        let takes_stored = self.model.architecture.takes_stored_pixels();
        if self.normalization != BANDSPEC_ZSCORE && !takes_stored {
            let change = Change::Normalization(BANDSPEC_ZSCORE.to_owned());
            changes.push((format!("+ {BANDSPEC_ZSCORE}"), change));
        }
        let resize = Change::Resize(ResizeRule::HalfPixel);
        if self.suite.align_corners {
            changes.push(("+ half-pixel".to_owned(), resize));
        }
        if self.model.side(self.task) != 224 {
            changes.push(("+ input of 224".to_owned(), Change::Size(224)));
        }
        if self.base.protocol != PROTOCOL {
            changes.push((format!("+ {PROTOCOL}"), Change::Protocol(PROTOCOL.to_owned())));
        }
        let mut view = self.base.clone();
        let step = |(label, change): (String, Change)| {
            view = change.of(&view);
            StripCell { label, is_default: change == Change::Nothing, view: view.clone() }
        };
        Ok(changes.into_iter().map(step).collect())
    }
}

/// Returns the protocols on frozen features that fit the model and the task, and those that would train the encoder.
///
/// # Errors
/// If a protocol's file cannot be read.
pub fn fitting_protocols(
    home: &Home,
    suite: &Suite,
    task: &Task,
    model: &ModelConfig,
) -> Result<(Vec<String>, Vec<String>)> {
    let (mut fitting, mut training) = (Vec::new(), Vec::new());
    for name in home.names("configs/protocols")? {
        let protocol = ProtocolConfig::load(home, &name)?;
        let choice = plan::Choice {
            tasks: vec![task.name.clone()],
            protocols: vec![name.clone()],
            ..plan::Choice::default()
        };
        if plan::plan(suite, model, &choice, |_| Ok((name.clone(), protocol.clone()))).is_err() {
            continue;
        }
        if protocol.needs().trains_encoder() { training.push(name) } else { fitting.push(name) }
    }
    Ok((fitting, training))
}

impl fmt::Display for View {
    /// Formats what differs from model and suite, for messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = Vec::new();
        told.extend(self.normalization.clone());
        told.extend(self.pooling.map(|pooling| format!("pooling {pooling}")));
        told.extend(self.depth.map(|depth| format!("after block {depth}")));
        told.extend(self.stem.map(|sensor| format!("sensor {sensor}")));
        told.extend(self.size.map(|side| format!("input {side} x {side}")));
        told.extend(self.resize.map(|rule| rule.to_string()));
        told.extend(self.beside.then(|| "beside the second model".to_owned()));
        told.extend((self.channels != Channels::All).then(|| format!("channels {}", self.channels)));
        f.write_str(&if told.is_empty() { "defaults".to_owned() } else { told.join(", ") })
    }
}
