//! Examining: whether objects still hold what their names say, read in full.
//!
//! Where the store seals, the kernel checks what it reads from the disk, so a bad block shows as a read error;
//! elsewhere only the hash over the content tells. Pages that are cached count as read: what the disk holds
//! below them is seen when they are read again.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::{ImageRecord, Store, StoreError};
use crate::image::objects::Corruption;
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
        let _lease = self.lease_blocking()?;
        let mut owners: BTreeMap<VerityDigest, Vec<Digest>> = BTreeMap::new();
        for image in images {
            self.parts.contents().each_object(image, |digest, _| {
                let manifests = owners.entry(digest).or_default();
                if manifests.last() != Some(&image.manifest) {
                    manifests.push(image.manifest);
                }
            })?;
        }
        let work: Vec<_> = owners.into_iter().collect();
        let (next, found) = (AtomicUsize::new(0), Mutex::new(Ok(Examined::default())));
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some((digest, manifests)) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let answer = self.parts.objects.all().examine(digest);
                        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                        match (&mut *found, answer) {
                            (Ok(found), Ok((bytes, damage))) => {
                                found.objects += 1;
                                found.bytes += bytes;
                                if let Some(damage) = damage {
                                    found.damaged.insert(*digest, (damage, manifests.clone()));
                                }
                            }
                            (found @ Ok(_), Err(error)) => {
                                *found = Err(error.into());
                                return;
                            }
                            (Err(_), _) => return,
                        }
                    }
                });
            }
        });
        found.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// [`Objects::examine`](crate::image::objects::Objects::examine) under a lease.
    ///
    /// # Errors
    /// The same.
    pub fn examine_object(&self, digest: &VerityDigest) -> Result<Option<Corruption>, StoreError> {
        let _lease = self.lease_blocking()?;
        Ok(self.parts.objects.all().examine(digest)?.1)
    }

    /// Objects that images in the store name and that are not there. Blocking; looks at every object once.
    ///
    /// # Errors
    /// Those of reading records and of looking at files.
    pub fn missing_objects(&self) -> Result<Vec<VerityDigest>, StoreError> {
        let _lease = self.lease_blocking()?;
        let mut named = BTreeSet::new();
        for image in self.parts.images.list()?.images {
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
        let _lease = self.lease_blocking()?;
        let mut having = Vec::new();
        for image in self.parts.images.list()?.images {
            let mut has = false;
            self.parts.contents().each_object(&image.record, |digest, _| has |= digest == *object)?;
            if has {
                having.push(image.record);
            }
        }
        Ok(having)
    }
}
