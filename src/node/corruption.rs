//! Corruption that the kernel detects while pods read: finds the object and the images that contain it.
//!
//! fs-verity and overlayfs report to the kernel log only, by inode number or by a part of the object's name.
//! [`CorruptionWatcher::investigate`] takes such a [`KernelReport`] as a hint, examines the objects that it can be
//! about, marks damaged ones in the store, which puts their images into quarantine, and keeps these in [`CorruptImages`] for
//! volume statistics. A report about a foreign file, or about an object that has been repaired since, has no effect.

mod message;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

pub use message::{KernelReport, parse};

use crate::image::store::{DamageMark, Store, StoreError};
use crate::image::verity::VerityDigest;

/// The composefs images that are known to be corrupt, and why. Clones share one map.
#[derive(Debug, Clone, Default)]
pub struct CorruptImages(Arc<RwLock<BTreeMap<VerityDigest, String>>>);

impl CorruptImages {
    /// What is wrong with an image, as a message.
    pub fn of(&self, image: &VerityDigest) -> Option<String> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(image).cloned()
    }

    /// The number of corrupt images.
    pub fn len(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether no image is known to be corrupt.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn replace(&self, all: BTreeMap<VerityDigest, String>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = all;
    }
}

/// Investigates the kernel's reports of corruption.
#[derive(Debug)]
pub struct CorruptionWatcher {
    store: Arc<Store>,
    corrupt_images: CorruptImages,
    /// Objects that are corrupt and were logged already, with what is wrong and the images that contain them: a reader that
    /// retries must not fill the log.
    reported: BTreeMap<VerityDigest, (String, Vec<VerityDigest>)>,
}

impl CorruptionWatcher {
    /// A watcher over the objects of `store`.
    pub fn new(store: Arc<Store>, corrupt_images: CorruptImages) -> Self {
        Self { store, corrupt_images, reported: BTreeMap::new() }
    }

    /// Finds the objects that a report can be about, examines them, and logs those that are corrupt, once each.
    /// Blocking: reads the objects in full.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn investigate(&mut self, complaint: &KernelReport) -> Result<(), StoreError> {
        let suspects = match complaint {
            KernelReport::Block { inode, .. } => self.store.objects().with_inode(*inode)?,
            KernelReport::Seal { name } => self.store.objects().with_last_digits(name),
            KernelReport::Lookup => self.store.missing_objects()?,
        };
        let position = match complaint {
            KernelReport::Block { position, .. } => Some(*position),
            KernelReport::Seal { .. } | KernelReport::Lookup => None,
        };
        self.examine(suspects, position)
    }

    /// Examines objects, and logs those that are corrupt, once each. Blocking: reads them in full.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn examine(
        &mut self,
        suspects: impl IntoIterator<Item = VerityDigest>,
        position: Option<u64>,
    ) -> Result<(), StoreError> {
        let mut found = BTreeMap::new();
        for object in suspects {
            match self.store.examine_object(&object)? {
                Some(damage) if !self.reported.contains_key(&object) => drop(found.insert(object, damage)),
                Some(_) => {}
                None => drop(self.reported.remove(&object)),
            }
        }
        if !found.is_empty() {
            // All at once: it takes reading every layer record.
            let marks = self.store.damage_of(&found)?;
            if let Err(error) = self.store.mark(&marks) {
                tracing::error!("damaged objects cannot be marked, and their images are given out: {error}");
            }
            marks.iter().for_each(|mark| self.report(mark, position));
        }
        self.publish();
        Ok(())
    }

    /// Whether any object is known to be corrupt.
    pub fn has_findings(&self) -> bool {
        !self.reported.is_empty()
    }

    /// Examines the corrupt objects again, also those that others have marked, and forgets those that were repaired. Blocking.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn recheck(&mut self) -> Result<(), StoreError> {
        let left = match self.store.recheck_damaged() {
            Ok(rechecked) => rechecked.left,
            Err(error) => {
                // A disk that cannot be written to: what is known here is examined all the same.
                tracing::warn!(%error, "the marks of damaged objects cannot be brought up to date");
                Vec::new()
            }
        };
        for mark in &left {
            if !self.reported.contains_key(&mark.object) {
                self.report(mark, None);
            }
        }
        let marked: BTreeSet<VerityDigest> = left.iter().map(|mark| mark.object).collect();
        // Copied first: the loop removes entries.
        let unmarked = self.reported.keys().copied().filter(|object| !marked.contains(object));
        for object in unmarked.collect::<Vec<_>>() {
            // An object that no image names any more was removed as damaged; the next pull fetches it again.
            let sound = self.store.examine_object(&object)?.is_none();
            if sound || self.store.images_with(&object)?.is_empty() {
                tracing::info!(%object, "a damaged object was repaired or removed");
                self.reported.remove(&object);
            }
        }
        self.publish();
        Ok(())
    }

    /// Makes the findings visible to volume statistics.
    fn publish(&self) {
        let each = self.reported.iter().flat_map(|(object, (damage, images))| {
            images.iter().map(move |image| (*image, format!("object {object} {damage}")))
        });
        self.corrupt_images.replace(each.collect());
    }

    /// Logs a corrupt object, and notes the composefs images that contain it.
    fn report(&mut self, mark: &DamageMark, position: Option<u64>) {
        let (object, damage) = (&mark.object, &mark.damage);
        // One that has gone since has nobody to be told.
        let images = mark.images.iter().filter_map(|image| self.store.images().get(image).ok().flatten());
        let images: Vec<_> = images.collect();
        let names: Vec<_> = images.iter().flat_map(|image| &image.names).collect();
        let manifests: Vec<_> = mark.images.iter().map(ToString::to_string).collect();
        tracing::error!(
            %object,
            path = %self.store.objects().path(object).display(),
            position,
            images = ?names,
            image.digests = ?manifests,
            "an object in use {damage}; its images are in quarantine, and fetched again where a volume shows them; check the \
             disk. `composefs-csi store repair` does the same by command"
        );
        let images = images.iter().flat_map(|image| image.images()).map(|own| own.image).collect();
        self.reported.insert(*object, (damage.clone(), images));
    }
}
