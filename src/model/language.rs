//! The language vectors of Copernicus-FM's variables: of a sensor without wavelengths it reads the name, as a vector that a
//! language model made. They are in a file of their own, beside the weights.

use std::path::{Path, PathBuf};

use rand::Rng;

use super::architecture::{Architecture, ArchitectureConfig};
use super::config::ModelConfig;
use super::copernicus_fm::{CopernicusFm, LANGUAGE_WIDTH};
use super::sensor_input::SensorInput;
use super::weights::Weights;
use crate::formats::checkpoint;
use crate::random::stream;
use crate::task::Sensor;
use crate::{Error, Result};

/// The sensors whose names `config` is given as vectors, each with its name in the file of vectors, and that file's name.
fn variables<'a>(config: &'a ModelConfig) -> Option<(&'a str, Vec<(Sensor, &'a str)>)> {
    let ArchitectureConfig::CopernicusFm(sizes) = &config.architecture else { return None };
    let file = sizes.language_vectors.as_deref()?;
    let variable = |(sensor, input): (&Sensor, &'a SensorInput)| Some((*sensor, input.variable.as_deref()?));
    let variables = config.sensors.iter().filter_map(variable).collect();
    Some((file, variables))
}

/// Sets the language vectors of `network`: from the file beside the weights, or drawn if these are random.
///
/// # Errors
/// If the file does not exist, cannot be read, or lacks a variable.
pub(super) fn with_vectors(
    mut network: Architecture,
    config: &ModelConfig,
    weights: &Weights,
) -> Result<Architecture> {
    let (Architecture::CopernicusFm(model), Some((file, variables))) = (&mut network, variables(config))
    else {
        return Ok(network);
    };
    match weights {
        Weights::Random(seed) => {
            for (place, (sensor, _)) in (0..).zip(variables) {
                let mut random = stream(*seed, u64::MAX - place);
                let vector = (0..LANGUAGE_WIDTH).map(|_| random.random_range(-1.0..1.0)).collect();
                model.set_language_vector(sensor, vector)?;
            }
        }
        Weights::File(weights) => set_from_file(model, &path(weights, file)?, &variables)?,
        Weights::None => {}
    }
    Ok(network)
}

fn set_from_file(model: &mut CopernicusFm, path: &Path, variables: &[(Sensor, &str)]) -> Result<()> {
    let stored = checkpoint::open(path)?;
    for (sensor, name) in variables {
        let found = stored.iter().find(|stored| stored.name == *name).ok_or_else(|| {
            let known: Vec<&str> = stored.iter().map(|stored| stored.name.as_str()).collect();
            Error::damaged(path, format!("expected a language vector `{name}`, found {}", known.join(", ")))
                .help("fetch the file again, or change `variable` in the model's TOML")
        })?;
        let vector = found.read().map_err(|error| Error::damaged(path, format!("`{name}`: {error}")))?;
        if vector.iter().any(|number| !number.is_finite()) {
            return Err(Error::damaged(path, format!("`{name}`: expected finite numbers"))
                .help("the file is damaged: fetch it again"));
        }
        model.set_language_vector(*sensor, vector)?;
    }
    Ok(())
}

/// Finds the file of vectors: at its place in the repository, or right beside the weights.
fn path(weights: &Path, file: &str) -> Result<PathBuf> {
    let folder = weights.parent().unwrap_or(Path::new(""));
    let beside = Path::new(file).file_name().map(|name| folder.join(name));
    let candidates = [Some(folder.join(file)), beside];
    candidates.into_iter().flatten().find(|path| path.is_file()).ok_or_else(|| {
        Error::not_found(
            folder.join(file),
            "no such file; the model reads the names of its variables from it",
        )
        .help("fetch it with `cargo xtask fetch weights`, or put it beside the weights")
    })
}

/// Returns the identity of weights with language vectors, `blake3:<hash>+language:<hash of the vectors>`; `None` if the model
/// has no vectors, or the weights are no file.
///
/// # Errors
/// If a file does not exist or cannot be read.
pub(super) fn identity(config: &ModelConfig, weights: &Weights) -> Result<Option<String>> {
    let (Some((file, _)), Weights::File(weights)) = (variables(config), weights) else { return Ok(None) };
    let vectors = checkpoint::hash(&path(weights, file)?)?;
    Ok(Some(format!("blake3:{}+language:{vectors}", checkpoint::hash(weights)?)))
}
