//! One GEO-Bench sample file: bands as datasets, the label as a dataset or in the pickle.

use ndarray::{Array2, Array3};

use crate::data::{RawBand, Target};
use crate::error::AtPath;
use crate::formats::hdf5::{self, Dtype};
use crate::formats::pickle;
use crate::task::{TargetKind, Task};
use crate::{Error, Result};

/// An open sample file.
pub(crate) struct SampleFile<'f> {
    file: &'f hdf5::File,
    /// All datasets, including the mask.
    datasets: Vec<hdf5::Dataset<'f>>,
}

impl<'f> SampleFile<'f> {
    pub(crate) fn new(file: &'f hdf5::File) -> Result<Self> {
        Ok(SampleFile { file, datasets: file.datasets()? })
    }

    fn error(&self, problem: impl ToString) -> Error {
        Error::damaged(self.file.path(), problem)
    }

    /// All datasets except the mask.
    fn others(&self) -> impl Iterator<Item = &hdf5::Dataset<'f>> {
        self.datasets.iter().filter(|dataset| !is_label(dataset.name()))
    }

    /// The datasets with rows and columns; a file may also contain scalars or coordinates.
    fn bands(&self) -> impl Iterator<Item = &hdf5::Dataset<'f>> {
        self.others().filter(|dataset| has_rows(dataset))
    }

    /// Band names without dates, in the file's order.
    pub(crate) fn band_names(&self) -> Vec<String> {
        self.bands().map(|band| undated(band.name()).to_owned()).collect()
    }

    /// Finds a band by its name without the date.
    fn band(&self, name: &str) -> Result<&hdf5::Dataset<'f>> {
        let mut found = self.others().filter(|band| undated(band.name()) == name);
        match (found.next(), found.next()) {
            (Some(band), None) => Ok(band),
            (Some(band), Some(other)) => Err(self.error(format!(
                "has band `{name}` at two dates, `{}` and `{}`; expected one",
                band.name(),
                other.name()
            ))),
            (None, _) => Err(self
                .error(format!("no band `{name}`; bands found: {}", self.band_names().join(", ")))
                .help("choose another band in benchmarks/, or add an `impute` to the task")),
        }
    }

    /// Reads these bands as [bands, rows, columns], multiplied by `scale`.
    pub(crate) fn image(&self, names: &[String], scale: f32) -> Result<Array3<f32>> {
        let mut pixels: Vec<f32> = Vec::new();
        let mut first: Option<(&str, [usize; 2])> = None;
        for name in names {
            let band = self.band(name)?;
            let before = pixels.len();
            let (dtype, [rows, columns]) = band.append_to(&mut pixels)?;
            match first {
                None => {
                    first = Some((band.name(), [rows, columns]));
                    // Reserve only after the first band confirmed the size that the file declares.
                    pixels.reserve_exact((names.len() - 1) * rows * columns);
                }
                Some((first, [first_rows, first_columns]))
                    if [first_rows, first_columns] != [rows, columns] =>
                {
                    return Err(band.error(format!(
                        "is {rows} x {columns} pixels, but `{first}` is {first_rows} x {first_columns}"
                    )));
                }
                Some(_) => {}
            }
            let stored = &mut pixels[before..];
            if dtype.is_float()
                && let Some(place) = stored.iter().position(|pixel| !pixel.is_finite())
            {
                let (row, column) = (place / columns, place % columns);
                return Err(band
                    .error(format!("the pixel at row {row}, column {column} is {}", stored[place]))
                    .help("the file is damaged: fetch it again, or leave the sample out of the partition"));
            }
            if scale != 1.0 {
                stored.iter_mut().for_each(|pixel| *pixel *= scale);
            }
        }
        let (_, [rows, columns]) = first.ok_or_else(|| Error::mismatch("no band to read"))?;
        Array3::from_shape_vec((names.len(), rows, columns), pixels).at(self.file.path())
    }

    /// Reads an image's bands as stored, in the pickle's order: the named ones, or all if `names` is empty.
    pub(crate) fn raw_bands(&self, names: &[String]) -> Result<Vec<RawBand>> {
        let order = self.bands_order()?;
        let of_image =
            |band: &&hdf5::Dataset| names.is_empty() || names.iter().any(|name| name == undated(band.name()));
        let mut bands: Vec<_> = self.bands().filter(of_image).collect();
        // Stable sort: bands missing from the order keep the file's order at the end.
        bands.sort_by_key(|band| order.iter().position(|name| name == band.name()).unwrap_or(order.len()));
        let raw = |band: &hdf5::Dataset| {
            let mut pixels = Vec::new();
            let (dtype, [rows, columns]) = band.append_to(&mut pixels)?;
            let pixels = Array2::from_shape_vec((rows, columns), pixels).at(self.file.path())?;
            Ok(RawBand { name: undated(band.name()).to_owned(), dtype: dtype.to_string(), pixels })
        };
        bands.into_iter().map(raw).collect()
    }

    /// The dataset names listed in the pickle; empty if it has no such list.
    fn bands_order(&self) -> Result<Vec<String>> {
        self.with_pickle(|root| {
            let names = root.get("bands_order").and_then(pickle::View::items);
            let names = names.into_iter().flatten().filter_map(|name| name.value().as_str());
            Ok(names.map(str::to_owned).collect())
        })
    }

    /// Parses the attribute `pickle`, the text of a Python bytes literal, and calls `read` with it.
    fn with_pickle<T>(&self, read: impl FnOnce(pickle::View<'_, '_>) -> Result<T>) -> Result<T> {
        let text = self.file.string_attribute("pickle")?;
        let bytes = pickle::bytes_literal(&text).at(self.file.path())?;
        read(pickle::read(&bytes).at(self.file.path())?.root())
    }

    /// Reads the label, and the stored type if it is a mask.
    pub(crate) fn target(&self, task: &Task) -> Result<(Target, Option<Dtype>)> {
        let mask = self.datasets.iter().find(|dataset| is_label(dataset.name()) && has_rows(dataset));
        if let (TargetKind::Mask, Some(mask)) = (task.target, mask) {
            let mut classes: Vec<f64> = Vec::new();
            let (dtype, [rows, columns]) = mask.append_to(&mut classes)?;
            let mask = self.mask(task, rows, columns, classes.into_iter())?;
            return Ok((Target::Mask(mask), Some(dtype)));
        }
        if let (TargetKind::ValueMap, Some(map)) = (task.target, mask) {
            let mut values: Vec<f32> = Vec::new();
            let (dtype, [rows, columns]) = map.append_to(&mut values)?;
            let map = Array2::from_shape_vec((rows, columns), values).map_err(|error| self.error(error))?;
            return Ok((Target::ValueMap(map), Some(dtype)));
        }
        let label = self.with_pickle(|root| {
            let label = root.get("label").ok_or_else(|| self.error("its pickle has no `label`"))?;
            if task.target == TargetKind::Value {
                return match label.floats() {
                    Ok((shape, numbers))
                        if shape.iter().product::<usize>() == 1 && numbers[0].is_finite() =>
                    {
                        Ok(Target::Value(numbers[0] as f32))
                    }
                    _ => Err(self.unfit(task, &label.to_string())),
                };
            }
            let (shape, numbers) = label.integers().map_err(|found| self.unfit(task, &found))?;
            match (task.target, &shape[..], &numbers[..]) {
                (TargetKind::Class, [] | [1], [number]) => {
                    let class = usize::try_from(*number).ok().filter(|class| *class < task.classes);
                    class.map(Target::Class).ok_or_else(|| self.unfit(task, &format!("class {number}")))
                }
                (TargetKind::Labels, [length], _) if *length == task.classes => {
                    let applies = numbers.iter().map(|number| match number {
                        0 => Ok(false),
                        1 => Ok(true),
                        other => Err(self.unfit(task, &format!("a list that contains {other}"))),
                    });
                    applies.collect::<Result<_>>().map(Target::Labels)
                }
                (TargetKind::Mask, [rows, columns], _) => {
                    let classes = numbers.iter().map(|number| *number as f64);
                    self.mask(task, *rows, *columns, classes).map(Target::Mask)
                }
                _ => Err(self.unfit(task, &label.to_string())),
            }
        })?;
        Ok((label, None))
    }

    /// Reads a mask and checks that each pixel is a class or ignored.
    fn mask(
        &self,
        task: &Task,
        rows: usize,
        columns: usize,
        stored: impl Iterator<Item = f64>,
    ) -> Result<Array2<i32>> {
        let class = |stored: f64| {
            // The cast saturates for values outside i32; the comparison below rejects them.
            let class = stored as i32;
            let known =
                usize::try_from(class).is_ok_and(|class| class < task.classes) || task.ignore == Some(class);
            if known && f64::from(class) == stored {
                return Ok(class);
            }
            Err(self.unfit(task, &format!("a mask that contains {stored}")))
        };
        let classes = stored.map(class).collect::<Result<Vec<i32>>>()?;
        Array2::from_shape_vec((rows, columns), classes).at(self.file.path())
    }

    /// Makes the error for a label that does not fit the task.
    fn unfit(&self, task: &Task, found: &str) -> Error {
        let last = task.classes.saturating_sub(1);
        let expected = match task.target {
            TargetKind::Class => format!("a class from 0 to {last}"),
            TargetKind::Labels => format!("a list of {} zeros and ones", task.classes),
            TargetKind::Mask => {
                let ignored = task.ignore.map_or(String::new(), |ignored| format!(" ({ignored} is ignored)"));
                format!("a mask of classes from 0 to {last}{ignored}")
            }
            TargetKind::Value => "a number".to_owned(),
            TargetKind::ValueMap => "a number per pixel".to_owned(),
        };
        self.error(format!("the label is {found}; {} expects {expected}", task.name))
            .help("the file is damaged or belongs to another task: fetch it again")
    }
}

fn is_label(name: &str) -> bool {
    name.starts_with("label")
}

/// Whether the dataset has at least two dimensions. Returns true if that cannot be read, so that reading reports why.
fn has_rows(dataset: &hdf5::Dataset) -> bool {
    dataset.dimensions().map_or(true, |dimensions| dimensions.len() >= 2)
}

/// Strips `_YYYY-MM-DD` from a band's name.
pub(crate) fn undated(name: &str) -> &str {
    let (start, date) = match name.len().checked_sub("_YYYY-MM-DD".len()) {
        Some(end) if name.is_char_boundary(end) => name.split_at(end),
        _ => return name,
    };
    let fits = |(byte, form)| if form == b'0' { u8::is_ascii_digit(&byte) } else { byte == form };
    if date.bytes().zip(*b"_0000-00-00").all(fits) { start } else { name }
}
