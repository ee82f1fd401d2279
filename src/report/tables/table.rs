//! A table of a paper with measured rows added: the contents of its cells. [`super::markdown`] and [`super::csv`] render it.

use std::collections::{BTreeMap, BTreeSet};

use super::baseline;
use super::published::{Mark, Published, PublishedValue, ValueOrigin};
pub use super::rounded::Rounded;
pub use super::rows::LeftOut;
use super::rows::{CellRecords, SettingRow, differing, rows};
use crate::Result;
use crate::audit::Check;
use crate::features::vectors::UNKNOWN;
use crate::metrics::{Better, Scale};
use crate::model::Coverage;
use crate::record::{Aspect, Interval, Note, Record, SettingKey, short};
use crate::task::{Metric, PublishedAs, Suite, Table, TableLayout};

/// A filled table.
#[derive(Debug, Clone)]
pub struct ResultTable<'a> {
    /// The title.
    pub title: String,
    /// Whether the measured rows are of demo records: generated data, not comparable.
    pub demo: bool,
    /// Where the published values come from.
    pub source: String,
    /// The layout in Markdown.
    pub layout: TableLayout,
    /// Whether values are means over batches if records have them.
    pub reported: bool,
    /// The protocols of measured rows, the published one first.
    pub protocols: Vec<String>,
    /// The columns.
    pub columns: Vec<Column>,
    /// Published rows, in the order of the source.
    pub published: Vec<TableRow<'a>>,
    /// Measured rows, sorted by model, backbone and weights; the rows of one model by completeness.
    pub measured: Vec<TableRow<'a>>,
    /// Footnotes of measured values; see [`Value::footnotes`].
    pub footnotes: Vec<Note>,
    /// Records that belong to the table but are not shown.
    pub left_out: Vec<LeftOut<'a>>,
    /// Names of files that cannot be used, each with the reason; filled in by the reader of the records.
    pub unreadable: Vec<String>,
}

/// The kind of a footnote about a value whose setting differs from the rest of its row.
pub const SETTING: &str = "setting";

/// Channels of rows with every band, which need no mention.
pub(super) const ALL: &str = "all";

/// A task at one partition, with its metric or a further score.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// The task's name.
    pub task: String,
    /// The task's title, as in the tables: `m-EuroSat`.
    pub title: String,
    /// The partition's name.
    pub partition: String,
    /// The metric of the task that the table reports.
    pub metric: Metric,
    /// Unit of the task's values, such as `Mg/ha`.
    pub unit: Option<String>,
    /// The further score shown instead of the metric, such as `iou_landslide`.
    pub score: Option<String>,
}

/// A model's values.
#[derive(Debug, Clone)]
pub struct TableRow<'a> {
    /// The model's name.
    pub model: String,
    /// The backbone's name; may be empty.
    pub backbone: String,
    /// Where the values come from.
    pub origin: Origin,
    /// What distinguishes the row from others of the same model, such as `random weights`.
    pub qualifiers: Vec<String>,
    /// The setting of a measured row; values with a different setting have a footnote.
    pub setting: Option<SettingKey>,
    /// Whether the weights cover only part of the model; such rows are not compared and not ranked.
    pub is_partial: bool,
    /// One cell per column.
    pub cells: Vec<Option<Value<'a>>>,
}

/// Where a row's values come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A paper.
    Published,
    /// Records of real data.
    Measured,
    /// Measured on generated data.
    Demo,
}

/// The contents of a cell.
#[derive(Debug, Clone)]
pub struct Value<'a> {
    /// The value on the column's scale; the mean if there are several seeds.
    pub value: f64,
    /// The column's scale.
    pub scale: Scale,
    /// Standard deviation (n - 1) over several seeds, if their values differ.
    pub spread: Option<f64>,
    /// Confidence interval of a single seed, or of the lowest of several seeds with the same value.
    pub interval: Option<Interval>,
    /// The published value to compare with.
    pub reference: Option<f64>,
    /// Bold for the best value of the column, italic for the second best.
    pub mark: Mark,
    /// Indices into [`ResultTable::footnotes`].
    pub footnotes: Vec<usize>,
    /// The records behind a measured value, sorted by seed.
    pub records: Vec<&'a Record>,
    /// Who measured a published value and where it was printed; `None` for our own measurements.
    pub printed: Option<Printed>,
}

/// Where a published value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Printed {
    /// Who measured it.
    pub origin: ValueOrigin,
    /// The paper or page that printed it.
    pub place: String,
}

impl Value<'_> {
    /// Whether it was measured on other samples than the published values, as its size shows: such a value is not compared, not
    /// ranked and not drawn beside them.
    pub fn is_of_other_samples(&self) -> bool {
        let kind = Check::PartitionSize.to_string();
        self.records.iter().any(|record| !record.demo && record.notes.iter().any(|note| note.kind == kind))
    }

    fn published(published: &PublishedValue, scale: Scale) -> Self {
        let printed = Printed { origin: published.origin.clone(), place: published.printed.clone() };
        Value {
            printed: Some(printed),
            value: published.value,
            scale,
            spread: None,
            interval: None,
            reference: None,
            mark: Mark::None,
            footnotes: Vec::new(),
            records: Vec::new(),
        }
    }

    /// Returns the mark of a value that was copied, rerun or of unknown origin; otherwise nothing.
    pub fn origin_mark(&self) -> &'static str {
        self.printed.as_ref().map_or("", |printed| printed.origin.mark())
    }

    /// Rounds a number of the column as tables show it.
    pub fn rounded(&self, number: f64) -> Rounded {
        Rounded::of(number, self.scale)
    }

    /// Returns whether the published value lies in the interval, by the rounded numbers.
    pub fn inside(&self) -> Option<bool> {
        let (interval, published) = (self.interval?, self.rounded(self.reference?));
        Some((self.rounded(interval.low)..=self.rounded(interval.high)).contains(&published))
    }

    /// Returns the rounded value minus the rounded published value.
    pub fn difference(&self) -> Option<Rounded> {
        Some(self.rounded(self.value) - self.rounded(self.reference?))
    }
}

impl TableRow<'_> {
    /// Returns the model's name with origin and qualifiers in brackets: `TerraFM (measured, random weights)`.
    pub fn label(&self) -> String {
        self.with_notes(match self.origin {
            Origin::Published => None,
            Origin::Measured => Some("measured"),
            Origin::Demo => Some("demo"),
        })
    }

    /// Returns the model's name with the qualifiers only: `TerraFM (random weights)`.
    pub fn name(&self) -> String {
        self.with_notes(None)
    }

    /// Like [`TableRow::label`], with the backbone after the model's name: `TerraFM ViT-Base (measured)`.
    pub fn full_label(&self) -> String {
        self.with_backbone().label()
    }

    /// Like [`TableRow::name`], with the backbone after the model's name: `TerraFM ViT-Base (random weights)`.
    pub fn full_name(&self) -> String {
        self.with_backbone().name()
    }

    fn with_backbone(&self) -> TableRow<'static> {
        let model = format!("{} {}", self.model, self.backbone).trim_end().to_owned();
        TableRow {
            model,
            backbone: String::new(),
            origin: self.origin,
            qualifiers: self.qualifiers.clone(),
            setting: None,
            is_partial: self.is_partial,
            cells: Vec::new(),
        }
    }

    fn with_notes(&self, origin: Option<&str>) -> String {
        let notes: Vec<&str> = origin.into_iter().chain(self.qualifiers.iter().map(String::as_str)).collect();
        if notes.is_empty() { self.model.clone() } else { format!("{} ({})", self.model, notes.join(", ")) }
    }
}

/// Returns the heading of each column. It includes the share of the training data unless all columns use all of it.
pub fn headings(columns: &[Column]) -> Vec<String> {
    let whole = columns.iter().all(|column| column.partition == "default");
    let name = |column: &Column| if whole { column.title.clone() } else { column.heading() };
    columns.iter().map(name).collect()
}

impl Column {
    /// Returns whether the published value belongs to this column.
    fn holds(&self, value: &PublishedValue) -> bool {
        self.task == value.dataset && self.partition == value.partition && self.metric_name() == value.metric
    }

    /// Returns a heading such as `m-EuroSat (1 %)`.
    pub fn heading(&self) -> String {
        format!("{} ({})", self.title, partition_title(&self.partition))
    }

    /// Returns the name of the metric or score in records and published values.
    pub fn metric_name(&self) -> String {
        self.score.clone().unwrap_or_else(|| self.metric.to_string())
    }

    /// Returns how the column's values are compared and printed.
    pub fn scale(&self) -> Scale {
        match &self.score {
            Some(score) => Scale::of_score(score, self.metric),
            None => self.metric.about().scale,
        }
    }

    /// Returns the metric as papers call it, with its unit if that is not percent: `mIoU`, `RMSE in Mg/ha`.
    pub fn metric_title(&self) -> String {
        let heading = |metric: Metric| metric.about().heading(self.unit.as_deref());
        match &self.score {
            None => heading(self.metric),
            Some(score) => match Metric::ALL.into_iter().find(|metric| metric.about().name == score) {
                Some(metric) => heading(metric),
                None => match score.split_once('_') {
                    Some(("iou", class)) => format!("IoU ({class})"),
                    Some(("recall", at)) => match at.strip_prefix("at_") {
                        Some(k) => format!("recall at {k}"),
                        None => score.clone(),
                    },
                    _ => score.clone(),
                },
            },
        }
    }
}

/// Formats a partition as its share of the training samples: `default` as `100 %`, `0.01x_train` as `1 %`; other names stay.
pub(crate) fn partition_title(partition: &str) -> String {
    match share(partition) {
        // Rounded, because 100 times a decimal fraction is rarely a whole number.
        Some(share) => crate::report::percent(share),
        None => partition.to_owned(),
    }
}

/// Returns the share of the training samples, above 0 and up to 1, from a partition's name; `None` if the name has none.
pub fn share(partition: &str) -> Option<f64> {
    if partition == "default" {
        return Some(1.0);
    }
    let share = partition.strip_suffix("x_train")?.parse::<f64>().ok()?;
    (share > 0.0 && share <= 1.0).then_some(share)
}

/// Fills a table: the published rows unchanged, then one row per model, protocol, weights and band selection (by name or by
/// content) among the records, and one more per further setting in which a column was measured.
///
/// - `demo` selects the records: those made from generated data, or the others. The two never mix: demo rows have no
///   difference from published values and are not ranked. Shortened runs appear only in a demo's table.
/// - A row is one setting. A value with a different setting, such as that of a task with other bands, has a footnote; so does
///   one whose records carry notes. If only code, data or configuration changed, the newest run counts, with one record per
///   seed.
/// - A row with weights that cover only part of the model is labelled accordingly, has no difference and is not ranked.
/// - A value of a partition whose size is not the official one has no difference and is not ranked.
/// - The difference is from the published value of the same model, backbone and protocol, under their published names in the
///   definition. A model with random weights is not the published model, so it has no difference.
/// - A value below plain pixel statistics, measured or else published in the same table, has a footnote.
/// - The best rounded value of a column (the lowest error, else the highest score) is bold and the second best italic;
///   equal values share their mark. Published and measured rows rank together.
///
/// # Errors
/// If the definition names a task that the suite lacks.
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
    let mut footnotes = Vec::new();
    let mut measured =
        measured_rows(definition, &columns, &eligible, published, demo, &mut left_out, &mut footnotes);
    if !demo {
        baseline::mark_rows(&mut published_rows, &mut measured, &mut footnotes);
    }
    for (column, of) in columns.iter().enumerate() {
        let ours = if demo { &mut [][..] } else { &mut measured[..] };
        let ranked = published_rows.iter_mut().chain(ours).filter(|row| !row.is_partial);
        let values = ranked.filter_map(|row| row.cells.get_mut(column)?.as_mut());
        rank(of.scale(), values.filter(|value| !value.is_of_other_samples()));
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
        footnotes,
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
                metric: definition.metrics.get(&task.name).copied().unwrap_or(task.metric),
                unit: task.unit.clone(),
                score,
            })
        }));
    }
    Ok(columns)
}

fn published_rows(columns: &[Column], published: &Published) -> Vec<TableRow<'static>> {
    let mut rows: Vec<TableRow> = Vec::new();
    for value in &published.values {
        let Some(column) = columns.iter().position(|column| column.holds(value)) else { continue };
        let channels = Some(value.channels.clone()).filter(|channels| !["", ALL].contains(&&**channels));
        let qualifiers: Vec<String> = channels.into_iter().collect();
        let is_same = |row: &TableRow| {
            row.model == value.model && row.backbone == value.backbone && row.qualifiers == qualifiers
        };
        let found = rows.iter().position(is_same);
        let row = found.unwrap_or_else(|| {
            rows.push(TableRow {
                model: value.model.clone(),
                backbone: value.backbone.clone(),
                origin: Origin::Published,
                qualifiers,
                setting: None,
                is_partial: false,
                cells: vec![None; columns.len()],
            });
            rows.len() - 1
        });
        rows[row].cells[column] = Some(Value::published(value, columns[column].scale()));
    }
    rows
}

/// Whether a published value was made from the bands of this setting.
fn has_channels(value: &PublishedValue, setting: &SettingKey) -> bool {
    let channels = setting.get(&Aspect::Channels).unwrap_or(ALL);
    value.channels.is_empty() || value.channels == channels
}

/// Selects the records that belong in the table. Skips those of other tables, and adds those that match a cell but must not be
/// shown to `left_out`.
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
            Some(_) if !record.demo && demo => Some("made from real data, while this is the demo's table"),
            Some(_) if record.short && !demo => Some("from a run shortened on the command line"),
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

/// What separates measured rows, apart from their setting.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Variant<'a> {
    model: &'a str,
    backbone: &'a str,
    /// The published name, which several of our protocols may share.
    protocol: &'a str,
    /// [`crate::record::Provenance::weights_setting`].
    weights: String,
    /// Whole, partial or random; for old records derived from the weights' id.
    coverage: Coverage,
    band_names: &'a str,
    /// The contributor's name; `None` for own records.
    origin: Option<&'a str>,
}

fn measured_rows<'a>(
    definition: &Table,
    columns: &[Column],
    records: &[&'a Record],
    published: &Published,
    demo: bool,
    left_out: &mut Vec<LeftOut<'a>>,
    footnotes: &mut Vec<Note>,
) -> Vec<TableRow<'a>> {
    let mut variants: BTreeMap<Variant<'_>, Vec<&'a Record>> = BTreeMap::new();
    let published_as = &definition.published_as;
    for record in records.iter().copied() {
        let variant = Variant {
            model: &record.cell.model,
            backbone: &record.cell.backbone,
            protocol: PublishedAs::name(&published_as.protocols, &record.cell.protocol),
            weights: record.provenance.weights_setting(),
            coverage: record.provenance.coverage(),
            band_names: &record.provenance.band_names,
            origin: record.provenance.origin.as_deref(),
        };
        variants.entry(variant).or_default().push(record);
    }
    let mut all = Vec::new();
    for (variant, records) in &variants {
        // Our protocols by their published name.
        let is_used = |name: &str| records.iter().any(|record| record.cell.protocol == name);
        let mut protocols: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for own in definition.protocols.iter().filter(|own| definition.names(own, is_used)) {
            protocols.entry(PublishedAs::name(&published_as.protocols, own)).or_default().push(own);
        }
        let comparable = !demo && variant.coverage == Coverage::Whole;
        let setting_rows = rows(records, left_out);
        for (place, row) in setting_rows.iter().enumerate() {
            let mut cells = Vec::new();
            for column in columns {
                let Some(of_column) = row.cells.get(&(column.task.as_str(), column.partition.as_str()))
                else {
                    cells.push(None);
                    continue;
                };
                let is_reference = |value: &&PublishedValue| {
                    value.model == PublishedAs::name(&published_as.models, variant.model)
                        && value.backbone == published_as.backbone(variant.model, variant.backbone)
                        && value.protocol == variant.protocol
                        && has_channels(value, &of_column.setting)
                        && column.holds(value)
                };
                let reference = published.values.iter().find(is_reference).filter(|_| comparable);
                let reference = reference.map(|published| published.value);
                // Show the mean over batches if the reference reports that.
                let reported = format!("reported_{}", column.metric);
                let reported = Some(reported.as_str()).filter(|name| {
                    let has = |record: &&Record| record.scores.contains_key(*name);
                    definition.reported && of_column.records.iter().any(has)
                });
                let score = column.score.as_deref().or(reported);
                let footnotes = cell_footnotes(&row.setting, of_column, footnotes);
                cells.push(measured_value(&of_column.records, column.scale(), score, reference, footnotes));
            }
            all.push(TableRow {
                model: variant.model.to_owned(),
                backbone: variant.backbone.to_owned(),
                origin: if demo { Origin::Demo } else { Origin::Measured },
                qualifiers: qualifiers(variant, &protocols, variants.keys(), &setting_rows, place),
                setting: Some(row.setting.clone()),
                is_partial: matches!(variant.coverage, Coverage::Partial { .. }),
                cells,
            });
        }
    }
    all
}

/// Returns the indices of a cell's footnotes: how its setting differs from the row's, and the notes of its records. Reuses
/// existing footnotes with the same text.
fn cell_footnotes(row: &SettingKey, cell: &CellRecords, footnotes: &mut Vec<Note>) -> Vec<usize> {
    let mut notes = Vec::new();
    let differing = differing(row, &cell.setting);
    if !differing.is_empty() {
        let text =
            format!("{}; the rest of the row: {}", cell.setting.tell(&differing), row.tell(&differing));
        notes.push(Note::new(SETTING, text));
    }
    notes.extend(cell.records.iter().flat_map(|record| &record.notes).cloned());
    let mut places: Vec<usize> = Vec::new();
    for note in notes {
        let place = footnotes.iter().position(|known| *known == note).unwrap_or_else(|| {
            footnotes.push(note);
            footnotes.len() - 1
        });
        if !places.contains(&place) {
            places.push(place);
        }
    }
    places
}

/// Returns what distinguishes a row from others of the same model: its variant from the other variants, and its setting (the
/// one at `place`) from the variant's other settings. `protocols` are all protocols of the table.
fn qualifiers<'v>(
    variant: &Variant<'_>,
    protocols: &BTreeMap<&str, Vec<&str>>,
    all: impl Iterator<Item = &'v Variant<'v>>,
    settings: &[SettingRow],
    place: usize,
) -> Vec<String> {
    let weights: BTreeSet<&str> = all
        .filter(|other| other.model == variant.model && other.backbone == variant.backbone)
        .map(|other| other.weights.as_str())
        .collect();
    let mut qualifiers: Vec<String> =
        variant.origin.iter().map(|name| format!("contributed by {name}")).collect();
    if protocols.len() > 1 {
        qualifiers.extend(protocols.get(variant.protocol).map(|own| own.join(", ")));
    }
    if weights.len() > 1 {
        qualifiers.push(format!("weights {}", short(&variant.weights)));
    }
    if variant.band_names == UNKNOWN {
        qualifiers.push("features from files".to_owned());
    }
    match variant.coverage {
        Coverage::Random if weights.len() > 1 => {} // `weights random:0` says so.
        Coverage::Random | Coverage::Partial { .. } => qualifiers.push(variant.coverage.to_string()),
        Coverage::Whole => {}
    }
    if !["as-named", UNKNOWN].contains(&variant.band_names) {
        qualifiers.push(format!("bands {}", variant.band_names));
    }
    if let Some(row) = settings.get(place) {
        let others = settings.iter().enumerate().filter(|(other, _)| *other != place);
        let setting = row.setting.among(others.map(|(_, row)| &row.setting));
        qualifiers.extend(Some(setting).filter(|setting| !setting.is_empty()));
    }
    qualifiers
}

/// Computes the value of a cell from its records: the metric, or the further score with the given name.
fn measured_value<'a>(
    records: &[&'a Record],
    scale: Scale,
    score: Option<&str>,
    reference: Option<f64>,
    footnotes: Vec<usize>,
) -> Option<Value<'a>> {
    // Which record was written last depends on who computed it.
    let first = records.iter().min_by_key(|record| (record.cell.seed, &record.fingerprint))?;
    let value = |record: &&Record| match score {
        None => Some(record.value),
        Some(score) => record.scores.get(score).copied(),
    };
    let values = records.iter().map(value).collect::<Option<Vec<f64>>>()?;
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    // Seeds that decide nothing, as of k-NN, say nothing about the spread.
    let several = values.iter().any(|value| Some(value) != values.first());
    let spread =
        several.then(|| (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt());
    let mut value = Value {
        value: mean,
        scale,
        spread,
        interval: if several || score.is_some() { None } else { first.interval },
        reference,
        mark: Mark::None,
        footnotes,
        records: records.to_vec(),
        printed: None,
    };
    if value.is_of_other_samples() {
        value.reference = None;
    }
    Some(value)
}

/// Marks the best and second best values of a column.
fn rank<'v, 'a: 'v>(scale: Scale, values: impl Iterator<Item = &'v mut Value<'a>>) {
    let mut values: Vec<&mut Value> = values.collect();
    let distinct: BTreeSet<Rounded> = values.iter().map(|value| Rounded::of(value.value, scale)).collect();
    let mut distinct = distinct.into_iter();
    let mut best = || match scale.better {
        Better::Higher => distinct.next_back(),
        Better::Lower => distinct.next(),
    };
    let (first, second) = (best(), best());
    for value in &mut values {
        let shown = Some(Rounded::of(value.value, scale));
        value.mark = match shown {
            shown if shown == first => Mark::Bold,
            shown if shown == second => Mark::Italic,
            _ => Mark::None,
        };
    }
}
