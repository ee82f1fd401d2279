//! Arrays in host memory, as engines take and return them.

use half::{bf16, f16};

use crate::formats::onnx::Element;

/// Numbers with their shape, in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub struct HostArray {
    /// The size of each dimension.
    pub shape: Vec<usize>,
    /// As many numbers as the product of the shape.
    pub numbers: Numbers,
}

/// Numbers of one of the types that an input or output may have.
#[derive(Debug, Clone, PartialEq)]
pub enum Numbers {
    /// 32-bit floating point.
    F32(Vec<f32>),
    /// 16-bit floating point.
    F16(Vec<f16>),
    /// 16-bit floating point with the exponent of float32.
    Bf16(Vec<bf16>),
    /// 64-bit floating point.
    F64(Vec<f64>),
    /// 32-bit integers.
    I32(Vec<i32>),
    /// 64-bit integers.
    I64(Vec<i64>),
}

impl Numbers {
    /// Converts pixels to the type of an input; `None` if it is not a floating-point type.
    pub fn pixels(values: Vec<f32>, element: Element) -> Option<Self> {
        Some(match element {
            Element::F32 => Numbers::F32(values),
            Element::F16 => Numbers::F16(values.into_iter().map(f16::from_f32).collect()),
            Element::Bf16 => Numbers::Bf16(values.into_iter().map(bf16::from_f32).collect()),
            Element::F64 => Numbers::F64(values.into_iter().map(f64::from).collect()),
            Element::I32 | Element::I64 | Element::Other(_) => return None,
        })
    }

    /// Converts values to the type of an input; integers are rounded down. `None` if the type is not supported.
    pub fn of(values: &[f64], element: Element) -> Option<Self> {
        let values = values.iter().copied();
        Some(match element {
            Element::F32 => Numbers::F32(values.map(|value| value as f32).collect()),
            Element::F16 => Numbers::F16(values.map(f16::from_f64).collect()),
            Element::Bf16 => Numbers::Bf16(values.map(bf16::from_f64).collect()),
            Element::F64 => Numbers::F64(values.collect()),
            Element::I32 => Numbers::I32(values.map(|value| value.floor() as i32).collect()),
            Element::I64 => Numbers::I64(values.map(|value| value.floor() as i64).collect()),
            Element::Other(_) => return None,
        })
    }

    /// Converts an output to float32; `None` if it is not of a floating-point type.
    pub fn into_f32(self) -> Option<Vec<f32>> {
        Some(match self {
            Numbers::F32(values) => values,
            Numbers::F16(values) => values.into_iter().map(f16::to_f32).collect(),
            Numbers::Bf16(values) => values.into_iter().map(bf16::to_f32).collect(),
            Numbers::F64(values) => values.into_iter().map(|value| value as f32).collect(),
            Numbers::I32(_) | Numbers::I64(_) => return None,
        })
    }
}
