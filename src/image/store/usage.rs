//! What images take on disk, alone and together. One pass over the layer records.

use serde::Serialize;

use super::{ImageRecord, Store, StoreError, sharing};
use crate::oci::digest::Digest;

/// What one image takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ImageUsage {
    /// Its key: [`ImageRecord::key`].
    pub manifest: Digest,
    /// Bytes of all objects of its layers and of its composefs image.
    pub total: u64,
    /// Bytes of those that no other image has: what removing it frees.
    pub alone: u64,
}

impl ImageUsage {
    /// Bytes that other images have, too.
    pub fn shared(&self) -> u64 {
        self.total - self.alone
    }
}

/// What the store takes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Usage {
    /// Each image, least recently used first.
    pub images: Vec<ImageUsage>,
    /// Objects in the store, of images or not.
    pub objects: u64,
    /// Disk space of all objects in bytes (allocated blocks).
    pub allocated: u64,
    /// Bytes that sharing saves: the totals of all images, less the bytes of their objects, each once.
    pub saved: u64,
}

impl Store {
    /// Measures every image and the whole store. Blocking; reads every layer record once and looks at every
    /// object. Memory: some 60 bytes per object.
    ///
    /// # Errors
    /// Those of reading records and directories; an image of a newer release is left out.
    pub fn usage(&self) -> Result<Usage, StoreError> {
        let (_hold, listing) = self.hold_all_images()?;
        let records: Vec<&ImageRecord> = listing.images.iter().map(|image| &image.record).collect();
        let unused = |record: &&ImageRecord| ImageUsage { manifest: record.key(), total: 0, alone: 0 };
        let mut usages: Vec<ImageUsage> = records.iter().map(unused).collect();
        let mut saved = 0_u64;
        for group in sharing::shared(self.parts.contents(), &records)?.groups {
            saved += group.bytes * (group.images.len() as u64).saturating_sub(1);
            let alone = if group.images.len() == 1 { group.bytes } else { 0 };
            for image in group.images {
                if let Some(usage) = usages.get_mut(image) {
                    usage.total += group.bytes;
                    usage.alone += alone;
                }
            }
        }
        let (objects, allocated) = self.parts.objects.total()?;
        Ok(Usage { images: usages, objects, allocated, saved })
    }
}
