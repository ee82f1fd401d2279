//! One GEO-Bench sample file: bands as datasets, the label as a dataset or in the pickle.

use ndarray::{Array2, Array3, ArrayView2, Axis};

use super::zoom::zoom;
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
        self.bands().flat_map(names_in).collect()
    }

    /// Finds a band by its name without the date: its dataset, and its channel there.
    fn band(&self, name: &str) -> Result<(&hdf5::Dataset<'f>, usize)> {
        let mut found = self.others().filter(|band| undated(band.name()) == name);
        match (found.next(), found.next()) {
            (Some(band), None) => Ok((band, 0)),
            (Some(band), Some(other)) => Err(self.error(format!(
                "has band `{name}` at two dates, `{}` and `{}`; expected one",
                band.name(),
                other.name()
            ))),
            (None, _) => self.channel_of_dataset(name).ok_or_else(|| {
                self.error(format!("no band `{name}`; bands found: {}", self.band_names().join(", ")))
                    .help("choose another band in benchmarks/, or add an `impute` to the task")
            }),
        }
    }

    /// Finds one of several bands in a dataset.
    fn channel_of_dataset(&self, name: &str) -> Option<(&hdf5::Dataset<'f>, usize)> {
        let (wanted, place) = channel(name)?;
        let dataset = self.others().find(|band| undated(band.name()) == wanted)?;
        channels(dataset).filter(|count| *count > 1 && *count > place).map(|_| (dataset, place))
    }

    /// Reads these bands as [bands, rows, columns], multiplied by the task's scale. Bands that are smaller than the largest of them
    /// are resampled to its size if the task says so.
    pub(crate) fn image(&self, names: &[String], task: &Task) -> Result<Array3<f32>> {
        let mut pixels: Vec<f32> = Vec::new();
        let mut first: Option<(&str, [usize; 2])> = None;
        // The last dataset with several channels.
        let mut last: Option<Channels<'_>> = None;
        // Type and size of each band.
        let mut sizes: Vec<(Dtype, [usize; 2])> = Vec::with_capacity(names.len());
        for name in names {
            let (band, place) = self.band(name)?;
            let before = pixels.len();
            let (dtype, [rows, columns]) = match last.take().filter(|last| last.name == band.name()) {
                Some(channels) => {
                    let size = channels.append(band, place, &mut pixels)?;
                    last = Some(channels);
                    size
                }
                None => {
                    let (dtype, [rows, columns, count]) = band.append_planes_to(&mut pixels)?;
                    if count > 1 {
                        if undated(band.name()) == name {
                            return Err(band
                                .error(format!("has {count} bands"))
                                .help(format!("name one of them: {name}_001 to {name}_{count:03}")));
                        }
                        let interleaved = pixels.split_off(before);
                        let channels =
                            Channels { name: band.name(), dtype, shape: [rows, columns, count], interleaved };
                        channels.append(band, place, &mut pixels)?;
                        last = Some(channels);
                    }
                    (dtype, [rows, columns])
                }
            };
            match first {
                None => {
                    first = Some((band.name(), [rows, columns]));
                    // Reserve only after the first band confirmed the size that the file declares.
                    pixels.reserve_exact((names.len() - 1) * rows * columns);
                }
                Some((first, [first_rows, first_columns]))
                    if [first_rows, first_columns] != [rows, columns] && !task.resample_bands =>
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
            sizes.push((dtype, [rows, columns]));
        }
        let (_, mut side) = first.ok_or_else(|| Error::mismatch("no band to read"))?;
        if sizes.iter().any(|(_, size)| *size != side) {
            (side, pixels) = self.of_one_size(&sizes, pixels)?;
        }
        if task.scale != 1.0 {
            pixels.iter_mut().for_each(|pixel| *pixel *= task.scale);
        }
        Array3::from_shape_vec((names.len(), side[0], side[1]), pixels).at(self.file.path())
    }

    /// Resamples bands, given one after the other with their types and sizes, to the largest height and width among them.
    fn of_one_size(&self, sizes: &[(Dtype, [usize; 2])], pixels: Vec<f32>) -> Result<([usize; 2], Vec<f32>)> {
        let largest = |axis: usize| sizes.iter().map(|(_, size)| size[axis]).max().unwrap_or(0);
        let side = [largest(0), largest(1)];
        let elements = side[0].checked_mul(side[1]).and_then(|band| band.checked_mul(sizes.len()));
        if elements.is_none_or(|elements| elements > MAX_RESAMPLED) {
            return Err(self
                .error(format!(
                    "{} bands of {} x {} pixels are too many to resample",
                    sizes.len(),
                    side[0],
                    side[1]
                ))
                .help("choose fewer bands"));
        }
        let mut resampled = Vec::with_capacity(elements.unwrap_or_default());
        let mut rest = pixels.as_slice();
        for &(dtype, size) in sizes {
            let (band, later) = rest.split_at(size[0] * size[1]);
            rest = later;
            if size == side {
                resampled.extend_from_slice(band);
                continue;
            }
            if band.is_empty() {
                return Err(self.error(format!("expected bands with pixels, found one of {size:?}")));
            }
            let band = ArrayView2::from_shape(size, band).at(self.file.path())?;
            resampled.extend(zoom(band, side, dtype));
        }
        Ok((side, resampled))
    }

    /// Reads an image's bands as stored, in the pickle's order: the named ones, or all if `names` is empty.
    pub(crate) fn raw_bands(&self, names: &[String]) -> Result<Vec<RawBand>> {
        let order = self.bands_order()?;
        let of_image =
            |band: &&hdf5::Dataset| names.is_empty() || names.iter().any(|name| name == undated(band.name()));
        let mut bands: Vec<_> = self.bands().filter(of_image).collect();
        // Stable sort: bands missing from the order keep the file's order at the end.
        bands.sort_by_key(|band| order.iter().position(|name| name == band.name()).unwrap_or(order.len()));
        let mut raw = Vec::new();
        for band in bands {
            let mut pixels = Vec::new();
            let (dtype, [rows, columns, count]) = band.append_planes_to(&mut pixels)?;
            let pixels = Array3::from_shape_vec((rows, columns, count), pixels).at(self.file.path())?;
            let planes = pixels.axis_iter(Axis(2)).map(|plane| plane.to_owned());
            let named = |(name, pixels)| RawBand { name, dtype: dtype.to_string(), pixels };
            raw.extend(names_in(band).into_iter().zip(planes).map(named));
        }
        Ok(raw)
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

/// Limit of elements of an image whose bands are resampled: 2^27, half a gigabyte.
const MAX_RESAMPLED: usize = 1 << 27;

/// The elements of a dataset [h, w, n], the channels of a pixel one after the other.
struct Channels<'d> {
    name: &'d str,
    dtype: Dtype,
    shape: [usize; 3],
    interleaved: Vec<f32>,
}

impl Channels<'_> {
    /// Appends one channel. Returns the stored type and the number of rows and columns.
    fn append(
        &self,
        dataset: &hdf5::Dataset,
        place: usize,
        out: &mut Vec<f32>,
    ) -> Result<(Dtype, [usize; 2])> {
        let [rows, columns, count] = self.shape;
        if place >= count {
            return Err(dataset.error(format!("expected a channel below {count}, found {place}")));
        }
        out.extend(self.interleaved.iter().skip(place).step_by(count));
        Ok((self.dtype, [rows, columns]))
    }
}

/// Returns the number of bands in a dataset [h, w] or [h, w, n]; `None` if it has another shape.
fn channels(dataset: &hdf5::Dataset) -> Option<usize> {
    match dataset.dimensions().ok()?[..] {
        [_, _] => Some(1),
        [_, _, count] => Some(count),
        _ => None,
    }
}

/// Names the bands in a dataset, without a date: see [`channel`].
fn names_in(dataset: &hdf5::Dataset) -> Vec<String> {
    let name = undated(dataset.name());
    match channels(dataset) {
        Some(count) if count > 1 => (1..=count).map(|number| format!("{name}_{number:03}")).collect(),
        _ => vec![name.to_owned()],
    }
}

/// Splits the name of one of several bands in a dataset, `Neon_012`, into the dataset's name and the band's index there, 11.
pub(crate) fn channel(name: &str) -> Option<(&str, usize)> {
    let (dataset, number) = name.rsplit_once('_')?;
    let is_number = number.len() >= 3 && number.bytes().all(|digit| digit.is_ascii_digit());
    Some((dataset, number.parse::<usize>().ok().filter(|_| is_number)?.checked_sub(1)?))
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
