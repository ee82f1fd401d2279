//! Renders a picture as SVG.

use std::fmt::Write;

use super::{Anchor, Color, DOT_RIM, Dash, FONT_FAMILY, Picture, Shape, Text};

/// Renders the picture as an SVG document; a layer with an owner becomes a group with `data-owner`.
pub fn svg(picture: &Picture) -> String {
    let Picture { width, height, description, layers } = picture;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" height=\"{1}\" role=\"img\" \
         font-family=\"{FONT_FAMILY}\">\n<title>{2}</title>\n",
        number(*width),
        number(*height),
        xml_text(description)
    );
    let _ =
        writeln!(out, "<rect width=\"{}\" height=\"{}\" fill=\"#ffffff\"/>", number(*width), number(*height));
    for layer in layers {
        match &layer.owner {
            Some(owner) => writeln!(out, "<g data-owner=\"{}\">", xml_text(owner)),
            None => writeln!(out, "<g>"),
        }
        .ok();
        for shape in &layer.shapes {
            out += &element(shape);
            out.push('\n');
        }
        out += "</g>\n";
    }
    out + "</svg>\n"
}

fn element(shape: &Shape) -> String {
    match shape {
        Shape::Line { points, color, width, dash } => {
            let dashes = match dash {
                Dash::Solid => String::new(),
                Dash::Strokes(lengths) => {
                    let lengths: Vec<String> = lengths.iter().map(|length| number(*length)).collect();
                    format!(" stroke-dasharray=\"{}\"", lengths.join(" "))
                }
            };
            format!(
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\" stroke-linejoin=\"round\"{dashes}/>",
                places(points),
                hex(*color),
                number(*width)
            )
        }
        Shape::Area { points, color, opacity } => format!(
            "<polygon points=\"{}\" fill=\"{}\" fill-opacity=\"{}\"/>",
            places(points),
            hex(*color),
            number(*opacity)
        ),
        Shape::Dot { center: (x, y), radius, color, hollow } => {
            let fill = if *hollow { "#ffffff".to_owned() } else { hex(*color) };
            format!(
                "<circle cx=\"{}\" cy=\"{}\" r=\"{}\" fill=\"{fill}\" stroke=\"{}\" stroke-width=\"{DOT_RIM}\"/>",
                number(*x),
                number(*y),
                number(*radius),
                hex(*color)
            )
        }
        Shape::Text(text) => words(text),
    }
}

fn words(text: &Text) -> String {
    let anchor = match text.anchor {
        Anchor::Start => "start",
        Anchor::Middle => "middle",
        Anchor::End => "end",
    };
    format!(
        "<text x=\"{}\" y=\"{}\" text-anchor=\"{anchor}\" font-size=\"{}\"{} fill=\"{}\">{}</text>",
        number(text.at.0),
        number(text.at.1),
        number(text.size),
        if text.bold { " font-weight=\"bold\"" } else { "" },
        hex(text.color),
        xml_text(&text.text)
    )
}

fn places(points: &[(f64, f64)]) -> String {
    let places: Vec<String> = points.iter().map(|(x, y)| format!("{},{}", number(*x), number(*y))).collect();
    places.join(" ")
}

/// Formats a number with up to two decimals, without trailing zeros.
fn number(number: f64) -> String {
    let rounded = (number * 100.0).round() / 100.0;
    // Write minus zero as zero.
    if rounded == 0.0 { "0".to_owned() } else { rounded.to_string() }
}

fn hex(Color(red, green, blue): Color) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// Escapes text for XML and HTML, in elements and in quoted attributes.
pub fn xml_text(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            // XML cannot represent these characters.
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}
