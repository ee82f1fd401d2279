//! Opening zip archives: checkpoints, `.npz` files and releases of data.

use std::io::{Read, Seek};

use zip::ZipArchive;
use zip::read::{ArchiveOffset, Config};
use zip::result::ZipResult;

/// Opens an archive that begins with its first byte.
///
/// Without being told, the library guesses where the archive begins from the place of its directory. It guesses wrong if a
/// 64-bit end record of 76 bytes follows a directory whose first entry is as long, as in a checkpoint of PyTorch whose file name
/// has 21 characters.
///
/// # Errors
/// If it is no zip archive, or damaged.
pub(crate) fn open<R: Read + Seek>(reader: R) -> ZipResult<ZipArchive<R>> {
    ZipArchive::with_config(Config { archive_offset: ArchiveOffset::Known(0) }, reader)
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use super::*;

    /// An archive as PyTorch writes it: 64-bit end records in front of the usual one.
    fn archive(first: &str) -> Vec<u8> {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for name in [first, "checkpoint/version"] {
            zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
            zip.write_all(name.as_bytes()).unwrap();
        }
        let mut bytes = zip.finish().unwrap().into_inner();
        let end = bytes.len() - 22;
        let field = |from: usize, length: usize| bytes[end + from..end + from + length].to_vec();
        let wide = |field: Vec<u8>| [field.as_slice(), &vec![0; 8 - field.len()]].concat();
        let (count, size, start) = (wide(field(10, 2)), wide(field(12, 4)), wide(field(16, 4)));
        let record = [
            b"PK\x06\x06".as_slice(),
            &44u64.to_le_bytes(),
            &[30, 3, 45, 0],
            &[0; 8],
            &count,
            &count,
            &size,
            &start,
        ];
        let locator = [b"PK\x06\x07".as_slice(), &[0; 4], &(end as u64).to_le_bytes(), &1u32.to_le_bytes()];
        let both = [record.concat(), locator.concat()].concat();
        assert_eq!(both.len(), 76);
        bytes.splice(end..end, both);
        bytes
    }

    #[test]
    fn archives_open_whatever_the_length_of_their_first_name() {
        for length in 20..40 {
            let name = format!("{}/data.pkl", "n".repeat(length - 9));
            let mut zip = open(Cursor::new(archive(&name))).unwrap();
            let mut text = String::new();
            zip.by_name(&name).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!((zip.len(), text), (2, name));
        }
    }
}
