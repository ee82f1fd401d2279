//! HDF5 files. This is the only module that uses an HDF5 library.
//!
//! `hdf5-pure` reads them without a C library. The feature `libhdf5` adds a second reader based on the original
//! library, for comparison and for files that the first one refuses.

mod chunked;
mod explain;
mod filters;
mod grow;
#[cfg(feature = "libhdf5")]
mod libhdf5;
mod links;
mod lzf;
mod moved;
mod number;
mod rows;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use half::f16;
use hdf5_pure::{Datatype, DatatypeByteOrder, Layout};

pub use self::chunked::Chunked;
pub use self::grow::{Column, Growing};
use self::links::Link;
use self::number::NumberFormat;
pub use self::rows::Rows;
#[cfg(feature = "libhdf5")]
use crate::error::AtPath;
use crate::{Error, Result};

const DAMAGED: &str = "the file is damaged: download it again";

/// Maximum number of elements in a dataset; larger ones are taken for damage. Equals 16384 x 16384.
const MAX_ELEMENTS: usize = 1 << 28;

/// The library that reads a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Library {
    /// `hdf5-pure`, without C code.
    Pure,
    /// The original library.
    #[cfg(feature = "libhdf5")]
    Libhdf5,
}

/// An open HDF5 file.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    inner: FileOf,
}

#[derive(Debug)]
enum FileOf {
    Pure(hdf5_pure::File),
    #[cfg(feature = "libhdf5")]
    Libhdf5(libhdf5::File),
}

/// A dataset in the root group of a file.
#[derive(Debug)]
pub struct Dataset<'f> {
    file: &'f File,
    name: String,
    inner: DatasetOf,
}

#[derive(Debug)]
enum DatasetOf {
    Pure(hdf5_pure::Dataset),
    #[cfg(feature = "libhdf5")]
    Libhdf5(libhdf5::Dataset),
}

/// The number types of datasets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// 8-bit signed integer.
    Int8,
    /// 16-bit signed integer.
    Int16,
    /// 32-bit signed integer.
    Int32,
    /// 64-bit signed integer.
    Int64,
    /// 8-bit unsigned integer.
    Uint8,
    /// 16-bit unsigned integer.
    Uint16,
    /// 32-bit unsigned integer.
    Uint32,
    /// 64-bit unsigned integer.
    Uint64,
    /// 16-bit float.
    Float16,
    /// 32-bit float.
    Float32,
    /// 64-bit float.
    Float64,
}

/// numpy's names, such as `int16` or `float32`.
impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dtype::Int8 => "int8",
            Dtype::Int16 => "int16",
            Dtype::Int32 => "int32",
            Dtype::Int64 => "int64",
            Dtype::Uint8 => "uint8",
            Dtype::Uint16 => "uint16",
            Dtype::Uint32 => "uint32",
            Dtype::Uint64 => "uint64",
            Dtype::Float16 => "float16",
            Dtype::Float32 => "float32",
            Dtype::Float64 => "float64",
        })
    }
}

impl Dtype {
    const ALL: [Dtype; 11] = [
        Dtype::Int8,
        Dtype::Int16,
        Dtype::Int32,
        Dtype::Int64,
        Dtype::Uint8,
        Dtype::Uint16,
        Dtype::Uint32,
        Dtype::Uint64,
        Dtype::Float16,
        Dtype::Float32,
        Dtype::Float64,
    ];

    /// Finds the type with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.to_string() == name)
    }

    /// Returns HDF5's description of the type.
    fn stored(self) -> Datatype {
        match self {
            Dtype::Int8 => hdf5_pure::make_i8_type(),
            Dtype::Int16 => hdf5_pure::make_i16_type(),
            Dtype::Int32 => hdf5_pure::make_i32_type(),
            Dtype::Int64 => hdf5_pure::make_i64_type(),
            Dtype::Uint8 => hdf5_pure::make_u8_type(),
            Dtype::Uint16 => hdf5_pure::make_u16_type(),
            Dtype::Uint32 => hdf5_pure::make_u32_type(),
            Dtype::Uint64 => hdf5_pure::make_u64_type(),
            Dtype::Float16 => Datatype::FloatingPoint {
                size: 2,
                byte_order: DatatypeByteOrder::LittleEndian,
                layout: number::HALF,
            },
            Dtype::Float32 => hdf5_pure::make_f32_type(),
            Dtype::Float64 => hdf5_pure::make_f64_type(),
        }
    }

    /// Appends a number as stored, in little-endian order; `None` if the type cannot represent it exactly.
    pub fn encode(self, number: f64, out: &mut Vec<u8>) -> Option<()> {
        macro_rules! integer {
            ($type:ty) => {{
                let stored = number as $type;
                (stored as f64 == number).then(|| out.extend(stored.to_le_bytes()))
            }};
        }
        match self {
            Dtype::Int8 => integer!(i8),
            Dtype::Int16 => integer!(i16),
            Dtype::Int32 => integer!(i32),
            Dtype::Uint8 => integer!(u8),
            Dtype::Uint16 => integer!(u16),
            Dtype::Uint32 => integer!(u32),
            // Numbers beyond 2^53 have already been rounded as f64.
            Dtype::Int64 | Dtype::Uint64 => None,
            Dtype::Float16 => {
                let stored = f16::from_f64(number);
                (f64::from(stored) == number || number.is_nan()).then(|| out.extend(stored.to_le_bytes()))
            }
            Dtype::Float32 => {
                let stored = number as f32;
                (f64::from(stored) == number || number.is_nan()).then(|| out.extend(stored.to_le_bytes()))
            }
            Dtype::Float64 => {
                out.extend(number.to_le_bytes());
                Some(())
            }
        }
    }

    /// Returns the number of bytes per number.
    pub fn size(self) -> usize {
        match self {
            Dtype::Int8 | Dtype::Uint8 => 1,
            Dtype::Int16 | Dtype::Uint16 | Dtype::Float16 => 2,
            Dtype::Int32 | Dtype::Uint32 | Dtype::Float32 => 4,
            Dtype::Int64 | Dtype::Uint64 | Dtype::Float64 => 8,
        }
    }

    /// Decodes little-endian numbers from `bytes` and appends them to `out`.
    pub fn decode<T: Element>(self, bytes: &[u8], out: &mut Vec<T>) {
        T::decode(self, bytes, out);
    }

    /// Whether values can be infinite or NaN.
    pub fn is_float(self) -> bool {
        matches!(self, Dtype::Float16 | Dtype::Float32 | Dtype::Float64)
    }
}

/// The number types that pixels are read as: f32 and f64.
pub trait Element: sealed::Element {}

impl Element for f32 {}
impl Element for f64 {}

mod sealed {
    use half::f16;

    use super::Dtype;

    pub trait Element: Copy {
        /// Decodes little-endian numbers of type `dtype` and appends them.
        fn decode(dtype: Dtype, bytes: &[u8], out: &mut Vec<Self>);
        /// Reads all elements, converted by the library.
        fn pure(dataset: &hdf5_pure::Dataset) -> Result<Vec<Self>, hdf5_pure::Error>;
        #[cfg(feature = "libhdf5")]
        fn libhdf5(dataset: &hdf5::Dataset) -> Result<Vec<Self>, hdf5::Error>;
    }

    macro_rules! element {
        ($element:ty, $pure:ident) => {
            impl Element for $element {
                fn decode(dtype: Dtype, bytes: &[u8], out: &mut Vec<Self>) {
                    match dtype {
                        Dtype::Int8 => extend(bytes, out, |b| i8::from_le_bytes(b) as $element),
                        Dtype::Int16 => extend(bytes, out, |b| i16::from_le_bytes(b) as $element),
                        Dtype::Int32 => extend(bytes, out, |b| i32::from_le_bytes(b) as $element),
                        Dtype::Int64 => extend(bytes, out, |b| i64::from_le_bytes(b) as $element),
                        Dtype::Uint8 => extend(bytes, out, |b| u8::from_le_bytes(b) as $element),
                        Dtype::Uint16 => extend(bytes, out, |b| u16::from_le_bytes(b) as $element),
                        Dtype::Uint32 => extend(bytes, out, |b| u32::from_le_bytes(b) as $element),
                        Dtype::Uint64 => extend(bytes, out, |b| u64::from_le_bytes(b) as $element),
                        Dtype::Float16 => {
                            extend(bytes, out, |b| f16::from_le_bytes(b).to_f32() as $element);
                        }
                        Dtype::Float32 => extend(bytes, out, |b| f32::from_le_bytes(b) as $element),
                        Dtype::Float64 => extend(bytes, out, |b| f64::from_le_bytes(b) as $element),
                    }
                }

                fn pure(dataset: &hdf5_pure::Dataset) -> Result<Vec<Self>, hdf5_pure::Error> {
                    dataset.$pure()
                }

                #[cfg(feature = "libhdf5")]
                fn libhdf5(dataset: &hdf5::Dataset) -> Result<Vec<Self>, hdf5::Error> {
                    dataset.read_raw()
                }
            }
        };
    }
    element!(f32, read_f32);
    element!(f64, read_f64);

    fn extend<const N: usize, T>(bytes: &[u8], out: &mut Vec<T>, decode: impl Fn([u8; N]) -> T) {
        out.extend(bytes.as_chunks::<N>().0.iter().map(|chunk| decode(*chunk)));
    }
}

/// Opens the file at `path` and applies `read`. If that fails and libhdf5 is built in, tries again with
/// libhdf5.
///
/// # Errors
/// The error that `read` returned with the pure reader.
pub fn with_file<T>(path: &Path, read: impl Fn(&File) -> Result<T>) -> Result<T> {
    let pure = File::open(path, Library::Pure).and_then(|file| read(&file));
    #[cfg(feature = "libhdf5")]
    if pure.is_err()
        && let Ok(value) = File::open(path, Library::Libhdf5).and_then(|file| read(&file))
    {
        return Ok(value);
    }
    pure
}

impl File {
    /// Opens a file; the pure reader reads all of it into memory at once.
    ///
    /// # Errors
    /// If the file is absent, truncated or not an HDF5 file.
    pub fn open(path: &Path, library: Library) -> Result<Self> {
        match library {
            Library::Pure => {
                let unread = |error| explain::error(path, None, &error);
                Self::checked(path, hdf5_pure::File::open(path).map_err(unread)?)
            }
            #[cfg(feature = "libhdf5")]
            Library::Libhdf5 => {
                let inner = FileOf::Libhdf5(libhdf5::File::open(path).at(path)?);
                Ok(File { path: path.to_owned(), inner })
            }
        }
    }

    /// Reads the contents of a file; errors name it `path`.
    ///
    /// # Errors
    /// Like [`File::open`].
    pub fn from_bytes(path: &Path, bytes: Vec<u8>) -> Result<Self> {
        let unread = |error| explain::error(path, None, &error);
        Self::checked(path, hdf5_pure::File::from_bytes(bytes).map_err(unread)?)
    }

    /// Skips what is in front of the file, and checks that it is complete.
    fn checked(path: &Path, mut file: hdf5_pure::File) -> Result<Self> {
        let unread = |error| explain::error(path, None, &error);
        if let Some(front) = moved::in_front(file.as_bytes(), file.superblock()) {
            file = hdf5_pure::File::from_bytes(file.as_bytes()[front..].to_vec()).map_err(unread)?;
        }
        let (size, expected) = (file.file_size(), file.superblock().eof_address);
        if size < expected {
            let problem = format!("truncated: expected {expected} bytes, found {size}");
            return Err(Error::damaged(path, problem).help(DAMAGED));
        }
        Ok(File { path: path.to_owned(), inner: FileOf::Pure(file) })
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lists the datasets of the root group in the file's order, each under the name of the link that leads to
    /// it.
    ///
    /// # Errors
    /// If the file is damaged.
    pub fn datasets(&self) -> Result<Vec<Dataset<'_>>> {
        let dataset = |name, inner| Dataset { file: self, name, inner };
        match &self.inner {
            FileOf::Pure(file) => {
                let datasets = match file.root().iter_datasets() {
                    Ok(datasets) => self.with_soft_links(file, datasets.collect()),
                    Err(error) => self.linked_datasets(file, error)?,
                };
                Ok(datasets.into_iter().map(|(name, inner)| dataset(name, DatasetOf::Pure(inner))).collect())
            }
            #[cfg(feature = "libhdf5")]
            FileOf::Libhdf5(file) => {
                let datasets = file.datasets().at(&self.path)?;
                Ok(datasets
                    .into_iter()
                    .map(|(name, inner)| dataset(name, DatasetOf::Libhdf5(inner)))
                    .collect())
            }
        }
    }

    /// Adds the datasets that soft links lead to. Other soft links are left out, as in h5py.
    fn with_soft_links(
        &self,
        file: &hdf5_pure::File,
        mut datasets: Vec<(String, hdf5_pure::Dataset)>,
    ) -> Vec<(String, hdf5_pure::Dataset)> {
        let links = root_links(file, |bytes, base, root| Some(links::soft_in_header(bytes, base, root)));
        let links = links.unwrap_or_default();
        let by_name: BTreeMap<&str, &Link> = links.iter().map(|(name, link)| (name.as_str(), link)).collect();
        for (name, _) in &links {
            let dataset = links::resolved(&by_name, name).and_then(|path| file.dataset(&path).ok());
            datasets.extend(dataset.map(|dataset| (name.clone(), dataset)));
        }
        datasets
    }

    /// Lists the datasets if the library fails with this error, as it does for soft links of the old form.
    fn linked_datasets(
        &self,
        file: &hdf5_pure::File,
        error: hdf5_pure::Error,
    ) -> Result<Vec<(String, hdf5_pure::Dataset)>> {
        let unread = |error| explain::error(&self.path, None, &error);
        let links = root_links(file, links::of_symbols);
        let Some(links) = links.filter(|links| links.iter().any(|(_, link)| *link != Link::Hard)) else {
            return Err(unread(error));
        };
        let by_name: BTreeMap<&str, &Link> = links.iter().map(|(name, link)| (name.as_str(), link)).collect();
        let mut datasets = Vec::new();
        for (name, link) in &links {
            let Some(path) = links::resolved(&by_name, name) else { continue };
            match file.dataset(&path) {
                Ok(dataset) => datasets.push((name.clone(), dataset)),
                Err(hdf5_pure::Error::NotADataset(_)) => {}
                Err(_) if *link != Link::Hard => {}
                Err(error) => return Err(unread(error)),
            }
        }
        Ok(datasets)
    }

    /// Returns a string attribute of the root group.
    ///
    /// # Errors
    /// If there is no such attribute or it is not a string.
    pub fn string_attribute(&self, name: &str) -> Result<String> {
        let text = match &self.inner {
            FileOf::Pure(file) => {
                let attributes =
                    file.root().attrs().map_err(|error| explain::error(&self.path, None, &error))?;
                attributes.get(name).and_then(|value| value.as_str()).map(str::to_owned)
            }
            #[cfg(feature = "libhdf5")]
            FileOf::Libhdf5(file) => file.string_attribute(name),
        };
        text.ok_or_else(|| {
            Error::damaged(&self.path, format!("the root group has no string attribute `{name}`"))
        })
    }
}

/// Applies `links` to the root group if the file's offsets and lengths have eight bytes.
fn root_links(
    file: &hdf5_pure::File,
    links: impl Fn(&[u8], u64, u64) -> Option<Vec<(String, Link)>>,
) -> Option<Vec<(String, Link)>> {
    let superblock = file.superblock();
    let eight = superblock.offset_size == 8 && superblock.length_size == 8;
    eight
        .then(|| links(file.as_bytes(), superblock.base_address.get(), superblock.root_group_address))
        .flatten()
}

impl Dataset<'_> {
    /// Returns the dataset's name in the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Creates an error about this dataset.
    pub fn error(&self, problem: impl fmt::Display) -> Error {
        Error::damaged(&self.file.path, format!("dataset `{}`: {problem}", self.name))
    }

    /// Returns the stored type.
    ///
    /// # Errors
    /// If the dataset does not hold numbers of a supported type.
    pub fn dtype(&self) -> Result<Dtype> {
        match &self.inner {
            DatasetOf::Pure(dataset) => self.number_format(dataset).map(|format| format.dtype),
            #[cfg(feature = "libhdf5")]
            DatasetOf::Libhdf5(dataset) => dataset.dtype().map_err(|problem| self.error(problem)),
        }
    }

    /// Returns the number of rows and columns.
    ///
    /// # Errors
    /// If the dataset does not have two dimensions or has an implausible size.
    pub fn shape(&self) -> Result<[usize; 2]> {
        let dimensions = self.dimensions()?;
        dimensions[..]
            .try_into()
            .map_err(|_| self.error(format!("expected a shape of rows and columns, got {dimensions:?}")))
    }

    /// Returns the length of each dimension, outermost first.
    ///
    /// # Errors
    /// If the dataset has an implausible size.
    pub fn dimensions(&self) -> Result<Vec<usize>> {
        let shape: Vec<u64> = match &self.inner {
            DatasetOf::Pure(dataset) => dataset.shape().map_err(|error| self.unread(&error))?,
            #[cfg(feature = "libhdf5")]
            DatasetOf::Libhdf5(dataset) => dataset.shape(),
        };
        let sides: Option<Vec<usize>> = shape.iter().map(|side| usize::try_from(*side).ok()).collect();
        let sides = sides.filter(|sides| {
            let elements = sides.iter().try_fold(1_usize, |n, side| n.checked_mul(*side));
            elements.is_some_and(|n| n <= MAX_ELEMENTS)
        });
        sides.ok_or_else(|| self.error(format!("implausible shape {shape:?} (limit 2^28 elements)")))
    }

    /// Appends all elements, row by row. Returns the stored type and the number of rows and columns.
    ///
    /// # Errors
    /// If the elements cannot be read.
    pub fn append_to<T: Element>(&self, out: &mut Vec<T>) -> Result<(Dtype, [usize; 2])> {
        let shape = self.shape()?;
        Ok((self.append_elements(shape[0] * shape[1], out)?, shape))
    }

    /// Appends all elements like [`Dataset::append_to`], of a dataset with two or three dimensions. Returns the stored type and
    /// the number of rows, columns and channels; the channels of a pixel follow one another.
    ///
    /// # Errors
    /// If the elements cannot be read.
    pub fn append_planes_to<T: Element>(&self, out: &mut Vec<T>) -> Result<(Dtype, [usize; 3])> {
        let shape = match self.dimensions()?[..] {
            [rows, columns] => [rows, columns, 1],
            [rows, columns, channels] => [rows, columns, channels],
            ref other => {
                return Err(self.error(format!(
                    "expected a shape of rows and columns, or of rows, columns and channels, got {other:?}"
                )));
            }
        };
        Ok((self.append_elements(shape.iter().product(), out)?, shape))
    }

    /// Reads all elements in the file's order, the last dimension varying fastest. Returns the stored type, the
    /// length of each dimension and the elements.
    ///
    /// # Errors
    /// If the elements cannot be read.
    pub fn elements<T: Element>(&self) -> Result<(Dtype, Vec<usize>, Vec<T>)> {
        let dimensions = self.dimensions()?;
        let mut elements = Vec::new();
        let dtype = self.append_elements(dimensions.iter().product(), &mut elements)?;
        Ok((dtype, dimensions, elements))
    }

    /// Appends all elements, of which there must be `expected`.
    fn append_elements<T: Element>(&self, expected: usize, out: &mut Vec<T>) -> Result<Dtype> {
        let before = out.len();
        let dtype = match &self.inner {
            DatasetOf::Pure(dataset) => {
                let format = self.number_format(dataset)?;
                let unread = |error| self.unread(&error);
                match (self.bytes(dataset), format.is_plain()) {
                    (Some(bytes), true) => T::decode(format.dtype, bytes, out),
                    // The library does not convert numbers in any other format.
                    (None, true) if format.dtype != Dtype::Float16 => {
                        out.extend(T::pure(dataset).map_err(unread)?);
                    }
                    (bytes, _) => {
                        let stored = bytes.map(|bytes| Ok(bytes.to_vec()));
                        let stored = stored.unwrap_or_else(|| dataset.read_raw()).map_err(unread)?;
                        T::decode(format.dtype, &format.plain(stored), out);
                    }
                }
                format.dtype
            }
            #[cfg(feature = "libhdf5")]
            DatasetOf::Libhdf5(dataset) => {
                out.extend(dataset.read::<T>().map_err(|error| self.error(error))?);
                self.dtype()?
            }
        };
        match out.len() - before {
            found if found == expected => Ok(dtype),
            found => Err(self.error(format!("expected {expected} elements from its shape, found {found}"))),
        }
    }

    /// Explains the library's error about this dataset.
    fn unread(&self, error: &hdf5_pure::Error) -> Error {
        explain::error(&self.file.path, Some(&self.name), error)
    }

    fn number_format(&self, dataset: &hdf5_pure::Dataset) -> Result<NumberFormat> {
        let stored = dataset.datatype().map_err(|error| self.unread(&error))?;
        NumberFormat::of(&stored)
            .ok_or_else(|| self.error(format!("values of type {stored} are not supported")))
    }

    /// Returns the elements without copying if they are stored contiguously and unfiltered, the layout of the
    /// official files.
    fn bytes(&self, dataset: &hdf5_pure::Dataset) -> Option<&[u8]> {
        #[cfg_attr(not(feature = "libhdf5"), expect(irrefutable_let_patterns))]
        let FileOf::Pure(file) = &self.file.inner else { return None };
        let Layout::Contiguous { address: Some(start), size } = dataset.layout().ok()? else { return None };
        let (start, size) = (usize::try_from(start).ok()?, usize::try_from(size).ok()?);
        file.as_bytes().get(start..start.checked_add(size)?)
    }
}
