//! Committing an image: from "all its parts are written" to "it exists".
//!
//! ```text
//! digests/<manifest>.json       unless it is there already: compared, and then another digest is refused
//! syncfs                        objects and staged layer records are on disk
//! staging/* -> layers/, fsync   from here the layers outlive a reboot
//! images/<manifest>.json        temporary file, fsync, rename, fsync of the directory
//! dirty/<marker> removed        nothing unsynced is left of this hold
//! ```
//! A crash between two lines leaves layers without an image, which the next pull uses and the sweep
//! removes; never an image without its parts.

use super::parts::Parts;
use super::{Held, Hold, ImageRecord, Store, StoreError, Variant};
use crate::oci::digest::Digest;

impl Store {
    /// Makes the image exist. Its layers are staged or stored, its composefs images are objects, and
    /// all that was written under `hold`. Blocking: waits for the disk.
    ///
    /// Committing an image again replaces its record.
    ///
    /// # Errors
    /// [`StoreError::NoLayer`] and [`StoreError::NoObject`] if a part is missing, [`StoreError::OtherDigest`] if the
    /// image was another when it was first built here, [`StoreError::Unsound`] if the filesystem lost writes, and those
    /// of the steps above.
    pub fn commit_image(&self, hold: &Hold, record: &ImageRecord) -> Result<(), StoreError> {
        // Before they are looked for: what is found then stays until the record keeps it.
        let parts = record.layers.iter().copied().map(Held::Layer);
        hold.keep_blocking(&Held::of(record).into_iter().chain(parts).collect::<Vec<_>>())?;
        let Parts { layers, objects, images, .. } = &self.parts;
        for layer in &record.layers {
            if !layers.contains(layer)? {
                return Err(StoreError::NoLayer(*layer));
            }
        }
        for own in record.images() {
            self.check_image(&record.key(), &own)?;
        }
        let markers = objects.markers();
        // Listed before the sync, which covers only what was written before it.
        let covered = markers.abandoned()?;
        markers.sync_filesystem(&*hold.file()?)?;
        for layer in &record.layers {
            layers.keep(layer)?;
        }
        // Also when another commit did the moving: its own sync may not have come yet.
        layers.sync()?;
        images.write(record)?;
        markers.remove(covered.into_iter().chain(hold.take_marker()))
    }

    /// Adds another composefs image of the same layers to the record of an image that exists, and returns that record.
    /// What was written for it was written under `hold`. Blocking: waits for the disk.
    ///
    /// # Errors
    /// [`StoreError::NoImage`] if the image has gone, and those of [`Store::commit_image`].
    pub fn commit_variant(
        &self,
        hold: &Hold,
        manifest: &Digest,
        variant: Variant,
    ) -> Result<ImageRecord, StoreError> {
        hold.keep_blocking(&[Held::Manifest(*manifest), Held::Composefs(variant.image)])?;
        self.check_image(manifest, &variant)?;
        let markers = self.parts.objects.markers();
        let covered = markers.abandoned()?;
        markers.sync_filesystem(&*hold.file()?)?;
        let record = self.parts.images.add_variant(manifest, variant)?;
        markers.remove(covered.into_iter().chain(hold.take_marker()))?;
        Ok(record)
    }

    /// Makes durable what was fetched and made again, under `hold`, of an image that exists, and leaves its record as it is.
    /// Blocking: waits for the disk.
    ///
    /// # Errors
    /// [`StoreError::NoLayer`] if a layer has gone, and those of [`Store::commit_image`].
    pub fn commit_repair(&self, hold: &Hold, record: &ImageRecord) -> Result<(), StoreError> {
        let parts = record.layers.iter().copied().map(Held::Layer);
        hold.keep_blocking(&Held::of(record).into_iter().chain(parts).collect::<Vec<_>>())?;
        let markers = self.parts.objects.markers();
        let covered = markers.abandoned()?;
        markers.sync_filesystem(&*hold.file()?)?;
        for layer in &record.layers {
            self.parts.layers.keep(layer)?;
        }
        self.parts.layers.sync()?;
        markers.remove(covered.into_iter().chain(hold.take_marker()))
    }

    /// That a composefs image of `manifest` is there, and what it was when it was first built.
    fn check_image(&self, manifest: &Digest, image: &Variant) -> Result<(), StoreError> {
        if !self.parts.objects.all().contains(&image.image, image.image_size)? {
            return Err(StoreError::NoObject(*manifest));
        }
        self.parts.first_digests.compare(*manifest, image)
    }
}
