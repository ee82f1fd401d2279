//! What pictures are made of: shapes at places on a canvas. [`svg()`] writes them as SVG, [`png()`] as pixels; both, and
//! whoever places a label, measure text with the one font that is compiled in, so that no system font is needed.
//!
//! Lengths are in user units: CSS pixels of the SVG; x grows to the right, y downwards.

mod bitmap;
mod svg;

use std::sync::Once;

use plotters::style::{FontDesc, FontFamily, FontStyle, register_font};

pub use self::bitmap::{Bitmap, FINER, encode_png, png};
pub use self::svg::{svg, xml_text};

/// The font's name, and what stands in where SVG's reader lacks it.
pub const FONT_FAMILY: &str = "DejaVu Sans, Verdana, sans-serif";

const REGISTERED: &str = "DejaVu Sans";

/// plotters sizes a font by ascent and descent together, SVG by its em: DejaVu Sans has 1901 + 483 units to an em
/// of 2048 [its `hhea` and `head` tables].
const HEIGHT_OF_EM: f64 = (1901.0 + 483.0) / 2048.0;

/// Above and below the base line, in em: what letters and digits reach.
const ASCENT: f64 = 0.78;
const DESCENT: f64 = 0.24;

/// How wide the line around a dot is.
const DOT_RIM: f64 = 1.5;

/// Red, green, blue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Color(pub u8, pub u8, pub u8);

/// Okabe and Ito's palette, which colour-blind readers can tell apart ["Color Universal Design", 2008]; its yellow,
/// too pale for a line on white, is left out, and its black is for what is measured here.
pub const PALETTE: [Color; 6] = [
    Color(0, 114, 178),   // blue
    Color(213, 94, 0),    // vermilion
    Color(0, 158, 115),   // bluish green
    Color(204, 121, 167), // reddish purple
    Color(230, 159, 0),   // orange
    Color(86, 180, 233),  // sky blue
];

pub const BLACK: Color = Color(0, 0, 0);
pub const WHITE: Color = Color(255, 255, 255);

/// Lines that only help the eye, and words of less weight.
pub const GRID: Color = Color(205, 205, 205);
pub const GREY: Color = Color(90, 90, 90);

/// For what must not be overlooked; dark enough for text on white.
pub const ALARM: Color = Color(176, 0, 32);

/// Stands in every picture of generated data.
pub const DEMO_NOTICE: &str = "DEMO: generated data and a random model. These are no benchmark numbers.";

/// (x, y).
pub type Point = (f64, f64);

/// A picture: its layers lie one above the other, the last on top.
#[derive(Debug, Clone)]
pub struct Picture {
    pub width: f64,
    pub height: f64,
    /// What the picture shows, for those who cannot see it.
    pub description: String,
    pub layers: Vec<Layer>,
}

/// Shapes that belong together.
#[derive(Debug, Clone, Default)]
pub struct Layer {
    /// Whom the layer belongs to, a model for instance, so that it can be hidden with the rest of its own.
    pub owner: Option<String>,
    pub shapes: Vec<Shape>,
}

/// Something drawn.
#[derive(Debug, Clone)]
pub enum Shape {
    /// An open line through the points.
    Line {
        points: Vec<Point>,
        color: Color,
        width: f64,
        dash: Dash,
    },
    /// A filled polygon.
    Area {
        points: Vec<Point>,
        color: Color,
        opacity: f64,
    },
    /// A disc; with a hole, a ring.
    Dot {
        center: Point,
        radius: f64,
        color: Color,
        hollow: bool,
    },
    Text(Text),
}

/// How a line is broken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Dash {
    Solid,
    /// Lengths of stroke and gap in turn.
    Strokes(&'static [f64]),
}

/// One line of words.
#[derive(Debug, Clone, PartialEq)]
pub struct Text {
    pub text: String,
    /// On the base line.
    pub at: Point,
    pub anchor: Anchor,
    /// Of an em.
    pub size: f64,
    pub bold: bool,
    pub color: Color,
}

/// Which part of a text is at its point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

/// A rectangle along the axes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    pub left: f64,
    pub top: f64,
    pub right: f64,
    pub bottom: f64,
}

impl Bounds {
    /// Whether the two share an area.
    pub fn overlaps(&self, other: &Bounds) -> bool {
        self.left < other.right
            && other.left < self.right
            && self.top < other.bottom
            && other.top < self.bottom
    }

    /// The same rectangle, larger by `margin` on each side.
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
    /// Plain black text.
    pub fn new(text: impl Into<String>, at: Point, anchor: Anchor, size: f64) -> Self {
        Text { text: text.into(), at, anchor, size, bold: false, color: BLACK }
    }

    #[must_use]
    pub fn bold(self) -> Self {
        Text { bold: true, ..self }
    }

    #[must_use]
    pub fn color(self, color: Color) -> Self {
        Text { color, ..self }
    }

    /// The left end of the base line.
    pub fn start(&self) -> Point {
        let width = text_width(&self.text, self.size, self.bold);
        let shift = match self.anchor {
            Anchor::Start => 0.0,
            Anchor::Middle => width / 2.0,
            Anchor::End => width,
        };
        (self.at.0 - shift, self.at.1)
    }

    /// What the text covers.
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
    /// All words in it.
    pub fn texts(&self) -> impl Iterator<Item = &Text> {
        self.layers.iter().flat_map(|layer| &layer.shapes).filter_map(|shape| match shape {
            Shape::Text(text) => Some(text),
            _ => None,
        })
    }
}

/// The width of one line of text whose em is `size`.
pub fn text_width(text: &str, size: f64, bold: bool) -> f64 {
    // plotters measures in whole pixels: measured large, the rounding does not show.
    const MEASURED: f64 = 1000.0;
    font(MEASURED, bold).layout_box(text).map_or(0.0, |((left, _), (right, _))| f64::from(right - left))
        * size
        / MEASURED
}

/// As much of the text as is no wider than `width`, with an ellipsis where something is left out.
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

/// The text in lines no wider than `width`, broken at spaces; a word that is wider stands alone and is cut.
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

/// The font with an em of `size`.
fn font(size: f64, bold: bool) -> FontDesc<'static> {
    static REGISTER: Once = Once::new();
    REGISTER.call_once(|| {
        for (style, bytes) in
            [(FontStyle::Normal, dejavu::sans::regular()), (FontStyle::Bold, dejavu::sans::bold())]
        {
            assert!(register_font(REGISTERED, style, bytes).is_ok(), "the font compiled in is none");
        }
    });
    let style = if bold { FontStyle::Bold } else { FontStyle::Normal };
    FontDesc::new(FontFamily::Name(REGISTERED), size * HEIGHT_OF_EM, style)
}
