//! `features`: exports the features of a split.

use std::collections::HashMap;

use safetensors::tensor::{Dtype, TensorView};

use super::args::FeaturesArgs;
use super::progress::Shown;
use super::{data_folder, feature_cache, input_options, model_named, set_threads, suite, weights_named};
use crate::console;
use crate::data::{Target, fingerprint};
use crate::device;
use crate::error::AtPath;
use crate::features::{Agreed, Extractor, FeatureBank, Features, Identity, Input};
use crate::home::Home;
use crate::model::Want;
use crate::transform::augment::Dihedral;
use crate::{Error, Result};

/// Runs the command.
pub fn run(home: &Home, args: &FeaturesArgs) -> anyhow::Result<()> {
    fingerprint::verify(args.data.verify);
    let suite = suite(home, &args.suite, &args.data)?;
    let task = suite.task(&args.task)?;
    let model_name = args.model.model.as_deref().unwrap_or("terrafm-b");
    let model = model_named(home, model_name, &suite, &args.model)?;
    let weights = weights_named(model_name, &model, args.model.weights.as_deref())?;
    let device = device::by_name(&args.model.device)?;
    let threads = set_threads(args.model.threads)?;
    let options = input_options(home, &args.data, &args.model)?;
    let data = data_folder(&suite, args.data.data.as_ref(), &[&task.name])?;
    let input = Input::open(&suite, task, &args.partition, &data, &model, &options)?;
    input.only()?;
    let loaded = crate::model::load(&model, &weights, args.model.allow_partial, &device)?;
    let (input, weights_id) = if loaded.encoder.remote().is_some() {
        let want = Want::Pooled(input.pooling);
        let asked = &args.model.normalization;
        let agreed =
            Agreed::negotiate(loaded.encoder.as_ref(), &suite, input, want, args.model.batch_size, asked);
        let agreed = agreed.map_err(|(error, _)| error)?;
        (agreed.input, agreed.weights)
    } else {
        (input, loaded.weights_id)
    };
    let strategy = input.only()?;
    let identity = Identity { model: &model, weights: &weights_id, device: &args.model.device };
    let extractor = Extractor {
        encoder: loaded.encoder.as_ref(),
        device: &device,
        input: &input,
        strategy,
        turn: Dihedral::Identity,
        batch_size: args.model.batch_size,
        readers: threads,
    };
    let mut bank = FeatureBank::new(feature_cache(&args.model));
    let features = bank.features(&extractor, identity, args.split.into(), &Shown::new(&task.name))?;
    write(&args.out, &features)?;
    console::tell(format_args!("{}\n", args.out.display()));
    Ok(())
}

/// Writes features, labels and sample names to a safetensors file. The write is atomic.
fn write(path: &std::path::Path, features: &Features) -> Result<()> {
    let (n, d) = features.matrix.dim();
    let vectors: Vec<u8> = features.matrix.iter().flat_map(|value| value.to_le_bytes()).collect();
    let (dtype, shape, labels) = labels(&features.labels)?;
    let view = |dtype, shape, data| TensorView::new(dtype, shape, data).at(path);
    let tensors =
        [("features", view(Dtype::F32, vec![n, d], &vectors)?), ("labels", view(dtype, shape, &labels)?)];
    let samples = serde_json::to_string(&features.samples).at(path)?;
    let metadata = HashMap::from([("samples".to_owned(), samples)]);
    let bytes = safetensors::serialize(tensors, Some(metadata)).at(path)?;
    crate::files::write_atomically(path, &bytes)
}

/// Returns type, shape and little-endian bytes of the labels.
pub(super) fn labels(labels: &[Target]) -> Result<(Dtype, Vec<usize>, Vec<u8>)> {
    let n = labels.len();
    let mut bytes = Vec::new();
    let mut kinds = Vec::new();
    for label in labels {
        kinds.push(match label {
            Target::Class(class) => {
                bytes.extend((*class as i64).to_le_bytes());
                (Dtype::I64, vec![])
            }
            Target::Labels(flags) => {
                bytes.extend(flags.iter().map(|flag| u8::from(*flag)));
                (Dtype::U8, vec![flags.len()])
            }
            Target::Mask(mask) => {
                bytes.extend(mask.iter().flat_map(|class| class.to_le_bytes()));
                (Dtype::I32, mask.shape().to_vec())
            }
            Target::Value(value) => {
                bytes.extend(value.to_le_bytes());
                (Dtype::F32, vec![])
            }
            Target::ValueMap(map) => {
                bytes.extend(map.iter().flat_map(|value| value.to_le_bytes()));
                (Dtype::F32, map.shape().to_vec())
            }
        });
    }
    let Some((dtype, each)) = kinds.first().cloned() else {
        return Err(Error::request("the split has no samples"));
    };
    if kinds.iter().any(|kind| *kind != (dtype, each.clone())) {
        return Err(Error::request(
            "the samples' labels differ in kind or size, so that they fit no single array",
        ));
    }
    Ok((dtype, [vec![n], each].concat(), bytes))
}
