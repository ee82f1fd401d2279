//! Feature maps of a frozen encoder: computed once per image and kept while there is room.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::tensor::{Device, Tensor, TensorData};

use super::feed::DeviceFeed;
use super::truth::PixelTruth;
use super::{Scratch, batch_device, check_finite, images as inputs};
use crate::data::Image;
use crate::model::encoder::Map;
use crate::model::{Encoder, InputSpec, Want};
use crate::task::Split;
use crate::transform::augment::{Dihedral, Turn};
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
    /// For images as stored: how the device turns them once it has preprocessed them.
    pub images_turn: Option<Turn>,
    /// The ground truth of its pixels.
    pub truth: PixelTruth,
    /// How the device turns the truth.
    pub truth_turn: Turn,
}

/// Provides the feature maps of a frozen encoder.
pub struct MapSource<'a> {
    origin: MapOrigin<'a>,
    /// Without autodiff.
    device: Device,
    /// Prepares images on the device, where their maps then stay.
    feed: Option<DeviceFeed>,
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
        let kept = KeptMaps {
            limit,
            rows: HashMap::new(),
            maps: None,
            full: None,
            on_device: DeviceMaps::default(),
        };
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
    /// Maps that stayed on the device.
    on_device: DeviceMaps,
}

/// Maps on a device, and what is not known of them yet.
#[derive(Default)]
struct DeviceMaps {
    /// The maps of several images [m, numbers], and the image's row.
    rows: HashMap<ImageKey, (Tensor<2>, usize)>,
    bytes: u64,
    shapes: Option<Vec<MapShape>>,
    /// Names of samples, and for each [m, 1] a number that is 0 if its maps are finite.
    unchecked: Vec<(Vec<String>, Tensor<2>)>,
}

/// Batches whose maps are checked at once, so that the program does not wait for each.
const CHECKED_AT_ONCE: usize = 16;

impl<'a> MapSource<'a> {
    /// Creates a source that computes the maps of an image on every request.
    pub fn new(encoder: Box<dyn Encoder + 'a>, spec: InputSpec, device: Device) -> Self {
        MapSource { origin: MapOrigin::Encoder { encoder, spec, kept: None }, device, feed: None }
    }

    /// Creates a source of maps that were computed before.
    pub fn stored(maps: Box<dyn StoredMaps + 'a>, device: Device) -> Self {
        MapSource { origin: MapOrigin::Stored(maps), device, feed: None }
    }

    /// Creates a source that computes the maps of each image once and keeps them in `store`.
    pub fn keeping(encoder: Box<dyn Encoder + 'a>, spec: InputSpec, device: Device, store: MapStore) -> Self {
        MapSource { origin: MapOrigin::Encoder { encoder, spec, kept: Some(store) }, device, feed: None }
    }

    /// Prepares images on the device, where their maps then stay as far as the store's limit allows.
    #[must_use]
    pub fn prepared_by(self, feed: Option<DeviceFeed>) -> Self {
        MapSource { feed, ..self }
    }

    /// Whether the device prepares images.
    pub fn prepares(&self) -> bool {
        self.feed.is_some()
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
            MapOrigin::Encoder { .. } => self.kept().is_some_and(|kept| {
                kept.rows.contains_key(&place) || kept.on_device.rows.contains_key(&place)
            }),
            MapOrigin::Stored(maps) => maps.holds(place),
        }
    }

    /// Describes the kept maps in one line; `None` if there are none.
    pub fn describe_kept(&self) -> Option<String> {
        let kept = self.kept()?;
        if let Some(shapes) = &kept.on_device.shapes {
            let filed = kept.maps.as_ref().map_or(0, |(maps, _)| maps.len());
            let disk = kept.maps.as_ref().map_or(0, |(maps, _)| maps.bytes().1);
            return Some(format!(
                "feature maps ({}) of {} images are kept: {} MB on the device, {} MB on disk",
                listed(shapes),
                kept.on_device.rows.len() + filed,
                kept.on_device.bytes.div_ceil(1_000_000),
                disk.div_ceil(1_000_000),
            ));
        }
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
        if self.feed.is_some() && matches!(self.origin, MapOrigin::Encoder { kept: Some(_), .. }) {
            return self.maps_on_device(items);
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
        let items: Vec<&MapItem> = items.collect();
        let images = images(items.iter().copied())?.into_iter();
        let turns: Option<Vec<Turn>> = items.iter().map(|item| item.images_turn).collect();
        let batch = match (&self.feed, turns) {
            (Some(feed), Some(turns)) => feed.batch(images, &turns)?,
            _ => inputs::batch(spec, images, &batch_device(encoder.as_ref(), &self.device))?,
        };
        spec.encode(encoder.as_ref(), &batch, Want::Maps)?.maps()
    }

    /// Like [`MapSource::maps`] of a source that keeps maps: they pass through the program's memory only if they must be read
    /// from disk.
    fn maps_on_device(&self, items: &[MapItem]) -> Result<Vec<Map>> {
        let lost = || Error::mismatch("kept feature maps are missing");
        let Some(kept) = self.kept() else { return Err(lost()) };
        let is_known = |item: &MapItem| {
            item.place.is_some_and(|place| {
                kept.on_device.rows.contains_key(&place) || kept.rows.contains_key(&place)
            })
        };
        let known: Vec<bool> = items.iter().map(is_known).collect();
        // The lock is released while the device works, so that readers can ask which maps are kept.
        drop(kept);
        let new = || items.iter().zip(&known).filter(|(_, known)| !**known).map(|(item, _)| item);
        let fresh = match new().next() {
            Some(_) => Some(DeviceRows::of(self.encode(new())?)?),
            None => None,
        };
        let Some(mut kept) = self.kept() else { return Err(lost()) };
        if let Some(fresh) = &fresh {
            kept.add_on_device(&new().collect::<Vec<_>>(), fresh)?;
        }
        let shapes = kept.on_device.shapes.clone().ok_or_else(lost)?;
        let mut next = 0;
        let mut parts = Vec::with_capacity(items.len());
        for (item, known) in items.iter().zip(&known) {
            let place = item.place.filter(|_| *known);
            parts.push(match (place, &fresh) {
                (None, Some(fresh)) => {
                    next += 1;
                    fresh.values.clone().narrow(0, next - 1, 1)
                }
                (None, None) => return Err(lost()),
                (Some(place), _) => match kept.on_device.rows.get(&place) {
                    Some((rows, row)) => rows.clone().narrow(0, *row, 1),
                    None => {
                        let row = kept.rows.get(&place).ok_or_else(lost)?;
                        let (scratch, _) = kept.maps.as_ref().ok_or_else(lost)?;
                        let numbers = scratch.read(&[*row])?;
                        let shape = [1, numbers.len()];
                        Tensor::from_data(TensorData::new(numbers, shape), &self.device)
                    }
                },
            });
        }
        Ok(cut(Tensor::cat(parts, 0), &shapes))
    }
}

/// All maps of some images on a device.
struct DeviceRows {
    shapes: Vec<MapShape>,
    /// [n, numbers]: all maps of each image, one after the other.
    values: Tensor<2>,
}

impl DeviceRows {
    fn of(maps: Vec<Map>) -> Result<Self> {
        let shapes = shapes_of(&maps)?;
        let rows = maps.into_iter().map(|map| map.values.flatten::<2>(1, 3)).collect();
        Ok(DeviceRows { shapes, values: Tensor::cat(rows, 1) })
    }
}

impl KeptMaps {
    /// Keeps the maps of these images: on the device up to the limit, then on disk.
    fn add_on_device(&mut self, items: &[&MapItem], fresh: &DeviceRows) -> Result<()> {
        match &self.on_device.shapes {
            Some(shapes) if *shapes != fresh.shapes => {
                let (found, expected) = (listed(&fresh.shapes), listed(shapes));
                return Err(Error::mismatch(format!("expected feature maps {expected}, got {found}")));
            }
            Some(_) => {}
            None => self.on_device.shapes = Some(fresh.shapes.clone()),
        }
        let names = items.iter().map(|item| item.name.clone()).collect();
        // What is not finite stays so, times 0, in a sum.
        self.on_device.unchecked.push((names, (fresh.values.clone() * 0.0).sum_dim(1)));
        if self.on_device.unchecked.len() >= CHECKED_AT_ONCE {
            self.on_device.check()?;
        }
        let numbers = fresh.values.dims()[1];
        let bytes = 4 * numbers as u64;
        let comes_again = |(row, item): (usize, &&MapItem)| item.place.map(|place| (row, place));
        let mut places: Vec<(usize, ImageKey)> = items.iter().enumerate().filter_map(comes_again).collect();
        let room = self.limit.saturating_sub(self.on_device.bytes) / bytes.max(1);
        let rest = places.split_off(places.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
        if !places.is_empty() {
            let rows: Vec<i64> = places.iter().map(|(row, _)| *row as i64).collect();
            let shape = [rows.len()];
            let rows = Tensor::from_data(TensorData::new(rows, shape), &fresh.values.device());
            // A copy, which does not hold the maps of images that do not come again.
            let values = fresh.values.clone().select(0, rows);
            self.on_device.bytes += bytes * places.len() as u64;
            let named = places.into_iter().enumerate();
            self.on_device.rows.extend(named.map(|(row, (_, place))| (place, (values.clone(), row))));
        }
        for (row, place) in rest {
            if self.full.is_some() {
                break;
            }
            let (scratch, _) = self.maps.get_or_insert_with(|| (Scratch::new(numbers), fresh.shapes.clone()));
            match scratch.push(&host_numbers(fresh.values.clone().narrow(0, row, 1))?) {
                Ok(()) => drop(self.rows.insert(place, scratch.len() - 1)),
                Err(problem) => self.full = Some(problem),
            }
        }
        Ok(())
    }
}

impl DeviceMaps {
    /// Checks what is not checked yet.
    ///
    /// # Errors
    /// If a map is not finite.
    fn check(&mut self) -> Result<()> {
        let (names, signs): (Vec<Vec<String>>, Vec<Tensor<2>>) = self.unchecked.drain(..).unzip();
        if signs.is_empty() {
            return Ok(());
        }
        let signs = host_numbers(Tensor::cat(signs, 0))?;
        for (name, sign) in names.iter().flatten().zip(&signs) {
            check_finite(name, std::slice::from_ref(sign))?;
        }
        Ok(())
    }
}

/// Copies numbers to the program's memory.
fn host_numbers(tensor: Tensor<2>) -> Result<Vec<f32>> {
    tensor.into_data().convert::<f32>().try_into_vec::<f32>().map_err(|error| {
        Error::mismatch(format!("the device returned features that are not float32: {error:?}"))
    })
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
        let DeviceRows { shapes, values } = DeviceRows::of(maps)?;
        Ok(HostMaps { shapes, numbers: host_numbers(values)? })
    }

    /// Numbers per image.
    fn row(&self) -> usize {
        self.shapes.iter().map(MapShape::len).sum()
    }
}

/// The shapes of the maps of a batch.
///
/// # Errors
/// If there are none.
fn shapes_of(maps: &[Map]) -> Result<Vec<MapShape>> {
    let shape = |map: &Map| {
        let [_, d, h, w] = map.values.dims();
        MapShape { dims: [d, h, w], stride: map.stride }
    };
    let shapes: Vec<MapShape> = maps.iter().map(shape).collect();
    if shapes.is_empty() || shapes.iter().any(|shape| shape.dims.contains(&0)) {
        return Err(Error::mismatch("the model returns no feature maps")
            .help("list blocks in `map-layers` of the model's TOML"));
    }
    Ok(shapes)
}

impl MapShape {
    fn len(&self) -> usize {
        self.dims.iter().product()
    }
}

/// Splits rows, each with all maps of an image, into maps [n, d, h, w].
fn tensors(numbers: Vec<f32>, n: usize, shapes: &[MapShape], device: &Device) -> Vec<Map> {
    let row = shapes.iter().map(MapShape::len).sum();
    cut(Tensor::<2>::from_data(TensorData::new(numbers, [n, row]), device), shapes)
}

/// Splits rows [n, numbers], each with all maps of an image, into maps [n, d, h, w].
fn cut(rows: Tensor<2>, shapes: &[MapShape]) -> Vec<Map> {
    let n = rows.dims()[0];
    let mut first = 0;
    let mut map = |shape: &MapShape| {
        let [d, h, w] = shape.dims;
        let values = rows.clone().narrow(1, first, shape.len()).reshape([n, d, h, w]);
        first += shape.len();
        Map { values, stride: shape.stride }
    };
    shapes.iter().map(&mut map).collect()
}
