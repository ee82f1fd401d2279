//! A ranking as a table of text.

use super::resample::DRAWS;
use super::{Ranking, Standing};
use crate::report::plain::PlainTable;

/// Renders the ranking: one row per model.
pub fn table(ranking: &Ranking) -> PlainTable {
    let mut header = vec![
        "Model",
        "Average rank",
        "95 % interval",
        "Improvability",
        "Not told apart, by resampling",
        "Not told apart, Nemenyi",
    ];
    let priced = ranking.standings.iter().any(|standing| standing.cost.is_some());
    if priced {
        header.extend(["Parameters", "GFLOPs per image"]);
    }
    let timed = ranking.standings.iter().any(|standing| standing.speed.is_some());
    if timed {
        header.extend(["Images per second", "Peak memory", "Device"]);
    }
    let row = |standing: &Standing| {
        let mut texts = vec![
            standing.name.clone(),
            format!("{:.2}", standing.rank),
            format!("[{:.1}, {:.1}]", standing.interval.low, standing.interval.high),
            standing.improvability.map_or("-".to_owned(), |share| format!("{:.1} %", 100.0 * share)),
            letters(&standing.groups),
            letters(&standing.nemenyi),
        ];
        if priced {
            texts.push(standing.cost.map_or("-".to_owned(), |cost| millions(cost.parameters)));
            texts.push(standing.cost.map_or("-".to_owned(), |cost| format!("{:.1}", cost.gflops())));
        }
        if timed {
            let speed = standing.speed.as_ref();
            let memory = |speed: &super::TaskSpeed| speed.peak_memory_bytes.map(gigabytes);
            texts.push(speed.map_or("-".to_owned(), |speed| rate(speed.images_per_second)));
            texts.push(speed.and_then(memory).unwrap_or_else(|| "-".to_owned()));
            texts.push(speed.map_or("-".to_owned(), |speed| device_title(&speed.device)));
        }
        texts
    };
    PlainTable {
        header: header.into_iter().map(str::to_owned).collect(),
        rows: ranking.standings.iter().map(row).collect(),
        notes: notes(ranking),
    }
}

/// Returns what a device is called in tables: the processor for the backend that runs on it.
fn device_title(device: &str) -> String {
    if device == "flex" { "CPU".to_owned() } else { device.to_owned() }
}

fn notes(ranking: &Ranking) -> Vec<String> {
    let (sampled, all) = ranking.sampled;
    let mut notes = vec![
        format!(
            "Average rank over {}; 1 is best, and equal values share their rank. Improvability: the share of a model's error that \
             would go if it were as good as the best on each task, averaged over the tasks with a metric in percent.",
            ranking.tasks.join(", ")
        ),
        ranking.verdict(),
        format!(
            "Intervals: tasks drawn {DRAWS} times with replacement and, for the {sampled} of {all} values with stored predictions, \
             test samples and seeds as well; other values are taken as printed. Models that share a letter are not told apart: the \
             interval of their difference holds 0, or the Nemenyi test's limit is not reached."
        ),
    ];
    if ranking.standings.iter().any(|standing| standing.cost.is_some()) {
        notes.push(
            "Parameters and GFLOPs of one image through the encoder, counted from the architecture: two floating-point operations \
             per multiply-add of convolutions, linear layers and attention. `-`: not counted, as for published rows."
                .to_owned(),
        );
    }
    if ranking.standings.iter().any(|standing| standing.speed.is_some()) {
        notes.push(
            "Images per second of work in the encoder, without reading and preprocessing, the mean over the tasks whose runs \
             computed features (not those that found them in the cache); peak memory of the whole program, on NVIDIA's devices of the processor. Both depend \
             on the machine, its threads and the batch size."
                .to_owned(),
        );
    }
    if !ranking.incomplete.is_empty() {
        notes.push(format!("Not ranked, as they lack a task: {}.", ranking.incomplete.join(", ")));
    }
    notes
}

/// Formats a number of parameters as `85.8 M`.
fn millions(parameters: u64) -> String {
    format!("{:.1} M", parameters as f64 / 1e6)
}

/// Formats a rate with three digits.
fn rate(images_per_second: f64) -> String {
    match images_per_second {
        rate if rate >= 100.0 => format!("{rate:.0}"),
        rate if rate >= 10.0 => format!("{rate:.1}"),
        rate => format!("{rate:.2}"),
    }
}

/// Formats bytes as `1.2 GB`.
fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

/// Names groups a, b, …, z, aa, ab, ….
fn letters(groups: &[usize]) -> String {
    let letter = |mut group: usize| {
        let mut name = Vec::new();
        loop {
            name.insert(0, char::from(b'a' + (group % 26) as u8));
            match group / 26 {
                0 => break,
                rest => group = rest - 1,
            }
        }
        name.into_iter().collect::<String>()
    };
    groups.iter().map(|group| letter(*group)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::letters;

    #[test]
    fn groups_are_named_by_letters_in_order() {
        assert_eq!(letters(&[0, 1, 25, 26, 27, 702]), "a b z aa ab aaa");
    }
}
