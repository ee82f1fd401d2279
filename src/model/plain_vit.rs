//! Shared code of the encoders that consist of a [`PlainVit`] only: tokens, pooling and feature maps.

use super::encoder::{Encoded, Input, Map, Pooling, Want};
use super::requests::lacks_pooling;
use crate::Result;
use crate::nn::plain_vit::PlainVit;

/// Fulfils a request for images that suit `vit`. Tokens and maps are taken after the final norm. `model` is the name in
/// error messages.
///
/// # Errors
/// If the pooling needs a head.
/// If the pooling needs a head.
pub(crate) fn encode(
    model: &str,
    vit: &PlainVit,
    input: &Input,
    want: Want,
    map_layers: &[usize],
) -> Result<Encoded> {
    let images = input.pixels.clone(); // [n, bands, h, w]
    let [_, _, h, w] = images.dims();
    Ok(match want {
        Want::Pooled(pooling) => {
            let tokens = vit.tokens(images); // [n, 1 + t, d], the class token's first
            Encoded::Pooled(match pooling {
                Pooling::Class => tokens.slice_dim(1, 0..1).squeeze_dim(1),
                Pooling::Mean => tokens.slice_dim(1, 1..).mean_dim(1).squeeze_dim(1),
                Pooling::MeanAll => tokens.mean_dim(1).squeeze_dim(1),
                Pooling::MeanUnnormed | Pooling::Head => {
                    return Err(lacks_pooling(
                        model,
                        pooling,
                        &[Pooling::Class, Pooling::Mean, Pooling::MeanAll],
                    ));
                }
            })
        }
        Want::Tokens => {
            Encoded::Tokens { tokens: vit.tokens(images).slice_dim(1, 1..), grid: vit.grid([h, w]) }
        }
        Want::Maps => {
            let maps = vit.maps(images, map_layers).into_iter();
            Encoded::Maps(maps.map(|values| Map { values, stride: vit.patch() }).collect())
        }
    })
}
