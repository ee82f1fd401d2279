//! Rotation by any angle about the centre.

use ndarray::{Array2, Array3, Zip};

/// Maps a position in the rotated image to its source position, as (row, column).
#[derive(Debug, Clone, Copy)]
struct Source {
    sine: f64,
    cosine: f64,
    /// The centre of the image, which lies between pixels if a side is even.
    centre: (f64, f64),
}

impl Source {
    fn new(degrees: f64, (rows, columns): (usize, usize)) -> Self {
        let (sine, cosine) = degrees.to_radians().sin_cos();
        let middle = |length: usize| (length as f64 - 1.0) / 2.0;
        Source { sine, cosine, centre: (middle(rows), middle(columns)) }
    }

    fn of(self, row: usize, column: usize) -> (f64, f64) {
        let (down, right) = (row as f64 - self.centre.0, column as f64 - self.centre.1);
        (
            self.sine * right + self.cosine * down + self.centre.0,
            self.cosine * right - self.sine * down + self.centre.1,
        )
    }
}

/// Splits `x` into the position before it and the distance from there.
fn split(x: f64) -> (i64, f32) {
    let floor = x.floor();
    // Sides are far below 2^53, and so are positions.
    (floor as i64, (x - floor) as f32)
}

/// Rotates an image [c, h, w] counter-clockwise by `degrees` and keeps its size: bilinear, with 0 beyond its edges [kornia,
/// RandomRotation: torch's grid_sample with align_corners and zeros].
pub fn image(image: &Array3<f32>, degrees: f64) -> Array3<f32> {
    let (channels, rows, columns) = image.dim();
    let source = Source::new(degrees, (rows, columns));
    let mut turned = Array3::zeros(image.dim());
    for row in 0..rows {
        for column in 0..columns {
            let (y, x) = source.of(row, column);
            let ((y, down), (x, right)) = (split(y), split(x));
            let corners = [
                (y, x, (1.0 - down) * (1.0 - right)),
                (y, x + 1, (1.0 - down) * right),
                (y + 1, x, down * (1.0 - right)),
                (y + 1, x + 1, down * right),
            ];
            for (y, x, weight) in corners {
                let (Ok(y), Ok(x)) = (usize::try_from(y), usize::try_from(x)) else { continue };
                if y >= rows || x >= columns {
                    continue;
                }
                for channel in 0..channels {
                    turned[[channel, row, column]] += weight * image[[channel, y, x]];
                }
            }
        }
    }
    turned
}

/// Rotates a mask [h, w] together with its image: nearest label, so no new label can appear, and `fill` beyond its edges.
pub fn mask<T: Copy>(mask: &Array2<T>, degrees: f64, fill: T) -> Array2<T> {
    let source = Source::new(degrees, mask.dim());
    let nearest = |place: f64| usize::try_from(place.round_ties_even() as i64).ok();
    let mut turned = Array2::from_elem(mask.dim(), fill);
    Zip::indexed(&mut turned).for_each(|(row, column), label| {
        let (y, x) = source.of(row, column);
        if let Some(found) = nearest(y).zip(nearest(x)).and_then(|place| mask.get(place)) {
            *label = *found;
        }
    });
    turned
}
