//! The spider plot: one axis per column of a suite's tables, one line per model. This module selects its contents; [`draw()`]
//! draws them.

mod draw;

pub use self::draw::draw;
use crate::metrics::{Better, Scale};
use crate::model::Coverage;
use crate::record::{Aspect, SettingKey, short};
use crate::report::tables::table::{Column, Origin, ResultTable, SETTING, TableRow};
use crate::score::decision::first_best;
use crate::task::Spider;
use crate::{Error, Result};

/// The contents of the plot.
#[derive(Debug, Clone)]
pub struct Chart {
    /// The title.
    pub title: String,
    /// Whether the measured values are of generated data.
    pub demo: bool,
    /// At least three axes, clockwise from the top.
    pub axes: Vec<Axis>,
    /// The models.
    pub series: Vec<Series>,
    /// Notes printed below the plot.
    pub notes: Vec<String>,
}

/// One column of a table.
#[derive(Debug, Clone)]
pub struct Axis {
    /// The table's `file`.
    pub table: String,
    /// The task's name.
    pub task: String,
    /// The task's title, as in the tables: `m-EuroSat`.
    pub title: String,
    /// The metric, with a label that distinguishes axes of the same task: `k-NN, F1`.
    pub subtitle: String,
    /// The scale of its values. If lower is better, the axis is reversed and marked: outwards is better on every axis.
    pub scale: Scale,
}

/// One model.
#[derive(Debug, Clone)]
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// The model's name, by which it is chosen, with or without its backbone.
    pub model: String,
    /// The backbone's name; empty if the line combines several sizes.
    pub backbone: String,
    /// Where the values come from.
    pub origin: Origin,
    /// One value per axis, on the axis's scale.
    pub values: Vec<Option<f64>>,
}

/// The user's choice of models and axes; empty lists stand for the default.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// Models, such as `TerraFM` or `TerraFM ViT-Base`.
    pub models: Vec<String>,
    /// Axes, such as `knn`, `m-eurosat` or `knn/m-eurosat`.
    pub axes: Vec<String>,
}

/// With fewer axes, a plot has no area.
pub const FEWEST_AXES: usize = 3;

/// Marks the metric of a reversed axis.
const TURNED: &str = "↓";

/// Greatest number of measured rows drawn by default; more would be hard to follow.
const MOST_MEASURED: usize = 3;

/// Greatest number of lines, even if more were chosen.
const MOST_SERIES: usize = 12;

/// Selects the contents of the plot from these tables, each given with its `file`; `None` if no model has a value on the axes.
///
/// The published rows of a model form one line, with the better size on each axis; a model chosen with its backbone shows that
/// size alone. Each measured row is a line of its own. A demo's plot shows the demo's rows only.
///
/// # Errors
/// If fewer than three axes remain, or there are too many models to tell apart. Unknown names in the choice are ignored;
/// [`unknown`] finds them.
pub fn chart(spider: &Spider, tables: &[(&str, &ResultTable)], choice: &Choice) -> Result<Option<Chart>> {
    let demo = tables.iter().any(|(_, table)| table.demo);
    let columns = chosen_axes(&all_axes(spider, tables), choice);
    if columns.is_empty() && !choice.axes.is_empty() {
        return Ok(None);
    }
    if columns.len() < FEWEST_AXES {
        return Err(Error::request(format!(
            "a spider plot needs at least {FEWEST_AXES} axes, got {}",
            columns.len()
        ))
        .help("choose more with --axes"));
    }
    let mut notes = Vec::new();
    let published = if demo { Vec::new() } else { published(spider, &columns, choice, &mut notes) };
    let measured = measured(tables, &columns, choice, &mut notes);
    let series: Vec<Series> = published.into_iter().chain(measured).collect();
    if series.len() > MOST_SERIES {
        return Err(Error::request(format!(
            "a spider plot shows at most {MOST_SERIES} models, got {}",
            series.len()
        ))
        .help("choose fewer with --models, with their backbones"));
    }
    if series.is_empty() {
        return Ok(None);
    }
    let axes = columns.into_iter().map(|found| found.axis).collect();
    Ok(Some(Chart { title: spider.title.clone(), demo, axes, series, notes }))
}

/// Returns the names in the choice that match no model or axis of these tables.
pub fn unknown<'c>(spider: &Spider, tables: &[(&str, &ResultTable)], choice: &'c Choice) -> Vec<&'c str> {
    let axes = all_axes(spider, tables);
    let rows = || tables.iter().flat_map(|(_, table)| table.published.iter().chain(&table.measured));
    let no_axis = choice.axes.iter().filter(|name| !axes.iter().any(|found| found.axis.is(name)));
    let no_model =
        choice.models.iter().filter(|name| !rows().any(|row| named(name, &row.model, &row.backbone)));
    no_axis.chain(no_model).map(String::as_str).collect()
}

/// An axis and the table column that holds its values.
struct Found<'t, 'a> {
    axis: Axis,
    table: &'t ResultTable<'a>,
    column: usize,
}

impl Axis {
    fn is(&self, name: &str) -> bool {
        name == self.table || name == self.task || name.split_once('/') == Some((&self.table, &self.task))
    }
}

fn all_axes<'t, 'a>(spider: &Spider, tables: &[(&str, &'t ResultTable<'a>)]) -> Vec<Found<'t, 'a>> {
    let mut found = Vec::new();
    for axes in &spider.axes {
        for (file, table) in tables.iter().filter(|(file, _)| *file == axes.table) {
            let columns = table.columns.iter().enumerate();
            let of_metric =
                columns.filter(|(_, column)| column.partition == axes.partition && column.score.is_none());
            found.extend(of_metric.map(|(i, column)| Found {
                axis: Axis {
                    table: (*file).to_owned(),
                    task: column.task.clone(),
                    title: column.title.clone(),
                    subtitle: subtitle(&axes.label, column),
                    scale: column.scale(),
                },
                table,
                column: i,
            }));
        }
    }
    found
}

fn subtitle(label: &str, column: &Column) -> String {
    let turned = if column.scale().better == Better::Lower { format!(" {TURNED}") } else { String::new() };
    let metric = column.metric_title();
    if label.is_empty() { format!("{metric}{turned}") } else { format!("{label}, {metric}{turned}") }
}

/// Returns the chosen axes in the order of the choice, or all axes if none were chosen.
fn chosen_axes<'t, 'a>(all: &[Found<'t, 'a>], choice: &Choice) -> Vec<Found<'t, 'a>> {
    let mut order: Vec<usize> = Vec::new();
    for name in &choice.axes {
        for (i, _) in all.iter().enumerate().filter(|(_, found)| found.axis.is(name)) {
            if !order.contains(&i) {
                order.push(i);
            }
        }
    }
    if choice.axes.is_empty() {
        order = (0..all.len()).collect();
    }
    let copy = |i: usize| {
        let found = &all[i];
        Found { axis: found.axis.clone(), table: found.table, column: found.column }
    };
    order.into_iter().map(copy).collect()
}

/// Returns whether `name` denotes a model. Only letters, digits and `+` count, because the source has both `Prithvi-2.0` and
/// `Prithvi 2.0`.
fn named(name: &str, model: &str, backbone: &str) -> bool {
    same(name, model) || same(name, &format!("{model} {backbone}"))
}

fn same(a: &str, b: &str) -> bool {
    // `SatMAE++` and `SatMAE` are different models.
    let plain = |name: &str| -> String {
        name.chars().filter(|c| c.is_alphanumeric() || *c == '+').flat_map(char::to_lowercase).collect()
    };
    plain(a) == plain(b)
}

fn published(spider: &Spider, columns: &[Found], choice: &Choice, notes: &mut Vec<String>) -> Vec<Series> {
    let names = if choice.models.is_empty() { &spider.models } else { &choice.models };
    let mut all: Vec<Series> = Vec::new();
    for name in names {
        let rows_of = |found: &Found| -> Vec<(String, String, Option<f64>)> {
            let rows = found.table.published.iter().filter(|row| named(name, &row.model, &row.backbone));
            rows.map(|row| (row.model.clone(), row.backbone.clone(), value(row, found.column))).collect()
        };
        let best = |found: &Found| {
            let values = rows_of(found).into_iter().filter_map(|(_, _, value)| value);
            let values: Vec<f64> = values.collect();
            first_best(found.axis.scale.better, values.iter().copied()).map(|place| values[place])
        };
        let values: Vec<Option<f64>> = columns.iter().map(best).collect();
        let Some((model, _, _)) = columns.iter().find_map(|found| rows_of(found).into_iter().next()) else {
            continue;
        };
        if values.iter().all(Option::is_none) {
            continue;
        }
        let mut backbones: Vec<String> =
            columns.iter().flat_map(&rows_of).map(|(_, backbone, _)| backbone).collect();
        backbones.sort();
        backbones.dedup();
        let with_backbone = !same(name, &model);
        let backbone = if with_backbone { backbones.concat() } else { String::new() };
        let name = match with_backbone {
            true => format!("{model} {backbone}"),
            // Tables may spell a name in two ways; use the plot's own spelling.
            false if choice.models.is_empty() => name.clone(),
            false => model.clone(),
        };
        // The user may choose the same model twice.
        if all.iter().any(|other| other.name == name) {
            continue;
        }
        if !with_backbone && backbones.len() > 1 {
            notes.push(format!("{model}: the best of {} on each axis.", backbones.join(", ")));
        }
        all.push(Series { name, model, backbone, origin: Origin::Published, values });
    }
    all
}

fn value(row: &TableRow, column: usize) -> Option<f64> {
    let value = row.cells.get(column)?.as_ref()?;
    (!value.is_of_other_samples()).then_some(value.value)
}

/// Identifies a measured model across tables: its name, its backbone, and the part of its setting that is independent of task
/// and protocol.
type Identity = (String, String, SettingKey);

fn identity(row: &TableRow) -> Option<Identity> {
    let of_task = |aspect: &Aspect| {
        matches!(
            aspect,
            Aspect::Imputation | Aspect::Matching | Aspect::InputSize | Aspect::Metadata | Aspect::Length
        )
    };
    let setting = row.setting.clone()?.without(|aspect| of_task(aspect) || aspect.is_protocol());
    Some((row.model.clone(), row.backbone.clone(), setting.of_any_protocol()))
}

/// Returns what distinguishes `identity` from the other measured models.
fn told(identity: &Identity, all: &[Identity]) -> Vec<String> {
    let (model, backbone, setting) = identity;
    let same = || all.iter().filter(|other| (&other.0, &other.1) == (model, backbone)).map(|other| &other.2);
    let get = |aspect| setting.get(&aspect).unwrap_or_default();
    let mut told = Vec::new();
    if get(Aspect::Coverage) != Coverage::Whole.to_string() {
        told.push(get(Aspect::Coverage).to_owned());
    }
    if same().any(|other| other.get(&Aspect::Weights) != setting.get(&Aspect::Weights)) {
        told.push(short(get(Aspect::Weights)).to_owned());
    }
    if get(Aspect::Bands) != "as-named" {
        told.push(format!("bands {}", get(Aspect::Bands)));
    }
    let named = |aspect: &Aspect| matches!(aspect, Aspect::Coverage | Aspect::Weights | Aspect::Bands);
    let others: Vec<SettingKey> = same().map(|other| other.clone().without(named)).collect();
    let rest = setting.clone().without(named).among(&others);
    told.extend(Some(rest).filter(|rest| !rest.is_empty()));
    told
}

/// Returns the protocol behind a row's value.
fn protocol<'a>(row: &TableRow<'a>, column: usize) -> Option<&'a str> {
    Some(&row.cells.get(column)?.as_ref()?.records.first()?.cell.protocol)
}

/// Returns whether the value's setting differs from the rest of its row.
fn is_otherwise(table: &ResultTable, row: &TableRow, column: usize) -> bool {
    let value = row.cells.get(column).and_then(Option::as_ref);
    let of_setting = |place: &usize| table.footnotes.get(*place).is_some_and(|note| note.kind == SETTING);
    value.is_some_and(|value| value.footnotes.iter().any(of_setting))
}

fn measured(
    tables: &[(&str, &ResultTable)],
    columns: &[Found],
    choice: &Choice,
    notes: &mut Vec<String>,
) -> Vec<Series> {
    let mut identities: Vec<Identity> =
        tables.iter().flat_map(|(_, table)| &table.measured).filter_map(identity).collect();
    identities.sort();
    identities.dedup();
    let mut all = Vec::new();
    for identity_of in &identities {
        let (model, backbone, _) = identity_of;
        if !choice.models.is_empty() && !choice.models.iter().any(|name| named(name, model, backbone)) {
            continue;
        }
        let mut by_protocol: Vec<(&str, Vec<String>)> = Vec::new();
        let mut otherwise: Vec<String> = Vec::new();
        let mut values = Vec::new();
        for found in columns {
            let rows =
                || found.table.measured.iter().filter(|row| identity(row).as_ref() == Some(identity_of));
            // A table of several protocols lists the published one first.
            let order = |row: &&TableRow| {
                let name = protocol(row, found.column);
                found.table.protocols.iter().position(|known| Some(known.as_str()) == name)
            };
            let row = rows().filter(|row| value(row, found.column).is_some()).min_by_key(order);
            values.push(row.and_then(|row| value(row, found.column)));
            if row.is_some_and(|row| is_otherwise(found.table, row, found.column)) {
                otherwise.push(found.axis.title.clone());
            }
            let Some(name) = row.and_then(|row| protocol(row, found.column)) else { continue };
            if found.table.protocols.len() > 1 {
                match by_protocol.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, titles)) => titles.push(found.axis.title.clone()),
                    None => by_protocol.push((name, vec![found.axis.title.clone()])),
                }
            }
        }
        if values.iter().all(Option::is_none) {
            continue;
        }
        let qualifiers = told(identity_of, &identities);
        let origin =
            if columns.iter().any(|found| found.table.demo) { Origin::Demo } else { Origin::Measured };
        let kind = if origin == Origin::Demo { "demo" } else { "measured" };
        let words: Vec<&str> = std::iter::once(kind).chain(qualifiers.iter().map(String::as_str)).collect();
        let name = format!("{model} {backbone} ({})", words.join(", "));
        for (protocol, titles) in by_protocol {
            notes.push(format!("{name}: {} by {protocol}.", titles.join(", ")));
        }
        if !otherwise.is_empty() {
            notes.push(format!("{name}: {} with a different setting, see the table.", otherwise.join(", ")));
        }
        all.push(Series { name, model: model.to_owned(), backbone: backbone.to_owned(), origin, values });
    }
    if choice.models.is_empty() && all.len() > MOST_MEASURED {
        // Keep the models with the most values, and drop the notes of the others.
        all.sort_by_key(|series| std::cmp::Reverse(series.values.iter().flatten().count()));
        let dropped = all.split_off(MOST_MEASURED);
        notes.retain(|note| !dropped.iter().any(|series| note.starts_with(&format!("{}:", series.name))));
        notes.push(format!("{} more measured models are not drawn; choose with --models.", dropped.len()));
    }
    all
}
