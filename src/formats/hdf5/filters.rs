//! Undoes HDF5's filters: those of packed files, in the order in which they are applied there. Their numbers
//! and formats are those of the HDF5 specification; h5py reads them without a plugin.

use super::lzf;

/// A step between the numbers and the stored bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Filter {
    /// Groups the first bytes of all numbers, then the second bytes, …
    Shuffle,
    /// LZF compression.
    Lzf,
    /// Appends a four-byte checksum.
    Fletcher32,
}

/// A chunk being decoded, and scratch space for the next step. Reused between chunks because fresh memory is
/// slow to get.
#[derive(Debug, Default)]
/// The bytes after the last step.
pub struct Buffers {
    pub bytes: Vec<u8>,
    room: Vec<u8>,
}

/// The filters of a dataset, in the order in which they were applied.
#[derive(Debug)]
pub struct Filters(Vec<Filter>);

impl Filters {
    /// Parses filter numbers; `None` if there are others or they are in another order.
    pub fn numbered(numbers: &[u16]) -> Option<Self> {
        let filter = |number: &u16| match number {
            2 => Some(Filter::Shuffle),
            32000 => Some(Filter::Lzf),
            3 => Some(Filter::Fletcher32),
            _ => None,
        };
        let filters: Vec<Filter> = numbers.iter().map(filter).collect::<Option<_>>()?;
        filters.is_sorted_by(|a, b| a < b).then_some(Filters(filters))
    }

    /// Turns the stored bytes of a chunk of `width`-byte numbers into its `size` plain bytes. `skipped` has a
    /// bit set for each filter that was not applied to this chunk.
    ///
    /// # Errors
    /// Describes what is wrong with the stored bytes. Memory use is proportional to their length.
    pub fn undo(
        &self,
        chunk: &mut Buffers,
        skipped: u32,
        width: usize,
        size: usize,
    ) -> Result<(), &'static str> {
        let Buffers { bytes, room } = chunk;
        for (number, filter) in self.0.iter().enumerate().rev() {
            if skipped >> number & 1 == 1 {
                continue;
            }
            match filter {
                Filter::Fletcher32 => verify(bytes).ok_or("checksum mismatch")?,
                Filter::Lzf => {
                    lzf::decompress(bytes, room, size).ok_or("invalid LZF data")?;
                    std::mem::swap(bytes, room);
                }
                Filter::Shuffle => unshuffle(bytes, room, width),
            }
        }
        if bytes.len() == size { Ok(()) } else { Err("wrong decompressed size") }
    }
}

/// Removes the checksum if it matches the bytes before it.
fn verify(bytes: &mut Vec<u8>) -> Option<()> {
    let (plain, stored) = bytes.split_last_chunk()?;
    let stored = u32::from_le_bytes(*stored);
    // Both sums are modulo 65,535, so a writer may store 0 or 65,535 for zero.
    let same = |shift: u32| (stored >> shift & 0xffff) % 0xffff == fletcher32(plain) >> shift & 0xffff;
    if !same(0) || !same(16) {
        return None;
    }
    bytes.truncate(bytes.len() - 4);
    Some(())
}

/// Number of words summed side by side, to use SIMD.
const LANES: usize = 16;

/// Rows of words for which the sums stay below 2^32.
const ROWS: usize = 256;

/// Computes Fletcher's checksum of big-endian two-byte words, modulo 65,535: the sum of the words in the lower
/// half, the sum of all intermediate sums in the upper.
fn fletcher32(bytes: &[u8]) -> u32 {
    let (mut sum, mut sums) = (0_u64, 0_u64);
    for part in bytes.chunks(2 * LANES * ROWS) {
        let (rows, rest) = part.as_chunks::<{ 2 * LANES }>();
        let (mut of_lane, mut sums_of_lane) = ([0_u32; LANES], [0_u32; LANES]);
        for row in rows {
            for (lane, word) in row.as_chunks().0.iter().enumerate() {
                of_lane[lane] += u32::from(u16::from_be_bytes(*word));
                sums_of_lane[lane] += of_lane[lane];
            }
        }
        // A word counts once in each intermediate sum from its own position on: LANES times for each row from
        // its own on, minus the positions before it in that row.
        sums += (LANES * rows.len()) as u64 * sum;
        for (lane, (of_lane, sums_of_lane)) in (0..).zip(of_lane.into_iter().zip(sums_of_lane)) {
            sum += u64::from(of_lane);
            sums += LANES as u64 * u64::from(sums_of_lane) - lane * u64::from(of_lane);
        }
        for word in rest.chunks(2) {
            sum += u64::from(word[0]) << 8 | word.get(1).copied().map_or(0, u64::from);
            sums += sum;
        }
        (sum, sums) = (sum % 0xffff, sums % 0xffff);
    }
    (sums as u32) << 16 | sum as u32
}

/// Reassembles `width`-byte numbers from their grouped bytes: interleaves the two halves repeatedly until the
/// bytes of each number are adjacent.
fn unshuffle(bytes: &mut Vec<u8>, room: &mut Vec<u8>, width: usize) {
    for _ in 0..width.trailing_zeros() {
        room.resize(bytes.len(), 0);
        let (first, second) = bytes.split_at(bytes.len() / 2);
        for (pair, (a, b)) in room.as_chunks_mut().0.iter_mut().zip(first.iter().zip(second)) {
            *pair = [*a, *b];
        }
        std::mem::swap(bytes, room);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_known_filters_in_order_only() {
        assert!(Filters::numbered(&[2, 32000, 3]).is_some());
        assert!(Filters::numbered(&[]).is_some());
        assert!(Filters::numbered(&[32000, 2]).is_none());
        assert!(Filters::numbered(&[2, 2]).is_none());
        assert!(Filters::numbered(&[2, 1]).is_none());
    }

    #[test]
    fn checksum_matches_its_definition() {
        let all: Vec<u8> =
            (0..40_001_u32).map(|place| (place.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let (mut sum, mut sums) = (0, 0);
        for (place, word) in all.chunks(2).enumerate() {
            sum = (sum + (u32::from(word[0]) << 8) + word.get(1).copied().map_or(0, u32::from)) % 65_535;
            sums = (sums + sum) % 65_535;
            let end = (2 * place + 2).min(all.len());
            if place % 97 == 0 || end == all.len() {
                assert_eq!(fletcher32(&all[..end]), sums << 16 | sum, "{end} bytes");
            }
        }
        let full = vec![0xff; 2 * LANES * ROWS];
        assert_eq!(fletcher32(&full), 0);
    }

    #[test]
    fn unshuffle_restores_numbers() {
        for width in [1, 2, 4, 8] {
            let numbers: Vec<u8> = (0..7 * width as u8).collect();
            let shuffled = (0..width).flat_map(|place| numbers.iter().copied().skip(place).step_by(width));
            let (mut bytes, mut room) = (shuffled.collect(), vec![9; 99]);
            unshuffle(&mut bytes, &mut room, width);
            assert_eq!(bytes, numbers);
        }
    }

    #[test]
    fn detects_damage() {
        let filters = Filters::numbered(&[2, 3]).unwrap();
        // Two two-byte numbers, first bytes first, and their checksum.
        let mut stored = vec![1, 3, 2, 4];
        stored.extend(fletcher32(&[1, 3, 2, 4]).to_le_bytes());
        let undo_without = |skipped, stored: &[u8], size| {
            let mut chunk = Buffers { bytes: stored.to_vec(), room: Vec::new() };
            filters.undo(&mut chunk, skipped, 2, size).map(|()| chunk.bytes)
        };
        let undo = |stored: &[u8], size| undo_without(0, stored, size);
        assert_eq!(undo(&stored, 4), Ok(vec![1, 2, 3, 4]));
        assert!(undo(&stored, 6).is_err());
        assert!(undo(&stored[..3], 4).is_err());
        for place in 0..stored.len() {
            let mut spoilt = stored.clone();
            spoilt[place] ^= 0x10;
            assert!(undo(&spoilt, 4).is_err());
        }
        // A chunk to which shuffling was not applied.
        assert_eq!(undo_without(1, &stored, 4), Ok(vec![1, 3, 2, 4]));
    }
}
