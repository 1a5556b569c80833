//! The mark phase: everything that image records, and layers on their way to one, need.

use std::collections::HashSet;
use std::time::Duration;

use super::contents::Contents;
use super::parts::images::Images;
use super::parts::layers::Layers;
use super::{ImageRecord, StoreError};
use crate::image::verity::VerityDigest;
use crate::oci::digest::Digest;

/// What must stay. It only grows. Memory: some 50 bytes per object.
#[derive(Debug, Default)]
pub(super) struct Marked {
    objects: HashSet<VerityDigest>,
    layers: HashSet<Digest>,
    images: HashSet<Digest>,
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
        self.objects.insert(record.image);
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
        self.images.insert(record.manifest);
        Ok(())
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
        self.layers.insert(*diff_id);
        Ok(())
    }
}
