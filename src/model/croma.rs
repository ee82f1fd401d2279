//! CROMA [Fuller et al., arXiv 2311.00566; antofuller/CROMA]: one transformer for Sentinel-2 and one for Sentinel-1.
//!
//! There is no class token and no position embedding. Position enters as a fixed penalty on the attention between distant
//! patches. The checkpoint's joint encoder of both sensors is optional, because no published row uses it. d is the width,
//! t = rows * columns the number of patches.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::encoder::{Batch, Encoded, Encoder, Input, Map, Pooling, Want};
use super::network::{Network, Sizes};
use super::requests::{check_bands, check_patches, known_input, lacks_pooling, layer_beyond};
use super::sensor_input::SensorInput;
use crate::nn::attention::{self, Logits, attention};
use crate::nn::heads::upernet::MapLevel;
use crate::nn::kernels::{gelu_of_linear, linear};
use crate::nn::patch::patches;
use crate::task::Sensor;
use crate::{Error, Result};

const NAME: &str = "CROMA";
/// Side of a patch in pixels.
const PATCH: usize = 8;
/// Number of attention heads, the same in every size.
const HEADS: usize = 16;
/// Hidden width of an MLP, in multiples of the width.
const MLP_RATIO: usize = 4;
/// The epsilon of all norms.
const EPSILON: f64 = 1e-5;

/// The sizes that differ between variants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct CromaConfig {
    /// Length of a token, d; a multiple of 16, the number of attention heads.
    pub width: usize,
    /// Number of layers for Sentinel-2.
    pub optical_depth: usize,
    /// Number of layers for Sentinel-1.
    pub radar_depth: usize,
    /// Layers (0-based) whose tokens are the feature maps of Sentinel-2.
    pub optical_map_layers: Vec<usize>,
    /// Layers (0-based) whose tokens are the feature maps of Sentinel-1, and of both sensors at once.
    pub radar_map_layers: Vec<usize>,
    /// Number of layers that join both sensors: as many as `radar-depth`, or 0 for a model without them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub joint_depth: usize,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl Sizes for CromaConfig {
    fn problem(&self) -> Option<String> {
        let CromaConfig { width, optical_depth, radar_depth, optical_map_layers, radar_map_layers, .. } =
            self;
        let joint_depth = &self.joint_depth;
        if ![0, *radar_depth].contains(joint_depth) {
            return Some(format!(
                "joint-depth: expected 0 or {radar_depth} as radar-depth, found {joint_depth}"
            ));
        }
        if [*width, *optical_depth, *radar_depth].contains(&0) {
            return Some("expected width, optical-depth and radar-depth above 0, found a 0".to_owned());
        }
        if !width.is_multiple_of(HEADS) {
            return Some(format!("width: expected a multiple of the {HEADS} heads, found {width}"));
        }
        if optical_map_layers.len() != radar_map_layers.len() {
            return Some(format!(
                "radar-map-layers: expected {} layers as in optical-map-layers, found {}",
                optical_map_layers.len(),
                radar_map_layers.len()
            ));
        }
        layer_beyond("optical-map-layers", optical_map_layers, *optical_depth)
            .or_else(|| layer_beyond("radar-map-layers", radar_map_layers, *radar_depth))
    }

    fn poolings(&self) -> &'static [Pooling] {
        POOLINGS
    }

    fn maps(&self) -> Vec<MapLevel> {
        vec![MapLevel { width: self.width, stride: PATCH }; self.optical_map_layers.len()]
    }

    fn fuses(&self, sensors: &[Sensor]) -> bool {
        let optical = sensors.iter().filter(|sensor| sensor.is_sentinel2()).count();
        self.joint_depth > 0 && sensors.len() == 2 && optical == 1 && sensors.contains(&Sensor::S1)
    }
}

/// Galileo's evaluation uses the head, Copernicus-Bench the mean.
const POOLINGS: &[Pooling] = &[Pooling::Head, Pooling::Mean];

fn norm(width: usize, device: &Device) -> LayerNorm {
    LayerNormConfig::new(width).with_epsilon(EPSILON).init(device)
}

/// The attention's additive bias, a penalty on distance.
struct DistanceBias {
    /// Distances between patches, in patches: [t, t].
    distances: Tensor<2>,
    /// What a distance of 1 adds to the logits of each head: [1, heads, 1, 1].
    slopes: Tensor<4>,
    /// The bias of all queries, if they are computed at once.
    whole: Option<Tensor<4>>,
    queries_at_once: usize,
}

/// Maximum number of logits per image computed at once: 64 MiB. A grid of 64 x 64 patches has 16 times as many.
const LOGITS_AT_ONCE: usize = 1 << 24;

impl DistanceBias {
    /// Creates the bias for a grid of `rows` x `columns` patches, with at most `logits_at_once` logits at a time.
    fn new([rows, columns]: [usize; 2], logits_at_once: usize, device: &Device) -> Self {
        let t = rows * columns;
        // Squared differences of patch coordinates: [t, t].
        let squares = |coordinate: &dyn Fn(usize) -> usize| {
            let values = (0..t).map(|patch| coordinate(patch) as f32).collect();
            let along = Tensor::<2>::from_data(TensorData::new(values, [t, 1]), device);
            let differences = along.clone() - along.transpose();
            differences.clone() * differences
        };
        let distances = (squares(&|patch| patch / columns) + squares(&|patch| patch % columns)).sqrt();
        let slope = |head: usize| -(-0.5 * (head + 1) as f64).exp2() as f32;
        let slopes = TensorData::new((0..HEADS).map(slope).collect(), [1, HEADS, 1, 1]);
        let queries_at_once = (logits_at_once / (HEADS * t)).clamp(1, t);
        let mut bias = DistanceBias {
            distances,
            slopes: Tensor::from_data(slopes, device),
            whole: None,
            queries_at_once,
        };
        if queries_at_once == t {
            bias.whole = Some(bias.of_queries(0, t));
        }
        bias
    }

    /// Returns the bias of the queries from `start` to before `end`: [1, heads, end - start, t].
    fn of_queries(&self, start: usize, end: usize) -> Tensor<4> {
        match &self.whole {
            Some(whole) => whole.clone(),
            None => self.slopes.clone() * self.distances.clone().slice_dim(0, start..end).unsqueeze::<4>(),
        }
    }
}

/// Returns the bias added to the attention logits of a grid of `rows` x `columns` patches: [1, 16, t, t].
pub fn attention_bias(rows: usize, columns: usize, device: &Device) -> Tensor<4> {
    DistanceBias::new([rows, columns], LOGITS_AT_ONCE, device).of_queries(0, rows * columns)
}

/// Self-attention with a pre-norm.
#[derive(Module, Debug)]
struct Attention {
    to_qkv: Linear,
    to_out: Linear,
    input_norm: LayerNorm,
}

impl Attention {
    fn new(width: usize, device: &Device) -> Self {
        Attention {
            to_qkv: LinearConfig::new(width, 3 * width).with_bias(false).init(device),
            to_out: LinearConfig::new(width, width).init(device),
            input_norm: norm(width, device),
        }
    }

    /// [n, t, d] to [n, t, d].
    fn forward(&self, x: Tensor<3>, bias: &DistanceBias) -> Tensor<3> {
        let [_, t, d] = x.dims();
        let qkv = linear(self.input_norm.forward(x), &self.to_qkv); // queries, keys and values side by side
        let x = match &bias.whole {
            Some(whole) => attention::of_packed(qkv, HEADS, t, Logits::biased(whole.clone())),
            None => {
                let part = |i: usize| qkv.clone().slice_dim(2, i * d..(i + 1) * d);
                attend(part(0), part(1), part(2), bias)
            }
        };
        linear(x, &self.to_out)
    }
}

/// Returns softmax(q kᵀ / sqrt(d / heads) + bias) v, [n, t, d] like q, k and v.
fn attend(q: Tensor<3>, k: Tensor<3>, v: Tensor<3>, bias: &DistanceBias) -> Tensor<3> {
    let t = q.dims()[1];
    let of_queries = |start: usize| {
        let end = (start + bias.queries_at_once).min(t);
        let bias = bias.of_queries(start, end);
        let q = q.clone().slice_dim(1, start..end);
        attention(q, k.clone(), v.clone(), HEADS, Logits::biased(bias))
    };
    let parts: Vec<Tensor<3>> = (0..t).step_by(bias.queries_at_once).map(of_queries).collect();
    Tensor::cat(parts, 1)
}

/// Attention of the tokens of one sensor to those of the other, with one pre-norm for both.
#[derive(Module, Debug)]
struct CrossAttention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    input_norm: LayerNorm,
}

impl CrossAttention {
    fn new(width: usize, device: &Device) -> Self {
        let linear = || LinearConfig::new(width, width);
        let [to_q, to_k, to_v] = [(); 3].map(|()| linear().with_bias(false).init(device));
        CrossAttention { to_q, to_k, to_v, to_out: linear().init(device), input_norm: norm(width, device) }
    }

    /// Queries from `x`, keys and values from `context`, [n, t, d] each: to [n, t, d].
    fn forward(&self, x: Tensor<3>, context: Tensor<3>, bias: &DistanceBias) -> Tensor<3> {
        let (x, context) = (self.input_norm.forward(x), self.input_norm.forward(context));
        let [k, v] = [&self.to_k, &self.to_v].map(|layer| linear(context.clone(), layer));
        linear(attend(linear(x, &self.to_q), k, v, bias), &self.to_out)
    }
}

/// Two linear layers with a GELU in between.
#[derive(Module, Debug)]
struct Net {
    expand: Linear,
    contract: Linear,
}

impl Net {
    fn new(width: usize, device: &Device) -> Self {
        Net {
            expand: LinearConfig::new(width, MLP_RATIO * width).init(device),
            contract: LinearConfig::new(MLP_RATIO * width, width).init(device),
        }
    }

    /// [.., d] to [.., d].
    fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        linear(gelu_of_linear(x, &self.expand), &self.contract)
    }
}

/// An MLP with a pre-norm.
#[derive(Module, Debug)]
struct FeedForward {
    net: Net,
    input_norm: LayerNorm,
}

/// Attention and MLP, each with a residual connection.
#[derive(Module, Debug)]
struct Layer {
    attention: Attention,
    ffn: FeedForward,
}

impl Layer {
    fn new(width: usize, device: &Device) -> Self {
        Layer {
            attention: Attention::new(width, device),
            ffn: FeedForward { net: Net::new(width, device), input_norm: norm(width, device) },
        }
    }

    /// [n, t, d] to [n, t, d].
    fn forward(&self, x: Tensor<3>, bias: &DistanceBias) -> Tensor<3> {
        let x = self.attention.forward(x.clone(), bias) + x;
        self.ffn.net.forward(self.ffn.input_norm.forward(x.clone())) + x
    }
}

#[derive(Module, Debug)]
struct Transformer {
    layers: Vec<Layer>,
    norm_out: LayerNorm,
}

/// The transformer of one sensor.
#[derive(Module, Debug)]
struct SensorEncoder {
    linear_input: Linear,
    transformer: Transformer,
}

impl SensorEncoder {
    fn new(bands: usize, width: usize, depth: usize, device: &Device) -> Self {
        SensorEncoder {
            linear_input: LinearConfig::new(bands * PATCH * PATCH, width).init(device),
            transformer: Transformer {
                layers: (0..depth).map(|_| Layer::new(width, device)).collect(),
                norm_out: norm(width, device),
            },
        }
    }

    fn bands(&self) -> usize {
        self.linear_input.weight.dims()[0] / (PATCH * PATCH)
    }

    /// [n, bands, h, w] to [n, t, d].
    fn embed(&self, images: Tensor<4>) -> Tensor<3> {
        linear(patches(images, PATCH), &self.linear_input)
    }

    /// Returns the tokens after the last layer and its norm: [n, bands, h, w] to [n, t, d].
    fn tokens(&self, images: Tensor<4>) -> Tensor<3> {
        let bias = DistanceBias::new(grid(&images), LOGITS_AT_ONCE, &images.device());
        let tokens = self.embed(images);
        let tokens =
            self.transformer.layers.iter().fold(tokens, |tokens, layer| layer.forward(tokens, &bias));
        self.transformer.norm_out.forward(tokens)
    }

    /// Returns the tokens after each of `layers`, from the first to the last, without a norm: [n, bands, h, w] to [n, d,
    /// rows, columns] each.
    fn maps(&self, images: Tensor<4>, layers: &[usize]) -> Vec<Tensor<4>> {
        let [rows, columns] = grid(&images);
        let bias = DistanceBias::new([rows, columns], LOGITS_AT_ONCE, &images.device());
        let needed = layers.iter().max().map_or(0, |last| last + 1);
        let mut tokens = self.embed(images);
        let mut maps = Vec::with_capacity(layers.len());
        for (index, layer) in self.transformer.layers.iter().enumerate().take(needed) {
            tokens = layer.forward(tokens, &bias); // [n, t, d]
            if layers.contains(&index) {
                let [n, _, d] = tokens.dims();
                maps.push(tokens.clone().swap_dims(1, 2).reshape([n, d, rows, columns]));
            }
        }
        maps
    }
}

/// A layer of the joint encoder, with residual connections on Sentinel-1's side.
#[derive(Module, Debug)]
struct JointLayer {
    joint_attention: Attention,
    cross_attention: CrossAttention,
    joint_ffn: FeedForward,
}

/// Joins the tokens of both sensors.
#[derive(Module, Debug)]
struct JointEncoder {
    layers: Vec<JointLayer>,
    norm_out: LayerNorm,
}

impl JointEncoder {
    fn new(width: usize, depth: usize, device: &Device) -> Self {
        let layer = |_| {
            let Layer { attention, ffn } = Layer::new(width, device);
            let cross_attention = CrossAttention::new(width, device);
            JointLayer { joint_attention: attention, cross_attention, joint_ffn: ffn }
        };
        JointEncoder { layers: (0..depth).map(layer).collect(), norm_out: norm(width, device) }
    }

    /// Tokens of Sentinel-1 and Sentinel-2 after their own norms, [n, t, d] each: to the residual stream after each layer.
    fn streams(&self, radar: Tensor<3>, optical: &Tensor<3>, bias: &DistanceBias) -> Vec<Tensor<3>> {
        let mut x = radar;
        let after = |layer: &JointLayer| {
            let tokens = layer.joint_attention.forward(x.clone(), bias) + x.clone();
            let tokens = layer.cross_attention.forward(tokens.clone(), optical.clone(), bias) + tokens;
            let FeedForward { net, input_norm } = &layer.joint_ffn;
            x = net.forward(input_norm.forward(tokens.clone())) + tokens;
            x.clone()
        };
        self.layers.iter().map(after).collect()
    }
}

/// Returns the number of rows and columns of patches.
fn grid(images: &Tensor<4>) -> [usize; 2] {
    let [_, _, h, w] = images.dims();
    [h / PATCH, w / PATCH]
}

/// Maps the mean of the tokens to the pooled feature.
#[derive(Module, Debug)]
struct PooledHead {
    norm: LayerNorm,
    expand: Linear,
    contract: Linear,
}

impl PooledHead {
    fn new(width: usize, device: &Device) -> Self {
        let Net { expand, contract } = Net::new(width, device);
        PooledHead { norm: norm(width, device), expand, contract }
    }

    /// [n, d] to [n, d].
    fn forward(&self, means: Tensor<2>) -> Tensor<2> {
        linear(gelu_of_linear(self.norm.forward(means), &self.expand), &self.contract)
    }
}

/// The encoders of one or both sensors.
#[derive(Module, Debug)]
pub struct Croma {
    s1_encoder: Option<SensorEncoder>,
    s1_gap_ffn: Option<PooledHead>,
    s2_encoder: Option<SensorEncoder>,
    s2_gap_ffn: Option<PooledHead>,
    joint_encoder: Option<JointEncoder>,
    #[module(skip)]
    sensors: BTreeMap<Sensor, SensorInput>,
    #[module(skip)]
    config: CromaConfig,
}

impl Network for Croma {
    type Config = CromaConfig;

    /// Builds the encoders that `sensors` needs: for Sentinel-1, for Sentinel-2 at either level, or both.
    fn new(config: &CromaConfig, sensors: &BTreeMap<Sensor, SensorInput>, device: &Device) -> Self {
        let width = config.width;
        let bands = |is_of: fn(Sensor) -> bool| {
            sensors.iter().find(|(sensor, _)| is_of(**sensor)).map(|(_, input)| input.bands.len())
        };
        let (s1, s2) = (bands(|sensor| sensor == Sensor::S1), bands(Sensor::is_sentinel2));
        Croma {
            s1_encoder: s1.map(|bands| SensorEncoder::new(bands, width, config.radar_depth, device)),
            s1_gap_ffn: s1.map(|_| PooledHead::new(width, device)),
            s2_encoder: s2.map(|bands| SensorEncoder::new(bands, width, config.optical_depth, device)),
            s2_gap_ffn: s2.map(|_| PooledHead::new(width, device)),
            joint_encoder: (config.joint_depth > 0 && s1.is_some() && s2.is_some())
                .then(|| JointEncoder::new(width, config.joint_depth, device)),
            sensors: sensors.clone(),
            config: config.clone(),
        }
    }

    /// Maps `s1_encoder.transformer.layers.2.ffn.net.contract.bias` to `s1_encoder.transformer.layers.2.1.net.3.bias`.
    fn checkpoint_name(name: &str) -> String {
        const NAMES: [(&str, &str); 10] = [
            (".joint_attention.", ".0."),
            (".cross_attention.", ".1."),
            (".joint_ffn.", ".2."),
            ("gap_ffn.norm.", "GAP_FFN.0."),
            ("gap_ffn.expand.", "GAP_FFN.1."),
            ("gap_ffn.contract.", "GAP_FFN.3."),
            (".attention.", ".0."),
            (".ffn.", ".1."),
            (".net.expand.", ".net.0."),
            (".net.contract.", ".net.3."),
        ];
        NAMES.iter().fold(name.to_owned(), |name, (ours, theirs)| name.replace(ours, theirs))
    }
}

impl Croma {
    /// Embeds the patches of a batch: [n, t, d].
    ///
    /// # Errors
    /// If the model does not support the sensor, the bands or the size.
    pub fn embed(&self, batch: &Batch) -> Result<Tensor<3>> {
        let (input, encoder, ..) = self.parts(batch)?;
        Ok(encoder.embed(input.pixels.clone()))
    }

    /// Encodes images of both sensors at once. The pooled feature is the plain mean of the joint tokens, as published; maps come
    /// from the residual stream of the joint encoder, which upstream never uses.
    fn encode_both(&self, batch: &Batch, want: Want) -> Result<Encoded> {
        let alone = |is_of: fn(Sensor) -> bool| {
            let input = batch.inputs.iter().find(|input| is_of(input.sensor));
            input.map(|input| Batch { inputs: vec![input.clone()] })
        };
        let (Some(joint), Some(radar), Some(optical)) =
            (&self.joint_encoder, alone(|sensor| sensor == Sensor::S1), alone(Sensor::is_sentinel2))
        else {
            let problem = format!("{NAME}: expected an image of one sensor, or of Sentinel-1 and Sentinel-2");
            return Err(Error::mismatch(problem).help("for both at once, use a model with joint-depth"));
        };
        let ((radar, radar_encoder, ..), (optical, optical_encoder, ..)) =
            (self.parts(&radar)?, self.parts(&optical)?);
        let [rows, columns] = grid(&radar.pixels);
        if radar.pixels.dims()[0] != optical.pixels.dims()[0] || grid(&optical.pixels) != [rows, columns] {
            let (found, expected) = (optical.pixels.dims(), radar.pixels.dims());
            let problem = format!("{NAME}: expected images of one size, found {found:?} and {expected:?}");
            return Err(Error::mismatch(problem).help("resize the images of both sensors to the same size"));
        }
        let bias = DistanceBias::new([rows, columns], LOGITS_AT_ONCE, &radar.pixels.device());
        let optical = optical_encoder.tokens(optical.pixels.clone());
        let streams = joint.streams(radar_encoder.tokens(radar.pixels.clone()), &optical, &bias);
        let tokens = streams.last().map(|last| joint.norm_out.forward(last.clone()));
        let tokens =
            tokens.ok_or_else(|| Error::mismatch(format!("{NAME}: the joint encoder has no layer")))?;
        Ok(match want {
            Want::Pooled(Pooling::Head | Pooling::Mean) => {
                Encoded::Pooled(tokens.mean_dim(1).squeeze_dim::<2>(1))
            }
            Want::Pooled(pooling) => return Err(lacks_pooling(NAME, pooling, POOLINGS)),
            Want::Tokens => Encoded::Tokens { tokens, grid: [rows, columns] },
            Want::Maps => {
                let map = |layer: &usize| {
                    let stream = streams.get(*layer)?.clone();
                    let [n, _, d] = stream.dims();
                    let values = stream.swap_dims(1, 2).reshape([n, d, rows, columns]);
                    Some(Map { values, stride: PATCH })
                };
                Encoded::Maps(self.config.radar_map_layers.iter().filter_map(map).collect())
            }
        })
    }

    /// Returns a batch's input and the parts that encode it: the encoder, the pooled head and the layers of the maps.
    fn parts<'a>(
        &'a self,
        batch: &'a Batch,
    ) -> Result<(&'a Input, &'a SensorEncoder, &'a PooledHead, &'a [usize])> {
        let input = known_input(NAME, batch, &self.sensors)?;
        let (encoder, head, layers) = match input.sensor {
            Sensor::S1 => (&self.s1_encoder, &self.s1_gap_ffn, &self.config.radar_map_layers),
            _ => (&self.s2_encoder, &self.s2_gap_ffn, &self.config.optical_map_layers),
        };
        let (Some(encoder), Some(head)) = (encoder, head) else {
            let problem = format!("{NAME}: expected Sentinel-1 or Sentinel-2, found sensor {}", input.sensor);
            return Err(
                Error::mismatch(problem).help("remove the sensor from the model's file in configs/models/")
            );
        };
        check_bands(NAME, input, encoder.bands())?;
        check_patches(NAME, input, PATCH)?;
        Ok((input, encoder, head, layers))
    }
}

impl Encoder for Croma {
    fn width(&self, _: Pooling, _: usize) -> usize {
        self.config.width
    }

    /// [`Pooling::Head`] is the model's own pooled feature, as in Galileo's evaluation. [`Pooling::Mean`] stops after the
    /// head's norm, as in Copernicus-Bench. Maps come from the residual stream, without the final norm.
    fn encode(&self, batch: &Batch, want: Want) -> Result<Encoded> {
        if batch.inputs.len() == 2 {
            return self.encode_both(batch, want);
        }
        let (input, encoder, head, layers) = self.parts(batch)?;
        let images = input.pixels.clone();
        let grid = grid(&images);
        let means = |images| encoder.tokens(images).mean_dim(1).squeeze_dim::<2>(1); // [n, d]
        Ok(match want {
            Want::Pooled(Pooling::Head) => Encoded::Pooled(head.forward(means(images))),
            Want::Pooled(Pooling::Mean) => Encoded::Pooled(head.norm.forward(means(images))),
            Want::Pooled(pooling) => {
                return Err(lacks_pooling(NAME, pooling, POOLINGS));
            }
            Want::Tokens => Encoded::Tokens { tokens: encoder.tokens(images), grid },
            Want::Maps => {
                let maps = encoder.maps(images, layers).into_iter();
                Encoded::Maps(maps.map(|values| Map { values, stride: PATCH }).collect())
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Distribution;

    #[test]
    fn attention_in_slices_equals_attention_at_once() {
        let device = Device::flex();
        let attention = Attention::new(32, &device);
        let x = Tensor::<3>::random([2, 35, 32], Distribution::Normal(0.0, 1.0), &device);
        let with = |logits_at_once| {
            let bias = DistanceBias::new([5, 7], logits_at_once, &device);
            (bias.queries_at_once, attention.forward(x.clone(), &bias).into_data())
        };
        let (all, whole) = with(LOGITS_AT_ONCE);
        let (some, slices) = with(16 * 35 * 8);
        assert_eq!((all, some), (35, 8));
        let largest =
            whole.iter::<f32>().zip(slices.iter::<f32>()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(largest < 1e-6, "differs by {largest:e}");
    }
}
