//! Parquet: a column of names, and the numbers as a list column or as one column per dimension.

use std::collections::BTreeMap;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use polars::prelude::{ArrowDataType, Column, DataFrame, DataType, ParquetReader, SerReader, Series};

use super::{ArrayFile, Number, PARQUET_NAMES, Place, StoredArray};
use crate::error::AtPath;
use crate::{Error, Result};

/// Names of the column with the samples' names.
const NAMES: [&str; 2] = ["samples", "sample"];

/// Columns that are never numbers of a feature.
const IGNORED: [&str; 4] = ["label", "labels", "split", "__index_level_0__"];

const HELP: &str = "expected a column `samples` of strings, and either a column `features` of lists of float32, or one \
                    float column per dimension";

/// Which columns hold the features.
enum Layout {
    /// One column of lists.
    List,
    /// These columns, in this order.
    Columns(Vec<String>),
}

/// Reads the whole file at `path`.
///
/// # Errors
/// If the file is damaged, or its columns are others.
pub(super) fn open(path: &Path) -> Result<ArrayFile> {
    let file = File::open(path).at(path)?;
    // A damaged file must not end the program, whatever the library does with it.
    let read = catch_unwind(AssertUnwindSafe(|| read(path, file)));
    let (names, width, numbers, number) = read.unwrap_or_else(|_| {
        Err(Error::damaged(path, "the Parquet reader failed on this file").help("write it again"))
    })?;
    let [array, texts] = PARQUET_NAMES.map(str::to_owned);
    let stored = StoredArray {
        name: array.clone(),
        path: path.to_owned(),
        shape: vec![names.len(), width],
        number,
        big_endian: false,
        place: Place::Memory(numbers),
    };
    Ok(ArrayFile {
        path: path.to_owned(),
        arrays: BTreeMap::from([(array, stored)]),
        texts: BTreeMap::from([(texts, names)]),
    })
}

/// Names, numbers per row, all numbers row by row, and their type.
type Read = (Vec<String>, usize, Vec<f32>, Number);

fn read(path: &Path, file: File) -> Result<Read> {
    let damaged = |problem: &dyn std::fmt::Display| Error::damaged(path, problem).help(HELP);
    let mut reader = ParquetReader::new(file);
    let schema = reader.schema().map_err(|problem| damaged(&problem))?;
    let columns: Vec<(&str, &ArrowDataType)> =
        schema.iter_values().map(|field| (field.name.as_str(), &field.dtype)).collect();
    let Some(names) = NAMES.into_iter().find(|name| columns.iter().any(|(column, _)| column == name)) else {
        let found: Vec<&str> = columns.iter().map(|(name, _)| *name).take(8).collect();
        return Err(damaged(&format!("no column `samples`; the first are {}", found.join(", "))));
    };
    let layout = layout(&columns, names).map_err(|problem| damaged(&problem))?;
    let mut wanted = vec![names.to_owned()];
    match &layout {
        Layout::List => wanted.push(PARQUET_NAMES[0].to_owned()),
        Layout::Columns(columns) => wanted.extend(columns.iter().cloned()),
    }
    let reader = reader.with_columns(Some(wanted));
    let frame = reader.finish().map_err(|problem| damaged(&problem))?;
    let texts = texts(&frame, names).map_err(|problem| damaged(&problem))?;
    let numbers = match layout {
        Layout::List => of_list(&frame),
        Layout::Columns(columns) => of_columns(&frame, &columns),
    };
    let (width, numbers, number) = numbers.map_err(|problem| damaged(&problem))?;
    Ok((texts, width, numbers, number))
}

fn layout(columns: &[(&str, &ArrowDataType)], names: &str) -> Result<Layout, String> {
    let is_float = |kind: &ArrowDataType| matches!(kind, ArrowDataType::Float32 | ArrowDataType::Float64);
    if let Some((name, kind)) = columns.iter().find(|(name, _)| *name == PARQUET_NAMES[0]) {
        return match kind {
            ArrowDataType::List(item) | ArrowDataType::LargeList(item) if is_float(&item.dtype) => {
                Ok(Layout::List)
            }
            ArrowDataType::FixedSizeList(..) => {
                Err(format!("column `{name}` is of lists of a fixed size; write it as plain lists"))
            }
            other => Err(format!("column `{name}` is {other:?}, expected lists of float32 or float64")),
        };
    }
    let others = columns.iter().filter(|(name, _)| *name != names && !IGNORED.contains(name));
    if let Some((name, kind)) = others.clone().find(|(_, kind)| !is_float(kind)) {
        return Err(format!("column `{name}` is {kind:?}, expected float32 or float64"));
    }
    let columns: Vec<String> = others.map(|(name, _)| (*name).to_owned()).collect();
    if columns.is_empty() { Err("no column of numbers".to_owned()) } else { Ok(Layout::Columns(columns)) }
}

fn texts(frame: &DataFrame, names: &str) -> Result<Vec<String>, String> {
    let column = frame.column(names).map_err(|problem| problem.to_string())?;
    let texts = column.as_materialized_series().str();
    let texts = texts.map_err(|_| format!("column `{names}` is {}, expected strings", column.dtype()))?;
    let text = |(row, text): (usize, Option<&str>)| {
        text.map(str::to_owned).ok_or_else(|| format!("column `{names}` is empty in row {row}"))
    };
    texts.iter().enumerate().map(text).collect()
}

/// Reads a list per row.
fn of_list(frame: &DataFrame) -> Result<(usize, Vec<f32>, Number), String> {
    let column = frame.column(PARQUET_NAMES[0]).map_err(|problem| problem.to_string())?;
    let lists = column.as_materialized_series().list().map_err(|problem| problem.to_string())?;
    let (mut width, mut numbers, mut number) = (0, Vec::new(), Number::F32);
    for row in 0..lists.len() {
        let list = lists.get_as_series(row).ok_or_else(|| format!("`features` is empty in row {row}"))?;
        if row == 0 {
            width = list.len();
            number = number_of(list.dtype());
        }
        if list.len() != width {
            return Err(format!("row {row} has {} features, the first row {width}", list.len()));
        }
        push(&list, &format!("row {row}"), &mut numbers)?;
    }
    Ok((width, numbers, number))
}

/// Reads a column per dimension.
fn of_columns(frame: &DataFrame, names: &[String]) -> Result<(usize, Vec<f32>, Number), String> {
    let (n, width) = (frame.height(), names.len());
    let mut numbers = vec![0.0; n * width];
    let mut number = Number::F32;
    for (place, name) in names.iter().enumerate() {
        let column: &Column = frame.column(name).map_err(|problem| problem.to_string())?;
        if *column.dtype() == DataType::Float64 {
            number = Number::F64;
        }
        let mut values = Vec::with_capacity(n);
        push(column.as_materialized_series(), &format!("column `{name}`"), &mut values)?;
        for (row, value) in values.into_iter().enumerate() {
            if let Some(cell) = numbers.get_mut(row * width + place) {
                *cell = value;
            }
        }
    }
    Ok((width, numbers, number))
}

fn number_of(kind: &DataType) -> Number {
    if *kind == DataType::Float64 { Number::F64 } else { Number::F32 }
}

/// Appends the numbers of a series, none of which may be missing.
fn push(series: &Series, place: &str, numbers: &mut Vec<f32>) -> Result<(), String> {
    let missing = || format!("a number is missing (null) in {place}");
    if let Ok(values) = series.f32() {
        for value in values.iter() {
            numbers.push(value.ok_or_else(missing)?);
        }
        return Ok(());
    }
    let values = series.f64().map_err(|problem| format!("{place}: {problem}"))?;
    for value in values.iter() {
        numbers.push(value.ok_or_else(missing)? as f32);
    }
    Ok(())
}
