//! Picture sheets of predicted masks: checks of their pixels.

use ndarray::{Array2, Array3, array};
use terrabench::run::sheet::{Example, Heading, colors, most_to_see, sheet};
use terrabench::task::bands::Band;

const WRONG: [u8; 3] = [230, 0, 126];
const IGNORED: [u8; 3] = [60, 60, 60];

fn heading() -> Heading {
    Heading { title: "A task, a model".into(), line: "upernet, seed 0".into(), colors: "True colour" }
}

fn classes() -> Vec<String> {
    vec!["background".into(), "landslide".into()]
}

/// Returns a sample with a labelled quarter of 64 x 64 pixels and an ignored strip; the prediction misses the quarter's left half.
fn example(name: &str) -> Example {
    let label = Array2::from_shape_fn((64, 64), |(y, x)| match (y, x) {
        (60.., _) => 255,
        (0..32, 0..32) => 1,
        _ => 0,
    });
    let prediction = Array2::from_shape_fn((64, 64), |(y, x)| i32::from(y < 32 && (16..32).contains(&x)));
    let image = Array3::from_shape_fn((3, 64, 64), |(band, y, x)| (band * 500 + y * 10 + x) as f32);
    Example { name: name.into(), image, label, prediction }
}

/// Decodes a PNG into its width and RGB rows.
fn decoded(png: &[u8]) -> (usize, Vec<u8>) {
    let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size()];
    let info = reader.next_frame(&mut pixels).unwrap();
    assert_eq!((info.color_type, info.bit_depth), (png::ColorType::Rgb, png::BitDepth::Eight));
    (info.width as usize, pixels)
}

#[test]
fn exactly_the_wrong_pixels_are_marked() {
    let png = sheet(&heading(), &classes(), &[example("one"), example("two")]).unwrap();
    let (width, pixels) = decoded(&png);
    let at = |x: usize, y: usize| -> [u8; 3] { pixels[(y * width + x) * 3..][..3].try_into().unwrap() };
    // Four panels of 256 pixels: a sample's pixel is 4 wide. The second row has the same picture.
    let panel = |column: usize, row: usize, x: usize, y: usize| {
        at(20 + column * (256 + 14) + 4 * x + 2, 92 + row * (256 + 30) + 4 * y + 2)
    };
    for row in [0, 1] {
        let (label, prediction) = (panel(1, row, 5, 5), panel(2, row, 20, 5));
        assert_eq!(label, prediction, "a class has one colour");
        assert_ne!(label, panel(2, row, 5, 5));
        assert_eq!(panel(3, row, 5, 5), WRONG);
        assert_ne!(panel(3, row, 20, 5), WRONG);
        assert_ne!(panel(3, row, 50, 50), WRONG);
        assert_eq!(panel(1, row, 10, 62), IGNORED);
        assert_eq!(panel(3, row, 10, 62), IGNORED, "an ignored pixel is not an error");
    }
    let errors = pixels.as_chunks::<3>().0.iter().filter(|pixel| **pixel == WRONG).count();
    // 32 x 16 pixels of each sample are wrong; the legend has a swatch of 14 x 14.
    assert!((2 * 512 * 16..=2 * 512 * 16 + 15 * 15).contains(&errors), "{errors}");
}

#[test]
fn samples_that_cannot_be_drawn_are_errors() {
    sheet(&heading(), &classes(), &[]).unwrap_err();
    let wrong = Example { prediction: Array2::zeros((32, 64)), ..example("sample 7") };
    let error = sheet(&heading(), &classes(), &[wrong]).unwrap_err().to_string();
    assert!(error.contains("sample 7") && error.contains("(32, 64)"), "{error}");
    let flat = Example { image: Array3::zeros((2, 64, 64)), ..example("two bands") };
    sheet(&heading(), &classes(), &[flat]).unwrap_err();
}

#[test]
fn unusual_images_can_be_drawn() {
    let nothing = Example {
        name: "n\u{307}".repeat(300),
        image: Array3::from_elem((3, 700, 500), f32::NAN),
        label: Array2::from_elem((700, 500), -1),
        prediction: Array2::zeros((700, 500)),
    };
    let many: Vec<String> = (0..60).map(|i| format!("a class with a long name, number {i}")).collect();
    let (width, pixels) = decoded(&sheet(&heading(), &many, &[nothing]).unwrap());
    assert_eq!(width, 2 * 20 + 4 * 256 + 3 * 14);
    assert!(pixels.len() / width / 3 > 256);
}

#[test]
fn most_varied_samples_are_shown_in_their_order() {
    let with = |name: &str, label: Array2<i32>| Example {
        name: name.into(),
        image: Array3::zeros((3, 2, 2)),
        prediction: label.clone(),
        label,
    };
    let examples = vec![
        with("flat", array![[0, 0], [0, 0]]),
        with("two", array![[0, 1], [0, 1]]),
        with("three", array![[0, 1], [2, 1]]),
        with("flat too", array![[1, 1], [1, 1]]),
        with("four", array![[0, 1], [2, 3]]),
        with("some", array![[0, 0], [0, 1]]),
    ];
    let shown: Vec<String> = most_to_see(examples).into_iter().map(|example| example.name).collect();
    assert_eq!(shown, ["two", "three", "four", "some"]);
}

#[test]
fn colours_come_from_the_available_bands() {
    let stored = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let optical = colors(&[Band::B02, Band::B03, Band::B04, Band::B8A], &stored(&["b", "g", "r", "n"]));
    assert_eq!(optical.unwrap(), (["r", "g", "b"].map(String::from), "True colour"));
    let radar = colors(&[Band::VV, Band::VH], &stored(&["vv", "vh"])).unwrap();
    assert_eq!(radar.0, ["vv", "vh", "vv"].map(String::from));
    assert_eq!(colors(&[Band::B8A], &stored(&["n"])), None);
}
