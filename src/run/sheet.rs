//! Picture sheets of predicted masks: a few test samples, each with image, label, prediction and errors, and a legend.

use std::collections::BTreeMap;

use ndarray::{Array2, Array3, Axis};

use crate::canvas::{Anchor, BLACK, Bitmap, Color, FINER, GREY, Shape, Text, shortened, text_width};
use crate::metrics::segmentation::Confusion;
use crate::task::bands::Band;
use crate::{Error, Result};

/// A test sample and its predicted mask.
#[derive(Debug, Clone)]
pub struct Example {
    /// The sample's name.
    pub name: String,
    /// [3, h, w]: red, green, blue in any unit; the sheet stretches their contrast.
    pub image: Array3<f32>,
    /// [h, w]: class of each pixel; any other value is ignored.
    pub label: Array2<i32>,
    /// [h, w]: class of each pixel.
    pub prediction: Array2<i32>,
}

/// The text above a sheet.
#[derive(Debug, Clone)]
pub struct Heading {
    /// Title, such as `m-Cashew-Plant, TerraFM ViT-B`.
    pub title: String,
    /// Subtitle, such as `upernet, seed 0: mean IoU 54.3`.
    pub line: String,
    /// Heading of the first column, such as [`TRUE_COLOR`].
    pub colors: &'static str,
}

/// The name that [`colors`] gives to red, green and blue.
pub const TRUE_COLOR: &str = "True colour";

/// Chooses the stored bands to show as red, green and blue, and names the combination; `None` if none is known.
///
/// `bands` are the model's; `stored` holds the stored name of each. Sentinel-1 is shown as VV, VH and VV, Sentinel-3 by the
/// bands at 665, 560 and 490 nm.
pub fn colors(bands: &[Band], stored: &[String]) -> Option<([String; 3], &'static str)> {
    let of = |band: Band| stored.get(bands.iter().position(|other| *other == band)?).cloned();
    let named = |name: &str| stored.get(bands.iter().position(|other| other.name() == name)?).cloned();
    let optical = (of(Band::B04), of(Band::B03), of(Band::B02));
    let sentinel_3 = (named("Oa08"), named("Oa06"), named("Oa04"));
    match (optical, sentinel_3) {
        ((Some(red), Some(green), Some(blue)), _) | (_, (Some(red), Some(green), Some(blue))) => {
            Some(([red, green, blue], TRUE_COLOR))
        }
        _ => {
            let (vv, vh) = (of(Band::VV)?, of(Band::VH)?);
            Some(([vv.clone(), vh, vv], "Radar (VV, VH, VV)"))
        }
    }
}

/// Number of samples on a sheet.
const SHOWN: usize = 4;

/// Returns the samples whose pixels are spread most evenly over the classes, in their original order.
pub fn most_to_see(examples: Vec<Example>) -> Vec<Example> {
    let mut places: Vec<(usize, f64)> =
        examples.iter().map(|example| entropy(&example.label)).enumerate().collect();
    places.sort_by(|a, b| b.1.total_cmp(&a.1));
    places.truncate(SHOWN);
    let shown = |place: usize| places.iter().any(|(other, _)| *other == place);
    examples.into_iter().enumerate().filter(|(place, _)| shown(*place)).map(|(_, example)| example).collect()
}

/// Returns the entropy of the label's class frequencies.
fn entropy(label: &Array2<i32>) -> f64 {
    let mut counts: BTreeMap<i32, usize> = BTreeMap::new();
    label.iter().for_each(|class| *counts.entry(*class).or_default() += 1);
    let shares = counts.values().map(|count| *count as f64 / label.len() as f64);
    -shares.map(|share| share * share.ln()).sum::<f64>()
}

/// Largest side of a panel: small images are enlarged by a whole factor to at most this size, large ones shrunk to it.
const PANEL: usize = 256;
const MARGIN: usize = 20;
const GAP: usize = 14;
/// Height of the caption below each row.
const CAPTION: usize = 30;
/// Height of the heading above the rows.
const HEAD: usize = 92;
const TEXT: f64 = 13.0;
const SWATCH: f64 = 14.0;
const LEGEND_LINE: f64 = 24.0;

/// Colour of wrong pixels; no class has it.
const WRONG: Color = Color(230, 0, 126);
/// Colour of ignored pixels.
const IGNORED: Color = Color(60, 60, 60);
/// Colour of a class called background.
const BACKGROUND: Color = Color(226, 226, 226);

/// Colours of the classes, in order: Okabe and Ito's first, then Paul Tol's muted ones ["Colour Schemes", 2021].
const CLASSES: [Color; 23] = [
    Color(0, 114, 178),
    Color(230, 159, 0),
    Color(0, 158, 115),
    Color(240, 228, 66),
    Color(86, 180, 233),
    Color(213, 94, 0),
    Color(51, 34, 136),
    Color(153, 153, 51),
    Color(136, 34, 85),
    Color(68, 170, 153),
    Color(221, 204, 119),
    Color(17, 119, 51),
    Color(170, 170, 170),
    Color(102, 51, 0),
    Color(187, 204, 51),
    Color(119, 170, 221),
    Color(238, 136, 102),
    Color(0, 68, 136),
    Color(170, 170, 0),
    Color(99, 99, 99),
    Color(255, 170, 187),
    Color(34, 85, 85),
    Color(102, 153, 204),
];

/// Draws the sheet as a PNG file. `classes` are the names of the classes, in order.
///
/// # Errors
/// If there are no samples, or an image, its label and its prediction differ in size.
pub fn sheet(heading: &Heading, classes: &[String], examples: &[Example]) -> Result<Vec<u8>> {
    let rows = examples.iter().map(|example| SheetRow::new(example, classes)).collect::<Result<Vec<_>>>()?;
    let Some(widest) = rows.iter().map(|row| row.width).max() else {
        return Err(Error::mismatch("no samples to draw a sheet of"));
    };
    let width = 2 * MARGIN + 4 * widest + 3 * GAP;
    let ignored = examples.iter().any(|example| example.label.iter().any(|l| class(*l, classes).is_none()));
    let legend = legend(classes, ignored, (width - 2 * MARGIN) as f64);
    let body: usize = rows.iter().map(|row| row.height + CAPTION).sum();
    let lines = legend.last().map_or(0.0, |entry| entry.y + LEGEND_LINE);
    let height = HEAD + body + lines.ceil() as usize + MARGIN;
    let mut bitmap = Bitmap::new(width * FINER, height * FINER)?;

    let (left, inside) = (MARGIN as f64, (width - 2 * MARGIN) as f64);
    let say = |bitmap: &mut Bitmap, text: &str, x: f64, y: f64, size: f64, color: Color, bold: bool| {
        let text = Text { bold, color, ..Text::new(text, (x, y), Anchor::Start, size) };
        bitmap.draw(&Shape::Text(text), FINER as f64)
    };
    say(&mut bitmap, &shortened(&heading.title, inside, 18.0, true), left, 32.0, 18.0, BLACK, true)?;
    say(&mut bitmap, &shortened(&heading.line, inside, TEXT, false), left, 54.0, TEXT, GREY, false)?;
    let place = |column: usize| MARGIN + column * (widest + GAP);
    for (column, name) in [heading.colors, "Label", "Prediction", "Errors"].into_iter().enumerate() {
        say(&mut bitmap, name, place(column) as f64, HEAD as f64 - 8.0, TEXT, BLACK, true)?;
    }
    let mut y = HEAD;
    for row in &rows {
        for (column, panel) in row.panels.iter().enumerate() {
            bitmap.blit((place(column) * FINER, y * FINER), row.width * FINER, panel);
        }
        let caption = shortened(&row.caption, inside, 12.0, false);
        say(&mut bitmap, &caption, left, (y + row.height + 16) as f64, 12.0, GREY, false)?;
        y += row.height + CAPTION;
    }
    for Entry { x, y: below, color, name } in &legend {
        let (x, top) = (left + x, y as f64 + below + 4.0);
        let points = vec![(x, top), (x + SWATCH, top), (x + SWATCH, top + SWATCH), (x, top + SWATCH)];
        bitmap.draw(&Shape::Area { points, color: *color, opacity: 1.0 }, FINER as f64)?;
        say(&mut bitmap, name, x + SWATCH + 6.0, top + 12.0, TEXT, BLACK, false)?;
    }
    bitmap.averaged().png()
}

/// A sample's row of panels.
struct SheetRow {
    width: usize,
    height: usize,
    /// Image, label, prediction and errors as RGB, each [`FINER`] times as high and wide as drawn.
    panels: [Vec<u8>; 4],
    caption: String,
}

impl SheetRow {
    fn new(example: &Example, classes: &[String]) -> Result<Self> {
        let Example { name, image, label, prediction } = example;
        let (bands, h, w) = image.dim();
        if bands != 3 || label.dim() != (h, w) || prediction.dim() != (h, w) || h == 0 || w == 0 {
            return Err(Error::mismatch(format!(
                "{name}: expected an image [3, h, w], a label [h, w] and a prediction [h, w], found {:?}, {:?} and {:?}",
                image.dim(),
                label.dim(),
                prediction.dim()
            )));
        }
        let colors = stretched(image);
        let classed = |mask: &Array2<i32>| mask.mapv(|value| shade(value, classes));
        let mut errors = colors.mapv(faded);
        for (pixel, (label, prediction)) in errors.iter_mut().zip(label.iter().zip(prediction)) {
            match class(*label, classes) {
                None => *pixel = IGNORED,
                Some(_) if label != prediction => *pixel = WRONG,
                Some(_) => {}
            }
        }
        let (height, width) = (shown(h), shown(w));
        let panel = |pixels: &Array2<Color>| rgb(pixels, height * FINER, width * FINER);
        let panels = [panel(&colors), panel(&classed(label)), panel(&classed(prediction)), panel(&errors)];
        Ok(SheetRow { width, height, panels, caption: caption(example, classes) })
    }
}

/// Returns a caption such as `image_7: 93.1 % of pixels right`.
fn caption(example: &Example, classes: &[String]) -> String {
    let mut confusion = Confusion::new(classes.len(), None);
    // Any value that is not a class is ignored.
    let label = example.label.mapv(|label| if class(label, classes).is_some() { label } else { -1 });
    let counted = confusion.add(label.view(), example.prediction.view()).map(|()| {
        let counts = confusion.counts();
        let all: u64 = (0..classes.len()).map(|label| counts.row(label).sum()).sum();
        (counts.diag().sum(), all)
    });
    match counted {
        Ok((right, all)) if all > 0 => {
            format!("{}: {:.1} % of pixels right", example.name, 100.0 * right as f64 / all as f64)
        }
        _ => format!("{}: all pixels ignored", example.name),
    }
}

/// Returns the length on the sheet of `length` pixels.
fn shown(length: usize) -> usize {
    if length <= PANEL { length * (PANEL / length) } else { PANEL }
}

/// Resizes to RGB [height, width, 3] by nearest neighbour.
fn rgb(pixels: &Array2<Color>, height: usize, width: usize) -> Vec<u8> {
    let (h, w) = pixels.dim();
    let mut bytes = Vec::with_capacity(height * width * 3);
    for y in 0..height {
        for x in 0..width {
            let Color(red, green, blue) = pixels[[y * h / height, x * w / width]];
            bytes.extend([red, green, blue]);
        }
    }
    bytes
}

/// Stretches each band between its 2nd and 98th percentile.
fn stretched(image: &Array3<f32>) -> Array2<Color> {
    let limits: Vec<(f32, f32)> = image
        .axis_iter(Axis(0))
        .map(|band| {
            let mut values: Vec<f32> = band.iter().copied().collect();
            values.sort_unstable_by(f32::total_cmp);
            let at = |share: f64| values[((values.len() - 1) as f64 * share) as usize];
            (at(0.02), at(0.98))
        })
        .collect();
    let (_, h, w) = image.dim();
    Array2::from_shape_fn((h, w), |(y, x)| {
        let of = |band: usize| {
            let (low, high) = limits[band];
            let share = (image[[band, y, x]] - low) / (high - low).max(f32::MIN_POSITIVE);
            (share.clamp(0.0, 1.0) * 255.0) as u8
        };
        Color(of(0), of(1), of(2))
    })
}

/// Returns a pale grey that follows the colour's lightness, so that errors stand out.
fn faded(Color(red, green, blue): Color) -> Color {
    // ITU-R BT.601's weights.
    let light = 0.299 * f64::from(red) + 0.587 * f64::from(green) + 0.114 * f64::from(blue);
    let pale = (140.0 + 0.42 * light) as u8;
    Color(pale, pale, pale)
}

/// Returns the class of a label's value, if it is one.
fn class(value: i32, classes: &[String]) -> Option<usize> {
    usize::try_from(value).ok().filter(|class| *class < classes.len())
}

fn shade(value: i32, classes: &[String]) -> Color {
    class(value, classes).map_or(IGNORED, |class| color_of(class, &classes[class]))
}

fn color_of(class: usize, name: &str) -> Color {
    match name {
        "background" => BACKGROUND,
        _ => CLASSES[class % CLASSES.len()],
    }
}

/// An entry of the legend: a colour and its meaning, at a position below the rows.
struct Entry {
    x: f64,
    y: f64,
    color: Color,
    name: String,
}

/// Lays out the legend in lines no longer than `width`.
fn legend(classes: &[String], ignored: bool, width: f64) -> Vec<Entry> {
    let of_classes = classes.iter().enumerate().map(|(i, name)| (color_of(i, name), name.clone()));
    let rest = [(true, WRONG, "wrong"), (ignored, IGNORED, "ignored")];
    let rest = rest.into_iter().filter(|(shown, ..)| *shown).map(|(_, color, name)| (color, name.to_owned()));
    let (mut x, mut y) = (0.0, 0.0);
    let mut entries = Vec::new();
    for (color, name) in of_classes.chain(rest) {
        let name = shortened(&name, width - SWATCH - 6.0, TEXT, false);
        let length = SWATCH + 6.0 + text_width(&name, TEXT, false) + 20.0;
        if x > 0.0 && x + length > width {
            (x, y) = (0.0, y + LEGEND_LINE);
        }
        entries.push(Entry { x, y, color, name });
        x += length;
    }
    entries
}
