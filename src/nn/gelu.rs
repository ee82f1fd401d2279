//! The exact GELU, x Φ(x) with the normal distribution's Φ [Hendrycks and Gimpel, arXiv 1606.08415].

use burn::tensor::{Tensor, activation};

use super::attention::exp;
use crate::device;

/// Applies GELU to every element.
///
/// The CPU backend calls a scalar erf per element, which took 1/16 of an encoder's time. A rational function is equally
/// exact and vectorises.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let device = x.device();
    if !device::is_host(&device) || device.is_autodiff() {
        return activation::gelu(x);
    }
    // On the host, converting a tensor to data and back does not copy.
    let mut data = x.into_data();
    match data.as_mut_slice::<f32>() {
        Ok(values) => {
            gelu_in_place(values);
            Tensor::from_data(data, &device)
        }
        Err(_) => activation::gelu(Tensor::from_data(data, &device)),
    }
}

/// Applies GELU to every number.
pub(crate) fn gelu_in_place(values: &mut [f32]) {
    pulp::Arch::new().dispatch(|| values.iter_mut().for_each(|x| *x = gelu_f32(*x)));
}

/// Multiplies the gradient of each output by the derivative of GELU at its input.
pub(crate) fn gelu_backward_in_place(inputs: &[f32], gradient: &mut [f32]) {
    pulp::Arch::new().dispatch(|| {
        gradient.iter_mut().zip(inputs).for_each(|(gradient, x)| *gradient *= gelu_derivative(*x));
    });
}

/// Returns Φ(x) + x φ(x), with the normal distribution's density φ.
#[inline(always)]
fn gelu_derivative(x: f32) -> f32 {
    /// 1 / sqrt(2 π).
    const DENSITY: f32 = 0.398_942_3;
    cumulative(x) + x * DENSITY * exp(-0.5 * x * x)
}

/// Returns x Φ(x).
#[inline(always)]
pub(crate) fn gelu_f32(x: f32) -> f32 {
    x * cumulative(x)
}

/// Returns Φ(x), with Φ(x) - 1/2 = x P(x²) / Q(x²) within 7.2e-9 for |x| <= 5.5. Beyond that, Φ is 0 or 1 in float32.
///
/// P and Q are a minimax fit made for this program (reweighted least squares on Chebyshev nodes). No fused multiplications
/// are used, so that every machine gives the same bits.
#[inline(always)]
fn cumulative(x: f32) -> f32 {
    const P: [f32; 6] =
        [2.274_934_9e-8, 6.352_115e-6, 1.688_259_8e-4, 4.677_262e-3, 3.385_268e-2, 3.989_422_3e-1];
    const Q: [f32; 6] = [1.197_503_3e-6, 7.364_757e-5, 1.884_446_6e-3, 2.864_589_2e-2, 2.515_22e-1, 1.0];
    // Horner's rule, highest power first.
    let horner = |c: &[f32; 6], t: f32| c[1..].iter().fold(c[0], |sum, c| sum * t + c);
    let near = x.clamp(-5.5, 5.5);
    let t = near * near;
    0.5 + near * horner(&P, t) / horner(&Q, t)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    #[test]
    fn the_derivative_is_that_of_differences_and_keeps_what_is_not_finite() {
        let gelu = |x: f64| {
            // Φ by the trapezoidal rule, far finer than float32.
            let steps = 20_000;
            let width = (x + 12.0) / f64::from(steps);
            let density = |i: i32| (-0.5 * (-12.0 + f64::from(i) * width).powi(2)).exp();
            let inner: f64 = (1..steps).map(density).sum();
            x * width * (inner + 0.5 * (density(0) + density(steps))) / (2.0 * std::f64::consts::PI).sqrt()
        };
        for i in -60..=60 {
            let x = f64::from(i) / 10.0;
            let expected = (gelu(x + 1e-4) - gelu(x - 1e-4)) / 2e-4;
            let found = f64::from(gelu_derivative(x as f32));
            assert!((found - expected).abs() < 2e-6, "{x}: expected {expected}, found {found}");
        }
        assert!((gelu_derivative(30.0) - 1.0).abs() < 1e-7 && gelu_derivative(-30.0).abs() < 1e-7);
        assert!(gelu_derivative(f32::NAN).is_nan());
        let mut gradient = [2.0, 3.0];
        gelu_backward_in_place(&[30.0, 0.0], &mut gradient);
        assert_eq!(gradient, [2.0, 1.5]);
    }

    #[test]
    fn equals_the_backends_gelu() {
        let values: Vec<f32> = (-140_000..=140_000).map(|i| i as f32 / 10_000.0).collect();
        let x = Tensor::<1>::from_data(TensorData::from(&values[..]), &Device::flex());
        let exact = activation::gelu(x.clone()).into_data();
        let ours = gelu(x).into_data();
        for ((x, exact), ours) in values.iter().zip(exact.iter::<f32>()).zip(ours.iter::<f32>()) {
            let tolerance = 2e-7 * x.abs().max(1.0) + 2e-7 * exact.abs();
            assert!((exact - ours).abs() <= tolerance, "gelu({x}): expected {exact}, found {ours}");
        }
    }

    #[test]
    fn keeps_what_is_not_finite() {
        let x = Tensor::<1>::from_floats([f32::NAN, f32::INFINITY, f32::MAX], &Device::flex());
        let data = gelu(x).into_data();
        let y: Vec<f32> = data.iter().collect();
        assert!(y[0].is_nan() && y[1] == f32::INFINITY && y[2] == f32::MAX);
    }
}
