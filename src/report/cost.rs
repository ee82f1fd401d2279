//! What a model costs: its parameters and the arithmetic for one image, counted from its architecture.
//!
//! Counted are the multiply-adds of convolutions, linear layers and attention (queries by keys, weights by values) for one image
//! and the encoder alone, without a head. Norms, activations, additions and the resizing of position embeddings are not: they
//! are a few thousandths. One multiply-add is two floating-point operations. A frozen encoder that folds layers needs less.
//!
//! TerraFM, plain vision transformers, SatMAE, Prithvi-2.0 and SoftCon are counted here, all others in
//! [`crate::model::arithmetic`], with the parameters of the network built for the sensor. Pixel statistics and models in other
//! processes are not counted.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::Device;

use crate::Result;
use crate::home::Home;
use crate::model::Architecture;
use crate::model::architecture::ArchitectureConfig;
use crate::model::arithmetic;
use crate::model::config::{ModelConfig, SensorInput};
use crate::record::Record;
use crate::task::Sensor;

/// The cost of one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Number of parameters that the image passes through: of several patch embeddings, the one of its sensor.
    pub parameters: u64,
    /// Number of multiply-adds.
    pub multiply_adds: u64,
}

impl Cost {
    /// Floating-point operations in billions.
    pub fn gflops(self) -> f64 {
        2.0 * self.multiply_adds as f64 / 1e9
    }

    fn plus(self, other: Cost) -> Cost {
        Cost {
            parameters: self.parameters + other.parameters,
            multiply_adds: self.multiply_adds + other.multiply_adds,
        }
    }

    /// Parameters without arithmetic worth counting.
    fn stored(parameters: u64) -> Cost {
        Cost { parameters, multiply_adds: 0 }
    }

    /// A linear layer of `tokens` vectors.
    fn linear(tokens: u64, from: u64, to: u64, bias: bool) -> Cost {
        Cost { parameters: from * to + if bias { to } else { 0 }, multiply_adds: tokens * from * to }
    }
}

/// The configurations of the models, to find the architecture behind a record.
pub struct Costs(Vec<ModelConfig>);

impl Costs {
    /// Reads the models in `configs/models/`; those that cannot be read have no known cost.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn read(home: &Home) -> Result<Self> {
        let names = home.names("configs/models")?;
        Ok(Costs(names.iter().filter_map(|name| ModelConfig::load(home, name).ok()).collect()))
    }

    /// Returns the cost of one image in the record's setting; `None` for several images per sample, for two models side by side
    /// and for models that are not counted.
    pub fn of(&self, record: &Record) -> Option<Cost> {
        let made = &record.provenance;
        let is_it = |config: &&ModelConfig| {
            (&config.name, &config.backbone) == (&record.cell.model, &record.cell.backbone)
                && (config.sensors.is_empty() || config.sensors.contains_key(&made.sensor))
        };
        let is_one = made.images.len() < 2 && made.beside.is_none();
        let config = self.0.iter().find(is_it).filter(|_| is_one)?;
        if !config.architecture.has_parameters() {
            return None;
        }
        let config = match made.depth {
            Some(blocks) => &config.clone().after_block(blocks).ok()?,
            None => config,
        };
        of_input(config, made.sensor, config.sensors.get(&made.sensor)?, made.image_size)
    }
}

/// Returns the cost of an image [bands, side, side] of a sensor; `None` for models that are not counted.
pub fn of_input(config: &ModelConfig, sensor: Sensor, input: &SensorInput, side: usize) -> Option<Cost> {
    let bands = match config.architecture {
        // One convolution for the bands of all sensors.
        ArchitectureConfig::Vit(_) => {
            let all: BTreeSet<_> = config.sensors.values().flat_map(|input| &input.bands).collect();
            all.len()
        }
        _ => input.bands.len(),
    };
    if let Some(cost) = count(&config.architecture, bands, side) {
        return Some(cost);
    }
    let multiply_adds = arithmetic::multiply_adds(&config.architecture, sensor, input, side)?;
    let only = BTreeMap::from([(sensor, input.clone())]);
    // Burn initialises parameters on first use, so building the network is cheap.
    let network = Architecture::new(&config.architecture, &only, &Device::flex()).ok()?;
    let parameters =
        network.parameters().iter().map(|(_, shape)| shape.iter().product::<usize>() as u64).sum();
    Some(Cost { parameters, multiply_adds })
}

/// Counts the cost of one image [bands, side, side]; `None` for architectures that are not counted and images smaller than a
/// patch.
pub fn count(architecture: &ArchitectureConfig, bands: usize, side: usize) -> Option<Cost> {
    let (bands, side) = (bands as u64, side as u64);
    let patches =
        |patch: usize| side.checked_div(patch as u64).map(|rows| rows * rows).filter(|patches| *patches > 0);
    match architecture {
        ArchitectureConfig::TerraFm(sizes) => {
            let (width, patch, patches) = (sizes.width as u64, sizes.patch as u64, patches(sizes.patch)?);
            let stem = 3 * width;
            // The stem's convolution, its learned vector, and the projection that all stems share.
            let embed = Cost::linear(patches, bands * patch * patch, stem, true)
                .plus(Cost::stored(stem))
                .plus(Cost::linear(patches, stem, stem, false))
                .plus(Cost::stored(2 * stem))
                .plus(Cost::linear(patches, stem, stem, true))
                .plus(Cost::linear(patches, stem, width, true));
            let positions = (1 + sizes.positions * sizes.positions) as u64 * width;
            let blocks = blocks(sizes.depth, 1 + patches, width, sizes.mlp_ratio, false);
            Some(embed.plus(blocks).plus(Cost::stored(width + positions + 2 * width)))
        }
        ArchitectureConfig::Vit(sizes) => {
            let positions = Some(sizes.positions);
            Some(plain(
                bands,
                patches(sizes.patch)?,
                sizes.patch,
                sizes.width,
                sizes.depth,
                sizes.mlp_ratio,
                positions,
                false,
            ))
        }
        ArchitectureConfig::Prithvi2(sizes) => {
            // Its positions are computed.
            Some(plain(
                bands,
                patches(sizes.patch)?,
                sizes.patch,
                sizes.width,
                sizes.depth,
                sizes.mlp_ratio,
                None,
                false,
            ))
        }
        ArchitectureConfig::SoftCon(sizes) => {
            // DINOv2's sizes: patches of 14 pixels, an MLP of four times the width, scaled layers.
            let positions = Some(sizes.positions);
            Some(plain(bands, patches(14)?, 14, sizes.width, sizes.depth, 4, positions, true))
        }
        ArchitectureConfig::SatMae(sizes) => {
            // Three groups of bands have an embedding and tokens of their own.
            const GROUPS: u64 = 3;
            let (width, patch, patches) = (sizes.width as u64, sizes.patch as u64, patches(sizes.patch)?);
            let embed = Cost {
                parameters: bands * patch * patch * width + GROUPS * width,
                multiply_adds: patches * bands * patch * patch * width,
            };
            let positions =
                (1 + sizes.positions * sizes.positions) as u64 * (sizes.width - sizes.group_width) as u64;
            let stored = width + positions + GROUPS * sizes.group_width as u64 + 2 * width;
            let blocks = blocks(sizes.depth, 1 + GROUPS * patches, width, sizes.mlp_ratio, false);
            Some(embed.plus(blocks).plus(Cost::stored(stored)))
        }
        _ => None,
    }
}

/// Counts a vision transformer with a class token and, if `positions` is given, as many learned rows and columns of positions.
#[expect(clippy::too_many_arguments, reason = "the sizes of one architecture")]
fn plain(
    bands: u64,
    patches: u64,
    patch: usize,
    width: usize,
    depth: usize,
    mlp_ratio: usize,
    positions: Option<usize>,
    layer_scale: bool,
) -> Cost {
    let (patch, width) = (patch as u64, width as u64);
    let positions = positions.map_or(0, |rows| (1 + rows * rows) as u64 * width);
    Cost::linear(patches, bands * patch * patch, width, true)
        .plus(blocks(depth, 1 + patches, width, mlp_ratio, layer_scale))
        .plus(Cost::stored(width + positions + 2 * width))
}

/// Counts transformer blocks: two norms, attention with biases, an MLP of `ratio` times the width.
fn blocks(depth: usize, tokens: u64, width: u64, ratio: usize, layer_scale: bool) -> Cost {
    let hidden = ratio as u64 * width;
    let attention = Cost { parameters: 0, multiply_adds: 2 * tokens * tokens * width };
    let block = Cost::linear(tokens, width, 3 * width, true)
        .plus(attention)
        .plus(Cost::linear(tokens, width, width, true))
        .plus(Cost::linear(tokens, width, hidden, true))
        .plus(Cost::linear(tokens, hidden, width, true))
        .plus(Cost::stored(4 * width + if layer_scale { 2 * width } else { 0 }));
    let depth = depth as u64;
    Cost { parameters: depth * block.parameters, multiply_adds: depth * block.multiply_adds }
}

#[cfg(test)]
mod tests {
    use burn::module::Module;
    use burn::tensor::Device;

    use super::*;
    use crate::model::architecture::Network;
    use crate::model::terrafm::TerraFm;
    use crate::model::vit::{Vit, VitConfig};

    #[test]
    fn a_vit_base_costs_what_timm_says() {
        let sizes = VitConfig {
            width: 768,
            depth: 12,
            heads: 12,
            mlp_ratio: 4,
            patch: 16,
            positions: 14,
            map_layers: vec![],
        };
        let cost = count(&ArchitectureConfig::Vit(sizes), 3, 224).unwrap();
        // timm's vit_base_patch16_224 without its head: 85,798,656 parameters, 17.6 billion multiply-adds.
        assert_eq!(cost.parameters, 85_798_656);
        assert_eq!(format!("{:.1}", cost.multiply_adds as f64 / 1e9), "17.6");
        assert_eq!(format!("{:.1}", cost.gflops()), "35.1");
    }

    #[test]
    fn parameters_are_those_of_the_network() {
        let home = Home::find().unwrap();
        let mut config = ModelConfig::load(&home, "terrafm-b").unwrap();
        let sensor = crate::task::Sensor::S2_L1C;
        config.sensors.retain(|known, _| *known == sensor);
        let ArchitectureConfig::TerraFm(sizes) = &mut config.architecture else { panic!("not a TerraFM") };
        (sizes.width, sizes.depth, sizes.heads, sizes.positions) = (32, 2, 4, 3);
        let built = TerraFm::new(sizes, &config.sensors, &Device::default()).num_params() as u64;
        assert_eq!(count(&config.architecture, 12, 48).unwrap().parameters, built);
        let vit = VitConfig {
            width: 32,
            depth: 2,
            heads: 4,
            mlp_ratio: 3,
            patch: 8,
            positions: 4,
            map_layers: vec![],
        };
        let built = Vit::new(&vit, &config.sensors, &Device::default()).num_params() as u64;
        assert_eq!(count(&ArchitectureConfig::Vit(vit), 12, 32).unwrap().parameters, built);
    }

    #[test]
    fn images_smaller_than_a_patch_have_no_cost() {
        let sizes = VitConfig {
            width: 32,
            depth: 2,
            heads: 4,
            mlp_ratio: 3,
            patch: 8,
            positions: 4,
            map_layers: vec![],
        };
        assert_eq!(count(&ArchitectureConfig::Vit(sizes), 3, 7), None);
    }

    #[test]
    fn each_model_with_parameters_has_a_count() {
        let home = Home::find().unwrap();
        for name in home.names("configs/models").unwrap() {
            let config = ModelConfig::load(&home, &name).unwrap();
            if !config.architecture.has_parameters() {
                continue;
            }
            for (sensor, input) in &config.sensors {
                let cost = of_input(&config, *sensor, input, 256);
                assert!(cost.is_some_and(|cost| cost.multiply_adds > 0), "{name} {sensor}: {cost:?}");
            }
        }
    }
}
