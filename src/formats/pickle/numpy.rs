//! numpy arrays and scalars as pickles store them: a dtype, a shape and bytes.

use std::fmt;

use half::f16;

use super::{Id, Value};

/// Maximum number of dimensions of a numpy array.
pub(crate) const MAX_DIMENSIONS: usize = 64;

/// The category of an element's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Boolean.
    Bool,
    /// Signed integer.
    Int,
    /// Unsigned integer.
    Uint,
    /// Floating-point number.
    Float,
}

/// The type of an element, as in numpy's notation: `i1` to `i8`, `u1` to `u8`, `f2` to `f8`, `b1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dtype {
    /// Category.
    pub kind: Kind,
    /// Size in bytes.
    pub size: usize,
    /// Whether the most significant byte comes first.
    pub big_endian: bool,
}

/// numpy's notation, such as `i8`.
impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Bool => 'b',
            Kind::Int => 'i',
            Kind::Uint => 'u',
            Kind::Float => 'f',
        };
        write!(f, "{kind}{}", self.size)
    }
}

impl Dtype {
    /// Parses numpy's notation: `i8`, `<f4`, `|b1`. Returns `None` for other types (strings, objects, records).
    pub(crate) fn parse(notation: &str) -> Option<Self> {
        let plain = notation.trim_start_matches(['<', '>', '|', '=']);
        let (kind, size) = match plain {
            "b1" => (Kind::Bool, 1),
            "i1" => (Kind::Int, 1),
            "i2" => (Kind::Int, 2),
            "i4" => (Kind::Int, 4),
            "i8" => (Kind::Int, 8),
            "u1" => (Kind::Uint, 1),
            "u2" => (Kind::Uint, 2),
            "u4" => (Kind::Uint, 4),
            "u8" => (Kind::Uint, 8),
            "f2" => (Kind::Float, 2),
            "f4" => (Kind::Float, 4),
            "f8" => (Kind::Float, 8),
            _ => return None,
        };
        Some(Dtype { kind, size, big_endian: notation.starts_with('>') })
    }

    /// Converts the bytes of one element to a value.
    pub(crate) fn scalar(self, bytes: &[u8]) -> Option<Value<'static>> {
        if bytes.len() != self.size {
            return None;
        }
        Some(match self.kind {
            Kind::Bool => Value::Bool(self.bits(bytes) != 0),
            Kind::Float => Value::Float(self.float(bytes)),
            Kind::Int | Kind::Uint => self.integer(bytes).map_or(Value::BigInt, Value::Int),
        })
    }

    /// Returns the bytes as an unsigned integer.
    fn bits(self, bytes: &[u8]) -> u64 {
        let append = |bits: u64, byte: &u8| bits << 8 | u64::from(*byte);
        if self.big_endian { bytes.iter().fold(0, append) } else { bytes.iter().rev().fold(0, append) }
    }

    /// Returns `None` if the number is not whole or does not fit a signed 64-bit integer.
    fn integer(self, bytes: &[u8]) -> Option<i64> {
        let bits = self.bits(bytes);
        match self.kind {
            Kind::Bool => Some(i64::from(bits != 0)),
            // Shift to the top and back to extend the sign.
            Kind::Int => {
                let unused = 64 - 8 * self.size;
                Some((bits << unused).cast_signed() >> unused)
            }
            Kind::Uint => i64::try_from(bits).ok(),
            Kind::Float => whole(self.float(bytes)),
        }
    }

    fn float(self, bytes: &[u8]) -> f64 {
        let bits = self.bits(bytes);
        match (self.kind, self.size) {
            (Kind::Float, 2) => f16::from_bits(bits as u16).to_f64(),
            (Kind::Float, 4) => f32::from_bits(bits as u32).into(),
            (Kind::Float, _) => f64::from_bits(bits),
            (Kind::Uint, _) => bits as f64,
            (Kind::Int | Kind::Bool, _) => self.integer(bytes).unwrap_or_default() as f64,
        }
    }
}

/// Converts a number to an integer if it is whole and exactly representable.
pub(crate) fn whole(number: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53
    (number.fract() == 0.0 && number.abs() <= EXACT).then_some(number as i64)
}

/// A numpy array; its bytes are those of the [`Value::Bytes`] at `data`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Array {
    /// Type of the elements.
    pub dtype: Dtype,
    /// Size of each dimension.
    pub shape: Vec<usize>,
    /// Whether the first index varies fastest (Fortran order) instead of the last (C order).
    pub fortran: bool,
    pub(crate) data: Id,
}

impl Array {
    /// Creates an array over `length` bytes of data.
    pub(crate) fn new(
        dtype: Dtype,
        shape: Vec<usize>,
        fortran: bool,
        data: Id,
        length: usize,
    ) -> Result<Self, String> {
        let expected = shape.iter().try_fold(dtype.size, |size, n| size.checked_mul(*n));
        if expected != Some(length) {
            return Err(format!("a numpy array of {dtype} and shape {shape:?} has {length} bytes of data"));
        }
        Ok(Array { dtype, shape, fortran, data })
    }

    /// Elements in C order; `None` if one is not whole or does not fit a signed 64-bit integer.
    pub(crate) fn integers(&self, data: &[u8]) -> Option<Vec<i64>> {
        self.elements(data).map(|element| self.dtype.integer(element)).collect()
    }

    /// Elements in C order.
    pub(crate) fn floats(&self, data: &[u8]) -> Vec<f64> {
        self.elements(data).map(|element| self.dtype.float(element)).collect()
    }

    /// Iterates over the bytes of each element, in C order.
    fn elements<'d>(&self, data: &'d [u8]) -> impl Iterator<Item = &'d [u8]> {
        let size = self.dtype.size;
        let count = data.len() / size;
        (0..count).map(move |place| {
            let stored = if self.fortran { self.fortran_place(place) } else { place };
            &data[stored * size..(stored + 1) * size]
        })
    }

    /// Converts an element's index in C order to its index in Fortran order.
    fn fortran_place(&self, place: usize) -> usize {
        let mut strides: usize = self.shape.iter().product();
        let mut rest = place;
        let mut stored = 0;
        for extent in self.shape.iter().rev() {
            strides /= extent;
            stored += rest % extent * strides;
            rest /= extent;
        }
        stored
    }
}
