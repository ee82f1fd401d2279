//! LZF, the fast compression that h5py ships (HDF5 filter 32000): runs of literal bytes, and copies of earlier
//! output.
//!
//! ```text
//! 000lllll                     l + 1 literal bytes follow
//! lllddddd dddddddd            copy l + 2 bytes from d + 1 bytes before; l is 1 to 6
//! 111ddddd llllllll dddddddd   the same with l + 9 bytes
//! ```
//!
//! Pixels produce thousands of short copies per tile. The cost is dominated by mispredicted branches, not by
//! bytes moved, so short pieces are moved in one fixed size that is too long; what follows overwrites the
//! excess.

/// Longest token: a run of 32 literal bytes.
const TOKEN: usize = 33;

/// Bytes that a move may write past the end.
const MARGIN: usize = 32;

/// Maximum number of output bytes per input byte: 264 by 3.
const EXPANSION: usize = 88;

/// Decompresses `stream` into `out`, which becomes `size` bytes long; `None` if the stream does not decode to
/// exactly that size. Previous contents of `out` are ignored and `stream` is lengthened with padding. Memory
/// use is proportional to the stream's length, whatever `size` says.
pub fn decompress(stream: &mut Vec<u8>, out: &mut Vec<u8>, size: usize) -> Option<()> {
    let end = stream.len();
    if size > end.checked_mul(EXPANSION)? {
        return None;
    }
    // Padding makes every token complete; a truncated one is detected by where it ends.
    stream.resize(end + TOKEN, 0);
    out.resize(size + MARGIN, 0);
    let ended = decode(stream, end, out, size)?;
    out.truncate(size);
    (ended == (end, size)).then_some(())
}

/// Decodes the tokens that start before `end`. Returns the final position in both buffers.
fn decode(stream: &[u8], end: usize, out: &mut [u8], size: usize) -> Option<(usize, usize)> {
    let (mut from, mut to) = (0, 0);
    while from < end {
        let token: &[u8; TOKEN] = stream.get(from..from + TOKEN)?.try_into().ok()?;
        let control = usize::from(token[0]);
        let length;
        if control < 32 {
            length = control + 1;
            out.get_mut(to..to + 32)?.copy_from_slice(&token[1..]);
            from += 1 + length;
        } else {
            let long = usize::from(control >> 5 == 7);
            length = (control >> 5) + 2 + long * usize::from(token[1]);
            let distance = (((control & 31) << 8) | usize::from(token[1 + long])) + 1;
            from += 2 + long;
            again(out, to, to.checked_sub(distance)?, length)?;
        }
        to += length;
        if to > size {
            return None;
        }
    }
    Some((from, to))
}

/// Copies `length` bytes from position `from` to position `to`; the ranges may overlap.
#[inline(always)]
fn again(out: &mut [u8], to: usize, from: usize, length: usize) -> Option<()> {
    let distance = to - from;
    if length <= 8 {
        let (kept, times) = REPEAT[distance.min(8)];
        let found = u64::from_le_bytes(out.get(from..from + 8)?.try_into().ok()?);
        let repeated = (found & kept).wrapping_mul(times);
        out.get_mut(to..to + 8)?.copy_from_slice(&repeated.to_le_bytes());
    } else if to + length > out.len() {
        return None;
    } else if distance >= length {
        out.copy_within(from..from + length, to);
    } else {
        for place in to..to + length {
            out[place] = out[place - distance];
        }
    }
    Some(())
}

/// For each distance below 8, how to repeat that many bytes up to eight: a mask of the bytes to keep, and a
/// factor with a one at each position where they start again. From 8 on, all eight bytes are already there.
const REPEAT: [(u64, u64); 9] = {
    let mut repeat = [(u64::MAX, 1); 9];
    let mut distance = 1;
    while distance < 8 {
        let mut times = 0;
        let mut place = 0;
        while place < 8 {
            times |= 1 << (8 * place);
            place += distance;
        }
        repeat[distance] = ((1 << (8 * distance)) - 1, times);
        distance += 1;
    }
    repeat
};

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// Generates a stream of random tokens, and its plain bytes computed byte by byte.
    fn random(rng: &mut ChaCha8Rng, tokens: usize) -> (Vec<u8>, Vec<u8>) {
        let (mut stream, mut plain): (Vec<u8>, Vec<u8>) = (Vec::new(), Vec::new());
        for _ in 0..tokens {
            if plain.is_empty() || rng.random_bool(0.3) {
                let run: Vec<u8> = (0..rng.random_range(1..=32)).map(|_| rng.random()).collect();
                stream.push(run.len() as u8 - 1);
                stream.extend(&run);
                plain.extend(run);
            } else {
                let furthest = plain.len().min(1 << 13);
                let distance = if rng.random() { furthest.min(12) } else { furthest };
                let distance = rng.random_range(1..=distance);
                let length = if rng.random() { rng.random_range(3..=20) } else { rng.random_range(3..=264) };
                let (high, low) = (((distance - 1) >> 8) as u8, (distance - 1) as u8);
                match length {
                    3..9 => stream.push((length as u8 - 2) << 5 | high),
                    _ => stream.extend([7 << 5 | high, (length - 9) as u8]),
                }
                stream.push(low);
                (0..length).for_each(|_| plain.push(plain[plain.len() - distance]));
            }
        }
        (stream, plain)
    }

    fn decompressed(stream: &[u8], size: usize) -> Option<Vec<u8>> {
        let mut out = vec![0xaa; 100];
        decompress(&mut stream.to_vec(), &mut out, size).map(|()| out)
    }

    #[test]
    fn decodes_every_kind_of_token() {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        for tokens in (0..40).chain([1000, 5000]) {
            let (stream, plain) = random(&mut rng, tokens);
            assert!(decompressed(&stream, plain.len()).as_ref() == Some(&plain), "{tokens}");
            assert_eq!(decompressed(&stream, plain.len() + 1), None);
            assert_eq!(plain.len().checked_sub(1).and_then(|less| decompressed(&stream, less)), None);
            if let Some((_, short)) = stream.split_last() {
                assert_eq!(decompressed(short, plain.len()), None);
            }
        }
    }

    #[test]
    fn damaged_streams_never_panic() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for round in 0..20_000 {
            let (mut stream, plain) = random(&mut rng, 1 + round % 50);
            for _ in 0..rng.random_range(1..4) {
                let place = rng.random_range(0..stream.len());
                stream[place] = rng.random();
            }
            stream.truncate(rng.random_range(0..=stream.len()));
            let found = decompressed(&stream, plain.len());
            assert!(found.is_none_or(|found| found.len() == plain.len()));
        }
        // Pure noise, and sizes that no stream of that length can decode to.
        for length in 0..2000 {
            let noise: Vec<u8> = (0..length).map(|_| rng.random()).collect();
            decompressed(&noise, rng.random_range(0..4000));
            assert_eq!(decompressed(&noise, usize::MAX), None);
            assert_eq!(decompressed(&noise, length * EXPANSION + 1), None);
        }
    }
}
