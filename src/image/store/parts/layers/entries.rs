//! Reading a layer record and its code.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use crate::image::entry::LayerEntry;
use crate::image::layer::record::{TAIL, stated_count};
use crate::image::layer::{RecordError, RecordReader};
use crate::image::store::error::StoreError;
use crate::image::store::key::{MAC_LENGTH, NodeKey};
use crate::oci::digest::Digest;

/// What the codes of layer records are made for.
pub(super) const DOMAIN: &str = "layer record";

/// The entries of a layer. They are proven whole only once the iterator has ended without an error.
#[derive(Debug)]
pub struct LayerEntries {
    diff_id: Digest,
    path: PathBuf,
    reader: RecordReader<io::Take<File>>,
    mac: [u8; MAC_LENGTH],
    key: NodeKey,
}

/// What a layer's record says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerSize {
    /// Its entries.
    pub entries: u64,
    /// Bytes of the record.
    pub bytes: u64,
}

/// The size of the record in `file`.
pub(super) fn size(file: &File) -> io::Result<LayerSize> {
    let bytes = file.metadata()?.len();
    let end = bytes.saturating_sub(MAC_LENGTH as u64);
    let mut tail = vec![0; TAIL.min(usize::try_from(end).unwrap_or(TAIL))];
    let start = end - tail.len() as u64;
    file.read_exact_at(&mut tail, start)?;
    // The shortest entry has some 16 bytes. A record without a number is refused when it is read.
    Ok(LayerSize { entries: stated_count(&tail).unwrap_or(bytes / 16).min(bytes), bytes })
}

impl LayerEntries {
    pub(super) fn open(
        file: File,
        path: PathBuf,
        diff_id: Digest,
        key: &NodeKey,
    ) -> Result<Self, StoreError> {
        let fail = |source: RecordError| StoreError::Layer { diff_id, source };
        let length = file.metadata().map_err(|error| fail(error.into()))?.len();
        // In a file that is too short for the code, the record is too short as well, which its reader finds.
        let record = length.saturating_sub(MAC_LENGTH as u64);
        let mut mac = [0; MAC_LENGTH];
        if record > 0 {
            file.read_exact_at(&mut mac, record).map_err(|error| fail(error.into()))?;
        }
        let reader = RecordReader::new(file.take(record)).map_err(fail)?;
        Ok(Self { diff_id, path, reader, mac, key: key.clone() })
    }

    /// Checks the code of a record that has ended well.
    fn authenticate(&self) -> Result<(), StoreError> {
        let authentic = self.reader.checksum().is_some_and(|checksum| {
            self.key.verify(DOMAIN, &[self.diff_id.as_bytes(), &checksum], &self.mac)
        });
        if authentic {
            Ok(())
        } else {
            Err(StoreError::unauthentic(&self.path, format!("the record of layer {}", self.diff_id)))
        }
    }
}

impl Iterator for LayerEntries {
    type Item = Result<LayerEntry, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.has_ended() {
            return None;
        }
        let fail = |source| StoreError::Layer { diff_id: self.diff_id, source };
        match self.reader.next() {
            Some(entry) => Some(entry.map_err(fail)),
            None => self.authenticate().err().map(Err),
        }
    }
}
