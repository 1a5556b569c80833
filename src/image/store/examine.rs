//! Examining: whether objects still hold what their names say, read in full.
//!
//! The kernel checks objects with fs-verity as it reads them from the disk, so a bad block shows as a read error;
//! without it only the hash over the content tells. Cached pages count as read: what the disk holds
//! below them is seen when they are read again.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::{Held, ImageRecord, Store, StoreError};
use crate::image::objects::{Corruption, Objects};
use crate::image::verity::VerityDigest;
use crate::oci::digest::Digest;

/// What an examination found.
#[derive(Debug, Default)]
pub struct Examined {
    /// Objects read.
    pub objects: usize,
    /// Bytes read.
    pub bytes: u64,
    /// The damaged ones, and the manifests of the images that have them.
    pub damaged: BTreeMap<VerityDigest, (Corruption, Vec<Digest>)>,
}

impl Store {
    /// Reads every object of these images once, on all processors, and names the damaged ones. Blocking, for
    /// as long as reading the images takes. Memory: some 100 bytes per object.
    ///
    /// # Errors
    /// Those of reading records, and of opening files. What is damaged is part of the answer.
    pub fn examine(&self, images: &[ImageRecord]) -> Result<Examined, StoreError> {
        let hold = self.hold();
        hold.keep_blocking(&images.iter().flat_map(Held::of).collect::<Vec<_>>())?;
        let mut owners: BTreeMap<VerityDigest, Vec<Digest>> = BTreeMap::new();
        for image in images {
            self.parts.contents().each_object(image, |digest, _| {
                let manifests = owners.entry(digest).or_default();
                if manifests.last() != Some(&image.manifest) {
                    manifests.push(image.manifest);
                }
            })?;
        }
        examine_all(self.parts.objects.all(), &owners.into_iter().collect::<Vec<_>>())
    }

    /// Reads one object in full and says what is wrong with it, if anything. Blocking.
    ///
    /// # Errors
    /// It could not be examined, which says nothing about the object.
    pub fn examine_object(&self, digest: &VerityDigest) -> Result<Option<Corruption>, StoreError> {
        let hold = self.hold();
        hold.keep_blocking(&[Held::Object(*digest)])?;
        Ok(self.parts.objects.all().examine(digest)?.1)
    }

    /// Objects that images in the store name and that are not there. Blocking; looks at every object once.
    ///
    /// # Errors
    /// Those of reading records and of looking at files.
    pub fn missing_objects(&self) -> Result<Vec<VerityDigest>, StoreError> {
        let (_hold, listing) = self.hold_all_images()?;
        let mut named = BTreeSet::new();
        for image in listing.images {
            self.parts.contents().each_object(&image.record, |digest, _| {
                named.insert(digest);
            })?;
        }
        let mut missing = Vec::new();
        for digest in named {
            if self.parts.objects.all().stat(&digest)?.is_none() {
                missing.push(digest);
            }
        }
        Ok(missing)
    }

    /// The images that have `object`. Blocking; reads layer records until one names it, image by image.
    ///
    /// # Errors
    /// Those of reading records.
    pub fn images_with(&self, object: &VerityDigest) -> Result<Vec<ImageRecord>, StoreError> {
        let (_hold, listing) = self.hold_all_images()?;
        let mut having = Vec::new();
        for image in listing.images {
            let mut has = false;
            self.parts.contents().each_object(&image.record, |digest, _| has |= digest == *object)?;
            if has {
                having.push(image.record);
            }
        }
        Ok(having)
    }
}

/// Examines the objects on all processors; each comes with the images that have it.
fn examine_all(objects: &Objects, work: &[(VerityDigest, Vec<Digest>)]) -> Result<Examined, StoreError> {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Ok(Examined::default())));
    let examine = || {
        while let Some((digest, manifests)) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
            let answer = objects.examine(digest);
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            match (&mut *found, answer) {
                (Ok(found), Ok((bytes, corruption))) => {
                    found.objects += 1;
                    found.bytes += bytes;
                    if let Some(corruption) = corruption {
                        found.damaged.insert(*digest, (corruption, manifests.clone()));
                    }
                }
                // The first error is the answer, and ends every thread.
                (found @ Ok(_), Err(error)) => {
                    *found = Err(error.into());
                    return;
                }
                (Err(_), _) => return,
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, NonZero::get) {
            scope.spawn(examine);
        }
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}
