//! Writing a layer record and its code.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::blobs::BlobLinks;
use super::entries::DOMAIN;
use crate::durable_file::Temporary;
use crate::image::layer::record::CHECKSUM_LENGTH;
use crate::image::store::disk::Disk;
use crate::image::store::error::StoreError;
use crate::image::store::held::Held;
use crate::image::store::hold::Hold;
use crate::image::store::key::NodeKey;
use crate::oci::digest::Digest;

/// A layer record being written.
#[derive(Debug)]
pub struct StagedLayer<'a> {
    disk: &'a Disk,
    key: &'a NodeKey,
    staging: &'a Path,
    blobs: &'a BlobLinks,
    hold: &'a Hold,
    temporary: Temporary,
}

impl Write for StagedLayer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.disk.room().take(bytes.len() as u64);
        room.map_err(|short| io::Error::new(io::ErrorKind::StorageFull, short))?;
        self.temporary.file().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> StagedLayer<'a> {
    /// A record that is going to `staging`, and to `blobs` as what a blob contains.
    pub(super) fn new(
        disk: &'a Disk,
        key: &'a NodeKey,
        staging: &'a Path,
        blobs: &'a BlobLinks,
        hold: &'a Hold,
    ) -> Result<Self, StoreError> {
        Ok(Self { disk, key, staging, blobs, hold, temporary: disk.temporary()? })
    }

    /// Authenticates the record and names it by the DiffID computed over the stream, to which the verified `blob`
    /// (which may be the same) was decompressed. Every object it names has been stored.
    ///
    /// # Errors
    /// Those of reading, renaming and writing a file.
    pub fn finish(mut self, diff_id: &Digest, blob: &Digest) -> Result<(), StoreError> {
        let Self { disk, staging, blobs, .. } = self;
        // The sweep removes empty directories of this boot too, so it may have to be made again.
        disk.step("make", staging, || fs::create_dir_all(staging))?;
        self.authenticate(diff_id)?;
        // Before it is there: from then on the record keeps its objects.
        self.hold.keep_blocking(&[Held::Layer(*diff_id)])?;
        // Also where there is a record already: this one is known to be good, and it is found first.
        self.temporary.rename(&staging.join(diff_id.hex())).map_err(|error| disk.failed(error))?;
        if blobs.get(blob)? != Some(*diff_id) {
            blobs.set(blob, diff_id)?;
        }
        Ok(())
    }

    /// Appends the code. A record ends with its checksum.
    fn authenticate(&mut self, diff_id: &Digest) -> Result<(), StoreError> {
        let (key, path) = (self.key, self.temporary.path().to_owned());
        let file = self.temporary.file();
        let append = || {
            let end = file.metadata()?.len();
            let mut checksum = [0; CHECKSUM_LENGTH];
            file.read_exact_at(&mut checksum, end.saturating_sub(CHECKSUM_LENGTH as u64))?;
            let mac = key.mac(DOMAIN, &[diff_id.as_bytes(), &checksum]);
            file.write_all(&mac)
        };
        self.disk.step("authenticate", &path, append)
    }
}
