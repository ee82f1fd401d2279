//! Shows what the reader sees: every sample as JSON, or a summary of a dataset.

use std::collections::BTreeMap;
use std::io::Write;

use ndarray::Array2;
use serde::Serialize;

use crate::audit::names;
use crate::console;
use crate::data::{Dataset, RawBand, RawSample, Split, Target, loader};
use crate::error::AtPath;
use crate::task::{TargetKind, Task};
use crate::{Error, Result};

/// Writes the stored (unscaled) contents of these splits to `out`: one JSON object per sample, one per line, in the
/// partition's order, or a human-readable summary.
///
/// # Errors
/// If a sample cannot be read or `out` cannot be written.
pub fn print(
    dataset: &dyn Dataset,
    task: &Task,
    splits: &[Split],
    json: bool,
    out: &mut dyn Write,
) -> Result<()> {
    let mut summary = Summary::default();
    if json {
        each(dataset, splits, |split, sample| {
            let line = serde_json::to_string(&Line::of(task, split, &sample)).map_err(Error::request)?;
            if task.quick_look.is_some() {
                summary.add(task, split, &sample);
            }
            writeln!(out, "{line}").at("the output")
        })?;
        // Standard output must contain only samples.
        summary.misnamed(task).inspect(|note| console::note(format_args!("note: {note}")));
        return Ok(());
    }
    each(dataset, splits, |split, sample| {
        summary.add(task, split, &sample);
        Ok(())
    })?;
    summary.print(task, splits, out).at("the output")
}

/// Passes every sample to `take`, in order.
fn each(
    dataset: &dyn Dataset,
    splits: &[Split],
    mut take: impl FnMut(Split, RawSample) -> Result<()>,
) -> Result<()> {
    let places: Vec<(Split, usize)> = splits
        .iter()
        .flat_map(|split| (0..dataset.samples(*split).len()).map(|index| (*split, index)))
        .collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let read = |place: usize| {
        let (split, index) = places[place];
        if let Some(name) = dataset.samples(split).get(index) {
            crate::stop::note_sample(format_args!("{split} {name}"));
        }
        dataset.read_raw(split, index).map(|sample| (split, sample))
    };
    loader::ordered(places.len(), threads, 2 * threads, read, |samples| {
        for sample in samples {
            let (split, sample) = sample?;
            take(split, sample)?;
        }
        Ok(())
    })
}

/// A sample as JSON: names, types and shapes, plus a few numbers per band for comparison with other readers.
#[derive(Serialize)]
struct Line<'s> {
    name: &'s str,
    split: Split,
    label: LabelLine,
    #[serde(skip_serializing_if = "Option::is_none")]
    mask: Option<MaskLine<'s>>,
    /// By their full names.
    bands: Vec<(String, &'s str, [usize; 2])>,
    mean: Vec<f64>,
    /// The pixel at row 0, column 0.
    p0_0: Vec<Option<Pixel>>,
    /// The pixel at row 5, column 7.
    p5_7: Vec<Option<Pixel>>,
}

/// Type and shape of a mask, and its classes at row 0, column 0 and at row 5, column 7.
#[derive(Serialize)]
struct MaskLine<'s>(Option<&'s str>, [usize; 2], Option<i32>, Option<i32>);

/// A class; zeros and ones; the number of pixels per class of a mask; a number; or the mean of a map.
#[derive(Serialize)]
#[serde(untagged)]
enum LabelLine {
    Class(usize),
    List(Vec<usize>),
    Value(f32),
}

/// Returns the mean of a map's finite values; NaN if there are none.
fn mean(map: &Array2<f32>) -> f32 {
    let (sum, count) = map
        .iter()
        .filter(|value| value.is_finite())
        .fold((0.0, 0_u32), |(sum, count), value| (sum + f64::from(*value), count + 1));
    (sum / f64::from(count)) as f32
}

/// A stored number: an integer, or the shortest decimal that parses back to the same float.
#[derive(Serialize)]
#[serde(untagged)]
enum Pixel {
    Integer(i64),
    Float32(f32),
    Float64(f64),
}

impl Pixel {
    fn of(band: &RawBand, place: [usize; 2]) -> Option<Self> {
        let pixel = *band.pixels.get(place)?;
        Some(match band.dtype.as_str() {
            "float16" | "float32" => Pixel::Float32(pixel as f32),
            "float64" => Pixel::Float64(pixel),
            _ => Pixel::Integer(pixel as i64),
        })
    }
}

impl<'s> Line<'s> {
    fn of(task: &Task, split: Split, sample: &'s RawSample) -> Self {
        let pixels = |place| sample.bands().map(|(_, band)| Pixel::of(band, place)).collect();
        let mask = match &sample.target {
            Target::Mask(mask) => {
                let class = |place| mask.get(place).copied();
                let dtype = sample.label_dtype.as_deref();
                Some(MaskLine(dtype, mask.dim().into(), class([0, 0]), class([5, 7])))
            }
            _ => None,
        };
        Line {
            name: &sample.name,
            split,
            label: match &sample.target {
                Target::Class(class) => LabelLine::Class(*class),
                Target::Labels(_) | Target::Mask(_) => LabelLine::List(class_counts(task, &sample.target)),
                Target::Value(value) => LabelLine::Value(*value),
                Target::ValueMap(map) => LabelLine::Value(mean(map)),
            },
            mask,
            bands: sample
                .bands()
                .map(|(name, band)| (name, &*band.dtype, band.pixels.dim().into()))
                .collect(),
            mean: sample.bands().map(|(_, band)| band.pixels.sum() / band.pixels.len() as f64).collect(),
            p0_0: pixels([0, 0]),
            p5_7: pixels([5, 7]),
        }
    }
}

/// Counts how often each class of the task occurs in a label, without the pixels that a mask ignores.
fn class_counts(task: &Task, label: &Target) -> Vec<usize> {
    let mut counts = vec![0; task.classes];
    let mut count = |class: usize| {
        if let Some(count) = counts.get_mut(class) {
            *count += 1;
        }
    };
    match label {
        Target::Class(class) => count(*class),
        Target::Labels(applies) => {
            applies.iter().enumerate().filter(|(_, applies)| **applies).for_each(|(class, _)| count(class));
        }
        Target::Mask(mask) => {
            mask.iter().filter_map(|class| usize::try_from(*class).ok()).for_each(count);
        }
        Target::Value(_) | Target::ValueMap(_) => {}
    }
    counts
}

/// A summary of a dataset, gathered sample by sample.
#[derive(Default)]
struct Summary {
    /// In the order of the first sample's bands.
    bands: Vec<BandSummary>,
    samples: BTreeMap<Split, usize>,
    classes: BTreeMap<Split, Vec<usize>>,
    values: BTreeMap<Split, ValueSummary>,
    mask: Option<String>,
}

/// The numbers of a split's labels.
#[derive(Default)]
struct ValueSummary {
    measured: usize,
    all: usize,
    sum: f64,
    min: f64,
    max: f64,
}

impl ValueSummary {
    fn add(&mut self, value: f32) {
        self.all += 1;
        if value.is_finite() {
            let value = f64::from(value);
            let is_first = self.measured == 0;
            self.min = if is_first { value } else { self.min.min(value) };
            self.max = if is_first { value } else { self.max.max(value) };
            self.measured += 1;
            self.sum += value;
        }
    }
}

struct BandSummary {
    name: String,
    /// Type and shape; several if samples differ.
    forms: Vec<String>,
    count: usize,
    not_finite: usize,
    mean: f64,
    /// Sum of squared deviations from the mean.
    squares: f64,
    min: f64,
    max: f64,
}

impl Summary {
    fn add(&mut self, task: &Task, split: Split, sample: &RawSample) {
        *self.samples.entry(split).or_default() += 1;
        let classes = self.classes.entry(split).or_insert_with(|| vec![0; task.classes]);
        for (class, count) in classes.iter_mut().zip(class_counts(task, &sample.target)) {
            *class += count;
        }
        let dtype = sample.label_dtype.as_deref().unwrap_or_default();
        match &sample.target {
            Target::Mask(mask) if self.mask.is_none() => {
                self.mask = Some(format!("mask: {dtype} {}", size(mask)))
            }
            Target::ValueMap(map) if self.mask.is_none() => {
                self.mask = Some(format!("map: {dtype} {}", size(map)))
            }
            _ => {}
        }
        let values = self.values.entry(split).or_default();
        match &sample.target {
            Target::Value(value) => values.add(*value),
            Target::ValueMap(map) => map.iter().for_each(|value| values.add(*value)),
            Target::Class(_) | Target::Labels(_) | Target::Mask(_) => {}
        }
        for (name, band) in sample.bands() {
            let known = self.bands.iter().position(|known| known.name == name);
            let place = known.unwrap_or_else(|| {
                self.bands.push(BandSummary::new(&name));
                self.bands.len() - 1
            });
            self.bands[place].add(band);
        }
    }

    /// Explains which bands are misnamed, if the files show it.
    fn misnamed(&self, task: &Task) -> Option<String> {
        let largest: Vec<(&str, f64)> =
            self.bands.iter().map(|band| (band.name.as_str(), band.max)).collect();
        names::holds_quick_look(task, &largest)?
            .then(|| format!("{}; {}", names::explanation(task), names::REMEDY))
    }

    fn print(&self, task: &Task, splits: &[Split], out: &mut dyn Write) -> std::io::Result<()> {
        let (Task { name, title, classes, metric, .. }, sensor) = (task, task.sensors());
        let kind = match task.target {
            TargetKind::Class => "classes, one per image",
            TargetKind::Labels => "labels, any number per image",
            TargetKind::Mask => "classes, one per pixel",
            TargetKind::Value => "number per image",
            TargetKind::ValueMap => "number per pixel",
        };
        writeln!(out, "{name} ({title}): {classes} {kind}; metric {metric}; sensor {sensor}")?;
        if let Some(mask) = &self.mask {
            writeln!(out, "{mask}")?;
        }
        if task.scale != 1.0 {
            writeln!(out, "pixels below are as stored; they are multiplied by {} when used", task.scale)?;
        }
        if !task.band_scales.is_empty() {
            writeln!(
                out,
                "pixels below are as stored; each band is multiplied by its factor (`band-scales`) when used"
            )?;
        }
        if let Some(resample) = task.resample {
            writeln!(
                out,
                "sizes below are as stored; images and labels are resampled to {0} x {0} when used",
                resample.side
            )?;
        }

        writeln!(out, "\n{:<8}{:>10}{:>10}", "split", "samples", "official")?;
        for split in splits {
            let samples = self.samples.get(split).unwrap_or(&0);
            writeln!(out, "{:<8}{samples:>10}{:>10}", split.to_string(), task.samples.of(*split))?;
        }

        let width = self.bands.iter().map(|band| band.name.chars().count()).max().unwrap_or(0).max(4);
        let form = |band: &BandSummary| match band.forms.as_slice() {
            [first, rest @ ..] if rest.len() > 2 => format!("{first} or {} other sizes", rest.len()),
            forms => forms.join(" or "),
        };
        let forms: Vec<String> = self.bands.iter().map(form).collect();
        let form_width = forms.iter().map(String::len).max().unwrap_or(0).max(4);
        writeln!(
            out,
            "\n{:<width$}  {:<form_width$}{:>14}{:>14}{:>14}{:>14}",
            "band", "type", "mean", "std", "min", "max"
        )?;
        for (band, form) in self.bands.iter().zip(&forms) {
            let BandSummary { name, mean, min, max, .. } = band;
            let std = (band.squares / band.count as f64).sqrt();
            write!(out, "{name:<width$}  {form:<form_width$}")?;
            // Columns of gases are far below 1.
            let is_small = min.abs().max(max.abs()) < 0.01;
            for number in [*mean, std, *min, *max] {
                match is_small {
                    true => write!(out, "{number:>14.4e}")?,
                    false => write!(out, "{number:>14.4}")?,
                }
            }
            match (band.not_finite, task.clip, task.nan_pixels) {
                (0, _, _) => writeln!(out)?,
                (count, Some([low, high]), _) => {
                    writeln!(out, "  {count} pixels are not finite; readers clip to {low} to {high}")?;
                }
                (count, None, Some(number)) => {
                    writeln!(out, "  {count} pixels are not finite; readers replace NaN by {number}")?;
                }
                (count, None, None) => writeln!(out, "  {count} pixels are not finite!")?,
            }
        }

        if let Some(note) = self.misnamed(task) {
            writeln!(out, "\nnote: {note}")?;
        }

        if task.target.is_numeric() {
            return self.print_values(task, splits, out);
        }
        write!(out, "\n{:<8}", "class")?;
        for split in splits {
            write!(out, "{:>14}", split.to_string())?;
        }
        writeln!(out)?;
        for class in 0..task.classes {
            write!(out, "{class:<8}")?;
            for split in splits {
                let count = self.classes.get(split).and_then(|counts| counts.get(class)).unwrap_or(&0);
                write!(out, "{count:>14}")?;
            }
            writeln!(out)?;
        }
        Ok(())
    }
}

impl Summary {
    fn print_values(&self, task: &Task, splits: &[Split], out: &mut dyn Write) -> std::io::Result<()> {
        let unit = task.unit.as_deref().map(|unit| format!(" in {unit}")).unwrap_or_default();
        writeln!(out, "\nnumbers of the labels{unit}")?;
        writeln!(
            out,
            "{:<8}{:>14}{:>14}{:>14}{:>14}{:>14}",
            "split", "measured", "of", "mean", "min", "max"
        )?;
        for split in splits {
            let ValueSummary { measured, all, sum, min, max } = self.values.get(split).unwrap_or(&NO_VALUES);
            let split = split.to_string();
            match measured {
                0 => writeln!(out, "{split:<8}{measured:>14}{all:>14}{:>14}{:>14}{:>14}", "-", "-", "-")?,
                _ => {
                    let mean = sum / *measured as f64;
                    writeln!(out, "{split:<8}{measured:>14}{all:>14}{mean:>14.4}{min:>14.4}{max:>14.4}")?;
                }
            }
        }
        Ok(())
    }
}

const NO_VALUES: ValueSummary = ValueSummary { measured: 0, all: 0, sum: 0.0, min: 0.0, max: 0.0 };

impl BandSummary {
    fn new(name: &str) -> Self {
        BandSummary {
            name: name.to_owned(),
            forms: Vec::new(),
            count: 0,
            not_finite: 0,
            mean: 0.0,
            squares: 0.0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
        }
    }

    fn add(&mut self, band: &RawBand) {
        let form = format!("{} {}", band.dtype, size(&band.pixels));
        if !self.forms.contains(&form) {
            self.forms.push(form);
        }
        let finite = band.pixels.iter().copied().filter(|pixel| pixel.is_finite());
        let count = finite.clone().count();
        self.not_finite += band.pixels.len() - count;
        if count == 0 {
            return;
        }
        // Merges the image's moments with those accumulated so far [Chan, Golub and LeVeque, 1979].
        let mean = finite.clone().sum::<f64>() / count as f64;
        let squares: f64 = finite.clone().map(|pixel| (pixel - mean).powi(2)).sum();
        let (before, total) = (self.count as f64, (self.count + count) as f64);
        let apart = mean - self.mean;
        self.mean += apart * count as f64 / total;
        self.squares += squares + apart * apart * before * count as f64 / total;
        self.count += count;
        self.min = finite.clone().fold(self.min, f64::min);
        self.max = finite.fold(self.max, f64::max);
    }
}

fn size<T>(image: &Array2<T>) -> String {
    let (rows, columns) = image.dim();
    format!("{rows} x {columns}")
}
