//! Containers in GEO-Bench-2's layout, written for tests.

use std::path::Path;

use ndarray::Array3;

use crate::parquet_file::{self, Cells};

/// A number that TIFF files hold.
pub trait Pixel: Copy {
    /// TIFF's name of the kind: 1 unsigned, 2 signed, 3 float.
    const FORMAT: u16;
    /// The bytes, little-endian.
    fn bytes(self) -> Vec<u8>;
}

macro_rules! pixel {
    ($($number:ty, $format:expr);*) => {$(
        impl Pixel for $number {
            const FORMAT: u16 = $format;
            fn bytes(self) -> Vec<u8> {
                self.to_le_bytes().to_vec()
            }
        }
    )*};
}
pixel!(u8, 1; u16, 1; i16, 2; f32, 3);

/// Encodes bands [bands, rows, columns] as an uncompressed TIFF, interleaved by pixel.
pub fn tiff<T: Pixel>(pixels: &Array3<T>) -> Vec<u8> {
    let (bands, rows, columns) = pixels.dim();
    let mut data = Vec::new();
    for row in 0..rows {
        for column in 0..columns {
            for band in 0..bands {
                data.extend(pixels[[band, row, column]].bytes());
            }
        }
    }
    let bits = (8 * data.len() / pixels.len()) as u16;
    let mut lists = Vec::new();
    let first = 8 + data.len() as u32;
    // A list of two-byte numbers beside the directory, unless it fits into it.
    let mut list = |number: u16| {
        let place = first + lists.len() as u32;
        lists.extend((0..bands).flat_map(|_| number.to_le_bytes()));
        if bands <= 2 {
            u32::from(number) | if bands == 2 { u32::from(number) << 16 } else { 0 }
        } else {
            place
        }
    };
    let (bits, formats) = (list(bits), list(T::FORMAT));
    let entries: [(u16, u16, u32, u32); 10] = [
        (256, 4, 1, columns as u32),
        (257, 4, 1, rows as u32),
        (258, 3, bands as u32, bits),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, 8),
        (277, 3, 1, bands as u32),
        (278, 4, 1, rows as u32),
        (279, 4, 1, data.len() as u32),
        (339, 3, bands as u32, formats),
    ];
    let mut file = b"II*\0".to_vec();
    file.extend((first + lists.len() as u32).to_le_bytes());
    file.extend(data);
    file.extend(lists);
    file.extend((entries.len() as u16).to_le_bytes());
    for (tag, kind, count, value) in entries {
        file.extend(tag.to_le_bytes());
        file.extend(kind.to_le_bytes());
        file.extend(count.to_le_bytes());
        file.extend(value.to_le_bytes());
    }
    file.extend(0_u32.to_le_bytes());
    file
}

/// A file of a sample.
#[derive(Clone)]
pub struct Contained {
    pub id: &'static str,
    pub format: &'static str,
    pub modality: Option<&'static str>,
    pub bytes: Vec<u8>,
}

impl Contained {
    /// A TIFF.
    pub fn tiff<T: Pixel>(id: &'static str, pixels: &Array3<T>) -> Self {
        Contained { id, format: "GTiff", modality: None, bytes: tiff(pixels) }
    }

    /// A TIFF of a modality.
    pub fn of<T: Pixel>(modality: &'static str, pixels: &Array3<T>) -> Self {
        Contained { modality: Some(modality), ..Contained::tiff(modality, pixels) }
    }
}

/// The label in the index.
#[derive(Clone)]
pub enum Labelled {
    Nothing,
    Class(i64),
    Names(Vec<&'static str>),
}

/// A sample: its id, split, label and files.
pub type Written = (String, &'static str, Labelled, Vec<Contained>);

/// A container of these files with this index of further columns.
fn container(rows: &[(String, &str, Vec<u8>)], further: Vec<(&str, Cells)>) -> Vec<u8> {
    let (mut files, mut offsets) = (Vec::new(), Vec::new());
    for (_, _, bytes) in rows {
        offsets.push(200 + files.len() as i64);
        files.extend(bytes);
    }
    let mut columns = vec![
        ("tortilla:id", Cells::Texts(rows.iter().map(|row| Some(row.0.clone())).collect())),
        ("tortilla:file_format", Cells::Texts(rows.iter().map(|row| Some(row.1.to_owned())).collect())),
        ("tortilla:offset", Cells::Integers(offsets)),
        ("tortilla:length", Cells::Integers(rows.iter().map(|row| row.2.len() as i64).collect())),
    ];
    columns.extend(further);
    let index = parquet_file::encode(&columns);
    let mut bytes = b"#y".to_vec();
    for number in [200 + files.len() as u64, index.len() as u64, 1] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.resize(200, 0);
    [bytes, files, index].concat()
}

/// Writes a container of samples, whose labels are in `column`.
pub fn write_tortilla(path: &Path, column: &str, samples: &[Written]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let inner = |files: &[Contained]| {
        let rows: Vec<_> =
            files.iter().map(|file| (file.id.to_owned(), file.format, file.bytes.clone())).collect();
        let modalities = files.iter().map(|file| file.modality.map(str::to_owned)).collect();
        container(&rows, vec![("modality", Cells::Texts(modalities))])
    };
    let rows: Vec<_> =
        samples.iter().map(|(id, _, _, files)| (id.clone(), "TORTILLA", inner(files))).collect();
    let splits = samples.iter().map(|sample| Some(sample.1.to_owned())).collect();
    let mut further = vec![("tortilla:data_split", Cells::Texts(splits))];
    let classes: Vec<i64> = samples
        .iter()
        .filter_map(|sample| if let Labelled::Class(class) = sample.2 { Some(class) } else { None })
        .collect();
    let names: Vec<Vec<String>> = samples
        .iter()
        .filter_map(|sample| match &sample.2 {
            Labelled::Names(names) => Some(names.iter().map(|name| (*name).to_owned()).collect()),
            _ => None,
        })
        .collect();
    if !classes.is_empty() {
        further.push((column, Cells::Integers(classes)));
    }
    if !names.is_empty() {
        further.push((column, Cells::TextLists(names)));
    }
    std::fs::write(path, container(&rows, further)).unwrap();
}

/// Writes samples into several parts of a container.
pub fn write_parts(folder: &Path, name: &str, parts: &[&[Written]]) {
    for (number, samples) in parts.iter().enumerate() {
        write_tortilla(&folder.join(format!("{name}.{number:04}.part.tortilla")), "labels", samples);
    }
}
