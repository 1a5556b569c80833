//! What images are judged by at every mount: `dossiers/<manifest hex>/<hash of the origin>.json`.
//!
//! One file per origin from which the image came, since signatures are found where an image is found, and no origin may
//! spoil what another said. The content is [`crate::pull`]'s, and worth nothing until it is verified: unlike the
//! store's own records it carries no code of the node's key.

use std::path::PathBuf;

use crate::image::store::disk::Disk;
use crate::image::store::error::StoreError;
use crate::image::store::file_name::json_of;
use crate::image::store::lock::Lease;
use crate::oci::digest::Digest;

/// The evidence of a store's images.
#[derive(Debug)]
pub struct EvidenceStore {
    disk: Disk,
    directory: PathBuf,
}

impl EvidenceStore {
    pub(in crate::image::store) const DIRECTORY: &str = "dossiers";

    pub(in crate::image::store) fn new(disk: &Disk) -> Self {
        Self { disk: disk.clone(), directory: disk.root().join(Self::DIRECTORY) }
    }

    /// The evidence of an image at an origin.
    ///
    /// # Errors
    /// Those of reading a file.
    pub fn get(&self, manifest: &Digest, origin: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.disk.read(&self.of(manifest).join(file_name(origin)))
    }

    /// Keeps the evidence of an image at an origin, replacing an older one; it survives a power cut. The lease
    /// keeps away the sweep, which removes the evidence of images that are not here.
    ///
    /// # Errors
    /// Those of writing a file.
    pub fn put(
        &self,
        _lease: &Lease,
        manifest: &Digest,
        origin: &str,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        self.disk.write_durably_in(&self.of(manifest), &file_name(origin), bytes)
    }

    /// Removes the evidence of images that are gone. Needs the store's exclusive lock.
    pub(in crate::image::store) fn sweep(
        &self,
        has_image: impl Fn(&Digest) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        self.disk.remove_directories_unless(&self.directory, has_image)
    }

    fn of(&self, manifest: &Digest) -> PathBuf {
        self.directory.join(manifest.hex())
    }
}

fn file_name(origin: &str) -> String {
    json_of(&Digest::of(origin.as_bytes()))
}
