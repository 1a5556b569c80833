//! Committing an image: from "all its parts are written" to "it exists".
//!
//! ```text
//! digests/<manifest>.json       unless it is there already: compared, and then another digest is refused
//! syncfs                        objects and staged layer records are on disk
//! staging/* -> layers/, fsync   from here the layers outlive a reboot
//! images/<manifest>.json        temporary file, fsync, rename, fsync of the directory
//! dirty/<marker> removed        nothing unsynced is left of this lease
//! ```
//! A crash between two lines leaves layers without an image, which the next pull uses and the sweep
//! removes; never an image without its parts.

use super::parts::first_digests::FirstDigests;
use super::parts::images::Images;
use super::parts::layers::Layers;
use super::parts::objects::StoredObjects;
use super::{ImageRecord, Lease, Store, StoreError};

impl Store {
    /// Makes the image exist. Its layers are staged or stored, its composefs image is an object, and
    /// all that was written under `lease`. Blocking: waits for the disk.
    ///
    /// Committing an image again replaces its record.
    ///
    /// # Errors
    /// [`StoreError::NoLayer`] and [`StoreError::NoObject`] if a part is missing, [`StoreError::OtherDigest`] if the
    /// image was another when it was first built here, [`StoreError::Unsound`] if the filesystem lost writes, and those
    /// of the steps above.
    pub fn commit_image(&self, lease: &Lease, record: &ImageRecord) -> Result<(), StoreError> {
        let parts = &self.parts;
        commit(&parts.layers, &parts.objects, &parts.first_digests, &parts.images, lease, record)
    }

    /// Keeps the image, whatever happens, until its pin is removed; durably.
    ///
    /// # Errors
    /// [`StoreError::NoImage`], and those of writing a file.
    pub fn pin(&self, manifest: &crate::oci::digest::Digest) -> Result<(), StoreError> {
        let lease = self.lease_blocking()?;
        let image = self.images().get(manifest)?.ok_or(StoreError::NoImage(*manifest))?;
        self.pins().add(&lease, &image)
    }
}

fn commit(
    layers: &Layers,
    objects: &StoredObjects,
    first_digests: &FirstDigests,
    images: &Images,
    lease: &Lease,
    record: &ImageRecord,
) -> Result<(), StoreError> {
    for layer in &record.layers {
        if !layers.contains(layer)? {
            return Err(StoreError::NoLayer(*layer));
        }
    }
    if !objects.all().contains(&record.image, record.image_size)? {
        return Err(StoreError::NoObject(record.manifest));
    }
    first_digests.compare(record)?;
    let markers = objects.markers();
    // Listed before the sync, which covers only what was written before it.
    let covered = markers.abandoned()?;
    markers.sync_filesystem(lease.file())?;
    for layer in &record.layers {
        layers.keep(layer)?;
    }
    // Also when another commit did the moving: its own sync may not have come yet.
    layers.sync()?;
    images.write(record)?;
    markers.remove(covered.into_iter().chain(lease.take_marker()))
}
