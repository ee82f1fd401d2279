//! GeoTIFF images: their pixels, and where they lie. This is the only module that uses a TIFF library.
//!
//! Supported are strips and tiles, interleaved by pixel or by band; uncompressed, deflate, LZW, PackBits and
//! Zstandard, with or without a predictor; integers of 1 to 64 bits and floats of 16 to 64. Numbers are
//! returned as stored, like GDAL does, whether the file declares them grayscale, RGB or palette indices. Blocks
//! that a sparse file omits read as its nodata value, or as 0 if it has none.

mod directory;
mod place;

use std::io::Cursor;
use std::path::Path;

use ndarray::{Array2, ArrayViewMut2};
use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::{TiffError, TiffResult};

use self::directory::{Directory, tag, unread_compression};
pub use self::place::Georeference;
use super::hdf5::Dtype;
use crate::{Error, Result};

/// Maximum number of pixels over all bands; larger images are taken for damage. Equals 13 bands of 3,200 x
/// 3,200.
const MAX_SAMPLES: usize = 1 << 27;

const DAMAGED: &str = "the file is damaged or belongs to another data set: download it again";
const CONVERT: &str = "convert with gdal_translate -co COMPRESS=DEFLATE";
const CONVERT_NUMBERS: &str = "convert with gdal_translate -ot Float32 -co COMPRESS=DEFLATE";

/// A decoded image.
#[derive(Debug)]
pub struct Image {
    /// Number of bands.
    pub bands: usize,
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub columns: usize,
    /// Where the pixels lie; `None` if the file does not say it, or in an unsupported coordinate system.
    pub georeference: Option<Georeference>,
    pixels: DecodingResult,
    /// Whether the bands are stored one after another instead of interleaved by pixel.
    planar: bool,
}

/// How the current file stores its pixels.
struct Stored {
    bands: usize,
    rows: usize,
    columns: usize,
    planar: bool,
    /// Bits per number.
    bits: usize,
    /// Whether the image is decoded block by block; the library is then told that tiles crossing the edge are
    /// inside the image.
    by_block: bool,
    /// Indices of blocks that the file omits, in ascending order.
    missing: Vec<usize>,
}

impl Image {
    /// Decodes `bytes`, the contents of the file at `path`.
    ///
    /// # Errors
    /// If the bytes are not a TIFF file, are damaged, use an unsupported feature, or declare an implausible
    /// size.
    pub fn decode(path: &Path, mut bytes: Vec<u8>) -> Result<Self> {
        let wrong =
            |problem: &dyn std::fmt::Display| Error::damaged(path, format!("invalid TIFF image: {problem}"));
        let damaged = |problem: &dyn std::fmt::Display| wrong(problem).help(DAMAGED);
        let library = |error: TiffError| match error {
            TiffError::UnsupportedError(problem) => wrong(&problem).help(CONVERT_NUMBERS),
            other => damaged(&other),
        };
        let Some(directory) = Directory::parse(&bytes) else {
            let error = Decoder::new(Cursor::new(bytes.as_slice())).err();
            return Err(error.map_or_else(|| damaged(&"its directory cannot be read"), library));
        };
        let find =
            |tag| directory.number(&bytes, tag).map(|number| usize::try_from(number).unwrap_or(usize::MAX));
        if let Some(compression) = find(tag::COMPRESSION).and_then(unread_compression) {
            return Err(wrong(&format!("compression {compression} is not supported")).help(CONVERT));
        }
        if find(tag::FILL_ORDER) == Some(2) {
            return Err(wrong(&"bits in reverse order are not supported").help(CONVERT));
        }
        let [bands, bits] = [tag::SAMPLES, tag::BITS].map(|tag| find(tag).unwrap_or(1));
        let [rows, columns] = [tag::HEIGHT, tag::WIDTH].map(|tag| find(tag).unwrap_or(0));
        let samples = rows.checked_mul(columns).and_then(|pixels| pixels.checked_mul(bands));
        let samples = samples.filter(|samples| (1..=MAX_SAMPLES).contains(samples)).ok_or_else(|| {
            damaged(&format!(
                "implausible size: {bands} bands of {rows} x {columns} pixels (limit 2^27 values)"
            ))
        })?;
        let planar = find(tag::PLANAR) == Some(2);
        let missing = directory.missing_blocks(&bytes).map_err(|problem| damaged(&problem))?;
        let no_data = if missing.is_empty() { None } else { directory.no_data(&bytes) };
        let georeference = Georeference::read(&directory, &bytes);
        let tile = find(tag::TILE_WIDTH).zip(find(tag::TILE_HEIGHT));
        let tile = tile.filter(|(width, height)| *width > 0 && *height > 0);
        let cut =
            tile.filter(|(width, height)| !columns.is_multiple_of(*width) || !rows.is_multiple_of(*height));
        directory.call_gray(&mut bytes);
        // The library assumes that the bottom tiles of all bands except the first are complete, so make all of
        // them complete.
        let by_block = !missing.is_empty() || (planar && cut.is_some());
        if let Some((width, height)) = cut.filter(|_| by_block) {
            let whole = [(tag::WIDTH, columns, width), (tag::HEIGHT, rows, height)];
            for (tag, length, side) in whole {
                let length = length.checked_next_multiple_of(side);
                if !length.is_some_and(|length| directory.set(&mut bytes, tag, length as u64)) {
                    return Err(wrong(&"its tiles extend too far beyond the image").help(CONVERT));
                }
            }
        }

        let decoder = Decoder::new(Cursor::new(bytes.as_slice())).map_err(library)?;
        // Tiles may be larger than the image.
        let of_tile = tile.map(|(width, height)| width.saturating_mul(height).saturating_mul(bands));
        if of_tile.is_some_and(|numbers| numbers > MAX_SAMPLES) {
            return Err(damaged(&"implausible tile size (limit 2^27 values)"));
        }
        let largest = of_tile.unwrap_or(0).max(samples);
        let mut limits = Limits::default();
        // At most eight bytes per number.
        limits.decoding_buffer_size = 8 * largest;
        limits.intermediate_buffer_size = (8 * largest).max(bytes.len());
        let mut decoder = decoder.with_limits(limits.clone());
        let stored = Stored { bands, rows, columns, planar, bits, by_block, missing };
        let mut pixels = stored.read(&mut decoder, &limits).map_err(library)?;
        if bits < 8 {
            pixels = match pixels {
                DecodingResult::U8(packed) => DecodingResult::U8(stored.unpack(&packed)),
                _ => {
                    return Err(wrong(&format!("signed numbers of {bits} bits are not supported"))
                        .help(CONVERT_NUMBERS));
                }
            };
        }
        if let DecodingResult::F16(half) = &pixels {
            pixels = DecodingResult::F32(half.iter().map(|number| number.to_f32()).collect());
        }
        let mut image = Image { bands, rows, columns, georeference, pixels, planar };
        if image.len() != samples {
            return Err(damaged(&format!("expected {samples} numbers, found {}", image.len())));
        }
        if let Some(value) = no_data.filter(|value| *value != 0.0) {
            for block in &stored.missing {
                image.fill(stored.rectangle(&decoder, *block), value);
            }
        }
        Ok(image)
    }

    /// Returns the stored type. Floats of 16 bits count as 32, integers of fewer than 8 bits as 8.
    pub fn dtype(&self) -> Dtype {
        match &self.pixels {
            DecodingResult::U8(_) => Dtype::Uint8,
            DecodingResult::U16(_) => Dtype::Uint16,
            DecodingResult::U32(_) => Dtype::Uint32,
            DecodingResult::U64(_) => Dtype::Uint64,
            DecodingResult::I8(_) => Dtype::Int8,
            DecodingResult::I16(_) => Dtype::Int16,
            DecodingResult::I32(_) => Dtype::Int32,
            DecodingResult::I64(_) => Dtype::Int64,
            DecodingResult::F16(_) | DecodingResult::F32(_) => Dtype::Float32,
            DecodingResult::F64(_) => Dtype::Float64,
        }
    }

    /// Writes `value`, rounded to the stored type, into a rectangle of one band or, if interleaved by pixel, of
    /// all bands.
    fn fill(&mut self, place: Rectangle, value: f64) {
        match &mut self.pixels {
            DecodingResult::U8(pixels) => place.fill(pixels, value.round() as u8),
            DecodingResult::U16(pixels) => place.fill(pixels, value.round() as u16),
            DecodingResult::U32(pixels) => place.fill(pixels, value.round() as u32),
            DecodingResult::U64(pixels) => place.fill(pixels, value.round() as u64),
            DecodingResult::I8(pixels) => place.fill(pixels, value.round() as i8),
            DecodingResult::I16(pixels) => place.fill(pixels, value.round() as i16),
            DecodingResult::I32(pixels) => place.fill(pixels, value.round() as i32),
            DecodingResult::I64(pixels) => place.fill(pixels, value.round() as i64),
            DecodingResult::F32(pixels) => place.fill(pixels, value as f32),
            DecodingResult::F64(pixels) => place.fill(pixels, value),
            DecodingResult::F16(_) => {}
        }
    }

    fn len(&self) -> usize {
        match &self.pixels {
            DecodingResult::U8(pixels) => pixels.len(),
            DecodingResult::U16(pixels) => pixels.len(),
            DecodingResult::U32(pixels) => pixels.len(),
            DecodingResult::U64(pixels) => pixels.len(),
            DecodingResult::I8(pixels) => pixels.len(),
            DecodingResult::I16(pixels) => pixels.len(),
            DecodingResult::I32(pixels) => pixels.len(),
            DecodingResult::I64(pixels) => pixels.len(),
            DecodingResult::F32(pixels) => pixels.len(),
            DecodingResult::F64(pixels) => pixels.len(),
            DecodingResult::F16(_) => 0,
        }
    }

    /// Copies bands (counted from 0) into one plane [rows, columns] each, rounded to float32.
    ///
    /// # Panics
    /// If a band does not exist or a plane has a different size.
    pub fn copy_to(&self, bands: &[usize], planes: &mut [ArrayViewMut2<'_, f32>]) {
        match &self.pixels {
            DecodingResult::U8(pixels) => self.copy(pixels, bands, planes, f32::from),
            DecodingResult::U16(pixels) => self.copy(pixels, bands, planes, f32::from),
            DecodingResult::U32(pixels) => self.copy(pixels, bands, planes, |x| x as f32),
            DecodingResult::U64(pixels) => self.copy(pixels, bands, planes, |x| x as f32),
            DecodingResult::I8(pixels) => self.copy(pixels, bands, planes, f32::from),
            DecodingResult::I16(pixels) => self.copy(pixels, bands, planes, f32::from),
            DecodingResult::I32(pixels) => self.copy(pixels, bands, planes, |x| x as f32),
            DecodingResult::I64(pixels) => self.copy(pixels, bands, planes, |x| x as f32),
            DecodingResult::F32(pixels) => self.copy(pixels, bands, planes, |x| x),
            DecodingResult::F64(pixels) => self.copy(pixels, bands, planes, |x| x as f32),
            DecodingResult::F16(_) => {}
        }
    }

    /// Returns one band (counted from 0) as [rows, columns], exact except for integers beyond 2^53.
    ///
    /// # Panics
    /// If the band does not exist.
    pub fn band(&self, band: usize) -> Array2<f64> {
        let mut plane = Array2::zeros((self.rows, self.columns));
        let (bands, planes) = (&[band], &mut [plane.view_mut()]);
        match &self.pixels {
            DecodingResult::U8(pixels) => self.copy(pixels, bands, planes, f64::from),
            DecodingResult::U16(pixels) => self.copy(pixels, bands, planes, f64::from),
            DecodingResult::U32(pixels) => self.copy(pixels, bands, planes, f64::from),
            DecodingResult::U64(pixels) => self.copy(pixels, bands, planes, |x| x as f64),
            DecodingResult::I8(pixels) => self.copy(pixels, bands, planes, f64::from),
            DecodingResult::I16(pixels) => self.copy(pixels, bands, planes, f64::from),
            DecodingResult::I32(pixels) => self.copy(pixels, bands, planes, f64::from),
            DecodingResult::I64(pixels) => self.copy(pixels, bands, planes, |x| x as f64),
            DecodingResult::F32(pixels) => self.copy(pixels, bands, planes, f64::from),
            DecodingResult::F64(pixels) => self.copy(pixels, bands, planes, |x| x),
            DecodingResult::F16(_) => {}
        }
        plane
    }

    fn copy<S: Copy, T>(
        &self,
        pixels: &[S],
        bands: &[usize],
        planes: &mut [ArrayViewMut2<'_, T>],
        convert: impl Fn(S) -> T,
    ) {
        let count = self.rows * self.columns;
        for (band, plane) in bands.iter().zip(planes) {
            assert!(*band < self.bands && plane.dim() == (self.rows, self.columns), "no such band or size");
            if self.planar {
                let stored = &pixels[band * count..(band + 1) * count];
                plane.iter_mut().zip(stored).for_each(|(pixel, stored)| *pixel = convert(*stored));
            } else {
                let stored = pixels[*band..].iter().step_by(self.bands);
                plane.iter_mut().zip(stored).for_each(|(pixel, stored)| *pixel = convert(*stored));
            }
        }
    }
}

/// A rectangle of an image, in terms of the numbers in memory.
#[derive(Debug, Clone, Copy)]
struct Rectangle {
    /// Index of the first number.
    start: usize,
    /// Distance between rows, in numbers.
    stride: usize,
    /// Numbers per row.
    width: usize,
    rows: usize,
}

impl Rectangle {
    fn fill<T: Copy>(self, pixels: &mut [T], value: T) {
        for row in 0..self.rows {
            let start = self.start + row * self.stride;
            if let Some(row) = pixels.get_mut(start..start + self.width) {
                row.fill(value);
            }
        }
    }
}

type Bytes<'b> = Decoder<Cursor<&'b [u8]>>;

impl Stored {
    /// Returns how many numbers of a pixel are stored side by side.
    fn interleaved(&self) -> usize {
        if self.planar { 1 } else { self.bands }
    }

    /// Reads all numbers as stored; blocks that the file omits are 0.
    fn read(&self, decoder: &mut Bytes, limits: &Limits) -> TiffResult<DecodingResult> {
        let mut pixels = DecodingResult::U8(Vec::new());
        if !self.by_block {
            decoder.read_image_to_buffer(&mut pixels)?;
            return Ok(pixels);
        }
        let row_bytes = |numbers: usize| (numbers * self.bits).div_ceil(8);
        let planes = if self.planar { self.bands } else { 1 };
        let stride = row_bytes(self.columns * self.interleaved());
        let mut layout = decoder.image_buffer_layout()?;
        layout.complete_len = planes * self.rows * stride;
        pixels.resize_to(&layout, limits)?;
        let (block_width, _) = decoder.chunk_dimensions();
        let stored_row = row_bytes(length(block_width) * self.interleaved());
        for block in (0..self.blocks(decoder)).filter(|block| self.missing.binary_search(block).is_err()) {
            let Ok(number) = u32::try_from(block) else { break };
            let mut part = decoder.read_chunk(number)?;
            let place = self.rectangle(decoder, block);
            // Blocks start at whole bytes, or the library refuses the file.
            let from = place.start / place.stride * stride + row_bytes(place.start % place.stride);
            let width = row_bytes(place.width).min(stored_row);
            let (mut part, mut whole) = (part.as_buffer(0), pixels.as_buffer(0));
            let (part, whole) = (part.as_bytes_mut(), whole.as_bytes_mut());
            for (row, stored) in part.chunks_exact(stored_row.max(1)).take(place.rows).enumerate() {
                let start = from + row * stride;
                if let Some(row) = whole.get_mut(start..start + width) {
                    row.copy_from_slice(&stored[..width]);
                }
            }
        }
        Ok(pixels)
    }

    /// Returns the number of blocks per row of blocks, and per plane.
    fn grid(&self, decoder: &Bytes) -> (usize, usize) {
        let (width, height) = decoder.chunk_dimensions();
        let across = self.columns.div_ceil(length(width).max(1));
        (across, across * self.rows.div_ceil(length(height).max(1)))
    }

    fn blocks(&self, decoder: &Bytes) -> usize {
        self.grid(decoder).1 * if self.planar { self.bands } else { 1 }
    }

    /// Returns the rectangle that a block covers.
    fn rectangle(&self, decoder: &Bytes, block: usize) -> Rectangle {
        let (width, height) = decoder.chunk_dimensions();
        let (width, height) = (length(width), length(height));
        let (across, of_plane) = self.grid(decoder);
        let (plane, block) = (block / of_plane, block % of_plane);
        let (x, y) = (block % across * width, block / across * height);
        let (stride, each) = (self.columns * self.interleaved(), self.interleaved());
        Rectangle {
            start: (plane * self.rows + y) * stride + x * each,
            stride,
            width: width.min(self.columns.saturating_sub(x)) * each,
            rows: height.min(self.rows.saturating_sub(y)),
        }
    }

    /// Unpacks numbers of fewer than 8 bits, whose rows start at whole bytes, into one byte each.
    fn unpack(&self, packed: &[u8]) -> Vec<u8> {
        let (bits, width) = (self.bits, self.columns * self.interleaved());
        let mask = (1_u16 << bits) - 1;
        let number = |row: &[u8], place: usize| {
            let (byte, bit) = (place * bits / 8, place * bits % 8);
            let two = u16::from_be_bytes([row[byte], row.get(byte + 1).copied().unwrap_or(0)]);
            (two >> (16 - bits - bit) & mask) as u8
        };
        let rows = packed.chunks_exact((width * bits).div_ceil(8).max(1));
        rows.flat_map(|row| (0..width).map(move |place| number(row, place))).collect()
    }
}

/// Converts a side length from the library's type.
fn length(side: u32) -> usize {
    usize::try_from(side).unwrap_or(usize::MAX)
}
