//! The mark phase: everything that is needed.
//!
//! What an image record needs is in the records of its layers. What a mount, a volume record or a pin needs does not
//! depend on a record: a repair, a new node key or a torn record takes the image's record away, and the mount goes on
//! reading its objects. The composefs image lists them itself.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use super::contents::Contents;
use super::parts::Parts;
use super::parts::images::Images;
use super::parts::layers::Layers;
use super::parts::volumes::VolumeImage;
use super::{ImageRecord, StoreError};
use crate::image::composefs::ImageError;
use crate::image::verity::VerityDigest;
use crate::oci::digest::Digest;

/// What must stay. It only grows. Memory: some 50 bytes per object.
#[derive(Debug, Default)]
pub(super) struct Marked {
    objects: HashSet<VerityDigest>,
    layers: HashSet<Digest>,
    images: HashSet<Digest>,
    /// Composefs images all of whose objects are marked.
    composefs: HashSet<VerityDigest>,
}

impl Marked {
    pub(super) fn has_object(&self, digest: &VerityDigest) -> bool {
        self.objects.contains(digest)
    }

    pub(super) fn has_layer(&self, diff_id: &Digest) -> bool {
        self.layers.contains(diff_id)
    }

    /// Marks what the image records need; those marked already cost nothing.
    ///
    /// # Errors
    /// [`StoreError::Blocked`] if any of them, or a layer of theirs, cannot be read. The others
    /// have been marked.
    pub(super) fn add_images(&mut self, images: &Images, contents: Contents<'_>) -> Result<(), StoreError> {
        let listing = images.list()?;
        let mut unknown: Vec<_> = listing.unreadable.iter().map(StoreError::to_string).collect();
        for image in &listing.images {
            if let Err(error) = self.add_image(contents, &image.record) {
                unknown.push(format!("image {}: {error}", image.record.manifest));
            }
        }
        if unknown.is_empty() { Ok(()) } else { Err(StoreError::Blocked(unknown.join("; "))) }
    }

    fn add_image(&mut self, contents: Contents<'_>, record: &ImageRecord) -> Result<(), StoreError> {
        if self.images.contains(&record.manifest) {
            return Ok(());
        }
        self.objects.extend(record.images().map(|own| own.image));
        for layer in &record.layers {
            match self.add_layer(contents, layer) {
                // The next pull makes the layer's record anew; mounts need what the composefs image names.
                Err(error) if error.is_lost_record() => {
                    tracing::warn!(%error, "keeping what the composefs image names");
                    contents.each_object_of_composefs(record, |digest, _| self.add_object(digest))?;
                }
                added => added?,
            }
        }
        // Last: an image that failed half-way is tried again.
        self.images.insert(record.manifest);
        self.composefs.extend(record.images().map(|own| own.image));
        Ok(())
    }

    /// Marks what mounts need. Images that are not in this store belong to another store on this machine.
    ///
    /// # Errors
    /// [`StoreError::Blocked`] names a mounted image that cannot be read: what it needs is unknown.
    pub(super) fn add_mounted(
        &mut self,
        contents: Contents<'_>,
        mounted: &BTreeSet<VerityDigest>,
    ) -> Result<(), StoreError> {
        for image in mounted {
            if let Err(why) = self.add_composefs(contents, image)? {
                return Err(StoreError::Blocked(unreadable_mount(image, &why)));
            }
        }
        Ok(())
    }

    /// Marks what volume records and pins need of images that have no record.
    ///
    /// # Errors
    /// [`StoreError::Blocked`] if a volume record cannot be read, since it might name any image, or if the image that a
    /// volume shows has gone from the store.
    pub(super) fn add_kept(&mut self, parts: &Parts) -> Result<(), StoreError> {
        let mut unknown = Vec::new();
        let volumes = parts.volumes.list(&mut unknown)?;
        add_missing(parts, &volumes, &mut unknown)?;
        if !unknown.is_empty() {
            return Err(StoreError::Blocked(unknown.join("; ")));
        }
        let mut kept: BTreeSet<_> = volumes.iter().filter_map(|volume| volume.composefs).collect();
        for pin in parts.pins.list()? {
            kept.extend(parts.first_digests.images_of(&pin)?);
        }
        for image in kept {
            // Nothing shows it, or it would be among the mounted ones; so an image that is no good keeps nothing.
            if let Err(error) = self.add_composefs(parts.contents(), &image)? {
                tracing::warn!(composefs = %image, %error, "an image that is kept cannot be read");
            }
        }
        Ok(())
    }

    /// Marks a composefs image and what it names; once. The inner error says that it is no such image.
    fn add_composefs(
        &mut self,
        contents: Contents<'_>,
        image: &VerityDigest,
    ) -> Result<Result<(), ImageError>, StoreError> {
        if self.composefs.contains(image) || !contents.has_image(image)? {
            return Ok(Ok(()));
        }
        let named = match contents.named_by(image)? {
            Ok(named) => named,
            Err(error) => return Ok(Err(error)),
        };
        self.objects.extend(named);
        self.objects.insert(*image);
        self.composefs.insert(*image);
        Ok(Ok(()))
    }

    /// Marks the staged layers of this boot that are younger than `grace`: the pull that failed a moment
    /// ago is about to be tried again.
    pub(super) fn add_staged(
        &mut self,
        layers: &Layers,
        contents: Contents<'_>,
        grace: Duration,
    ) -> Result<(), StoreError> {
        for diff_id in layers.staged_within(grace)? {
            self.add_layer(contents, &diff_id)?;
        }
        Ok(())
    }

    fn add_object(&mut self, digest: VerityDigest) {
        self.objects.insert(digest);
    }

    fn add_layer(&mut self, contents: Contents<'_>, diff_id: &Digest) -> Result<(), StoreError> {
        if self.layers.contains(diff_id) {
            return Ok(());
        }
        contents.each_object_of_layer(diff_id, |digest, _| self.add_object(digest))?;
        // A lost record is not marked, so it goes: its image marks what mounts need.
        self.layers.insert(*diff_id);
        Ok(())
    }
}

/// Adds to `unknown` the images that volumes show and that the store has no more: a repair may have removed a damaged
/// one. What such a mount needs is listed nowhere until the image is pulled again.
pub(super) fn add_missing(
    parts: &Parts,
    volumes: &[VolumeImage],
    unknown: &mut Vec<String>,
) -> Result<(), StoreError> {
    for volume in volumes.iter().filter(|volume| parts.volumes.is_current(volume)) {
        if let Some(image) = volume.composefs
            && !parts.contents().has_image(&image)?
        {
            unknown.push(format!(
                "a volume shows image {image} of manifest {}, which is not in the store, so what it needs is unknown; \
                 pull the image again, or delete the pods that use it",
                volume.image
            ));
        }
    }
    Ok(())
}

/// Why a mounted image stops a collection.
pub(super) fn unreadable_mount(image: &VerityDigest, why: &ImageError) -> String {
    format!(
        "image {image} is mounted and cannot be read as an image ({why}), so what it needs is unknown; unmount it, or \
         pull the image again"
    )
}
