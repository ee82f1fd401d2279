//! UPerNet [Xiao et al., 2018] on the feature maps of a plain vision transformer, as Copernicus-Bench builds it from
//! mmsegmentation's Feature2Pyramid, UPerHead and FCNHead.
//!
//! Four maps of the same size become a pyramid (x4, x2, x1, x0.5). Pyramid pooling adds global context to the coarsest
//! level; every level is added to the next finer one; all levels together give the logits. An auxiliary head on the third
//! level helps training.

use burn::module::Module;
use burn::nn::Gelu;
use burn::tensor::{Device, Tensor};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::layers::{BatchNorm, ConvNorm, Dropout2d, Pass, Pointwise, PointwiseNorm, Upsample};
pub use crate::config::UperNetConfig;
use crate::nn::loss::{PixelLabels, PixelValues, absolute_error, cross_entropy};
use crate::nn::resample::{Corners, average_pool, resize};
use crate::{Error, Result};

/// Size of one of an encoder's feature maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapLevel {
    /// Number of channels.
    pub width: usize,
    /// Side in pixels of the input area that one position of the map represents.
    pub stride: usize,
}

/// Neck, decoder and auxiliary head.
#[derive(Module, Debug)]
pub struct UperNet {
    /// None if the encoder's maps already form a pyramid.
    neck: Option<Neck>,
    decoder: Decoder,
    aux_head: AuxiliaryHead,
    auxiliary_weight: f32,
}

/// Logits per pixel, each head's in its own size: [n, h, w, classes].
#[derive(Debug, Clone)]
pub struct Logits {
    /// Four times the size of the maps.
    pub decoder: Tensor<4>,
    /// The size of the maps.
    pub auxiliary: Tensor<4>,
}

impl UperNet {
    /// Creates heads to be trained from scratch, with initial weights drawn from `seed`.
    ///
    /// If all maps have the same stride, the reference's neck is used. Maps whose strides double from one to the next are
    /// used directly.
    ///
    /// # Errors
    /// If there are not four maps, or their strides are neither equal nor doubling.
    pub fn new(
        config: &UperNetConfig,
        maps: &[MapLevel],
        classes: usize,
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        let maps: [MapLevel; 4] = maps.try_into().map_err(|_| wrong_count(maps.len()))?;
        let widths = maps.map(|map| map.width);
        let is_flat = maps.iter().all(|map| *map == maps[0]);
        if !is_flat && !maps.windows(2).all(|pair| pair[1].stride == 2 * pair[0].stride) {
            let strides = maps.map(|map| map.stride);
            return Err(Error::mismatch(format!(
                "UPerNet: expected feature maps with equal or doubling strides, found strides {strides:?}"
            )));
        }
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let random = &mut random;
        Ok(UperNet {
            neck: is_flat.then(|| Neck::new(widths[0], random, device)),
            decoder: Decoder::new(config, widths, classes, random, device),
            aux_head: AuxiliaryHead::new(config, widths[2], classes, random, device),
            auxiliary_weight: config.auxiliary_weight,
        })
    }

    /// Returns the logits for four maps [n, width, h, w], shallowest first.
    ///
    /// # Errors
    /// If there are not four maps of the same size of at least 2x2 pixels, or a training batch has only one image: batch
    /// norm needs two values, and the coarsest pooled map has one pixel per image.
    pub fn forward(&self, maps: Vec<Tensor<4>>, pass: &mut Pass) -> Result<Logits> {
        let pyramid = self.pyramid(maps, pass)?;
        Ok(Logits {
            decoder: self.decoder.forward(&pyramid, pass),
            auxiliary: self.aux_head.forward(&pyramid[2], pass),
        })
    }

    /// Returns the neck's outputs for the same maps: [n, h, w, width], finest first.
    ///
    /// # Errors
    /// As for [`UperNet::forward`].
    pub fn pyramid(&self, maps: Vec<Tensor<4>>, pass: &Pass) -> Result<[Tensor<4>; 4]> {
        let count = maps.len();
        let maps: [Tensor<4>; 4] = maps.try_into().map_err(|_| wrong_count(count))?;
        let [n, width, h, w] = maps[0].dims();
        let is_flat = self.neck.is_some();
        if h < 2 || w < 2 || is_flat && maps.iter().any(|map| map.dims() != [n, width, h, w]) {
            let shapes: Vec<[usize; 4]> = maps.iter().map(|map| map.dims()).collect();
            return Err(Error::mismatch(format!(
                "UPerNet: expected 4 feature maps of the same size of at least 2x2 pixels, found {shapes:?}"
            )));
        }
        if matches!(pass, Pass::Train(_)) && n < 2 {
            return Err(Error::mismatch(
                "a training batch of UPerNet needs at least 2 images, as batch norm does",
            )
            .help("raise the batch size, and drop a last batch of one image"));
        }
        let maps = maps.map(|map| map.permute([0, 2, 3, 1]));
        Ok(match &self.neck {
            Some(neck) => neck.forward(maps, pass),
            None => maps,
        })
    }

    /// Returns the training loss for labels of the image's size `[height, width]`: cross-entropy of the decoder's logits
    /// plus `auxiliary_weight` times that of the auxiliary logits, each resized to the labels.
    pub fn loss(&self, logits: Logits, labels: &PixelLabels) -> Tensor<1> {
        let loss = |logits| cross_entropy(resize(logits, labels.size(), Corners::HalfPixel), labels);
        loss(logits.decoder) + loss(logits.auxiliary) * self.auxiliary_weight
    }

    /// The training loss against maps of numbers of the image's size: the mean absolute error of the decoder's map plus
    /// `auxiliary_weight` times that of the auxiliary one, each resized to the maps. The network has one output.
    pub fn value_loss(&self, maps: Logits, values: &PixelValues) -> Tensor<1> {
        let loss = |map| absolute_error(resize(map, values.size(), Corners::HalfPixel), values);
        loss(maps.decoder) + loss(maps.auxiliary) * self.auxiliary_weight
    }
}

fn wrong_count(count: usize) -> Error {
    Error::mismatch(format!("UPerNet: expected 4 feature maps from the model, found {count}"))
        .help("name 4 blocks in map-layers of the model's TOML")
}

/// Feature2Pyramid: maps four maps of the same size to 4, 2, 1 and 0.5 times that size.
#[derive(Module, Debug)]
pub struct Neck {
    upsample_4x: (Upsample, BatchNorm, Gelu, Upsample),
    upsample_2x: Vec<Upsample>,
}

impl Neck {
    fn new(width: usize, random: &mut ChaCha8Rng, device: &Device) -> Self {
        Neck {
            upsample_4x: (
                Upsample::new(width, width, random, device),
                BatchNorm::new(width, device),
                Gelu::new(),
                Upsample::new(width, width, random, device),
            ),
            upsample_2x: vec![Upsample::new(width, width, random, device)],
        }
    }

    fn forward(&self, [a, b, c, d]: [Tensor<4>; 4], pass: &Pass) -> [Tensor<4>; 4] {
        let (first, norm, gelu, second) = &self.upsample_4x;
        let a = second.forward(gelu.forward(norm.forward(first.forward(a), false, pass)));
        let b = self.upsample_2x.iter().fold(b, |b, upsample| upsample.forward(b));
        [a, b, c, halve(d)]
    }
}

/// Max pooling of 2x2 pixels; an odd last row or column is dropped.
fn halve(x: Tensor<4>) -> Tensor<4> {
    let [n, h, w, c] = x.dims();
    let (h, w) = (h / 2, w / 2);
    let x = x.narrow(1, 0, 2 * h).narrow(2, 0, 2 * w);
    let rows = x.reshape([n, h, 2, 2 * w * c]).max_dim(2);
    rows.reshape([n, h, w, 2, c]).max_dim(3).reshape([n, h, w, c])
}

/// UPerHead.
#[derive(Module, Debug)]
pub struct Decoder {
    conv_seg: Pointwise,
    psp_modules: Vec<(AveragePool, PointwiseNorm)>,
    bottleneck: ConvNorm,
    lateral_convs: Vec<PointwiseNorm>,
    fpn_convs: Vec<ConvNorm>,
    fpn_bottleneck: ConvNorm,
    #[module(skip)]
    dropout: Dropout2d,
}

/// Adaptive average pooling.
#[derive(Module, Debug)]
pub struct AveragePool {
    side: usize,
}

impl Decoder {
    fn new(
        config: &UperNetConfig,
        widths: [usize; 4],
        classes: usize,
        random: &mut ChaCha8Rng,
        device: &Device,
    ) -> Self {
        let [finer @ .., coarsest] = widths;
        let UperNetConfig { channels, ref pool_scales, dropout, .. } = *config;
        let pool = |side: &usize, random: &mut ChaCha8Rng| {
            (AveragePool { side: *side }, PointwiseNorm::new(coarsest, channels, random, device))
        };
        let pooled: Vec<usize> =
            std::iter::once(coarsest).chain(pool_scales.iter().map(|_| channels)).collect();
        Decoder {
            conv_seg: Pointwise::with_bias(channels, classes, random, device),
            psp_modules: pool_scales.iter().map(|side| pool(side, random)).collect(),
            bottleneck: ConvNorm::new(&pooled, channels, random, device),
            lateral_convs: finer.map(|width| PointwiseNorm::new(width, channels, random, device)).into(),
            fpn_convs: (0..3).map(|_| ConvNorm::new(&[channels], channels, random, device)).collect(),
            fpn_bottleneck: ConvNorm::new(&[channels; 4], channels, random, device),
            dropout: Dropout2d { probability: dropout },
        }
    }

    fn forward(&self, pyramid: &[Tensor<4>; 4], pass: &mut Pass) -> Tensor<4> {
        let mut levels = self.levels(pyramid, pass);
        for i in (1..levels.len()).rev() {
            let coarse = resize(levels[i].clone(), size(&levels[i - 1]), Corners::HalfPixel);
            levels[i - 1] = levels[i - 1].clone() + coarse;
        }
        let finest = size(&pyramid[0]);
        let coarsest = levels.pop();
        let outputs = self.fpn_convs.iter().zip(levels);
        let outputs = outputs.map(|(conv, level)| {
            let size = size(&level);
            conv.forward([level], size, pass)
        });
        let outputs: Vec<Tensor<4>> = outputs.chain(coarsest).collect();
        let fused = self.fpn_bottleneck.forward(outputs, finest, pass);
        self.conv_seg.forward_dropped(fused, self.dropout, pass)
    }

    /// Returns each level of the pyramid in the decoder's channels; the coarsest one after pyramid pooling.
    fn levels(&self, pyramid: &[Tensor<4>; 4], pass: &Pass) -> Vec<Tensor<4>> {
        let [finer @ .., coarsest] = pyramid;
        let pooled = self
            .psp_modules
            .iter()
            .map(|(AveragePool { side }, conv)| conv.forward(average_pool(coarsest.clone(), *side), pass));
        let maps = std::iter::once(coarsest.clone()).chain(pooled);
        let laterals = self.lateral_convs.iter().zip(finer);
        let laterals = laterals.map(|(conv, level)| conv.forward(level.clone(), pass));
        laterals.chain([self.bottleneck.forward(maps, size(coarsest), pass)]).collect()
    }
}

fn size(map: &Tensor<4>) -> [usize; 2] {
    let [_, h, w, _] = map.dims();
    [h, w]
}

/// FCNHead with one convolution.
#[derive(Module, Debug)]
pub struct AuxiliaryHead {
    conv_seg: Pointwise,
    convs: Vec<ConvNorm>,
    #[module(skip)]
    dropout: Dropout2d,
}

impl AuxiliaryHead {
    fn new(
        config: &UperNetConfig,
        width: usize,
        classes: usize,
        random: &mut ChaCha8Rng,
        device: &Device,
    ) -> Self {
        let channels = config.auxiliary_channels;
        AuxiliaryHead {
            conv_seg: Pointwise::with_bias(channels, classes, random, device),
            convs: vec![ConvNorm::new(&[width], channels, random, device)],
            dropout: Dropout2d { probability: config.dropout },
        }
    }

    fn forward(&self, map: &Tensor<4>, pass: &mut Pass) -> Tensor<4> {
        let size = size(map);
        let x = self.convs.iter().fold(map.clone(), |x, conv| conv.forward([x], size, pass));
        self.conv_seg.forward_dropped(x, self.dropout, pass)
    }
}
