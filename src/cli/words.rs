//! The words of a command line that affect numbers: what a record says of the command that made it.

use std::path::Path;

use clap::ValueEnum;

use super::args::{self, BenchArgs, DataArgs, ModelArgs, OwnEncoderArgs, SpreadArgs};
use crate::run::command::portable;

/// Words of a command line.
#[derive(Default)]
struct Words(Vec<String>);

impl Words {
    fn flag(&mut self, option: &str, is_set: bool) {
        if is_set {
            self.0.push(option.to_owned());
        }
    }

    fn option(&mut self, option: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.0.extend([option.to_owned(), value.to_string()]);
        }
    }

    fn each(&mut self, option: &str, values: &[impl ToString]) {
        values.iter().for_each(|value| self.option(option, Some(value.to_string())));
    }

    /// An option that is left out if it has its default.
    fn choice<V: ValueEnum + PartialEq>(&mut self, option: &str, value: V, default: V) {
        if value != default {
            let name = value.to_possible_value().map(|value| value.get_name().to_owned());
            self.option(option, name);
        }
    }

    fn data(&mut self, data: &DataArgs) {
        // A new field must be assigned to one side here: those that affect numbers are recorded.
        let DataArgs { data: _, bands, missing_bands, channels, sensor, verify: _ } = data;
        self.choice("--bands", *bands, args::BandNames::AsNamed);
        self.choice("--missing-bands", *missing_bands, args::MissingBands::AsTask);
        self.option("--channels", Some(channels).filter(|channels| *channels != "all"));
        let sensor = sensor.and_then(|sensor| sensor.to_possible_value());
        self.option("--sensor", sensor.map(|sensor| sensor.get_name().to_owned()));
    }

    fn model(&mut self, model: &ModelArgs) {
        let ModelArgs {
            model,
            weights,
            allow_partial,
            device,
            precision,
            deterministic,
            profile: _,
            batch_size: _,
            threads: _,
            normalization,
            inputs,
            pooling,
            no_cache: _,
            own,
            ..
        } = model;
        self.option("--model", model.as_deref().map(portable));
        self.option("--weights", weights.as_deref().map(portable));
        self.flag("--allow-partial", *allow_partial);
        self.option("--device", Some(device).filter(|device| *device != "flex"));
        self.choice("--precision", *precision, args::PrecisionArg::F32);
        self.flag("--deterministic", *deterministic);
        self.option("--normalization", Some(normalization).filter(|name| *name != "default"));
        self.choice("--inputs", *inputs, args::InputsArg::AsPublished);
        let pooling = pooling.and_then(|pooling| pooling.to_possible_value());
        self.option("--pooling", pooling.map(|pooling| pooling.get_name().to_owned()));
        let OwnEncoderArgs {
            encoder,
            name,
            backbone,
            input_bands,
            input_impute,
            input_size,
            encoder_timeout: _,
        } = own;
        self.option("--encoder", encoder.as_ref());
        self.option("--name", name.as_ref());
        self.option("--backbone", backbone.as_ref());
        self.each("--input-bands", input_bands);
        self.each("--input-impute", input_impute);
        self.option("--input-size", input_size.as_ref());
    }
}

fn path(path: &Path) -> String {
    portable(&path.to_string_lossy())
}

/// The words of `bench` that affect numbers, without those that choose a cell.
pub(super) fn words_of_bench(args: &BenchArgs) -> Vec<String> {
    // A new field must be assigned to one side here.
    let BenchArgs {
        suite,
        demo,
        demo_seed,
        tasks: _,
        partitions: _,
        protocols: _,
        seeds: _,
        epochs,
        learning_rates,
        limit,
        out: _,
        cache_limit: _,
        fresh: _,
        dry_run: _,
        features,
        sharing: _,
        data,
        model,
    } = args;
    let mut words = Words(vec!["bench".to_owned(), suite.clone()]);
    words.flag("--demo", *demo);
    words.option("--demo-seed", Some(demo_seed).filter(|seed| **seed != 0));
    words.option("--epochs", *epochs);
    if !learning_rates.is_empty() {
        let rates: Vec<String> = learning_rates.iter().map(f64::to_string).collect();
        words.option("--learning-rates", Some(rates.join(",")));
    }
    words.option("--limit", *limit);
    words.option("--features", features.as_deref().map(path));
    words.data(data);
    words.model(model);
    words.0
}

/// The words of `spread` that affect numbers.
pub(super) fn words_of_spread(args: &SpreadArgs) -> Vec<String> {
    // A new field must be assigned to one side here.
    let SpreadArgs {
        suite,
        demo,
        task,
        partition,
        protocol,
        vary,
        cross,
        channels,
        depths,
        sizes,
        all_normalizations,
        beside,
        beside_weights,
        dry_run: _,
        seed,
        out: _,
        fresh: _,
        data: _,
        bands,
        model,
    } = args;
    let mut words = Words(vec!["spread".to_owned()]);
    words.option("--suite", Some(suite));
    words.flag("--demo", *demo);
    words.option("--task", Some(task));
    words.option("--partition", Some(partition));
    words.option("--protocol", protocol.as_deref().map(portable));
    words.each("--vary", vary);
    words.each("--cross", cross);
    words.flag("--channels", *channels);
    words.each("--depth", depths);
    words.each("--size", sizes);
    words.flag("--all-normalizations", *all_normalizations);
    words.option("--beside", beside.as_deref().map(portable));
    words.option("--beside-weights", beside_weights.as_deref().map(portable));
    words.option("--seed", Some(seed));
    words.choice("--bands", *bands, args::BandNames::AsNamed);
    words.model(model);
    words.0
}
