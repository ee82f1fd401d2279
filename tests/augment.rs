//! Compares flips and rotations with the reference's.

use crate::common;
use ndarray::{Array2, Array3, Axis};
use serde_json::Value;
use terrabench::transform::augment::{Dihedral, Turn};
use terrabench::transform::rotate;

#[test]
fn squares_turn_as_in_the_reference() {
    let text = std::fs::read_to_string(common::fixture("protocols/augmentations.json")).unwrap();
    let golden: Value = serde_json::from_str(&text).unwrap();
    let names: Vec<&str> = golden["order"].as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect();
    assert_eq!(names.len(), Dihedral::ALL.len());
    for (case, shape) in [("2x4x4", (2, 4, 4)), ("1x5x5", (1, 5, 5))] {
        let length = shape.0 * shape.1 * shape.2;
        let image = Array3::from_shape_vec(shape, (0..length as u64).collect()).unwrap();
        for (name, turn) in names.iter().zip(Dihedral::ALL) {
            let expected: Vec<u64> = golden[case][name]["order"]
                .as_array()
                .unwrap()
                .iter()
                .map(|index| index.as_u64().unwrap())
                .collect();
            let turned = turn.apply(image.clone());
            assert_eq!(turned.dim(), shape);
            assert_eq!(turned.as_slice().unwrap(), expected, "{name} of {case}");
        }
    }
}

#[test]
fn oblong_images_keep_every_pixel() {
    let image = Array3::from_shape_vec((1, 2, 3), vec![1, 2, 3, 4, 5, 6]).unwrap();
    let turned = |turn: Dihedral| turn.apply(image.clone());
    assert_eq!(turned(Dihedral::Rotate90), ndarray::arr3(&[[[3, 6], [2, 5], [1, 4]]]));
    assert_eq!(turned(Dihedral::Rotate270), ndarray::arr3(&[[[4, 1], [5, 2], [6, 3]]]));
    assert_eq!(turned(Dihedral::FlipVertical), ndarray::arr3(&[[[4, 5, 6], [1, 2, 3]]]));
    assert_eq!(Dihedral::Rotate270.apply(turned(Dihedral::Rotate90)), image);
}

#[test]
fn images_and_masks_rotate_as_in_the_reference() {
    let text = std::fs::read_to_string(common::fixture("protocols/rotation.json")).unwrap();
    let golden: Value = serde_json::from_str(&text).unwrap();
    let numbers = |value: &Value| -> Vec<f64> {
        value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
    };
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 8);
    for case in cases {
        let [c, h, w] = numbers(&case["shape"])[..] else { panic!("a shape has three sides") };
        let (c, h, w) = (c as usize, h as usize, w as usize);
        let degrees = case["degrees"].as_f64().unwrap();
        let image: Vec<f32> = numbers(&case["image"]).iter().map(|number| *number as f32).collect();
        let image = rotate::image(&Array3::from_shape_vec((c, h, w), image).unwrap(), degrees);
        for (found, expected) in image.iter().zip(numbers(&case["rotated_image"])) {
            assert!((f64::from(*found) - expected).abs() < 5e-6, "{found} {expected} at {degrees} degrees");
        }
        let mask: Vec<i16> = numbers(&case["mask"]).iter().map(|number| *number as i16).collect();
        let mask = rotate::mask(&Array2::from_shape_vec((h, w), mask).unwrap(), degrees, 0);
        let expected: Vec<i16> = numbers(&case["rotated_mask"]).iter().map(|number| *number as i16).collect();
        assert_eq!(mask.as_slice().unwrap(), expected, "{degrees} degrees");
    }
}

#[test]
fn a_turned_mask_stays_on_its_image() {
    // Away from edges between classes, each image pixel equals the label of the mask.
    let mask = Array2::from_shape_fn((64, 64), |(y, x)| i16::from(y > 20) + 2 * i16::from(x > 40) + 1);
    let image = mask.mapv(f32::from).insert_axis(Axis(0));
    for dihedral in Dihedral::ALL {
        for degrees in [None, Some(33.0), Some(-71.0)] {
            let turn = Turn { dihedral, degrees };
            let (image, mask) = (turn.image(image.clone()), turn.mask(mask.clone(), 0));
            let near = |(pixel, label): &(&f32, &i16)| (**pixel - f32::from(**label)).abs() < 1e-3;
            let same = image.iter().zip(&mask).filter(near).count();
            assert!(same * 100 > 90 * mask.len(), "{turn:?}: {same}");
            assert!(mask.iter().all(|label| (0..=4).contains(label)), "no label is invented");
        }
    }
    assert_eq!(Turn::NONE.mask(mask.clone(), 0), mask);
}
