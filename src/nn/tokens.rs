//! Operations of vision transformers on tokens before and after their blocks. n is the number of images, t = rows * columns
//! the number of patches, d the width.

use burn::tensor::Tensor;

use super::vit::Block;

/// Prepends the class token [1, 1, d] to the tokens of each image: [n, t, d] to [n, 1 + t, d].
pub fn with_class(class: Tensor<3>, patches: Tensor<3>) -> Tensor<3> {
    let [n, _, d] = patches.dims();
    Tensor::cat(vec![class.expand([n, 1, d]), patches], 1)
}

/// Returns the tokens after each of the blocks (0-based) in `layers`, from the first block to the last. Blocks after the
/// last of `layers` are not computed.
pub fn after_layers(blocks: &[Block], tokens: Tensor<3>, layers: &[usize]) -> Vec<Tensor<3>> {
    let needed = layers.iter().max().map_or(0, |last| last + 1);
    let mut tokens = tokens;
    let mut found = Vec::with_capacity(layers.len());
    for (layer, block) in blocks.iter().enumerate().take(needed) {
        tokens = block.forward(tokens);
        if layers.contains(&layer) {
            found.push(tokens.clone());
        }
    }
    found
}

/// Returns the tokens after all blocks.
pub fn after_all(blocks: &[Block], tokens: Tensor<3>) -> Tensor<3> {
    blocks.iter().fold(tokens, |tokens, block| block.forward(tokens))
}

/// Returns the first token after all blocks, without computing the others in the last block: [n, t, d] to [n, 1, d].
pub fn first_after_all(blocks: &[Block], tokens: Tensor<3>) -> Tensor<3> {
    match blocks.split_last() {
        Some((last, blocks)) => last.forward_first(after_all(blocks, tokens), 1),
        None => tokens.slice_dim(1, 0..1),
    }
}

/// Arranges patch tokens as a map: [n, rows * columns, d] to [n, d, rows, columns].
pub fn as_map(patches: Tensor<3>, [rows, columns]: [usize; 2]) -> Tensor<4> {
    let [n, _, d] = patches.dims();
    patches.swap_dims(1, 2).reshape([n, d, rows, columns])
}
