//! Pictures as shapes on a canvas. [`svg()`] writes them as SVG, [`pdf()`] as PDF, [`png()`] as pixels. All, and code that
//! places labels, measure text with the one embedded font, so no system font is needed.
//!
//! Lengths are in user units, which are CSS pixels in SVG; x grows to the right, y downwards.

mod bitmap;
mod pdf;
mod svg;

use std::sync::Once;

use plotters::style::{FontDesc, FontFamily, FontStyle, register_font};

pub use self::bitmap::{Bitmap, FINER, encode_png, png};
pub use self::pdf::pdf;
pub use self::svg::{svg, xml_text};

/// The font's name, with substitutes for SVG viewers that lack it.
pub const FONT_FAMILY: &str = "DejaVu Sans, Verdana, sans-serif";

const REGISTERED: &str = "DejaVu Sans";

/// plotters sizes a font by the sum of ascent and descent, SVG by its em: DejaVu Sans has 1901 + 483 units per
/// em of 2048 [its `hhea` and `head` tables].
const HEIGHT_OF_EM: f64 = (1901.0 + 483.0) / 2048.0;

/// Extent of letters and digits above and below the base line, in em.
const ASCENT: f64 = 0.78;
const DESCENT: f64 = 0.24;

/// Width of the line around a dot.
const DOT_RIM: f64 = 1.5;

/// Red, green and blue, 0 to 255 each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Color(pub u8, pub u8, pub u8);

/// Okabe and Ito's palette, which colour-blind readers can distinguish ["Color Universal Design", 2008],
/// without yellow, which is too pale for lines on white, and black, which is reserved for our own results.
pub const PALETTE: [Color; 6] = [
    Color(0, 114, 178),   // blue
    Color(213, 94, 0),    // vermilion
    Color(0, 158, 115),   // bluish green
    Color(204, 121, 167), // reddish purple
    Color(230, 159, 0),   // orange
    Color(86, 180, 233),  // sky blue
];

/// Black, for text and for our own results.
pub const BLACK: Color = Color(0, 0, 0);
/// White, the background.
pub const WHITE: Color = Color(255, 255, 255);

/// For auxiliary lines.
pub const GRID: Color = Color(205, 205, 205);
/// For less important text.
pub const GREY: Color = Color(90, 90, 90);

/// For warnings; dark enough for text on white.
pub const ALARM: Color = Color(176, 0, 32);

/// Shown in every picture of generated data.
pub const DEMO_NOTICE: &str = "DEMO: generated data. These are not benchmark results.";

/// A point (x, y).
pub type Point = (f64, f64);

/// A picture made of layers, the last one on top.
#[derive(Debug, Clone)]
pub struct Picture {
    /// Width in user units.
    pub width: f64,
    /// Height in user units.
    pub height: f64,
    /// What the picture shows, for readers who cannot see it.
    pub description: String,
    /// Layers from bottom to top.
    pub layers: Vec<Layer>,
}

/// Shapes that belong together.
#[derive(Debug, Clone, Default)]
pub struct Layer {
    /// What the layer belongs to, such as a model, so that all its layers can be hidden together.
    pub owner: Option<String>,
    /// Shapes from bottom to top.
    pub shapes: Vec<Shape>,
}

/// Something that is drawn.
#[derive(Debug, Clone)]
pub enum Shape {
    /// An open line through the points.
    Line {
        /// Points to connect, in order.
        points: Vec<Point>,
        /// Colour of the line.
        color: Color,
        /// Width of the line.
        width: f64,
        /// How the line is broken.
        dash: Dash,
    },
    /// A filled polygon.
    Area {
        /// Corners of the polygon.
        points: Vec<Point>,
        /// Colour of the fill.
        color: Color,
        /// Opacity, from 0 (transparent) to 1.
        opacity: f64,
    },
    /// A disc or, if hollow, a ring.
    Dot {
        /// Centre of the disc.
        center: Point,
        /// Radius up to the middle of the rim.
        radius: f64,
        /// Colour of the disc or ring.
        color: Color,
        /// Whether the inside is white.
        hollow: bool,
    },
    /// A line of text.
    Text(Text),
}

/// How a line is broken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Dash {
    /// Not broken.
    Solid,
    /// Lengths of strokes and gaps, alternating.
    Strokes(&'static [f64]),
}

/// One line of text.
#[derive(Debug, Clone, PartialEq)]
pub struct Text {
    /// The words.
    pub text: String,
    /// Position of the anchor, on the base line.
    pub at: Point,
    /// Which part of the text is at that position.
    pub anchor: Anchor,
    /// Size of an em.
    pub size: f64,
    /// Whether the text is bold.
    pub bold: bool,
    /// Colour of the text.
    pub color: Color,
}

/// Which part of a text is at its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    /// Its left end.
    Start,
    /// Its centre.
    Middle,
    /// Its right end.
    End,
}

/// An axis-aligned rectangle.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// Smallest x.
    pub left: f64,
    /// Smallest y.
    pub top: f64,
    /// Largest x.
    pub right: f64,
    /// Largest y.
    pub bottom: f64,
}

impl Bounds {
    /// Whether the rectangles share an area.
    pub fn overlaps(&self, other: &Bounds) -> bool {
        self.left < other.right
            && other.left < self.right
            && self.top < other.bottom
            && other.top < self.bottom
    }

    /// Returns the rectangle enlarged by `margin` on each side.
    #[must_use]
    pub fn grown(&self, margin: f64) -> Bounds {
        Bounds {
            left: self.left - margin,
            top: self.top - margin,
            right: self.right + margin,
            bottom: self.bottom + margin,
        }
    }
}

impl Text {
    /// Creates plain black text.
    pub fn new(text: impl Into<String>, at: Point, anchor: Anchor, size: f64) -> Self {
        Text { text: text.into(), at, anchor, size, bold: false, color: BLACK }
    }

    /// Makes the text bold.
    #[must_use]
    pub fn bold(self) -> Self {
        Text { bold: true, ..self }
    }

    /// Sets the text's colour.
    #[must_use]
    pub fn color(self, color: Color) -> Self {
        Text { color, ..self }
    }

    /// Returns the left end of the base line.
    pub fn start(&self) -> Point {
        let width = text_width(&self.text, self.size, self.bold);
        let shift = match self.anchor {
            Anchor::Start => 0.0,
            Anchor::Middle => width / 2.0,
            Anchor::End => width,
        };
        (self.at.0 - shift, self.at.1)
    }

    /// Returns the rectangle that the text covers.
    pub fn bounds(&self) -> Bounds {
        let (left, base) = self.start();
        Bounds {
            left,
            top: base - ASCENT * self.size,
            right: left + text_width(&self.text, self.size, self.bold),
            bottom: base + DESCENT * self.size,
        }
    }
}

impl Picture {
    /// Iterates over all texts.
    pub fn texts(&self) -> impl Iterator<Item = &Text> {
        self.layers.iter().flat_map(|layer| &layer.shapes).filter_map(|shape| match shape {
            Shape::Text(text) => Some(text),
            _ => None,
        })
    }
}

/// Returns the width of one line of text whose em is `size`.
pub fn text_width(text: &str, size: f64, bold: bool) -> f64 {
    // plotters measures in whole pixels; at a large size the rounding is negligible.
    const MEASURED: f64 = 1000.0;
    font(MEASURED, bold).layout_box(text).map_or(0.0, |((left, _), (right, _))| f64::from(right - left))
        * size
        / MEASURED
}

/// Shortens the text to at most `width`, with an ellipsis if something is cut.
pub fn shortened(text: &str, width: f64, size: f64, bold: bool) -> String {
    if text_width(text, size, bold) <= width {
        return text.to_owned();
    }
    let mut kept: Vec<char> = text.chars().collect();
    while kept.pop().is_some() {
        let short = format!("{}…", kept.iter().collect::<String>().trim_end());
        if text_width(&short, size, bold) <= width {
            return short;
        }
    }
    String::new()
}

/// Breaks the text at spaces into lines of at most `width`; a longer word gets its own line and is cut.
pub fn wrapped(text: &str, width: f64, size: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if text_width(&format!("{line} {word}"), size, false) <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(shortened(word, width, size, false)),
        }
    }
    lines
}

/// Returns the font with an em of `size`.
fn font(size: f64, bold: bool) -> FontDesc<'static> {
    static REGISTER: Once = Once::new();
    REGISTER.call_once(|| {
        for (style, bytes) in
            [(FontStyle::Normal, dejavu::sans::regular()), (FontStyle::Bold, dejavu::sans::bold())]
        {
            assert!(register_font(REGISTERED, style, bytes).is_ok(), "the embedded font is invalid");
        }
    });
    let style = if bold { FontStyle::Bold } else { FontStyle::Normal };
    FontDesc::new(FontFamily::Name(REGISTERED), size * HEIGHT_OF_EM, style)
}
