//! The interface between data and models: an encoder's input, the requests to it, and its output.

use std::sync::Arc;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::remote::RemoteEncoder;
use crate::task::Sensor;
use crate::task::bands::Band;
use crate::{Error, Result};

/// Images of one sensor, normalised and resized for the model.
#[derive(Debug, Clone)]
pub struct Input {
    /// The sensor.
    pub sensor: Sensor,
    /// The band of each channel of `pixels`.
    pub bands: Arc<[Band]>,
    /// Pixels [n, c, h, w], float32.
    pub pixels: Tensor<4>,
    /// When and where each image was taken.
    pub context: Context,
}

/// When and where images were taken, for models that use it.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// Days since 1970-01-01 per image; `None` if unknown. Empty if nothing is known.
    pub days: Vec<Option<f64>>,
    /// Longitude and latitude in degrees of each image's centre. Empty if nothing is known.
    pub places: Vec<Option<[f32; 2]>>,
    /// Ground sampling distance of the stored pixels in metres, before any resizing.
    pub gsd_m: Option<f32>,
}

/// What a model encodes at once: one input per sensor, each with the same number of images.
#[derive(Debug, Clone)]
pub struct Batch {
    /// One input per sensor.
    pub inputs: Vec<Input>,
}

impl Batch {
    /// Creates a batch of images of a single sensor: `pixels` is [n, c, h, w].
    pub fn single(sensor: Sensor, bands: Arc<[Band]>, pixels: Tensor<4>) -> Self {
        Batch { inputs: vec![Input { sensor, bands, pixels, context: Context::default() }] }
    }

    /// Returns the number of images per sensor, n.
    pub fn len(&self) -> usize {
        self.inputs.first().map_or(0, |input| input.pixels.dims()[0])
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the only input.
    ///
    /// # Errors
    /// If the batch has inputs of several sensors.
    pub fn only(&self) -> Result<&Input> {
        match self.inputs.as_slice() {
            [only] => Ok(only),
            several => Err(Error::mismatch(format!(
                "expected images of one sensor, found {} sensors",
                several.len()
            ))),
        }
    }

    /// Splits the batch into one batch per image, in order.
    pub fn split(self) -> Vec<Batch> {
        (0..self.len())
            .map(|image| {
                let part = |input: &Input| Input {
                    sensor: input.sensor,
                    bands: Arc::clone(&input.bands),
                    pixels: input.pixels.clone().slice_dim(0, image..=image),
                    context: input.context.only(image),
                };
                Batch { inputs: self.inputs.iter().map(part).collect() }
            })
            .collect()
    }
}

impl Context {
    fn only(&self, image: usize) -> Self {
        Context {
            days: self.days.get(image).copied().into_iter().collect(),
            places: self.places.get(image).copied().into_iter().collect(),
            gsd_m: self.gsd_m,
        }
    }
}

/// How tokens are pooled into one vector per image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// The class token after the final norm.
    Class,
    /// Mean of the patch tokens.
    Mean,
    /// Mean of the patch tokens without the final norm. Only for fine-tuning, of models whose original leaves it out there.
    MeanUnnormed,
    /// Mean of all tokens, the class token included.
    MeanAll,
    /// The model's own pooling head.
    Head,
}

impl std::fmt::Display for Pooling {
    /// Formats the name as in files and on the command line: `mean-all`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Pooling::Class => "class",
            Pooling::Mean => "mean",
            Pooling::MeanUnnormed => "mean-unnormed",
            Pooling::MeanAll => "mean-all",
            Pooling::Head => "head",
        })
    }
}

/// A request to an encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// One vector per image.
    Pooled(Pooling),
    /// One vector per patch.
    Tokens,
    /// Feature maps of several layers, for dense tasks.
    Maps,
}

/// The output of an encoder. n is the number of images.
#[derive(Debug, Clone)]
pub enum Encoded {
    /// One vector per image: [n, d].
    Pooled(Tensor<2>),
    /// One vector per patch.
    Tokens {
        /// Patch tokens [n, rows * columns, d], row by row.
        tokens: Tensor<3>,
        /// Number of [rows, columns] of patches.
        grid: [usize; 2],
    },
    /// Feature maps from fine to coarse, or from the first layer to the last.
    Maps(Vec<Map>),
}

/// A feature map.
#[derive(Debug, Clone)]
pub struct Map {
    /// [n, d, rows, columns].
    pub values: Tensor<4>,
    /// Side in pixels of the input area that one position of the map represents.
    pub stride: usize,
}

impl Encoded {
    /// Returns the pooled vectors [n, d].
    ///
    /// # Errors
    /// If the output is of another kind.
    pub fn pooled(self) -> Result<Tensor<2>> {
        match self {
            Encoded::Pooled(vectors) => Ok(vectors),
            _ => {
                Err(Error::mismatch("expected pooled vectors from the encoder, found another kind of output"))
            }
        }
    }

    /// Returns the patch tokens [n, rows * columns, d] and their grid [rows, columns].
    ///
    /// # Errors
    /// If the output is of another kind.
    pub fn tokens(self) -> Result<(Tensor<3>, [usize; 2])> {
        match self {
            Encoded::Tokens { tokens, grid } => Ok((tokens, grid)),
            _ => Err(Error::mismatch("expected patch tokens from the encoder, found another kind of output")),
        }
    }

    /// Returns the feature maps.
    ///
    /// # Errors
    /// If the output is of another kind.
    pub fn maps(self) -> Result<Vec<Map>> {
        match self {
            Encoded::Maps(maps) => Ok(maps),
            _ => Err(Error::mismatch("expected feature maps from the encoder, found another kind of output")),
        }
    }

    /// Joins the outputs for the parts of a batch, in order.
    ///
    /// # Errors
    /// If there are no parts, or they are of different kinds.
    pub fn join(parts: Vec<Encoded>) -> Result<Encoded> {
        let mut parts = parts;
        match parts.len() {
            0 => return Err(Error::mismatch("no images to encode")),
            1 => return Ok(parts.remove(0)),
            _ => {}
        }
        match parts[0].clone() {
            Encoded::Pooled(_) => {
                let all = parts.into_iter().map(Encoded::pooled).collect::<Result<_>>()?;
                Ok(Encoded::Pooled(Tensor::cat(all, 0)))
            }
            Encoded::Tokens { grid, .. } => {
                let all = parts.into_iter().map(|part| Ok(part.tokens()?.0)).collect::<Result<_>>()?;
                Ok(Encoded::Tokens { tokens: Tensor::cat(all, 0), grid })
            }
            Encoded::Maps(first) => {
                let all = parts.into_iter().map(Encoded::maps).collect::<Result<Vec<_>>>()?;
                let layer = |i: usize| Map {
                    values: Tensor::cat(all.iter().map(|maps| maps[i].values.clone()).collect(), 0),
                    stride: first[i].stride,
                };
                Ok(Encoded::Maps((0..first.len()).map(layer).collect()))
            }
        }
    }
}

/// Creates the error for a pooling that an architecture lacks.
pub fn no_pooling(asked: Pooling, known: &[Pooling]) -> Error {
    let known: Vec<String> = known.iter().map(Pooling::to_string).collect();
    Error::mismatch(format!("the architecture does not support the pooling `{asked}`"))
        .help(format!("use --pooling {}", known.join(" or ")))
}

/// A model without a task head.
pub trait Encoder: Send + Sync {
    /// Returns the length d of a pooled vector for images with this many bands.
    fn width(&self, pooling: Pooling, bands: usize) -> usize;

    /// Encodes a batch.
    ///
    /// # Errors
    /// If the model does not support these sensors, bands or sizes, or cannot fulfil the request.
    fn encode(&self, batch: &Batch, want: Want) -> Result<Encoded>;

    /// Returns the encoder as one that is told which samples come and that works on several batches at a time, if it is one.
    fn remote(&self) -> Option<&dyn RemoteEncoder> {
        None
    }
}

impl<E: Encoder + ?Sized> Encoder for &E {
    fn width(&self, pooling: Pooling, bands: usize) -> usize {
        (**self).width(pooling, bands)
    }

    fn encode(&self, batch: &Batch, want: Want) -> Result<Encoded> {
        (**self).encode(batch, want)
    }

    fn remote(&self) -> Option<&dyn RemoteEncoder> {
        (**self).remote()
    }
}
