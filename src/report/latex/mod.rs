//! The report for papers: tables and figures to include, a document that shows them all, and the bibliography.
//!
//! ```text
//! table.rs          ResultTable -> a `table` environment
//! caption.rs        measured rows -> what a caption must say
//! escape.rs         any text -> LaTeX that prints it
//! bibliography.rs   what a report used -> references.bib
//! ```

pub mod bibliography;
mod caption;
pub mod escape;
pub mod table;

use self::caption::how_made;
use self::escape::escape;
pub use self::table::{Style, table};
use super::plain::PlainTable;
use super::tables::table::TableRow;

/// Renders a `figure` environment for a PDF file, which stands at `path` from the document.
pub fn figure<'t, 'a: 't>(
    path: &str,
    caption: &str,
    demo: bool,
    rows: impl Iterator<Item = &'t TableRow<'a>>,
) -> String {
    let demo = if demo { " \\textbf{Demo: these are not benchmark results.}" } else { "" };
    let how = how_made(rows);
    let how = if how.is_empty() { how } else { format!(" {how}") };
    let label = table::plain(path.trim_end_matches(".pdf"));
    format!(
        "% Needs \\usepackage{{graphicx}}.\n\\begin{{figure}}[htbp]\n\\centering\n\\includegraphics[width=\\linewidth]{{{path}}}\n\
         \\caption{{{}.{demo}{how}}}\n\\label{{fig:{label}}}\n\\end{{figure}}\n",
        escape(caption)
    )
}

/// Renders a table of text as a `table` environment, its remarks below it.
pub fn plain_table(table: &PlainTable, caption: &str, label: &str, demo: bool) -> String {
    let line = |texts: &[String]| texts.iter().map(|text| escape(text)).collect::<Vec<_>>().join(" & ");
    let rows: String = table.rows.iter().map(|row| format!("{} \\\\\n", line(row))).collect();
    let notes = table
        .notes
        .iter()
        .map(|note| format!("\\par\\smallskip{{\\footnotesize\\raggedright {}\\par}}\n", escape(note)));
    let demo = if demo { " \\textbf{Demo: these are not benchmark results.}" } else { "" };
    format!(
        "\\begin{{table}}[htbp]\n\\centering\n\\caption{{{}.{demo}}}\n\\label{{tab:{}}}\n\\smallskip\n\\resizebox{{\\linewidth}}{{!}}{{%\n\
         \\begin{{tabular}}{{l{}}}\n\\toprule\n{} \\\\\n\\midrule\n{rows}\\bottomrule\n\\end{{tabular}}\n}}\n{}\\end{{table}}\n",
        escape(caption),
        table::plain(label),
        "r".repeat(table.header.len().saturating_sub(1)),
        line(&table.header),
        notes.collect::<String>(),
    )
}

/// Renders a document that shows these files, each given by its path from the document, and the bibliography. It compiles with
/// pdfLaTeX without changes.
pub fn document(files: &[String]) -> String {
    let mut text = "\\documentclass{article}\n\\usepackage[utf8]{inputenc}\n\\usepackage{booktabs,graphicx}\n\
                    \\usepackage[margin=2cm]{geometry}\n% A page may be all tables.\n\\renewcommand{\\topfraction}{1}\n\
                    \\renewcommand{\\floatpagefraction}{0.5}\n\\begin{document}\n\\section*{Terrabench report}\n"
        .to_owned();
    for file in files {
        // More floats than TeX holds at once would be an error.
        text += &format!("\\input{{{file}}}\n\\clearpage\n");
    }
    text + "\\nocite{*}\n\\bibliographystyle{plain}\n\\bibliography{references}\n\\end{document}\n"
}
