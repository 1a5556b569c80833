//! Removing damaged objects, with every record that would make a pull believe them present.
//!
//! A pull fetches again what has no record, and writes again what has no object, so the next pull or
//! publish of the image repairs it. What is mounted stays mounted and may hold the damaged object until its last
//! mount has gone, or the kernel forgets the name.

use std::collections::BTreeSet;

use super::marked::Marked;
use super::{ImageRecord, Store, StoreError};
use crate::image::verity::VerityDigest;

impl Store {
    /// Removes damaged objects, and the records of all layers and images that have them; returns those images.
    /// Blocking. Nothing can be noted in a hold meanwhile.
    ///
    /// Records go first, so that a crash in between leaves at most damaged objects that nothing names.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if a pull or publish holds one of them, or another collection runs, for longer than
    /// [`super::Options::patience`], and those of reading and removing files.
    pub fn remove_damaged(&self, damaged: &BTreeSet<VerityDigest>) -> Result<Vec<ImageRecord>, StoreError> {
        let _collecting = self.store_lock.collecting(self.patience)?;
        let _all = self.store_lock.exclusive_once(self.patience, || {
            let mut held = Marked::default();
            held.add_holds(&self.parts)?;
            // A pull that found one would commit an image without it.
            Ok(!damaged.iter().any(|digest| held.has_object(digest)))
        })?;
        let images = self.images_with_any(self.parts.images.list()?, damaged)?;
        images.iter().try_for_each(|image| self.parts.images.remove(&image.key()))?;
        // In this order: an image that came back after a power cut would name layers that are gone.
        self.parts.images.sync()?;
        self.parts.layers.remove_naming(damaged)?;
        for digest in damaged {
            self.parts.objects.remove(digest)?;
        }
        Ok(images)
    }
}
