//! The encoder: batches to the engine's inputs, its outputs to features.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;

use super::arrays::{HostArray, Numbers};
use super::engine::{self, Engine, Provider};
use super::{MapOutput, OnnxConfig, check};
use crate::formats::onnx::{OnnxFile, OnnxValue};
use crate::model::encoder::{Batch, Encoded, Encoder, Input, Map, Pooling, Want};
use crate::model::network::Sizes;
use crate::model::requests::{check_bands, lacks_pooling};
use crate::model::sensor_input::SensorInput;
use crate::nn::tokens::as_map;
use crate::task::Sensor;
use crate::{Error, Result};

/// Model name in error messages.
const NAME: &str = "onnx";

/// A model in an ONNX file that an engine has opened.
pub struct OnnxEncoder {
    config: OnnxConfig,
    path: PathBuf,
    header: OnnxFile,
    engine: Box<dyn Engine>,
    sensors: BTreeMap<Sensor, SensorInput>,
    /// Length of a pooled vector by pooling.
    widths: BTreeMap<Pooling, usize>,
    device: Device,
}

/// The pixels of a batch in host memory, one after the other.
struct HostPixels {
    /// Name of the input that takes them.
    name: String,
    values: Vec<f32>,
    /// [n, c, h, w].
    shape: [usize; 4],
}

impl OnnxEncoder {
    /// Opens the model's file with an engine. Features are returned on `device`.
    ///
    /// # Errors
    /// If the file does not suit the TOML, or no engine runs it.
    pub fn open(
        config: &OnnxConfig,
        sensors: &BTreeMap<Sensor, SensorInput>,
        device: &Device,
    ) -> Result<Self> {
        let path = config.file.clone();
        let header = OnnxFile::read(&path)?;
        check::check(config, &header, &path, sensors)?;
        let width = |pooling: &Pooling| Ok((*pooling, check::width(config, &header, &path, *pooling)?));
        let widths = config.poolings().iter().map(width).collect::<Result<_>>()?;
        let provider = Provider::of_device(&config.device);
        let engine = engine::open(config.engine, &path, &header, provider)?;
        let (config, sensors, device) = (config.clone(), sensors.clone(), device.clone());
        Ok(OnnxEncoder { config, path, header, engine, sensors, widths, device })
    }

    /// Copies the pixels of an input to the host, and checks that the file takes them.
    fn pixels(&self, input: &Input) -> Result<HostPixels> {
        let Input { sensor, pixels, .. } = input;
        let known = self.sensors.get(sensor).zip(self.config.pixels.of(*sensor));
        let Some((described, name)) = known else {
            let known: Vec<&str> = self.sensors.keys().map(|sensor| sensor.name()).collect();
            let problem = format!("{NAME}: expected sensor {}, found {sensor}", known.join(" or "));
            return Err(Error::mismatch(problem).help(format!(
                "use a task of such a sensor, or add [sensors.{sensor}] to the model's TOML"
            )));
        };
        if !self.config.takes_any_bands() {
            check_bands(NAME, input, described.bands.len())?;
        }
        let declared = check::input(&self.header, name, "pixels")?;
        let shape = pixels.dims();
        let sizes = declared.shape.iter().flatten().zip(shape).skip(1);
        let fits = sizes.clone().all(|(declared, size)| declared.fixed().is_none_or(|fixed| fixed == size));
        if !fits {
            let [_, c, h, w] = shape;
            let side = declared.shape.as_ref().and_then(|shape| shape.get(2)?.fixed());
            let side = side.map_or(String::new(), |side| format!("set `image = {side}` and "));
            return Err(Error::mismatch(format!(
                "expected images for the input {declared}, found [n, {c}, {h}, {w}]"
            ))
            .in_file(&self.path)
            .help(format!("in the model's TOML {side}list the bands in the order of the file's channels")));
        }
        let values = pixels.clone().into_data().convert::<f32>().try_into_vec::<f32>().map_err(|error| {
            Error::mismatch(format!("the device returned pixels that are not float32: {error:?}"))
        })?;
        Ok(HostPixels { name: name.to_owned(), values, shape })
    }

    /// Computes the outputs called `names` for all images of a batch: arrays whose first dimension is n.
    fn compute(&self, batch: &Batch, names: &[&str]) -> Result<Vec<HostArray>> {
        let n = batch.len();
        if n == 0 {
            return Err(Error::mismatch(format!("{NAME}: expected images, found none")));
        }
        let pixels = batch.inputs.iter().map(|input| self.pixels(input)).collect::<Result<Vec<_>>>()?;
        let fed = |name: &str| pixels.iter().any(|pixels| pixels.name == name);
        if let Some(absent) = self.config.pixels.names().into_iter().find(|name| !fed(name)) {
            let found: Vec<&str> = batch.inputs.iter().map(|input| input.sensor.name()).collect();
            return Err(Error::mismatch(format!(
                "the model takes images for all its inputs at once, but the task has none for `{absent}`: found {}",
                found.join(" and ")
            ))
            .in_file(&self.path)
            .help("use a task with an image of each of the model's sensors, or export a model of one sensor"));
        }
        let single = self.engine.prefers_single_images();
        let size = check::batch_size(&self.config, &self.header)?.unwrap_or(if single { 1 } else { n });
        let compute = |first: &usize| {
            let images = *first..(first + size).min(n);
            let found = self.part(batch, &pixels, images.clone(), size, names)?;
            let cut = |(array, name): (HostArray, &&str)| self.cut(array, name, images.len(), size);
            found.into_iter().zip(names).map(cut).collect::<Result<Vec<HostArray>>>()
        };
        let firsts: Vec<usize> = (0..n).step_by(size).collect();
        if !single {
            return joined(firsts.iter().map(compute).collect::<Result<_>>()?);
        }
        // The first part prepares the engine for this size, which the others then find done.
        let Some((first, rest)) = firsts.split_first() else { return Ok(Vec::new()) };
        let mut parts = vec![compute(first)?];
        parts.extend(rest.par_iter().map(compute).collect::<Result<Vec<_>>>()?);
        joined(parts)
    }

    /// Computes outputs for `size` images: those in `images`, and the last one again where these are fewer.
    fn part(
        &self,
        batch: &Batch,
        pixels: &[HostPixels],
        images: Range<usize>,
        size: usize,
        names: &[&str],
    ) -> Result<Vec<HostArray>> {
        let mut inputs = Vec::new();
        for HostPixels { name, values, shape: [_, c, h, w] } in pixels {
            let declared = check::input(&self.header, name, "pixels")?;
            let numbers = filled(values, c * h * w, &images, size);
            let numbers = Numbers::pixels(numbers, declared.element).ok_or_else(|| {
                Error::mismatch(format!("expected an input of floating-point numbers, found {declared}"))
            })?;
            inputs.push((name.as_str(), HostArray { shape: vec![size, *c, *h, *w], numbers }));
        }
        for extra in &self.config.inputs {
            let declared: &OnnxValue = check::input(&self.header, &extra.name, "inputs")?;
            let sensor = extra.sensor.or(batch.inputs.first().map(|input| input.sensor));
            let described = sensor.and_then(|sensor| self.sensors.get(&sensor)).cloned().unwrap_or_default();
            let array = extra.array(declared, &batch.inputs, &described, images.clone(), size)?;
            inputs.push((&extra.name, array));
        }
        self.engine.run(inputs, names)
    }

    /// Checks that an output has one entry per image, and removes those that only filled the batch.
    fn cut(&self, array: HostArray, name: &str, images: usize, size: usize) -> Result<HostArray> {
        let HostArray { mut shape, numbers } = array;
        if shape.first() != Some(&size) {
            return Err(self.wrong(name, &format!("[{size}, …]"), &shape));
        }
        let row: usize = shape[1..].iter().product();
        let is_float = "floating-point numbers";
        let mut values = numbers.into_f32().ok_or_else(|| self.wrong(name, is_float, &shape))?;
        if values.len() != row * size {
            return Err(self.wrong(name, &format!("{} numbers", row * size), &[values.len()]));
        }
        values.truncate(row * images);
        shape[0] = images;
        Ok(HostArray { shape, numbers: Numbers::F32(values) })
    }

    fn wrong(&self, name: &str, expected: &str, found: &[usize]) -> Error {
        Error::mismatch(format!("output `{name}`: expected {expected}, found {found:?}"))
            .in_file(&self.path)
            .help("check the names and sizes in the model's TOML; docs/onnx.md explains each key")
    }

    /// Returns the only output called `name` with its shape.
    fn one(&self, batch: &Batch, name: &str) -> Result<(Vec<usize>, Vec<f32>)> {
        let found = self.compute(batch, &[name])?.into_iter().next();
        found
            .and_then(|array| Some((array.shape, array.numbers.into_f32()?)))
            .ok_or_else(|| self.wrong(name, "numbers", &[]))
    }

    /// Returns the vectors [n, d] of the output `pooled`.
    fn head(&self, batch: &Batch, name: &str, width: usize) -> Result<Tensor<2>> {
        let (shape, values) = self.one(batch, name)?;
        match shape.as_slice() {
            [n, d, rest @ ..] if *d == width && rest.iter().all(|size| *size == 1) => {
                Ok(Tensor::from_data(TensorData::new(values, [*n, *d]), &self.device))
            }
            other => Err(self.wrong(name, &format!("[n, {width}]"), other)),
        }
    }

    /// Returns all tokens [n, leading + rows * columns, d] of the output `tokens`.
    fn all_tokens(&self, batch: &Batch) -> Result<(Tensor<3>, usize, [usize; 2])> {
        let Some(output) = &self.config.tokens else {
            return Err(Error::mismatch("the model's TOML names no output with patch tokens")
                .in_file(&self.path)
                .help("add `tokens = { name = \"…\" }` to [architecture], or use a protocol on pooled vectors: knn, linear-probe, logistic"));
        };
        let (shape, values) = self.one(batch, &output.name)?;
        let tokens = spatial(&shape, values, &self.device)
            .ok_or_else(|| self.wrong(&output.name, "[n, tokens, d] or [n, d, rows, columns]", &shape))?;
        match tokens {
            Spatial::Map(map) => {
                let [n, d, rows, columns] = map.dims();
                Ok((map.reshape([n, d, rows * columns]).swap_dims(1, 2), 0, [rows, columns]))
            }
            Spatial::Tokens(tokens) => {
                let count = tokens.dims()[1].saturating_sub(output.leading);
                let grid = output.grid.or_else(|| grid_of(count, size_of(batch)));
                match grid.filter(|[rows, columns]| rows * columns == count && count > 0) {
                    Some(grid) => Ok((tokens, output.leading, grid)),
                    None => {
                        let [h, w] = size_of(batch);
                        let grid =
                            output.grid.map_or(format!("of {h} x {w} pixels"), |grid| format!("{grid:?}"));
                        let problem = format!(
                            "output `{}`: {count} tokens after the first {} do not fill a grid {grid}",
                            output.name, output.leading
                        );
                        Err(Error::mismatch(problem)
                            .in_file(&self.path)
                            .help("set `leading` of `tokens` to the number of class and register tokens, and `grid = [rows, columns]` if patches are not square"))
                    }
                }
            }
        }
    }

    fn pooled(&self, batch: &Batch, pooling: Pooling) -> Result<Tensor<2>> {
        let poolings = self.config.poolings();
        let Some(width) = self.widths.get(&pooling) else {
            if poolings.is_empty() {
                return Err(Error::mismatch("the model's TOML names no output with one vector per image")
                    .in_file(&self.path)
                    .help("add `pooled` or `tokens` to [architecture], or use the protocol upernet, which takes maps"));
            }
            return Err(lacks_pooling(NAME, pooling, poolings));
        };
        match (&self.config.pooled, pooling) {
            (Some(name), Pooling::Head) => self.head(batch, name, *width),
            _ => {
                let (tokens, leading, _) = self.all_tokens(batch)?; // [n, leading + t, d]
                let pooled = match pooling {
                    Pooling::Class => tokens.slice_dim(1, 0..1),
                    Pooling::Mean | Pooling::Head => tokens.slice_dim(1, leading..).mean_dim(1),
                    Pooling::MeanAll => tokens.mean_dim(1),
                    Pooling::MeanUnnormed => return Err(lacks_pooling(NAME, pooling, poolings)),
                };
                Ok(pooled.squeeze_dim(1)) // [n, 1, d] to [n, d]
            }
        }
    }

    fn maps(&self, batch: &Batch) -> Result<Vec<Map>> {
        if self.config.maps.is_empty() {
            return Err(Error::mismatch("the model's TOML names no outputs with feature maps")
                .in_file(&self.path)
                .help("add `maps = [{ name = \"…\", width = …, stride = … }, …]` to [architecture], or use another protocol"));
        }
        let names: Vec<&str> = self.config.maps.iter().map(|map| map.name.as_str()).collect();
        let found = self.compute(batch, &names)?;
        found
            .into_iter()
            .zip(&self.config.maps)
            .map(|(array, output)| self.map(array, output, size_of(batch)))
            .collect()
    }

    /// Converts an output to a map [n, d, rows, columns].
    fn map(&self, array: HostArray, output: &MapOutput, [h, w]: [usize; 2]) -> Result<Map> {
        let MapOutput { name, width, stride, leading } = output;
        let shape = array.shape;
        let (rows, columns) = (h.div_ceil(*stride), w.div_ceil(*stride));
        let expected = format!("[n, {width}, {rows}, {columns}] for {h} x {w} pixels and stride {stride}");
        let values = array.numbers.into_f32().and_then(|values| spatial(&shape, values, &self.device));
        let values = match values {
            Some(Spatial::Map(map)) => Some(map),
            Some(Spatial::Tokens(tokens)) if tokens.dims()[1] == leading + rows * columns => {
                Some(as_map(tokens.slice_dim(1, *leading..), [rows, columns]))
            }
            _ => None,
        };
        let fits = |map: &Tensor<4>| map.dims()[1..] == [*width, rows, columns];
        match values.filter(fits) {
            Some(values) => Ok(Map { values, stride: *stride }),
            None => Err(self.wrong(name, &expected, &shape)),
        }
    }
}

impl Encoder for OnnxEncoder {
    fn width(&self, pooling: Pooling, _: usize) -> usize {
        self.widths.get(&pooling).copied().unwrap_or(0)
    }

    fn encode(&self, batch: &Batch, want: Want) -> Result<Encoded> {
        Ok(match want {
            Want::Pooled(pooling) => Encoded::Pooled(self.pooled(batch, pooling)?),
            Want::Tokens => {
                let (tokens, leading, grid) = self.all_tokens(batch)?;
                Encoded::Tokens { tokens: tokens.slice_dim(1, leading..), grid }
            }
            Want::Maps => Encoded::Maps(self.maps(batch)?),
        })
    }
}

/// An output with positions.
enum Spatial {
    /// [n, tokens, d].
    Tokens(Tensor<3>),
    /// [n, d, rows, columns].
    Map(Tensor<4>),
}

fn spatial(shape: &[usize], values: Vec<f32>, device: &Device) -> Option<Spatial> {
    match *shape {
        [n, t, d] => Some(Spatial::Tokens(Tensor::from_data(TensorData::new(values, [n, t, d]), device))),
        [n, d, h, w] => Some(Spatial::Map(Tensor::from_data(TensorData::new(values, [n, d, h, w]), device))),
        _ => None,
    }
}

/// Returns height and width in pixels of the first image.
fn size_of(batch: &Batch) -> [usize; 2] {
    batch.inputs.first().map_or([0; 2], |input| [input.pixels.dims()[2], input.pixels.dims()[3]])
}

/// Returns the grid of `count` square patches with the aspect ratio of an image of h x w pixels.
fn grid_of(count: usize, [h, w]: [usize; 2]) -> Option<[usize; 2]> {
    let rows = (count as f64 * h as f64 / w as f64).sqrt().round() as usize;
    let columns = count.checked_div(rows)?;
    (rows * columns == count && rows * w == columns * h).then_some([rows, columns])
}

/// Returns the values of the images, the last one again up to `size` images.
fn filled(values: &[f32], image: usize, images: &Range<usize>, size: usize) -> Vec<f32> {
    let mut taken = values[image * images.start..image * images.end].to_vec();
    let last = image * images.len().saturating_sub(1);
    for _ in images.len()..size {
        taken.extend_from_within(last..last + image);
    }
    taken
}

/// Joins the outputs of the parts of a batch along their first dimension.
fn joined(parts: Vec<Vec<HostArray>>) -> Result<Vec<HostArray>> {
    let mut parts = parts.into_iter();
    let mut all = parts.next().unwrap_or_default();
    for part in parts {
        for (whole, more) in all.iter_mut().zip(part) {
            if whole.shape[1..] != more.shape[1..] {
                return Err(Error::mismatch(format!(
                    "expected outputs of equal shape for all images, found {:?} and {:?}",
                    whole.shape, more.shape
                )));
            }
            whole.shape[0] += more.shape[0];
            if let (Numbers::F32(values), Numbers::F32(more)) = (&mut whole.numbers, more.numbers) {
                values.extend(more);
            }
        }
    }
    Ok(all)
}
