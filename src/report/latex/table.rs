//! A table for papers: rules of booktabs, the best value bold, the second best underlined.

use super::caption::how_made;
use super::escape::escape;
use crate::report::tables::markdown::origins;
use crate::report::tables::published::Mark;
use crate::report::tables::table::{Column, Origin, ResultTable, TableRow, Value, partition_title};
use crate::task::TableLayout;

/// How tables for papers are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Style {
    /// Whether intervals stand as subscripts after their values.
    pub intervals: bool,
}

/// Wider tables are shrunk to the width of the text.
const MOST_COLUMNS: usize = 6;

/// Renders the table as a `table` environment with caption and label. It needs the packages booktabs and graphicx.
///
/// `label` is the label's name after `tab:`, `keys` are the entries of the bibliography that the table draws on.
pub fn table(table: &ResultTable, label: &str, keys: &[String], style: Style) -> String {
    let rows: Vec<&TableRow> = shown(table).collect();
    let grid = match table.layout {
        TableLayout::ModelsAsRows => models_as_rows(table, &rows, style),
        TableLayout::DatasetsAsRows => datasets_as_rows(table, &rows, style),
    };
    let mut text = "% Needs \\usepackage{booktabs,graphicx}.\n".to_owned();
    if !keys.is_empty() {
        text += &format!("% Entries in references.bib: \\cite{{{}}}\n", keys.join(","));
    }
    text += "\\begin{table}[htbp]\n\\centering\n";
    text += &format!("\\caption{{{}}}\n\\label{{tab:{}}}\n\\smallskip\n", caption(table), plain(label));
    let wide = grid.columns > MOST_COLUMNS;
    text += if wide { "\\resizebox{\\linewidth}{!}{%\n" } else { "\\small\n" };
    text += &grid.text;
    text += if wide { "}\n" } else { "" };
    for note in notes(table) {
        text += &format!("\\par\\smallskip{{\\footnotesize\\raggedright {note}\\par}}\n");
    }
    text + "\\end{table}\n"
}

/// The body of a table and its number of columns.
struct Grid {
    text: String,
    columns: usize,
}

/// Iterates over the published rows, then the measured ones; a demo's table has no published rows.
fn shown<'t, 'a>(table: &'t ResultTable<'a>) -> impl Iterator<Item = &'t TableRow<'a>> {
    let published = if table.demo { &[][..] } else { &table.published[..] };
    published.iter().chain(&table.measured)
}

fn caption(table: &ResultTable) -> String {
    let mut sentences = Vec::new();
    let title = escape(&table.title);
    if table.demo {
        sentences.push(format!(
            "{title}. \\textbf{{Demo: generated data and small models. These are not benchmark results.}}"
        ));
    } else {
        sentences.push(format!("{title}. Best values are bold, second best underlined."));
        if !table.source.is_empty() {
            sentences.push(format!("Published rows: {}.", escape(table.source.trim_end_matches('.'))));
        }
    }
    sentences.push(how_made(table.measured.iter()));
    sentences.retain(|sentence| !sentence.is_empty());
    sentences.join(" ")
}

/// Explains the marks of copied values and the footnotes.
fn notes(table: &ResultTable) -> Vec<String> {
    let mut notes = Vec::new();
    if !table.demo {
        let origins = origins(table).into_iter().filter(|(mark, _)| !mark.is_empty());
        notes.extend(
            origins.map(|(mark, text)| format!("\\textsuperscript{{{}}}\\,{}.", escape(mark), escape(&text))),
        );
    }
    for (place, note) in table.footnotes.iter().enumerate() {
        notes.push(format!("\\textsuperscript{{{}}}\\,{}.", letter(place), escape(&note.text)));
    }
    notes
}

fn models_as_rows(table: &ResultTable, rows: &[&TableRow], style: Style) -> Grid {
    let columns = &table.columns;
    let mut text = format!("\\begin{{tabular}}{{ll{}}}\n\\toprule\n", "r".repeat(columns.len()));
    // One heading per task over its partitions and scores. The metric joins the task's title where the columns below it differ
    // only in the share of the training data.
    let whole = columns.iter().all(|column| column.partition == "default");
    let by_share = !whole && columns.iter().all(|column| column.score.is_none());
    let groups = groups(columns);
    let mut first = "Model & Backbone".to_owned();
    let mut rules = String::new();
    for (column, start, count) in &groups {
        let title = match by_share {
            true => format!("{}, {}", column.title, column.metric_title()),
            false => column.title.clone(),
        };
        first += &format!(" & \\multicolumn{{{count}}}{{c}}{{{}}}", escape(&title));
        let (from, to) = (start + 3, start + 2 + count);
        rules += &format!("\\cmidrule(lr){{{from}-{to}}}");
    }
    text += &format!("{first} \\\\\n{rules}\n");
    let second = columns.iter().map(|column| match (whole, by_share) {
        (true, _) => escape(&column.metric_title()),
        (false, true) => escape(&partition_title(&column.partition)),
        (false, false) => {
            escape(&format!("{}, {}", partition_title(&column.partition), column.metric_title()))
        }
    });
    text += &format!(" & & {} \\\\\n\\midrule\n", second.collect::<Vec<_>>().join(" & "));
    let mut last: Option<Origin> = None;
    for row in rows {
        if last.is_some_and(|origin| origin != row.origin) {
            text += "\\midrule\n";
        }
        last = Some(row.origin);
        let cells = row.cells.iter().map(|value| cell(value.as_ref(), style));
        let names = [escape(&row.label()), escape(&row.backbone)];
        text += &format!("{} \\\\\n", names.into_iter().chain(cells).collect::<Vec<_>>().join(" & "));
    }
    Grid { text: text + "\\bottomrule\n\\end{tabular}\n", columns: columns.len() + 2 }
}

fn datasets_as_rows(table: &ResultTable, rows: &[&TableRow], style: Style) -> Grid {
    let mut text = format!("\\begin{{tabular}}{{ll{}}}\n\\toprule\n", "r".repeat(rows.len()));
    let head = |of: &dyn Fn(&TableRow) -> String| {
        rows.iter().map(|row| escape(&of(row))).collect::<Vec<_>>().join(" & ")
    };
    text += &format!("Data set & Metric & {} \\\\\n", head(&|row| row.label()));
    text += &format!(" & & {} \\\\\n\\midrule\n", head(&|row| row.backbone.clone()));
    for (place, column) in table.columns.iter().enumerate() {
        let name = if column.partition == "default" { column.title.clone() } else { column.heading() };
        let cells = rows.iter().map(|row| cell(row.cells.get(place).and_then(Option::as_ref), style));
        let names = [escape(&name), escape(&column.metric_title())];
        text += &format!("{} \\\\\n", names.into_iter().chain(cells).collect::<Vec<_>>().join(" & "));
    }
    Grid { text: text + "\\bottomrule\n\\end{tabular}\n", columns: rows.len() + 2 }
}

/// Groups neighbouring columns of the same task: its first column, that one's place, and the number of columns.
fn groups(columns: &[Column]) -> Vec<(&Column, usize, usize)> {
    let mut groups: Vec<(&Column, usize, usize)> = Vec::new();
    for (place, column) in columns.iter().enumerate() {
        match groups.last_mut() {
            Some((first, _, count)) if first.task == column.task => *count += 1,
            _ => groups.push((column, place, 1)),
        }
    }
    groups
}

/// Formats a value as `\textbf{93.4}\textsuperscript{\dag{}}`, an interval on request as a subscript.
fn cell(value: Option<&Value>, style: Style) -> String {
    let Some(value) = value else { return "--".to_owned() };
    let number = value.rounded(value.value).to_string();
    // A hyphen is shorter than a minus sign.
    let number = number.strip_prefix('-').map_or(number.clone(), |digits| format!("$-${digits}"));
    let mut text = match value.mark {
        Mark::Bold => format!("\\textbf{{{number}}}"),
        Mark::Italic => format!("\\underline{{{number}}}"),
        Mark::None => number,
    };
    let mut marks: Vec<String> =
        Vec::from_iter(Some(escape(value.origin_mark())).filter(|mark| !mark.is_empty()));
    marks.extend(value.footnotes.iter().map(|place| letter(*place)));
    let more = value.spread.is_some() || (style.intervals && value.interval.is_some());
    if !marks.is_empty() {
        let marks = format!("\\textsuperscript{{{}}}", marks.join(","));
        // Marks at the end take no room, so that the digits of a column stand below each other.
        text += &if more { marks } else { format!("\\rlap{{{marks}}}") };
    }
    if let Some(spread) = value.spread {
        text += &format!("$\\pm${}", value.rounded(spread));
    }
    if let Some(interval) = value.interval.filter(|_| style.intervals) {
        let (low, high) = (value.rounded(interval.low), value.rounded(interval.high));
        text += &format!("\\textsubscript{{[{low}, {high}]}}");
    }
    text
}

/// Names footnotes a, b, …, z, aa, bb, ….
fn letter(place: usize) -> String {
    String::from(char::from(b'a' + (place % 26) as u8)).repeat(place / 26 + 1)
}

/// Keeps the characters that labels and file names share.
pub(super) fn plain(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '/' | '.') { c } else { '-' })
        .collect()
}
