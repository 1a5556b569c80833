//! Corruption that shows while pods read: the kernel refuses the bytes, and this says which object and whose image.
//!
//! fs-verity and overlayfs report to the kernel log only, by inode number or by half a name. [`Watcher::look_into`]
//! takes such a [`Complaint`] as a hint, examines the objects that it can be about, and keeps the images of those that
//! are damaged in [`Damages`], where volume statistics find them. A complaint about a file of somebody else's, or
//! about an object that was repaired since, leads to nothing.

mod message;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

pub use message::{Complaint, parse};

use crate::image::objects::Corruption;
use crate::image::store::{Store, StoreError};
use crate::image::verity::VerityDigest;

/// The composefs images that are known to be damaged, and how. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Damages(Arc<RwLock<BTreeMap<VerityDigest, String>>>);

impl Damages {
    /// What is wrong with an image, for people.
    pub fn of(&self, image: &VerityDigest) -> Option<String> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(image).cloned()
    }

    /// How many images are damaged.
    pub fn len(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn replace(&self, all: BTreeMap<VerityDigest, String>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = all;
    }
}

/// Looks into complaints of the kernel.
#[derive(Debug)]
pub struct Watcher {
    store: Arc<Store>,
    damages: Damages,
    /// Objects that were reported already and are damaged still, and the images that have them: a reader that
    /// tries again and again must not fill the log.
    reported: BTreeMap<VerityDigest, (Corruption, Vec<VerityDigest>)>,
}

impl Watcher {
    /// A watcher over the objects of `store`.
    pub fn new(store: Arc<Store>, damages: Damages) -> Self {
        Self { store, damages, reported: BTreeMap::new() }
    }

    /// Finds the objects that a complaint is about, examines them, and reports those that are damaged, once each.
    /// Blocking: reads the objects in full.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn look_into(&mut self, complaint: &Complaint) -> Result<(), StoreError> {
        let suspects = match complaint {
            Complaint::Block { inode, .. } => self.store.objects().with_inode(*inode)?,
            Complaint::Seal { name } => self.store.objects().with_last_digits(name),
            Complaint::Lookup => self.store.missing_objects()?,
        };
        for object in suspects {
            let damage = self.store.examine_object(&object)?;
            let position = match complaint {
                Complaint::Block { position, .. } => Some(*position),
                Complaint::Seal { .. } | Complaint::Lookup => None,
            };
            match damage {
                Some(damage) if !self.reported.contains_key(&object) => {
                    let images = self.report(&object, &damage, position)?;
                    self.reported.insert(object, (damage, images));
                }
                _ => {}
            }
        }
        self.publish();
        Ok(())
    }

    /// Whether anything is damaged, as far as is known.
    pub fn knows_of_damage(&self) -> bool {
        !self.reported.is_empty()
    }

    /// Examines again what was damaged, and forgets what was repaired. Blocking.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn look_again(&mut self) -> Result<(), StoreError> {
        for object in self.reported.keys().copied().collect::<Vec<_>>() {
            // What nothing names any more was condemned, and is on its way back with the next pull.
            let sound = self.store.examine_object(&object)?.is_none();
            if sound || self.store.images_with(&object)?.is_empty() {
                tracing::info!(%object, "a damaged object was repaired or removed");
                self.reported.remove(&object);
            }
        }
        self.publish();
        Ok(())
    }

    fn publish(&self) {
        let each = self.reported.iter().flat_map(|(object, (damage, images))| {
            images.iter().map(move |image| (*image, format!("object {object} {damage}")))
        });
        self.damages.replace(each.collect());
    }

    /// Returns the composefs images that have the object.
    fn report(
        &self,
        object: &VerityDigest,
        damage: &Corruption,
        position: Option<u64>,
    ) -> Result<Vec<VerityDigest>, StoreError> {
        let images = self.store.images_with(object)?;
        let names: Vec<_> = images.iter().flat_map(|image| &image.names).collect();
        let manifests: Vec<_> = images.iter().map(|image| image.manifest.to_string()).collect();
        tracing::error!(
            %object,
            path = %self.store.objects().path(object).display(),
            position,
            images = ?names,
            image.digests = ?manifests,
            "an object in use {damage}; pods that read it get an error, never wrong bytes; check the disk, then run \
             `composefs-csi verify --repair`, pull the images again and restart the pods that use them"
        );
        Ok(images.iter().map(|image| image.image).collect())
    }
}
