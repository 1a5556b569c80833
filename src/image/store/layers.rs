//! Layer records: by the DiffID computed here, staged until the image's sync has covered them.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;

use super::disk::Temp;
use super::{Lease, Store, StoreError};
use crate::image::digest::Digest;
use crate::image::layer::RecordReader;
use crate::image::layer::entry::Entry;

impl Store {
    /// The DiffID of a compressed blob that was ingested before, if the layer's record (and so every
    /// object that it names) is still here. The caller holds a lease.
    ///
    /// # Errors
    /// Those of reading files.
    pub fn known_layer(&self, blob: &Digest) -> Result<Option<Digest>, StoreError> {
        let Some(diff_id) = self.blob(blob)? else { return Ok(None) };
        Ok(self.layer_path(&diff_id)?.map(|_| diff_id))
    }

    /// The DiffID that `blob` was found to have.
    pub(super) fn blob(&self, blob: &Digest) -> Result<Option<Digest>, StoreError> {
        let bytes = self.disk.read(&self.layout.blob(blob))?;
        Ok(bytes.and_then(|bytes| parse_blob(&bytes, blob)))
    }

    /// Where the record of a layer is, synced or staged.
    pub(super) fn layer_path(&self, diff_id: &Digest) -> Result<Option<PathBuf>, StoreError> {
        // The staged one first: a commit may move it meanwhile, and then the other place has it.
        for path in [self.layout.staged(diff_id), self.layout.layer(diff_id)] {
            if path.try_exists().map_err(|error| self.disk.error("look for", &path, error))? {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }

    /// Reads a layer's entries as a stream. The caller holds a lease.
    ///
    /// # Errors
    /// [`StoreError::NoLayer`], and those of reading the record's head.
    pub fn layer(&self, diff_id: &Digest) -> Result<LayerEntries, StoreError> {
        for path in [self.layout.staged(diff_id), self.layout.layer(diff_id)] {
            match File::open(&path) {
                Ok(file) => {
                    let fail = |source| StoreError::Layer { diff_id: *diff_id, source };
                    let reader = RecordReader::new(file).map_err(fail)?;
                    return Ok(LayerEntries { diff_id: *diff_id, reader });
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(self.disk.error("open", &path, error)),
            }
        }
        Err(StoreError::NoLayer(*diff_id))
    }

    /// Starts a layer record. The objects that it names go through [`Store::objects`] under the same
    /// lease; dropped before [`StagedLayer::finish`], it leaves nothing.
    ///
    /// # Errors
    /// Those of creating a file.
    pub fn stage_layer<'a>(&'a self, lease: &'a Lease) -> Result<StagedLayer<'a>, StoreError> {
        Ok(StagedLayer { store: self, _lease: lease, temp: self.disk.temp()? })
    }
}

/// The entries of a layer. They are proven whole only once the iterator has ended without an error.
#[derive(Debug)]
pub struct LayerEntries {
    diff_id: Digest,
    reader: RecordReader<File>,
}

impl Iterator for LayerEntries {
    type Item = Result<Entry, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let fail = |source| StoreError::Layer { diff_id: self.diff_id, source };
        self.reader.next().map(|entry| entry.map_err(fail))
    }
}

/// A layer record being written.
#[derive(Debug)]
pub struct StagedLayer<'a> {
    store: &'a Store,
    _lease: &'a Lease,
    temp: Temp,
}

impl Write for StagedLayer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.temp.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl StagedLayer<'_> {
    /// Gives the record its name: the DiffID computed over the stream, to which the verified `blob`
    /// (which may be the same) was decompressed. Every object it names has been stored.
    ///
    /// # Errors
    /// Those of renaming and of writing a file.
    pub fn finish(mut self, diff_id: &Digest, blob: &Digest) -> Result<(), StoreError> {
        let store = self.store;
        if store.layer_path(diff_id)?.is_none() {
            // The sweep removes empty directories of this boot too, so it may have to be made again.
            let staging = store.layout.staging();
            store.disk.step("make", &staging, || fs::create_dir_all(&staging))?;
            self.temp.rename(&store.disk, &store.layout.staged(diff_id))?;
        }
        if store.blob(blob)? != Some(*diff_id) {
            let line = format!("{blob} {diff_id}\n");
            store.disk.write_for_this_boot(&store.layout.blob(blob), line.as_bytes())?;
        }
        Ok(())
    }
}

/// `sha256:<blob> sha256:<diffid>`: the blob is repeated so that a block that a power cut left from
/// another file is not taken for the answer.
fn parse_blob(bytes: &[u8], blob: &Digest) -> Option<Digest> {
    let line = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
    let (about, diff_id) = line.split_once(' ')?;
    if about.parse() == Ok(*blob) { diff_id.parse().ok() } else { None }
}
