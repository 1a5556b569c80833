//! Condemning damaged objects: they go, with every record that would make a pull believe them present.
//!
//! A pull fetches again what has no record, and writes again what has no object, so after this the next pull or
//! publish of the image repairs it. What is mounted stays mounted and may hold on to the damaged object until its last
//! mount has gone, or the kernel forgets the name.

use std::collections::BTreeSet;

use super::layout::digest_of;
use super::{ImageRecord, Store, StoreError};
use crate::image::verity::VerityDigest;
use crate::oci::digest::Digest;

impl Store {
    /// Removes damaged objects, and the records of all layers and images that have them; returns those images.
    /// Blocking; needs the store alone.
    ///
    /// Records go first, so that a crash in between leaves at most damaged objects that nothing names.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if a pull or publish lasts longer than [`super::Options::patience`], and those of
    /// reading and removing files.
    pub fn remove_damaged(&self, damaged: &BTreeSet<VerityDigest>) -> Result<Vec<ImageRecord>, StoreError> {
        let _all = self.store_lock.exclusive(self.patience)?;
        let mut images = Vec::new();
        for image in self.images()?.images {
            let mut has = false;
            self.each_object(&image.record, |digest, _| has |= damaged.contains(&digest))?;
            if has {
                self.disk.remove(&self.layout.image(&image.record.manifest))?;
                images.push(image.record);
            }
        }
        self.disk.sync_directory(&self.layout.images())?;
        for directory in [self.layout.staging(), self.layout.layers()] {
            for name in self.disk.list(&directory)? {
                let Some(diff_id) = digest_of(&name, "") else { continue };
                if self.layer_names_any(&diff_id, damaged)? {
                    self.disk.remove(&directory.join(&name))?;
                }
            }
        }
        self.disk.sync_directory(&self.layout.layers())?;
        for digest in damaged {
            self.remove_object(digest)?;
        }
        Ok(images)
    }

    /// A record that cannot be read is as good as one that names a damaged object.
    fn layer_names_any(
        &self,
        diff_id: &Digest,
        damaged: &BTreeSet<VerityDigest>,
    ) -> Result<bool, StoreError> {
        let mut names = false;
        match self.each_object_of_layer(diff_id, |digest, _| names |= damaged.contains(&digest)) {
            Ok(()) => Ok(names),
            Err(error) if super::mark::is_lost(&error) => Ok(true),
            Err(error) => Err(error),
        }
    }
}
