//! The whole report: tables and pictures of every suite, an index, and all records as one file.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::aggregate;
use super::capabilities;
use super::chapter::{Chapter, Figure};
use super::checklist::{Checklist, checklist};
use super::cost::Costs;
use super::gather::{Section, gather};
use super::latex::bibliography::{Bibliography, Used};
use super::latex::{self, Style};
use super::mistaken_bands::{self, mistaken_bands};
use super::pictures::aggregate as aggregate_picture;
use super::pictures::spider::{self, Chart, Choice};
use super::pictures::{cost, differences, profile, ranks, shares};
use super::ranking::{self, rankings};
use super::tables::published;
use super::tables::table::{ResultTable, fill, share};
use super::tables::text::escape;
use super::task_figures::TaskPredictions;
use super::{Written, add_unreadable, csv, fill_all, html, markdown, names, views};
use crate::canvas::{pdf, png, svg};
use crate::files::write_atomically;
use crate::formats::parquet;
use crate::home::Home;
use crate::record::contribution::Contribution;
use crate::record::{Record, Unreadable, frame};
use crate::task::{Spider, SpiderAxes, Table};
use crate::{Error, Result};

/// PNG pixels per unit of a picture: sharp on paper (190 dpi at 17 cm) and on dense screens.
const SCALE: f64 = 1.5;

/// Writes the report of all usable records below `results` into `out`:
///
/// - `<suite>/<table>.md` and `.csv` like `bench`, and for papers as `.tex`; the pictures as `<suite>/<picture>.svg`, `.png` and
///   `.pdf`, some with a `.tex` to include; those of a demo in `<suite>-demo/`
/// - `results.parquet`: all records, with the columns of [`frame`]
/// - `report.md`, `report.html`
/// - `report.tex`, which shows all tables and figures for papers, and `references.bib`
///
/// # Errors
/// If there are no records, a folder cannot be read, `choice` names an unknown model or axis, or a file cannot be written.
pub fn write_all(home: &Home, results: &Path, out: &Path, choice: &Choice, style: Style) -> Result<Written> {
    write_with(home, results, &[], out, choice, style)
}

/// Like [`write_all`], with the records of contributions, whose rows name the contributor.
///
/// # Errors
/// Like [`write_all`].
pub fn write_with(
    home: &Home,
    results: &Path,
    contributions: &[Contribution],
    out: &Path,
    choice: &Choice,
    style: Style,
) -> Result<Written> {
    let sections = gather(home, results, contributions)?;
    let bibliography = Bibliography::load(home)?;
    let chapters = sections.iter().map(|section| chapter(home, section)).collect::<Result<Vec<_>>>()?;
    let spiders = spiders(&chapters, choice)?;
    let mut chapters: Vec<Chapter> = chapters;
    for (chapter, spider) in chapters.iter_mut().zip(spiders) {
        let mut unreadable = chapter.section.unreadable.clone();
        let figures = figures(home, chapter, &mut unreadable)?;
        chapter.figures = spider.into_iter().chain(figures).collect();
        chapter.mistaken_bands = mistaken_bands(chapter.section, &mut unreadable);
        chapter.unreadable = unreadable;
    }
    let mut files: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    // What `report.tex` includes, and what it cites.
    let (mut included, mut used) = (Vec::new(), Used::default());
    for chapter in &chapters {
        let name = &chapter.section.folder;
        let folder = out.join(name);
        for (file, table) in chapter.filled() {
            files.push((folder.join(format!("{file}.md")), markdown(table).into_bytes()));
            files.push((folder.join(format!("{file}.csv")), csv(table)?.into_bytes()));
            let drawn_on = bibliography.of_table(&chapter.section.suite.name, table);
            let keys: Vec<String> = drawn_on.keys.iter().cloned().collect();
            let text = latex::table(table, &format!("{name}/{file}"), &keys, style);
            files.push((folder.join(format!("{file}.tex")), text.into_bytes()));
            included.push(format!("{name}/{file}"));
            used.extend(drawn_on);
        }
        for figure in &chapter.figures {
            let Some(text) = &figure.latex else { continue };
            files.push((folder.join(format!("{}.tex", figure.file)), text.clone().into_bytes()));
            included.push(format!("{name}/{}", figure.file));
            if figure.table.is_some() && figure.file.contains("-ranking") {
                used.extend(bibliography.of_rankings());
            }
        }
        let draw = |Figure { file, picture, .. }: &Figure| -> Result<Vec<(PathBuf, Vec<u8>)>> {
            let at = |end: &str| folder.join(format!("{file}.{end}"));
            Ok(vec![
                (at("svg"), svg(picture).into_bytes()),
                (at("png"), png(picture, SCALE)?),
                (at("pdf"), pdf(picture)?),
            ])
        };
        let drawn = chapter.figures.par_iter().map(draw).collect::<Result<Vec<_>>>()?;
        files.extend(drawn.into_iter().flatten());
    }
    files.push((out.join("results.parquet"), all_records(&sections)?));
    let checklist = checklist(home, &chapters)?;
    files.push((out.join("report.md"), index(&chapters, checklist.as_ref()).into_bytes()));
    files.push((out.join("report.html"), html::page(&chapters, checklist.as_ref())?.into_bytes()));
    files.push((out.join("report.tex"), latex::document(&included).into_bytes()));
    files.push((out.join("references.bib"), bibliography.render(&used).into_bytes()));
    for (path, bytes) in &files {
        write_atomically(path, bytes)?;
    }
    let unreadable = chapters.into_iter().flat_map(|chapter| chapter.unreadable).collect();
    Ok(Written { files: files.into_iter().map(|(path, _)| path).collect(), unreadable })
}

fn chapter<'a>(home: &Home, section: &'a Section) -> Result<Chapter<'a>> {
    let Section { suite, records, demo, unreadable, .. } = section;
    let mut tables = fill_all(suite, home, records, *demo)?;
    tables.iter_mut().for_each(|(_, table)| table.unreadable = names(unreadable));
    Ok(Chapter { section, tables, figures: Vec::new(), mistaken_bands: None, unreadable: Vec::new() })
}

/// Draws the spider plots of each chapter; none if a suite has none or no model has values.
fn spiders(chapters: &[Chapter], choice: &Choice) -> Result<Vec<Vec<Figure>>> {
    let mut missing: Option<Vec<&str>> = None;
    let mut figures = Vec::new();
    for chapter in chapters {
        let Some(spider) = &chapter.section.suite.spider else {
            figures.push(Vec::new());
            continue;
        };
        let tables: Vec<(&str, &ResultTable)> =
            chapter.tables.iter().map(|(file, table)| (*file, table)).collect();
        let here = spider::unknown(spider, &tables, choice);
        missing = Some(match missing {
            None => here,
            Some(so_far) => so_far.into_iter().filter(|name| here.contains(name)).collect(),
        });
        let chart = spider::chart(spider, &tables, choice)?;
        let Section { folder, demo, suite, .. } = chapter.section;
        let figure = |file: &str, spider: &Spider, chart: Chart| {
            let on_axes = |table: &&&ResultTable| {
                table.columns.iter().any(|c| chart.axes.iter().any(|a| a.task == c.task))
            };
            let rows =
                tables.iter().map(|(_, table)| table).filter(on_axes).flat_map(|table| &table.measured);
            let text = latex::figure(&format!("{folder}/{file}.pdf"), &spider.title, *demo, rows);
            Figure { latex: Some(text), ..Figure::new(file, &spider.title, spider::draw(&chart)) }
        };
        let mut drawn: Vec<Figure> = chart.map(|chart| figure("spider", spider, chart)).into_iter().collect();
        for (file, further) in &suite.spiders {
            let is_filled =
                |axes: &SpiderAxes| chapter.filled().any(|(table, _)| *table == axes.table.as_str());
            // A choice of axes may leave too few of this plot.
            let chart = match further.axes.iter().any(is_filled) {
                true => spider::chart(further, &tables, choice),
                false => Ok(None),
            };
            match chart {
                Ok(chart) => drawn.extend(chart.map(|chart| figure(file, further, chart))),
                Err(_) if !choice.axes.is_empty() => {}
                Err(error) => return Err(error),
            }
        }
        figures.push(drawn);
    }
    match missing {
        Some(names) if !names.is_empty() => {
            Err(Error::request(format!("no spider plot has a model or axis `{}`", names.join("`, `")))
                .help("use names from the tables, such as TerraFM, knn, m-eurosat or knn/m-eurosat"))
        }
        None if !(choice.models.is_empty() && choice.axes.is_empty()) => {
            Err(Error::request("no suite with records has a spider plot")
                .help("leave out --models and --axes"))
        }
        _ => Ok(figures),
    }
}

/// Draws the pictures other than the spider plot. Adds predictions that cannot be used to `unreadable`.
fn figures(home: &Home, chapter: &Chapter, unreadable: &mut Vec<Unreadable>) -> Result<Vec<Figure>> {
    let Section { suite, demo, records, store, .. } = chapter.section;
    let mut figures = ranked(chapter, &Costs::read(home)?, unreadable);
    figures.extend(aggregates(home, chapter)?);
    if let Some(definition) = &suite.capabilities {
        figures.extend(
            chapter.filled().filter_map(|(file, table)| capabilities::figure(definition, file, table)),
        );
    }
    for (file, table) in chapter.filled() {
        if let Some(picture) = differences::draw(table) {
            let caption = format!("{}: measured minus published", table.title);
            figures.push(Figure::new(format!("{file}-differences"), caption, picture));
        }
    }
    for definition in &suite.tables {
        let Some(definition) = over_all_shares(definition, records) else { continue };
        let published = published::of_table(home, &definition)?;
        let table = fill(&definition, suite, &published, records, *demo)?;
        if let Some(picture) = shares::draw(&table) {
            let caption = format!("{} against the share of training data", table.title);
            figures.push(Figure::new(format!("{}-shares", definition.file), caption, picture));
        }
    }
    // Maps take a second or two each.
    let of_tasks: Vec<(Vec<Figure>, Vec<Unreadable>)> = suite
        .tasks
        .par_iter()
        .map(|task| {
            let records = records.iter().filter(|r| r.cell.task == task.name && r.demo == *demo && !r.short);
            let mut predictions = TaskPredictions::new(store, records.collect());
            let figures = predictions.figures(task);
            (figures, predictions.unreadable)
        })
        .collect();
    for (drawn, bad) in of_tasks {
        figures.extend(drawn);
        bad.into_iter().for_each(|one| add_unreadable(unreadable, one.path, one.error));
    }
    Ok(figures)
}

/// Ranks the models of each table, and draws ranks, performance profiles and costs.
fn ranked(chapter: &Chapter, costs: &Costs, unreadable: &mut Vec<Unreadable>) -> Vec<Figure> {
    let Section { store, folder, demo, .. } = chapter.section;
    let mut figures = Vec::new();
    for (file, table) in chapter.filled() {
        for ranking in rankings(table, costs, store, unreadable) {
            let end = if ranking.partition == "default" {
                String::new()
            } else {
                format!("-{}", plain(&ranking.partition))
            };
            let pictures = [
                ("ranking", "Ranking over tasks", Some(ranks::draw(&ranking))),
                ("profile", "Performance profile", Some(profile::draw(&ranking))),
                ("cost", "Accuracy by cost", cost::draw(&ranking)),
            ];
            for (kind, what, picture) in pictures {
                let Some(picture) = picture else { continue };
                let (file, caption) = (format!("{file}-{kind}{end}"), format!("{what}: {}", ranking.title));
                let path = format!("{folder}/{file}.pdf");
                let mut text = latex::figure(&path, &caption, *demo, table.measured.iter());
                let numbers = (kind == "ranking").then(|| ranking::text_table(&ranking));
                if let Some(numbers) = &numbers {
                    text += &latex::plain_table(numbers, &caption, &format!("{folder}/{file}"), *demo);
                }
                figures.push(Figure {
                    table: numbers,
                    latex: Some(text),
                    ..Figure::new(file, caption, picture)
                });
            }
        }
    }
    figures
}

/// Draws the scores over several tasks.
fn aggregates(home: &Home, chapter: &Chapter) -> Result<Vec<Figure>> {
    let Section { suite, folder, demo, .. } = chapter.section;
    let mut figures = Vec::new();
    for definition in &suite.aggregates {
        let Some((_, table)) = chapter.filled().find(|(file, _)| *file == definition.table) else { continue };
        let ranges = aggregate::ranges(home, &definition.ranges)?;
        let runs = aggregate::runs(home, &definition.runs)?;
        let Some(scores) = aggregate::scores(definition, table, &ranges, &runs)? else { continue };
        let (file, caption, numbers) = (&definition.file, &definition.title, scores.text_table());
        let picture = aggregate_picture::draw(&scores);
        let mut text = latex::figure(&format!("{folder}/{file}.pdf"), caption, *demo, table.measured.iter());
        text += &latex::plain_table(&numbers, caption, &format!("{folder}/{file}"), *demo);
        figures.push(Figure {
            table: Some(numbers),
            latex: Some(text),
            ..Figure::new(file, caption, picture)
        });
    }
    Ok(figures)
}

/// Replaces characters that are unsafe in a file name.
pub(super) fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '-' }).collect()
}

/// Extends a table to all partitions in the records of its protocol. Returns `None` if several protocols fill it, or if there
/// is only one share of the training data.
fn over_all_shares(definition: &Table, records: &[Record]) -> Option<Table> {
    let [protocol] = definition.protocols.as_slice() else { return None };
    let here = |record: &&Record| {
        record.cell.protocol == *protocol
            && definition.tasks.contains(&record.cell.task)
            && share(&record.cell.partition).is_some()
    };
    let mut partitions: Vec<String> =
        records.iter().filter(here).map(|record| record.cell.partition.clone()).collect();
    partitions.extend(definition.partitions.iter().cloned());
    partitions.sort();
    partitions.dedup();
    partitions.sort_by(|a, b| share(a).partial_cmp(&share(b)).unwrap_or(std::cmp::Ordering::Equal));
    (partitions.len() > 1).then(|| Table { partitions, scores: Vec::new(), ..definition.clone() })
}

/// Encodes all records as one Parquet file.
fn all_records(sections: &[Section]) -> Result<Vec<u8>> {
    let records: Vec<Record> = sections.iter().flat_map(|section| section.records.iter().cloned()).collect();
    parquet::write(&frame(&records)?).map_err(Error::request)
}

/// Renders the index, which links all other files.
fn index(chapters: &[Chapter], checklist: Option<&Checklist>) -> String {
    let mut text = "# Report\n\n".to_owned();
    text += "[This report as one interactive page](report.html) · [all records](results.parquet) (Parquet, one row per record)\n";
    text += "\nFor papers: [all tables and figures](report.tex) (LaTeX) · [bibliography](references.bib) (BibTeX)\n";
    if let Some(Checklist { demands, rows }) = checklist {
        text += "\n## Checklist\n\nWhich of the six demands of arXiv 2605.12678 this report meets:\n\n";
        text += &demands.markdown();
        let _ = write!(text, "\n### Row by row\n\n{}", rows.markdown());
    }
    for chapter in chapters {
        let Section { folder, records, demo, .. } = chapter.section;
        let _ = write!(text, "\n## {}\n\n", escape(&chapter.section.title()));
        if *demo {
            text +=
                "> **These are demo numbers, not benchmark numbers**: generated data and small models.\n\n";
        }
        let own = records.iter().filter(|record| record.provenance.origin.is_none()).count();
        let _ = writeln!(text, "{own} records in `{folder}/records/`.\n");
        let mut contributed: BTreeMap<&str, usize> = BTreeMap::new();
        for name in records.iter().filter_map(|record| record.provenance.origin.as_deref()) {
            *contributed.entry(name).or_default() += 1;
        }
        for (name, count) in contributed {
            let _ = writeln!(text, "{count} records contributed by {}.\n", escape(name));
        }
        if !chapter.unreadable.is_empty() {
            text += "Left out because they cannot be used:\n\n";
            for name in names(&chapter.unreadable) {
                let _ = writeln!(text, "- {}", escape(&name));
            }
            text += "\n";
        }
        for (file, table) in chapter.filled() {
            let title = escape(&table.title);
            let _ = writeln!(
                text,
                "- {title}: [table]({folder}/{file}.md), [CSV]({folder}/{file}.csv), [LaTeX]({folder}/{file}.tex)"
            );
        }
        if chapter.filled().next().is_none() {
            text += "No table has a measured row.\n";
        }
        if let Some(table) = &chapter.mistaken_bands {
            let demo = if *demo { " (demo)" } else { "" };
            let _ = write!(text, "\n### {}{demo}\n\n{}", mistaken_bands::TITLE, table.markdown());
        }
        for Figure { file, caption, table, latex, .. } in &chapter.figures {
            let caption = escape(caption);
            let latex =
                if latex.is_some() { format!(" · [LaTeX]({folder}/{file}.tex)") } else { String::new() };
            let _ = write!(
                text,
                "\n### {caption}{}\n\n![{caption}]({folder}/{file}.svg)\n\n[SVG]({folder}/{file}.svg) · [PNG]({folder}/{file}.png) · [PDF]({folder}/{file}.pdf){latex}\n",
                if *demo { " (demo)" } else { "" }
            );
            if let Some(table) = table {
                let _ = write!(text, "\n{}", table.markdown());
            }
        }
        if let Some(views) = views::table(records) {
            let _ = write!(text, "\n### Do ranks survive the choice?\n\n{}", views.markdown());
        }
    }
    text
}
