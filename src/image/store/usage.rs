//! What images take on disk, alone and together. One pass over the layer records.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde::Serialize;

use super::contents::Contents;
use super::parts::images::Images;
use super::space::Amount;
use super::{Store, StoreError};
use crate::image::verity::VerityDigest;
use crate::oci::digest::Digest;

/// Blocks that filesystems allocate files in, for estimates.
const BLOCK: u64 = 4096;

/// What one image takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ImageUsage {
    /// Its manifest.
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

struct Seen {
    size: u64,
    first: usize,
    last: usize,
    shared: bool,
}

impl Store {
    /// Measures every image and the whole store. Blocking; reads all layer records and looks at every
    /// object. Memory: some 80 bytes per object.
    ///
    /// # Errors
    /// Those of reading records and directories; an image of a newer release is left out.
    pub fn usage(&self) -> Result<Usage, StoreError> {
        let _lease = self.lease_blocking()?;
        let listing = self.parts.images.list()?;
        let mut usages = Vec::new();
        let mut seen: HashMap<VerityDigest, Seen> = HashMap::new();
        for (index, image) in listing.images.iter().enumerate() {
            let mut total = 0;
            self.parts.contents().each_object(&image.record, |digest, size| {
                let object = seen.entry(digest).or_insert_with(|| {
                    total += size;
                    Seen { size, first: index, last: index, shared: false }
                });
                // An image may name an object several times, and it counts once.
                if object.last != index {
                    total += size;
                    (object.last, object.shared) = (index, true);
                }
            })?;
            usages.push(ImageUsage { manifest: image.record.manifest, total, alone: 0 });
        }
        for object in seen.values().filter(|object| !object.shared) {
            if let Some(usage) = usages.get_mut(object.first) {
                usage.alone += object.size;
            }
        }
        let together = seen.values().map(|object| object.size).fold(0, u64::saturating_add);
        let apart = usages.iter().map(|usage| usage.total).fold(0, u64::saturating_add);
        let (objects, allocated) = self.parts.objects.total()?;
        Ok(Usage { images: usages, objects, allocated, saved: apart.saturating_sub(together) })
    }
}

/// What each image that is not `needed` frees when it goes after all those used less recently: the
/// objects that neither a needed image nor one used more recently has. The caller holds a lease.
pub(super) fn frees(
    images: &Images,
    contents: Contents<'_>,
    needed: &BTreeSet<Digest>,
) -> Result<HashMap<Digest, Amount>, StoreError> {
    let (keep, go): (Vec<_>, Vec<_>) = images
        .list()?
        .images
        .into_iter()
        .map(|image| image.record)
        .partition(|record| needed.contains(&record.manifest));
    let mut seen = HashSet::new();
    let mut frees = HashMap::new();
    // From the images that stay longest to the first that goes: an object counts where it is seen first.
    for record in keep.iter().chain(go.iter().rev()) {
        let mut own = Amount::default();
        contents.each_object(record, |digest, size| {
            if seen.insert(digest) {
                own += Amount { bytes: size.next_multiple_of(BLOCK), inodes: 1 };
            }
        })?;
        frees.insert(record.manifest, own);
    }
    Ok(frees)
}
