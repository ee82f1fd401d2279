//! The protocols: a line each.

use serde::{Deserialize, Serialize};

use super::Protocol;
use crate::config::{
    ClusteringConfig, FinetuneConfig, KnnConfig, LinearProbeConfig, LogisticConfig, RetrievalConfig,
    RidgeConfig, SegmentationProbeConfig, Shortening, UpernetConfig,
};
use crate::home::{Home, config_name, read_toml};
use crate::{Error, Result};

/// Makes the enum of all protocols and its way to their common interface.
macro_rules! protocols {
    ($($variant:ident($config:ty)),* $(,)?) => {
        /// A protocol with all its hyper-parameters (`configs/protocols/*.toml`).
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "kind", rename_all = "kebab-case")]
        pub enum ProtocolConfig {
            $(#[doc = concat!("See [`", stringify!($config), "`].")] $variant($config)),*
        }

        impl std::ops::Deref for ProtocolConfig {
            type Target = dyn Protocol;

            fn deref(&self) -> &Self::Target {
                match self { $(ProtocolConfig::$variant(config) => config),* }
            }
        }

        impl std::ops::DerefMut for ProtocolConfig {
            fn deref_mut(&mut self) -> &mut Self::Target {
                match self { $(ProtocolConfig::$variant(config) => config),* }
            }
        }
    };
}

protocols! {
    Knn(KnnConfig),
    LinearProbe(LinearProbeConfig),
    Logistic(LogisticConfig),
    Ridge(RidgeConfig),
    Retrieval(RetrievalConfig),
    Clustering(ClusteringConfig),
    Finetune(FinetuneConfig),
    SegmentationProbe(SegmentationProbeConfig),
    Upernet(UpernetConfig),
}

impl ProtocolConfig {
    /// Reads `configs/protocols/<name>.toml`, or the file at the path `name`.
    ///
    /// # Errors
    /// If there is no such file, it has unknown keys, or a value is out of its range.
    pub fn load(home: &Home, name: &str) -> Result<Self> {
        Self::load_named(home, name).map(|(_, protocol)| protocol)
    }

    /// Like [`ProtocolConfig::load`], with the protocol's name: that of its file, whichever path was typed.
    ///
    /// # Errors
    /// Like [`ProtocolConfig::load`].
    pub fn load_named(home: &Home, name: &str) -> Result<(String, Self)> {
        let path = home.config("protocols", name)?;
        let protocol: ProtocolConfig = read_toml(&path)?;
        match protocol.problem() {
            Some(problem) => Err(Error::damaged(path, problem)),
            None => Ok((config_name(&path), protocol)),
        }
    }

    /// The same protocol, shorter. It is marked as short if that changes anything.
    ///
    /// # Errors
    /// If the protocol (called `name`) trains nothing, or a value is out of its range.
    pub fn shortened(self, name: &str, shortening: &Shortening) -> Result<Self> {
        if *shortening == Shortening::default() {
            return Ok(self);
        }
        let mut protocol = self.clone();
        let Some(training) = protocol.training_mut() else {
            return Err(Error::request(format!("protocol `{name}` cannot be shortened")).help(
                "--epochs, --learning-rates and --limit are for finetune, segmentation-probe and upernet",
            ));
        };
        training.epochs = shortening.epochs.unwrap_or(training.epochs);
        if !shortening.learning_rates.is_empty() {
            training.learning_rates.clone_from(&shortening.learning_rates);
            training.task_learning_rates.clear();
        }
        training.limit = shortening.limit.or(training.limit);
        let is_shorter = protocol != self;
        if let Some(training) = protocol.training_mut() {
            training.short |= is_shorter;
        }
        match protocol.problem() {
            Some(problem) => Err(Error::mismatch(format!("protocol `{name}`, shortened: {problem}"))),
            None => Ok(protocol),
        }
    }

    /// The largest number of samples per split that it looks at.
    pub fn limit(&self) -> Option<usize> {
        self.training().and_then(|training| training.limit)
    }

    /// Whether the command line made it shorter than its file says.
    pub fn is_short(&self) -> bool {
        self.training().is_some_and(|training| training.short)
    }

    /// Returns the protocol with the settings that `task` has of its own.
    #[must_use]
    pub fn suited_to(&self, task: &str) -> Self {
        let mut protocol = self.clone();
        protocol.suit(task);
        protocol
    }

    /// The part that decides numbers on `task`: all but the settings of other tasks.
    #[must_use]
    pub fn deciding(&self, task: &str) -> Self {
        let mut protocol = self.clone();
        protocol.keep_deciding(task);
        if let Some(training) = protocol.training_mut() {
            training.keep_rates_of(task);
        }
        protocol
    }
}
