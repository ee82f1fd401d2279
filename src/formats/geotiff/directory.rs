//! Reads the first directory of a TIFF file before the library does, for what the library refuses or interprets
//! differently from GDAL.

/// Tags that determine how pixels are stored [TIFF 6.0; GDAL].
pub mod tag {
    pub const WIDTH: u16 = 256;
    pub const HEIGHT: u16 = 257;
    pub const BITS: u16 = 258;
    pub const COMPRESSION: u16 = 259;
    pub const PHOTOMETRIC: u16 = 262;
    pub const FILL_ORDER: u16 = 266;
    pub const STRIP_OFFSETS: u16 = 273;
    pub const SAMPLES: u16 = 277;
    pub const STRIP_SIZES: u16 = 279;
    pub const PLANAR: u16 = 284;
    pub const TILE_WIDTH: u16 = 322;
    pub const TILE_HEIGHT: u16 = 323;
    pub const TILE_OFFSETS: u16 = 324;
    pub const TILE_SIZES: u16 = 325;
    /// GDAL's nodata value: a number as text.
    pub const NO_DATA: u16 = 42113;
    /// Width and height of a pixel [GeoTIFF].
    pub const PIXEL_SCALE: u16 = 33550;
    /// Positions of pixels in model space [GeoTIFF].
    pub const TIE_POINT: u16 = 33922;
    /// Matrix from pixels to model space [GeoTIFF].
    pub const TRANSFORMATION: u16 = 34264;
    /// The coordinate system [GeoTIFF].
    pub const GEO_KEYS: u16 = 34735;
}

/// 0 is black: with this interpretation the library returns numbers as stored.
const MIN_IS_BLACK: u16 = 1;

/// Interpretations in which bands are not plain planes: YCbCr, which may be subsampled, and variants of L*a*b*.
const NOT_PLANES: [u16; 4] = [6, 8, 9, 10];

/// Further tags needed to read pixels: predictor, sample format, bit order within a byte, rows per strip.
const FURTHER: [u16; 4] = [317, 339, tag::FILL_ORDER, 278];
/// All other tags that this file uses.
const NAMED: [u16; 13] = [
    tag::WIDTH,
    tag::HEIGHT,
    tag::BITS,
    tag::COMPRESSION,
    tag::STRIP_OFFSETS,
    tag::SAMPLES,
    tag::STRIP_SIZES,
    tag::PLANAR,
    tag::TILE_WIDTH,
    tag::TILE_HEIGHT,
    tag::TILE_OFFSETS,
    tag::TILE_SIZES,
    tag::NO_DATA,
];

/// One directory entry and where its values are stored.
#[derive(Debug, Clone, Copy)]
struct Entry {
    tag: u16,
    /// Offset of the entry itself.
    start: usize,
    /// Bytes per number; 0 if the values are neither integers nor floats of 64 bits.
    size: usize,
    /// Whether the values are floats of 64 bits.
    is_double: bool,
    count: usize,
    values: usize,
}

/// The entries of the first directory.
#[derive(Debug)]
pub struct Directory {
    big_endian: bool,
    big_tiff: bool,
    entries: Vec<Entry>,
}

impl Directory {
    /// Returns `None` if the file is too short or not a TIFF; the library then explains what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let big_endian = match bytes.get(..2)? {
            b"II" => false,
            b"MM" => true,
            _ => return None,
        };
        let number = |at: usize, size: usize| number(bytes, at, size, big_endian);
        let big_tiff = match number(2, 2)? {
            42 => false,
            43 => true,
            _ => return None,
        };
        // Size in bytes of an offset, of the number of entries, and of an entry.
        let (offset, counted, length) = if big_tiff { (8, 8, 20) } else { (4, 2, 12) };
        let place = |at: usize, size: usize| usize::try_from(number(at, size)?).ok();
        let first = place(if big_tiff { 8 } else { 4 }, offset)?;
        let count = place(first, counted)?;
        let first = first.checked_add(counted)?;
        let end = first.checked_add(count.checked_mul(length)?)?;
        let mut entries = Vec::new();
        for start in (first..end).step_by(length) {
            let kind = number(start + 2, 2)?;
            let size = match kind {
                1 | 2 => 1,
                3 => 2,
                4 | 13 => 4,
                12 | 16 | 18 => 8,
                _ => 0,
            };
            let (count, inline) = (place(start + 4, offset)?, start + 4 + offset);
            let fits = count.checked_mul(size).is_some_and(|bytes| bytes <= offset);
            let values = if fits { inline } else { place(inline, offset)? };
            let tag = number(start, 2)? as u16;
            entries.push(Entry { tag, start, size, is_double: kind == 12, count, values });
        }
        Some(Directory { big_endian, big_tiff, entries })
    }

    /// Iterates over the integers of a tag; `None` if the tag is absent. Stops early at the end of the file.
    pub fn numbers<'a>(&'a self, bytes: &'a [u8], tag: u16) -> Option<impl Iterator<Item = u64> + 'a> {
        let is_of = |entry: &&Entry| entry.tag == tag && entry.size > 0 && !entry.is_double;
        let entry = *self.entries.iter().find(is_of)?;
        let place = move |i: usize| entry.values.checked_add(i.checked_mul(entry.size)?);
        Some((0..entry.count).map_while(move |i| number(bytes, place(i)?, entry.size, self.big_endian)))
    }

    /// Returns the first number of a tag.
    pub fn number(&self, bytes: &[u8], tag: u16) -> Option<u64> {
        self.numbers(bytes, tag)?.next()
    }

    /// Returns up to 32 floats of 64 bits of a tag; `None` if the tag is absent or of another type.
    pub fn doubles(&self, bytes: &[u8], tag: u16) -> Option<Vec<f64>> {
        let entry = self.entries.iter().find(|entry| entry.tag == tag && entry.is_double)?;
        let place = |i: usize| entry.values.checked_add(i.checked_mul(8)?);
        let numbers = (0..entry.count.min(32)).map_while(|i| number(bytes, place(i)?, 8, self.big_endian));
        Some(numbers.map(f64::from_bits).collect())
    }

    /// Returns the nodata value, if the file declares one.
    pub fn no_data(&self, bytes: &[u8]) -> Option<f64> {
        let text: Vec<u8> = self
            .numbers(bytes, tag::NO_DATA)?
            .take(64)
            .map(|byte| byte as u8)
            .take_while(|b| *b != 0)
            .collect();
        std::str::from_utf8(&text).ok()?.trim().parse().ok()
    }

    /// Lists the strips or tiles that a sparse file omits, which are those without bytes. A block with bytes
    /// but no offset is damage, hence an error.
    pub fn missing_blocks(&self, bytes: &[u8]) -> Result<Vec<usize>, &'static str> {
        // Some old uncompressed files give no sizes.
        let compressed = self.number(bytes, tag::COMPRESSION).is_some_and(|code| code != 1);
        let both = |offsets, sizes| Some((self.numbers(bytes, offsets)?, self.numbers(bytes, sizes)?));
        if let Some((offsets, sizes)) = both(tag::STRIP_OFFSETS, tag::STRIP_SIZES) {
            return missing(compressed, offsets.zip(sizes));
        }
        both(tag::TILE_OFFSETS, tag::TILE_SIZES)
            .map_or(Ok(Vec::new()), |(offsets, sizes)| missing(compressed, offsets.zip(sizes)))
    }

    /// Overwrites the single number of a tag. Returns false if the tag is absent or the number does not fit.
    pub fn set(&self, bytes: &mut [u8], tag: u16, number: u64) -> bool {
        let Some(entry) = self.entries.iter().find(|entry| entry.tag == tag && entry.count == 1) else {
            return false;
        };
        let stored = number.to_le_bytes();
        let (kept, rest) = stored.split_at(entry.size);
        match bytes.get_mut(entry.values..entry.values + entry.size) {
            Some(place) if rest.iter().all(|byte| *byte == 0) => {
                place.copy_from_slice(kept);
                if self.big_endian {
                    place.reverse();
                }
                true
            }
            _ => false,
        }
    }

    /// Declares the numbers to be grayscale with 0 as black, whatever the file calls them (palette, RGB, white
    /// is 0), so that the library returns them as stored. Files whose bands are not plain planes are left
    /// alone.
    pub fn call_gray(&self, bytes: &mut [u8]) {
        let photometric = self.entries.iter().find(|entry| entry.tag == tag::PHOTOMETRIC);
        let entry = match photometric {
            Some(entry) => match self.number(bytes, tag::PHOTOMETRIC) {
                Some(found) if NOT_PLANES.iter().any(|other| u64::from(*other) == found) => return,
                _ => entry,
            },
            // GDAL reads files without this tag, but the library requires it, so overwrite an entry that is not
            // needed.
            None => {
                let free = |entry: &&Entry| !NAMED.contains(&entry.tag) && !FURTHER.contains(&entry.tag);
                match self.entries.iter().find(free) {
                    Some(entry) => entry,
                    None => return,
                }
            }
        };
        let short = |number: u16| if self.big_endian { number.to_be_bytes() } else { number.to_le_bytes() };
        // Tag, type (3: two bytes), count and value.
        let (mut how_many, mut value) = (vec![0; if self.big_tiff { 8 } else { 4 }], vec![0; 2]);
        let last = how_many.len() - 1;
        how_many[if self.big_endian { last } else { 0 }] = 1;
        value.copy_from_slice(&short(MIN_IS_BLACK));
        let entry_bytes = [&short(tag::PHOTOMETRIC)[..], &short(3), &how_many, &value].concat();
        if let Some(place) = bytes.get_mut(entry.start..entry.start + entry_bytes.len()) {
            place.copy_from_slice(&entry_bytes);
        }
    }
}

fn missing(compressed: bool, blocks: impl Iterator<Item = (u64, u64)>) -> Result<Vec<usize>, &'static str> {
    let mut missing = Vec::new();
    for (number, block) in blocks.enumerate() {
        match block {
            (0, 0) => missing.push(number),
            (_, 0) if compressed => missing.push(number),
            (0, _) => return Err("a strip or tile has offset 0, which is the header"),
            _ => {}
        }
    }
    Ok(missing)
}

/// Reads an integer of `size` bytes.
fn number(bytes: &[u8], at: usize, size: usize, big_endian: bool) -> Option<u64> {
    let stored = bytes.get(at..at.checked_add(size)?)?;
    let join = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
    Some(if big_endian { stored.iter().fold(0, join) } else { stored.iter().rev().fold(0, join) })
}

/// Names a compression that is not supported [GDAL's names]; `None` if it is supported.
pub fn unread_compression(code: usize) -> Option<String> {
    Some(match code {
        1 | 5 | 8 | 32773 | 32946 | 50000 => return None,
        2..=4 => format!("CCITT (number {code})"),
        6 | 7 => "JPEG".to_owned(),
        34712 => "JPEG 2000".to_owned(),
        34887 => "LERC".to_owned(),
        34925 => "LZMA".to_owned(),
        50001 => "WEBP".to_owned(),
        50002 | 52546 => "JXL".to_owned(),
        other => format!("number {other}"),
    })
}
