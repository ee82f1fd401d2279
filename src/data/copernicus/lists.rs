//! Reads the lists of samples in each split [zhu-xlab/Copernicus-FM, Copernicus-Bench/src/datasets].

use super::files::Files;
use super::flood;
use super::item::{ListedSample, TargetPlace, day};
use crate::data::Target;
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
        DatasetLayout::Cloud => format!("{split}.csv"),
        DatasetLayout::Eurosat => format!("eurosat-{split}.txt"),
        DatasetLayout::BigearthnetS1 | DatasetLayout::BigearthnetS2 => format!("multilabel-{split}.csv"),
        DatasetLayout::Dfc2020S1 | DatasetLayout::Dfc2020S2 => format!("dfc-{split}-new.csv"),
        DatasetLayout::Flood => format!("grid_dict_{split}.json"),
        DatasetLayout::Lcz => return Err(Error::mismatch(format!("{} has no lists", task.name))),
    };
    let incomplete = "the data set is incomplete or damaged: `cargo xtask doctor` lists every problem and says how to \
                      fetch it again";
    let text = String::from_utf8(files.read(&list).map_err(|error| error.help(incomplete))?)
        .map_err(|_| Error::damaged(files.path(&list), "is not UTF-8 text").help(incomplete))?;
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
    lines
        .map(|(number, line)| {
            let name = &relative_name(line);
            let item = match layout {
                DatasetLayout::Cloud => Ok(cloud(name)),
                DatasetLayout::Eurosat => eurosat(task, name),
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
        let label = |column: &usize| match cells[*column].as_str() {
            "0" => Ok(false),
            "1" => Ok(true),
            other => Err(format!("expected the label 0 or 1, found `{other}`")),
        };
        let labels = self.labels.iter().map(label).collect::<Result<_, _>>()?;
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
