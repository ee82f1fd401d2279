//! Feature maps of an encoder that does not change: each image's are computed once, where there is room.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::tensor::{Device, Tensor, TensorData};
use ndarray::Array3;

use super::change::View;
use crate::task::Split;
use crate::features::Scratch;
use crate::features::tiles::Mask;
use crate::model::frozen::Frozen;
use crate::model::terrafm::TerraFm;
use crate::transform::augment::Dihedral;
use crate::{Error, Result};

/// Which image: a sample, turned by one of a few transforms, so that it may come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) split: Split,
    pub(crate) sample: usize,
    pub(crate) turn: Dihedral,
}

/// A sample on its way into a batch.
pub(crate) struct Item {
    /// None where the image will not come again.
    pub(crate) place: Option<Place>,
    pub(crate) name: String,
    /// As the model takes it; none where its maps are known.
    pub(crate) image: Option<Array3<f32>>,
    pub(crate) mask: Mask,
}

/// An encoder on a device without autodiff.
pub(crate) struct Encoder {
    backbone: Frozen,
    view: View,
    device: Device,
    kept: Option<Mutex<Kept>>,
}

/// Maps by image.
struct Kept {
    /// Bytes in memory.
    limit: u64,
    rows: HashMap<Place, usize>,
    /// Rows of [layers, d, h, w], and these lengths; once there are any.
    maps: Option<(Scratch, [usize; 4])>,
    /// Why no more are kept.
    full: Option<Error>,
}

impl Encoder {
    /// Keeps nothing.
    pub(crate) fn new(encoder: TerraFm, view: View, device: Device) -> Self {
        Encoder { backbone: Frozen::new(encoder), view, device, kept: None }
    }

    /// Keeps what it has encoded: so many bytes in memory, and what is more on disk.
    pub(crate) fn keeping(encoder: TerraFm, view: View, device: Device, limit: u64) -> Self {
        let kept = Kept { limit, rows: HashMap::new(), maps: None, full: None };
        Encoder { kept: Some(Mutex::new(kept)), ..Self::new(encoder, view, device) }
    }

    fn kept(&self) -> Option<MutexGuard<'_, Kept>> {
        self.kept.as_ref().map(|kept| kept.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the image's maps are kept.
    pub(crate) fn knows(&self, place: Place) -> bool {
        self.kept().is_some_and(|kept| kept.rows.contains_key(&place))
    }

    /// What is kept, in words; nothing where nothing is.
    pub(crate) fn told(&self) -> Option<String> {
        let kept = self.kept()?;
        let (maps, [layers, d, h, w]) = kept.maps.as_ref()?;
        let (memory, disk) = maps.bytes();
        let full = match &kept.full {
            Some(problem) => {
                format!("; no more are kept, and their images encoded in every epoch: {problem}")
            }
            None => String::new(),
        };
        Some(format!(
            "feature maps ({layers} of {d} x {h} x {w}) of {} images are kept: {} MB in memory, {} MB on disk{full}",
            maps.len(),
            memory.div_ceil(1_000_000),
            disk.div_ceil(1_000_000),
        ))
    }

    /// The maps [n, d, h, w] of these images, shallowest first.
    ///
    /// # Errors
    /// Where an image does not suit the model, an image that is not known is missing, or kept maps cannot be read.
    pub(crate) fn maps(&self, items: &[Item]) -> Result<Vec<Tensor<4>>> {
        let Some(kept) = self.kept() else {
            return self.encode(items.iter());
        };
        let rows: Vec<Option<usize>> =
            items.iter().map(|item| kept.rows.get(item.place.as_ref()?).copied()).collect();
        // Readers ask what is known meanwhile: the lock is not held while the device works.
        drop(kept);
        let new = || items.iter().zip(&rows).filter(|(_, row)| row.is_none()).map(|(item, _)| item);
        let fresh = match new().next() {
            Some(_) => Some(Numbers::of(self.encode(new())?)?),
            None => None,
        };
        let Some(mut kept) = self.kept() else { return Ok(Vec::new()) };
        if let Some(fresh) = &fresh {
            kept.add(new(), fresh)?;
        }
        let (shape, numbers) = kept.together(&rows, fresh)?;
        Ok(tensors(numbers, items.len(), shape, &self.device))
    }

    fn encode<'i>(&self, items: impl Iterator<Item = &'i Item>) -> Result<Vec<Tensor<4>>> {
        self.view.maps(&self.backbone, images(items, &self.device)?)
    }
}

/// The images of a batch: [n, bands, h, w].
///
/// # Errors
/// Where one is missing.
pub(crate) fn images<'i>(items: impl Iterator<Item = &'i Item>, device: &Device) -> Result<Tensor<4>> {
    let (mut pixels, mut n, mut size) = (Vec::new(), 0, (0, 0, 0));
    for item in items {
        let image = item.image.as_ref();
        let image = image.ok_or_else(|| Error::request(format!("{}: the image was not read", item.name)))?;
        pixels.extend(image.iter().copied());
        (n, size) = (n + 1, image.dim());
    }
    let (bands, h, w) = size;
    Ok(Tensor::from_data(TensorData::new(pixels, [n, bands, h, w]), device))
}

impl Kept {
    /// Keeps the maps of these images, as far as there is room.
    fn add<'i>(&mut self, items: impl Iterator<Item = &'i Item>, fresh: &Numbers) -> Result<()> {
        let row = fresh.row();
        let limit = self.limit;
        let (scratch, shape) =
            self.maps.get_or_insert_with(|| (Scratch::with_memory(row, limit), fresh.shape));
        if *shape != fresh.shape {
            return Err(Error::request(format!("feature maps of {:?}, expected {shape:?}", fresh.shape)));
        }
        for (item, maps) in items.zip(fresh.numbers.chunks_exact(row)) {
            if maps.iter().any(|number| !number.is_finite()) {
                return Err(Error::not_finite(format!("{}: the model's features are not finite", item.name))
                    .help("check that the weights fit the model and the normalisation fits the pixels"));
            }
            let (Some(place), None) = (item.place, &self.full) else { continue };
            match scratch.push(maps) {
                Ok(()) => {
                    self.rows.insert(place, scratch.len() - 1);
                }
                Err(problem) => self.full = Some(problem),
            }
        }
        Ok(())
    }

    /// The maps of all images, one after the other: from these rows, where there is one, else the next of `fresh`.
    fn together(&self, rows: &[Option<usize>], fresh: Option<Numbers>) -> Result<([usize; 4], Vec<f32>)> {
        let lost = || Error::request("feature maps that were kept are gone");
        let fresh = match fresh {
            Some(fresh) if rows.iter().all(Option::is_none) => return Ok((fresh.shape, fresh.numbers)),
            fresh => fresh,
        };
        let (scratch, shape) = self.maps.as_ref().ok_or_else(lost)?;
        let mut chunks = fresh.iter().flat_map(|fresh| fresh.numbers.chunks_exact(fresh.row()));
        let mut numbers = Vec::with_capacity(rows.len() * scratch.width());
        for row in rows {
            match row {
                Some(row) => numbers.extend(scratch.read(&[*row])?),
                None => numbers.extend_from_slice(chunks.next().ok_or_else(lost)?),
            }
        }
        Ok((*shape, numbers))
    }
}

/// Maps of some images, off the device.
struct Numbers {
    /// Layers, d, h, w; none is 0.
    shape: [usize; 4],
    /// [n, layers, d, h, w].
    numbers: Vec<f32>,
}

impl Numbers {
    fn of(maps: Vec<Tensor<4>>) -> Result<Self> {
        let [_, d, h, w] = maps.first().map_or([0; 4], Tensor::dims);
        let shape = [maps.len(), d, h, w];
        if shape.contains(&0) {
            return Err(Error::request("the model gives no feature maps")
                .help("name blocks in map-layers of the model's TOML"));
        }
        let numbers = Tensor::stack::<5>(maps, 1).into_data().convert::<f32>().try_into_vec::<f32>();
        let numbers = numbers.map_err(|error| {
            Error::request(format!("the device returned features that are not float32: {error:?}"))
        })?;
        Ok(Numbers { shape, numbers })
    }

    /// Numbers an image.
    fn row(&self) -> usize {
        self.shape.iter().product()
    }
}

fn tensors(numbers: Vec<f32>, n: usize, [layers, d, h, w]: [usize; 4], device: &Device) -> Vec<Tensor<4>> {
    let maps = Tensor::<5>::from_data(TensorData::new(numbers, [n, layers, d, h, w]), device);
    (0..layers).map(|layer| maps.clone().narrow(1, layer, 1).squeeze_dim(1)).collect()
}
