//! What an image consists of: the objects of its layers, or where a layer's record is lost, of its composefs image.

use std::collections::{BTreeMap, BTreeSet};

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

/// Where objects are named: a layer's record, or an image itself.
#[derive(Debug)]
pub(super) struct Source {
    /// Counts from 0 in the order in which they are read. One without objects is not seen.
    pub(super) number: usize,
    /// Whether it is the record of a layer, which is fetched again once it has gone.
    pub(super) is_layer: bool,
    /// The images that have it: indices of the list that was asked about.
    pub(super) images: Vec<usize>,
}

impl Parts {
    pub(super) fn contents(&self) -> Contents<'_> {
        Contents { layers: &self.layers, objects: &self.objects }
    }
}

impl Contents<'_> {
    /// Every object of these images: of their layers, each read once, and their composefs images; some more than once.
    /// Where a layer's record is lost, those that the composefs images name which were made of it: all that a mount needs.
    /// `visit` is told where the object is named. The caller holds the images. Blocking.
    pub(super) fn each_object_of_all(
        &self,
        records: &[&ImageRecord],
        mut visit: impl FnMut(&Source, VerityDigest, u64),
    ) -> Result<(), StoreError> {
        let mut layers: BTreeMap<Digest, Vec<usize>> = BTreeMap::new();
        let mut source = Source { number: 0, is_layer: false, images: Vec::new() };
        for (index, record) in records.iter().enumerate() {
            source.images = vec![index];
            for own in record.images() {
                visit(&source, own.image, own.image_size);
                source.number += 1;
            }
            for layer in BTreeSet::from_iter(&record.layers) {
                layers.entry(*layer).or_default().push(index);
            }
        }
        let mut lost = BTreeSet::new();
        source.is_layer = true;
        for (layer, images) in layers {
            source.images = images;
            match self.each_object_of_layer(&layer, |digest, size| visit(&source, digest, size)) {
                // Their composefs images name the objects of all layers, so those of the others come twice.
                Err(error) if error.is_lost_record() => lost.extend(source.images.iter().copied()),
                read => read?,
            }
            source.number += 1;
        }
        source.is_layer = false;
        for index in lost {
            let Some(record) = records.get(index) else { continue };
            source.images = vec![index];
            self.each_object_of_composefs(record, |digest, size| visit(&source, digest, size))?;
            source.number += 1;
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
            .map_err(|source| StoreError::Composefs { manifest: record.key(), source })?;
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
