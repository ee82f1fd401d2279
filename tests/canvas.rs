//! Pictures: text is measured as it is drawn, SVG and PNG show the same, and names cannot break either.

use terrabench::canvas::{
    Anchor, BLACK, Bitmap, Color, Dash, Layer, PALETTE, Picture, Shape, Text, encode_png, png, shortened,
    svg, text_width, xml_text,
};

fn picture(shapes: Vec<Shape>) -> Picture {
    Picture {
        width: 200.0,
        height: 100.0,
        description: "a <picture>".into(),
        layers: vec![Layer { owner: Some("a \"model\"".into()), shapes }],
    }
}

/// RGB pixels and the width of a PNG.
fn pixels(bytes: &[u8]) -> (Vec<u8>, usize) {
    let mut reader = png_reader(bytes);
    let mut pixels = vec![0; reader.output_buffer_size()];
    let frame = reader.next_frame(&mut pixels).unwrap();
    (pixels, frame.width as usize)
}

fn png_reader(bytes: &[u8]) -> ::png::Reader<&[u8]> {
    ::png::Decoder::new(bytes).read_info().unwrap()
}

/// Where the pixels of a colour lie: left, top, right, bottom.
fn extent((pixels, width): &(Vec<u8>, usize), is: impl Fn(&[u8]) -> bool) -> [usize; 4] {
    let mut extent = [usize::MAX, usize::MAX, 0, 0];
    for (i, _) in pixels.chunks_exact(3).enumerate().filter(|(_, pixel)| is(pixel)) {
        let (x, y) = (i % width, i / width);
        extent = [extent[0].min(x), extent[1].min(y), extent[2].max(x), extent[3].max(y)];
    }
    extent
}

#[test]
fn text_is_drawn_where_it_is_measured() {
    for (anchor, x) in [(Anchor::Start, 10.0), (Anchor::Middle, 100.0), (Anchor::End, 190.0)] {
        for bold in [false, true] {
            let mut text = Text::new("H93.4 Åg", (x, 50.0), anchor, 20.0);
            text.bold = bold;
            let bounds = text.bounds();
            let drawn = pixels(&png(&picture(vec![Shape::Text(text)]), 4.0).unwrap());
            let [left, top, right, bottom] = extent(&drawn, |pixel| pixel[0] < 128).map(|n| n as f64 / 4.0);
            // Side bearings are inside what is measured.
            assert!(left >= bounds.left && left < bounds.left + 3.0, "{left} {bounds:?}");
            assert!(right <= bounds.right && right > bounds.right - 4.0, "{right} {bounds:?}");
            // The ring of Å is the only thing above.
            assert!(top >= bounds.top - 4.0 && top < bounds.top + 3.0, "{top} {bounds:?}");
            assert!(bottom <= bounds.bottom && bottom > bounds.bottom - 2.0, "{bottom} {bounds:?}");
        }
    }
}

#[test]
fn widths_grow_with_size_and_weight() {
    let narrow = text_width("m-EuroSat", 10.0, false);
    assert!((text_width("m-EuroSat", 20.0, false) - 2.0 * narrow).abs() < 1e-9);
    assert!(text_width("m-EuroSat", 10.0, true) > narrow);
    assert_eq!(text_width("", 10.0, false), 0.0);
}

#[test]
fn what_is_too_wide_is_cut() {
    assert_eq!(shortened("Galileo", 100.0, 12.0, false), "Galileo");
    let cut = shortened("A model with a very long name", 100.0, 12.0, false);
    assert!(cut.ends_with('…') && text_width(&cut, 12.0, false) <= 100.0, "{cut}");
    assert_eq!(shortened("Galileo", 1.0, 12.0, false), "");
}

#[test]
fn lines_are_broken_and_dots_have_holes() {
    let line =
        |dash| Shape::Line { points: vec![(10.0, 50.0), (190.0, 50.0)], color: BLACK, width: 4.0, dash };
    let black = |shape: Shape| {
        let (pixels, _) = pixels(&png(&picture(vec![shape]), 2.0).unwrap());
        pixels.chunks_exact(3).filter(|pixel| pixel[0] < 128).count()
    };
    let solid = black(line(Dash::Solid));
    assert!((2700..3300).contains(&solid), "{solid}");
    let dashed = black(line(Dash::Strokes(&[6.0, 6.0])));
    assert!((solid * 4 / 10..solid * 6 / 10).contains(&dashed), "{dashed} of {solid}");

    let dot = |hollow| Shape::Dot { center: (100.0, 50.0), radius: 8.0, color: BLACK, hollow };
    assert!(black(dot(true)) * 2 < black(dot(false)));
}

#[test]
fn svg_escapes_names_and_says_what_it_shows() {
    let text = svg(&picture(vec![
        Shape::Text(Text::new("<script>&\u{1}", (1.0, 2.5), Anchor::Middle, 12.0).bold()),
        Shape::Area {
            points: vec![(0.0, 0.0), (1.0 / 3.0, 0.0), (1.0, -0.001)],
            color: PALETTE[0],
            opacity: 0.1,
        },
    ]));
    assert!(text.contains("<title>a &lt;picture&gt;</title>"), "{text}");
    assert!(text.contains("<g data-owner=\"a &quot;model&quot;\">"), "{text}");
    assert!(text.contains(">&lt;script&gt;&amp; </text>") && text.contains("sans-serif"), "{text}");
    assert!(text.contains("points=\"0,0 0.33,0 1,0\" fill=\"#0072b2\" fill-opacity=\"0.1\""), "{text}");
    assert_eq!(xml_text("it's"), "it&#39;s");
}

#[test]
fn colours_differ_for_colour_blind_readers() {
    // Simulation of dichromats, linear light [Viénot, Brettel, Mollon 1999].
    let linear = |v: u8| (f64::from(v) / 255.0).powf(2.2);
    let simulate = |Color(r, g, b): Color, deuteranope: bool| {
        let (r, g, b) = (linear(r), linear(g), linear(b));
        let (red, blue) = if deuteranope {
            (0.29275 * r + 0.70725 * g, -0.02234 * r + 0.02234 * g + b)
        } else {
            (0.11238 * r + 0.88762 * g, 0.00401 * r - 0.00401 * g + b)
        };
        [red, blue].map(|v| v.max(0.0).powf(1.0 / 2.2))
    };
    for deuteranope in [false, true] {
        for (i, a) in PALETTE.iter().enumerate() {
            for b in &PALETTE[i + 1..] {
                let (p, q) = (simulate(*a, deuteranope), simulate(*b, deuteranope));
                let distance = (p[0] - q[0]).hypot(p[1] - q[1]);
                assert!(distance > 0.08, "{a:?} and {b:?}: {distance}");
            }
        }
    }
}

#[test]
fn bitmaps_take_pictures_and_refuse_sizes_without_sense() {
    let mut bitmap = Bitmap::new(4, 3).unwrap();
    // Two by two, the right half of it beyond the edge; then all of it.
    bitmap.blit((3, 1), 2, &[9; 12]);
    bitmap.blit((7, 1), 2, &[9; 12]);
    bitmap.blit((0, 2), 2, &[8; 12]);
    let (found, width) = pixels(&bitmap.png().unwrap());
    let values: Vec<u8> = found.chunks_exact(3).map(|pixel| pixel[1]).collect();
    assert_eq!((width, &values[..]), (4, &[255, 255, 255, 255, 255, 255, 255, 9, 8, 8, 255, 9][..]));
    assert!(Bitmap::new(0, 3).is_err() && Bitmap::new(1 << 20, 3).is_err());
    assert!(encode_png(2, 2, &[0; 11]).is_err() && encode_png(0, 2, &[]).is_err());
}
