//! From the images of a sample to one feature: all at once through the encoder where it takes them together, else each alone,
//! and then combined as the task says. Every protocol goes this way.

use std::sync::Arc;

use burn::tensor::Tensor;

use super::encoder::{Batch, Context, Encoded, Encoder, Input, Map, Pooling, Want};
use super::remote::{Pending, RemoteEncoder, Unstacked};
use crate::nn::heads::upernet::MapLevel;
use crate::task::bands::Band;
use crate::task::{Combine, Sensor};
use crate::{Error, Result};

/// One image of each sample, as an encoder is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSpec {
    /// The sensor that the encoder is told.
    pub sensor: Sensor,
    /// The band of each channel; empty where the model does not look at bands.
    pub bands: Arc<[Band]>,
    /// Number of channels, c.
    pub channels: usize,
}

/// How the images of a task go into an encoder, and how what it gives becomes one feature.
#[derive(Debug, Clone, PartialEq)]
pub struct InputSpec {
    /// At least one.
    pub images: Vec<ImageSpec>,
    /// How the features of images that are encoded alone become one. None where the encoder is given all images at once, as
    /// a single one is.
    pub combine: Option<Combine>,
    /// How tokens become one vector per image.
    pub pooling: Pooling,
    /// Ground sampling distance of the stored pixels in metres, if the encoder is told.
    pub gsd_m: Option<f32>,
}

impl InputSpec {
    /// Of one image per sample.
    ///
    /// ```
    /// use terrabench::model::{InputSpec, Pooling};
    /// use terrabench::task::{Sensor, bands::Band};
    ///
    /// let spec = InputSpec::single(Sensor::S1, [Band::VV, Band::VH].into(), Pooling::Class);
    /// assert_eq!(spec.images[0].channels, 2);
    /// ```
    pub fn single(sensor: Sensor, bands: Arc<[Band]>, pooling: Pooling) -> Self {
        let channels = bands.len();
        InputSpec { images: vec![ImageSpec { sensor, bands, channels }], combine: None, pooling, gsd_m: None }
    }

    /// A batch of n samples: for each image in order the normalised and resized pixels [n, c, h, w] of all samples, and when
    /// and where they were taken.
    pub fn batch(&self, images: Vec<(Tensor<4>, Context)>) -> Batch {
        let input = |(spec, (pixels, context)): (&ImageSpec, (Tensor<4>, Context))| Input {
            sensor: spec.sensor,
            bands: Arc::clone(&spec.bands),
            pixels,
            context: Context { gsd_m: context.gsd_m.or(self.gsd_m), ..context },
        };
        Batch { inputs: self.images.iter().zip(images).map(input).collect() }
    }

    /// Length d of the pooled feature of a sample.
    pub fn width(&self, encoder: &dyn Encoder) -> usize {
        let of = |channels| encoder.width(self.pooling, channels);
        let channels = self.images.iter().map(|image| image.channels);
        match self.combine {
            None => of(channels.sum()),
            Some(Combine::Difference) => channels.map(of).next().unwrap_or(0),
            Some(Combine::Concatenate) => channels.map(of).sum(),
        }
    }

    /// The feature maps of a sample, where the encoder's of an image are `levels`.
    pub fn map_levels(&self, levels: Vec<MapLevel>) -> Vec<MapLevel> {
        let times = match self.combine {
            None | Some(Combine::Difference) => 1,
            Some(Combine::Concatenate) => self.images.len(),
        };
        let wider = |level: MapLevel| MapLevel { width: times * level.width, ..level };
        levels.into_iter().map(wider).collect()
    }

    /// Starts to encode samples. An encoder that works on several batches at a time gives them back when they are done; any other
    /// encodes them now.
    ///
    /// # Errors
    /// As [`InputSpec::encode`].
    pub fn begin<'e>(&self, encoder: &'e dyn Encoder, batch: Batch, want: Want) -> Result<Pending<'e>> {
        let Some(remote) = encoder.remote() else { return self.encode(encoder, &batch, want).map(done) };
        self.check(batch.inputs.len())?;
        let Some(combine) = self.combine else { return remote.begin(batch, want, 0) };
        let alone = |(place, input)| remote.begin(Batch { inputs: vec![input] }, want, place);
        let images = batch.inputs.into_iter().enumerate().map(alone).collect::<Result<Vec<_>>>()?;
        Ok(all(combine, images))
    }

    /// Like [`InputSpec::begin`] with images that were not joined to tensors, one entry of `inputs` per image of a sample.
    ///
    /// # Errors
    /// As [`InputSpec::encode`].
    pub fn begin_unstacked<'e>(
        &self,
        remote: &'e dyn RemoteEncoder,
        inputs: Vec<Unstacked>,
        want: Want,
    ) -> Result<Pending<'e>> {
        self.check(inputs.len())?;
        let Some(combine) = self.combine else { return remote.begin_unstacked(inputs, want, 0) };
        let alone = |(place, input)| remote.begin_unstacked(vec![input], want, place);
        let images = inputs.into_iter().enumerate().map(alone).collect::<Result<Vec<_>>>()?;
        Ok(all(combine, images))
    }

    /// Checks the number of images per sample.
    fn check(&self, found: usize) -> Result<()> {
        let expected = self.images.len();
        if found == expected {
            return Ok(());
        }
        Err(Error::mismatch(format!("samples of {found} images, expected {expected}")))
    }

    /// Encodes samples: pooled vectors [n, d], patch tokens [n, rows * columns, d] or maps [n, d, rows, columns] each.
    ///
    /// # Errors
    /// As [`Encoder::encode`], or where the features of a sample's images cannot be combined.
    pub fn encode(&self, encoder: &dyn Encoder, batch: &Batch, want: Want) -> Result<Encoded> {
        self.check(batch.inputs.len())?;
        if encoder.remote().is_some() {
            return self.begin(encoder, batch.clone(), want)?();
        }
        let Some(combine) = self.combine else { return encoder.encode(batch, want) };
        let alone = |input: &Input| encoder.encode(&Batch { inputs: vec![input.clone()] }, want);
        combined(combine, batch.inputs.iter().map(alone).collect::<Result<_>>()?)
    }
}

/// Waits for every image of the samples and combines their features.
fn all(combine: Combine, images: Vec<Pending>) -> Pending {
    Box::new(move || combined(combine, images.into_iter().map(|image| image()).collect::<Result<_>>()?))
}

/// Returns work that is done.
fn done<'e>(encoded: Encoded) -> Pending<'e> {
    Box::new(move || Ok(encoded))
}

/// One feature of those of each image, in the order of the images.
///
/// # Errors
/// Where their kinds, grids or numbers of maps differ, or a difference is of other than two images.
pub fn combined(combine: Combine, images: Vec<Encoded>) -> Result<Encoded> {
    match images.first() {
        None => Err(Error::mismatch("there are no images to combine")),
        Some(Encoded::Pooled(_)) => {
            let vectors = images.into_iter().map(Encoded::pooled).collect::<Result<_>>()?;
            Ok(Encoded::Pooled(joined(combine, vectors, 1)?))
        }
        Some(Encoded::Tokens { grid, .. }) => {
            let grid = *grid;
            let tokens = images.into_iter().map(Encoded::tokens).collect::<Result<Vec<_>>>()?;
            if let Some((_, other)) = tokens.iter().find(|(_, other)| *other != grid) {
                return Err(unlike(&format!("patches of {grid:?}"), &format!("{other:?}")));
            }
            let tokens = tokens.into_iter().map(|(tokens, _)| tokens).collect();
            Ok(Encoded::Tokens { tokens: joined(combine, tokens, 2)?, grid })
        }
        Some(Encoded::Maps(_)) => {
            let images = images.into_iter().map(Encoded::maps).collect::<Result<Vec<_>>>()?;
            let forms = |maps: &[Map]| -> Vec<_> {
                let form = |map: &Map| (map.values.dims()[2], map.values.dims()[3], map.stride);
                maps.iter().map(form).collect()
            };
            let first = forms(&images[0]);
            if let Some(other) = images.iter().map(|maps| forms(maps)).find(|other| *other != first) {
                let told = |forms: &[_]| format!("{forms:?} (rows, columns, stride)");
                return Err(unlike(&format!("maps of {}", told(&first)), &told(&other)));
            }
            let level = |place: usize| {
                let values = images.iter().map(|maps| maps[place].values.clone()).collect();
                Ok(Map { values: joined(combine, values, 1)?, stride: images[0][place].stride })
            };
            Ok(Encoded::Maps((0..first.len()).map(level).collect::<Result<_>>()?))
        }
    }
}

fn unlike(first: &str, other: &str) -> Error {
    Error::mismatch(format!("the images of a sample give {first} and {other}"))
        .help("images that are combined must be of one size")
}

/// Tensors whose dimension `features` is the features'.
fn joined<const D: usize>(
    combine: Combine,
    mut tensors: Vec<Tensor<D>>,
    features: usize,
) -> Result<Tensor<D>> {
    match (combine, tensors.len()) {
        (Combine::Concatenate, _) => Ok(Tensor::cat(tensors, features)),
        (Combine::Difference, 2) => {
            let earlier = tensors.swap_remove(0);
            let later = tensors.swap_remove(0);
            if earlier.dims() != later.dims() {
                return Err(unlike(
                    &format!("features of {:?}", earlier.dims()),
                    &format!("{:?}", later.dims()),
                ));
            }
            Ok(later - earlier)
        }
        (Combine::Difference, several) => {
            Err(Error::mismatch(format!("a difference is of 2 images, found {several}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::home::Home;
    use crate::model;
    use crate::model::config::ModelConfig;

    fn images(seed: usize, bands: usize) -> Tensor<4> {
        let count = 2 * bands * 32 * 32;
        let values = (0..count).map(|place| ((place * 7 + seed * 13) % 29) as f32 / 29.0).collect();
        Tensor::from_data(TensorData::new(values, [2, bands, 32, 32]), &Device::flex())
    }

    fn encoder() -> (ModelConfig, model::Architecture) {
        let model = ModelConfig::load(&Home::find().unwrap(), "demo").unwrap();
        let encoder = model::trainable(&model, &"random:0".parse().unwrap(), false, &Device::flex());
        (model, encoder.unwrap())
    }

    fn spec(model: &ModelConfig, sensors: &[Sensor], combine: Option<Combine>) -> InputSpec {
        let image = |sensor: &Sensor| {
            let bands: Arc<[Band]> = model.sensor(*sensor).unwrap().bands.as_slice().into();
            ImageSpec { sensor: *sensor, channels: bands.len(), bands }
        };
        InputSpec {
            images: sensors.iter().map(image).collect(),
            combine,
            pooling: Pooling::Class,
            gsd_m: None,
        }
    }

    /// All numbers of what is wanted, and the shape of each tensor.
    fn numbers(encoded: Encoded) -> Vec<(Vec<usize>, Vec<f32>)> {
        fn of<const D: usize>(tensor: Tensor<D>) -> (Vec<usize>, Vec<f32>) {
            (tensor.dims().to_vec(), tensor.into_data().try_into_vec().unwrap())
        }
        match encoded {
            Encoded::Pooled(vectors) => vec![of(vectors)],
            Encoded::Tokens { tokens, .. } => vec![of(tokens)],
            Encoded::Maps(maps) => maps.into_iter().map(|map| of(map.values)).collect(),
        }
    }

    const WANTS: [Want; 3] = [Want::Pooled(Pooling::Class), Want::Tokens, Want::Maps];

    fn encoded(spec: &InputSpec, encoder: &dyn Encoder, pixels: Vec<Tensor<4>>, want: Want) -> Encoded {
        let images = pixels.into_iter().map(|pixels| (pixels, Context::default())).collect();
        spec.encode(encoder, &spec.batch(images), want).unwrap()
    }

    #[test]
    fn a_difference_is_the_later_image_minus_the_earlier() {
        let (model, encoder) = encoder();
        let both = spec(&model, &[Sensor::S1; 2], Some(Combine::Difference));
        let one = spec(&model, &[Sensor::S1], None);
        let (before, after) = (images(0, 2), images(1, 2));
        for want in WANTS {
            let of = |pixels| numbers(encoded(&both, &encoder, pixels, want));
            let alone = |pixels: &Tensor<4>| numbers(encoded(&one, &encoder, vec![pixels.clone()], want));
            let found = of(vec![before.clone(), after.clone()]);
            for ((found, before), after) in found.iter().zip(alone(&before)).zip(alone(&after)) {
                let expected: Vec<f32> = after.1.iter().zip(&before.1).map(|(a, b)| a - b).collect();
                assert_eq!((&found.0, &found.1), (&before.0, &expected), "{want:?}");
                assert!(found.1.iter().any(|change| *change != 0.0), "{want:?}");
            }
            let unchanged = of(vec![before.clone(), before.clone()]);
            assert!(unchanged.iter().flat_map(|(_, all)| all).all(|change| *change == 0.0), "{want:?}");
        }
    }

    #[test]
    fn concatenated_features_hold_each_images_own_side_by_side() {
        let (model, encoder) = encoder();
        let sensors = [Sensor::S1, Sensor::S2_L1C];
        let both = spec(&model, &sensors, Some(Combine::Concatenate));
        let pixels = [images(0, 2), images(1, 12)];
        for (want, axis) in WANTS.into_iter().zip([1, 2, 1]) {
            let found = numbers(encoded(&both, &encoder, pixels.to_vec(), want));
            let alone = sensors.iter().zip(&pixels).map(|(sensor, pixels)| {
                let one = spec(&model, &[*sensor], None);
                numbers(encoded(&one, &encoder, vec![pixels.clone()], want))
            });
            let alone: Vec<_> = alone.collect();
            for (place, (shape, found)) in found.iter().enumerate() {
                let (of_s1, of_s2) = (&alone[0][place], &alone[1][place]);
                let mut expected = of_s1.0.clone();
                expected[axis] += of_s2.0[axis];
                assert_eq!(*shape, expected, "{want:?}");
                let mut sums = [found, &of_s1.1, &of_s2.1].map(|all| {
                    let mut all = all.clone();
                    all.sort_unstable_by(f32::total_cmp);
                    all
                });
                let [found, first, second] = &mut sums;
                first.append(second);
                first.sort_unstable_by(f32::total_cmp);
                assert_eq!(found, first, "{want:?}");
            }
        }
        assert_eq!(both.width(&encoder), 2 * 192);
        assert!(both.map_levels(model.architecture.maps()).iter().all(|level| level.width == 2 * 192));
    }

    /// Sums all numbers of all its inputs.
    struct Sum;

    impl Encoder for Sum {
        fn width(&self, _: Pooling, channels: usize) -> usize {
            channels
        }

        fn encode(&self, batch: &Batch, _: Want) -> Result<Encoded> {
            let sums = batch.inputs.iter().map(|input| input.pixels.clone().sum());
            let sum = sums.reduce(|a, b| a + b).ok_or_else(|| Error::mismatch("nothing"))?;
            Ok(Encoded::Pooled(sum.reshape([1, 1])))
        }
    }

    #[test]
    fn without_a_way_to_combine_the_encoder_gets_all_images_at_once() {
        let (model, _) = encoder();
        let both = spec(&model, &[Sensor::S1, Sensor::S2_L1C], None);
        let pixels = vec![images(0, 2).ones_like(), images(1, 12).ones_like()];
        let found = numbers(encoded(&both, &Sum, pixels, Want::Pooled(Pooling::Class)));
        assert_eq!(found[0].1, [(2 * 14 * 32 * 32) as f32]);
        assert_eq!(both.width(&Sum), 14);
    }

    #[test]
    fn images_that_cannot_be_combined_are_told() {
        let (model, encoder) = encoder();
        let both = spec(&model, &[Sensor::S1; 2], Some(Combine::Concatenate));
        let small = images(1, 2).narrow(2, 0, 16).narrow(3, 0, 16);
        let batch = both.batch(vec![(images(0, 2), Context::default()), (small, Context::default())]);
        for want in [Want::Tokens, Want::Maps] {
            let error = both.encode(&encoder, &batch, want).unwrap_err().to_string();
            assert!(error.contains("the images of a sample give"), "{error}");
        }
        let one = both.batch(vec![(images(0, 2), Context::default())]);
        let error = both.encode(&encoder, &one, Want::Tokens).unwrap_err().to_string();
        assert!(error.contains("samples of 1 images, expected 2"), "{error}");
        let vectors = || Encoded::Pooled(Tensor::zeros([1, 2], &Device::flex()));
        let three = combined(Combine::Difference, vec![vectors(), vectors(), vectors()]);
        assert!(three.unwrap_err().to_string().contains("of 2 images, found 3"));
    }
}
