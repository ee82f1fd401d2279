//! Checks the data of each suite, in the folders that [`crate::locations`] finds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::{Area, Finding, Measured, Samples, Standing};
use crate::audit;
use crate::data::{self, Dataset, Split};
use crate::demo;
use crate::error::AtPath;
use crate::fetch::catalogue::{Catalogue, TaskFiles};
use crate::fetch::ledger::{self, Line};
use crate::files::inside;
use crate::home::Home;
use crate::locations::{Environment, Location};
use crate::task::{Suite, Task};
use crate::{Error, Result, remedy};

/// The partition with the official number of samples.
const DEFAULT: &str = "default";

/// Checks every suite that can be read or fetched.
pub fn examine(home: &Home, environment: &Environment) -> Vec<Finding> {
    let fetched = home.names("benchmarks/fetch").unwrap_or_default();
    let read = home.suites().unwrap_or_default();
    let all: BTreeSet<&String> = fetched.iter().chain(&read).collect();
    let each = |name: &String| {
        // A suite may be only one of the two: not read by the harness yet, or published nowhere.
        let suite = read.contains(name).then(|| Suite::load(home, name)).transpose();
        let catalogue = fetched.contains(name).then(|| Catalogue::load(home, name)).transpose();
        match (suite, catalogue) {
            // Nothing has to be there of data that are generated.
            (Ok(Some(suite)), Ok(None)) if suite.repository.is_empty() => Vec::new(),
            (Ok(suite), Ok(catalogue)) => of_suite(environment, name, suite.as_ref(), catalogue.as_ref()),
            (Err(error), _) | (_, Err(error)) => {
                vec![Finding::of_error(Area::Data, name, Standing::Broken, &error)]
            }
        }
    };
    all.into_iter().flat_map(each).collect()
}

fn of_suite(
    environment: &Environment,
    name: &str,
    suite: Option<&Suite>,
    catalogue: Option<&Catalogue>,
) -> Vec<Finding> {
    let of_suite = suite.map(|suite| (&suite.title, &suite.environment));
    let of_catalogue = catalogue.map(|known| (&known.title, &known.environment));
    let Some((title, variable)) = of_suite.or(of_catalogue) else { return Vec::new() };
    let finding = |standing, found| Finding::new(Area::Data, title, standing, found);
    let fetch = remedy::fetch::<&str>(name, &[], None);
    let place = match environment.find(name, variable, None) {
        Ok(Some(place)) => place,
        Ok(None) => {
            let places = environment.places(name, variable, None);
            let places: Vec<String> = places.iter().map(|place| place.folder.display().to_string()).collect();
            let found = format!(
                "not found: ${variable} is not set, and none of these folders exists: {}",
                places.join(", ")
            );
            return vec![finding(Standing::Absent, found).remedy(fetch)];
        }
        Err(error) => {
            let absent = Finding::of_error(Area::Data, title, Standing::Absent, &error);
            return vec![absent.remedy(format!("{fetch}, or unset {variable}"))];
        }
    };
    let Location { folder, said_by, .. } = &place;
    let lines = match std::fs::read_dir(folder).at(folder).and_then(|_| ledger::read(folder)) {
        Ok(lines) => lines,
        Err(error) => {
            let broken = Finding::of_error(Area::Data, title, Standing::Broken, &error).at(folder);
            return vec![broken.remedy(format!("chmod -R u+rX {}", remedy::path(folder)))];
        }
    };
    let destination = environment.destination(name, variable, None);
    let elsewhere = destination.is_ok_and(|destination| destination.folder != *folder);
    let found = Found { suite: name, folder, elsewhere, lines: &lines };

    let mut findings = vec![
        match demo::is_demo(folder) {
            false => finding(Standing::Good, format!("in {} ({said_by})", folder.display())),
            true => {
                finding(Standing::Doubtful, format!("generated demo data, not the benchmark ({said_by})"))
                    .remedy(format!("unset {variable}; `{}` does not need it", remedy::DEMO))
            }
        }
        .at(folder),
    ];
    let files = |task: &str| catalogue.and_then(|known| known.tasks.iter().find(|files| files.name == task));
    if let Some(suite) = suite {
        findings.extend(suite.tasks.iter().map(|task| found.task(suite, task, files(&task.name))));
    }
    let unread = |files: &&TaskFiles| suite.is_none_or(|suite| suite.task(&files.name).is_err());
    let others = catalogue.map_or(&[][..], |known| &known.tasks).iter().filter(unread);
    findings.extend(others.map(|files| found.files(files)));
    findings
}

/// The data folder of a suite.
struct Found<'a> {
    suite: &'a str,
    folder: &'a Path,
    /// Whether fetching would write to a different folder unless this one is passed.
    elsewhere: bool,
    /// The ledger of what was fetched into it.
    lines: &'a BTreeMap<String, Line>,
}

impl Found<'_> {
    /// Checks a task that the harness reads.
    fn task(&self, suite: &Suite, task: &Task, files: Option<&TaskFiles>) -> Finding {
        let Some(folder) = data::task_folder(suite, task, self.folder) else {
            return self.absent(&task.name);
        };
        let lines = files.map(|files| self.lines_of(files)).unwrap_or_default();
        let finding = match self.look(suite, task, &folder, &lines) {
            Ok(finding) => finding,
            Err(error) => {
                let broken = Finding::of_error(Area::Data, &task.name, Standing::Broken, &error);
                broken.remedy(self.again(&task.name, &folder, !lines.is_empty()))
            }
        };
        finding.at(&folder)
    }

    fn look(&self, suite: &Suite, task: &Task, folder: &Path, lines: &[&Line]) -> Result<Finding> {
        let partitions = data::partitions(suite, folder)?;
        let tables = suite.tables.iter().filter(|table| table.tasks.contains(&task.name));
        let wanted: BTreeSet<&String> = tables.flat_map(|table| &table.partitions).collect();
        let lacking: Vec<&str> =
            wanted.iter().filter(|name| !partitions.contains(name)).map(|name| name.as_str()).collect();
        if !lacking.is_empty() {
            let there = if partitions.is_empty() { "none".to_owned() } else { partitions.join(", ") };
            let problem = format!("partition {} is missing; available: {there}", lacking.join(", "));
            return Err(Error::damaged(folder, problem));
        }

        let mut files = BTreeSet::new();
        for partition in &partitions {
            let dataset = data::open(suite, task, self.folder, partition)?;
            files.extend(Split::ALL.into_iter().flat_map(|split| dataset.files(split)));
        }
        let gone: Vec<&PathBuf> = files.iter().filter(|path| !path.is_file()).collect();
        let samples = match partitions.iter().any(|partition| partition == DEFAULT) {
            true => samples(task, data::open(suite, task, self.folder, DEFAULT)?.as_ref()),
            false => BTreeMap::new(),
        };
        let missing = gone.len();
        let told = counts(&samples);
        let names = partitions.join(", ");
        let measured = Measured::Task { samples: samples.clone(), partitions, missing };
        let finding = |standing, found| {
            Finding::new(Area::Data, &task.name, standing, found).measured(measured.clone())
        };
        let broken = |found| {
            finding(Standing::Broken, found).remedy(self.again(&task.name, folder, !lines.is_empty()))
        };
        if let Some(first) = gone.first() {
            let problem = format!("{missing} of {} sample files are missing: {}", files.len(), shown(first));
            return Ok(broken(format!("{problem}{}", dots(missing))));
        }
        let spoilt: Vec<PathBuf> = lines.iter().flat_map(|line| line.spoilt(self.folder)).collect();
        if let Some(first) = spoilt.first() {
            let problem = format!(
                "{} files are missing or changed in size since they were fetched: {}",
                spoilt.len(),
                shown(first)
            );
            return Ok(broken(format!("{problem}{}", dots(spoilt.len()))));
        }
        let mut misnamed = None;
        // One sample and the statistics stand in for the contents of all files.
        if let Some(partition) = wanted.first() {
            let dataset = data::open(suite, task, self.folder, partition)?;
            // Only bands that models use: the official statistics of some others are meaningless.
            let taken = |band: &String| suite.band_names(task).values().any(|name| name == band);
            let mut bands = dataset.bands()?;
            bands.iter_mut().for_each(|names| names.retain(taken));
            if let Some(split) = Split::ALL.into_iter().find(|split| !dataset.samples(*split).is_empty()) {
                dataset.read(split, 0, &bands)?;
                misnamed = names_differ(task, dataset.as_ref(), split)?;
            }
            // Statistics missing from the files would be computed from all images, which takes too long here.
            if dataset.statistics_content()?.is_some() {
                for (image, names) in bands.iter().enumerate() {
                    dataset.statistics(image, names)?;
                }
            }
        }
        let official = samples.values().all(|count| count.listed == count.official);
        let misnamed = misnamed.map(|note| format!("; {note}")).unwrap_or_default();
        let found = format!("{told}; partitions {names}{misnamed}");
        Ok(match official {
            true => finding(Standing::Good, found),
            false => finding(Standing::Doubtful, format!("complete, but not the official data: {found}"))
                .remedy(self.again(&task.name, folder, !lines.is_empty())),
        })
    }

    /// Checks a task that can only be fetched, of which only the files are known.
    fn files(&self, files: &TaskFiles) -> Finding {
        let finding = |standing, found| Finding::new(Area::Data, &files.name, standing, found);
        let lines = self.lines_of(files);
        let spoilt: Vec<PathBuf> = lines.iter().flat_map(|line| line.spoilt(self.folder)).collect();
        let all = files.files.iter().all(|source| lines.iter().any(|line| source.brings(&line.to)));
        if let Some(first) = spoilt.first() {
            let problem = format!(
                "{} files are missing or changed in size since they were fetched: {}",
                spoilt.len(),
                shown(first)
            );
            let broken = finding(Standing::Broken, format!("{problem}{}", dots(spoilt.len())));
            return broken.remedy(self.fetch(&files.name));
        }
        if all {
            let count = |line: &&Line| line.unpacked.as_ref().map_or(1, |unpacked| unpacked.files.len());
            let files: usize = lines.iter().map(count).sum();
            return finding(Standing::Good, format!("{files} files, as fetched"));
        }
        if !lines.is_empty() {
            let partly = finding(Standing::Absent, "only partly fetched".to_owned());
            return partly.remedy(self.fetch(&files.name));
        }
        // A folder that its archive would be unpacked to, or that would contain its files.
        let mut folders = files.files.iter().filter_map(|source| {
            let path = source.unpack.as_ref().or(source.to.as_ref());
            let folder = path.map_or_else(|| source.path.split('/').next(), |path| Some(path))?;
            inside(self.folder, folder).ok().filter(|folder| folder.exists())
        });
        match folders.next() {
            Some(folder) => {
                let found = "present, but not fetched by `cargo xtask fetch`, so not verified".to_owned();
                finding(Standing::Good, found).at(&folder)
            }
            None => self.absent(&files.name),
        }
    }

    fn lines_of(&self, files: &TaskFiles) -> Vec<&Line> {
        let of_task = |line: &&Line| files.files.iter().any(|source| source.brings(&line.to));
        self.lines.values().filter(of_task).collect()
    }

    fn absent(&self, task: &str) -> Finding {
        Finding::new(Area::Data, task, Standing::Absent, "not present").remedy(self.fetch(task))
    }

    fn fetch(&self, task: &str) -> String {
        remedy::fetch(self.suite, &[task], self.elsewhere.then_some(self.folder))
    }

    /// Returns the command that obtains a task again: fetching repairs what was `fetched` but leaves other
    /// files alone.
    fn again(&self, task: &str, folder: &Path, fetched: bool) -> String {
        let fetch = self.fetch(task);
        if fetched {
            return fetch;
        }
        let (old, aside) = (remedy::path(folder), remedy::path(&folder.with_extension("old")));
        format!("mv {old} {aside} && {fetch}")
    }
}

/// Number of samples inspected to detect misnamed bands: a single one may show only dark water.
const LOOKED_AT: usize = 16;

/// Explains what is wrong with the bands' names, if the files show it.
fn names_differ(task: &Task, dataset: &dyn Dataset, split: Split) -> Result<Option<String>> {
    if task.quick_look.is_none() {
        return Ok(None);
    }
    let all = dataset.samples(split).len();
    let mut largest: BTreeMap<String, f64> = BTreeMap::new();
    for i in 0..all.min(LOOKED_AT) {
        for (name, band) in dataset.read_raw(split, i * all / all.min(LOOKED_AT))?.bands() {
            let of_band = largest.entry(name).or_insert(f64::MIN);
            *of_band = band.pixels.iter().copied().fold(*of_band, f64::max);
        }
    }
    let largest: Vec<(&str, f64)> = largest.iter().map(|(band, largest)| (band.as_str(), *largest)).collect();
    let differ = audit::names::holds_quick_look(task, &largest).unwrap_or(false);
    Ok(differ.then(|| format!("{}; {}", audit::names::explanation(task), audit::names::REMEDY)))
}

fn samples(task: &Task, dataset: &dyn Dataset) -> BTreeMap<Split, Samples> {
    let count = |split| Samples { listed: dataset.samples(split).len(), official: task.samples.of(split) };
    Split::ALL.into_iter().map(|split| (split, count(split))).collect()
}

/// Formats the counts: `train 2000, valid 1000, test 20 of 1000 samples`.
fn counts(samples: &BTreeMap<Split, Samples>) -> String {
    let told = samples.iter().map(|(split, Samples { listed, official })| match listed == official {
        true => format!("{split} {listed}"),
        false => format!("{split} {listed} of {official}"),
    });
    match samples.is_empty() {
        true => format!("no partition {DEFAULT}"),
        false => format!("{} samples", told.collect::<Vec<_>>().join(", ")),
    }
}

fn shown(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn dots(count: usize) -> &'static str {
    if count > 1 { ", …" } else { "" }
}
