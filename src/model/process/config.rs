//! How an encoder process is started, and which images it takes.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::{Command, ProcessEncoder};
use crate::Result;
use crate::model::architecture::{Outside, Sizes};
use crate::model::config::SensorInput;
use crate::model::encoder::{Encoder, Pooling};
use crate::nn::heads::upernet::MapLevel;
use crate::task::{Sensor, Sensors};

/// Seconds without an answer after which an encoder process counts as hanging.
pub const TIME_LIMIT: u64 = 600;

/// An encoder process, as in a model's TOML.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ProcessConfig {
    /// The program and its arguments. A file named in it is looked for in the working directory, then beside the TOML.
    pub command: Command,
    /// Whether bands that the files lack are left out, instead of being replaced or reported.
    #[serde(default)]
    pub any_bands: bool,
    /// Seconds without an answer after which the process counts as hanging. A label: it changes no number.
    #[serde(default = "time_limit", skip_serializing)]
    pub time_limit: u64,
    /// The command with the paths of files beside the TOML.
    #[serde(skip)]
    resolved: Option<Command>,
    /// The descriptions of the bands.
    #[serde(skip)]
    sensors: Option<Sensors>,
}

fn time_limit() -> u64 {
    TIME_LIMIT
}

impl ProcessConfig {
    /// Describes the encoder that `command` starts.
    pub fn new(command: Command, any_bands: bool, time_limit: u64) -> Self {
        ProcessConfig { command, any_bands, time_limit, resolved: None, sensors: None }
    }
}

impl Sizes for ProcessConfig {
    fn problem(&self) -> Option<String> {
        if self.time_limit == 0 {
            return Some("time-limit: expected seconds above 0, found 0".to_owned());
        }
        match &self.command {
            Command::Words(words) if words.first().is_none_or(String::is_empty) => {
                Some("command: expected a program and its arguments, found none".to_owned())
            }
            _ => None,
        }
    }

    fn poolings(&self) -> &'static [Pooling] {
        &[Pooling::Head]
    }

    /// Only the process knows its maps.
    fn maps(&self) -> Vec<MapLevel> {
        Vec::new()
    }

    fn states_maps(&self) -> bool {
        false
    }

    fn takes_any_bands(&self) -> bool {
        self.any_bands
    }
}

impl Outside for ProcessConfig {
    fn complete(&mut self, folder: &Path, sensors: &Sensors) -> Result<()> {
        self.resolved = Some(self.command.resolved(folder));
        self.sensors = Some(sensors.clone());
        Ok(())
    }

    fn identity(&self) -> Result<Option<String>> {
        Ok(None)
    }

    fn open(&self, _: &BTreeMap<Sensor, SensorInput>, _: &Device) -> Result<Box<dyn Encoder>> {
        let resolved = self.resolved.as_ref().unwrap_or(&self.command).clone();
        let limit = Duration::from_secs(self.time_limit);
        Ok(Box::new(ProcessEncoder::new(self.command.clone(), resolved, self.sensors.clone(), limit)))
    }
}
