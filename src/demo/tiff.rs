//! Writes the GeoTIFF files of the demo: uncompressed, bands interleaved by pixel, in one strip, with a place on the globe.

/// Numbers as stored.
pub enum Numbers {
    Uint8(Vec<u8>),
    Uint16(Vec<u16>),
    Float32(Vec<f32>),
}

impl Numbers {
    fn bits(&self) -> u16 {
        match self {
            Numbers::Uint8(_) => 8,
            Numbers::Uint16(_) => 16,
            Numbers::Float32(_) => 32,
        }
    }

    /// The sample format: 1 for unsigned integers, 3 for floats.
    fn format(&self) -> u16 {
        if matches!(self, Numbers::Float32(_)) { 3 } else { 1 }
    }

    fn bytes(&self) -> Vec<u8> {
        match self {
            Numbers::Uint8(numbers) => numbers.clone(),
            Numbers::Uint16(numbers) => numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
            Numbers::Float32(numbers) => numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
        }
    }
}

/// Longitude and latitude of the upper left corner, and the side of a pixel, in degrees.
#[derive(Debug, Clone, Copy)]
pub struct Corner {
    pub longitude: f64,
    pub latitude: f64,
    pub pixel: f64,
}

/// Types of values in a directory [TIFF 6.0]: number and bytes.
const SHORT: (u16, usize) = (3, 2);
const LONG: (u16, usize) = (4, 4);
const DOUBLE: (u16, usize) = (12, 8);

/// Encodes an image of `side` x `side` pixels; `numbers` holds all bands of the first pixel, then those of the next.
pub fn encode(side: usize, bands: usize, numbers: &Numbers, corner: Corner) -> Vec<u8> {
    let pixels = numbers.bytes();
    let shorts = |values: &[u16]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
    let longs = |value: usize| (value as u32).to_le_bytes().to_vec();
    let doubles = |values: &[f64]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
    // Geographic coordinates in WGS 84 that refer to a pixel's area.
    let keys = [1, 1, 0, 3, 1024, 0, 1, 2, 1025, 0, 1, 1, 2048, 0, 1, 4326];
    let tie = [0.0, 0.0, 0.0, corner.longitude, corner.latitude, 0.0];
    let extra = bands.saturating_sub(1);
    let mut entries: Vec<(u16, (u16, usize), Vec<u8>)> = vec![
        (256, LONG, longs(side)),
        (257, LONG, longs(side)),
        (258, SHORT, shorts(&vec![numbers.bits(); bands])),
        (259, SHORT, shorts(&[1])),
        (262, SHORT, shorts(&[1])),
        // The pixels follow the header.
        (273, LONG, longs(HEADER)),
        (277, SHORT, shorts(&[bands as u16])),
        (278, LONG, longs(side)),
        (279, LONG, longs(pixels.len())),
        (284, SHORT, shorts(&[1])),
    ];
    if extra > 0 {
        entries.push((338, SHORT, shorts(&vec![0; extra])));
    }
    entries.push((339, SHORT, shorts(&vec![numbers.format(); bands])));
    entries.push((33550, DOUBLE, doubles(&[corner.pixel, corner.pixel, 0.0])));
    entries.push((33922, DOUBLE, doubles(&tie)));
    entries.push((34735, SHORT, shorts(&keys)));

    let pad = pixels.len() % 2;
    let directory = HEADER + pixels.len() + pad;
    let mut file = [b"II".as_slice(), &42_u16.to_le_bytes(), &longs(directory)].concat();
    file.extend(pixels);
    file.resize(directory, 0);
    file.extend((entries.len() as u16).to_le_bytes());
    // Values of more than four bytes lie behind the directory.
    let mut behind = Vec::new();
    let first = directory + 2 + 12 * entries.len() + 4;
    for (tag, (kind, size), mut values) in entries {
        file.extend(tag.to_le_bytes());
        file.extend(kind.to_le_bytes());
        file.extend(longs(values.len() / size));
        if values.len() > 4 {
            file.extend(longs(first + behind.len()));
            behind.append(&mut values);
        } else {
            values.resize(4, 0);
            file.extend(values);
        }
    }
    file.extend([0; 4]);
    file.extend(behind);
    file
}

/// Interleaves planes of `side` x `side` pixels: all bands of the first pixel, then those of the next.
pub fn interleaved(side: usize, planes: &[Vec<f32>]) -> Vec<f32> {
    let at = |place: usize| planes.iter().map(move |plane| plane.get(place).copied().unwrap_or(0.0));
    (0..side * side).flat_map(at).collect()
}

/// Bytes before the pixels.
const HEADER: usize = 8;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::formats::geotiff::Image;

    #[test]
    fn the_reader_finds_numbers_and_place() {
        let corner = Corner { longitude: 11.0, latitude: 48.0, pixel: 0.5 };
        let numbers = Numbers::Uint16((0..12).collect());
        let image = Image::decode(Path::new("demo.tif"), encode(2, 3, &numbers, corner)).unwrap();
        assert_eq!((image.bands, image.rows, image.columns), (3, 2, 2));
        assert_eq!(image.band(1).iter().copied().collect::<Vec<f64>>(), [1.0, 4.0, 7.0, 10.0]);
        let place = image.georeference.unwrap().degrees(0, 0);
        assert_eq!(place, [11.25, 47.75], "the centre of the first pixel");

        let floats = Numbers::Float32(vec![-1.5, f32::NAN, 3.0, 4.0]);
        let image = Image::decode(Path::new("demo.tif"), encode(2, 1, &floats, corner)).unwrap();
        assert_eq!(image.band(0)[[0, 0]], -1.5);
        assert!(image.band(0)[[0, 1]].is_nan());
    }
}
