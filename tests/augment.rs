//! Flips and rotations against the reference's.

mod common;

use ndarray::Array3;
use serde_json::Value;
use terrabench::transform::augment::Dihedral;

#[test]
fn squares_turn_as_the_reference_turns_them() {
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
