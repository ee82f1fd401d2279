//! The kernels on the CPU: float32 in contiguous memory, products through `gemm`, fused passes over memory that are
//! distributed over rayon's threads. Sums are taken over fixed blocks in a fixed order, so that results do not depend on
//! the number of threads. Other number types use the portable form.

mod adamw;
mod conv;
pub(crate) mod matrix;
mod norm;
pub(crate) mod packed;
mod tiles;

use burn::backend::ops::ActivationOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{DType, Flex, TensorData, TensorMetadata};

use packed::Place;
use tiles::Finish;

use super::{AdamwStep, Kernels, Norm, portable};
use crate::device;
use crate::nn::gelu::{gelu_backward_in_place, gelu_in_place};

type Floats = FloatTensor<Flex>;

impl Kernels for Flex {
    fn conv3x3(x: Floats, weight: Floats, size: [usize; 2]) -> Floats {
        if !is_f32(&[&x, &weight]) {
            return portable::conv3x3::<Self>(x, weight, size);
        }
        let shape = conv::Shape::new(&x, &weight, size);
        let (x, weight) = (contiguous(x), contiguous(weight));
        tensor(conv::forward(x.storage(), weight.storage(), shape), shape.output())
    }

    fn conv3x3_backward(
        x: Floats,
        weight: Floats,
        gradient: Floats,
        wants_x: bool,
    ) -> (Option<Floats>, Floats) {
        if !is_f32(&[&x, &weight, &gradient]) {
            return portable::conv3x3_backward::<Self>(x, weight, gradient, wants_x);
        }
        let [_, height, width, _] = gradient.shape().dims();
        let shape = conv::Shape::new(&x, &weight, [height, width]);
        let (x, weight, gradient) = (contiguous(x), contiguous(weight), contiguous(gradient));
        let (for_x, for_weight) =
            conv::backward(x.storage(), weight.storage(), gradient.storage(), shape, wants_x);
        (for_x.map(|values| tensor(values, shape.input())), tensor(for_weight, shape.weight()))
    }

    fn normalize_batch(x: Floats, gamma: Floats, beta: Floats, norm: Norm) -> (Floats, Floats, Floats) {
        if !is_f32(&[&x, &gamma, &beta]) {
            return portable::batch_norm::<Self>(x, gamma, beta, norm);
        }
        let [n, h, w, c] = x.shape().dims();
        let (x, gamma, beta) = (contiguous(x), contiguous(gamma), contiguous(beta));
        let (mean, variance) = norm::statistics(x.storage(), c);
        let affine = norm::Affine::new(&mean, &variance, gamma.storage(), beta.storage(), norm.epsilon);
        let y = norm::forward(x.storage(), &affine, norm.relu);
        (tensor(y, [n, h, w, c]), tensor(mean, [c]), tensor(variance, [c]))
    }

    fn normalize_batch_backward(
        x: Floats,
        gamma: Floats,
        beta: Floats,
        mean: Floats,
        variance: Floats,
        norm: Norm,
        gradient: Floats,
    ) -> (Floats, Floats, Floats) {
        if !is_f32(&[&x, &gamma, &beta, &mean, &variance, &gradient]) {
            let backward = portable::batch_norm_backward::<Self>;
            return backward(x, gamma, beta, mean, variance, norm, gradient);
        }
        let [_, _, _, c] = x.shape().dims();
        let [x, gamma, beta, mean, variance] = [x, gamma, beta, mean, variance].map(contiguous);
        let (mean, variance) = (mean.storage(), variance.storage());
        let affine = norm::Affine::new(mean, variance, gamma.storage(), beta.storage(), norm.epsilon);
        let mut gradient = contiguous(gradient);
        let (for_gamma, for_beta) = norm::backward(x.storage(), gradient.storage_mut(), &affine, norm.relu);
        (gradient, tensor(for_gamma, [c]), tensor(for_beta, [c]))
    }

    fn biased_product(x: Floats, weight: Floats, bias: Floats) -> Floats {
        match packed_product(&x, &weight, &bias, Finish::Plain) {
            Some(product) => product,
            None if device::rounds_products() && is_f32(&[&x, &weight]) => {
                portable::biased_product::<Self>(rounded(x), rounded(weight), bias)
            }
            None => portable::biased_product::<Self>(x, weight, bias),
        }
    }

    fn gelu_product(x: Floats, weight: Floats, bias: Floats) -> Floats {
        if let Some(product) = packed_product(&x, &weight, &bias, Finish::Gelu) {
            return product;
        }
        Self::exact_gelu(Self::biased_product(x, weight, bias))
    }

    fn exact_gelu(x: Floats) -> Floats {
        if !is_f32(&[&x]) {
            return Self::gelu(x);
        }
        let mut x = contiguous(x);
        gelu_in_place(x.storage_mut());
        x
    }

    fn exact_gelu_backward(x: Floats, gradient: Floats) -> Floats {
        if !is_f32(&[&x, &gradient]) {
            return Self::gelu_backward(x, gradient);
        }
        let (x, mut gradient) = (contiguous(x), contiguous(gradient));
        gelu_backward_in_place(x.storage(), gradient.storage_mut());
        gradient
    }

    fn adamw(
        parameter: Floats,
        gradient: Floats,
        first: Floats,
        second: Floats,
        step: AdamwStep,
    ) -> (Floats, Floats, Floats) {
        if !is_f32(&[&parameter, &gradient, &first, &second]) {
            return portable::adamw::<Self>(parameter, gradient, first, second, step);
        }
        let gradient = contiguous(gradient);
        let [mut parameter, mut first, mut second] = [parameter, first, second].map(contiguous);
        adamw::step(
            parameter.storage_mut(),
            gradient.storage(),
            first.storage_mut(),
            second.storage_mut(),
            step,
        );
        (parameter, first, second)
    }
}

/// x [.., i] times a weight [i, o] that is packed once, plus a bias [o]; `None` if that does not pay.
fn packed_product(x: &Floats, weight: &Floats, bias: &Floats, finish: Finish) -> Option<Floats> {
    if !is_f32(&[x, weight, bias]) {
        return None;
    }
    let [inputs, outputs] = weight.shape().dims();
    let layout = weight.layout();
    let [row, column] = [0, 1].map(|dim| usize::try_from(layout.strides()[dim]).ok());
    let place = Place { start: layout.start_offset(), inputs, outputs, row: row?, column: column? };
    let (x, bias) = (contiguous(x.clone()), contiguous(bias.clone()));
    let product = packed::multiply(x.storage(), (&weight.data_arc(), place), bias.storage(), finish)?;
    let mut shape = x.shape();
    let last = shape.num_dims().checked_sub(1)?;
    shape[last] = outputs;
    Some(Floats::from_data(TensorData::new(product, shape)))
}

fn rounded(x: Floats) -> Floats {
    let mut x = contiguous(x);
    tiles::round(x.storage_mut());
    x
}

fn is_f32(tensors: &[&Floats]) -> bool {
    tensors.iter().all(|tensor| tensor.dtype() == DType::F32)
}

fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> Floats {
    Floats::from_data(TensorData::new(values, shape))
}

/// Returns a tensor whose buffer contains exactly its numbers, in order. If the tensor already has this form, it is
/// returned itself, so that a buffer without another owner can be written in place.
fn contiguous(tensor: Floats) -> Floats {
    let length = tensor.shape().num_elements() * size_of::<f32>();
    let whole = tensor.layout().contiguous_offsets().is_some() && tensor.bytes().len() == length;
    if whole { tensor } else { tensor.to_contiguous() }
}
