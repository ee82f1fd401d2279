//! Records as a data frame.

use polars::prelude::{DataFrame, df};
use serde::Serialize;

use super::Record;
use crate::{Error, Result};

/// Returns a data frame with one row per record, in the order given.
///
/// | columns | type |
/// |---|---|
/// | `suite`, `task`, `partition`, `protocol`, `model`, `backbone` | string: the cell |
/// | `seed` | u64 |
/// | `demo`, `short` | boolean |
/// | `metric` | string |
/// | `value` | f64, in the metric's unit: percent, or the task's unit |
/// | `low`, `high` | f64, in the same unit; null without an interval |
/// | `level` | f64, between 0 and 1; null without an interval |
/// | `scores`, `selected`, `samples` | string: JSON objects |
/// | `fingerprint`, `settings`, `weights`, `data` | string |
/// | `coverage` | string: `whole weights`, `partial weights: 3 of 150 parameters`, `random weights` |
/// | `protocol_settings`, `configs`, `notes` | string: two JSON objects, a JSON array |
/// | `git_dirty` | boolean |
/// | `sensor`, `normalization`, `band_names`, `pooling`, `inputs`, `channels` | string |
/// | `bands`, `imputed` | string: JSON arrays |
/// | `image_size`, `threads`, `finished` | u64; pixels, number, Unix seconds |
/// | `device`, `terrabench`, `git_revision` | string; the last null outside a git checkout |
/// | `wall_seconds` | f64 |
/// | `declared` | string: a JSON object of what is known of features from files |
/// | `origin` | string: the contributor's name; null for own records |
/// | `depth` | u64: number of blocks that features come after; null for the whole model |
/// | `resize`, `beside` | string: another resize rule than the suite's, the model beside; null without |
/// | `images_per_second` | f64; null if the run computed no features |
/// | `peak_memory_bytes` | u64; null where it is not known |
/// | `record` | string: the file's name |
///
/// # Errors
/// If the frame cannot be built.
pub fn frame(records: &[Record]) -> Result<DataFrame> {
    fn column<'a, T>(records: &'a [Record], of: impl Fn(&'a Record) -> T) -> Vec<T> {
        records.iter().map(of).collect()
    }
    fn json<T: Serialize>(records: &[Record], of: impl Fn(&Record) -> &T) -> Result<Vec<String>> {
        records.iter().map(|r| serde_json::to_string(of(r)).map_err(Error::mismatch)).collect()
    }
    df! {
        "suite" => column(records, |r| r.cell.suite.as_str()),
        "task" => column(records, |r| r.cell.task.as_str()),
        "partition" => column(records, |r| r.cell.partition.as_str()),
        "protocol" => column(records, |r| r.cell.protocol.as_str()),
        "model" => column(records, |r| r.cell.model.as_str()),
        "backbone" => column(records, |r| r.cell.backbone.as_str()),
        "seed" => column(records, |r| r.cell.seed),
        "demo" => column(records, |r| r.demo),
        "short" => column(records, |r| r.short),
        "metric" => column(records, |r| r.metric.to_string()),
        "value" => column(records, |r| r.value),
        "low" => column(records, |r| r.interval.map(|i| i.low)),
        "high" => column(records, |r| r.interval.map(|i| i.high)),
        "level" => column(records, |r| r.interval.map(|i| i.level)),
        "scores" => json(records, |r| &r.scores)?,
        "selected" => json(records, |r| &r.selected)?,
        "samples" => json(records, |r| &r.samples)?,
        "fingerprint" => column(records, |r| r.fingerprint.as_str()),
        "settings" => column(records, |r| r.settings.as_str()),
        "weights" => column(records, |r| r.provenance.weights.as_str()),
        "coverage" => column(records, |r| r.provenance.coverage().to_string()),
        "data" => column(records, |r| r.provenance.data.as_str()),
        "sensor" => column(records, |r| r.provenance.sensors()),
        "normalization" => column(records, |r| r.provenance.normalization.as_str()),
        "band_names" => column(records, |r| r.provenance.band_names.as_str()),
        "pooling" => column(records, |r| r.provenance.pooling.map(|pooling| pooling.to_string())),
        "inputs" => column(records, |r| r.provenance.inputs.to_string()),
        "channels" => column(records, |r| r.provenance.channels.as_str()),
        "bands" => json(records, |r| &r.provenance.bands)?,
        "imputed" => json(records, |r| &r.provenance.imputed)?,
        "image_size" => column(records, |r| r.provenance.image_size as u64),
        "device" => column(records, |r| r.provenance.device.as_str()),
        "threads" => column(records, |r| r.provenance.threads as u64),
        "terrabench" => column(records, |r| r.provenance.terrabench.as_str()),
        "git_revision" => column(records, |r| r.provenance.git_revision.as_deref()),
        "git_dirty" => column(records, |r| r.provenance.git_dirty),
        "configs" => json(records, |r| &r.provenance.configs)?,
        "protocol_settings" => json(records, |r| &r.protocol_settings)?,
        "notes" => json(records, |r| &r.notes)?,
        "finished" => column(records, |r| r.provenance.finished),
        "wall_seconds" => column(records, |r| r.provenance.wall_seconds),
        "declared" => json(records, |r| &r.provenance.declared)?,
        "origin" => column(records, |r| r.provenance.origin.as_deref()),
        "depth" => column(records, |r| r.provenance.depth.map(|blocks| blocks as u64)),
        "resize" => column(records, |r| r.provenance.resize.map(|rule| rule.to_string())),
        "beside" => column(records, |r| r.provenance.beside.as_ref().map(|other| other.model.as_str())),
        "images_per_second" => column(records, |r| r.provenance.speed.map(|speed| speed.images_per_second)),
        "peak_memory_bytes" => column(records, |r| r.provenance.speed.and_then(|speed| speed.peak_memory_bytes)),
        "record" => column(records, Record::file_name),
    }
    .map_err(Error::mismatch)
}
