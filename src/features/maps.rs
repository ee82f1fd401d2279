//! Feature maps of a frozen encoder: computed once per image and kept while there is room.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::tensor::{Device, Tensor, TensorData};

use super::truth::PixelTruth;
use super::{Scratch, batch_device, check_finite, images as inputs};
use crate::data::Image;
use crate::model::encoder::Map;
use crate::model::{Encoder, InputSpec, Want};
use crate::task::Split;
use crate::transform::augment::Dihedral;
use crate::{Error, Result};

/// Identifies a sample under one of the eight flips and rotations, which may occur again in a later epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ImageKey {
    /// The sample's split.
    pub split: Split,
    /// The sample's index in the split.
    pub sample: usize,
    /// The transform applied to its images.
    pub turn: Dihedral,
}

/// A sample on its way into a batch.
pub struct MapItem {
    /// The key of its maps; `None` if the image will not occur again.
    pub place: Option<ImageKey>,
    /// The sample's name.
    pub name: String,
    /// The preprocessed images; `None` if their maps are kept.
    pub images: Option<Vec<Image>>,
    /// The ground truth of its pixels.
    pub truth: PixelTruth,
}

/// Provides the feature maps of a frozen encoder.
pub struct MapSource<'a> {
    origin: MapOrigin<'a>,
    /// Without autodiff.
    device: Device,
}

/// Where maps come from.
enum MapOrigin<'a> {
    /// An encoder computes them.
    Encoder { encoder: Box<dyn Encoder + 'a>, spec: InputSpec, kept: Option<MapStore> },
    /// They were computed by another program.
    Stored(Box<dyn StoredMaps + 'a>),
}

/// Feature maps that were computed before the run.
pub trait StoredMaps: Send + Sync {
    /// Returns whether it has the maps of this image.
    fn holds(&self, place: ImageKey) -> bool;

    /// Reads the maps of these images: their shapes, and for each image the numbers of all its maps.
    ///
    /// # Errors
    /// If it lacks an image, a file cannot be read, or a number is not finite.
    fn read(&self, places: &[ImageKey]) -> Result<(Vec<MapShape>, Vec<f32>)>;
}

/// Feature maps computed so far, shared by all sources of the same encoder and images.
#[derive(Clone)]
pub struct MapStore(Arc<Mutex<KeptMaps>>);

impl MapStore {
    /// Creates an empty store that holds `limit` bytes in memory; the rest spills to a temporary file that is deleted on exit.
    pub fn new(limit: u64) -> Self {
        let kept = KeptMaps { limit, rows: HashMap::new(), maps: None, full: None };
        MapStore(Arc::new(Mutex::new(kept)))
    }

    fn lock(&self) -> MutexGuard<'_, KeptMaps> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Maps by image.
struct KeptMaps {
    /// Bytes in memory.
    limit: u64,
    rows: HashMap<ImageKey, usize>,
    /// One row per image with all its maps, and their shapes; `None` until the first maps arrive.
    maps: Option<(Scratch, Vec<MapShape>)>,
    /// Why no more maps are kept.
    full: Option<Error>,
}

impl<'a> MapSource<'a> {
    /// Creates a source that computes the maps of an image on every request.
    pub fn new(encoder: Box<dyn Encoder + 'a>, spec: InputSpec, device: Device) -> Self {
        MapSource { origin: MapOrigin::Encoder { encoder, spec, kept: None }, device }
    }

    /// Creates a source of maps that were computed before.
    pub fn stored(maps: Box<dyn StoredMaps + 'a>, device: Device) -> Self {
        MapSource { origin: MapOrigin::Stored(maps), device }
    }

    /// Creates a source that computes the maps of each image once and keeps them in `store`.
    pub fn keeping(encoder: Box<dyn Encoder + 'a>, spec: InputSpec, device: Device, store: MapStore) -> Self {
        MapSource { origin: MapOrigin::Encoder { encoder, spec, kept: Some(store) }, device }
    }

    fn kept(&self) -> Option<MutexGuard<'_, KeptMaps>> {
        match &self.origin {
            MapOrigin::Encoder { kept, .. } => kept.as_ref().map(MapStore::lock),
            MapOrigin::Stored(_) => None,
        }
    }

    /// Returns whether the image's maps are kept.
    pub fn knows(&self, place: ImageKey) -> bool {
        match &self.origin {
            MapOrigin::Encoder { .. } => self.kept().is_some_and(|kept| kept.rows.contains_key(&place)),
            MapOrigin::Stored(maps) => maps.holds(place),
        }
    }

    /// Describes the kept maps in one line; `None` if there are none.
    pub fn describe_kept(&self) -> Option<String> {
        let kept = self.kept()?;
        let (maps, shapes) = kept.maps.as_ref()?;
        let (memory, disk) = maps.bytes();
        let full = match &kept.full {
            Some(problem) => {
                format!("; further images are encoded in every epoch: {problem}")
            }
            None => String::new(),
        };
        Some(format!(
            "feature maps ({}) of {} images are kept: {} MB in memory, {} MB on disk{full}",
            listed(shapes),
            maps.len(),
            memory.div_ceil(1_000_000),
            disk.div_ceil(1_000_000),
        ))
    }

    /// Returns the maps [n, d, h, w] of these images, shallowest first.
    ///
    /// # Errors
    /// If an image does not suit the model, an image without kept maps is missing, or kept maps cannot be read.
    pub fn maps(&self, items: &[MapItem]) -> Result<Vec<Map>> {
        if let MapOrigin::Stored(maps) = &self.origin {
            let place = |item: &MapItem| {
                item.place.ok_or_else(|| {
                    Error::mismatch(format!(
                        "{}: no stored maps of an image rotated by a free angle",
                        item.name
                    ))
                    .help("use a protocol with `augmentation = \"none\"`, such as upernet-plain")
                })
            };
            let places = items.iter().map(place).collect::<Result<Vec<_>>>()?;
            let (shapes, numbers) = maps.read(&places)?;
            return Ok(tensors(numbers, items.len(), &shapes, &self.device));
        }
        let Some(kept) = self.kept() else {
            let maps = self.encode(items.iter())?.into_iter();
            return Ok(maps.map(|map| Map { values: map.values.to_device(&self.device), ..map }).collect());
        };
        let rows: Vec<Option<usize>> =
            items.iter().map(|item| kept.rows.get(item.place.as_ref()?).copied()).collect();
        // The lock is released while the device works, so that readers can ask which maps are kept.
        drop(kept);
        let new = || items.iter().zip(&rows).filter(|(_, row)| row.is_none()).map(|(item, _)| item);
        let fresh = match new().next() {
            Some(_) => Some(HostMaps::of(self.encode(new())?)?),
            None => None,
        };
        let Some(mut kept) = self.kept() else { return Ok(Vec::new()) };
        if let Some(fresh) = &fresh {
            kept.add(new(), fresh)?;
        }
        let (shapes, numbers) = kept.together(&rows, fresh)?;
        Ok(tensors(numbers, items.len(), &shapes, &self.device))
    }

    fn encode<'i>(&self, items: impl Iterator<Item = &'i MapItem>) -> Result<Vec<Map>> {
        let MapOrigin::Encoder { encoder, spec, .. } = &self.origin else { return Ok(Vec::new()) };
        let device = batch_device(encoder.as_ref(), &self.device);
        let batch = inputs::batch(spec, images(items)?.into_iter(), &device)?;
        spec.encode(encoder.as_ref(), &batch, Want::Maps)?.maps()
    }
}

/// Returns the images of the samples of a batch.
///
/// # Errors
/// If the images of a sample are missing.
pub fn images<'i>(items: impl IntoIterator<Item = &'i MapItem>) -> Result<Vec<&'i [Image]>> {
    let images = |item: &'i MapItem| {
        let images = item.images.as_deref();
        images.ok_or_else(|| Error::mismatch(format!("{}: the image was not read", item.name)))
    };
    items.into_iter().map(images).collect()
}

impl KeptMaps {
    /// Keeps the maps of these images while there is room.
    fn add<'i>(&mut self, items: impl Iterator<Item = &'i MapItem>, fresh: &HostMaps) -> Result<()> {
        let row = fresh.row();
        let limit = self.limit;
        let (scratch, shapes) =
            self.maps.get_or_insert_with(|| (Scratch::with_memory(row, limit), fresh.shapes.clone()));
        if *shapes != fresh.shapes {
            let (found, expected) = (listed(&fresh.shapes), listed(shapes));
            return Err(Error::mismatch(format!("expected feature maps {expected}, got {found}")));
        }
        for (item, maps) in items.zip(fresh.numbers.chunks_exact(row)) {
            check_finite(&item.name, maps)?;
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

    /// Returns the maps of all images, one after the other: from the kept row if there is one, else the next of `fresh`.
    fn together(&self, rows: &[Option<usize>], fresh: Option<HostMaps>) -> Result<(Vec<MapShape>, Vec<f32>)> {
        let lost = || Error::mismatch("kept feature maps are missing");
        let fresh = match fresh {
            Some(fresh) if rows.iter().all(Option::is_none) => return Ok((fresh.shapes, fresh.numbers)),
            fresh => fresh,
        };
        let (scratch, shapes) = self.maps.as_ref().ok_or_else(lost)?;
        let mut chunks = fresh.iter().flat_map(|fresh| fresh.numbers.chunks_exact(fresh.row()));
        let mut numbers = Vec::with_capacity(rows.len() * scratch.width());
        for row in rows {
            match row {
                Some(row) => numbers.extend(scratch.read(&[*row])?),
                None => numbers.extend_from_slice(chunks.next().ok_or_else(lost)?),
            }
        }
        Ok((shapes.clone(), numbers))
    }
}

/// Shape and stride of one of an encoder's maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapShape {
    /// [d, h, w].
    pub dims: [usize; 3],
    /// Side in pixels of the input area that one position represents.
    pub stride: usize,
}

/// Formats shapes for messages: `4 of 768 x 14 x 14`, or every shape if they differ.
fn listed(shapes: &[MapShape]) -> String {
    let one = |shape: &MapShape| format!("{} x {} x {}", shape.dims[0], shape.dims[1], shape.dims[2]);
    match shapes {
        [first, rest @ ..] if rest.iter().all(|shape| shape == first) => {
            format!("{} of {}", shapes.len(), one(first))
        }
        shapes => shapes.iter().map(one).collect::<Vec<_>>().join(", "),
    }
}

/// Maps of some images, in host memory.
struct HostMaps {
    shapes: Vec<MapShape>,
    /// All maps of each image, one after the other.
    numbers: Vec<f32>,
}

impl HostMaps {
    fn of(maps: Vec<Map>) -> Result<Self> {
        let shape = |map: &Map| {
            let [_, d, h, w] = map.values.dims();
            MapShape { dims: [d, h, w], stride: map.stride }
        };
        let shapes: Vec<MapShape> = maps.iter().map(shape).collect();
        if shapes.is_empty() || shapes.iter().any(|shape| shape.dims.contains(&0)) {
            return Err(Error::mismatch("the model returns no feature maps")
                .help("list blocks in `map-layers` of the model's TOML"));
        }
        let rows = maps.into_iter().map(|map| map.values.flatten::<2>(1, 3)).collect();
        let numbers = Tensor::cat(rows, 1).into_data().convert::<f32>().try_into_vec::<f32>();
        let numbers = numbers.map_err(|error| {
            Error::mismatch(format!("the device returned features that are not float32: {error:?}"))
        })?;
        Ok(HostMaps { shapes, numbers })
    }

    /// Numbers per image.
    fn row(&self) -> usize {
        self.shapes.iter().map(MapShape::len).sum()
    }
}

impl MapShape {
    fn len(&self) -> usize {
        self.dims.iter().product()
    }
}

/// Splits rows, each with all maps of an image, into maps [n, d, h, w].
fn tensors(numbers: Vec<f32>, n: usize, shapes: &[MapShape], device: &Device) -> Vec<Map> {
    let row = shapes.iter().map(MapShape::len).sum();
    let rows = Tensor::<2>::from_data(TensorData::new(numbers, [n, row]), device);
    let mut first = 0;
    let mut map = |shape: &MapShape| {
        let [d, h, w] = shape.dims;
        let values = rows.clone().narrow(1, first, shape.len()).reshape([n, d, h, w]);
        first += shape.len();
        Map { values, stride: shape.stride }
    };
    shapes.iter().map(&mut map).collect()
}
