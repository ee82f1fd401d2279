//! The kernels on the CPU: float32 in contiguous memory, products through `gemm`, fused passes over memory that are
//! distributed over rayon's threads. Sums are taken over fixed blocks in a fixed order, so that results do not depend on
//! the number of threads. Other number types use the portable form.

mod adamw;
mod conv;
pub(crate) mod matrix;
mod norm;

use burn::backend::tensor::FloatTensor;
use burn::backend::{DType, Flex, TensorData, TensorMetadata};

use super::{AdamwStep, Kernels, Norm, portable};

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
