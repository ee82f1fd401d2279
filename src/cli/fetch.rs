//! `fetch`: shows what it would fetch, asks before large downloads, fetches, and lists the new files.

use std::cell::Cell;
use std::fmt::Write as _;
use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressStyle};

use super::fetch_args::{ConsentArgs, FetchArgs, FetchSuiteArgs, FetchWhat};
use crate::console;
use crate::fetch::catalogue::{self, Catalogue, Order};
use crate::fetch::hub::Hub;
use crate::fetch::settings::Settings;
use crate::fetch::{self, FetchItem, State, Survey, SurveyedPart, Track, Watch, Work, gigabytes};
use crate::home::{Home, variable};
use crate::locations::{Environment, free_space};
use crate::model::config::ModelConfig;

/// Downloads above this many bytes need the user's consent.
const MUCH: u64 = 5_000_000_000;
/// Minimum time between two plain lines of progress.
const QUIET: Duration = Duration::from_secs(10);
/// Files smaller than this many bytes get no progress bar of their own.
const BIG: u64 = 32_000_000;

/// Runs the command.
pub fn run(home: &Home, args: &FetchArgs) -> anyhow::Result<()> {
    match &args.what {
        FetchWhat::Weights(weights) => {
            let model = ModelConfig::load(home, &weights.model)?;
            let order = catalogue::weights(&weights.model, &model)?;
            let folder = match &weights.to {
                Some(folder) => folder.clone(),
                None => Environment::here().weights()?.folder,
            };
            fetch_order(&order, &folder, true, &weights.consent)
        }
        FetchWhat::Geobench(suite) => fetch_suite(home, "geobench", suite),
        FetchWhat::CopernicusBench(suite) => fetch_suite(home, "copernicus-bench", suite),
        FetchWhat::Geobench2(suite) => fetch_suite(home, "geobench-2", suite),
        FetchWhat::Landslide4sense(suite) => fetch_suite(home, "landslide4sense", suite),
    }
}

fn fetch_suite(home: &Home, name: &str, args: &FetchSuiteArgs) -> anyhow::Result<()> {
    let catalogue = Catalogue::load(home, name)?;
    let order = catalogue.order(&args.tasks)?;
    let place = Environment::here().destination(name, &catalogue.environment, args.data.as_deref())?;
    if !order.parts.is_empty() {
        fetch_order(&order, &place.folder, args.keep, &args.consent)?;
    }
    let others = catalogue.other_orders(&args.tasks);
    others.iter().try_for_each(|order| fetch_order(order, &place.folder, args.keep, &args.consent))
}

fn fetch_order(order: &Order, folder: &Path, keep: bool, consent: &ConsentArgs) -> anyhow::Result<()> {
    let settings = Settings::from_environment(&|name| Some(variable(name)?.to_string_lossy().into_owned()))?;
    let hub = Hub::new(settings).noting(|line| console::note(line));
    let survey = Survey::take(&hub, order, folder)?;
    console::tell(describe(&survey, keep, free_space(folder)?));
    if consent.dry_run {
        return Ok(());
    }
    survey.fits(free_space(folder)?, keep)?;
    if !consent.yes && survey.to_fetch() > MUCH {
        let stdin = std::io::stdin();
        let terminal = stdin.is_terminal();
        agree(survey.to_fetch(), terminal.then(|| Box::new(stdin.lock()) as Box<dyn BufRead>))?;
    }
    let shown = Shown::new(&survey);
    let outcome = fetch::run(&hub, &survey, keep, &shown);
    drop(shown);
    let outcome = outcome?;

    let brought: Vec<PathBuf> = outcome.brought.iter().map(|path| folder.join(path)).collect();
    match brought.as_slice() {
        [] => {
            console::tell(format_args!("Nothing to fetch: everything is already in {}\n", folder.display()))
        }
        few if few.len() <= 20 => {
            few.iter().for_each(|path| console::tell(format_args!("{}\n", path.display())));
        }
        many => console::tell(format_args!("{} files in {}\n", many.len(), folder.display())),
    }
    Ok(())
}

/// Describes a survey for the terminal: parts with sizes, licences, the total, and the disk space needed beside the `free`
/// bytes available.
pub fn describe(survey: &Survey, keep: bool, free: u64) -> String {
    let (from, folder) = (survey.repository.told(), survey.folder.display());
    let mut text = format!("{}: {from}, into {folder}\n", survey.title);
    let width = survey.parts.iter().map(|part| part.name.len()).max().unwrap_or(0);
    for part in &survey.parts {
        let licence = part.licence.as_ref().map_or(String::new(), |licence| format!("  {licence}"));
        writeln!(text, "  {:width$}  {:>10}{licence}{}", part.name, size(part), standing(part)).ok();
    }
    let card = survey.licence.as_ref().map(|licence| format!("{licence} (the repository's card)"));
    let licences: Vec<String> = card.into_iter().chain(survey.licences.clone()).collect();
    let is_stated = survey.parts.iter().all(|part| part.licence.is_some());
    match licences.as_slice() {
        [] if is_stated => {}
        [] => {
            writeln!(text, "Licence: not stated on the repository's card; see the authors' pages").ok();
        }
        several => {
            writeln!(text, "Licence: {}", several.join("; ")).ok();
        }
    }
    let (fetch, disk) = (gigabytes(survey.to_fetch()), gigabytes(survey.disk(keep)));
    writeln!(text, "To fetch: {fetch}; disk needed: about {disk}, free: {}", gigabytes(free)).ok();
    text
}

fn size(part: &SurveyedPart) -> String {
    match part.items.len() {
        0 => "as above".to_owned(),
        _ => gigabytes(part.items.iter().map(|item| item.entry.size).sum()),
    }
}

/// Describes the number of files of a part and how much of it is already present.
fn standing(part: &SurveyedPart) -> String {
    let count = |is: fn(&State) -> bool| part.items.iter().filter(|item| is(&item.state)).count();
    let all = part.items.len();
    let files = if all > 1 { format!("  {all} files") } else { String::new() };
    let here = count(|state| *state == State::Here);
    let told = if count(|state| *state == State::Foreign) > 0 {
        "  present, but not from this command: left as it is".to_owned()
    } else if all > 0 && here == all {
        "  already present".to_owned()
    } else if count(|state| matches!(state, State::Cached(_))) == all && all > 0 {
        "  in the hub's cache".to_owned()
    } else {
        let missing: u64 = part.items.iter().map(FetchItem::to_fetch).sum();
        let size: u64 = part.items.iter().map(|item| item.entry.size).sum();
        if missing < size { format!("  {} of it present", gigabytes(size - missing)) } else { String::new() }
    };
    files + &told
}

/// Asks on `terminal` whether to fetch this many bytes.
fn agree(bytes: u64, terminal: Option<Box<dyn BufRead + '_>>) -> anyhow::Result<()> {
    let much = gigabytes(bytes);
    let Some(mut terminal) = terminal else {
        bail!("fetching {much} needs confirmation, but standard input is not a terminal\n  help: pass --yes");
    };
    console::tell(format_args!("Fetch {much}? [y/N] "));
    let mut answer = String::new();
    terminal.read_line(&mut answer).context("cannot read the answer")?;
    if !matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
        bail!("nothing was fetched");
    }
    Ok(())
}

/// Shows progress on standard error: on a terminal, one bar per large file and one for the total; otherwise plain lines.
struct Shown {
    all: ProgressBar,
    bars: Option<MultiProgress>,
    /// Time at which the last line was written.
    last: Arc<Mutex<Instant>>,
}

impl Shown {
    fn new(survey: &Survey) -> Self {
        let bars = std::io::stderr().is_terminal().then(MultiProgress::new);
        let all = bars.as_ref().map_or_else(ProgressBar::hidden, |bars| bars.add(ProgressBar::no_length()));
        all.set_length(survey.to_fetch());
        all.set_style(style());
        all.set_message("all");
        Shown { all, bars, last: Arc::new(Mutex::new(Instant::now())) }
    }
}

fn style() -> ProgressStyle {
    let template =
        "{msg} {wide_bar} {decimal_bytes}/{decimal_total_bytes}, {decimal_bytes_per_sec}, {eta} left";
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.all.finish_and_clear();
    }
}

impl Watch for Shown {
    fn begin(&self, work: Work, what: &str, total: u64) -> Box<dyn Track> {
        let doing = match work {
            Work::Fetch => "fetching",
            Work::Check => "checking",
            Work::Unpack => "unpacking",
        };
        let big = total >= BIG;
        let bar = self.bars.as_ref().filter(|_| big).map(|bars| {
            let bar = bars.insert_before(&self.all, ProgressBar::new(total).with_style(style()));
            bar.set_message(format!("{doing} {what}"));
            bar
        });
        if big && self.bars.is_none() {
            console::note(format_args!("{doing} {what} ({})", gigabytes(total)));
        }
        Box::new(File {
            all: (work == Work::Fetch).then(|| self.all.clone()),
            bar,
            lines: self.bars.is_none().then(|| self.last.clone()),
            before: Cell::new(None),
        })
    }

    fn note(&self, line: &str) {
        match &self.bars {
            Some(bars) => bars.println(line).unwrap_or_else(|_| console::note(line)),
            None => console::note(line),
        }
    }
}

/// Progress of one file.
struct File {
    /// The total that counts the file's bytes, if they come from the hub.
    all: Option<ProgressBar>,
    bar: Option<ProgressBar>,
    /// Time at which the last line was written; none on a terminal.
    lines: Option<Arc<Mutex<Instant>>>,
    before: Cell<Option<u64>>,
}

impl Track for File {
    fn at(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(bytes);
        }
        let Some(all) = &self.all else { return };
        match self.before.replace(Some(bytes)) {
            // Bytes present at the start are not among those to fetch.
            None => {}
            Some(before) if bytes >= before => all.inc(bytes - before),
            // The download restarted: there is more to fetch.
            Some(before) => all.inc_length(before - bytes),
        }
        if let Some(last) = self.lines.as_ref().and_then(|last| last.lock().ok()) {
            line_at_times(last, all.position(), all.length().unwrap_or(0), all.elapsed());
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn line_at_times(mut last: MutexGuard<'_, Instant>, done: u64, total: u64, elapsed: Duration) {
    if last.elapsed() >= QUIET {
        *last = Instant::now();
        console::note(line(done, total, elapsed));
    }
}

/// Formats progress as `1.2 GB of 8.4 GB, 40 MB/s, 3 minutes left`.
fn line(done: u64, total: u64, elapsed: Duration) -> String {
    let rate = done as f64 / elapsed.as_secs_f64().max(1e-3);
    let left = if done > 0 && done < total {
        let seconds = (total - done) as f64 / rate;
        format!(", {} left", HumanDuration(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)))
    } else {
        String::new()
    };
    format!("{} of {}, {}/s{left}", gigabytes(done), gigabytes(total), gigabytes(rate as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn much_is_asked_for() {
        let answer = |text: &'static str| agree(8_400_000_000, Some(Box::new(text.as_bytes())));
        answer("y\n").unwrap();
        answer("Yes\n").unwrap();
        for no in ["\n", "n\n", ""] {
            assert_eq!(answer(no).unwrap_err().to_string(), "nothing was fetched");
        }
        let alone = agree(8_400_000_000, None).unwrap_err().to_string();
        assert!(alone.contains("8.40 GB") && alone.contains("--yes"), "{alone}");
    }

    #[test]
    fn bytes_count_once() {
        let all = ProgressBar::hidden();
        all.set_length(100);
        let file = File { all: Some(all.clone()), bar: None, lines: None, before: Cell::new(None) };
        // 50 bytes were present, 30 arrived, the download restarted, and all 150 arrived.
        [50, 80, 0, 150].into_iter().for_each(|bytes| file.at(bytes));
        assert_eq!((all.position(), all.length()), (180, Some(180)));
    }

    #[test]
    fn a_line_has_rate_and_time_left() {
        let text = line(1_200_000_000, 8_400_000_000, Duration::from_secs(30));
        assert_eq!(text, "1.20 GB of 8.40 GB, 40.00 MB/s, 3 minutes left");
        assert_eq!(line(0, 5, Duration::ZERO), "0 B of 5 B, 0 B/s");
    }
}
