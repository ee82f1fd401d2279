//! The kernels of LibTorch, where it has something better than Burn's composition.

use burn::backend::LibTorch;
use burn::backend::tensor::FloatTensor;

use super::{Kernels, portable};

type Floats = FloatTensor<LibTorch>;

impl Kernels for LibTorch {
    fn biased_product(x: Floats, weight: Floats, bias: Floats) -> Floats {
        // One kernel adds the bias while it writes the product. LibTorch takes [out, in].
        match x.tensor.f_linear(&weight.tensor.transpose(0, 1), Some(&bias.tensor)) {
            Ok(product) => Floats::new(product),
            Err(_) => portable::biased_product::<Self>(x, weight, bias),
        }
    }

    fn upload(beside: Floats, values: Vec<f32>, shape: [usize; 4]) -> Floats {
        let device = beside.tensor.device();
        if !device.is_cuda() {
            return portable::upload::<Self>(beside, values, shape);
        }
        // From pinned memory a card fetches by itself, several times as fast, while the program goes on. LibTorch keeps the
        // pinned block until the copy is through, and gives it to a later call.
        let sizes: Vec<i64> = shape.iter().map(|size| *size as i64).collect();
        let pinned = || {
            let pinned =
                tch::Tensor::f_from_slice(&values)?.f_view(sizes.as_slice())?.f_pin_memory(device)?;
            pinned.f_to_device_(device, tch::Kind::Float, true, false)
        };
        match pinned() {
            Ok(uploaded) => Floats::new(uploaded),
            // A machine may allow no pinned memory.
            Err(_) => portable::upload::<Self>(beside, values, shape),
        }
    }
}
