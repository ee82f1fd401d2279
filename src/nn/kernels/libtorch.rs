//! The kernels of LibTorch, where it has something better than Burn's composition.

use std::sync::Arc;

use burn::backend::LibTorch;
use burn::backend::tensor::FloatTensor;

use tch::{Device, Kind};

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

    fn upload(beside: Floats, values: Arc<Vec<f32>>, shape: [usize; 4]) -> Floats {
        let device = beside.tensor.device();
        let sizes: Vec<i64> = shape.iter().map(|size| *size as i64).collect();
        let copied = || -> Result<tch::Tensor, tch::TchError> {
            if !device.is_cuda() {
                return tch::Tensor::f_from_slice(&values)?.f_view(sizes.as_slice());
            }
            let bytes = values.as_ptr().cast::<u8>();
            // SAFETY: `values` are as many numbers as the shape says, stay where they are while the view is used (which ends
            // with this function), and are only read.
            let view = unsafe {
                tch::Tensor::f_from_blob(bytes, &[values.len() as i64], &[1], Kind::Float, Device::Cpu)?
            };
            // From pinned memory a card fetches by itself, several times as fast, while the program goes on. LibTorch keeps the
            // pinned block until the copy is through, and gives it to a later call.
            let pinned = view.f_view(sizes.as_slice())?.f_pin_memory(device)?;
            pinned.f_to_device_(device, Kind::Float, true, false)
        };
        match copied() {
            Ok(uploaded) if uploaded.numel() == values.len() => Floats::new(uploaded),
            // A machine may allow no pinned memory.
            _ => portable::upload::<Self>(beside, values, shape),
        }
    }
}
