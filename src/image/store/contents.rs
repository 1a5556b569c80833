//! What an image consists of: the objects of its layers, or where a layer's record is lost, of its composefs image.

use super::parts::Parts;
use super::parts::layers::Layers;
use super::parts::objects::StoredObjects;
use super::{ImageRecord, StoreError};
use crate::image::composefs::{self, ImageError};
use crate::image::verity::VerityDigest;
use crate::oci::digest::Digest;

/// The parts of a store that hold the contents of images.
#[derive(Debug, Clone, Copy)]
pub(super) struct Contents<'a> {
    layers: &'a Layers,
    objects: &'a StoredObjects,
}

impl Parts {
    pub(super) fn contents(&self) -> Contents<'_> {
        Contents { layers: &self.layers, objects: &self.objects }
    }
}

impl Contents<'_> {
    /// Every object of an image's layers, and its composefs images; some more than once. Where a layer's
    /// record is lost, those that its composefs image names: all that a mount needs.
    pub(super) fn each_object(
        &self,
        record: &ImageRecord,
        mut visit: impl FnMut(VerityDigest, u64),
    ) -> Result<(), StoreError> {
        for image in record.images() {
            visit(image.image, image.image_size);
        }
        for layer in &record.layers {
            match self.each_object_of_layer(layer, &mut visit) {
                // It names the objects of all layers, so those of the others come twice.
                Err(error) if error.is_lost_record() => self.each_object_of_composefs(record, &mut visit)?,
                done => done?,
            }
        }
        Ok(())
    }

    /// Every object that a layer names; some more than once.
    pub(super) fn each_object_of_layer(
        &self,
        diff_id: &Digest,
        visit: impl FnMut(VerityDigest, u64),
    ) -> Result<(), StoreError> {
        self.layers.each_object(diff_id, visit)
    }

    /// Every object that an image's composefs image names.
    pub(super) fn each_object_of_composefs(
        &self,
        record: &ImageRecord,
        mut visit: impl FnMut(VerityDigest, u64),
    ) -> Result<(), StoreError> {
        let named = self
            .named_by(&record.image)?
            .map_err(|source| StoreError::Composefs { manifest: record.manifest, source })?;
        for digest in named {
            visit(digest, self.objects.all().stat(&digest)?.map_or(0, |stat| stat.size));
        }
        Ok(())
    }

    /// The objects that a composefs image names: all that a mount of it reads. The inner error says that the file is
    /// no such image.
    pub(super) fn named_by(
        &self,
        image: &VerityDigest,
    ) -> Result<Result<Vec<VerityDigest>, ImageError>, StoreError> {
        let path = self.objects.path(image);
        let bytes = std::fs::read(&path).map_err(|error| self.objects.error("read", &path, error))?;
        Ok(composefs::list_objects(&bytes))
    }

    /// Whether the store has the composefs image.
    pub(super) fn has_image(&self, image: &VerityDigest) -> Result<bool, StoreError> {
        Ok(self.objects.all().stat(image)?.is_some())
    }
}
