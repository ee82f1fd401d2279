//! Square windows of maps whose channels come last, also after rolling the map [Liu et al., arXiv 2103.14030].

use burn::tensor::{DType, Tensor, TensorData};
use rayon::prelude::*;

use crate::device;

/// Windows over maps of h x w positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// Rows and columns of a map, multiples of `side`.
    pub size: [usize; 2],
    /// Rows and columns of a window.
    pub side: usize,
    /// How many rows and columns the map is rolled up and to the left before it is cut.
    pub shift: [usize; 2],
}

impl Windows {
    /// Cuts maps: [n, h, w, c] to [n * windows, side * side, c], windows and positions row by row.
    pub fn cut(self, x: Tensor<4>) -> Tensor<3> {
        let Windows { size: [h, w], side, shift: [down, right] } = self;
        let [n, _, _, c] = x.dims();
        let shape = [n * self.count(), side * side, c];
        if is_here(&x) {
            let device = x.device();
            let data = x.into_data();
            let values = data.as_slice::<f32>().unwrap_or_default();
            let place = |token: usize| self.source(token);
            return Tensor::from_data(TensorData::new(gathered(values, h * w, c, place), shape), &device);
        }
        let x = x.roll(&[-(down as i64), -(right as i64)], &[1, 2]);
        let x = x.reshape([n, h / side, side, w / side, side, c]).permute([0, 1, 3, 2, 4, 5]);
        x.reshape(shape)
    }

    /// Puts windows back: [n * windows, side * side, c] to [n, h, w, c].
    pub fn join(self, windows: Tensor<3>) -> Tensor<4> {
        let Windows { size: [h, w], side, shift: [down, right] } = self;
        let [all, _, c] = windows.dims();
        let n = all / self.count();
        if is_here(&windows) {
            let device = windows.device();
            let data = windows.into_data();
            let values = data.as_slice::<f32>().unwrap_or_default();
            let mut token_of = vec![0; h * w];
            (0..h * w).for_each(|token| token_of[self.source(token)] = token);
            let values = gathered(values, h * w, c, |place| token_of[place]);
            return Tensor::from_data(TensorData::new(values, [n, h, w, c]), &device);
        }
        let x = windows.reshape([n, h / side, w / side, side, side, c]).permute([0, 1, 3, 2, 4, 5]);
        x.reshape([n, h, w, c]).roll(&[down as i64, right as i64], &[1, 2])
    }

    /// Number of windows of a map.
    pub fn count(self) -> usize {
        let [h, w] = self.size;
        (h / self.side) * (w / self.side)
    }

    /// The position in the map, row by row, of each token of the windows, window by window.
    fn source(self, token: usize) -> usize {
        let Windows { size: [h, w], side, shift: [down, right] } = self;
        let (window, inside) = (token / (side * side), token % (side * side));
        let columns = w / side;
        let row = (window / columns * side + inside / side + down) % h;
        let column = (window % columns * side + inside % side + right) % w;
        row * w + column
    }
}

/// Whether the tensor lies in the program's memory, in float32 and without gradients.
fn is_here<const D: usize>(x: &Tensor<D>) -> bool {
    let device = x.device();
    device::is_host(&device) && !device.is_autodiff() && x.dtype() == DType::F32
}

/// Copies vectors of c numbers in another order: vector i of each image of `count` comes from vector `place(i)`.
fn gathered(values: &[f32], count: usize, c: usize, place: impl Fn(usize) -> usize + Sync) -> Vec<f32> {
    let mut out = vec![0.0; values.len()];
    let image = (count * c).max(1);
    out.par_chunks_mut(image).zip(values.par_chunks(image)).for_each(|(out, values)| {
        for (token, vector) in out.chunks_exact_mut(c).enumerate() {
            let from = place(token) * c;
            vector.copy_from_slice(&values[from..from + c]);
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn map(shape: [usize; 4], device: &Device) -> Tensor<4> {
        let values = (0..shape.iter().product()).map(|i: usize| i as f32).collect();
        Tensor::from_data(TensorData::new(values, shape), device)
    }

    fn numbers<const D: usize>(x: Tensor<D>) -> Vec<f32> {
        x.into_data().try_into_vec().unwrap()
    }

    /// An autodiff device takes the composed form.
    #[test]
    fn both_forms_are_the_same() {
        for shift in [[0, 0], [2, 2], [0, 2], [1, 3]] {
            let windows = Windows { size: [8, 12], side: 4, shift };
            let [here, composed] = [Device::flex(), Device::flex().autodiff()].map(|device| {
                let cut = windows.cut(map([2, 8, 12, 3], &device));
                assert_eq!(cut.dims(), [2 * 6, 16, 3]);
                numbers(cut)
            });
            assert_eq!(here, composed, "{shift:?}");
        }
    }

    #[test]
    fn joining_undoes_cutting() {
        let windows = Windows { size: [8, 12], side: 4, shift: [2, 3] };
        for device in [Device::flex(), Device::flex().autodiff()] {
            let x = map([2, 8, 12, 5], &device);
            assert_eq!(numbers(windows.join(windows.cut(x.clone()))), numbers(x));
        }
    }

    #[test]
    fn the_first_window_of_a_rolled_map_starts_at_the_shift() {
        let windows = Windows { size: [8, 8], side: 4, shift: [2, 1] };
        let cut = numbers(windows.cut(map([1, 8, 8, 1], &Device::flex())));
        assert_eq!(cut[..5], [17.0, 18.0, 19.0, 20.0, 25.0]);
        // The last one wraps around.
        assert_eq!(cut[63], 8.0);
    }
}
