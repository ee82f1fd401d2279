//! The first directory of a TIFF file, read before the library sees it: what the library refuses, or takes to mean something
//! else than GDAL does.

/// Tags that decide how pixels are stored [TIFF 6.0; GDAL].
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
    /// GDAL's: text that holds a number.
    pub const NO_DATA: u16 = 42113;
}

/// 0 is black: the library returns the numbers as they are stored.
const MIN_IS_BLACK: u16 = 1;

/// Interpretations under which numbers are no plain planes (YCbCr, which may be subsampled, and those of L*a*b*).
const NOT_PLANES: [u16; 4] = [6, 8, 9, 10];

/// Further tags without which pixels cannot be read: predictor and kind of the numbers, bits in a byte, rows of a strip.
const FURTHER: [u16; 4] = [317, 339, tag::FILL_ORDER, 278];
/// All the others of this file.
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

/// Where one entry's values lie.
#[derive(Debug, Clone, Copy)]
struct Entry {
    tag: u16,
    /// Of the entry itself in the file.
    start: usize,
    /// Bytes of a number; 0 where the values are no whole numbers.
    size: usize,
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
    /// None where the file is too short or no TIFF: the library says what is wrong with it.
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
        // Bytes of an offset, of the count of entries, of an entry.
        let (offset, counted, length) = if big_tiff { (8, 8, 20) } else { (4, 2, 12) };
        let place = |at: usize, size: usize| usize::try_from(number(at, size)?).ok();
        let first = place(if big_tiff { 8 } else { 4 }, offset)?;
        let count = place(first, counted)?;
        let first = first.checked_add(counted)?;
        let end = first.checked_add(count.checked_mul(length)?)?;
        let mut entries = Vec::new();
        for start in (first..end).step_by(length) {
            let size = match number(start + 2, 2)? {
                1 | 2 => 1,
                3 => 2,
                4 | 13 => 4,
                16 | 18 => 8,
                _ => 0,
            };
            let (count, inline) = (place(start + 4, offset)?, start + 4 + offset);
            let fits = count.checked_mul(size).is_some_and(|bytes| bytes <= offset);
            let values = if fits { inline } else { place(inline, offset)? };
            entries.push(Entry { tag: number(start, 2)? as u16, start, size, count, values });
        }
        Some(Directory { big_endian, big_tiff, entries })
    }

    /// The whole numbers of a tag; none where it is absent. Ends early where the file does.
    fn numbers<'a>(&'a self, bytes: &'a [u8], tag: u16) -> Option<impl Iterator<Item = u64> + 'a> {
        let entry = *self.entries.iter().find(|entry| entry.tag == tag && entry.size > 0)?;
        let place = move |i: usize| entry.values.checked_add(i.checked_mul(entry.size)?);
        Some((0..entry.count).map_while(move |i| number(bytes, place(i)?, entry.size, self.big_endian)))
    }

    /// The first number of a tag.
    pub fn number(&self, bytes: &[u8], tag: u16) -> Option<u64> {
        self.numbers(bytes, tag)?.next()
    }

    /// The value of pixels that were not stored, where the file names one.
    pub fn no_data(&self, bytes: &[u8]) -> Option<f64> {
        let text: Vec<u8> = self
            .numbers(bytes, tag::NO_DATA)?
            .take(64)
            .map(|byte| byte as u8)
            .take_while(|b| *b != 0)
            .collect();
        std::str::from_utf8(&text).ok()?.trim().parse().ok()
    }

    /// Which strips or tiles are left out of a sparse file: they have no bytes. What has bytes but no place is damage, and an
    /// error.
    pub fn missing_blocks(&self, bytes: &[u8]) -> Result<Vec<usize>, &'static str> {
        // Some old files that are not compressed say nothing of sizes.
        let compressed = self.number(bytes, tag::COMPRESSION).is_some_and(|code| code != 1);
        let both = |offsets, sizes| Some((self.numbers(bytes, offsets)?, self.numbers(bytes, sizes)?));
        if let Some((offsets, sizes)) = both(tag::STRIP_OFFSETS, tag::STRIP_SIZES) {
            return missing(compressed, offsets.zip(sizes));
        }
        both(tag::TILE_OFFSETS, tag::TILE_SIZES)
            .map_or(Ok(Vec::new()), |(offsets, sizes)| missing(compressed, offsets.zip(sizes)))
    }

    /// Puts another number in the place of a tag's only one. False where there is no such tag, or no room for the number.
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

    /// Makes the file say that its numbers are gray, 0 black, whatever they are called (a palette, colours, 0 white): the
    /// library then returns them as they are stored. What is no plain planes stays as it is.
    pub fn call_gray(&self, bytes: &mut [u8]) {
        let photometric = self.entries.iter().find(|entry| entry.tag == tag::PHOTOMETRIC);
        let entry = match photometric {
            Some(entry) => match self.number(bytes, tag::PHOTOMETRIC) {
                Some(found) if NOT_PLANES.iter().any(|other| u64::from(*other) == found) => return,
                _ => entry,
            },
            // GDAL reads such files; the library wants the tag, and none of these.
            None => {
                let free = |entry: &&Entry| !NAMED.contains(&entry.tag) && !FURTHER.contains(&entry.tag);
                match self.entries.iter().find(free) {
                    Some(entry) => entry,
                    None => return,
                }
            }
        };
        let short = |number: u16| if self.big_endian { number.to_be_bytes() } else { number.to_le_bytes() };
        // Tag, kind (3: two bytes), how many, and the number.
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
            (0, _) => return Err("a strip or tile lies at offset 0, where the header is"),
            _ => {}
        }
    }
    Ok(missing)
}

/// A whole number of `size` bytes.
fn number(bytes: &[u8], at: usize, size: usize, big_endian: bool) -> Option<u64> {
    let stored = bytes.get(at..at.checked_add(size)?)?;
    let join = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
    Some(if big_endian { stored.iter().fold(0, join) } else { stored.iter().rev().fold(0, join) })
}

/// What a compression is called that is not read [GDAL's names]; none where it is.
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
