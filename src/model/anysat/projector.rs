//! From the dates of a pixel to its token: a network for each date, then attention over the dates (L-TAE) [Garnot and
//! Landrieu, arXiv 2007.00586].

use burn::module::{Module, Param};
use burn::nn::{Initializer, Linear, LinearConfig};
use burn::tensor::activation::{relu, softmax};
use burn::tensor::module::layer_norm;
use burn::tensor::{Device, Tensor, TensorData};

use crate::model::encoder::Input;
use crate::model::months;

/// The epsilon of every group norm.
const EPSILON: f64 = 1e-5;

/// Heads of the attention over dates, and groups of the norms before and after it.
pub(super) const HEADS: usize = 16;

/// Length of a head's query.
const QUERY: usize = 8;

/// Groups of the norms behind linear layers.
pub(super) const GROUPS: usize = 4;

/// Month assumed if the date is unknown: June, as in Galileo's wrapper of this model alone.
const UNKNOWN_MONTH: usize = 5;

/// Day of the year, counted from 1, of the first day of each month of 2025. Galileo's wrapper knows months only.
const FIRST_DAYS: [usize; 12] = [1, 32, 60, 91, 121, 152, 182, 213, 244, 274, 305, 335];

/// Maps names of numbered layers: `inconv.1.linear.weight` to `inconv.4.weight`, `mlp.norm.bias` to `mlp.1.bias`.
pub(super) fn checkpoint_name(name: &str) -> String {
    let name = name.replace(".attention_heads.queries", ".attention_heads.Q");
    let parts: Vec<&str> = name.split('.').collect();
    // ReLU and dropout are numbered too.
    let number = |stage: usize, layer: &str| (4 * stage + usize::from(layer == "norm")).to_string();
    match parts.as_slice() {
        [before @ .., "inconv", stage, layer @ ("linear" | "norm"), last] => match stage.parse() {
            Ok(stage) => {
                [before.join("."), "inconv".to_owned(), number(stage, layer), (*last).to_owned()].join(".")
            }
            Err(_) => name,
        },
        [before @ .., "mlp", layer @ ("linear" | "norm"), last] => {
            [before.join("."), "mlp".to_owned(), number(0, layer), (*last).to_owned()].join(".")
        }
        _ => name,
    }
}

/// Normalises equal groups of channels, each by its own mean and variance [Wu and He, arXiv 1803.08494].
#[derive(Module, Debug)]
struct GroupNorm {
    /// [channels].
    weight: Param<Tensor<1>>,
    /// [channels].
    bias: Param<Tensor<1>>,
    #[module(skip)]
    groups: usize,
}

impl GroupNorm {
    fn new(groups: usize, channels: usize, device: &Device) -> Self {
        GroupNorm {
            weight: Initializer::Ones.init([channels], device),
            bias: Initializer::Zeros.init([channels], device),
            groups,
        }
    }

    /// [rows, channels] to [rows, channels].
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let [rows, channels] = x.dims();
        let x = standardized(x.reshape([rows * self.groups, channels / self.groups]));
        x.reshape([rows, channels]) * self.weight.val().unsqueeze() + self.bias.val().unsqueeze()
    }

    /// Like [`GroupNorm::forward`], with one mean and variance for all dates: [rows, dates, channels].
    fn forward_dates(&self, x: Tensor<3>) -> Tensor<3> {
        let [rows, dates, channels] = x.dims();
        let (groups, each) = (self.groups, channels / self.groups);
        let x = x.reshape([rows, dates, groups, each]).swap_dims(1, 2).reshape([rows * groups, dates * each]);
        let x = standardized(x).reshape([rows, groups, dates, each]).swap_dims(1, 2);
        x.reshape([rows, dates, channels]) * self.weight.val().unsqueeze() + self.bias.val().unsqueeze()
    }
}

/// Each row with mean 0 and variance 1.
fn standardized(rows: Tensor<2>) -> Tensor<2> {
    let ones = Tensor::ones([rows.dims()[1]], &rows.device());
    layer_norm(rows, ones, None, EPSILON)
}

/// A linear layer, a group norm and a ReLU.
#[derive(Module, Debug)]
struct Stage {
    linear: Linear,
    norm: GroupNorm,
}

impl Stage {
    fn new(from: usize, to: usize, device: &Device) -> Self {
        Stage { linear: LinearConfig::new(from, to).init(device), norm: GroupNorm::new(GROUPS, to, device) }
    }

    /// [rows, from] to [rows, to].
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        relu(self.norm.forward(self.linear.forward(x)))
    }
}

/// Attention over dates with a learned query per head.
#[derive(Module, Debug)]
struct DateAttention {
    /// [16, 8].
    queries: Param<Tensor<2>>,
    fc1_k: Linear,
}

impl DateAttention {
    fn new(width: usize, device: &Device) -> Self {
        DateAttention {
            queries: Initializer::Zeros.init([HEADS, QUERY], device),
            fc1_k: LinearConfig::new(width, HEADS * QUERY).init(device),
        }
    }

    /// Each head sums its own channels over the dates: [rows, dates, d] to [rows, d].
    fn forward(&self, x: Tensor<3>) -> Tensor<2> {
        let [rows, dates, d] = x.dims();
        if dates == 1 {
            // The only weight is 1.
            return x.squeeze_dim(1);
        }
        let keys = self.fc1_k.forward(x.clone()).reshape([rows, dates, HEADS, QUERY]);
        let logits = (keys * self.queries.val().unsqueeze::<4>()).sum_dim(3) / (QUERY as f64).sqrt();
        let weights = softmax(logits, 1); // [rows, dates, 16, 1]
        let values = x.reshape([rows, dates, HEADS, d / HEADS]);
        (values * weights).sum_dim(1).reshape([rows, d])
    }
}

/// Embeds each pixel on its own.
#[derive(Module, Debug)]
struct TemporalEncoder {
    inconv: Vec<Stage>,
    attention_heads: DateAttention,
    /// Only for Sentinel-2.
    in_norm: Option<GroupNorm>,
    mlp: Stage,
    out_norm: GroupNorm,
}

/// The network of one sensor.
#[derive(Module, Debug)]
pub struct Projector {
    patch_embed: TemporalEncoder,
}

impl Projector {
    /// Creates the network for pixels with `bands` values per date.
    pub(super) fn new(
        bands: usize,
        [stem, width]: [usize; 2],
        has_input_norm: bool,
        device: &Device,
    ) -> Self {
        let widths = [bands, stem, width / 2, width, 2 * width, width];
        let norm = || GroupNorm::new(HEADS, width, device);
        Projector {
            patch_embed: TemporalEncoder {
                inconv: widths.windows(2).map(|pair| Stage::new(pair[0], pair[1], device)).collect(),
                attention_heads: DateAttention::new(width, device),
                in_norm: has_input_norm.then(norm),
                mlp: Stage::new(width, width, device),
                out_norm: norm(),
            },
        }
    }

    /// Embeds the pixels of patches, [patches, s * s, dates, bands], as [patches, s * s, d]. `days` are the codes of the
    /// patches' dates, [patches, dates, d].
    pub(super) fn forward(&self, pixels: Tensor<4>, days: Tensor<3>) -> Tensor<3> {
        let TemporalEncoder { inconv, attention_heads, in_norm, mlp, out_norm } = &self.patch_embed;
        let [patches, each, dates, bands] = pixels.dims();
        let rows = patches * each;
        let x = pixels.reshape([rows * dates, bands]);
        let x = inconv.iter().fold(x, |x, stage| stage.forward(x)); // [rows * dates, d]
        let d = x.dims()[1];
        let x = in_norm.iter().fold(x.reshape([rows, dates, d]), |x, norm| norm.forward_dates(x));
        let x = x.reshape([patches, each, dates, d]) + days.unsqueeze_dim(1);
        let x = attention_heads.forward(x.reshape([rows, dates, d])); // [rows, d]
        out_norm.forward(mlp.forward(x)).reshape([patches, each, d])
    }
}

/// Codes of the dates of n images, one input per date: [n, dates, d].
pub(super) fn day_codes(dates: &[Input], width: usize) -> Tensor<3> {
    let [n, ..] = dates[0].pixels.dims();
    let months = dates.iter().map(|date| months::months_or(&date.context, n, UNKNOWN_MONTH));
    // Of all images at one date, then the next.
    let days = months.flatten().map(|month| FIRST_DAYS[month % FIRST_DAYS.len()]);
    let codes = days.flat_map(|day| day_code(day, width)).collect();
    let codes = TensorData::new(codes, [dates.len(), n, width]);
    Tensor::<3>::from_data(codes, &dates[0].pixels.device()).swap_dims(0, 1)
}

/// The code of a day of the year, the same for each head: alternating sines and cosines of d / 16 frequencies.
fn day_code(day: usize, width: usize) -> impl Iterator<Item = f32> {
    let entries = width / HEADS;
    let entry = move |i: usize| {
        // Upstream computes angles in float32. Norms of few channels would magnify the difference.
        let period = 367_f64.powf((i - i % 2) as f64 / entries as f64) as f32;
        let angle = f64::from(day as f32 / period);
        (if i.is_multiple_of(2) { angle.sin() } else { angle.cos() }) as f32
    };
    (0..width).map(move |i| entry(i % entries))
}
