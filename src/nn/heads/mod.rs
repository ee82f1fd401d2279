//! Task heads on top of an encoder.

pub mod layers;
pub mod pixel_linear;
pub mod upernet;

use burn::tensor::Tensor;
use ndarray::Array3;

/// Returns the class with the highest logit of each pixel: logits [n, h, w, classes] to [n, h, w]. Of equal logits, the
/// first wins.
pub fn predictions(logits: Tensor<4>) -> Array3<i32> {
    let [n, h, w, _] = logits.dims();
    let classes =
        logits.inner().argmax(3).into_data().convert::<i32>().try_into_vec().expect("converted to int32");
    Array3::from_shape_vec((n, h, w), classes).expect("one class per pixel")
}
