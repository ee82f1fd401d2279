//! GeoTIFF images: the one place that knows a TIFF library. Pixels only; where on Earth they lie is not read.
//!
//! Strips or tiles, pixel or band interleaved; plain, deflate or LZW, with or without horizontal differencing.

use std::io::Cursor;
use std::path::Path;

use ndarray::{Array2, ArrayViewMut2};
use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::tags::{PlanarConfiguration, Tag};

use super::hdf5::Dtype;
use crate::{Error, Result};

/// An image with more pixels than this, over all bands, is taken for damage: 13 bands of 3,200 x 3,200.
const MAX_SAMPLES: usize = 1 << 27;

/// A decoded image.
#[derive(Debug)]
pub struct Image {
    pub bands: usize,
    pub rows: usize,
    pub columns: usize,
    pixels: DecodingResult,
    /// Whether the bands lie one behind another, and not interleaved by pixel.
    planar: bool,
}

impl Image {
    /// Decodes the bytes of the file at `path`.
    ///
    /// # Errors
    /// Where it is no TIFF, damaged, of a kind that is not read, or too large to be true.
    pub fn decode(path: &Path, bytes: &[u8]) -> Result<Self> {
        let damaged = |problem: &dyn std::fmt::Display| {
            Error::file(path, format!("as a TIFF image: {problem}"))
                .help("the file is damaged or of another data set: fetch it again")
        };
        let mut decoder = Decoder::new(Cursor::new(bytes)).map_err(|error| damaged(&error))?;
        let (columns, rows) = decoder.dimensions().map_err(|error| damaged(&error))?;
        let bands: u16 =
            find(&mut decoder, Tag::SamplesPerPixel).map_err(|error| damaged(&error))?.unwrap_or(1);
        let planar: Option<u16> =
            find(&mut decoder, Tag::PlanarConfiguration).map_err(|error| damaged(&error))?;
        let (rows, columns, bands) = (length(rows), length(columns), usize::from(bands));
        let samples = rows.checked_mul(columns).and_then(|pixels| pixels.checked_mul(bands));
        let samples = samples.filter(|samples| (1..=MAX_SAMPLES).contains(samples)).ok_or_else(|| {
            damaged(&format!("{bands} bands of {rows} x {columns} pixels, which cannot be true"))
        })?;
        let mut limits = Limits::default();
        // Of eight bytes each.
        limits.decoding_buffer_size = 8 * samples;
        limits.intermediate_buffer_size = 8 * samples;
        let mut decoder = decoder.with_limits(limits);
        let mut pixels = DecodingResult::U8(Vec::new());
        decoder.read_image_to_buffer(&mut pixels).map_err(|error| damaged(&error))?;
        let planar = planar == Some(PlanarConfiguration::Planar.to_u16());
        let image = Image { bands, rows, columns, pixels, planar };
        match image.dtype() {
            None => Err(damaged(&"its numbers are of a type that is not read")),
            Some(_) if image.len() != samples => {
                Err(damaged(&format!("{} numbers, {samples} expected", image.len())))
            }
            Some(_) => Ok(image),
        }
    }

    /// What the file stores.
    pub fn dtype(&self) -> Option<Dtype> {
        Some(match &self.pixels {
            DecodingResult::U8(_) => Dtype::Uint8,
            DecodingResult::U16(_) => Dtype::Uint16,
            DecodingResult::U32(_) => Dtype::Uint32,
            DecodingResult::U64(_) => Dtype::Uint64,
            DecodingResult::I8(_) => Dtype::Int8,
            DecodingResult::I16(_) => Dtype::Int16,
            DecodingResult::I32(_) => Dtype::Int32,
            DecodingResult::I64(_) => Dtype::Int64,
            DecodingResult::F32(_) => Dtype::Float32,
            DecodingResult::F64(_) => Dtype::Float64,
            DecodingResult::F16(_) => return None,
        })
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

    /// Copies bands (from 0) into planes [rows, columns], one each, rounded to float32.
    ///
    /// # Panics
    /// Where a band is not there or a plane has another size.
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

    /// One band (from 0), exactly but for integers beyond 2^53.
    ///
    /// # Panics
    /// Where it is not there.
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

fn find(decoder: &mut Decoder<Cursor<&[u8]>>, tag: Tag) -> tiff::TiffResult<Option<u16>> {
    decoder.find_tag_unsigned(tag)
}

/// A side of an image; one that this machine cannot even count is as wrong as the largest that it can.
fn length(side: u32) -> usize {
    usize::try_from(side).unwrap_or(usize::MAX)
}
