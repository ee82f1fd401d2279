//! `models`: lists the available models, what they take and where their weights are.

use std::collections::BTreeMap;

use burn::tensor::Device;
use serde::Serialize;

use super::args::ModelsArgs;
use crate::home::Home;
use crate::locations::Environment;
use crate::model::Architecture;
use crate::model::Encoder;
use crate::model::config::{ModelConfig, Parity, WeightsSource};
use crate::task::Sensor;
use crate::{Error, Result, console, remedy};

/// What is known about a model without its weights.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Listed {
    /// Name for `--model`.
    name: String,
    /// Name as in the published tables.
    title: String,
    /// Bands per sensor.
    sensors: BTreeMap<Sensor, Vec<String>>,
    /// Side in pixels to which images are resized, or `native`.
    image: String,
    /// Names for `--pooling`, the architecture's default first.
    poolings: Vec<String>,
    /// Number of feature maps for dense tasks.
    maps: usize,
    /// Total number of parameters.
    parameters: usize,
    /// Length of a pooled feature; none if it depends on the bands.
    width: Option<usize>,
    /// What to say of a width that depends on the bands, or on an encoder that has not been opened.
    #[serde(skip)]
    unknown_width: &'static str,
    /// Path of the fetched weights, or the command that fetches them.
    weights: String,
    /// Where the weights are published.
    #[serde(skip_serializing_if = "Option::is_none")]
    published_at: Option<String>,
    /// Licence of the weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    licence: Option<String>,
    /// Where the licence is stated.
    #[serde(skip_serializing_if = "Option::is_none")]
    licence_source: Option<String>,
    /// Largest difference to the original code's outputs.
    #[serde(skip_serializing_if = "Option::is_none")]
    parity: Option<Parity>,
}

/// Runs the command.
///
/// # Errors
/// If a model's file cannot be read.
pub fn run(home: &Home, args: &ModelsArgs) -> anyhow::Result<()> {
    let environment = Environment::here();
    let names = home.names("configs/models")?;
    let listed = names.iter().map(|name| listed(home, &environment, name)).collect::<Result<Vec<_>>>()?;
    if args.json {
        let lines = listed.iter().map(serde_json::to_string).collect::<Result<Vec<String>, _>>();
        console::print(lines.map_err(Error::request)?.join("\n") + "\n")?;
        return Ok(());
    }
    let texts: Vec<String> = listed.iter().map(Listed::text).collect();
    console::print(texts.concat())?;
    Ok(())
}

impl Listed {
    /// Formats the model in a few lines.
    fn text(&self) -> String {
        let sensors: Vec<String> =
            self.sensors.iter().map(|(sensor, bands)| format!("{sensor} ({})", bands.join(" "))).collect();
        let width = self.width.map_or(self.unknown_width.to_owned(), |width| width.to_string());
        let mut text = format!(
            "{}\n  {}; {} parameters; features of {width}; images of {}; {} maps\n",
            self.name,
            self.title,
            millions(self.parameters),
            self.image,
            self.maps
        );
        if !sensors.is_empty() {
            text += &format!("  sensors: {}\n", sensors.join(", "));
            text += &format!("  pooling: {}\n", self.poolings.join(", "));
        }
        text += &format!("  weights: {}\n", self.weights);
        if let Some(published) = &self.published_at {
            let licence = self.licence.as_deref().unwrap_or("not stated in the model's file");
            let stated = self.licence_source.as_ref().map_or(String::new(), |source| format!(" ({source})"));
            text += &format!("  published: {published}\n  licence: {licence}{stated}\n");
        }
        if let Some(Parity { difference, of, original, test }) = &self.parity {
            text += &format!("  parity: {difference:.1e} at most to {original} ({of}; {test})\n");
        }
        text
    }
}

fn listed(home: &Home, environment: &Environment, name: &str) -> Result<Listed> {
    let model = ModelConfig::load(home, name)?;
    let (parameters, width) = if model.architecture.has_parameters() {
        // Burn initialises parameters on first use, so counting them is cheap.
        let network = Architecture::new(&model.architecture, &model.sensors, &Device::flex())?;
        let numbers = network.parameters().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
        let bands = model.sensors.values().next().map_or(0, |input| input.bands.len());
        (numbers, Some(network.width(model.pooling(), bands)))
    } else {
        (0, None)
    };
    let weights = match &model.weights {
        None if parameters == 0 => "none needed".to_owned(),
        None => "random:SEED; none are published for it".to_owned(),
        Some(source) => match environment.find_weights(source) {
            Some(path) => path.display().to_string(),
            None if source.shipped.is_some() => "come with the program".to_owned(),
            None => format!("not here: {}", remedy::fetch_weights(name)),
        },
    };
    let sensors = model
        .sensors
        .iter()
        .map(|(sensor, input)| (*sensor, input.bands.iter().map(ToString::to_string).collect()));
    Ok(Listed {
        name: name.to_owned(),
        title: format!("{} {}", model.name, model.backbone),
        sensors: sensors.collect(),
        image: model.image.to_string(),
        poolings: model.architecture.poolings().iter().map(ToString::to_string).collect(),
        maps: model.architecture.maps().len(),
        parameters,
        width,
        unknown_width: match model.architecture.outside() {
            Some(_) => "a width that the encoder says",
            None => "4 per band",
        },
        weights,
        published_at: model.weights.as_ref().map(WeightsSource::whereabouts),
        licence: model.weights.as_ref().and_then(|source| source.licence.clone()),
        licence_source: model.weights.as_ref().and_then(|source| source.licence_source.clone()),
        parity: model.parity,
    })
}

/// Formats a count as `86.1 million`.
fn millions(count: usize) -> String {
    if count == 0 { "no".to_owned() } else { format!("{:.1} million", count as f64 / 1e6) }
}
