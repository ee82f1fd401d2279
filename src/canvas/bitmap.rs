//! Renders a picture as pixels.

use plotters::backend::{BitMapBackend, DrawingBackend};
use plotters::style::{Color as _, RGBAColor, ShapeStyle};

use super::{Color, DOT_RIM, Dash, Picture, Point, Shape, Text, WHITE, font};
use crate::{Error, Result};

/// Factor of supersampling in each direction, for smooth edges and precisely placed letters.
pub const FINER: usize = 2;

/// Maximum side of a bitmap in pixels, which PNG viewers can handle.
const LARGEST_SIDE: usize = 1 << 14;

/// RGB pixels to draw on.
pub struct Bitmap {
    width: usize,
    height: usize,
    /// Shape [height, width, 3].
    pixels: Vec<u8>,
}

impl Bitmap {
    /// Creates a white bitmap.
    ///
    /// # Errors
    /// If a side is zero or longer than 16384 pixels.
    pub fn new(width: usize, height: usize) -> Result<Self> {
        if !(1..=LARGEST_SIDE).contains(&width) || !(1..=LARGEST_SIDE).contains(&height) {
            return Err(Error::mismatch(format!(
                "expected picture sides between 1 and {LARGEST_SIDE} pixels, got {width} x {height}"
            )));
        }
        Ok(Bitmap { width, height, pixels: vec![255; width * height * 3] })
    }

    /// Copies `rgb` [height, width, 3] with its upper left corner at (x, y); parts outside are cut off.
    pub fn blit(&mut self, (x, y): (usize, usize), width: usize, rgb: &[u8]) {
        if width == 0 || x >= self.width {
            return;
        }
        let shown = width.min(self.width - x) * 3;
        for (row, source) in rgb.chunks_exact(width * 3).enumerate() {
            let start = ((y + row) * self.width + x) * 3;
            let Some(target) = self.pixels.get_mut(start..start + shown) else { return };
            target.copy_from_slice(&source[..shown]);
        }
    }

    /// Draws a shape, with `scale` pixels per unit.
    ///
    /// # Errors
    /// If the plotting library fails.
    pub fn draw(&mut self, shape: &Shape, scale: f64) -> Result<()> {
        let (width, height) = (self.width as u32, self.height as u32);
        let mut backend = BitMapBackend::with_buffer(&mut self.pixels, (width, height));
        let pixel = |(x, y): Point| ((x * scale).round() as i32, (y * scale).round() as i32);
        let pixels = |points: &[Point]| points.iter().map(|point| pixel(*point)).collect::<Vec<_>>();
        match shape {
            Shape::Line { points, color, width, dash } => {
                let stroke_width = (width * scale).round().max(1.0) as u32;
                let style = ShapeStyle { color: rgba(*color, 1.0), filled: false, stroke_width };
                for stroke in strokes(points, *dash) {
                    backend.draw_path(pixels(&stroke), &style).map_err(Error::mismatch)?;
                }
            }
            Shape::Area { points, color, opacity } => {
                backend.fill_polygon(pixels(points), &rgba(*color, *opacity)).map_err(Error::mismatch)?;
            }
            Shape::Dot { center, radius, color, hollow } => {
                let mut disc = |radius: f64, color: Color| {
                    let radius = (radius * scale).round().max(1.0) as u32;
                    backend.draw_circle(pixel(*center), radius, &rgba(color, 1.0), true)
                };
                disc(radius + DOT_RIM / 2.0, *color).map_err(Error::mismatch)?;
                if *hollow {
                    disc(radius - DOT_RIM / 2.0, WHITE).map_err(Error::mismatch)?;
                }
            }
            Shape::Text(text) => words(&mut backend, text, scale)?,
        }
        Ok(())
    }

    /// Encodes the bitmap as a PNG file.
    ///
    /// # Errors
    /// Like [`encode_png`].
    pub fn png(&self) -> Result<Vec<u8>> {
        encode_png(self.width, self.height, &self.pixels)
    }

    /// Averages each block of [`FINER`] x [`FINER`] pixels.
    #[must_use]
    pub fn averaged(&self) -> Bitmap {
        // Most of a picture is white: stretches of it are recognised at once.
        const STRETCH: usize = 32;
        const BLANK: [u8; STRETCH * FINER * 3] = [255; STRETCH * FINER * 3];
        let (width, height) = (self.width / FINER, self.height / FINER);
        let mut pixels = Vec::with_capacity(width * height * 3);
        for y in 0..height {
            for from in (0..width).step_by(STRETCH) {
                let to = (from + STRETCH).min(width);
                let start = |row: usize, x: usize| ((y * FINER + row) * self.width + x * FINER) * 3;
                let is_blank = |row: usize| {
                    let stretch = &self.pixels[start(row, from)..start(row, to)];
                    *stretch == BLANK[..stretch.len()]
                };
                if (0..FINER).all(is_blank) {
                    pixels.resize(pixels.len() + (to - from) * 3, 255);
                    continue;
                }
                for x in from..to {
                    for channel in 0..3 {
                        let mut sum = 0u32;
                        for row in 0..FINER {
                            let start = start(row, x) + channel;
                            sum += (0..FINER).map(|i| u32::from(self.pixels[start + i * 3])).sum::<u32>();
                        }
                        pixels.push((sum / (FINER * FINER) as u32) as u8);
                    }
                }
            }
        }
        Bitmap { width, height, pixels }
    }
}

/// Renders the picture as a PNG file, with `scale` pixels per unit.
///
/// # Errors
/// If the picture exceeds the maximum size of a bitmap.
pub fn png(picture: &Picture, scale: f64) -> Result<Vec<u8>> {
    let side = |length: f64| (length * scale).ceil() as usize * FINER;
    let mut bitmap = Bitmap::new(side(picture.width), side(picture.height))?;
    for shape in picture.layers.iter().flat_map(|layer| &layer.shapes) {
        bitmap.draw(shape, scale * FINER as f64)?;
    }
    bitmap.averaged().png()
}

/// Encodes RGB pixels [height, width, 3] as a PNG file.
///
/// # Errors
/// If the number of pixels is not `width` x `height`, or a side is zero.
pub fn encode_png(width: usize, height: usize, rgb: &[u8]) -> Result<Vec<u8>> {
    let side = |length: usize| u32::try_from(length).map_err(Error::mismatch);
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, side(width)?, side(height)?);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    // For large uniform areas: half the size of the default settings, in a few hundredths of a second.
    encoder.set_compression(png::Compression::Default);
    encoder.set_filter(png::FilterType::Up);
    let mut writer = encoder.write_header().map_err(Error::mismatch)?;
    writer.write_image_data(rgb).map_err(Error::mismatch)?;
    writer.finish().map_err(Error::mismatch)?;
    Ok(bytes)
}

/// Blends the glyphs' coverage over the existing pixels.
fn words(backend: &mut BitMapBackend, text: &Text, scale: f64) -> Result<()> {
    let size = text.size * scale;
    let font = font(size, text.bold);
    let (left, base) = text.start();
    // plotters draws the base line half the font's height below the given point.
    let corner = ((left * scale).round() as i32, (base * scale - font.get_size() / 2.0).round() as i32);
    font.draw(&text.text, corner, |x, y, coverage| {
        backend.draw_pixel((x, y), rgba(text.color, f64::from(coverage.clamp(0.0, 1.0))).to_backend_color())
    })
    .map_err(Error::mismatch)?
    .map_err(Error::mismatch)
}

fn rgba(Color(red, green, blue): Color, opacity: f64) -> RGBAColor {
    RGBAColor(red, green, blue, opacity)
}

/// Splits a line into its strokes.
fn strokes(points: &[Point], dash: Dash) -> Vec<Vec<Point>> {
    let Dash::Strokes(lengths) = dash else { return vec![points.to_vec()] };
    let (mut strokes, mut stroke) = (Vec::new(), Vec::from_iter(points.first().copied()));
    let (mut part, mut left) = (0, lengths.first().copied().unwrap_or(f64::INFINITY));
    for pair in points.windows(2) {
        let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
        let length = (x1 - x0).hypot(y1 - y0);
        let mut gone = 0.0;
        while length - gone > left {
            gone += left;
            let at = (x0 + (x1 - x0) * gone / length, y0 + (y1 - y0) * gone / length);
            stroke.push(at);
            // Every second part is a gap.
            if part % 2 == 0 {
                strokes.push(std::mem::take(&mut stroke));
            }
            stroke = vec![at];
            part = (part + 1) % lengths.len();
            left = lengths[part].max(0.1);
        }
        left -= length - gone;
        stroke.push((x1, y1));
    }
    if part % 2 == 0 {
        strokes.push(stroke);
    }
    strokes
}
