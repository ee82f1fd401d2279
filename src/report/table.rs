//! A table of the papers with our rows: what stands in which cell. Rendering is [`super::markdown`]'s and
//! [`super::csv`]'s.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::published::{Mark, Published, PublishedValue};
use crate::Result;
use crate::record::{Interval, Record};
use crate::suite::{Metric, PublishedAs, Suite, Table, TableLayout};

/// A filled table.
#[derive(Debug, Clone)]
pub struct ResultTable<'a> {
    pub title: String,
    /// Made of demo records: generated data, nothing to compare with.
    pub demo: bool,
    /// Where the published values come from.
    pub source: String,
    /// How it is laid out in Markdown.
    pub layout: TableLayout,
    /// Whether values are means over batches where records have them.
    pub reported: bool,
    /// What our rows may be made by, the published protocol first.
    pub protocols: Vec<String>,
    pub columns: Vec<Column>,
    /// In the order of the source.
    pub published: Vec<Row<'a>>,
    /// Sorted by model, backbone, weights.
    pub measured: Vec<Row<'a>>,
    pub left_out: Vec<LeftOut<'a>>,
    /// Names of files that cannot be used, each with the reason: whoever read the records fills them in.
    pub unreadable: Vec<String>,
}

/// A task at one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub task: String,
    /// As in the tables: `m-EuroSat`.
    pub title: String,
    pub partition: String,
    pub metric: Metric,
    /// The further score that stands here in place of the metric: `iou_landslide`.
    pub score: Option<String>,
}

/// A model's values.
#[derive(Debug, Clone)]
pub struct Row<'a> {
    pub model: String,
    pub backbone: String,
    pub origin: Origin,
    /// What else tells the row from others of the same model: `random weights`.
    pub qualifiers: Vec<String>,
    /// One a column.
    pub cells: Vec<Option<Value<'a>>>,
}

/// Where a row's values come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Published,
    Measured,
    /// Measured on generated data.
    Demo,
}

/// What stands in a cell.
#[derive(Debug, Clone)]
pub struct Value<'a> {
    /// In percent; over several seeds their mean.
    pub value: f64,
    /// Standard deviation (n - 1) over several seeds.
    pub spread: Option<f64>,
    /// Of a single seed.
    pub interval: Option<Interval>,
    /// The published value to compare with.
    pub reference: Option<f64>,
    pub mark: Mark,
    /// What a measured value was made from, by seed.
    pub records: Vec<&'a Record>,
}

/// A record that no cell shows, and why.
#[derive(Debug, Clone)]
pub struct LeftOut<'a> {
    pub record: &'a Record,
    pub why: &'static str,
}

/// A number as tables show it: to one decimal, halves away from zero. Differences and ranks are those of
/// the shown numbers, so that the reader's arithmetic on the table holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tenths(i64);

impl Tenths {
    /// `number` in tenths; beyond what i64 holds, the nearest that it does.
    pub fn of(number: f64) -> Self {
        Tenths((number * 10.0).round() as i64)
    }
}

impl std::ops::Sub for Tenths {
    type Output = Tenths;

    fn sub(self, other: Self) -> Self {
        Tenths(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for Tenths {
    /// `93.4`; with `+`, `+0.3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let magnitude = self.0.unsigned_abs();
        f.pad_integral(self.0 >= 0, "", &format!("{}.{}", magnitude / 10, magnitude % 10))
    }
}

impl Value<'_> {
    fn published(value: f64) -> Self {
        Value { value, spread: None, interval: None, reference: None, mark: Mark::None, records: Vec::new() }
    }

    /// Whether the published value lies in the interval, by the shown numbers.
    pub fn inside(&self) -> Option<bool> {
        let (interval, published) = (self.interval?, Tenths::of(self.reference?));
        Some((Tenths::of(interval.low)..=Tenths::of(interval.high)).contains(&published))
    }

    /// The difference to the published value, of the shown numbers.
    pub fn difference(&self) -> Option<Tenths> {
        Some(Tenths::of(self.value) - Tenths::of(self.reference?))
    }
}

impl Row<'_> {
    /// The model's name and, in brackets, what kind of row it is: `TerraFM (measured, random weights)`.
    pub fn label(&self) -> String {
        self.with_notes(match self.origin {
            Origin::Published => None,
            Origin::Measured => Some("measured"),
            Origin::Demo => Some("demo"),
        })
    }

    /// The model's name with the qualifiers only: `TerraFM (random weights)`.
    pub fn name(&self) -> String {
        self.with_notes(None)
    }

    /// The label with the backbone behind the model's name: `TerraFM ViT-Base (measured)`.
    pub fn full_label(&self) -> String {
        self.with_backbone().label()
    }

    /// The name likewise: `TerraFM ViT-Base (random weights)`.
    pub fn full_name(&self) -> String {
        self.with_backbone().name()
    }

    fn with_backbone(&self) -> Row<'static> {
        let model = format!("{} {}", self.model, self.backbone).trim_end().to_owned();
        let qualifiers = self.qualifiers.clone();
        Row { model, backbone: String::new(), origin: self.origin, qualifiers, cells: Vec::new() }
    }

    fn with_notes(&self, origin: Option<&str>) -> String {
        let notes: Vec<&str> = origin.into_iter().chain(self.qualifiers.iter().map(String::as_str)).collect();
        if notes.is_empty() { self.model.clone() } else { format!("{} ({})", self.model, notes.join(", ")) }
    }
}

/// What to call each column: with its share of training data, where not all columns are of all data.
pub fn headings(columns: &[Column]) -> Vec<String> {
    let whole = columns.iter().all(|column| column.partition == "default");
    let name = |column: &Column| if whole { column.title.clone() } else { column.heading() };
    columns.iter().map(name).collect()
}

impl Column {
    /// Whether the published value stands in this column.
    fn holds(&self, value: &PublishedValue) -> bool {
        self.task == value.dataset && self.partition == value.partition && self.metric_name() == value.metric
    }

    /// `m-EuroSat (1 %)`.
    pub fn heading(&self) -> String {
        format!("{} ({})", self.title, partition_title(&self.partition))
    }

    /// The metric or score by its name in records and published values.
    pub fn metric_name(&self) -> String {
        self.score.clone().unwrap_or_else(|| self.metric.to_string())
    }

    /// The metric as the papers call it.
    pub fn metric_title(&self) -> String {
        match (&self.score, self.metric) {
            (Some(score), _) => match score.split_once('_') {
                Some(("iou", class)) => format!("IoU ({class})"),
                _ => score.clone(),
            },
            (None, Metric::Accuracy) => "top-1 accuracy".to_owned(),
            (None, Metric::MicroF1) => "F1".to_owned(),
            (None, Metric::Miou) => "mIoU".to_owned(),
            (None, Metric::MicroMap) => "mAP".to_owned(),
        }
    }
}

/// The share of the training samples: `default` is `100 %`, `0.01x_train` is `1 %`; other names stay.
pub(super) fn partition_title(partition: &str) -> String {
    match share(partition) {
        // Rounded, as 100 times a decimal fraction is seldom whole.
        Some(share) => super::percent(share),
        None => partition.to_owned(),
    }
}

/// The share of the training samples by a partition's name, between 0 and 1.
pub fn share(partition: &str) -> Option<f64> {
    if partition == "default" {
        return Some(1.0);
    }
    let share = partition.strip_suffix("x_train")?.parse::<f64>().ok()?;
    (share > 0.0 && share <= 1.0).then_some(share)
}

/// Fills a table: published rows as they are, then a row for each model (and protocol, and its weights, and
/// whether bands were taken by name or content) among the records.
///
/// - `demo` says which records count: those made from generated data, or the others. The two never meet:
///   demo rows have no difference to published ones and take no part in the ranking. Shortened runs are shown among
///   the demo's only.
/// - Where a cell has records of several settings, those of the newest record's settings are shown, one
///   for each seed.
/// - The difference is to the published value of the same model, backbone and protocol, by the names that the
///   definition says they are published under; a model with random
///   weights is another model than the published one and has none.
/// - The highest shown value of a column is marked bold and the second highest italic; equal values share
///   their mark. Published and measured rows rank together.
///
/// # Errors
/// Where the definition names a task that the suite lacks.
pub fn fill<'a>(
    definition: &Table,
    suite: &Suite,
    published: &Published,
    records: &'a [Record],
    demo: bool,
) -> Result<ResultTable<'a>> {
    let columns = columns(definition, suite)?;
    let mut published_rows = published_rows(&columns, published);
    let mut left_out = Vec::new();
    let eligible = eligible(records, &columns, definition, suite, demo, &mut left_out);
    let mut measured = measured_rows(definition, &columns, &eligible, published, demo, &mut left_out);
    for column in 0..columns.len() {
        let ours = if demo { &mut [][..] } else { &mut measured[..] };
        rank(published_rows.iter_mut().chain(ours).filter_map(|row| row.cells.get_mut(column)?.as_mut()));
    }
    Ok(ResultTable {
        title: definition.title.clone(),
        demo,
        source: published.source.clone(),
        layout: definition.layout,
        reported: definition.reported,
        protocols: definition.protocols.clone(),
        columns,
        published: published_rows,
        measured,
        left_out,
        unreadable: Vec::new(),
    })
}

fn columns(definition: &Table, suite: &Suite) -> Result<Vec<Column>> {
    let mut columns = Vec::new();
    for task in &definition.tasks {
        let task = suite.task(task)?;
        let shown = || std::iter::once(None).chain(definition.scores.iter().cloned().map(Some));
        columns.extend(definition.partitions.iter().flat_map(|partition| {
            shown().map(|score| Column {
                task: task.name.clone(),
                title: task.title.clone(),
                partition: partition.clone(),
                metric: task.metric,
                score,
            })
        }));
    }
    Ok(columns)
}

fn published_rows(columns: &[Column], published: &Published) -> Vec<Row<'static>> {
    let mut rows: Vec<Row> = Vec::new();
    for value in &published.values {
        let Some(column) = columns.iter().position(|column| column.holds(value)) else { continue };
        let found = rows.iter().position(|row| row.model == value.model && row.backbone == value.backbone);
        let row = found.unwrap_or_else(|| {
            rows.push(Row {
                model: value.model.clone(),
                backbone: value.backbone.clone(),
                origin: Origin::Published,
                qualifiers: Vec::new(),
                cells: vec![None; columns.len()],
            });
            rows.len() - 1
        });
        rows[row].cells[column] = Some(Value::published(value.value));
    }
    rows
}

/// The records that belong into the table. Those of other tables are passed over in silence, those that
/// only look as if they belonged go to `left_out`.
fn eligible<'a>(
    records: &'a [Record],
    columns: &[Column],
    definition: &Table,
    suite: &Suite,
    demo: bool,
    left_out: &mut Vec<LeftOut<'a>>,
) -> Vec<&'a Record> {
    let mut eligible = Vec::new();
    for record in records {
        let cell = &record.cell;
        let column = columns.iter().find(|c| c.task == cell.task && c.partition == cell.partition);
        let why = match column {
            None => continue,
            Some(_) if cell.suite != suite.name || !definition.protocols.contains(&cell.protocol) => continue,
            Some(_) if record.demo && !demo => Some("made from generated data"),
            Some(_) if !record.demo && demo => Some("made from real data, and this is the demo's table"),
            Some(_) if record.short && !demo => Some("of a run shortened on the command line"),
            Some(column) if record.metric != column.metric => Some("of another metric"),
            Some(_) => None,
        };
        match why {
            Some(why) => left_out.push(LeftOut { record, why }),
            None => eligible.push(record),
        }
    }
    eligible
}

/// What makes a row of its own among measured models.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Variant<'a> {
    model: &'a str,
    backbone: &'a str,
    /// By its name among the published values, where several of ours share one.
    protocol: &'a str,
    weights: &'a str,
    band_names: &'a str,
}

fn measured_rows<'a>(
    definition: &Table,
    columns: &[Column],
    records: &[&'a Record],
    published: &Published,
    demo: bool,
    left_out: &mut Vec<LeftOut<'a>>,
) -> Vec<Row<'a>> {
    let mut variants: BTreeMap<Variant<'_>, Vec<&'a Record>> = BTreeMap::new();
    let published_as = &definition.published_as;
    for record in records.iter().copied() {
        let variant = Variant {
            model: &record.cell.model,
            backbone: &record.cell.backbone,
            protocol: PublishedAs::name(&published_as.protocols, &record.cell.protocol),
            weights: &record.provenance.weights,
            band_names: &record.provenance.band_names,
        };
        variants.entry(variant).or_default().push(record);
    }
    // Our own names of the protocols by the published one.
    let mut protocols: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for own in &definition.protocols {
        protocols.entry(PublishedAs::name(&published_as.protocols, own)).or_default().push(own);
    }
    let mut rows = Vec::new();
    for (variant, records) in &variants {
        let comparable = !demo && !records.iter().any(|record| record.provenance.random_weights());
        let mut cells = Vec::new();
        for column in columns {
            let of_column: Vec<&Record> = records
                .iter()
                .copied()
                .filter(|r| r.cell.task == column.task && r.cell.partition == column.partition)
                .collect();
            let is_reference = |value: &&PublishedValue| {
                value.model == PublishedAs::name(&published_as.models, variant.model)
                    && value.backbone == PublishedAs::name(&published_as.backbones, variant.backbone)
                    && value.protocol == variant.protocol
                    && column.holds(value)
            };
            let reference = published.values.iter().find(is_reference).filter(|_| comparable);
            let reference = reference.map(|published| published.value);
            // Where the reference reports the mean over batches, so do we.
            let reported = format!("reported_{}", column.metric);
            let reported = Some(reported.as_str()).filter(|name| {
                definition.reported && of_column.iter().any(|record| record.scores.contains_key(*name))
            });
            let score = column.score.as_deref().or(reported);
            cells.push(measured_value(&of_column, score, column.score.is_none(), reference, left_out));
        }
        rows.push(Row {
            model: variant.model.to_owned(),
            backbone: variant.backbone.to_owned(),
            origin: if demo { Origin::Demo } else { Origin::Measured },
            qualifiers: qualifiers(variant, &protocols, variants.keys()),
            cells,
        });
    }
    rows
}

/// What tells the variant's row from those of the same model. `protocols` are all that the table has room for.
fn qualifiers<'v>(
    variant: &Variant<'_>,
    protocols: &BTreeMap<&str, Vec<&str>>,
    all: impl Iterator<Item = &'v Variant<'v>>,
) -> Vec<String> {
    let weights: BTreeSet<&str> = all
        .filter(|other| other.model == variant.model && other.backbone == variant.backbone)
        .map(|other| other.weights)
        .collect();
    let random = variant.weights.starts_with("random:");
    let mut qualifiers = Vec::new();
    if protocols.len() > 1 {
        qualifiers.extend(protocols.get(variant.protocol).map(|own| own.join(", ")));
    }
    if weights.len() > 1 {
        qualifiers.push(format!("weights {}", short(variant.weights)));
    } else if random {
        qualifiers.push("random weights".to_owned());
    }
    if variant.band_names != "as-named" {
        qualifiers.push(format!("bands {}", variant.band_names));
    }
    qualifiers
}

/// Enough of a hash to tell it from others.
pub(super) fn short(hash: &str) -> &str {
    if hash.starts_with("random:") { hash } else { hash.get(..12).unwrap_or(hash) }
}

/// The value of a variant's records for one cell of the table: the metric, or the further score of that name.
///
/// `of_metric` says whether the cell stands for the metric, even where a score gives its value.
fn measured_value<'a>(
    records: &[&'a Record],
    score: Option<&str>,
    of_metric: bool,
    reference: Option<f64>,
    left_out: &mut Vec<LeftOut<'a>>,
) -> Option<Value<'a>> {
    let newest = records.iter().max_by_key(|r| (r.provenance.finished, &r.fingerprint))?;
    let (mut shown, older): (Vec<&Record>, Vec<&Record>) =
        records.iter().partition(|record| record.settings == newest.settings);
    // The metric's own column tells of them.
    if of_metric {
        let why = "older, and made with other settings";
        left_out.extend(older.into_iter().map(|record| LeftOut { record, why }));
    }
    shown.sort_by_key(|record| record.cell.seed);
    let value = |record: &&Record| match score {
        None => Some(record.value),
        Some(score) => record.scores.get(score).copied(),
    };
    let values = shown.iter().map(value).collect::<Option<Vec<f64>>>()?;
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let several = values.len() > 1;
    let spread =
        several.then(|| (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt());
    Some(Value {
        value: mean,
        spread,
        interval: if several || score.is_some() { None } else { newest.interval },
        reference,
        mark: Mark::None,
        records: shown,
    })
}

/// Marks best and second best of a column.
fn rank<'v, 'a: 'v>(values: impl Iterator<Item = &'v mut Value<'a>>) {
    let mut values: Vec<&mut Value> = values.collect();
    let distinct: BTreeSet<Tenths> = values.iter().map(|value| Tenths::of(value.value)).collect();
    let mut best = distinct.into_iter().rev();
    let (first, second) = (best.next(), best.next());
    for value in &mut values {
        let shown = Some(Tenths::of(value.value));
        value.mark = match shown {
            shown if shown == first => Mark::Bold,
            shown if shown == second => Mark::Italic,
            _ => Mark::None,
        };
    }
}
