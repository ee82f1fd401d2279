//! Parquet tables, read column by column and written from data frames.
//!
//! Nothing that a file says about itself is trusted: a page whose decoder would reserve memory for values that the page
//! cannot hold is refused before it is decoded.

use std::io::Write;
use std::sync::Arc;

use parquet::basic::{
    Compression, ConvertedType, Encoding, LogicalType, Repetition, Type as Physical, ZstdLevel,
};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FloatType, Int32Type, Int64Type,
};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{ChunkReader, FileReader, SerializedFileReader};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{ColumnDescPtr, Type};
use polars::prelude::{Column as FrameColumn, DataFrame, DataType as FrameType};

/// Rows that are decoded at once.
const BATCH: usize = 4096;

/// Rows and values that a file may have per byte, beside a small number of them. Each row has a name of its own and features are
/// hardly alike, so that real files have far fewer; repeated values take next to nothing.
const ROWS_PER_BYTE: usize = 8;
const VALUES_PER_BYTE: usize = 16;
const SMALL: usize = 1 << 16;

/// What a column holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Texts.
    Text,
    /// Integers of up to 64 bits.
    Integer {
        /// Whether they have a sign.
        signed: bool,
    },
    /// Floats of 32 bits.
    Float32,
    /// Floats of 64 bits.
    Float64,
    /// Lists of one of these.
    List(Box<Kind>),
    /// No value in any row.
    Nothing,
    /// Something else, in Parquet's words.
    Other(String),
}

impl std::fmt::Display for Kind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Kind::Text => formatter.write_str("strings"),
            Kind::Integer { signed: true } => formatter.write_str("integers"),
            Kind::Integer { signed: false } => formatter.write_str("unsigned integers"),
            Kind::Float32 => formatter.write_str("float32"),
            Kind::Float64 => formatter.write_str("float64"),
            Kind::List(item) => write!(formatter, "lists of {item}"),
            Kind::Nothing => formatter.write_str("nulls"),
            Kind::Other(name) => formatter.write_str(name),
        }
    }
}

/// The values of a column, one per row.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Texts; `None` if missing.
    Texts(Vec<Option<String>>),
    /// Integers; `None` if missing or above 2^63 - 1.
    Integers(Vec<Option<i64>>),
    /// Floats; `None` if missing.
    Floats(Vec<Option<f64>>),
    /// Lists of texts.
    Lists(Vec<Vec<String>>),
    /// No values at all.
    Nothing,
}

impl Values {
    /// Returns a text.
    pub fn text(&self, row: usize) -> Option<&str> {
        match self {
            Values::Texts(texts) => texts.get(row)?.as_deref(),
            _ => None,
        }
    }

    /// Returns a number.
    pub fn number(&self, row: usize) -> Option<f64> {
        match self {
            Values::Integers(numbers) => numbers.get(row).copied().flatten().map(|number| number as f64),
            Values::Floats(numbers) => numbers.get(row).copied().flatten(),
            _ => None,
        }
    }
}

/// The numbers of a column of floats, or of lists of floats.
#[derive(Debug, Clone, PartialEq)]
pub struct Numbers {
    /// How many each row has.
    pub lengths: Vec<usize>,
    /// All numbers, row by row.
    pub values: Vec<f32>,
}

/// A column and its place.
#[derive(Debug, Clone)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub kind: Kind,
    leaf: usize,
}

/// An opened Parquet file.
pub struct Table {
    file: Box<dyn FileReader>,
    /// Its columns, in stored order.
    pub columns: Vec<Column>,
    /// Number of rows.
    pub rows: usize,
    /// Largest number of values that a column may have.
    most: usize,
}

impl Table {
    /// Reads a file's footer.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn open(file: impl ChunkReader + 'static) -> Result<Self, String> {
        let bytes = usize::try_from(file.len()).map_err(text)?;
        let limit = |per_byte: usize| bytes.saturating_mul(per_byte).saturating_add(SMALL);
        let file = SerializedFileReader::new(file).map_err(text)?;
        let metadata = file.metadata();
        let rows = usize::try_from(metadata.file_metadata().num_rows()).map_err(text)?;
        if rows > limit(ROWS_PER_BYTE) {
            return Err(format!(
                "implausible: {rows} rows in {bytes} bytes (limit {})",
                limit(ROWS_PER_BYTE)
            ));
        }
        let schema = metadata.file_metadata().schema_descr();
        let mut leaves: Vec<Vec<usize>> = vec![Vec::new(); schema.root_schema().get_fields().len()];
        for leaf in 0..schema.num_columns() {
            if let Some(leaves) = leaves.get_mut(schema.get_column_root_idx(leaf)) {
                leaves.push(leaf);
            }
        }
        let column = |(field, leaves): (&Arc<Type>, &Vec<usize>)| {
            let (kind, leaf) = match leaves.as_slice() {
                [leaf] => (kind(field, &schema.column(*leaf)), *leaf),
                _ => (Kind::Other("structs".to_owned()), 0),
            };
            Column { name: field.name().to_owned(), kind, leaf }
        };
        let columns = schema.root_schema().get_fields().iter().zip(&leaves).map(column).collect();
        Ok(Table { columns, rows, most: limit(VALUES_PER_BYTE), file: Box::new(file) })
    }

    /// Returns how many bytes the file says that its columns have when unpacked.
    pub fn unpacked_bytes(&self) -> u64 {
        let groups = self.file.metadata().row_groups().iter();
        let columns = groups.flat_map(|group| group.columns());
        columns.fold(0, |sum: u64, column| sum.saturating_add(column.uncompressed_size().max(0) as u64))
    }

    /// Returns the column of this name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Reads a column.
    ///
    /// # Errors
    /// If it is damaged, or holds something else than texts, integers, floats and lists of texts.
    pub fn values(&self, column: &Column) -> Result<Values, String> {
        Ok(match &column.kind {
            Kind::Text => {
                let mut texts = Vec::new();
                self.read::<ByteArrayType>(column, |leaf| {
                    texts.push(leaf.value.map(string).transpose()?);
                    Ok(())
                })?;
                Values::Texts(texts)
            }
            Kind::Integer { signed } => Values::Integers(self.integers(column, *signed)?),
            Kind::Float32 => Values::Floats(self.floats::<FloatType>(column, f64::from)?),
            Kind::Float64 => Values::Floats(self.floats::<DoubleType>(column, |number| number)?),
            Kind::List(item) if **item == Kind::Text => {
                let mut lists: Vec<Vec<String>> = Vec::new();
                self.read::<ByteArrayType>(column, |leaf| {
                    if leaf.begins_row {
                        lists.push(Vec::new());
                    }
                    if let (Some(list), Some(value)) = (lists.last_mut(), leaf.value) {
                        list.push(string(value)?);
                    }
                    Ok(())
                })?;
                Values::Lists(lists)
            }
            Kind::Nothing => Values::Nothing,
            other => return Err(format!("values of the type {other} are not supported")),
        })
    }

    /// Reads a column of floats, or of lists of floats.
    ///
    /// # Errors
    /// If it is damaged, holds something else, or a number is missing.
    pub fn numbers(&self, column: &Column) -> Result<Numbers, String> {
        let item = if let Kind::List(item) = &column.kind { item } else { &column.kind };
        match item {
            Kind::Float32 => self.all_numbers::<FloatType>(column, |number| number),
            Kind::Float64 => self.all_numbers::<DoubleType>(column, |number| number as f32),
            other => Err(format!("expected float32 or float64, found {other}")),
        }
    }

    fn all_numbers<T: DataType>(
        &self,
        column: &Column,
        number: impl Fn(T::T) -> f32,
    ) -> Result<Numbers, String> {
        let (mut lengths, mut values) = (Vec::new(), Vec::new());
        self.read::<T>(column, |leaf| {
            if leaf.begins_row {
                lengths.push(0);
            }
            if !leaf.exists {
                return Ok(());
            }
            let row = lengths.len().saturating_sub(1);
            let value = leaf.value.ok_or_else(|| format!("a number is missing (null) in row {row}"))?;
            values.push(number(value));
            if let Some(length) = lengths.last_mut() {
                *length += 1;
            }
            Ok(())
        })?;
        Ok(Numbers { lengths, values })
    }

    fn floats<T: DataType>(
        &self,
        column: &Column,
        number: impl Fn(T::T) -> f64,
    ) -> Result<Vec<Option<f64>>, String> {
        let mut numbers = Vec::new();
        self.read::<T>(column, |leaf| {
            numbers.push(leaf.value.map(&number));
            Ok(())
        })?;
        Ok(numbers)
    }

    fn integers(&self, column: &Column, signed: bool) -> Result<Vec<Option<i64>>, String> {
        let mut numbers = Vec::new();
        // Parquet stores unsigned integers in signed ones of the same width.
        match self.descriptor(column).physical_type() {
            Physical::INT32 => self.read::<Int32Type>(column, |leaf| {
                let number = |number: i32| {
                    if signed { i64::from(number) } else { i64::from(number.cast_unsigned()) }
                };
                numbers.push(leaf.value.map(number));
                Ok(())
            })?,
            _ => self.read::<Int64Type>(column, |leaf| {
                numbers.push(leaf.value.filter(|number| signed || *number >= 0));
                Ok(())
            })?,
        }
        Ok(numbers)
    }

    fn descriptor(&self, column: &Column) -> ColumnDescPtr {
        self.file.metadata().file_metadata().schema_descr().column(column.leaf)
    }

    /// Calls `each` with every leaf of a column.
    fn read<T: DataType>(
        &self,
        column: &Column,
        mut each: impl FnMut(Leaf<T::T>) -> Result<(), String>,
    ) -> Result<(), String> {
        let descriptor = self.descriptor(column);
        // Bytes that a value has at least when it is stored plainly; texts begin with their length.
        let width = match descriptor.physical_type() {
            Physical::INT64 | Physical::DOUBLE => 8,
            Physical::INT96 => 12,
            Physical::BOOLEAN => 1,
            Physical::INT32 | Physical::FLOAT | Physical::BYTE_ARRAY | Physical::FIXED_LEN_BYTE_ARRAY => 4,
        };
        let (deepest, first) = (descriptor.max_def_level(), descriptor.repeated_ancestor_def_level());
        let (mut rows, mut read_values) = (0, 0);
        for group in 0..self.file.num_row_groups() {
            let group = self.file.get_row_group(group).map_err(text)?;
            let chunk =
                group.metadata().columns().get(column.leaf).ok_or("a column is missing in a row group")?;
            let begins = chunk.dictionary_page_offset().unwrap_or_else(|| chunk.data_page_offset());
            if begins < 0 || chunk.compressed_size() < 0 {
                return Err(format!("a column of {} bytes at {begins}", chunk.compressed_size()));
            }
            let pages = group.get_column_page_reader(column.leaf).map_err(text)?;
            let mut reader = ColumnReaderImpl::<T>::new(
                descriptor.clone(),
                Box::new(Checked { pages, most: self.most, width, has_dictionary: false }),
            );
            loop {
                let (mut defined, mut repeated, mut values) = (Vec::new(), Vec::new(), Vec::new());
                let read = reader.read_records(BATCH, Some(&mut defined), Some(&mut repeated), &mut values);
                let (_, _, levels) = read.map_err(text)?;
                if levels == 0 {
                    break;
                }
                read_values += levels;
                if read_values > self.most {
                    return Err(format!("implausible: more than {} values in a file of its size", self.most));
                }
                let mut values = values.into_iter();
                for place in 0..levels {
                    let level = defined.get(place).copied().unwrap_or(deepest);
                    let begins_row = repeated.get(place).is_none_or(|level| *level == 0);
                    rows += usize::from(begins_row);
                    if rows > self.rows {
                        break;
                    }
                    let value = if level == deepest { values.next() } else { None };
                    each(Leaf { begins_row, exists: level >= first, value })?;
                }
            }
        }
        match rows == self.rows {
            true => Ok(()),
            false => Err(format!("expected {} rows, found another number", self.rows)),
        }
    }
}

/// A place of a column for a value.
struct Leaf<T> {
    /// Whether it is the first of its row.
    begins_row: bool,
    /// Whether it is there: lists may be empty.
    exists: bool,
    /// `None` for null.
    value: Option<T>,
}

/// The pages of a column, each checked before it is decoded.
struct Checked {
    pages: Box<dyn PageReader>,
    /// Largest number of values on a page.
    most: usize,
    /// Bytes that a value has at least when it is stored plainly.
    width: usize,
    /// Whether the column's dictionary was read.
    has_dictionary: bool,
}

impl Iterator for Checked {
    type Item = Result<Page, ParquetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Checked {
    fn get_next_page(&mut self) -> Result<Option<Page>, ParquetError> {
        let page = self.pages.get_next_page()?;
        if let Some(fault) = page.as_ref().and_then(|page| self.fault(page)) {
            return Err(ParquetError::General(fault));
        }
        self.has_dictionary |= matches!(page, Some(Page::DictionaryPage { .. }));
        Ok(page)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>, ParquetError> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<(), ParquetError> {
        self.pages.skip_next_page()
    }

    fn at_record_boundary(&mut self) -> Result<bool, ParquetError> {
        self.pages.at_record_boundary()
    }
}

impl Checked {
    /// Returns why a page cannot be decoded within the memory that its size justifies, or would make the decoder panic.
    fn fault(&self, page: &Page) -> Option<String> {
        let (count, encoding) = (page.num_values() as usize, page.encoding());
        match page {
            // The decoder reserves all values of a dictionary at once.
            Page::DictionaryPage { buf, .. } if count.saturating_mul(self.width) > buf.len() => {
                Some(format!("{count} values in a dictionary of {} bytes", buf.len()))
            }
            Page::DictionaryPage { .. } => None,
            Page::DataPage { .. } | Page::DataPageV2 { .. } if count > self.most => {
                Some(format!("{count} values on a page (limit {})", self.most))
            }
            _ => match encoding {
                Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY if !self.has_dictionary => {
                    Some("a page refers to a dictionary that is not there".to_owned())
                }
                // Their decoders reserve what the first bytes ask for. No writer uses them unless it is told to.
                Encoding::DELTA_LENGTH_BYTE_ARRAY | Encoding::DELTA_BYTE_ARRAY => Some(format!(
                    "the encoding {encoding} is not supported; write the file with default settings"
                )),
                _ => None,
            },
        }
    }
}

fn kind(field: &Type, leaf: &ColumnDescPtr) -> Kind {
    let logical = leaf.logical_type_ref();
    // Whether numbers have a sign, and none if they stand for something else, such as dates. Older files have the converted type
    // alone.
    let signed = match (logical, leaf.converted_type()) {
        (Some(LogicalType::Integer(integer)), _) => Some(integer.is_signed),
        (Some(_), _) => None,
        (
            None,
            ConvertedType::NONE
            | ConvertedType::INT_8
            | ConvertedType::INT_16
            | ConvertedType::INT_32
            | ConvertedType::INT_64,
        ) => Some(true),
        (
            None,
            ConvertedType::UINT_8 | ConvertedType::UINT_16 | ConvertedType::UINT_32 | ConvertedType::UINT_64,
        ) => Some(false),
        (None, _) => None,
    };
    let is_text = logical == Some(&LogicalType::String) || leaf.converted_type() == ConvertedType::UTF8;
    let item = match (leaf.physical_type(), signed) {
        _ if logical == Some(&LogicalType::Unknown) => Kind::Nothing,
        (Physical::BYTE_ARRAY, _) if is_text => Kind::Text,
        (Physical::INT32 | Physical::INT64, Some(signed)) => Kind::Integer { signed },
        (Physical::FLOAT, _) => Kind::Float32,
        (Physical::DOUBLE, _) => Kind::Float64,
        (other, _) => {
            Kind::Other(logical.map_or_else(|| other.to_string(), |logical| format!("{logical:?}")))
        }
    };
    match leaf.max_rep_level() {
        0 if field.is_primitive() => item,
        1 => Kind::List(Box::new(item)),
        _ => Kind::Other("nested values".to_owned()),
    }
}

fn text(problem: impl std::fmt::Display) -> String {
    let problem = problem.to_string();
    match problem.contains("feature at compile time") {
        true => "its compression is not supported; write it with Snappy or Zstandard".to_owned(),
        false => problem,
    }
}

fn string(bytes: ByteArray) -> Result<String, String> {
    String::from_utf8(bytes.data().to_vec()).map_err(|_| "a string is not UTF-8".to_owned())
}

/// Encodes a data frame as a Parquet file. Its columns are of texts, booleans, integers of 64 bits or floats; each may have
/// nulls.
///
/// # Errors
/// If a column is of another type.
pub fn write(frame: &DataFrame) -> Result<Vec<u8>, String> {
    let fields = frame.columns().iter().map(field).collect::<Result<Vec<_>, _>>()?;
    let schema = Type::group_type_builder("schema").with_fields(fields).build().map_err(text)?;
    let compression = Compression::ZSTD(ZstdLevel::default());
    let properties = WriterProperties::builder().set_compression(compression).build();
    let mut bytes = Vec::new();
    let mut writer =
        SerializedFileWriter::new(&mut bytes, Arc::new(schema), Arc::new(properties)).map_err(text)?;
    let mut group = writer.next_row_group().map_err(text)?;
    for column in frame.columns() {
        let series = column.as_materialized_series();
        match series.dtype() {
            FrameType::String => {
                let texts = series.str().map_err(text)?;
                put::<_, ByteArrayType>(&mut group, texts.iter().map(|text| text.map(ByteArray::from)))
            }
            FrameType::Boolean => put::<_, BoolType>(&mut group, series.bool().map_err(text)?.iter()),
            FrameType::Int64 => put::<_, Int64Type>(&mut group, series.i64().map_err(text)?.iter()),
            FrameType::UInt64 => {
                let numbers = series.u64().map_err(text)?;
                put::<_, Int64Type>(&mut group, numbers.iter().map(|number| number.map(u64::cast_signed)))
            }
            FrameType::Float32 => put::<_, FloatType>(&mut group, series.f32().map_err(text)?.iter()),
            FrameType::Float64 => put::<_, DoubleType>(&mut group, series.f64().map_err(text)?.iter()),
            other => Err(format!("{other} cannot be written")),
        }?;
    }
    group.close().map_err(text)?;
    writer.close().map_err(text)?;
    Ok(bytes)
}

fn field(column: &FrameColumn) -> Result<Arc<Type>, String> {
    let name = column.name().as_str();
    let (physical, logical) = match column.dtype() {
        FrameType::String => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
        FrameType::Boolean => (Physical::BOOLEAN, None),
        FrameType::Int64 => (Physical::INT64, None),
        FrameType::UInt64 => (Physical::INT64, Some(LogicalType::integer(64, false))),
        FrameType::Float32 => (Physical::FLOAT, None),
        FrameType::Float64 => (Physical::DOUBLE, None),
        other => return Err(format!("column `{name}`: {other} cannot be written")),
    };
    let leaf = Type::primitive_type_builder(name, physical)
        .with_repetition(Repetition::OPTIONAL)
        .with_logical_type(logical)
        .build();
    leaf.map(Arc::new).map_err(text)
}

/// Writes the next column.
fn put<W: Write + Send, T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: impl Iterator<Item = Option<T::T>>,
) -> Result<(), String> {
    let values: Vec<Option<T::T>> = values.collect();
    let defined: Vec<i16> = values.iter().map(|value| i16::from(value.is_some())).collect();
    let values: Vec<T::T> = values.into_iter().flatten().collect();
    let mut writer = group.next_column().map_err(text)?.ok_or("a column too many")?;
    writer.typed::<T>().write_batch(&values, Some(&defined), None).map_err(text)?;
    writer.close().map_err(text)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use polars::prelude::df;

    use super::*;

    fn table(frame: &DataFrame) -> Table {
        Table::open(Bytes::from(write(frame).unwrap())).unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let frame = df!(
            "text" => [Some("a"), None, Some("ä")],
            "signed" => [Some(-1_i64), Some(i64::MAX), None],
            "unsigned" => [Some(7_u64), Some(u64::MAX), None],
            "single" => [0.1_f32, 0.2, 0.3],
            "double" => [Some(0.1_f64), None, Some(0.3)],
            "flag" => [true, false, true],
        );
        let table = table(&frame.unwrap());
        assert_eq!(table.rows, 3);
        let values = |name: &str| table.values(table.column(name).unwrap());
        let texts = ["a", "", "ä"].map(|text| (!text.is_empty()).then(|| text.to_owned()));
        assert_eq!(values("text"), Ok(Values::Texts(texts.to_vec())));
        assert_eq!(values("signed"), Ok(Values::Integers(vec![Some(-1), Some(i64::MAX), None])));
        // Above 2^63 - 1 there is no i64.
        assert_eq!(values("unsigned"), Ok(Values::Integers(vec![Some(7), None, None])));
        assert_eq!(values("double"), Ok(Values::Floats(vec![Some(0.1), None, Some(0.3)])));
        assert_eq!(values("flag"), Err("values of the type BOOLEAN are not supported".to_owned()));
        let numbers = table.numbers(table.column("single").unwrap()).unwrap();
        assert_eq!(numbers, Numbers { lengths: vec![1; 3], values: vec![0.1, 0.2, 0.3] });
        let missing = table.numbers(table.column("double").unwrap()).unwrap_err();
        assert_eq!(missing, "a number is missing (null) in row 1");
    }

    #[test]
    fn more_rows_than_a_file_of_this_size_can_have_are_refused() {
        let frame = df!("text" => vec!["the same"; 1_000_000]).unwrap();
        let problem = Table::open(Bytes::from(write(&frame).unwrap())).err().unwrap();
        assert!(problem.contains("implausible: 1000000 rows"), "{problem}");
    }
}
