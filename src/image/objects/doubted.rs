//! Objects that are known to be damaged: they count as absent, so that whoever brings their content writes it anew.

use std::collections::BTreeSet;
use std::sync::{PoisonError, RwLock};

use crate::image::verity::VerityDigest;

/// The objects that are not believed. What is read of them is examined by its reader.
#[derive(Debug, Default)]
pub(super) struct Doubted(RwLock<BTreeSet<VerityDigest>>);

impl Doubted {
    pub(super) fn has(&self, digest: &VerityDigest) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(digest)
    }

    /// These are not believed from now on, and no others.
    pub(super) fn set(&self, objects: BTreeSet<VerityDigest>) {
        let is_same = *self.0.read().unwrap_or_else(PoisonError::into_inner) == objects;
        if !is_same {
            *self.0.write().unwrap_or_else(PoisonError::into_inner) = objects;
        }
    }

    /// The object has just been written, and read by nobody else.
    pub(super) fn forget(&self, digest: &VerityDigest) {
        // Nearly always there is none, and writers should not wait for each other.
        if self.has(digest) {
            self.0.write().unwrap_or_else(PoisonError::into_inner).remove(digest);
        }
    }
}
