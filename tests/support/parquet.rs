//! Parquet files as other programs write them, lists among them.

use std::sync::Arc;

use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, FloatType, Int64Type};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

/// The values of a column.
pub enum Cells {
    Texts(Vec<Option<String>>),
    Integers(Vec<i64>),
    Doubles(Vec<f64>),
    TextLists(Vec<Vec<String>>),
    FloatLists(Vec<Vec<f32>>),
}

impl Cells {
    /// The column in the words of Parquet's schemas.
    fn schema(&self, name: &str) -> String {
        let list = |item: &str| {
            format!("optional group {name} (LIST) {{ repeated group list {{ optional {item}; }} }}")
        };
        match self {
            Cells::Texts(_) => format!("optional binary {name} (UTF8);"),
            Cells::Integers(_) => format!("optional int64 {name};"),
            Cells::Doubles(_) => format!("optional double {name};"),
            Cells::TextLists(_) => list("binary element (UTF8)"),
            Cells::FloatLists(_) => list("float element"),
        }
    }
}

type Group<'a> = SerializedRowGroupWriter<'a, Vec<u8>>;

/// Encodes columns.
pub fn encode<S: AsRef<str>>(columns: &[(S, Cells)]) -> Vec<u8> {
    let fields: String = columns.iter().map(|(name, cells)| cells.schema(name.as_ref())).collect();
    let schema = parse_message_type(&format!("message schema {{ {fields} }}")).unwrap();
    let mut writer = SerializedFileWriter::new(Vec::new(), Arc::new(schema), Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let bytes = |text: &String| ByteArray::from(text.as_str());
    for (_, cells) in columns {
        match cells {
            Cells::Texts(texts) => {
                let levels: Vec<i16> = texts.iter().map(|text| i16::from(text.is_some())).collect();
                let texts: Vec<ByteArray> = texts.iter().flatten().map(bytes).collect();
                put::<ByteArrayType>(&mut group, &texts, &levels, None);
            }
            Cells::Integers(numbers) => put::<Int64Type>(&mut group, numbers, &vec![1; numbers.len()], None),
            Cells::Doubles(numbers) => put::<DoubleType>(&mut group, numbers, &vec![1; numbers.len()], None),
            Cells::TextLists(lists) => {
                let texts: Vec<ByteArray> = lists.iter().flatten().map(bytes).collect();
                put_lists::<ByteArrayType>(
                    &mut group,
                    &texts,
                    &lists.iter().map(Vec::len).collect::<Vec<_>>(),
                );
            }
            Cells::FloatLists(lists) => {
                put_lists::<FloatType>(
                    &mut group,
                    &lists.concat(),
                    &lists.iter().map(Vec::len).collect::<Vec<_>>(),
                );
            }
        }
    }
    group.close().unwrap();
    writer.into_inner().unwrap()
}

fn put<T: DataType>(group: &mut Group, values: &[T::T], defined: &[i16], repeated: Option<&[i16]>) {
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<T>().write_batch(values, Some(defined), repeated).unwrap();
    column.close().unwrap();
}

/// Writes lists of these lengths: an empty one has one place of its own, which is defined less deeply.
fn put_lists<T: DataType>(group: &mut Group, values: &[T::T], lengths: &[usize]) {
    let (mut defined, mut repeated) = (Vec::new(), Vec::new());
    for length in lengths {
        repeated.push(0);
        repeated.extend(std::iter::repeat_n(1, length.saturating_sub(1)));
        defined.extend(if *length == 0 { vec![1] } else { vec![3; *length] });
    }
    put::<T>(group, values, &defined, Some(&repeated));
}
