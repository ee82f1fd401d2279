//! Reads the lists of samples in each split [zhu-xlab/Copernicus-FM, Copernicus-Bench/src/datasets].

use std::collections::HashMap;

use super::files::Files;
use super::flood;
use super::item::{ListedSample, TargetPlace, day, first_day};
use crate::data::Target;
use crate::error::AtPath;
use crate::files::{inside, relative_name};
use crate::formats::text::without_mark;
use crate::task::Split;
use crate::task::{DatasetLayout, Task};
use crate::{Error, Result};

/// Name of a split in file names.
pub fn split_name(split: Split) -> &'static str {
    match split {
        Split::Train => "train",
        Split::Valid => "val",
        Split::Test => "test",
    }
}

/// Reads the samples of a split, in the list's order.
///
/// # Errors
/// If the list does not exist, is damaged or names a class that the task does not have.
pub fn read(task: &Task, layout: DatasetLayout, files: &Files, split: Split) -> Result<Vec<ListedSample>> {
    let split = split_name(split);
    let list = match layout {
        DatasetLayout::Cloud | DatasetLayout::CloudS3 | DatasetLayout::AirQuality => format!("{split}.csv"),
        DatasetLayout::Eurosat => format!("eurosat-{split}.txt"),
        DatasetLayout::EurosatSpatial => format!("eurosat-spatial-{split}.txt"),
        DatasetLayout::BigearthnetS1 | DatasetLayout::BigearthnetS2 | DatasetLayout::Lc100Cls => {
            format!("multilabel-{split}.csv")
        }
        DatasetLayout::Lc100Seg | DatasetLayout::BiomassS3 => format!("static_fnames-{split}.csv"),
        DatasetLayout::Dfc2020S1 | DatasetLayout::Dfc2020S2 => format!("dfc-{split}-new.csv"),
        DatasetLayout::Flood => format!("grid_dict_{split}.json"),
        DatasetLayout::Lcz => return Err(Error::mismatch(format!("{} has no lists", task.name))),
    };
    let incomplete = "the data set is incomplete or damaged: `cargo xtask doctor` lists every problem and says how to \
                      fetch it again";
    let text_of = |list: &str| {
        // torchgeo's lists are not part of the archive: they may lie beside it, or beside the folder.
        let beside = files.root().parent().map(|folder| folder.join(list));
        let beside = beside.filter(|_| layout == DatasetLayout::EurosatSpatial && !files.has(list));
        let (path, bytes) = match beside {
            Some(path) => (path.clone(), std::fs::read(&path).at(&path)),
            None => (files.path(list), files.read(list)),
        };
        String::from_utf8(bytes.map_err(|error| error.help(incomplete))?)
            .map_err(|_| Error::damaged(path, "is not UTF-8 text").help(incomplete))
    };
    let text = text_of(&list)?;
    let text = without_mark(&text);
    if layout == DatasetLayout::Flood {
        return flood::samples(text, files)
            .map_err(|problem| Error::damaged(files.path(&list), problem).help(incomplete));
    }
    let mut lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty());
    let mut columns = Columns::default();
    if matches!(layout, DatasetLayout::BigearthnetS1 | DatasetLayout::BigearthnetS2) {
        let header = lines.next().map(|(_, line)| cells(line)).unwrap_or_default();
        columns = Columns::of(task, layout, &header)
            .map_err(|problem| Error::damaged(files.path(&list), problem).help(incomplete))?;
    }
    // The file of the image of each place, which LC100's list of labels lacks.
    let mut static_files = HashMap::new();
    if layout == DatasetLayout::Lc100Cls {
        lines.next();
        if !is_dated(task) {
            let list = format!("static_fnames-{split}.csv");
            let text = text_of(&list)?;
            let pairs = without_mark(&text).lines().map(str::trim).filter(|line| !line.is_empty());
            for (number, line) in pairs.enumerate() {
                let [id, file] = static_image(line).map_err(|problem| {
                    Error::damaged(files.path(&list), format!("line {}: {problem}", number + 1))
                        .help(incomplete)
                })?;
                static_files.insert(id, file);
            }
        }
    }
    lines
        .map(|(number, line)| {
            let name = &relative_name(line);
            let item = match layout {
                DatasetLayout::Cloud => Ok(cloud(name)),
                DatasetLayout::CloudS3 => Ok(cloud_s3(name)),
                DatasetLayout::Eurosat | DatasetLayout::EurosatSpatial => eurosat(task, name),
                DatasetLayout::Lc100Cls => lc100_labels(task, files, line, &static_files),
                DatasetLayout::Lc100Seg => of_place(task, files, line, "lc100"),
                DatasetLayout::BiomassS3 => of_place(task, files, line, "biomass"),
                DatasetLayout::AirQuality => air_quality(task, files, name),
                DatasetLayout::BigearthnetS1 | DatasetLayout::BigearthnetS2 => columns.item(line),
                DatasetLayout::Dfc2020S1 => Ok(dfc2020(name, "s1")),
                DatasetLayout::Dfc2020S2 | DatasetLayout::Flood | DatasetLayout::Lcz => {
                    Ok(dfc2020(name, "s2"))
                }
            };
            item.and_then(|item| safe(item).map_err(|error| error.to_string())).map_err(|problem| {
                Error::damaged(files.path(&list), format!("line {}: {problem}", number + 1)).help(incomplete)
            })
        })
        .collect()
}

/// Returns the item if all its files lie inside the data set's folder.
fn safe(item: ListedSample) -> Result<ListedSample> {
    let root = std::path::Path::new("");
    for file in item.files() {
        inside(root, file)?;
    }
    Ok(item)
}

/// Parses `ROI_00002__…`, a name without extension.
fn cloud(line: &str) -> ListedSample {
    ListedSample {
        name: line.to_owned(),
        images: vec![format!("s2_toa/{line}.tif")],
        days: vec![line.split("__").nth(1).and_then(day)],
        target: TargetPlace::File(format!("cloud/{line}.tif")),
    }
}

/// Parses `S3A_OL_1_EFR____20200703T154217_….tif`, the name of the image and of the mask.
fn cloud_s3(line: &str) -> ListedSample {
    ListedSample {
        name: line.strip_suffix(".tif").unwrap_or(line).to_owned(),
        images: vec![format!("s3_olci/{line}")],
        days: vec![first_day(line)],
        target: TargetPlace::File(format!("cloud_multi/{line}")),
    }
}

/// Whether the task has all dates of a place instead of one.
fn is_dated(task: &Task) -> bool {
    task.images.len() > 1
}

/// Parses `<place>,<file>`: a place and the file of its image.
fn static_image(line: &str) -> Result<[String; 2], String> {
    let cells = cells(line);
    let found = cells.len();
    <[String; 2]>::try_from(cells).map_err(|_| format!("has {found} cells; expected 2, a place and its file"))
}

/// Parses a line of LC100's labels: a place and a 0 or 1 per class, in the order of the classes. The header's names are not
/// documented, so they are not read. The image is that of the same place in the list of files, as in the reference; torchgeo
/// takes that of the same line, another place in the test split.
fn lc100_labels(
    task: &Task,
    files: &Files,
    line: &str,
    static_files: &HashMap<String, String>,
) -> Result<ListedSample, String> {
    let cells = cells(line);
    let expected = task.classes + 1;
    if cells.len() != expected {
        return Err(format!("has {} cells; expected {expected}, a place and its labels", cells.len()));
    }
    let labels = cells[1..].iter().map(|cell| label(cell)).collect::<Result<_, _>>()?;
    let target = TargetPlace::Known(Target::Labels(labels));
    let id = relative_name(&cells[0]);
    if is_dated(task) {
        return dated("s3_olci", task, files, &id, target);
    }
    let file = static_files
        .get(&id)
        .ok_or_else(|| format!("the list of files, static_fnames, has no place `{id}`"))?;
    Ok(one_image("s3_olci", &id, file, target))
}

/// Parses `<place>,<file>`, with a label per pixel in the file `<labels>/<place>.tif`.
fn of_place(task: &Task, files: &Files, line: &str, labels: &str) -> Result<ListedSample, String> {
    let [id, file] = static_image(line)?;
    let id = relative_name(&id);
    let target = TargetPlace::File(format!("{labels}/{id}.tif"));
    match is_dated(task) {
        true => dated("s3_olci", task, files, &id, target),
        false => Ok(one_image("s3_olci", &id, &file, target)),
    }
}

/// Parses the name of a place of Europe's grid, whose images are of a year and of its seasons.
fn air_quality(task: &Task, files: &Files, id: &str) -> Result<ListedSample, String> {
    let target = TargetPlace::File(format!("label_annual/{id}.tif"));
    match is_dated(task) {
        true => dated("s5p_seasonal", task, files, id, target),
        false => Ok(one_image("s5p_annual", id, "2021-01-01_2021-12-31.tif", target)),
    }
}

fn one_image(folder: &str, id: &str, file: &str, target: TargetPlace) -> ListedSample {
    ListedSample {
        name: id.to_owned(),
        images: vec![format!("{folder}/{id}/{}", relative_name(file))],
        days: vec![first_day(file)],
        target,
    }
}

/// All dates of a place, by name: as many as the task has images. Where there are fewer, the last is repeated, as in the
/// reference, which takes them in the order of the directory; torchgeo sorts them too.
fn dated(
    folder: &str,
    task: &Task,
    files: &Files,
    id: &str,
    target: TargetPlace,
) -> Result<ListedSample, String> {
    let folder = format!("{folder}/{id}");
    inside(std::path::Path::new(""), &folder).map_err(|error| error.to_string())?;
    let mut names = files.below(&folder).map_err(|error| format!("`{id}`: {error}"))?;
    names.retain(|name| name.ends_with(".tif"));
    names.truncate(task.images.len());
    let last = names.last().cloned().ok_or_else(|| {
        format!("`{id}`: expected files <date>.tif, found none in {}", files.path(&folder).display())
    })?;
    names.resize(task.images.len(), last);
    Ok(ListedSample {
        name: id.to_owned(),
        days: names.iter().map(|name| first_day(name)).collect(),
        images: names.into_iter().map(|name| format!("{folder}/{name}")).collect(),
        target,
    })
}

/// Parses a cell with a 0 or a 1.
fn label(cell: &str) -> Result<bool, String> {
    match cell {
        "0" => Ok(false),
        "1" => Ok(true),
        other => Err(format!("expected the label 0 or 1, found `{other}`")),
    }
}

/// Parses `Industrial_7.jpg`: the class and the name of the TIFF file.
fn eurosat(task: &Task, line: &str) -> Result<ListedSample, String> {
    let name = line.strip_suffix(".jpg").or_else(|| line.strip_suffix(".tif")).unwrap_or(line);
    let class = name.split('_').next().unwrap_or_default();
    // The reference numbers the classes found in a split's list alphabetically; in the release each list has all of them.
    let index = task.class_names.iter().position(|known| known == class).ok_or_else(|| {
        format!(
            "unknown class `{class}` in `{line}`; {} has the classes {}",
            task.name,
            task.class_names.join(", ")
        )
    })?;
    Ok(ListedSample {
        name: name.to_owned(),
        images: vec![format!("all_imgs/{class}/{name}.tif")],
        days: vec![None],
        target: TargetPlace::Known(Target::Class(index)),
    })
}

/// Parses `ROIs0000_test_dfc_0_p609.tif`, the name of the mask; image names contain the sensor instead of `dfc`.
fn dfc2020(line: &str, sensor: &str) -> ListedSample {
    ListedSample {
        name: line.strip_suffix(".tif").unwrap_or(line).to_owned(),
        images: vec![format!("{sensor}/{}", line.replace("dfc", sensor))],
        days: vec![None],
        target: TargetPlace::File(format!("dfc/{line}")),
    }
}

/// Positions of the columns in BigEarthNet's list.
#[derive(Debug, Default)]
struct Columns {
    folder: &'static str,
    /// Index of the date among the parts of a file's name that underscores separate.
    date: usize,
    path: usize,
    /// One column per label.
    labels: Vec<usize>,
    all: usize,
}

impl Columns {
    fn of(task: &Task, layout: DatasetLayout, header: &[String]) -> Result<Self, String> {
        let (folder, path, date) = match layout {
            DatasetLayout::BigearthnetS1 => ("BigEarthNet-S1-5%", "s1_path", 4),
            _ => ("BigEarthNet-S2-5%", "s2_path", 2),
        };
        let column = |name: &str| {
            header
                .iter()
                .position(|column| column == name)
                .ok_or_else(|| format!("line 1 has no column `{name}`; columns found: {}", header.join("; ")))
        };
        let labels = task.class_names.iter().map(|name| column(name)).collect::<Result<_, _>>()?;
        Ok(Columns { folder, date, path: column(path)?, labels, all: header.len() })
    }

    fn item(&self, line: &str) -> Result<ListedSample, String> {
        let cells = cells(line);
        if cells.len() != self.all {
            return Err(format!("has {} cells; expected {}, as in the header", cells.len(), self.all));
        }
        let labels = self.labels.iter().map(|column| label(&cells[*column])).collect::<Result<_, _>>()?;
        let path = &relative_name(&cells[self.path]);
        let file = path.rsplit('/').next().unwrap_or(path);
        Ok(ListedSample {
            name: file.strip_suffix("_allbands.tif").unwrap_or(file).to_owned(),
            images: vec![format!("{}/{path}", self.folder)],
            days: vec![file.split('_').nth(self.date).and_then(day)],
            target: TargetPlace::Known(Target::Labels(labels)),
        })
    }
}

/// Splits a line of CSV into cells [RFC 4180].
fn cells(line: &str) -> Vec<String> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(line.as_bytes());
    let record = reader.records().next().and_then(std::result::Result::ok).unwrap_or_default();
    record.iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::cells;

    #[test]
    fn quoted_cells_keep_their_commas() {
        assert_eq!(cells(r#"a,"b, c",,"say ""so""""#), ["a", "b, c", "", r#"say "so""#]);
    }
}
