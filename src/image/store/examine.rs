//! Examining: whether objects still hold what their names say, read in full.
//!
//! The kernel checks objects with fs-verity as it reads them from the disk, so a bad block shows as a read error;
//! without it only the hash over the content tells. Cached pages count as read: what the disk holds
//! below them is seen when they are read again.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::contents::{Contents, Source};
use super::{Held, Hold, ImageRecord, Listing, Store, StoreError};
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
    /// as long as reading the images takes. Memory: some 70 bytes per object, whatever the number of images.
    ///
    /// # Errors
    /// Those of reading records, and of opening files. What is damaged is part of the answer.
    pub fn examine(&self, images: &[ImageRecord]) -> Result<Examined, StoreError> {
        let _hold = self.hold_to_look(&images.iter().flat_map(Held::of).collect::<Vec<_>>())?;
        let (contents, records) = (self.parts.contents(), images.iter().collect::<Vec<_>>());
        let work: Vec<VerityDigest> = named(contents, &records)?.into_iter().collect();
        let mut examined = examine_all(self.parts.objects.all(), &work)?;
        if examined.damaged.is_empty() {
            return Ok(examined);
        }
        // Who has them is asked only now, since usually there are none.
        let owners = Source::owners(contents, &records, |digest| examined.damaged.contains_key(digest))?;
        for (digest, images) in owners {
            if let Some((_, manifests)) = examined.damaged.get_mut(&digest) {
                manifests.extend(images.iter().filter_map(|index| records.get(*index)).map(|r| r.key()));
            }
        }
        Ok(examined)
    }

    /// Reads one object in full and says what is wrong with it, if anything. Blocking.
    ///
    /// # Errors
    /// It could not be examined, which says nothing about the object.
    pub fn examine_object(&self, digest: &VerityDigest) -> Result<Option<Corruption>, StoreError> {
        let hold = self.hold_to_look(&[Held::Object(*digest)])?;
        let examined = self.parts.objects.all().examine(digest);
        hold.inspect(Hold::has_made_nothing);
        Ok(examined?.1)
    }

    /// Objects that images in the store name and that are not there. Blocking; looks at every object once.
    ///
    /// # Errors
    /// Those of reading records and of looking at files.
    pub fn missing_objects(&self) -> Result<Vec<VerityDigest>, StoreError> {
        let (_hold, listing) = self.hold_all_images()?;
        let records: Vec<_> = listing.images.iter().map(|image| &image.record).collect();
        let named = named(self.parts.contents(), &records)?;
        let mut missing = Vec::new();
        for digest in named {
            if self.parts.objects.all().stat(&digest)?.is_none() {
                missing.push(digest);
            }
        }
        Ok(missing)
    }

    /// The images that have `object`. Blocking; reads every layer record once.
    ///
    /// # Errors
    /// Those of reading records.
    pub fn images_with(&self, object: &VerityDigest) -> Result<Vec<ImageRecord>, StoreError> {
        let (_hold, listing) = self.hold_all_images()?;
        self.images_with_any(listing, &BTreeSet::from([*object]))
    }

    /// The images that have any of `objects`. They are held, or nothing can be removed.
    pub(super) fn images_with_any(
        &self,
        listing: Listing,
        objects: &BTreeSet<VerityDigest>,
    ) -> Result<Vec<ImageRecord>, StoreError> {
        let records: Vec<_> = listing.images.into_iter().map(|image| image.record).collect();
        let borrowed: Vec<_> = records.iter().collect();
        let owners = Source::owners(self.parts.contents(), &borrowed, |digest| objects.contains(digest))?;
        let having: BTreeSet<usize> = owners.into_values().flatten().collect();
        Ok(having.into_iter().filter_map(|index| records.get(index).cloned()).collect())
    }
}

/// Every object of these images, once.
fn named(contents: Contents<'_>, records: &[&ImageRecord]) -> Result<BTreeSet<VerityDigest>, StoreError> {
    let mut named = BTreeSet::new();
    contents.each_object_of_all(records, |_, digest, _| {
        named.insert(digest);
    })?;
    Ok(named)
}

/// Examines the objects on all processors, and does not say yet which images have the damaged ones.
fn examine_all(objects: &Objects, work: &[VerityDigest]) -> Result<Examined, StoreError> {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Ok(Examined::default())));
    let examine = || {
        while let Some(digest) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
            let answer = objects.examine(digest);
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            match (&mut *found, answer) {
                (Ok(found), Ok((bytes, corruption))) => {
                    found.objects += 1;
                    found.bytes += bytes;
                    if let Some(corruption) = corruption {
                        found.damaged.insert(*digest, (corruption, Vec::new()));
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
