//! The page of what was measured, in Markdown.

use std::fmt::Write;

use super::measured::{Comparison, Growth, Measured, Spread, grouped, with_unit};

/// Where and with what it was measured.
#[derive(Debug, Clone, Default)]
pub struct About {
    pub command: String,
    pub program: String,
    pub machine: String,
    /// Versions of the peers, if there were any.
    pub peers: String,
    pub date: String,
}

/// The page; `pictures` are names of files beside it, with what they show.
pub fn page(measured: &[Measured], about: &About, pictures: &[(&str, String)]) -> String {
    let mut page = String::from("# Speed\n\n");
    let date = if about.date.is_empty() { String::new() } else { format!(" on {}", about.date) };
    _ = writeln!(page, "Written by `{}`{date}.\n", about.command);
    _ = writeln!(page, "- Program: terrabench {}", about.program);
    _ = writeln!(page, "- Machine: {}", about.machine);
    if !about.peers.is_empty() {
        _ = writeln!(page, "- Peers: {}", about.peers);
    }
    page.push_str(
        "\nThis program and its peers took turns. Each value is a median, with its range. A ratio says how many times as fast as the peer \
         this program is: the ratio of the medians, with the range over runs that followed each other. The goal is a ratio to the fastest \
         peer.\n",
    );
    for (name, shows) in pictures {
        _ = write!(page, "\n![{shows}]({name})\n");
    }
    let comparisons = || {
        measured.iter().filter_map(|measured| match measured {
            Measured::Comparison(comparison) => Some(comparison),
            _ => None,
        })
    };
    let mut groups: Vec<&str> = Vec::new();
    for comparison in comparisons() {
        if !groups.contains(&comparison.group.as_str()) {
            groups.push(&comparison.group);
        }
    }
    for group in groups {
        _ = write!(page, "\n## {}\n\n", cell(group));
        page.push_str(
            "| task | Terrabench | peer | the peer's | ratio | goal |\n|---|---:|---|---:|---:|---:|\n",
        );
        for comparison in comparisons().filter(|comparison| comparison.group == group) {
            rows(&mut page, comparison);
        }
        let notes =
            comparisons().filter(|comparison| comparison.group == group && !comparison.note.is_empty());
        let notes: Vec<String> = notes
            .map(|comparison| format!("- {}: {}", cell(&comparison.what), cell(&comparison.note)))
            .collect();
        if !notes.is_empty() {
            _ = write!(page, "\n{}\n", notes.join("\n"));
        }
    }
    let growths: Vec<&Growth> = measured
        .iter()
        .filter_map(|measured| match measured {
            Measured::Growth(growth) => Some(growth),
            _ => None,
        })
        .collect();
    if !growths.is_empty() {
        page.push_str("\n## How cost grows\n\nThe exponent is of the last step: 1 where time is proportional to the size, 2 to its square.\n");
        growths.into_iter().for_each(|growth| table(&mut page, growth));
    }
    let skipped = measured.iter().filter_map(|measured| match measured {
        Measured::Skipped { group, what, why } => {
            Some(format!("- {}, {}: {}", cell(group), cell(what), cell(why)))
        }
        _ => None,
    });
    let skipped: Vec<String> = skipped.collect();
    if !skipped.is_empty() {
        _ = write!(page, "\n## Not measured\n\n{}\n", skipped.join("\n"));
    }
    page
}

/// A line per peer; the first one names the task and has our value.
fn rows(page: &mut String, comparison: &Comparison) {
    let value = |values: &[f64]| match Spread::of(values) {
        Some(spread) => with_unit(spread, &comparison.unit),
        None => String::new(),
    };
    let ours = value(&comparison.ours);
    let best = comparison.best_peer();
    if best.is_none() {
        _ = writeln!(page, "| {} | {ours} | | | | |", cell(&comparison.what));
    }
    let measured = comparison.peers.iter().filter(|peer| !peer.values.is_empty());
    for (number, peer) in measured.enumerate() {
        let (what, ours) =
            if number == 0 { (cell(&comparison.what), ours.as_str()) } else { ("".into(), "") };
        let ratio = comparison.ratio(peer);
        // A goal is a ratio to the fastest peer.
        let goal = comparison
            .goal
            .filter(|_| best == Some(peer))
            .zip(ratio)
            .map_or(String::new(), |(goal, ratio)| {
                format!("{goal}: {}", if ratio.median >= goal { "met" } else { "missed" })
            });
        let ratio = ratio.map_or(String::new(), |Spread { median, least, most }| {
            format!("{median:.2} ({least:.2} to {most:.2})")
        });
        _ = writeln!(
            page,
            "| {what} | {ours} | {} | {} | {ratio} | {goal} |",
            cell(&peer.name),
            value(&peer.values)
        );
    }
}

fn table(page: &mut String, growth: &Growth) {
    let has_memory = growth.points.iter().any(|point| point.memory.is_some());
    _ = write!(page, "\n### {}\n\n", cell(&growth.what));
    let (head, rule) = if has_memory { (" most memory |", "---:|") } else { ("", "") };
    _ = writeln!(page, "| {} | time |{head} time for 1,000 |\n|---:|---:|{rule}---:|", cell(&growth.along));
    for point in &growth.points {
        let memory = match (has_memory, point.memory) {
            (true, Some(memory)) => format!(" {memory:.0} MiB |"),
            (true, None) => " |".into(),
            (false, _) => String::new(),
        };
        let [time, per] = [point.seconds, 1000.0 * point.seconds / point.at]
            .map(|time| with_unit(Spread { median: time, least: time, most: time }, "s"));
        _ = writeln!(page, "| {} | {time} |{memory} {per} |", grouped(point.at));
    }
    if let Some(exponent) = growth.exponent() {
        _ = write!(page, "\nExponent {exponent:.2}.");
        _ = writeln!(
            page,
            "{}",
            if growth.note.is_empty() { String::new() } else { format!(" {}.", cell(&growth.note)) }
        );
    }
}

/// A text that stays within its cell and its line.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}
