//! GeoTIFF files as found in practice: every value is the stored one, as GDAL returns it, or the error says
//! what to do. The files are built here, tag by tag.

use std::path::Path;

use ndarray::{Array2, Array3};
use terrabench::data::packed::pack;
use terrabench::data::{self, Split};
use terrabench::formats::geotiff::Image;
use terrabench::home::Home;
use terrabench::progress::Silent;
use terrabench::task::Suite;

/// A TIFF file to be written: tags with their types (2 text, 3 short, 4 long) and numbers, and its blocks,
/// `None` for omitted ones.
#[derive(Clone)]
struct Tiff {
    big_endian: bool,
    big_tiff: bool,
    tiled: bool,
    tags: Vec<(u16, u16, Vec<u64>)>,
    blocks: Vec<Option<Vec<u8>>>,
}

impl Tiff {
    /// Creates an image of `bands` bands of integers of `bits` bits, with one strip per plane.
    fn new([bands, rows, columns]: [usize; 3], bits: u64) -> Self {
        let tags = vec![
            (256, 4, vec![columns as u64]),
            (257, 4, vec![rows as u64]),
            (258, 3, vec![bits; bands]),
            (259, 3, vec![1]),
            (262, 3, vec![1]),
            (277, 3, vec![bands as u64]),
            (278, 4, vec![rows as u64]),
        ];
        Tiff { big_endian: false, big_tiff: false, tiled: false, tags, blocks: Vec::new() }
    }

    fn tag(mut self, tag: u16, kind: u16, numbers: &[u64]) -> Self {
        self.tags.retain(|(known, ..)| *known != tag);
        self.tags.push((tag, kind, numbers.to_vec()));
        self
    }

    fn without(mut self, tag: u16) -> Self {
        self.tags.retain(|(known, ..)| *known != tag);
        self
    }

    fn no_data(self, text: &str) -> Self {
        let text: Vec<u64> = text.bytes().chain([0]).map(u64::from).collect();
        self.tag(42113, 2, &text)
    }

    fn blocks(mut self, blocks: impl IntoIterator<Item = Option<Vec<u8>>>) -> Self {
        self.blocks = blocks.into_iter().collect();
        self
    }

    fn tiles(mut self, width: u64, height: u64) -> Self {
        self.tiled = true;
        self.without(278).tag(322, 4, &[width]).tag(323, 4, &[height])
    }

    fn number(&self, number: u64, size: usize) -> Vec<u8> {
        let mut bytes = number.to_le_bytes()[..size].to_vec();
        if self.big_endian {
            bytes.reverse();
        }
        bytes
    }

    fn bytes(&self) -> Vec<u8> {
        let (word, count) = if self.big_tiff { (8, 8) } else { (4, 2) };
        let mut out = if self.big_endian { b"MM".to_vec() } else { b"II".to_vec() };
        out.extend(self.number(if self.big_tiff { 43 } else { 42 }, 2));
        if self.big_tiff {
            out.extend([self.number(8, 2), self.number(0, 2)].concat());
        }
        let first = out.len();
        out.extend(vec![0; word]);
        let mut places = Vec::new();
        for block in &self.blocks {
            places.push(if block.is_some() { out.len() as u64 } else { 0 });
            out.extend(block.iter().flatten());
        }
        let sizes = self.blocks.iter().map(|block| block.as_ref().map_or(0, Vec::len) as u64).collect();
        let mut tags = self.tags.clone();
        let (offsets_tag, sizes_tag) = if self.tiled { (324, 325) } else { (273, 279) };
        for (tag, numbers) in [(offsets_tag, places), (sizes_tag, sizes)] {
            if !tags.iter().any(|(known, ..)| *known == tag) {
                tags.push((tag, 4, numbers));
            }
        }
        tags.sort_by_key(|(tag, ..)| *tag);
        let entries: Vec<Vec<u8>> = tags
            .iter()
            .map(|(tag, kind, numbers)| {
                let size = match kind {
                    2 => 1,
                    3 => 2,
                    _ => 4,
                };
                let mut values: Vec<u8> = numbers.iter().flat_map(|n| self.number(*n, size)).collect();
                if values.len() > word {
                    let place = out.len() as u64;
                    out.extend(&values);
                    values = self.number(place, word);
                }
                values.resize(word, 0);
                let head = [self.number(u64::from(*tag), 2), self.number(u64::from(*kind), 2)].concat();
                [head, self.number(numbers.len() as u64, word), values].concat()
            })
            .collect();
        let directory = self.number(out.len() as u64, word);
        out[first..first + word].copy_from_slice(&directory);
        out.extend(self.number(entries.len() as u64, count));
        out.extend(entries.concat());
        out.extend(vec![0; word]);
        out
    }

    fn decode(&self) -> terrabench::Result<Image> {
        Image::decode(Path::new("made.tif"), self.bytes())
    }

    /// Reads all bands, [bands, rows, columns].
    fn read(&self) -> Array3<f64> {
        let image = self.decode().unwrap();
        let bands: Vec<Array2<f64>> = (0..image.bands).map(|band| image.band(band)).collect();
        let views: Vec<_> = bands.iter().map(Array2::view).collect();
        let all = ndarray::stack(ndarray::Axis(0), &views).unwrap();
        // The method used in training gives the same result.
        for (band, exact) in bands.iter().enumerate() {
            let mut plane = Array2::<f32>::zeros((image.rows, image.columns));
            image.copy_to(&[band], &mut [plane.view_mut()]);
            let same = plane.iter().zip(exact).all(|(a, b)| *a == *b as f32 || (a.is_nan() && b.is_nan()));
            assert!(same, "band {band}");
        }
        all
    }

    fn error(&self) -> String {
        let error = self.decode().expect_err("this should not be read").to_string();
        assert!(error.contains("made.tif") && error.contains("help: "), "{error}");
        error
    }

    /// Returns the same file in every variant of the container.
    fn forms(&self) -> Vec<Tiff> {
        [(false, false), (false, true)]
            .map(|(big_endian, big_tiff)| Tiff { big_endian, big_tiff, ..self.clone() })
            .to_vec()
    }
}

/// A distinct number for each band, row and column.
fn pixel(band: usize, row: usize, column: usize) -> u16 {
    (1 + 1000 * band + 40 * row + column) as u16
}

/// 16-bit numbers, interleaved by pixel.
fn interleaved([bands, rows, columns]: [usize; 3], from_row: usize) -> Vec<u8> {
    let places = (from_row..from_row + rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
    places
        .flat_map(|(row, column)| (0..bands).flat_map(move |band| pixel(band, row, column).to_le_bytes()))
        .collect()
}

fn expected([bands, rows, columns]: [usize; 3]) -> Array3<f64> {
    Array3::from_shape_fn((bands, rows, columns), |(band, row, column)| f64::from(pixel(band, row, column)))
}

/// Wraps the bytes in an uncompressed zlib stream.
fn deflate(bytes: &[u8]) -> Vec<u8> {
    let (mut a, mut b) = (1_u32, 0_u32);
    for byte in bytes {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    let length = bytes.len() as u16;
    let head = [&[0x78, 0x01, 0x01][..], &length.to_le_bytes(), &(!length).to_le_bytes()].concat();
    [head, bytes.to_vec(), (b << 16 | a).to_be_bytes().to_vec()].concat()
}

/// Wraps the bytes in an uncompressed Zstandard frame.
fn zstandard(bytes: &[u8]) -> Vec<u8> {
    let head = [&[0x28, 0xb5, 0x2f, 0xfd, 0xa0][..], &(bytes.len() as u32).to_le_bytes()].concat();
    let block = (bytes.len() as u32) << 3 | 1;
    [head, block.to_le_bytes()[..3].to_vec(), bytes.to_vec()].concat()
}

/// An image of strips of two rows, with the middle one omitted.
fn sparse(size: [usize; 3]) -> Tiff {
    let strip = |row| Some(interleaved([size[0], 2, size[2]], row));
    Tiff::new(size, 16).tag(278, 4, &[2]).blocks([strip(0), None, strip(4)])
}

#[test]
fn sparse_strip_reads_as_nodata() {
    let size = [3, 6, 4];
    let with = |value: f64| {
        let mut all = expected(size);
        all.slice_mut(ndarray::s![.., 2..4, ..]).fill(value);
        all
    };
    for form in sparse(size).forms() {
        assert_eq!(form.read(), with(0.0), "big TIFF: {}", form.big_tiff);
        // Rounded to the stored type.
        for (text, value) in
            [("7", 7.0), ("0", 0.0), ("-9999", 0.0), ("1e9", 65535.0), ("nan", 0.0), ("x", 0.0)]
        {
            assert_eq!(form.clone().no_data(text).read(), with(value), "no data {text}");
        }
    }
    let mut packed = sparse(size).tag(259, 3, &[8]);
    packed.blocks.iter_mut().flatten().for_each(|block| *block = deflate(block));
    assert_eq!(packed.no_data("5").read(), with(5.0));
}

#[test]
fn sparse_float_band_reads_as_nodata() {
    let plane =
        |band: u16| Some((0..6).flat_map(|i| (f32::from(band) + 0.5 * i as f32).to_le_bytes()).collect());
    let made =
        Tiff::new([3, 2, 3], 32).tag(339, 3, &[3; 3]).tag(284, 3, &[2]).blocks([plane(0), None, plane(2)]);
    let found = made.clone().no_data("nan").read();
    assert!(found.slice(ndarray::s![1, .., ..]).iter().all(|pixel| pixel.is_nan()));
    assert_eq!(found[[2, 1, 2]], 4.5);
    let found = made.no_data("-1.5").read();
    assert!(found.slice(ndarray::s![1, .., ..]).iter().all(|pixel| *pixel == -1.5));
    assert_eq!(found[[0, 0, 1]], 0.5);
}

/// An image of 20 x 18 pixels in tiles of 16 x 16, with planes one after another or interleaved.
fn tiled(planar: bool) -> Tiff {
    let size = [2, 18, 20];
    let tile = |bands: &[usize], x: usize, y: usize| {
        let places = (0..16).flat_map(|row| (0..16).map(move |column| (y + row, x + column)));
        // Pixels outside the image are arbitrary.
        let stored = |band: usize, row: usize, column: usize| match row < 18 && column < 20 {
            true => pixel(band, row, column),
            false => 0xdead,
        };
        places
            .flat_map(|(row, column)| bands.iter().map(move |band| (*band, row, column)))
            .flat_map(|(band, row, column)| stored(band, row, column).to_le_bytes())
            .collect::<Vec<u8>>()
    };
    let corners = [(0, 0), (16, 0), (0, 16), (16, 16)];
    let planes: &[&[usize]] = if planar { &[&[0], &[1]] } else { &[&[0, 1]] };
    let blocks = planes.iter().flat_map(|bands| corners.map(|(x, y)| Some(tile(bands, x, y))));
    Tiff::new(size, 16).tag(284, 3, &[if planar { 2 } else { 1 }]).tiles(16, 16).blocks(blocks)
}

#[test]
fn tiles_crossing_the_edge_are_cropped() {
    for planar in [false, true] {
        for form in tiled(planar).forms() {
            assert_eq!(form.read(), expected([2, 18, 20]), "planar {planar}");
        }
    }
}

#[test]
fn sparse_tile_reads_as_nodata() {
    let places = [(0..16, 0..16), (0..16, 16..20), (16..18, 0..16), (16..18, 16..20)];
    for planar in [false, true] {
        let whole = tiled(planar);
        for missing in 0..whole.blocks.len() {
            let mut made = whole.clone();
            made.blocks[missing] = None;
            let mut all = expected([2, 18, 20]);
            let (rows, columns) = places[missing % 4].clone();
            let bands = if planar { missing / 4..missing / 4 + 1 } else { 0..2 };
            all.slice_mut(ndarray::s![bands, rows, columns]).fill(9.0);
            assert_eq!(made.no_data("9").read(), all, "planar {planar}, tile {missing}");
        }
    }
}

#[test]
fn a_tile_larger_than_the_image_is_read() {
    // A tile of 256 x 256 pixels and 13 bands for an image of 3 x 2.
    let mut tile = vec![0; 256 * 256 * 13 * 2];
    for (row, stored) in tile.chunks_exact_mut(256 * 13 * 2).take(3).enumerate() {
        stored[..2 * 13 * 2].copy_from_slice(&interleaved([13, 1, 2], row));
    }
    let made = Tiff::new([13, 3, 2], 16).tiles(256, 256).blocks([Some(tile)]);
    assert_eq!(made.read(), expected([13, 3, 2]));
    assert!(made.tag(322, 4, &[1 << 30]).error().contains("implausible tile size"));
}

#[test]
fn a_block_at_offset_0_is_an_error() {
    let made = sparse([1, 6, 4]).tag(273, 4, &[8, 0, 24]).tag(279, 4, &[16; 3]);
    assert!(made.error().contains("offset 0"), "{}", made.error());
}

#[test]
fn pixels_are_as_stored_whatever_their_interpretation() {
    // White is 0; palettes of three or four components, with more or fewer bands; masks; raw sensor data.
    for photometric in [0, 2, 3, 4, 5, 32803, 34892] {
        for bands in [1, 2, 3, 4, 5, 13] {
            let size = [bands, 2, 3];
            let mut made =
                Tiff::new(size, 16).tag(262, 3, &[photometric]).blocks([Some(interleaved(size, 0))]);
            if bands > 3 {
                made = made.tag(338, 3, &vec![0; bands - 3]);
            }
            for form in made.forms() {
                assert_eq!(form.read(), expected(size), "photometric {photometric}, {bands} bands");
            }
        }
    }
    let floats: Vec<u8> = [0.25_f32, -1.0, 0.75].into_iter().flat_map(f32::to_le_bytes).collect();
    let white = Tiff::new([1, 1, 3], 32).tag(262, 3, &[0]).tag(339, 3, &[3]).blocks([Some(floats)]);
    assert_eq!(white.read().into_raw_vec_and_offset().0, [0.25, -1.0, 0.75]);
    // No interpretation at all.
    let unsaid = Tiff::new([2, 2, 3], 16)
        .without(262)
        .tag(305, 2, &[104, 105, 0])
        .blocks([Some(interleaved([2, 2, 3], 0))]);
    assert_eq!(unsaid.read(), expected([2, 2, 3]));
}

#[test]
fn big_endian_files_are_read() {
    let values: Vec<u8> = (0..6).flat_map(|i| pixel(0, i / 3, i % 3).to_be_bytes()).collect();
    for photometric in [0, 1, 3] {
        let made = Tiff::new([1, 2, 3], 16).tag(262, 3, &[photometric]).blocks([Some(values.clone())]);
        let made = Tiff { big_endian: true, ..made };
        assert_eq!(made.read(), expected([1, 2, 3]));
    }
}

#[test]
fn integers_of_fewer_than_8_bits_are_read() {
    let size = [2, 3, 5];
    for bits in 1..8_u32 {
        let number =
            |band: usize, row: usize, column: usize| (7 * band + 5 * row + 3 * column) as u64 % (1 << bits);
        // Rows start at whole bytes.
        let row = |numbers: Vec<u64>| -> Vec<u8> {
            let text: String =
                numbers.iter().map(|n| format!("{n:0width$b}", width = bits as usize)).collect();
            let text = format!("{text:0<width$}", width = text.len().div_ceil(8) * 8);
            text.as_bytes()
                .chunks(8)
                .map(|bits| u8::from_str_radix(std::str::from_utf8(bits).unwrap(), 2).unwrap())
                .collect()
        };
        let chunky =
            (0..3).flat_map(|r| row((0..5).flat_map(|c| (0..2).map(move |b| number(b, r, c))).collect()));
        let plane = |b| Some((0..3).flat_map(|r| row((0..5).map(|c| number(b, r, c)).collect())).collect());
        let all = Array3::from_shape_fn((2, 3, 5), |(b, r, c)| number(b, r, c) as f64);
        let made = Tiff::new(size, u64::from(bits)).tag(262, 3, &[if bits == 4 { 3 } else { 1 }]);
        assert_eq!(made.clone().blocks([Some(chunky.collect())]).read(), all, "{bits} bits");
        assert_eq!(made.tag(284, 3, &[2]).blocks([plane(0), plane(1)]).read(), all, "{bits} bits, planes");
    }
}

#[test]
fn half_floats_are_read() {
    let stored = [0x3c00_u16, 0xfbff, 0x0001, 0x7c00].into_iter().flat_map(u16::to_le_bytes).collect();
    let made = Tiff::new([1, 2, 2], 16).tag(339, 3, &[3]).blocks([Some(stored)]);
    let found = made.read().into_raw_vec_and_offset().0;
    assert_eq!(found, [1.0, -65504.0, 2_f64.powi(-24), f64::INFINITY]);
    assert_eq!(made.decode().unwrap().dtype().to_string(), "float32");
}

#[test]
fn zstandard_is_read() {
    let size = [13, 4, 5];
    let made = Tiff::new(size, 16).tag(259, 3, &[50000]).blocks([Some(zstandard(&interleaved(size, 0)))]);
    assert_eq!(made.read(), expected(size));
}

#[test]
fn unsupported_files_are_not_called_damaged() {
    let size = [2, 2, 3];
    let made = Tiff::new(size, 16).blocks([Some(interleaved(size, 0))]);
    let named = [
        (34887, "LERC"),
        (34925, "LZMA"),
        (50001, "WEBP"),
        (7, "JPEG"),
        (50002, "JXL"),
        (4, "CCITT"),
        (12345, "12345"),
    ];
    for (code, name) in named {
        let error = made.clone().tag(259, 3, &[code]).error();
        assert!(error.contains(name) && error.contains("is not supported"), "{error}");
        assert!(
            error.contains("gdal_translate -co COMPRESS=DEFLATE") && !error.contains("damaged"),
            "{error}"
        );
    }
    // 12 bits; complex numbers; reversed bits; colours that are not planes.
    let others = [(258, vec![12, 12]), (339, vec![5, 5]), (266, vec![2]), (262, vec![6]), (262, vec![8])];
    for (tag, numbers) in others {
        let error = made.clone().tag(tag, 3, &numbers).error();
        assert!(error.contains("gdal_translate") && !error.contains("damaged"), "{tag}: {error}");
    }
}

#[test]
fn damaged_files_never_panic() {
    let kinds = [sparse([3, 6, 4]).no_data("7"), tiled(true), tiled(false), {
        Tiff::new([13, 4, 5], 16).tag(259, 3, &[50000]).blocks([Some(zstandard(&interleaved([13, 4, 5], 0)))])
    }];
    for made in kinds {
        let whole = made.bytes();
        // Everything except pixels: the header, and the tags and their values at the end.
        let places = (0..16).chain(whole.len().saturating_sub(400)..whole.len());
        for place in places {
            for bits in [0x01, 0x80, 0xff] {
                let mut spoilt = whole.clone();
                spoilt[place] ^= bits;
                let _ = Image::decode(Path::new("spoilt.tif"), spoilt);
            }
            let _ = Image::decode(Path::new("short.tif"), whole[..place].to_vec());
        }
    }
}

/// `prepare` packs what the files contain, also for omitted blocks.
#[test]
fn packed_sparse_images_contain_nodata() {
    let folder = tempfile::tempdir().unwrap();
    let (root, to) = (folder.path().join("data"), folder.path().join("packed"));
    let tiles = root.join("eurosat_s2/all_imgs/River");
    std::fs::create_dir_all(&tiles).unwrap();
    for (number, split) in ["train", "val", "test"].into_iter().enumerate() {
        std::fs::write(root.join(format!("eurosat_s2/eurosat-{split}.txt")), format!("River_{number}.jpg\n"))
            .unwrap();
        std::fs::write(tiles.join(format!("River_{number}.tif")), sparse([13, 6, 4]).no_data("3").bytes())
            .unwrap();
    }
    let suite = Suite::load(&Home::find().unwrap(), "copernicus-bench").unwrap();
    let task = suite.task("eurosat-s2").unwrap();
    pack(&suite, task, &root, &to, &Silent).unwrap();
    let mut all = expected([13, 6, 4]);
    all.slice_mut(ndarray::s![.., 2..4, ..]).fill(3.0);
    for folder in [&root, &to] {
        let dataset = data::open(&suite, task, folder, "default").unwrap();
        let bands = dataset.bands().unwrap();
        let sample = dataset.read(Split::Test, 0, &bands).unwrap();
        assert_eq!(sample.images[0].pixels.mapv(f64::from), all, "{}", folder.display());
        let raw = dataset.read_raw(Split::Test, 0).unwrap();
        assert!(raw.images[0].bands.iter().zip(all.outer_iter()).all(|(band, plane)| band.pixels == plane));
    }
}
