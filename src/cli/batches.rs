//! `batches`: streams a split's images, prepared for a model, to another program.
//!
//! Standard output is a stream of messages: a line of JSON, and after a line with the key `bytes` that many bytes of a
//! safetensors file.
//!
//! ```text
//! {"message":"split","terrabench":1,"suite":…,"task":…,"partition":…,"split":…,"samples":2000,"batch_size":32,
//!  "normalization":…,"images":[{"sensor":…,"date":…,"bands":[{"name":…,"wavelength_nm":…,"bandwidth_nm":…,"gsd_m":…}],
//!  "side":224,"stored_side":64}]}
//! {"message":"batch","id":0,"images":32,"samples":["…",…],"bytes":N}   image0, image1, … [n, c, h, w]; labels; days; places
//! {"message":"end"}
//! ```

use std::io::Write;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use super::args::BatchesArgs;
use super::features::labels;
use super::{data_folder, input_options, model_named, set_threads, suite};
use crate::console::Stream;
use crate::data::{Image, Sample, Split, Target, fingerprint, loader};
use crate::demo;
use crate::error::AtPath;
use crate::features::Input;
use crate::home::{Home, cache_folder};
use crate::model::process::DescribedImage;
use crate::task::Sensors;
use crate::{Error, Result};

/// Version of the stream.
const VERSION: u32 = 1;

/// Runs the command.
pub fn run(home: &Home, args: &BatchesArgs) -> anyhow::Result<()> {
    fingerprint::verify(args.data.verify);
    let suite = suite(home, &args.suite, &args.data)?;
    let task = suite.task(&args.task)?;
    let model_name = args.model.model.as_deref().unwrap_or(if args.demo { "demo" } else { "terrafm-b" });
    let model = model_named(home, model_name, &suite, &args.model)?;
    let threads = set_threads(args.model.threads)?;
    let options = input_options(home, &args.data, &args.model)?;
    let data = if args.demo {
        demo::provide_for(&suite, &[&task.name], &cache_folder()?, 0)?
    } else {
        data_folder(&suite, args.data.data.as_ref(), &[&task.name])?
    };
    let input = Input::open(&suite, task, &args.partition, &data, &model, &options)?;
    let strategy = input.only()?;
    let (split, size) = (Split::from(args.split), super::batch_sizes(&args.model).given_or_small());
    let count = input.dataset.samples(split).len();
    let (announced, sensors) = (input.announced_images(&suite)?, Sensors::load(home)?);
    let images: Vec<_> = announced.iter().map(|image| DescribedImage::new(image, Some(&sensors))).collect();
    let mut out = Stream::stdout();
    let head = json!({
        "message": "split",
        "terrabench": VERSION,
        "suite": suite.name,
        "task": task.name,
        "partition": args.partition,
        "split": split.to_string(),
        "samples": count,
        "batch_size": size,
        "normalization": strategy.name,
        "images": images,
    });
    let read = |index: usize| input.read(&strategy.preprocess, split, index);
    let written = write_line(&mut out, &head).and_then(|()| {
        loader::ordered(count, threads, 2 * size, read, |mut samples| {
            for id in 0.. {
                let batch: Vec<Sample> = samples.by_ref().take(size).collect::<Result<_>>()?;
                if batch.is_empty() {
                    break;
                }
                write_batch(&mut out, id, batch)?;
            }
            write_line(&mut out, &json!({"message": "end"}))
        })
    });
    // A reader that left has seen enough: not an error.
    if out.is_closed() { Ok(()) } else { Ok(written?) }
}

fn write_line(out: &mut Stream, line: &Value) -> Result<()> {
    writeln!(out, "{line}").and_then(|()| out.flush()).at("the output")
}

/// Writes a line of JSON that describes a batch, then its tensors.
fn write_batch(out: &mut Stream, id: usize, batch: Vec<Sample>) -> Result<()> {
    let n = batch.len();
    let mut tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    let images = batch.first().map_or(0, |sample| sample.images.len());
    for place in 0..images {
        let all: Vec<&Image> = batch.iter().filter_map(|sample| sample.images.get(place)).collect();
        let (shape, bytes) = pixels(&all)?;
        tensors.push((format!("image{place}"), Dtype::F32, shape, bytes));
    }
    let first: Vec<Option<&Image>> = batch.iter().map(|sample| sample.images.first()).collect();
    let days: Vec<Option<f64>> = first.iter().map(|image| image.and_then(|image| image.day)).collect();
    if days.iter().any(Option::is_some) {
        let bytes = days.iter().flat_map(|day| day.unwrap_or(f64::NAN).to_le_bytes()).collect();
        tensors.push(("days".to_owned(), Dtype::F64, vec![n], bytes));
    }
    let places: Vec<Option<[f32; 2]>> =
        first.iter().map(|image| image.and_then(|image| image.place)).collect();
    if places.iter().any(Option::is_some) {
        let bytes = places.iter().flat_map(|place| place.unwrap_or([f32::NAN; 2])).flat_map(f32::to_le_bytes);
        tensors.push(("places".to_owned(), Dtype::F32, vec![n, 2], bytes.collect()));
    }
    let (samples, targets): (Vec<String>, Vec<Target>) =
        batch.into_iter().map(|sample| (sample.name, sample.target)).unzip();
    let (dtype, shape, bytes) = labels(&targets)?;
    tensors.push(("labels".to_owned(), dtype, shape, bytes));

    let views = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| {
            Ok((name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).map_err(Error::mismatch)?))
        })
        .collect::<Result<Vec<_>>>()?;
    let file = safetensors::serialize(views, None).map_err(Error::mismatch)?;
    let line = json!({"message": "batch", "id": id, "images": n, "samples": samples, "bytes": file.len()});
    write_line(out, &line)?;
    out.write_all(&file).and_then(|()| out.flush()).at("the output")
}

/// Stacks images of one size: shape [n, c, h, w] and little-endian bytes.
fn pixels(images: &[&Image]) -> Result<(Vec<usize>, Vec<u8>)> {
    let dim = images.first().map_or((0, 0, 0), |image| image.pixels.dim());
    let mut bytes = Vec::with_capacity(images.len() * dim.0 * dim.1 * dim.2 * size_of::<f32>());
    for image in images {
        if image.pixels.dim() != dim {
            let problem = format!("expected images of {dim:?} in this batch, found {:?}", image.pixels.dim());
            return Err(Error::request(problem).help("use --batch-size 1, or a model with one input size"));
        }
        bytes.extend(image.pixels.iter().flat_map(|value| value.to_le_bytes()));
    }
    Ok((vec![images.len(), dim.0, dim.1, dim.2], bytes))
}
