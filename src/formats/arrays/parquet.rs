//! Parquet: a column of names, and the numbers as a list column or as one column per dimension.

use std::collections::BTreeMap;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::{ArrayFile, Number, PARQUET_NAMES, Place, StoredArray};
use crate::error::AtPath;
use crate::formats::parquet::{Column, Kind, Table, Values};
use crate::{Error, Result};

/// Names of the column with the samples' names.
const NAMES: [&str; 2] = ["samples", "sample"];

/// Columns that are never numbers of a feature.
const IGNORED: [&str; 4] = ["label", "labels", "split", "__index_level_0__"];

const HELP: &str = "expected a column `samples` of strings, and either a column `features` of lists of float32, or one \
                    float column per dimension (`x0`, `x1` ...)";

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
    let damaged = |problem: String| Error::damaged(path, problem).help(HELP);
    let table = Table::open(file).map_err(damaged)?;
    let Some(names) = NAMES.into_iter().find_map(|name| table.column(name)) else {
        let found: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).take(8).collect();
        return Err(damaged(format!("no column `samples`; the first are {}", found.join(", "))));
    };
    let texts = texts(&table, names).map_err(damaged)?;
    let numbers = match table.column(PARQUET_NAMES[0]) {
        Some(column) => of_list(&table, column),
        None => of_columns(&table, &names.name),
    };
    let (width, numbers, number) = numbers.map_err(damaged)?;
    Ok((texts, width, numbers, number))
}

fn texts(table: &Table, column: &Column) -> Result<Vec<String>, String> {
    let name = &column.name;
    let Values::Texts(texts) = table.values(column).map_err(|why| format!("column `{name}`: {why}"))? else {
        return Err(format!("column `{name}` is of {}, expected strings", column.kind));
    };
    let text = |(row, text): (usize, Option<String>)| {
        text.ok_or_else(|| format!("column `{name}` is empty in row {row}"))
    };
    texts.into_iter().enumerate().map(text).collect()
}

/// Reads a list per row.
fn of_list(table: &Table, column: &Column) -> Result<(usize, Vec<f32>, Number), String> {
    let number = match &column.kind {
        Kind::List(item) if **item == Kind::Float32 => Number::F32,
        Kind::List(item) if **item == Kind::Float64 => Number::F64,
        other => {
            return Err(format!(
                "column `{}` is of {other}, expected lists of float32 or float64",
                column.name
            ));
        }
    };
    let numbers = table.numbers(column).map_err(|why| format!("column `{}`: {why}", column.name))?;
    let width = numbers.lengths.first().copied().unwrap_or_default();
    if let Some(row) = numbers.lengths.iter().position(|length| *length != width) {
        let length = numbers.lengths.get(row).copied().unwrap_or_default();
        let none = if length == 0 { " (empty or null)" } else { "" };
        return Err(format!("row {row} has {length} features{none}, the first row {width}"));
    }
    Ok((width, numbers.values, number))
}

/// Sorts columns whose names are one word and the numbers from 0 or 1 on, such as `x0`, `x1`. Other columns of numbers may be
/// labels or coordinates, and in another order than the file of another split.
fn sort_by_number(columns: &mut [&Column]) -> Result<(), String> {
    let number = |column: &Column| {
        let word = column.name.trim_end_matches(|c: char| c.is_ascii_digit());
        let number: usize = column.name.get(word.len()..)?.parse().ok()?;
        Some((word.to_owned(), number))
    };
    let mut words = Vec::new();
    for column in columns.iter() {
        let Some((word, _)) = number(column) else {
            return Err(format!(
                "column `{}` has no number; expected one column per dimension, named by a word and a number, such as `x0`, `x1`",
                column.name
            ));
        };
        words.push(word);
    }
    if let Some(other) = words.iter().find(|word| Some(*word) != words.first()) {
        let first = words.first().map_or("", String::as_str);
        return Err(format!(
            "expected columns of one name and their numbers, found `{first}…` and `{other}…`"
        ));
    }
    columns.sort_by_key(|column| number(column).map(|(_, number)| number));
    let numbers: Vec<usize> = columns.iter().filter_map(|column| Some(number(column)?.1)).collect();
    let first = numbers.first().copied().unwrap_or_default();
    if first > 1 || numbers.iter().enumerate().any(|(place, number)| *number != first + place) {
        return Err(format!("expected columns numbered from 0 or 1 without a gap, found {numbers:?}"));
    }
    Ok(())
}

/// Reads a column per dimension.
fn of_columns(table: &Table, names: &str) -> Result<(usize, Vec<f32>, Number), String> {
    let is_feature = |column: &&Column| column.name != names && !IGNORED.contains(&column.name.as_str());
    let mut columns: Vec<&Column> = table.columns.iter().filter(is_feature).collect();
    let is_float = |column: &Column| matches!(column.kind, Kind::Float32 | Kind::Float64);
    if let Some(column) = columns.iter().find(|column| !is_float(column)) {
        return Err(format!("column `{}` is of {}, expected float32 or float64", column.name, column.kind));
    }
    if columns.is_empty() {
        return Err("no column of numbers".to_owned());
    }
    sort_by_number(&mut columns)?;
    let (n, width) = (table.rows, columns.len());
    let mut numbers = vec![0.0; n * width];
    for (place, column) in columns.iter().enumerate() {
        let read = table.numbers(column).map_err(|why| format!("column `{}`: {why}", column.name))?;
        for (row, value) in read.values.into_iter().enumerate() {
            if let Some(cell) = numbers.get_mut(row * width + place) {
                *cell = value;
            }
        }
    }
    let is_double = columns.iter().any(|column| column.kind == Kind::Float64);
    Ok((width, numbers, if is_double { Number::F64 } else { Number::F32 }))
}
