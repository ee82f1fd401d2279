//! The arithmetic of a model for one image, counted from its sizes.
//!
//! Counted are the multiply-adds of convolutions, linear layers and attention (queries by keys, weights by values), all tokens
//! through all blocks. Norms, activations, position codes and what is made once for all images (generated kernels, position
//! biases) are not.

use super::architecture::ArchitectureConfig;
use super::groups::{Group, GroupChannels};
use super::sensor_input::SensorInput;
use crate::task::Sensor;

/// Hidden width of an MLP in multiples of the width, where the architecture fixes it.
const RATIO: u64 = 4;

/// Returns the multiply-adds of one image [bands, side, side] of `sensor`; `None` for models whose arithmetic is not known, such
/// as those in other processes, and for images smaller than a patch.
pub fn multiply_adds(
    architecture: &ArchitectureConfig,
    sensor: Sensor,
    input: &SensorInput,
    side: usize,
) -> Option<u64> {
    let bands = input.bands.len() as u64;
    let pixels = side as u64;
    let grid = |patch: u64| Some((pixels / patch).pow(2)).filter(|patches| *patches > 0);
    match architecture {
        ArchitectureConfig::Dofa(sizes) => {
            let width = sizes.width as u64;
            // The image gets a border of one pixel.
            let patches = ((pixels + 2) / 16).pow(2);
            let embed = patches * bands * 256 * width;
            (patches > 0).then(|| embed + blocks(sizes.depth, 1 + patches, width, RATIO))
        }
        ArchitectureConfig::CopernicusFm(sizes) => {
            let (width, patch) = (sizes.width as u64, sizes.patch as u64);
            let patches = ((pixels + 2) / patch).pow(2);
            let embed = patches * bands * patch * patch * width + 3 * width * width;
            (patches > 0).then(|| embed + blocks(sizes.depth, 1 + patches, width, RATIO))
        }
        ArchitectureConfig::Decur(sizes) => {
            let (width, patches) = (sizes.width as u64, grid(16)?);
            Some(patches * bands * 256 * width + blocks(sizes.depth, 1 + patches, width, RATIO))
        }
        ArchitectureConfig::Galileo(sizes) => {
            let (width, patch) = (sizes.width as u64, sizes.patch as u64);
            let (groups, used) = groups(input, |_| true);
            let patches = grid(patch)?;
            let embed = patches * used * patch * patch * width;
            Some(embed + blocks(sizes.depth, patches * groups, width, RATIO))
        }
        ArchitectureConfig::Presto(sizes) => {
            let width = sizes.width as u64;
            // One token per group: the mean spectrum of the image.
            let (groups, used) = groups(input, |group| group != Group::Swir);
            Some(used * width + blocks(sizes.depth, groups, width, RATIO))
        }
        ArchitectureConfig::Croma(sizes) => {
            let (width, patches) = (sizes.width as u64, grid(8)?);
            let depth = if sensor == Sensor::S1 { sizes.radar_depth } else { sizes.optical_depth };
            let head = 2 * RATIO * width * width;
            Some(patches * bands * 64 * width + blocks(depth, patches, width, RATIO) + head)
        }
        ArchitectureConfig::Satlas(sizes) => {
            // Swin V2: windows of 8 x 8, each map half as wide as the one before.
            const WINDOW: u64 = 64;
            let first = sizes.width as u64;
            grid(32)?;
            let mut sum = grid(4)? * bands * 16 * first;
            for (stage, depth) in sizes.depths.iter().enumerate() {
                let (width, places) = (first << stage, ((pixels / 4) >> stage).pow(2));
                let block = places * ((4 + 2 * RATIO) * width * width + 2 * WINDOW * width);
                sum += *depth as u64 * block;
                if stage > 0 {
                    let before = width / 2;
                    sum += places * 4 * before * width;
                }
            }
            Some(sum)
        }
        ArchitectureConfig::MmEarth(sizes) => {
            grid(16)?;
            let first = sizes.widths[0] as u64;
            // A convolution of 3 x 3 without padding, then one per channel of 2 x 2.
            let mut sum = (pixels - 2).pow(2) * 9 * bands * first + (pixels / 2).pow(2) * 4 * first;
            for (stage, (width, depth)) in sizes.widths.iter().zip(sizes.depths).enumerate() {
                let (width, places) = (*width as u64, ((pixels / 2) >> stage).pow(2));
                sum += depth as u64 * places * (49 * width + 2 * RATIO * width * width);
                if let Some(before) = stage.checked_sub(1) {
                    sum += places * 4 * sizes.widths[before] as u64 * width;
                }
            }
            Some(sum)
        }
        ArchitectureConfig::AnySat(sizes) => {
            let (width, stem) = (sizes.width as u64, sizes.stem_width as u64);
            // A pixel counts as 10 m.
            let patch = (sizes.patch_metres as u64 / 10).min(pixels).max(1);
            let patches = grid(patch)?;
            // The ratio of the two polarisations is a third band.
            let bands = if sensor == Sensor::S1 { bands + 1 } else { bands };
            let widths = [bands, stem, width / 2, width, 2 * width, width, width];
            let pixel: u64 = widths.windows(2).map(|pair| pair[0] * pair[1]).sum();
            let inner = blocks(sizes.depth, 1 + patch * patch, width, RATIO);
            let tokens = 1 + patches;
            // The last block has learned queries, the same for all images.
            let last = tokens * (3 + 2 * RATIO) * width * width + 2 * tokens * tokens * width;
            let outer = blocks(sizes.depth, tokens, width, RATIO) + last;
            Some(patches * (patch * patch * pixel + inner) + outer)
        }
        _ => None,
    }
}

/// The number of groups of bands in `input` that are used, and of the bands in them.
fn groups(input: &SensorInput, is_used: impl Fn(Group) -> bool) -> (u64, u64) {
    let groups: Vec<Group> =
        GroupChannels::of(input).iter().map(|known| known.group).filter(|group| is_used(*group)).collect();
    (groups.len() as u64, groups.iter().map(|group| group.bands().len() as u64).sum())
}

/// Multiply-adds of transformer blocks: attention and an MLP of `ratio` times the width.
fn blocks(depth: usize, tokens: u64, width: u64, ratio: u64) -> u64 {
    depth as u64 * (tokens * (4 + 2 * ratio) * width * width + 2 * tokens * tokens * width)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::Home;
    use crate::model::config::ModelConfig;

    fn config(name: &str) -> ModelConfig {
        ModelConfig::load(&Home::find().unwrap(), name).unwrap()
    }

    /// Billions of multiply-adds of the model on images of `side` pixels with the first `bands` bands of Sentinel-2.
    fn billions(name: &str, bands: usize, side: usize) -> f64 {
        let config = config(name);
        let mut input = config.sensors[&Sensor::S2_L2A].clone();
        input.bands.truncate(bands);
        multiply_adds(&config.architecture, Sensor::S2_L2A, &input, side).unwrap() as f64 / 1e9
    }

    #[test]
    fn swin_costs_what_timm_says() {
        // timm's table of models: swinv2_tiny_window8_256 5.96, swinv2_base_window8_256 20.37 billion multiply-adds, for images
        // of three bands and with a head of 1,000 classes.
        assert!(
            (billions("satlas-swin-t", 3, 256) - 5.96).abs() < 0.06,
            "{}",
            billions("satlas-swin-t", 3, 256)
        );
        assert!(
            (billions("satlas-swin-b", 3, 256) - 20.37).abs() < 0.2,
            "{}",
            billions("satlas-swin-b", 3, 256)
        );
    }

    #[test]
    fn a_small_vision_transformer_costs_what_timm_says() {
        // timm's vit_small_patch16_224: 4.61 billion multiply-adds for three bands.
        let small = billions("decur-s-s2", 3, 224);
        assert!((small - 4.61).abs() < 0.02, "{small}");
    }
}
