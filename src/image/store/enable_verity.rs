//! A store made where there was no fs-verity, found again where there is (a newer kernel, `tune2fs -O verity`): fs-verity is
//! enabled on its objects, so that the level `read` becomes true of every image.
//!
//! The kernel hashes each object in full, so this takes as long as reading the store. It is done beside pulls and
//! publishes, object by object; new objects have fs-verity already. It can be stopped at any object and
//! goes on there: those that have it cost a look. The level is `read` from the first opening after it is complete.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::parts::objects::Enabled;
use super::{Store, StoreError};
use crate::image::verity::VerityDigest;

/// How far enabling fs-verity has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VerityProgress {
    /// Objects in the store when it began.
    pub objects: u64,
    /// Those of them that have been looked at.
    pub done: u64,
    /// How long the last one took.
    pub took: Duration,
}

impl Store {
    /// Whether objects lack fs-verity that could have it: [`Store::enable_verity`] is needed for the level `read`.
    pub fn lacks_verity(&self) -> bool {
        self.parts.objects.lacks_verity()
    }

    /// Enables fs-verity on every object. Damaged ones are removed with the records of what has them, as by
    /// [`Store::remove_damaged`]. `go_on` is called after each object, to wait a little or to stop. Returns whether all
    /// objects have it now. Blocking, for as long as reading the store takes. Memory: 32 bytes per object.
    ///
    /// # Errors
    /// [`StoreError::Busy`], [`StoreError::Object`] for a filesystem without room for the hashes, and those of the
    /// filesystem. What was done by then stays done.
    pub fn enable_verity(&self, mut go_on: impl FnMut(&VerityProgress) -> bool) -> Result<bool, StoreError> {
        if !self.lacks_verity() || self.is_only_read() {
            return Ok(!self.lacks_verity());
        }
        let (mut all, mut left) = (Vec::new(), 0);
        self.parts.objects.for_each_with_verity(|digest, has_verity| {
            all.push(digest);
            left += u64::from(!has_verity);
        })?;
        self.metrics.without_verity.set(left);
        let mut progress = VerityProgress { objects: all.len() as u64, ..VerityProgress::default() };
        let mut damaged = BTreeSet::new();
        for digest in all {
            let begun = Instant::now();
            self.enable_on(&digest, &mut damaged)?;
            progress.done += 1;
            progress.took = begun.elapsed();
            if !go_on(&progress) {
                return Ok(false);
            }
        }
        if !damaged.is_empty() {
            for image in self.remove_damaged(&damaged)? {
                tracing::error!(image.digest = %image.key(), names = ?image.names, "image with damaged objects removed; pull it again");
            }
        }
        self.end_if_complete()
    }

    fn enable_on(
        &self,
        digest: &VerityDigest,
        damaged: &mut BTreeSet<VerityDigest>,
    ) -> Result<(), StoreError> {
        // Under no lock: a collection may take the object's name meanwhile, and nothing else.
        match self.parts.objects.enable_verity(digest)? {
            Enabled::Now => self.metrics.without_verity.add(-1),
            // Another process has it open for writing: the end finds it, and the next attempt.
            Enabled::Before | Enabled::Gone | Enabled::Written => {}
            Enabled::Differs(measured) => {
                tracing::error!(object = %digest, %measured, "damaged object found");
                damaged.insert(*digest);
            }
        }
        Ok(())
    }

    /// Removes the note that objects lack fs-verity, if none does. When nobody writes: a writer without fs-verity makes the
    /// note again when it begins.
    fn end_if_complete(&self) -> Result<bool, StoreError> {
        let _all = self.store_lock.exclusive_once(self.patience, || Ok(!self.parts.holds.any_living()?))?;
        let mut left = 0;
        self.parts.objects.for_each_with_verity(|_, has_verity| left += u64::from(!has_verity))?;
        self.metrics.without_verity.set(left);
        if left == 0 {
            self.parts.objects.forget_lack_of_verity()?;
        }
        Ok(left == 0)
    }
}
