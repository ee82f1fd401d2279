//! Renders a picture as a PDF page, for papers: lines and areas stay sharp at any size, and the text can be selected and
//! searched. The glyphs that the picture uses are embedded; publishers refuse files without their fonts.

use std::collections::BTreeMap;
use std::io::Write;

use ab_glyph::{Font, FontRef};
use flate2::Compression;
use flate2::write::ZlibEncoder;
use pdf_writer::types::{CidFontType, FontFlags, LineJoinStyle, SystemInfo, UnicodeCmap};
use pdf_writer::{Content, Filter, Finish, Name, Pdf, Rect, Ref, Str, TextStr};
use subsetter::GlyphRemapper;

use super::{Anchor, Color, DOT_RIM, Dash, Picture, Point, Shape, Text, WHITE};
use crate::{Error, Result};

/// PDF points (1/72 inch) per user unit: those are CSS pixels (1/96 inch).
const POINTS: f32 = 0.75;

/// Control points of a quarter of a circle with radius 1 [the usual cubic approximation, 4 (sqrt 2 - 1) / 3].
const QUARTER: f64 = 0.552_284_75;

const IDENTITY: SystemInfo =
    SystemInfo { registry: Str(b"Adobe"), ordering: Str(b"Identity"), supplement: 0 };

/// Renders the picture as a PDF file of one page, of the picture's size. The same picture gives the same bytes.
///
/// # Errors
/// If the embedded font cannot be cut down to the glyphs used.
pub fn pdf(picture: &Picture) -> Result<Vec<u8>> {
    let mut ids = (1..).map(Ref::new);
    let mut next = || ids.next().unwrap_or(Ref::new(i32::MAX));
    let (catalog, pages, page, content, info) = (next(), next(), next(), next(), next());
    let mut faces = [Face::new(dejavu::sans::regular())?, Face::new(dejavu::sans::bold())?];
    let mut opacities: Vec<f64> = Vec::new();
    let drawn = draw(picture, &mut faces, &mut opacities);

    let mut pdf = Pdf::new();
    pdf.catalog(catalog).pages(pages);
    pdf.document_info(info).title(TextStr(&picture.description)).producer(TextStr("Terrabench"));
    pdf.pages(pages).kids([page]).count(1);
    let used: Vec<(usize, Ref)> = faces
        .iter()
        .enumerate()
        .filter(|(_, face)| !face.letters.is_empty())
        .map(|(i, _)| (i, next()))
        .collect();
    let mut writer = pdf.page(page);
    writer.media_box(Rect::new(0.0, 0.0, picture.width as f32 * POINTS, picture.height as f32 * POINTS));
    writer.parent(pages).contents(content);
    let mut resources = writer.resources();
    let mut fonts = resources.fonts();
    for (i, id) in &used {
        fonts.pair(Name(face_name(*i).as_bytes()), *id);
    }
    fonts.finish();
    let mut states = resources.ext_g_states();
    for (i, opacity) in opacities.iter().enumerate() {
        states
            .insert(Name(state_name(i).as_bytes()))
            .start::<pdf_writer::writers::ExtGraphicsState>()
            .non_stroking_alpha(*opacity as f32);
    }
    states.finish();
    resources.finish();
    writer.finish();
    let packed = packed(&drawn)?;
    pdf.stream(content, &packed).filter(Filter::FlateDecode);
    for (i, id) in used {
        faces[i].embed(&mut pdf, id, i == 1, &mut next)?;
    }
    Ok(pdf.finish())
}

fn face_name(place: usize) -> String {
    format!("F{place}")
}

fn state_name(place: usize) -> String {
    format!("A{place}")
}

fn packed(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).map_err(Error::request)
}

/// A font and the glyphs of it that the picture uses.
struct Face {
    bytes: &'static [u8],
    font: FontRef<'static>,
    glyphs: GlyphRemapper,
    /// The letter behind each new glyph, in order of the glyphs.
    letters: BTreeMap<u16, char>,
}

impl Face {
    fn new(bytes: &'static [u8]) -> Result<Self> {
        let font = FontRef::try_from_slice(bytes)
            .map_err(|problem| Error::request(format!("the embedded font is invalid: {problem}")))?;
        Ok(Face { bytes, font, glyphs: GlyphRemapper::new(), letters: BTreeMap::new() })
    }

    /// Thousandths of an em per unit of the font.
    fn scale(&self) -> f32 {
        1000.0 / self.font.units_per_em().unwrap_or(1000.0)
    }

    /// Encodes the text as the numbers of its glyphs, two bytes each; returns them with the width in em.
    fn encoded(&mut self, text: &str) -> (Vec<u8>, f64) {
        let (mut bytes, mut width) = (Vec::new(), 0.0);
        for letter in text.chars() {
            let glyph = self.font.glyph_id(letter);
            width += f64::from(self.font.h_advance_unscaled(glyph) * self.scale()) / 1000.0;
            let new = self.glyphs.remap(glyph.0);
            self.letters.entry(new).or_insert(letter);
            bytes.extend(new.to_be_bytes());
        }
        (bytes, width)
    }

    /// Writes the font with the glyphs used.
    fn embed(&self, pdf: &mut Pdf, id: Ref, bold: bool, next: &mut impl FnMut() -> Ref) -> Result<()> {
        let (descendant, descriptor, map, file) = (next(), next(), next(), next());
        // Six letters and `+` mark a part of a font.
        let name = if bold { Name(b"TERRAB+DejaVuSans-Bold") } else { Name(b"TERRAA+DejaVuSans") };
        pdf.type0_font(id)
            .base_font(name)
            .encoding_predefined(Name(b"Identity-H"))
            .descendant_font(descendant)
            .to_unicode(map);
        let mut font = pdf.cid_font(descendant);
        font.subtype(CidFontType::Type2)
            .base_font(name)
            .system_info(IDENTITY)
            .font_descriptor(descriptor)
            .cid_to_gid_map_predefined(Name(b"Identity"));
        let scale = self.scale();
        let advance = |old: u16| self.font.h_advance_unscaled(ab_glyph::GlyphId(old)) * scale;
        font.widths().consecutive(0, self.glyphs.remapped_gids().map(advance));
        font.finish();
        let (ascent, descent) = (self.font.ascent_unscaled() * scale, self.font.descent_unscaled() * scale);
        pdf.font_descriptor(descriptor)
            .name(name)
            .flags(FontFlags::SYMBOLIC)
            .bbox(Rect::new(-1100.0, descent, 1900.0, ascent))
            .italic_angle(0.0)
            .ascent(ascent)
            .descent(descent)
            .cap_height(729.0)
            .stem_v(if bold { 140.0 } else { 90.0 })
            .font_file2(file);
        let mut unicode = UnicodeCmap::new(Name(b"Terrabench"), IDENTITY);
        for (glyph, letter) in &self.letters {
            unicode.pair(*glyph, *letter);
        }
        let unicode = packed(&unicode.finish())?;
        pdf.stream(map, &unicode).filter(Filter::FlateDecode);
        let part = subsetter::subset(self.bytes, 0, &self.glyphs)
            .map_err(|problem| Error::request(format!("the embedded font cannot be cut down: {problem}")))?;
        let part = packed(&part)?;
        pdf.stream(file, &part).filter(Filter::FlateDecode);
        Ok(())
    }
}

/// Writes the page's operators. Collects the opacities that need a graphics state.
fn draw(picture: &Picture, faces: &mut [Face; 2], opacities: &mut Vec<f64>) -> Vec<u8> {
    let mut content = Content::new();
    // The canvas has its origin at the top left, a PDF page at the bottom left.
    content.transform([POINTS, 0.0, 0.0, -POINTS, 0.0, picture.height as f32 * POINTS]);
    fill(&mut content, WHITE);
    content.rect(0.0, 0.0, picture.width as f32, picture.height as f32).fill_nonzero();
    for shape in picture.layers.iter().flat_map(|layer| &layer.shapes) {
        match shape {
            Shape::Line { points, color, width, dash } => {
                let Color(red, green, blue) = color;
                content.set_stroke_rgb(share(*red), share(*green), share(*blue));
                content.set_line_width(*width as f32).set_line_join(LineJoinStyle::RoundJoin);
                let lengths = match dash {
                    Dash::Solid => Vec::new(),
                    Dash::Strokes(lengths) => lengths.iter().map(|length| *length as f32).collect(),
                };
                content.set_dash_pattern(lengths, 0.0);
                path(&mut content, points);
                content.stroke();
            }
            Shape::Area { points, color, opacity } => {
                let place = opacities.iter().position(|known| known == opacity).unwrap_or_else(|| {
                    opacities.push(*opacity);
                    opacities.len() - 1
                });
                content.save_state().set_parameters(Name(state_name(place).as_bytes()));
                fill(&mut content, *color);
                path(&mut content, points);
                content.close_path().fill_nonzero().restore_state();
            }
            Shape::Dot { center, radius, color, hollow } => {
                fill(&mut content, *color);
                circle(&mut content, *center, radius + DOT_RIM / 2.0);
                if *hollow {
                    fill(&mut content, WHITE);
                    circle(&mut content, *center, radius - DOT_RIM / 2.0);
                }
            }
            Shape::Text(text) => words(&mut content, text, faces),
        }
    }
    content.finish().to_vec()
}

fn words(content: &mut Content, text: &Text, faces: &mut [Face; 2]) {
    let place = usize::from(text.bold);
    let (bytes, em) = faces[place].encoded(&text.text);
    let width = em * text.size;
    let left = match text.anchor {
        Anchor::Start => text.at.0,
        Anchor::Middle => text.at.0 - width / 2.0,
        Anchor::End => text.at.0 - width,
    };
    fill(content, text.color);
    content
        .begin_text()
        .set_font(Name(face_name(place).as_bytes()), text.size as f32)
        // Upright again: the canvas is upside down for a PDF page.
        .set_text_matrix([1.0, 0.0, 0.0, -1.0, left as f32, text.at.1 as f32])
        .show(Str(&bytes))
        .end_text();
}

fn share(level: u8) -> f32 {
    f32::from(level) / 255.0
}

fn fill(content: &mut Content, Color(red, green, blue): Color) {
    content.set_fill_rgb(share(red), share(green), share(blue));
}

fn path(content: &mut Content, points: &[Point]) {
    for (i, (x, y)) in points.iter().enumerate() {
        match i {
            0 => content.move_to(*x as f32, *y as f32),
            _ => content.line_to(*x as f32, *y as f32),
        };
    }
}

fn circle(content: &mut Content, (x, y): Point, radius: f64) {
    let at = |dx: f64, dy: f64| ((x + dx * radius) as f32, (y + dy * radius) as f32);
    let start = at(1.0, 0.0);
    content.move_to(start.0, start.1);
    let corners = [(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0), (1.0, 0.0)];
    for pair in corners.windows(2) {
        let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
        let (a, b) = (at(x0 + QUARTER * x1, y0 + QUARTER * y1), at(x1 + QUARTER * x0, y1 + QUARTER * y0));
        let end = at(x1, y1);
        content.cubic_to(a.0, a.1, b.0, b.1, end.0, end.1);
    }
    content.fill_nonzero();
}
