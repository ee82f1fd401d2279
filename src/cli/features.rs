//! `features`: exports the features of a split.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use burn::tensor::Device;
use ndarray::Array2;
use safetensors::tensor::{Dtype, TensorView};

use super::args::FeaturesArgs;
use super::progress::Shown;
use super::{data_folder, feature_cache, input_options, model_named, set_threads, suite, weights_named};
use crate::console;
use crate::data::{Target, fingerprint};
use crate::device;
use crate::error::AtPath;
use crate::features::maps::{MapItem, MapSource};
use crate::features::tiles::{Tokens, tile_tokens};
use crate::features::truth::PixelTruth;
use crate::features::{Agreed, Extractor, FeatureBank, Features, Identity, Input, Replica, stages};
use crate::formats::tensors;
use crate::home::Home;
use crate::model::Want;
use crate::progress::Progress;
use crate::task::{Split, TargetKind};
use crate::transform::augment::{Dihedral, Turn};
use crate::{Error, Result};

/// Runs the command.
pub fn run(home: &Home, args: &FeaturesArgs) -> anyhow::Result<()> {
    fingerprint::verify(args.data.verify);
    let suite = suite(home, &args.suite, &args.data)?;
    let task = suite.task(&args.task)?;
    if args.tokens.is_some() && task.target != TargetKind::Mask {
        return Err(Error::request(format!(
            "--tokens cuts images by their masks, but {} has none",
            task.name
        ))
        .help("leave it out, or choose a segmentation task")
        .into());
    }
    let model_name = args.model.model.as_deref().unwrap_or("terrafm-b");
    let model = model_named(home, model_name, &suite, &args.model)?;
    let weights = weights_named(home, model_name, &model, args.model.weights.as_deref())?;
    let precision = args.model.precision.into();
    super::make_deterministic(&args.model)?;
    let mut devices = device::several(&args.model.device, precision)?;
    let device = devices.remove(0);
    let threads = set_threads(args.model.threads)?;
    let options = input_options(home, &args.data, &args.model)?;
    let data = data_folder(&suite, args.data.data.as_ref(), &[&task.name])?;
    let input = Input::open(&suite, task, &args.partition, &data, &model, &options)?;
    input.only()?;
    let loaded = crate::model::load(&model, &weights, args.model.allow_partial, &device)?;
    let replica = |device: Device| {
        let encoder = crate::model::load(&model, &weights, args.model.allow_partial, &device)?.encoder;
        Ok(Replica { encoder, device })
    };
    let further = devices.into_iter().map(replica).collect::<Result<Vec<_>>>()?;
    let (input, weights_id) = if loaded.encoder.remote().is_some() {
        let want = Want::Pooled(input.pooling);
        let asked = &args.model.normalization;
        let agreed = Agreed::negotiate(
            loaded.encoder.as_ref(),
            &suite,
            input,
            want,
            super::batch_sizes(&args.model).given_or_small(),
            asked,
        );
        let agreed = agreed.map_err(|(error, _)| error)?;
        (agreed.input, agreed.weights)
    } else {
        (input, loaded.weights_id)
    };
    let strategy = input.only()?;
    let identity = Identity { model: &model, weights: &weights_id, device: &args.model.device, precision };
    let extractor = Extractor {
        encoder: loaded.encoder.as_ref(),
        device: &device,
        further: &further,
        input: &input,
        strategy,
        turn: Dihedral::Identity,
        batch_size: super::batch_sizes(&args.model).of("", !device::prefers_single_images(&device)),
        readers: threads,
    };
    let mut bank = FeatureBank::new(feature_cache(&args.model));
    let start = Instant::now();
    let splits: Vec<Split> = match args.split {
        Some(split) => vec![split.into()],
        None => Split::ALL.to_vec(),
    };
    for split in splits {
        let path = match (&args.to, &args.out) {
            (Some(folder), _) => folder.join(&task.name).join(format!("{split}.safetensors")),
            (None, Some(file)) => file.clone(),
            (None, None) => anyhow::bail!("expected --out FILE or --to DIR"),
        };
        let progress = Shown::new(&task.name);
        let features = bank.features(&extractor, identity, split, &progress)?;
        let mut file = Export::of(&path, &features, declared(&input, identity))?;
        if let Some(tile) = args.tokens {
            file.add_tokens(&extractor, split, tile, &progress)?;
        }
        if args.maps {
            file.add_maps(&extractor, split, &progress)?;
        }
        file.write(&path)?;
        console::tell(format_args!("{}\n", path.display()));
    }
    if args.model.profile {
        console::note(format_args!("Time of extraction by stage:\n{}", stages::describe(start.elapsed())));
    }
    Ok(())
}

/// Says how the features were made: `bench --features` puts it into records.
fn declared(input: &Input, identity: Identity) -> BTreeMap<String, String> {
    let model = format!("{} {}", identity.model.name, identity.model.backbone);
    let bands = serde_json::Value::from(input.channel_names()).to_string();
    let facts = [
        ("model", model),
        ("weights", identity.weights.to_owned()),
        ("normalization", input.normalization.clone()),
        ("bands", bands),
        ("image-size", input.image_size().to_string()),
        ("pooling", input.pooling.to_string()),
    ];
    facts.into_iter().map(|(name, fact)| (name.to_owned(), fact)).collect()
}

/// A tensor to write.
struct Array {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Array {
    fn of(shape: Vec<usize>, numbers: impl IntoIterator<Item = f32>) -> Self {
        let bytes = numbers.into_iter().flat_map(f32::to_le_bytes).collect();
        Array { dtype: Dtype::F32, shape, bytes }
    }
}

/// The tensors and metadata of a file of features.
struct Export {
    arrays: BTreeMap<String, Array>,
    metadata: BTreeMap<String, String>,
}

impl Export {
    /// Takes features, labels and sample names.
    fn of(path: &Path, features: &Features, mut metadata: BTreeMap<String, String>) -> Result<Self> {
        let (n, d) = features.matrix.dim();
        let (dtype, shape, bytes) = labels(&features.labels)?;
        metadata.insert("samples".to_owned(), serde_json::to_string(&features.samples).at(path)?);
        let arrays = [
            ("features", Array::of(vec![n, d], features.matrix.iter().copied())),
            ("labels", Array { dtype, shape, bytes }),
        ];
        Ok(Export { arrays: arrays.map(|(name, array)| (name.to_owned(), array)).into(), metadata })
    }

    /// Adds the patch tokens of a split's tiles, joined to one grid per image: [n, rows, columns, d].
    fn add_tokens(
        &mut self,
        extractor: &Extractor,
        split: Split,
        tile: usize,
        progress: &dyn Progress,
    ) -> Result<()> {
        let images: Vec<usize> = (0..extractor.input.dataset.samples(split).len()).collect();
        let step = progress.begin(&format!("{split}, tokens"), images.len());
        let tokens = tile_tokens(extractor, split, &images, tile, step.as_ref())?;
        let Tokens { grid, width, tiles_across: across, tiles_an_image, .. } = tokens;
        let down = tiles_an_image / across.max(1);
        let mut numbers = Vec::with_capacity(tokens.len() * grid * grid * width);
        for image in 0..images.len() {
            let tiles: Vec<usize> = (image * tiles_an_image..(image + 1) * tiles_an_image).collect();
            // [down, across, grid, grid, d] to [down * grid, across * grid, d].
            let tiles = tokens.read(&tiles)?;
            let tiles =
                tiles.into_shape_with_order((down, across, grid, grid * width)).map_err(Error::mismatch)?;
            numbers.extend(tiles.permuted_axes([0, 2, 1, 3]).iter());
        }
        let shape = vec![images.len(), down * grid, across * grid, width];
        self.arrays.insert("tokens".to_owned(), Array::of(shape, numbers));
        Ok(())
    }

    /// Adds the feature maps of a split: [n, d, rows, columns] each.
    fn add_maps(&mut self, extractor: &Extractor, split: Split, progress: &dyn Progress) -> Result<()> {
        let Extractor { encoder, device, input, strategy, .. } = *extractor;
        let batch_size = extractor.batch_size.images();
        let source = MapSource::new(Box::new(encoder), input.spec(), device.clone());
        let n = input.dataset.samples(split).len();
        let step = progress.begin(&format!("{split}, maps"), n);
        let mut maps: Vec<(Vec<usize>, usize, Vec<f32>)> = Vec::new();
        for first in (0..n).step_by(batch_size) {
            let item = |i: usize| {
                let sample = input.read(&strategy.preprocess, split, i)?;
                let truth = PixelTruth::Classes(Array2::zeros((0, 0)));
                Ok(MapItem {
                    place: None,
                    name: sample.name,
                    images: Some(sample.images),
                    images_turn: None,
                    truth,
                    truth_turn: Turn::NONE,
                })
            };
            let items = (first..n.min(first + batch_size)).map(item).collect::<Result<Vec<MapItem>>>()?;
            for (place, map) in source.maps(&items)?.into_iter().enumerate() {
                let [_, d, rows, columns] = map.values.dims();
                let numbers = map.values.into_data().convert::<f32>().try_into_vec::<f32>();
                let numbers =
                    numbers.map_err(|error| Error::mismatch(format!("maps are not float32: {error:?}")))?;
                if maps.len() == place {
                    maps.push((vec![n, d, rows, columns], map.stride, Vec::new()));
                }
                maps[place].2.extend(numbers);
            }
            step.advance(items.len());
        }
        let strides: Vec<usize> = maps.iter().map(|(_, stride, _)| *stride).collect();
        self.metadata.insert("strides".to_owned(), serde_json::Value::from(strides).to_string());
        let maps = maps.into_iter().enumerate();
        self.arrays
            .extend(maps.map(|(i, (shape, _, numbers))| (format!("map{i}"), Array::of(shape, numbers))));
        Ok(())
    }

    /// Writes the file atomically.
    fn write(self, path: &Path) -> Result<()> {
        let mut views = Vec::new();
        for (name, array) in &self.arrays {
            views.push((name, TensorView::new(array.dtype, array.shape.clone(), &array.bytes).at(path)?));
        }
        let bytes = tensors::serialize(views, self.metadata).at(path)?;
        crate::files::write_atomically(path, &bytes)
    }
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
