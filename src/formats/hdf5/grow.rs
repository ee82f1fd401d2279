//! Writing a file of one-dimensional datasets that grow block by block, so that they need not fit into memory.

use std::path::{Path, PathBuf};

use hdf5_pure::{AttrValue, File, FileAccessProperties, FileBuilder, MaxExtent, SyncPolicy};

use super::Dtype;
use crate::Result;
use crate::error::AtPath;

/// A dataset to grow.
#[derive(Debug, Clone, Copy)]
pub struct Column<'a> {
    pub name: &'a str,
    pub dtype: Dtype,
    /// Elements that are compressed together.
    pub chunk: usize,
}

/// A file under way.
pub struct Growing {
    path: PathBuf,
    file: File,
}

impl Growing {
    /// A new file with a text attribute of the root, datasets of bytes that are known already, and empty ones to grow.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn create(
        path: &Path,
        attribute: (&str, &str),
        bytes: &[(&str, &[u8])],
        grow: &[Column],
    ) -> Result<Self> {
        let mut builder = FileBuilder::new();
        builder.set_attr(attribute.0, AttrValue::String(attribute.1.to_owned()));
        for (name, bytes) in bytes {
            builder.create_dataset(name).with_u8_data(bytes);
        }
        for Column { name, dtype, chunk } in grow {
            builder
                .create_dataset(name)
                .with_raw_data(dtype.stored(), Vec::new(), 0)
                .with_shape(&[0])
                .with_maxshape(&[MaxExtent::Unlimited])
                .with_chunks(&[*chunk as u64])
                .with_shuffle()
                .with_lzf()
                .with_fletcher32();
        }
        builder.write(path).at(path)?;
        // The caller sees to it that the file is on the disk before anybody can take it for whole.
        let properties = FileAccessProperties::new().with_sync_policy(SyncPolicy::OnClose);
        let file = File::open_rw_with_options(path, properties).at(path)?;
        Ok(Growing { path: path.to_owned(), file })
    }

    /// Opens one of the growing datasets; [`Growing::append`] takes it.
    ///
    /// # Errors
    /// Where there is no such dataset.
    pub fn column(&self, name: &str) -> Result<GrowingColumn> {
        Ok(GrowingColumn { path: self.path.clone(), dataset: self.file.dataset(name).at(&self.path)? })
    }

    /// Brings everything to the disk.
    ///
    /// # Errors
    /// Where that fails.
    pub fn close(self) -> Result<()> {
        self.file.close().at(&self.path)
    }
}

/// A dataset that grows.
pub struct GrowingColumn {
    path: PathBuf,
    dataset: hdf5_pure::Dataset,
}

impl GrowingColumn {
    /// Appends plain numbers, little-endian: whole chunks, but for the last time.
    ///
    /// # Errors
    /// Where the disk is full.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.dataset.append_raw(bytes).at(&self.path)
    }
}
