//! The same reader based on libhdf5.

use std::path::Path;

use hdf5::types::{FixedAscii, FixedUnicode, FloatSize, IntSize, TypeDescriptor, VarLenAscii, VarLenUnicode};
use hdf5::{Hyperslab, SliceOrIndex};
use ndarray::IxDyn;

use super::{Dtype, Element};

/// Maximum size of an attribute that is stored in the group's own header.
const MAX_FIXED: usize = 1 << 16;

/// An open file.
#[derive(Debug)]
pub struct File(hdf5::File);

/// A dataset of an open file.
#[derive(Debug)]
pub struct Dataset(hdf5::Dataset);

impl File {
    /// Opens the file at `path`.
    pub fn open(path: &Path) -> Result<Self, hdf5::Error> {
        hdf5::File::open(path).map(File)
    }

    /// Lists the datasets of the root group with their names.
    pub fn datasets(&self) -> Result<Vec<(String, Dataset)>, hdf5::Error> {
        let datasets = self.0.datasets()?.into_iter();
        Ok(datasets.map(|inner| (inner.name().trim_start_matches('/').to_owned(), Dataset(inner))).collect())
    }

    /// Returns the dataset at a path.
    pub fn dataset(&self, name: &str) -> Option<Dataset> {
        self.0.dataset(name).ok().map(Dataset)
    }

    /// Returns a string attribute of the root group.
    pub fn string_attribute(&self, name: &str) -> Option<String> {
        let attribute = self.0.attr(name).ok()?;
        // libhdf5 does not convert between these kinds of strings.
        None.or_else(|| attribute.read_scalar::<VarLenUnicode>().ok().map(|text| text.to_string()))
            .or_else(|| attribute.read_scalar::<VarLenAscii>().ok().map(|text| text.to_string()))
            .or_else(|| attribute.read_scalar::<FixedUnicode<MAX_FIXED>>().ok().map(|text| text.to_string()))
            .or_else(|| attribute.read_scalar::<FixedAscii<MAX_FIXED>>().ok().map(|text| text.to_string()))
    }
}

impl Dataset {
    /// Returns the stored type, or describes it if it is not supported.
    pub fn dtype(&self) -> Result<Dtype, String> {
        let stored =
            self.0.dtype().and_then(|dtype| dtype.to_descriptor()).map_err(|error| error.to_string())?;
        Ok(match stored {
            TypeDescriptor::Integer(IntSize::U1) => Dtype::Int8,
            TypeDescriptor::Integer(IntSize::U2) => Dtype::Int16,
            TypeDescriptor::Integer(IntSize::U4) => Dtype::Int32,
            TypeDescriptor::Integer(IntSize::U8) => Dtype::Int64,
            TypeDescriptor::Unsigned(IntSize::U1) => Dtype::Uint8,
            TypeDescriptor::Unsigned(IntSize::U2) => Dtype::Uint16,
            TypeDescriptor::Unsigned(IntSize::U4) => Dtype::Uint32,
            TypeDescriptor::Unsigned(IntSize::U8) => Dtype::Uint64,
            TypeDescriptor::Float(FloatSize::U4) => Dtype::Float32,
            TypeDescriptor::Float(FloatSize::U8) => Dtype::Float64,
            _ => return Err(format!("values of type {stored} are not supported")),
        })
    }

    /// Returns the length of each dimension, outermost first.
    pub fn shape(&self) -> Vec<u64> {
        self.0.shape().into_iter().map(|extent| extent as u64).collect()
    }

    /// Reads `count` rows (entries of the first dimension), starting at `first`, as plain little-endian numbers
    /// of the given type.
    pub fn rows(&self, first: usize, count: usize, dtype: Dtype) -> Result<Vec<u8>, hdf5::Error> {
        let all = SliceOrIndex::Unlimited { start: 0, step: 1, block: 1 };
        let mut slices = vec![all; self.0.ndim()];
        if let Some(rows) = slices.first_mut() {
            *rows = SliceOrIndex::SliceCount { start: first, step: 1, count, block: 1 };
        }
        let selection = Hyperslab::from(slices);
        macro_rules! bytes {
            ($type:ty) => {{
                let numbers = self.0.read_slice::<$type, _, IxDyn>(selection)?;
                numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
            }};
        }
        Ok(match dtype {
            Dtype::Int8 => bytes!(i8),
            Dtype::Int16 => bytes!(i16),
            Dtype::Int32 => bytes!(i32),
            Dtype::Int64 => bytes!(i64),
            Dtype::Uint8 => bytes!(u8),
            Dtype::Uint16 => bytes!(u16),
            Dtype::Uint32 => bytes!(u32),
            Dtype::Uint64 => bytes!(u64),
            Dtype::Float16 | Dtype::Float32 => bytes!(f32),
            Dtype::Float64 => bytes!(f64),
        })
    }

    /// Reads all elements, converted to `T`.
    pub fn read<T: Element>(&self) -> Result<Vec<T>, hdf5::Error> {
        T::libhdf5(&self.0)
    }
}
