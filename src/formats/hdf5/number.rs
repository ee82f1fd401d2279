//! How a dataset stores its numbers, and their conversion to plain ones: little-endian, with every bit in use.

use half::f16;
use hdf5_pure::{Datatype, DatatypeByteOrder, FixedPointLayout, FloatingPointLayout};

use super::Dtype;

/// Layout of IEEE 754 16-bit floats.
pub const HALF: FloatingPointLayout = FloatingPointLayout {
    bit_offset: 0,
    bit_precision: 16,
    exponent_location: 10,
    exponent_size: 5,
    mantissa_location: 0,
    mantissa_size: 10,
    exponent_bias: 15,
};

/// How numbers are stored, and the type they are read as.
#[derive(Debug, Clone, Copy)]
pub struct NumberFormat {
    /// The type they are read as.
    pub dtype: Dtype,
    /// Bytes per stored number.
    pub size: usize,
    big_endian: bool,
    bits: Bits,
}

/// What the bits of a number mean.
#[derive(Debug, Clone, Copy)]
enum Bits {
    /// The processor's own format.
    Plain,
    /// An integer in some of the bits.
    Whole(FixedPointLayout),
    /// A float whose exponent and mantissa have other positions or widths.
    Float(FloatingPointLayout),
}

impl NumberFormat {
    /// Returns `None` if the dataset does not hold numbers of a supported type. Enumerations (numpy's `bool`)
    /// are read as their underlying numbers.
    pub fn of(stored: &Datatype) -> Option<Self> {
        let (size, order) = match stored {
            Datatype::Enumeration { base_type, .. } => return Self::of(base_type),
            Datatype::FixedPoint { size, byte_order, .. } => (*size, byte_order),
            Datatype::FloatingPoint { size, byte_order, .. } => (*size, byte_order),
            _ => return None,
        };
        let (dtype, bits) = match stored {
            Datatype::FixedPoint { layout, .. } => {
                let dtype = match (size, layout.signed) {
                    (1, true) => Dtype::Int8,
                    (2, true) => Dtype::Int16,
                    (4, true) => Dtype::Int32,
                    (8, true) => Dtype::Int64,
                    (1, false) => Dtype::Uint8,
                    (2, false) => Dtype::Uint16,
                    (4, false) => Dtype::Uint32,
                    (8, false) => Dtype::Uint64,
                    _ => return None,
                };
                let (offset, precision) = (u32::from(layout.bit_offset), u32::from(layout.bit_precision));
                match (offset, precision) {
                    (0, all) if all == 8 * size => (dtype, Bits::Plain),
                    (_, 1..) if offset + precision <= 8 * size => (dtype, Bits::Whole(*layout)),
                    _ => return None,
                }
            }
            Datatype::FloatingPoint { layout, .. } => match (size, *layout) {
                (2, HALF) => (Dtype::Float16, Bits::Plain),
                (4, FloatingPointLayout::IEEE754_BINARY32) => (Dtype::Float32, Bits::Plain),
                (8, FloatingPointLayout::IEEE754_BINARY64) => (Dtype::Float64, Bits::Plain),
                (2 | 4, layout) if fits(&layout, size, 8, 23) => (Dtype::Float32, Bits::Float(layout)),
                (2 | 4 | 8, layout) if fits(&layout, size, 11, 52) => (Dtype::Float64, Bits::Float(layout)),
                _ => return None,
            },
            _ => return None,
        };
        let big_endian = match order {
            DatatypeByteOrder::LittleEndian => false,
            DatatypeByteOrder::BigEndian => true,
            DatatypeByteOrder::Vax => return None,
        };
        Some(NumberFormat { dtype, size: usize::try_from(size).ok()?, big_endian, bits })
    }

    /// Creates the format of plain numbers of the given type.
    #[cfg(feature = "libhdf5")]
    pub fn plainly(dtype: Dtype) -> Self {
        NumberFormat { dtype, size: dtype.size(), big_endian: false, bits: Bits::Plain }
    }

    /// Whether stored bytes are already plain numbers.
    pub fn is_plain(&self) -> bool {
        !self.big_endian && matches!(self.bits, Bits::Plain)
    }

    /// Converts stored bytes to plain numbers of [`NumberFormat::dtype`].
    pub fn plain(&self, mut stored: Vec<u8>) -> Vec<u8> {
        if self.big_endian {
            stored.chunks_exact_mut(self.size).for_each(<[u8]>::reverse);
        }
        match self.bits {
            Bits::Plain => stored,
            Bits::Whole(layout) => {
                for number in stored.chunks_exact_mut(self.size) {
                    let whole = whole(word(number), &layout);
                    number.copy_from_slice(&whole.to_le_bytes()[..self.size]);
                }
                stored
            }
            Bits::Float(layout) => {
                let numbers = stored.chunks_exact(self.size).map(|number| float(word(number), &layout));
                let mut plain = Vec::with_capacity(stored.len() / self.size * self.dtype.size());
                for number in numbers {
                    match self.dtype {
                        Dtype::Float64 => plain.extend(number.to_le_bytes()),
                        Dtype::Float16 => plain.extend(f16::from_f64(number).to_le_bytes()),
                        _ => plain.extend((number as f32).to_le_bytes()),
                    }
                }
                plain
            }
        }
    }
}

/// Whether the parts of a float fit its `size` bytes, with at most this many bits of exponent and mantissa.
fn fits(layout: &FloatingPointLayout, size: u32, exponent: u8, mantissa: u8) -> bool {
    let inside = |start: u8, length: u8| u32::from(start) + u32::from(length) < 8 * size;
    (1..=exponent).contains(&layout.exponent_size)
        && (1..=mantissa).contains(&layout.mantissa_size)
        && inside(layout.exponent_location, layout.exponent_size)
        && inside(layout.mantissa_location, layout.mantissa_size)
        && (1..=8 * size).contains(&(u32::from(layout.bit_offset) + u32::from(layout.bit_precision)))
}

/// Joins at most eight little-endian bytes into one number.
fn word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Extracts `length` bits of a number, starting at bit `start`.
fn part(word: u64, start: u32, length: u32) -> u64 {
    word.checked_shr(start).unwrap_or(0) & u64::MAX.checked_shr(64 - length).unwrap_or(0)
}

fn whole(word: u64, layout: &FixedPointLayout) -> u64 {
    let precision = u32::from(layout.bit_precision);
    let bits = part(word, u32::from(layout.bit_offset), precision);
    let negative = layout.signed && bits >> (precision - 1) == 1;
    if negative { bits | u64::MAX.checked_shl(precision).unwrap_or(0) } else { bits }
}

/// Decodes a float: the sign is its highest bit and the mantissa's leading 1 is implied, as HDF5's library
/// writes it.
fn float(word: u64, layout: &FloatingPointLayout) -> f64 {
    let of = |start: u8, length: u8| part(word, u32::from(start), u32::from(length));
    let exponent = of(layout.exponent_location, layout.exponent_size);
    let mantissa =
        of(layout.mantissa_location, layout.mantissa_size) as f64 / (1_u64 << layout.mantissa_size) as f64;
    let largest = (1_u64 << layout.exponent_size) - 1;
    let power = |exponent: i64| 2_f64.powi(i32::try_from(exponent).unwrap_or(i32::MIN));
    let bias = i64::from(layout.exponent_bias);
    let size = match exponent {
        0 => mantissa * power(1 - bias),
        exponent if exponent == largest && mantissa == 0.0 => f64::INFINITY,
        exponent if exponent == largest => f64::NAN,
        exponent => (1.0 + mantissa) * power(exponent as i64 - bias),
    };
    let sign = u32::from(layout.bit_offset) + u32::from(layout.bit_precision) - 1;
    if part(word, sign, 1) == 1 { -size } else { size }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(stored: &Datatype, bytes: &[u8]) -> Vec<f64> {
        let format = NumberFormat::of(stored).unwrap();
        let mut numbers = Vec::new();
        format.dtype.decode(&format.plain(bytes.to_vec()), &mut numbers);
        numbers
    }

    fn whole(size: u32, byte_order: DatatypeByteOrder, signed: bool, bits: [u16; 2]) -> Datatype {
        let [bit_offset, bit_precision] = bits;
        Datatype::FixedPoint {
            size,
            byte_order,
            layout: FixedPointLayout { signed, bit_offset, bit_precision },
        }
    }

    #[test]
    fn reads_integers_of_fewer_bits() {
        use DatatypeByteOrder::{BigEndian, LittleEndian};
        assert_eq!(numbers(&whole(2, BigEndian, true, [0, 16]), &[1, 2, 0xff, 0xfe]), [258.0, -2.0]);
        // 12 bits; the other bits are ignored.
        assert_eq!(numbers(&whole(2, LittleEndian, true, [0, 12]), &[0xff, 0xaf, 5, 0xf0]), [-1.0, 5.0]);
        assert_eq!(numbers(&whole(2, LittleEndian, false, [4, 12]), &[0xf3, 0xff]), [4095.0]);
        assert_eq!(numbers(&whole(8, LittleEndian, false, [0, 63]), &[0xff; 8]), [(i64::MAX as u64) as f64]);
        for (size, bits) in [(3, [0, 24]), (2, [8, 12]), (2, [0, 0])] {
            assert!(
                NumberFormat::of(&whole(size, LittleEndian, true, bits)).is_none(),
                "{bits:?} of {size} bytes"
            );
        }
    }

    #[test]
    fn reads_floats_of_other_widths() {
        let stored = |size, byte_order, layout| Datatype::FloatingPoint { size, byte_order, layout };
        let half = [0x00, 0x3c, 0x01, 0x00, 0x00, 0xfc, 0xff, 0x7b];
        let expected = [1.0, 2_f64.powi(-24), f64::NEG_INFINITY, 65504.0];
        assert_eq!(numbers(&stored(2, DatatypeByteOrder::LittleEndian, HALF), &half), expected);
        let swapped: Vec<u8> = half.as_chunks::<2>().0.iter().flat_map(|[a, b]| [*b, *a]).collect();
        assert_eq!(numbers(&stored(2, DatatypeByteOrder::BigEndian, HALF), &swapped), expected);
        // bfloat16: the upper half of a float32.
        let brain = FloatingPointLayout {
            bit_precision: 16,
            exponent_location: 7,
            mantissa_size: 7,
            ..FloatingPointLayout::IEEE754_BINARY32
        };
        let found = numbers(&stored(2, DatatypeByteOrder::LittleEndian, brain), &[0x40, 0xc0, 0x80, 0x3f]);
        assert_eq!(found, [-3.0, 1.0]);
        // A float32 whose layout is spelled out.
        let spelt = Bits::Float(FloatingPointLayout::IEEE754_BINARY32);
        let format = NumberFormat { dtype: Dtype::Float32, size: 4, big_endian: false, bits: spelt };
        for number in [0.1_f32, -1e-40, 3.4e38, f32::INFINITY, -0.0, 7.0] {
            assert_eq!(format.plain(number.to_le_bytes().to_vec()), number.to_le_bytes(), "{number}");
        }
    }
}
