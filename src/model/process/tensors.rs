//! The tensors that follow a line: a safetensors file, written without copying the pixels and read without trusting it.

use std::io::{self, Write};

use burn::tensor::{DType, Device, Shape, Tensor, TensorData};
use ndarray::Array3;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::message::Header;
use crate::Result;
use crate::model::encoder::{Encoded, Map, Want};

/// A tensor to send.
pub(super) struct Outgoing {
    /// Its name in the file.
    pub(super) name: String,
    /// Type as safetensors calls it: `F32`.
    dtype: &'static str,
    shape: Vec<usize>,
    numbers: Numbers,
}

/// Numbers in memory, little-endian.
enum Numbers {
    /// Those of a tensor of float32.
    Tensor(TensorData),
    /// Those of images of one size, behind one another.
    Images(Vec<Array3<f32>>),
    /// Numbers of two bytes.
    Pairs(Vec<u16>),
    Bytes(Vec<u8>),
}

impl Numbers {
    /// Returns the bytes, in pieces of at least one image each.
    fn pieces(&self) -> Vec<&[u8]> {
        match self {
            Numbers::Tensor(data) => vec![data.as_bytes()],
            Numbers::Images(images) => {
                images.iter().filter_map(|image| image.as_slice()).map(bytemuck::cast_slice).collect()
            }
            Numbers::Pairs(pairs) => vec![bytemuck::cast_slice(pairs)],
            Numbers::Bytes(bytes) => vec![bytes],
        }
    }

    /// Returns the numbers, like [`Numbers::pieces`]; none if they are not float32.
    fn floats(&self) -> Vec<&[f32]> {
        match self {
            Numbers::Tensor(data) => data.as_slice::<f32>().into_iter().collect(),
            Numbers::Images(images) => images.iter().filter_map(|image| image.as_slice()).collect(),
            Numbers::Pairs(_) | Numbers::Bytes(_) => Vec::new(),
        }
    }

    fn len(&self) -> usize {
        self.pieces().iter().map(|piece| piece.len()).sum()
    }
}

/// Types of stored pixels, each with the types that hold all of its values after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum PixelType {
    #[default]
    U8,
    U16,
    I16,
    F32,
}

impl PixelType {
    /// Returns the narrowest type that holds the values of `self` and these.
    fn widened(self, pixels: &[f32]) -> Self {
        let (unsigned, signed) = match self {
            PixelType::U8 => (255.0, 0.0),
            PixelType::U16 => (65535.0, 0.0),
            PixelType::I16 => (32767.0, -32768.0),
            PixelType::F32 => return PixelType::F32,
        };
        let (mut low, mut high, mut whole) = (0.0f32, 0.0f32, true);
        for pixel in pixels {
            (low, high) = (low.min(*pixel), high.max(*pixel));
            // Negative zero is no integer: its sign would be lost.
            whole &= pixel.trunc() == *pixel && (*pixel != 0.0 || pixel.is_sign_positive());
        }
        let (high, low) = (high.max(unsigned), low.min(signed));
        match () {
            () if !whole => PixelType::F32,
            () if low >= 0.0 && high <= 255.0 => PixelType::U8,
            () if low >= 0.0 && high <= 65535.0 => PixelType::U16,
            () if low >= -32768.0 && high <= 32767.0 => PixelType::I16,
            () => PixelType::F32,
        }
    }

    /// Returns the values of all `parts` as numbers of this type, with its name; `None` if the type does not hold them, or is
    /// float32, in which they are already.
    fn narrowed(self, parts: &[&[f32]]) -> Option<(&'static str, Numbers)> {
        match self {
            PixelType::U8 => Some(("U8", Numbers::Bytes(narrowed(parts, 0, 0xff, |value| value as u8)?))),
            PixelType::U16 => {
                Some(("U16", Numbers::Pairs(narrowed(parts, 0, 0xffff, |value| value as u16)?)))
            }
            PixelType::I16 => {
                Some(("I16", Numbers::Pairs(narrowed(parts, 0x8000, 0xffff, |value| value as u16)?)))
            }
            PixelType::F32 => None,
        }
    }
}

/// How many numbers are converted between two looks at whether all of them fitted. They fit into the processor's first cache.
const AT_ONCE: usize = 1024;

/// Converts integers to a narrower type. `None` if one of them, added to `offset`, has bits outside of `mask`, is no integer,
/// or is negative zero.
///
/// Adding 1.5 * 2^23 to a float32 leaves the nearest integer in the lowest bits of its mantissa. Vector instructions of every
/// x86-64 and ARM do that; rounding and saturating conversions are not among those of the oldest x86-64.
fn narrowed<T: Copy + Default>(
    parts: &[&[f32]],
    offset: u32,
    mask: u32,
    cast: impl Fn(u32) -> T,
) -> Option<Vec<T>> {
    const SHIFT: f32 = 12_582_912.0;
    let mut all = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
    let mut some = [T::default(); AT_ONCE];
    for values in parts.iter().flat_map(|part| part.chunks(AT_ONCE)) {
        let mut wrong = 0;
        for (narrow, value) in some.iter_mut().zip(values) {
            let shifted = value + SHIFT;
            let integer = shifted.to_bits().wrapping_sub(SHIFT.to_bits());
            *narrow = cast(integer);
            wrong |= (integer.wrapping_add(offset) & !mask) | ((shifted - SHIFT).to_bits() ^ value.to_bits());
        }
        if wrong != 0 {
            return None;
        }
        all.extend_from_slice(&some[..values.len()]);
    }
    Some(all)
}

impl Outgoing {
    /// Prepares pixels [n, c, h, w] as float32.
    ///
    /// # Errors
    /// If the device does not return them.
    pub(super) fn pixels(name: String, pixels: Tensor<4>) -> Result<Self> {
        let shape = pixels.dims().to_vec();
        let data = match pixels.into_data() {
            data if data.dtype() == DType::F32 => data,
            data => data.convert::<f32>(),
        };
        Ok(Outgoing { name, dtype: "F32", shape, numbers: Numbers::Tensor(data) })
    }

    /// Prepares images [c, h, w] of one size as float32 [n, c, h, w].
    pub(super) fn images(name: String, mut images: Vec<Array3<f32>>) -> Self {
        let (c, h, w) = images.first().map_or((0, 0, 0), Array3::dim);
        for image in images.iter_mut().filter(|image| !image.is_standard_layout()) {
            *image = image.as_standard_layout().into_owned();
        }
        Outgoing { name, dtype: "F32", shape: vec![images.len(), c, h, w], numbers: Numbers::Images(images) }
    }

    /// Changes the type of stored pixels in float32 to the narrowest that holds them and all pixels before them, which `narrowest`
    /// remembers.
    #[must_use]
    pub(super) fn narrowed(self, narrowest: &mut PixelType) -> Self {
        let parts = self.numbers.floats();
        if parts.is_empty() {
            return self;
        }
        let narrowed = narrowest.narrowed(&parts).or_else(|| {
            *narrowest = parts.iter().fold(*narrowest, |widest, part| widest.widened(part));
            narrowest.narrowed(&parts)
        });
        match narrowed {
            Some((dtype, numbers)) => Outgoing { dtype, numbers, ..self },
            None => self,
        }
    }

    /// Prepares days since 1970-01-01, [n]; NaN where unknown.
    pub(super) fn days(name: String, days: &[Option<f64>]) -> Self {
        let bytes = days.iter().flat_map(|day| day.unwrap_or(f64::NAN).to_le_bytes()).collect();
        Outgoing { name, dtype: "F64", shape: vec![days.len()], numbers: Numbers::Bytes(bytes) }
    }

    /// Prepares longitudes and latitudes, [n, 2]; NaN where unknown.
    pub(super) fn places(name: String, places: &[Option<[f32; 2]>]) -> Self {
        let numbers = places.iter().flat_map(|place| place.unwrap_or([f32::NAN; 2]));
        let bytes = numbers.flat_map(f32::to_le_bytes).collect();
        Outgoing { name, dtype: "F32", shape: vec![places.len(), 2], numbers: Numbers::Bytes(bytes) }
    }
}

/// A safetensors file that is written piece by piece.
pub(super) struct Frame {
    /// The file's first part: the length of its index, and the index.
    index: Vec<u8>,
    tensors: Vec<Outgoing>,
}

impl Frame {
    pub(super) fn new(tensors: Vec<Outgoing>) -> Self {
        let mut json = serde_json::Map::new();
        let mut begin = 0;
        for tensor in &tensors {
            let end = begin + tensor.numbers.len();
            let entry = serde_json::json!({
                "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [begin, end],
            });
            json.insert(tensor.name.clone(), entry);
            begin = end;
        }
        let mut text = serde_json::Value::Object(json).to_string();
        // The data begin at a multiple of 8.
        text.extend(std::iter::repeat_n(' ', text.len().next_multiple_of(8) - text.len()));
        let mut index = (text.len() as u64).to_le_bytes().to_vec();
        index.extend(text.into_bytes());
        Frame { index, tensors }
    }

    /// Returns the length of the file in bytes.
    pub(super) fn len(&self) -> usize {
        self.index.len() + self.tensors.iter().map(|tensor| tensor.numbers.len()).sum::<usize>()
    }

    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&self.index)?;
        let mut pieces = self.tensors.iter().flat_map(|tensor| tensor.numbers.pieces());
        pieces.try_for_each(|piece| out.write_all(piece))
    }
}

/// Reads the features of `n` images from the file that followed `header`. The error says what was expected and found.
///
/// # Errors
/// If the file is damaged, or a tensor is missing or has another shape or type.
pub(super) fn features(
    header: &Header,
    file: &[u8],
    n: usize,
    want: Want,
    device: &Device,
) -> std::result::Result<Encoded, String> {
    let file = SafeTensors::deserialize(file).map_err(|problem| {
        format!("expected a safetensors file after the line, found something else: {problem}")
    })?;
    match want {
        Want::Pooled(_) => {
            let (shape, data) = numbers(&file, "pooled", &["n", "width"])?;
            counted("pooled", n, &shape)?;
            Ok(Encoded::Pooled(tensor::<2>(data, &shape, device)))
        }
        Want::Tokens => {
            let (shape, data) = numbers(&file, "tokens", &["n", "rows * columns", "width"])?;
            counted("tokens", n, &shape)?;
            let grid = header
                .grid
                .ok_or("expected \"grid\":[rows,columns] in the line before tokens, found none")?;
            if grid[0].checked_mul(grid[1]) != Some(shape[1]) {
                return Err(format!(
                    "expected tokens of a grid of {} x {} patches, found {} tokens per image",
                    grid[0], grid[1], shape[1]
                ));
            }
            Ok(Encoded::Tokens { tokens: tensor::<3>(data, &shape, device), grid })
        }
        Want::Maps => {
            let strides = header.strides.as_ref();
            let strides = strides.ok_or("expected \"strides\":[…] in the line before maps, found none")?;
            if strides.is_empty() || strides.contains(&0) {
                return Err(format!("expected a stride in pixels above 0 per map, found {strides:?}"));
            }
            let map = |(place, stride): (usize, &usize)| {
                let name = format!("map{place}");
                let (shape, data) = numbers(&file, &name, &["n", "width", "rows", "columns"])?;
                counted(&name, n, &shape)?;
                Ok(Map { values: tensor::<4>(data, &shape, device), stride: *stride })
            };
            strides.iter().enumerate().map(map).collect::<std::result::Result<_, String>>().map(Encoded::Maps)
        }
    }
}

fn counted(name: &str, n: usize, shape: &[usize]) -> std::result::Result<(), String> {
    if shape[0] == n {
        return Ok(());
    }
    Err(format!("expected `{name}` of {n} images, found {}", shape[0]))
}

fn tensor<const D: usize>(data: Vec<f32>, shape: &[usize], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(data, Shape::from(shape.to_vec())), device)
}

/// Returns the shape and the numbers of a tensor whose dimensions are called `dims`, none of which is 0.
fn numbers(
    file: &SafeTensors,
    name: &str,
    dims: &[&str],
) -> std::result::Result<(Vec<usize>, Vec<f32>), String> {
    let view = file.tensor(name).map_err(|_| {
        let names = file.names();
        let found = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        format!("expected a tensor called `{name}`, found {found}")
    })?;
    let shape = view.shape().to_vec();
    if shape.len() != dims.len() || shape.contains(&0) {
        return Err(format!("expected `{name}` of shape [{}], found {shape:?}", dims.join(", ")));
    }
    Ok((shape, floats(name, &view)?))
}

fn floats(name: &str, view: &TensorView) -> std::result::Result<Vec<f32>, String> {
    let bytes = view.data();
    let half = |pair: &[u8]| [pair[0], pair[1]];
    match view.dtype() {
        Dtype::F32 => {
            let float = |four: &[u8]| f32::from_le_bytes([four[0], four[1], four[2], four[3]]);
            Ok(bytes.chunks_exact(4).map(float).collect())
        }
        Dtype::F16 => {
            Ok(bytes.chunks_exact(2).map(|two| half::f16::from_le_bytes(half(two)).to_f32()).collect())
        }
        Dtype::BF16 => {
            Ok(bytes.chunks_exact(2).map(|two| half::bf16::from_le_bytes(half(two)).to_f32()).collect())
        }
        other => Err(format!("expected `{name}` of type F32, F16 or BF16, found {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::encoder::Pooling;

    fn pixels(values: &[f32]) -> Tensor<4> {
        Tensor::from_data(TensorData::new(values.to_vec(), [1, 1, 1, values.len()]), &Device::flex())
    }

    fn written(tensors: Vec<Outgoing>) -> Vec<u8> {
        let frame = Frame::new(tensors);
        let mut bytes = Vec::new();
        frame.write(&mut bytes).unwrap();
        assert_eq!(bytes.len(), frame.len());
        bytes
    }

    #[test]
    fn what_is_written_is_a_safetensors_file() {
        let days = Outgoing::days("days".into(), &[Some(1.5), None]);
        let places = Outgoing::places("places".into(), &[None, Some([1.0, 2.0])]);
        let bytes =
            written(vec![Outgoing::pixels("image0".into(), pixels(&[1.0, -2.0])).unwrap(), days, places]);
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let image = file.tensor("image0").unwrap();
        assert_eq!((image.dtype(), image.shape()), (Dtype::F32, &[1, 1, 1, 2][..]));
        assert_eq!(floats("image0", &image).unwrap(), [1.0, -2.0]);
        assert_eq!(file.tensor("days").unwrap().data()[..8], 1.5f64.to_le_bytes());
        assert_eq!(file.tensor("places").unwrap().shape(), [2, 2]);
    }

    #[test]
    fn stored_pixels_go_in_the_narrowest_type_that_holds_them_and_all_before() {
        let mut narrowest = PixelType::default();
        for (values, expected) in [
            (&[0.0, 255.0][..], Dtype::U8),
            (&[3.0, 256.0], Dtype::U16),
            (&[3.0], Dtype::U16),
            (&[65535.0], Dtype::U16),
            (&[-1.0], Dtype::F32),
            (&[1.0], Dtype::F32),
        ] {
            let stored = Outgoing::pixels("image0".into(), pixels(values)).unwrap().narrowed(&mut narrowest);
            let bytes = written(vec![stored]);
            let file = SafeTensors::deserialize(&bytes).unwrap();
            assert_eq!(file.tensor("image0").unwrap().dtype(), expected, "{values:?}");
        }
        let of = |values: &[f32]| PixelType::U8.widened(values);
        assert_eq!(of(&[-1.0, 300.0]), PixelType::I16);
        for values in [&[0.5][..], &[-0.0], &[f32::NAN], &[65536.0], &[-32769.0], &[f32::INFINITY]] {
            assert_eq!(of(values), PixelType::F32, "{values:?}");
        }
        let mut narrowest = PixelType::I16;
        let stored = Outgoing::pixels("image0".into(), pixels(&[-2.0, 300.0])).unwrap();
        assert_eq!(stored.narrowed(&mut narrowest).numbers.pieces(), [[254, 255, 44, 1]]);
    }

    #[test]
    fn a_type_takes_exactly_the_values_that_it_holds() {
        let edges =
            [0.0, -0.0, 0.5, 1.0, -1.0, 255.0, 256.0, 32767.0, 32768.0, -32768.0, -32769.0, 65535.0, 65536.0];
        let others = [4194304.5, -4194304.5, 8388608.0, -8388608.0, 2e9, -2e9, 3e38, f32::NAN, f32::INFINITY];
        for value in edges.into_iter().chain(others).chain([f32::NEG_INFINITY, f32::MIN_POSITIVE]) {
            for kind in [PixelType::U8, PixelType::U16, PixelType::I16] {
                let holds = kind.widened(&[value]) == kind;
                assert_eq!(kind.narrowed(&[&[value]]).is_some(), holds, "{value} {kind:?}");
            }
        }
    }

    #[test]
    fn many_values_are_narrowed_in_order() {
        let values: Vec<f32> = (0..3 * AT_ONCE + 7).map(|place| (place * 17 % 60_000) as f32).collect();
        let (first, second) = values.split_at(AT_ONCE + 5);
        let Some((_, Numbers::Pairs(pairs))) = PixelType::U16.narrowed(&[first, second]) else { panic!() };
        assert!(pairs.iter().zip(&values).all(|(pair, value)| f32::from(*pair) == *value));
        assert_eq!(pairs.len(), values.len());
        let mut late = values;
        late[2 * AT_ONCE + 3] = 0.25;
        assert!(PixelType::U16.narrowed(&[&late]).is_none());
    }

    #[test]
    fn images_are_written_as_one_tensor_whatever_their_layout() {
        let image =
            |first: f32| Array3::from_shape_fn((2, 2, 3), |(c, h, w)| first + (6 * c + 3 * h + w) as f32);
        let mut turned = Array3::from_shape_fn((2, 3, 2), |(c, w, h)| 12.0 + (6 * c + 3 * h + w) as f32);
        turned.swap_axes(1, 2);
        let bytes = written(vec![Outgoing::images("image0".into(), vec![image(0.0), turned])]);
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensor = file.tensor("image0").unwrap();
        assert_eq!(tensor.shape(), [2, 2, 2, 3]);
        let expected: Vec<f32> = (0..24).map(|value| value as f32).collect();
        assert_eq!(floats("image0", &tensor).unwrap(), expected);
    }

    #[test]
    fn features_that_do_not_fit_are_refused() {
        let header = |grid, strides| Header { id: 0, bytes: 0, grid, strides };
        let file = |name: &str, shape: &[usize]| {
            let count = shape.iter().product::<usize>();
            let values = vec![0u8; 4 * count];
            let view = TensorView::new(Dtype::F32, shape.to_vec(), &values).unwrap();
            safetensors::serialize([(name, view)], None).unwrap()
        };
        let pooled = Want::Pooled(Pooling::Head);
        let refused = |file: &[u8], want, header: &Header| {
            features(header, file, 2, want, &Device::flex()).map(|_| ()).unwrap_err()
        };
        let plain = header(None, None);
        for (bytes, want, header, problem) in [
            (file("pooled", &[1, 3]), pooled, plain.clone(), "`pooled` of 2 images, found 1"),
            (file("pooled", &[2, 3, 1]), pooled, plain.clone(), "shape [n, width], found [2, 3, 1]"),
            (file("pooled", &[2, 0]), pooled, plain.clone(), "found [2, 0]"),
            (file("features", &[2, 3]), pooled, plain.clone(), "called `pooled`, found features"),
            (b"print".to_vec(), pooled, plain.clone(), "safetensors"),
            (file("tokens", &[2, 4, 3]), Want::Tokens, plain.clone(), "\"grid\""),
            (file("tokens", &[2, 4, 3]), Want::Tokens, header(Some([2, 3]), None), "2 x 3 patches, found 4"),
            (file("map0", &[2, 4, 3, 3]), Want::Maps, plain, "\"strides\""),
            (file("map0", &[2, 4, 3, 3]), Want::Maps, header(None, Some(vec![4, 8])), "called `map1`"),
            (file("map0", &[2, 4, 3, 3]), Want::Maps, header(None, Some(vec![0])), "above 0"),
        ] {
            let found = refused(&bytes, want, &header);
            assert!(found.contains(problem), "{found}");
        }
    }

    #[test]
    fn half_precision_is_read() {
        let numbers = [1.5f32, -2.0];
        let bytes: Vec<u8> = numbers.iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect();
        let view = TensorView::new(Dtype::BF16, vec![1, 2], &bytes).unwrap();
        assert_eq!(floats("pooled", &view).unwrap(), numbers);
        let bytes: Vec<u8> = numbers.iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect();
        let view = TensorView::new(Dtype::F16, vec![1, 2], &bytes).unwrap();
        assert_eq!(floats("pooled", &view).unwrap(), numbers);
        let bytes = [0; 8];
        let view = TensorView::new(Dtype::F64, vec![1, 1], &bytes).unwrap();
        assert!(floats("pooled", &view).unwrap_err().contains("found F64"));
    }
}
