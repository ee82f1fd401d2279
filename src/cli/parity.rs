//! `parity`: compares the features of a model here with those of its original in another process.

use std::process::ExitCode;

use super::args::{ParityArgs, WantArg};
use super::progress::Shown;
use super::{data_folder, input_options, model_named, set_threads, suite, weights_named};
use crate::config::KnnConfig;
use crate::console;
use crate::demo;
use crate::device;
use crate::features::{Agreed, Input};
use crate::gate::parity::{Difference, Sides, Votes};
use crate::home::{Home, cache_folder};
use crate::model::process::{Command, OwnEncoder, TIME_LIMIT};
use crate::model::weights::Weights;
use crate::model::{self, Want};
use crate::protocol::ProtocolConfig;
use crate::score::subset::subset;
use crate::task::{Sensors, Split};
use crate::{Error, Result};

/// Runs the command. Exits with 0 if the features are the same, 1 if they differ, and 2 if they cannot be compared.
pub fn run(home: &Home, args: &ParityArgs) -> ExitCode {
    match compared(home, args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            console::note(format_args!("error: {error}"));
            ExitCode::from(2)
        }
    }
}

/// Compares and prints. Returns whether the features are the same.
fn compared(home: &Home, args: &ParityArgs) -> Result<bool> {
    let suite = suite(home, &args.suite, &args.data)?;
    let task = suite.task(&args.task)?;
    let typed = args.model.model.as_deref().unwrap_or(if args.demo { "demo" } else { "terrafm-b" });
    let model = model_named(home, typed, &suite, &args.model)?;
    let weights = weights_named(home, typed, &model, args.model.weights.as_deref())?;
    super::make_deterministic(&args.model)?;
    let device = device::by_name(&args.model.device)?;
    set_threads(args.model.threads)?;
    let data = match args.demo {
        true => demo::provide_for(&suite, &[&task.name], &cache_folder()?, 0)?,
        false => data_folder(&suite, args.data.data.as_ref(), &[&task.name])?,
    };
    let input = Input::open(
        &suite,
        task,
        &args.partition,
        &data,
        &model,
        &input_options(home, &args.data, &args.model)?,
    )?;
    input.only()?;
    let loaded = model::load(&model, &weights, args.model.allow_partial, &device)?;

    let command: Command = args.against.parse()?;
    let own = OwnEncoder {
        command: command.clone(),
        name: None,
        backbone: None,
        bands: None,
        size: model.image,
        time_limit: args.model.own.encoder_timeout.unwrap_or(TIME_LIMIT),
    };
    let theirs = model::load(&own.config(&Sensors::load(home)?)?, &Weights::None, false, &device)?;
    let wants: Vec<Want> = args.wants.iter().map(|want| want.of(&input)).collect();
    let first = wants.first().copied().unwrap_or(Want::Pooled(input.pooling));
    let (fuses, size, normalization) = (input.fused, input.image_size(), input.normalization.clone());
    let with = |encoder, input| {
        let asked = &args.model.normalization;
        Agreed::negotiate(
            encoder,
            &suite,
            input,
            first,
            super::batch_sizes(&args.model).given_or_small(),
            asked,
        )
        .map_err(|(error, _)| error)
    };
    let mut agreed = with(theirs.encoder.as_ref(), input)?;
    if (agreed.input.image_size(), &agreed.input.normalization) != (size, &normalization) {
        return Err(Error::mismatch(
            "both sides must get the same pixels, but the process takes stored ones",
        )
        .help("let it answer \"pixels\":\"float32\""));
    }
    // One image per sample is neither combined nor fused.
    if agreed.input.images.len() > 1 && agreed.input.fused != fuses {
        return Err(Error::mismatch("one side takes all images of a sample at once, the other one by one")
            .help(
                "let the process answer \"fuses\" as the model here does, or choose a task of one sensor",
            ));
    }
    let mut weights_id = loaded.weights_id;
    if loaded.encoder.remote().is_some() {
        agreed = with(loaded.encoder.as_ref(), agreed.input)?;
        weights_id.clone_from(&agreed.weights);
    }
    let input = &agreed.input;
    let sides = Sides {
        ours: loaded.encoder.as_ref(),
        theirs: theirs.encoder.as_ref(),
        input,
        strategy: input.only()?,
        device: &device,
        batch_size: super::batch_sizes(&args.model).given_or_small(),
    };
    console::tell(format_args!(
        "{} {}, {}, against `{command}`\n{} of {}{}: {} pixels, normalisation {}\n",
        model.name,
        model.backbone,
        weights_id,
        task.name,
        suite.title,
        if args.demo { ", generated data" } else { "" },
        input.image_size(),
        input.normalization,
    ));
    let mut same = true;
    for want in wants {
        same &= one(home, args, &sides, want)?;
    }
    let verdict = if same { "the same features" } else { "DIFFERENT features" };
    console::tell(format_args!("verdict: {verdict} (tolerance {} of the largest)\n", args.tolerance));
    Ok(same)
}

/// Compares one kind of features and prints what was found.
fn one(home: &Home, args: &ParityArgs, sides: &Sides, want: Want) -> Result<bool> {
    let indices = |split| subset(sides.input.dataset.samples(split).len(), Some(args.limit));
    let progress = Shown::new(&sides.input.task.name);
    let test = sides.features(Split::Test, &indices(Split::Test), want, &progress)?;
    let difference = Difference::of(&test)?;
    let name = match want {
        Want::Pooled(pooling) => format!("pooled ({pooling})"),
        Want::Tokens => "tokens".to_owned(),
        Want::Maps => "maps".to_owned(),
    };
    let Difference { largest, sample, feature, values: [ours, theirs], .. } = &difference;
    console::tell(format_args!(
        "{name}: {} numbers of {} test samples; largest difference {largest:.2e}, {:.2e} of the largest number\n  \
         at {sample}, number {feature}: {ours} here, {theirs} there\n",
        test.ours.ncols(),
        test.samples.len(),
        difference.relative(),
    ));
    let mut same = difference.is_within(args.tolerance);
    if matches!(want, Want::Pooled(_)) {
        let train = sides.features(Split::Train, &indices(Split::Train), want, &progress)?;
        let ProtocolConfig::Knn(config) = ProtocolConfig::load(home, "knn")? else {
            return Err(Error::mismatch("configs/protocols/knn.toml is of another kind"));
        };
        if let Some(votes) = Votes::of(&config, sides.input.task.classes, &train, &test)? {
            let Votes { equal, all } = votes;
            let KnnConfig { k, .. } = config;
            console::tell(format_args!(
                "  k-NN (k = {k}, {} train samples): {equal} of {all} predictions are equal\n",
                train.samples.len()
            ));
            same &= votes.are_alike();
        }
        let on_train = Difference::of(&train)?;
        same &= on_train.is_within(args.tolerance);
    }
    Ok(same)
}

impl WantArg {
    fn of(self, input: &Input) -> Want {
        match self {
            WantArg::Pooled => Want::Pooled(input.pooling),
            WantArg::Tokens => Want::Tokens,
            WantArg::Maps => Want::Maps,
        }
    }
}
