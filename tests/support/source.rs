//! Protocols on features that a test makes up.

use burn::module::Module;
use terrabench::Result;
use terrabench::config::{EncoderUse, UpernetConfig};
use terrabench::features::Features;
use terrabench::features::maps::{MapSource, MapStore};
use terrabench::features::source::{FeatureSource, FeatureView};
use terrabench::features::tiles::Tokens;
use terrabench::protocol::{Protocol, Session, TrainingSetup, upernet};
use terrabench::score::Outcome;
use terrabench::task::{Split, Task};

struct Pooled<F> {
    strategies: Vec<String>,
    pooled: F,
}

impl<F: FnMut(FeatureView) -> Result<Features>> FeatureSource for Pooled<F> {
    fn strategies(&self) -> Vec<String> {
        self.strategies.clone()
    }

    fn pooled(&mut self, view: FeatureView) -> Result<Features> {
        (self.pooled)(view)
    }
}

struct OfTokens<F> {
    strategies: Vec<String>,
    tokens: F,
}

impl<F: FnMut(usize, Split) -> Result<Tokens>> FeatureSource for OfTokens<F> {
    fn strategies(&self) -> Vec<String> {
        self.strategies.clone()
    }

    fn pooled(&mut self, _: FeatureView) -> Result<Features> {
        panic!("the protocol asks for tokens");
    }

    fn tokens(&mut self, strategy: usize, split: Split, _: usize, _: Option<usize>) -> Result<Tokens> {
        (self.tokens)(strategy, split)
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Runs a protocol on the vectors that `pooled` gives.
pub fn run_on_features(
    protocol: &dyn Protocol,
    task: &Task,
    seed: u64,
    strategies: &[&str],
    pooled: impl FnMut(FeatureView) -> Result<Features>,
) -> Result<Outcome> {
    let mut source = Pooled { strategies: owned(strategies), pooled };
    protocol.run(Session { task, seed, source: Some(&mut source), setup: None, accelerator: None })
}

/// Runs a protocol on the patch tokens that `tokens` gives.
pub fn run_on_tokens(
    protocol: &dyn Protocol,
    task: &Task,
    seed: u64,
    strategies: &[&str],
    tokens: impl FnMut(usize, Split) -> Result<Tokens>,
) -> Result<Outcome> {
    let mut source = OfTokens { strategies: owned(strategies), tokens };
    protocol.run(Session { task, seed, source: Some(&mut source), setup: None, accelerator: None })
}

/// Runs UPerNet on the setup's encoder, whose maps are kept in `limit` bytes of memory and on disk if it is frozen.
pub fn run_upernet(config: &UpernetConfig, seed: u64, setup: &TrainingSetup, limit: u64) -> Result<Outcome> {
    let frozen = (config.encoder == EncoderUse::Frozen).then(|| {
        let encoder = setup.trained().unwrap().valid().frozen();
        let device = setup.device.clone().inner();
        MapSource::keeping(encoder, setup.input.spec(), device, MapStore::new(limit))
    });
    upernet::run(config, seed, setup, frozen)
}
