//! Objects that are known to be damaged: they count as absent, so that whoever brings their content writes it anew.

use std::collections::BTreeSet;
use std::sync::{PoisonError, RwLock};

use super::directory::Objects;
use super::error::ObjectError;
use crate::image::verity::VerityDigest;

/// The objects that are not believed. What is read of them is examined by its reader.
#[derive(Debug, Default)]
pub(super) struct Doubted(RwLock<BTreeSet<VerityDigest>>);

impl Doubted {
    pub(super) fn has(&self, digest: &VerityDigest) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(digest)
    }

    /// The object has just been written, and read by nobody else.
    pub(super) fn forget(&self, digest: &VerityDigest) {
        // Nearly always there is none, and writers should not wait for each other.
        if self.has(digest) {
            self.0.write().unwrap_or_else(PoisonError::into_inner).remove(digest);
        }
    }
}

impl Objects {
    /// Whether the object is here in full, and nobody has found it damaged: then it need not be written.
    ///
    /// # Errors
    /// As [`Objects::contains`].
    pub(super) fn is_trusted(&self, digest: &VerityDigest, size: u64) -> Result<bool, ObjectError> {
        Ok(self.contains(digest, size)? && !self.inner.doubted.has(digest))
    }

    /// Doubts these objects from now on, and no others: the next content that is put by one of these names replaces what is
    /// there, whatever its size.
    pub(in crate::image) fn doubt(&self, objects: BTreeSet<VerityDigest>) {
        let doubted = &self.inner.doubted.0;
        let same = *doubted.read().unwrap_or_else(PoisonError::into_inner) == objects;
        if !same {
            *doubted.write().unwrap_or_else(PoisonError::into_inner) = objects;
        }
    }
}
