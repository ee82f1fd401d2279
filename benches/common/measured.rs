//! What the benches measured: said on standard output, and written as lines of JSON to the file that `TERRABENCH_MEASURED` names,
//! of which `benches/perf.rs` makes a page.

use std::io::Write;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// Names the file that collects what is measured.
const VARIABLE: &str = "TERRABENCH_MEASURED";

/// One line of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Measured {
    Comparison(Comparison),
    Growth(Growth),
    /// Something that was not measured, and why.
    Skipped {
        group: String,
        what: String,
        why: String,
    },
}

/// The same work done by this program and by others, in turn.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The heading of its table.
    pub group: String,
    pub what: String,
    /// Of all values: a rate such as `images/s`, or `s`.
    pub unit: String,
    /// One value per repetition, at least one, in the order in which they were measured.
    pub ours: Vec<f64>,
    pub peers: Vec<Peer>,
    /// How many times as fast as the best peer this program should be.
    pub goal: Option<f64>,
    pub note: String,
}

/// Another program's values, in the order in which they were measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    pub name: String,
    pub values: Vec<f64>,
}

/// Time and memory of the same work at several sizes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Growth {
    pub what: String,
    /// What the sizes count, such as `samples`.
    pub along: String,
    /// At least one, from the smallest size.
    pub points: Vec<Point>,
    pub note: String,
}

/// One size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    pub at: f64,
    pub seconds: f64,
    /// The most memory that the process held, in MiB, where it had a process of its own.
    pub memory: Option<f64>,
}

/// A median and the range around it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Spread {
    /// Of at least one value.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let median = (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0;
        Some(Spread { median, least, most })
    }
}

impl Comparison {
    pub fn new(group: &str, what: impl Into<String>, unit: &str) -> Self {
        Comparison { group: group.into(), what: what.into(), unit: unit.into(), ..Comparison::default() }
    }

    /// Sets how many times as fast as the best peer this program should be.
    pub fn goal(self, times: f64) -> Self {
        Comparison { goal: Some(times), ..self }
    }

    /// Whether a larger value is the better one.
    pub fn is_rate(&self) -> bool {
        self.unit.ends_with("/s")
    }

    /// The fastest peer that has values.
    pub fn best_peer(&self) -> Option<&Peer> {
        let speed = |peer: &Peer| {
            let median = Spread::of(&peer.values)?.median;
            Some(if self.is_rate() { median } else { -median })
        };
        let measured = self.peers.iter().filter(|peer| !peer.values.is_empty());
        measured.max_by(|a, b| speed(a).partial_cmp(&speed(b)).unwrap_or(std::cmp::Ordering::Equal))
    }

    /// How many times as fast as a peer this program is: the ratio of the medians, and the range of the ratios of values that
    /// were measured one after the other.
    pub fn ratio(&self, peer: &Peer) -> Option<Spread> {
        let times = |ours: f64, theirs: f64| if self.is_rate() { ours / theirs } else { theirs / ours };
        let median = times(Spread::of(&self.ours)?.median, Spread::of(&peer.values)?.median);
        // Where one side ran more often, each of its values has the neighbour in time of the other side.
        let count = self.ours.len().max(peer.values.len());
        let at = |values: &[f64], i: usize| values[i * values.len() / count];
        let pairs: Vec<f64> = (0..count).map(|i| times(at(&self.ours, i), at(&peer.values, i))).collect();
        let range = Spread::of(&pairs)?;
        Some(Spread { median, least: range.least.min(median), most: range.most.max(median) })
    }

    /// Says what was measured, and writes it down.
    pub fn tell(self) -> Result<()> {
        ensure!(!self.ours.is_empty(), "{}: nothing was measured", self.what);
        println!("{}", self.what);
        let width = self.peers.iter().map(|peer| peer.name.len()).max().unwrap_or(0).max("terrabench".len());
        let say = |name: &str, values: &[f64]| {
            if let Some(Spread { median, least, most }) = Spread::of(values) {
                let [median, least, most] = [median, least, most].map(short);
                println!(
                    "  {name:>width$}: {median} {} ({least} to {most}, {} runs)",
                    self.unit,
                    values.len()
                );
            }
        };
        say("terrabench", &self.ours);
        for peer in &self.peers {
            say(&peer.name, &peer.values);
        }
        for peer in &self.peers {
            if let Some(Spread { median, least, most }) = self.ratio(peer) {
                println!("  {median:.2} times as fast as {} ({least:.2} to {most:.2})", peer.name);
            }
        }
        if !self.note.is_empty() {
            println!("  {}", self.note);
        }
        write(&Measured::Comparison(self))
    }
}

impl Growth {
    /// How time grows between the largest sizes: the exponent of a power of the size, 1 where time is proportional to it.
    pub fn exponent(&self) -> Option<f64> {
        let [.., before, last] = &self.points[..] else { return None };
        Some((last.seconds / before.seconds).ln() / (last.at / before.at).ln())
    }

    /// Says what was measured, and writes it down.
    pub fn tell(self) -> Result<()> {
        println!("{}", self.what);
        for Point { at, seconds, memory } in &self.points {
            let memory = memory.map_or(String::new(), |memory| format!(", {memory:.0} MiB"));
            println!("  {at:>12} {}: {} s{memory}", self.along, short(*seconds));
        }
        write(&Measured::Growth(self))
    }
}

/// Says that something is not measured, and writes it down.
pub fn skip(group: &str, what: impl Into<String>, why: impl Into<String>) -> Result<()> {
    let (what, why) = (what.into(), why.into());
    println!("{what}: skipped: {why}");
    write(&Measured::Skipped { group: group.into(), what, why })
}

/// A median with its range, if it has one, and the unit: seconds below 0.1 as milliseconds.
pub fn with_unit(Spread { median, least, most }: Spread, unit: &str) -> String {
    let (scale, unit) = if unit == "s" && median < 0.1 { (1000.0, "ms") } else { (1.0, unit) };
    let [median, least, most] = [median, least, most].map(|value| short(scale * value));
    if least == most { format!("{median} {unit}") } else { format!("{median} ({least} to {most}) {unit}") }
}

/// Three digits that count.
pub fn short(value: f64) -> String {
    let digits = value.abs().log10().floor();
    let decimals = if digits.is_finite() { (2.0 - digits).clamp(0.0, 6.0) as usize } else { 0 };
    if value.abs() < 1000.0 { format!("{value:.decimals$}") } else { grouped(value) }
}

/// A whole number with commas between thousands.
pub fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn write(measured: &Measured) -> Result<()> {
    let Some(path) = std::env::var_os(VARIABLE) else { return Ok(()) };
    let failed = || format!("cannot write to {}", path.display());
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&path).with_context(failed)?;
    let line = serde_json::to_string(measured)? + "\n";
    file.write_all(line.as_bytes()).with_context(failed)
}

/// Parses the lines that benches wrote.
pub fn read(text: &str) -> Result<Vec<Measured>> {
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}
