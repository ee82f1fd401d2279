//! Checks the published weights that were fetched.

use std::path::Path;

use super::{Area, Finding, Measured, Standing};
use crate::error::AtPath;
use crate::fetch::checksum::Checksums;
use crate::fetch::ledger::{self, Line};
use crate::fetch::{catalogue, gigabytes};
use crate::formats::checkpoint;
use crate::home::Home;
use crate::locations::{Environment, Location, weights_path};
use crate::model::config::ModelConfig;
use crate::{Error, Result, remedy};

/// Checks the weights of every model in `configs/models/` that has published ones.
pub fn examine(home: &Home, environment: &Environment) -> Vec<Finding> {
    home.names("configs/models")
        .unwrap_or_default()
        .iter()
        .filter_map(|name| of_model(home, environment, name))
        .collect()
}

fn of_model(home: &Home, environment: &Environment, name: &str) -> Option<Finding> {
    let finding = |standing, found: String| Finding::new(Area::Weights, name, standing, found);
    let broken = |error| Finding::of_error(Area::Weights, name, Standing::Broken, &error);
    let model = match ModelConfig::load(home, name) {
        Ok(model) => model,
        Err(error) => return Some(broken(error)),
    };
    let source = model.weights.as_ref()?;
    let Some(Location { folder, .. }) = environment.place_of_weights(source) else {
        let absent = finding(Standing::Absent, format!("not fetched ({})", source.whereabouts()));
        return Some(absent.remedy(remedy::fetch_weights(name)));
    };
    let path = weights_path(&folder, source);
    let line = line(&folder, name, &model);
    let examined = line.and_then(|line| Ok((whole(&path, line.as_ref())?, line)));
    let finding = match examined {
        Ok(((bytes, blake3), line)) => {
            let from = match &line {
                Some(line) => format!("{}, as fetched", line.checksum),
                None => "not fetched by `cargo xtask fetch`, so not verified".to_owned(),
            };
            let fetched = line.map(|line| line.checksum);
            finding(Standing::Good, format!("{}, blake3:{blake3}; {from}", gigabytes(bytes)))
                .measured(Measured::Weights { bytes, blake3, fetched })
        }
        Err(error) => {
            let again = remedy::fetch_weights(name);
            broken(error).remedy(format!("rm {} && {again}", remedy::path(&path)))
        }
    };
    Some(finding.at(&path))
}

/// Returns the ledger's line about the weights in `folder`.
fn line(folder: &Path, name: &str, model: &ModelConfig) -> Result<Option<Line>> {
    let order = catalogue::weights(name, model)?;
    let source = order.parts.first().and_then(|part| part.sources.first());
    let mut lines = ledger::read(folder)?;
    Ok(source.and_then(|source| lines.remove(source.to.as_ref()?)))
}

/// Returns size and BLAKE3 hash of a weight file, after checking that it is what was fetched and can be opened.
fn whole(path: &Path, line: Option<&Line>) -> Result<(u64, String)> {
    let bytes = path.metadata().at(path)?.len();
    if let Some(line) = line {
        if bytes != line.size {
            return Err(Error::damaged(
                path,
                format!("expected {} bytes as fetched, found {bytes}", line.size),
            ));
        }
        // An unknown kind of hash cannot be checked.
        if let Some(expected) = Checksums::of_identity(&line.checksum) {
            expected.hold(path, bytes, &|_| ())?.at(path)?;
        }
    }
    checkpoint::open(path)?;
    Ok((bytes, checkpoint::hash(path)?))
}
