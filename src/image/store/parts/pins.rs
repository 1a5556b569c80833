//! Pins: `pins/<manifest hex>`, an empty file for each image that the operator keeps.

use std::path::PathBuf;

use crate::image::store::disk::Disk;
use crate::image::store::error::StoreError;
use crate::image::store::file_name::{digest_of, is_digest};
use crate::image::store::hold::Hold;
use crate::image::store::image_record::ImageRecord;
use crate::oci::digest::Digest;

/// The pins of a store.
#[derive(Debug)]
pub struct Pins {
    disk: Disk,
    directory: PathBuf,
}

impl Pins {
    pub(in crate::image::store) const DIRECTORY: &str = "pins";

    pub(in crate::image::store) fn new(disk: &Disk) -> Self {
        Self { disk: disk.clone(), directory: disk.root().join(Self::DIRECTORY) }
    }

    /// Keeps the image until [`Pins::remove`], whatever happens; durably. `image` was read after it was noted in
    /// the hold, which keeps it from being removed before it is pinned.
    ///
    /// # Errors
    /// Those of writing a file.
    pub(in crate::image::store) fn add(&self, _hold: &Hold, image: &ImageRecord) -> Result<(), StoreError> {
        self.disk.write_durably(&self.path(&image.key()), b"")
    }

    /// Lets the image go when nothing else needs it; durably. Returns whether it was pinned.
    ///
    /// # Errors
    /// Those of removing a file.
    pub fn remove(&self, manifest: &Digest) -> Result<bool, StoreError> {
        let was_pinned = self.disk.remove(&self.path(manifest))?;
        self.disk.sync_directory(&self.directory)?;
        Ok(was_pinned)
    }

    /// The manifests of the pinned images.
    ///
    /// # Errors
    /// Those of reading the directory.
    pub fn list(&self) -> Result<Vec<Digest>, StoreError> {
        let names = self.disk.files(&self.directory, |name| is_digest(name, &[""]))?;
        Ok(names.iter().filter_map(|name| digest_of(name, "")).collect())
    }

    /// Whether the image is pinned.
    ///
    /// # Errors
    /// Those of reading a directory.
    pub fn contains(&self, manifest: &Digest) -> Result<bool, StoreError> {
        Ok(self.list()?.contains(manifest))
    }

    fn path(&self, manifest: &Digest) -> PathBuf {
        self.directory.join(manifest.hex())
    }
}
