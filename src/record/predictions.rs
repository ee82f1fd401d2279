//! The predictions of a record, in a separate file: `predictions/<name of the record>.safetensors`.
//!
//! | tensor | contents | shape |
//! |---|---|---|
//! | `predicted`, `truth` | one class per image: uint16 | [n] |
//! | `predicted`, `truth` | several labels per image: uint8, 0 or 1 | [n, labels] |
//! | `logits`, `truth` | several labels per image, ranked: float32, and uint8 as above | [n, labels] |
//! | `predicted`, `truth` | one number per image: float32 | [n] |
//! | `sums` | value maps: float64: count, sums of absolute and squared errors, of the truth and its squares | [n, 5] |
//! | `counts` | masks: uint32, pixels by label (last: no class) and prediction | [n, classes + 1, classes] |
//! | `precisions`, `ranks`, `truth` | rankings: float64, average precision (0 to 1); uint32, place of the first relevant image (from 1) and number of relevant images; `truth` as above | [n], [n, 2] |
//! | `clusters`, `truth` | clusters: uint16 | [n] |
//!
//! What a report shows beside the scores is optional, and of any kind:
//!
//! | tensor | contents | shape |
//! |---|---|---|
//! | `probabilities` | float32, of each class or label, 0 to 1 | [n, classes] |
//! | `map-samples`, `map-features` | uint32, indices of samples, ascending; float32, their features reduced to few numbers | [m], [m, components] |
//!
//! Metadata: `format`, `record` (its fingerprint), `samples` (the JSON list of their names, in order), `kind` (`class`,
//! `multi-label`, `scores`, `mask`, `value`, `value-map`, `rankings`, `clusters`), `classes`, `ignore` for masks, and `recall-at`
//! (a JSON list) for rankings. Where they apply, three more
//! keys store what is needed to recompute the record's scores: `class-names` (a JSON list), `report-batch` (samples per
//! batch of `reported_<metric>`) and `resamples` (of the interval), also `resampling` unless it is the default. Files without `format` have format 1, which lacks
//! these three. Files with rankings, clusters or something for the report have format 3, all others 2.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use ndarray::{Array2, Array3, Axis};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use super::FINGERPRINT_DIGITS;
use crate::error::AtPath;
use crate::files::write_atomically;
use crate::formats::tensors;
use crate::metrics::Resampling;
use crate::metrics::regression::ErrorSums;
use crate::metrics::retrieval::RankedQuery;
use crate::metrics::segmentation::Confusion;
use crate::score::predictions::Retrieval;
use crate::score::supplement::MapFeatures;
use crate::score::{Predictions, Scoring, Supplement, Targets};
use crate::{Error, Result};

/// Latest version of the file format. Older versions can be read.
pub const FORMAT: u32 = 3;

/// Version of files that need nothing of the latest one, so that older programs can read them.
const PLAIN_FORMAT: u32 = 2;

/// Upper limit of the number of resamples and of the batch size that a file can state.
const LARGEST: usize = 1_000_000;

/// Numbers stored per [`ErrorSums`].
const SUMS: usize = 5;

/// Predictions with the names of their samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Named {
    /// Names of the samples, one per prediction.
    pub samples: Vec<String>,
    /// Predictions and labels, in the order of `samples`.
    pub predictions: Predictions,
    /// Settings needed to recompute the record's scores; `None` for files of format 1.
    pub scoring: Option<Scoring>,
    /// What a report shows beside the scores.
    pub supplement: Supplement,
}

/// A tensor to write.
struct Tensor {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Tensor {
    fn classes(classes: &[usize]) -> Result<Self, String> {
        let narrow = |class: &usize| u16::try_from(*class).map_err(|_| format!("class {class}"));
        let numbers = classes.iter().map(narrow).collect::<Result<Vec<_>, _>>()?;
        let bytes = numbers.iter().flat_map(|class| class.to_le_bytes()).collect();
        Ok(Tensor { dtype: Dtype::U16, shape: vec![classes.len()], bytes })
    }

    fn labels(labels: &Array2<bool>) -> Self {
        let (n, count) = labels.dim();
        Tensor {
            dtype: Dtype::U8,
            shape: vec![n, count],
            bytes: labels.iter().map(|label| u8::from(*label)).collect(),
        }
    }

    fn values(values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor { dtype: Dtype::F32, shape: vec![values.len()], bytes }
    }

    fn matrix(values: &Array2<f32>) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor { dtype: Dtype::F32, shape: values.shape().to_vec(), bytes }
    }

    fn indices(indices: &[usize]) -> Result<Self, String> {
        let narrow = |index: &usize| u32::try_from(*index).map_err(|_| format!("sample {index}"));
        let numbers = indices.iter().map(narrow).collect::<Result<Vec<_>, _>>()?;
        let bytes = numbers.iter().flat_map(|index| index.to_le_bytes()).collect();
        Ok(Tensor { dtype: Dtype::U32, shape: vec![indices.len()], bytes })
    }

    fn precisions(queries: &[RankedQuery]) -> Self {
        let bytes = queries.iter().flat_map(|query| query.average_precision.to_le_bytes()).collect();
        Tensor { dtype: Dtype::F64, shape: vec![queries.len()], bytes }
    }

    fn ranks(queries: &[RankedQuery]) -> Self {
        let bytes = queries.iter().flat_map(|query| [query.first, query.relevant]).flat_map(u32::to_le_bytes);
        Tensor { dtype: Dtype::U32, shape: vec![queries.len(), 2], bytes: bytes.collect() }
    }

    fn sums(images: &[ErrorSums]) -> Self {
        let numbers =
            images.iter().flat_map(|s| [s.count as f64, s.absolute, s.squared, s.truth, s.truth_squared]);
        let bytes = numbers.flat_map(|number| number.to_le_bytes()).collect();
        Tensor { dtype: Dtype::F64, shape: vec![images.len(), SUMS], bytes }
    }

    fn counts(images: &[Confusion]) -> Result<Self, String> {
        let (rows, columns) = images.first().map_or((1, 0), |image| image.counts().dim());
        let mut bytes = Vec::new();
        for image in images {
            for count in image.counts() {
                let count = u32::try_from(*count).map_err(|_| format!("{count} pixels in an image"))?;
                bytes.extend(count.to_le_bytes());
            }
        }
        Ok(Tensor { dtype: Dtype::U32, shape: vec![images.len(), rows, columns], bytes })
    }
}

/// Writes the file atomically: completely, or not at all.
///
/// # Errors
/// If it cannot be written, or there is not exactly one name per prediction.
pub fn write(path: &Path, record: &str, named: &Named) -> Result<()> {
    write_atomically(path, &encode(path, record, named)?)
}

/// Hash of the predictions and their samples, independent of the record: 32 hexadecimal digits.
///
/// # Errors
/// If there is not exactly one name per prediction.
pub fn digest(named: &Named) -> Result<String> {
    let bytes = encode(Path::new("predictions"), "", named)?;
    Ok(blake3::hash(&bytes).to_hex()[..FINGERPRINT_DIGITS].to_owned())
}

/// Encodes the file; equal predictions give equal bytes.
fn encode(path: &Path, record: &str, named: &Named) -> Result<Vec<u8>> {
    let problem = |problem: String| Error::io(path, format!("cannot be written: {problem}"));
    let Named { samples, predictions, scoring, supplement } = named;
    if samples.len() != predictions.len() {
        return Err(problem(format!("{} sample names for {} predictions", samples.len(), predictions.len())));
    }
    if let Some(no_number) = not_a_number(samples, predictions) {
        return Err(problem(no_number));
    }
    let mut metadata = BTreeMap::from([
        ("record".to_owned(), record.to_owned()),
        ("samples".to_owned(), serde_json::to_string(samples).at(path)?),
    ]);
    // Predictions read from format 1 are written as format 1 again.
    let is_plain = supplement.is_empty()
        && !matches!(predictions, Predictions::Retrieved(_) | Predictions::Clusters { .. });
    let format = if is_plain { PLAIN_FORMAT } else { FORMAT };
    if !is_plain || scoring.is_some() {
        metadata.insert("format".to_owned(), format.to_string());
    }
    if let Some(Scoring { class_names, report_batch, resamples, resampling }) = scoring {
        if !class_names.is_empty() {
            metadata.insert("class-names".to_owned(), serde_json::to_string(class_names).at(path)?);
        }
        if !resampling.is_default() {
            metadata.insert("resampling".to_owned(), serde_json::to_string(resampling).at(path)?);
        }
        let numbers = [("report-batch", report_batch), ("resamples", resamples)];
        let numbers = numbers.into_iter().filter_map(|(name, number)| Some((name, (*number)?)));
        metadata.extend(numbers.map(|(name, number)| (name.to_owned(), number.to_string())));
    }
    let (kind, classes, mut arrays) = match predictions {
        Predictions::Targets {
            predicted: Targets::Classes { classes: predicted, .. },
            truth: Targets::Classes { classes: truth, count },
        } => {
            let tensor = |classes| Tensor::classes(classes).map_err(problem);
            ("class", *count, vec![("predicted", tensor(predicted)?), ("truth", tensor(truth)?)])
        }
        Predictions::Targets { predicted: Targets::Labels(predicted), truth: Targets::Labels(truth) } => {
            let tensors = vec![("predicted", Tensor::labels(predicted)), ("truth", Tensor::labels(truth))];
            ("multi-label", truth.ncols(), tensors)
        }
        Predictions::Targets { predicted: Targets::Values(predicted), truth: Targets::Values(truth) } => {
            ("value", 1, vec![("predicted", Tensor::values(predicted)), ("truth", Tensor::values(truth))])
        }
        Predictions::ValueMaps(images) => ("value-map", 1, vec![("sums", Tensor::sums(images))]),
        Predictions::Targets { .. } => {
            return Err(problem("predictions and labels are of different kinds".to_owned()));
        }
        Predictions::Scores { logits, truth } => {
            let scores = Tensor {
                dtype: Dtype::F32,
                shape: logits.shape().to_vec(),
                bytes: logits.iter().flat_map(|logit| logit.to_le_bytes()).collect(),
            };
            ("scores", truth.ncols(), vec![("logits", scores), ("truth", Tensor::labels(truth))])
        }
        Predictions::Retrieved(Retrieval { queries, truth, recall_at }) => {
            metadata.insert("recall-at".to_owned(), serde_json::to_string(recall_at).at(path)?);
            let outputs = truth.outputs();
            let truth = match truth {
                Targets::Classes { classes, .. } => Tensor::classes(classes).map_err(problem)?,
                Targets::Labels(labels) => Tensor::labels(labels),
                Targets::Values(_) => return Err(problem("numbers cannot be retrieved".to_owned())),
            };
            let (precisions, ranks) = (Tensor::precisions(queries), Tensor::ranks(queries));
            let tensors = vec![("precisions", precisions), ("ranks", ranks), ("truth", truth)];
            ("rankings", outputs, tensors)
        }
        Predictions::Clusters { clusters, truth, count } => {
            let tensor = |groups: &[usize]| Tensor::classes(groups).map_err(problem);
            ("clusters", *count, vec![("clusters", tensor(clusters)?), ("truth", tensor(truth)?)])
        }
        Predictions::Masks(images) => {
            let first = images.first();
            if let Some(ignore) = first.and_then(Confusion::ignore) {
                metadata.insert("ignore".to_owned(), ignore.to_string());
            }
            let classes = first.map_or(0, |image| image.counts().ncols());
            ("mask", classes, vec![("counts", Tensor::counts(images).map_err(problem)?)])
        }
    };
    if let Some(probabilities) = &supplement.probabilities {
        arrays.push(("probabilities", Tensor::matrix(probabilities)));
    }
    if let Some(MapFeatures { samples, features }) = &supplement.map {
        arrays.push(("map-samples", Tensor::indices(samples).map_err(problem)?));
        arrays.push(("map-features", Tensor::matrix(features)));
    }
    metadata.insert("kind".to_owned(), kind.to_owned());
    metadata.insert("classes".to_owned(), classes.to_string());
    let views = arrays
        .iter()
        .map(|(name, t)| Ok((*name, TensorView::new(t.dtype, t.shape.clone(), &t.bytes).at(path)?)))
        .collect::<Result<Vec<_>>>()?;
    tensors::serialize(views, metadata).at(path)
}

/// Describes the first sample with a value that is not a number and so has no rank or error.
fn not_a_number(samples: &[String], predictions: &Predictions) -> Option<String> {
    let (what, place) = match predictions {
        Predictions::Scores { logits, .. } => {
            ("a score", logits.outer_iter().position(|row| row.iter().any(|logit| logit.is_nan())))
        }
        Predictions::Targets { predicted: Targets::Values(predicted), truth: Targets::Values(truth) } => {
            let is_wrong = |(a, b): (&f32, &f32)| !(a.is_finite() && b.is_finite());
            ("the number", predicted.iter().zip(truth).position(is_wrong))
        }
        Predictions::ValueMaps(images) => ("a sum", images.iter().position(|image| !image.is_finite())),
        Predictions::Retrieved(Retrieval { queries, .. }) => {
            let is_wrong = |query: &RankedQuery| !(0.0..=1.0).contains(&query.average_precision);
            ("the average precision", queries.iter().position(is_wrong))
        }
        Predictions::Clusters { .. } => return None,
        Predictions::Targets { .. } | Predictions::Masks(_) => return None,
    };
    let sample = samples.get(place?).map_or("?", String::as_str);
    Some(format!("{what} of sample `{sample}` is not a number"))
}

/// Reads the file of the record with that fingerprint; `None` if there is no file.
///
/// # Errors
/// If it is damaged or belongs to another record.
pub fn read(path: &Path, record: &str) -> Result<Option<Named>> {
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes.at(path)?,
    };
    let damaged = |problem: String| {
        Error::damaged(path, format!("not the predictions of a record: {problem}"))
            .help("delete the file, and run the cell again with `bench --fresh`")
    };
    let named = parse(&bytes, record).map_err(damaged)?;
    Ok(Some(named))
}

fn parse(bytes: &[u8], record: &str) -> Result<Named, String> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| e.to_string())?;
    let metadata = header.metadata().clone().unwrap_or_default();
    let of = |key: &str| metadata.get(key).ok_or_else(|| format!("`{key}` is missing"));
    let format: u32 = match metadata.get("format") {
        Some(format) => format.parse().map_err(|_| format!("unknown format `{format}`"))?,
        None => 1,
    };
    if !(1..=FORMAT).contains(&format) {
        return Err(format!("format {format} is newer than this program, which reads up to {FORMAT}"));
    }
    let found = of("record")?;
    if found != record {
        return Err(format!("expected predictions of record {record}, found those of record {found}"));
    }
    let samples: Vec<String> = serde_json::from_str(of("samples")?).map_err(|e| e.to_string())?;
    let classes: usize = of("classes")?.parse().map_err(|e| format!("classes: {e}"))?;
    let file = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
    let tensors: BTreeMap<String, _> = file.tensors().into_iter().collect();
    let tensor = |name: &str, dtype: Dtype, rank: usize| match tensors.get(name) {
        Some(t) if t.dtype() == dtype && t.shape().len() == rank => Ok(t),
        Some(t) => Err(format!("`{name}` has the unexpected type and shape {:?} {:?}", t.dtype(), t.shape())),
        None => Err(format!("`{name}` is missing")),
    };
    let labels = |name: &str| -> Result<Array2<bool>, String> {
        let t = tensor(name, Dtype::U8, 2)?;
        let labels = t.data().iter().map(|label| *label != 0).collect();
        Array2::from_shape_vec((t.shape()[0], t.shape()[1]), labels).map_err(|e| e.to_string())
    };
    let classes_of = |name: &str| -> Result<Vec<usize>, String> {
        let numbers = tensor(name, Dtype::U16, 1)?.data().as_chunks().0.iter();
        let read: Vec<usize> = numbers.map(|bytes| usize::from(u16::from_le_bytes(*bytes))).collect();
        match read.iter().find(|class| **class >= classes) {
            Some(class) => Err(format!("`{name}` contains class {class}; expected classes below {classes}")),
            None => Ok(read),
        }
    };
    let of_classes =
        |name: &str| Ok::<_, String>(Targets::Classes { classes: classes_of(name)?, count: classes });
    let matrix = |name: &str| -> Result<Array2<f32>, String> {
        let t = tensor(name, Dtype::F32, 2)?;
        let numbers = t.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        Array2::from_shape_vec((t.shape()[0], t.shape()[1]), numbers).map_err(|e| e.to_string())
    };
    let whole = |name: &str, rank: usize| -> Result<Vec<u32>, String> {
        let numbers = tensor(name, Dtype::U32, rank)?.data().as_chunks().0.iter();
        Ok(numbers.map(|bytes| u32::from_le_bytes(*bytes)).collect())
    };
    let predictions = match of("kind")?.as_str() {
        "class" => Predictions::Targets { predicted: of_classes("predicted")?, truth: of_classes("truth")? },
        "clusters" => Predictions::Clusters {
            clusters: classes_of("clusters")?,
            truth: classes_of("truth")?,
            count: classes,
        },
        "rankings" => {
            let precisions = tensor("precisions", Dtype::F64, 1)?.data().as_chunks().0.iter();
            let precisions: Vec<f64> = precisions.map(|bytes| f64::from_le_bytes(*bytes)).collect();
            let shape = tensor("ranks", Dtype::U32, 2)?.shape();
            if shape != [precisions.len(), 2] {
                return Err(format!("`ranks` has shape {shape:?}, expected [{}, 2]", precisions.len()));
            }
            let ranks = whole("ranks", 2)?;
            let query = |(average_precision, ranks): (f64, &[u32; 2])| {
                let [first, relevant] = *ranks;
                RankedQuery { average_precision, first, relevant }
            };
            let queries = precisions.into_iter().zip(ranks.as_chunks().0).map(query).collect();
            let truth = match tensors.get("truth") {
                Some(t) if t.dtype() == Dtype::U8 => Targets::Labels(labels("truth")?),
                _ => of_classes("truth")?,
            };
            let recall_at =
                serde_json::from_str(of("recall-at")?).map_err(|e| format!("`recall-at`: {e}"))?;
            Predictions::Retrieved(Retrieval { queries, truth, recall_at })
        }
        "multi-label" => Predictions::Targets {
            predicted: Targets::Labels(labels("predicted")?),
            truth: Targets::Labels(labels("truth")?),
        },
        "scores" => Predictions::Scores { logits: matrix("logits")?, truth: labels("truth")? },
        "mask" => {
            let ignore = metadata.get("ignore").map(|label| label.parse()).transpose();
            let ignore: Option<i32> = ignore.map_err(|e| format!("ignore: {e}"))?;
            let t = tensor("counts", Dtype::U32, 3)?;
            let numbers = t.data().as_chunks().0.iter().map(|bytes| u64::from(u32::from_le_bytes(*bytes)));
            let shape = (t.shape()[0], t.shape()[1], t.shape()[2]);
            if shape.2 != classes {
                return Err(format!("`counts` has {} classes, expected {classes}", shape.2));
            }
            let all = Array3::from_shape_vec(shape, numbers.collect()).map_err(|e| e.to_string())?;
            let image = |counts: ndarray::ArrayView2<u64>| {
                Confusion::from_counts(counts.to_owned(), ignore).map_err(|e| e.to_string())
            };
            Predictions::Masks(all.axis_iter(Axis(0)).map(image).collect::<Result<_, _>>()?)
        }
        "value" => {
            let values = |name: &str| -> Result<Targets, String> {
                let numbers = tensor(name, Dtype::F32, 1)?.data().as_chunks().0.iter();
                Ok(Targets::Values(numbers.map(|bytes| f32::from_le_bytes(*bytes)).collect()))
            };
            Predictions::Targets { predicted: values("predicted")?, truth: values("truth")? }
        }
        "value-map" => {
            let t = tensor("sums", Dtype::F64, 2)?;
            if t.shape()[1] != SUMS {
                return Err(format!("`sums` has {} numbers per image, expected {SUMS}", t.shape()[1]));
            }
            let numbers: Vec<f64> = t.data().as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
            Predictions::ValueMaps(numbers.as_chunks().0.iter().map(sums).collect::<Result<_, _>>()?)
        }
        other => return Err(format!("unknown kind `{other}`")),
    };
    if samples.is_empty() {
        return Err("no samples".to_owned());
    }
    if let Some(problem) = not_a_number(&samples, &predictions) {
        return Err(problem);
    }
    let lengths = match &predictions {
        Predictions::Targets { predicted, truth } => [predicted.len(), truth.len()],
        Predictions::Scores { logits, truth } => [logits.nrows(), truth.nrows()],
        Predictions::Masks(images) => [images.len(); 2],
        Predictions::ValueMaps(images) => [images.len(); 2],
        Predictions::Retrieved(Retrieval { queries, truth, .. }) => [queries.len(), truth.len()],
        Predictions::Clusters { clusters, truth, .. } => [clusters.len(), truth.len()],
    };
    if let Some(length) = lengths.iter().find(|length| **length != samples.len()) {
        return Err(format!("{length} predictions or labels for {} samples", samples.len()));
    }
    let mut supplement = Supplement::default();
    if tensors.contains_key("probabilities") {
        let probabilities = matrix("probabilities")?;
        if probabilities.dim() != (samples.len(), classes) {
            let expected = (samples.len(), classes);
            return Err(format!(
                "`probabilities` has shape {:?}, expected {expected:?}",
                probabilities.dim()
            ));
        }
        if let Some(number) = probabilities.iter().find(|number| !(0.0..=1.0).contains(*number)) {
            return Err(format!("`probabilities` contains {number}, expected numbers from 0 to 1"));
        }
        supplement.probabilities = Some(probabilities);
    }
    if tensors.contains_key("map-features") {
        let features = matrix("map-features")?;
        let places: Vec<usize> = whole("map-samples", 1)?.into_iter().map(|place| place as usize).collect();
        let ascend = places.windows(2).all(|pair| pair[0] < pair[1]);
        if places.len() != features.nrows() || !ascend || places.last().is_some_and(|l| *l >= samples.len()) {
            return Err(format!(
                "`map-samples` must list {} of {} samples in ascending order",
                features.nrows(),
                samples.len()
            ));
        }
        if features.iter().any(|feature| !feature.is_finite()) {
            return Err("`map-features` contains a number that is not finite".to_owned());
        }
        supplement.map = Some(MapFeatures { samples: places, features });
    }
    let scoring = scoring(format, &metadata)?;
    Ok(Named { samples, predictions, scoring, supplement })
}

fn sums(&[count, absolute, squared, truth, truth_squared]: &[f64; SUMS]) -> Result<ErrorSums, String> {
    // Above 2^53, f64 does not represent every integer.
    if count.fract() != 0.0 || !(0.0..=(1_u64 << 53) as f64).contains(&count) {
        return Err(format!("`sums` counts {count} pixels"));
    }
    if [absolute, squared, truth_squared].iter().any(|sum| *sum < 0.0) {
        return Err("`sums` contains a negative sum of absolute values or squares".to_owned());
    }
    Ok(ErrorSums { count: count as u64, absolute, squared, truth, truth_squared })
}

fn scoring(format: u32, metadata: &HashMap<String, String>) -> Result<Option<Scoring>, String> {
    if format < 2 {
        return Ok(None);
    }
    let class_names = match metadata.get("class-names") {
        Some(names) => serde_json::from_str(names).map_err(|e| format!("`class-names`: {e}"))?,
        None => Vec::new(),
    };
    let number = |name: &str| match metadata.get(name).map(|number| number.parse::<usize>()) {
        None => Ok(None),
        Some(Ok(number)) if (1..=LARGEST).contains(&number) => Ok(Some(number)),
        Some(_) => Err(format!("`{name}` is not between 1 and {LARGEST}")),
    };
    let resampling = match metadata.get("resampling") {
        Some(name) => serde_json::from_str(name).map_err(|e| format!("`resampling`: {e}"))?,
        None => Resampling::default(),
    };
    let (report_batch, resamples) = (number("report-batch")?, number("resamples")?);
    Ok(Some(Scoring { class_names, report_batch, resamples, resampling }))
}
