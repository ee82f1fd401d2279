//! Writes a file of one-dimensional datasets that grow block by block, so they need not fit into memory.

use std::path::{Path, PathBuf};

use hdf5_pure::{AttrValue, File, FileAccessProperties, FileBuilder, MaxExtent, SyncPolicy};

use super::Dtype;
use crate::Result;
use crate::error::AtPath;

/// Declares a dataset that will grow.
#[derive(Debug, Clone, Copy)]
pub struct Column<'a> {
    /// Name of the dataset in the root group.
    pub name: &'a str,
    /// Type of its elements.
    pub dtype: Dtype,
    /// Elements per chunk, which are compressed together.
    pub chunk: usize,
}

/// A file being written.
pub struct Growing {
    path: PathBuf,
    file: File,
}

impl Growing {
    /// Creates a file with a text attribute on the root group, byte datasets whose contents are given, and
    /// empty datasets to grow.
    ///
    /// # Errors
    /// If the file cannot be written.
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
        // The caller ensures that the file is synced before anyone can take it for complete.
        let properties = FileAccessProperties::new().with_sync_policy(SyncPolicy::OnClose);
        let file = File::open_rw_with_options(path, properties).at(path)?;
        Ok(Growing { path: path.to_owned(), file })
    }

    /// Opens one of the growing datasets, to be filled with [`GrowingColumn::append`].
    ///
    /// # Errors
    /// If there is no such dataset.
    pub fn column(&self, name: &str) -> Result<GrowingColumn> {
        Ok(GrowingColumn { path: self.path.clone(), dataset: self.file.dataset(name).at(&self.path)? })
    }

    /// Flushes everything to the disk.
    ///
    /// # Errors
    /// If writing fails.
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
    /// Appends plain little-endian numbers; every call but the last must append whole chunks.
    ///
    /// # Errors
    /// If writing fails, for example because the disk is full.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.dataset.append_raw(bytes).at(&self.path)
    }
}
