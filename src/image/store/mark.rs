//! The mark phase: everything that image records, and layers on their way to one, reach.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use super::layout::digest_of;
use super::{ImageRecord, Store, StoreError};
use crate::image::composefs;
use crate::image::entry::EntryKind;
use crate::image::verity::VerityDigest;
use crate::kind::Kind;
use crate::oci::digest::Digest;

/// What must stay. It only grows. Memory: some 50 bytes per object.
#[derive(Debug, Default)]
pub(super) struct Reach {
    objects: HashSet<VerityDigest>,
    layers: HashSet<Digest>,
    images: HashSet<Digest>,
}

impl Reach {
    pub(super) fn has_object(&self, digest: &VerityDigest) -> bool {
        self.objects.contains(digest)
    }

    pub(super) fn has_layer(&self, diff_id: &Digest) -> bool {
        self.layers.contains(diff_id)
    }

    /// Adds what is reached by the image records there are; those known already cost nothing.
    ///
    /// # Errors
    /// [`StoreError::Blocked`] if any of them, or a layer of theirs, cannot be read. The others
    /// have been added.
    pub(super) fn add_images(&mut self, store: &Store) -> Result<(), StoreError> {
        let listing = store.images()?;
        let mut unknown: Vec<_> = listing.unreadable.iter().map(StoreError::to_string).collect();
        for image in &listing.images {
            if let Err(error) = self.add_image(store, &image.record) {
                unknown.push(format!("image {}: {error}", image.record.manifest));
            }
        }
        if unknown.is_empty() { Ok(()) } else { Err(StoreError::Blocked(unknown.join("; "))) }
    }

    fn add_image(&mut self, store: &Store, record: &ImageRecord) -> Result<(), StoreError> {
        if self.images.contains(&record.manifest) {
            return Ok(());
        }
        self.objects.insert(record.image);
        for layer in &record.layers {
            match self.add_layer(store, layer) {
                Err(error) if is_lost(&error) => {
                    tracing::warn!(%error, "keeping what the composefs image names");
                    store.each_object_of_composefs(record, |digest, _| self.add_object(digest))?;
                }
                added => added?,
            }
        }
        self.images.insert(record.manifest);
        Ok(())
    }

    /// Adds the staged layers of this boot that are younger than `grace`: the pull that failed a moment
    /// ago is about to be tried again.
    pub(super) fn add_staged(&mut self, store: &Store, grace: Duration) -> Result<(), StoreError> {
        let staging = store.layout.staging();
        for name in store.disk.list(&staging)? {
            let Some(diff_id) = digest_of(&name, "") else { continue };
            let modified = std::fs::metadata(staging.join(&name)).and_then(|metadata| metadata.modified());
            let Ok(modified) = modified else { continue };
            let age = SystemTime::now().duration_since(modified).unwrap_or_default();
            if age < grace {
                self.add_layer(store, &diff_id)?;
            }
        }
        Ok(())
    }

    fn add_object(&mut self, digest: VerityDigest) {
        self.objects.insert(digest);
    }

    fn add_layer(&mut self, store: &Store, diff_id: &Digest) -> Result<(), StoreError> {
        if self.layers.contains(diff_id) {
            return Ok(());
        }
        store.each_object_of_layer(diff_id, |digest, _| self.add_object(digest))?;
        self.layers.insert(*diff_id);
        Ok(())
    }
}

/// Whether a layer's record will never be read again: damaged or gone.
pub(super) fn is_lost(error: &StoreError) -> bool {
    matches!(error.kind(), Kind::Corrupt | Kind::NotFound)
}

impl Store {
    /// Every object of an image's layers, and its composefs image; some more than once. Where a layer's
    /// record is lost, those that its composefs image names: all that a mount needs.
    pub(super) fn each_object(
        &self,
        record: &ImageRecord,
        mut visit: impl FnMut(VerityDigest, u64),
    ) -> Result<(), StoreError> {
        visit(record.image, record.image_size);
        for layer in &record.layers {
            match self.each_object_of_layer(layer, &mut visit) {
                Err(error) if is_lost(&error) => self.each_object_of_composefs(record, &mut visit)?,
                done => done?,
            }
        }
        Ok(())
    }

    pub(super) fn each_object_of_layer(
        &self,
        diff_id: &Digest,
        mut visit: impl FnMut(VerityDigest, u64),
    ) -> Result<(), StoreError> {
        for entry in self.layer(diff_id)? {
            if let EntryKind::Object(digest, size) = entry?.kind {
                visit(digest, size);
            }
        }
        Ok(())
    }

    fn each_object_of_composefs(
        &self,
        record: &ImageRecord,
        mut visit: impl FnMut(VerityDigest, u64),
    ) -> Result<(), StoreError> {
        let path = self.objects.path(&record.image);
        let image = std::fs::read(&path).map_err(|error| self.disk.error("read", &path, error))?;
        let named = composefs::list_objects(&image)
            .map_err(|source| StoreError::Composefs { manifest: record.manifest, source })?;
        for digest in named {
            visit(digest, self.objects.stat(&digest)?.map_or(0, |stat| stat.size));
        }
        Ok(())
    }
}
