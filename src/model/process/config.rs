//! How an encoder process is started, and what it gives.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::model::architecture::{Outside, Sizes};
use crate::model::config::SensorInput;
use crate::model::encoder::{Encoder, Pooling};
use crate::nn::heads::upernet::MapLevel;
use crate::task::{Sensor, Sensors};
use crate::{Error, Result};

/// An encoder process, as in a model's TOML.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ProcessConfig {
    /// The program and its arguments.
    #[serde(default)]
    pub command: Vec<String>,
}

impl Sizes for ProcessConfig {
    fn problem(&self) -> Option<String> {
        let empty = self.command.first().is_none_or(String::is_empty);
        empty.then(|| "command: expected a program and its arguments, found none".to_owned())
    }

    fn poolings(&self) -> &'static [Pooling] {
        &[Pooling::Head]
    }

    fn maps(&self) -> Vec<MapLevel> {
        Vec::new()
    }
}

impl Outside for ProcessConfig {
    fn complete(&mut self, _: &Path, _: &Sensors) -> Result<()> {
        Ok(())
    }

    fn identity(&self) -> Result<Option<String>> {
        Ok(None)
    }

    fn open(&self, _: &BTreeMap<Sensor, SensorInput>, _: &Device) -> Result<Box<dyn Encoder>> {
        Err(Error::request("encoder processes are not supported yet"))
    }
}
