//! Mounted images, as the caller of a collection tells the store, which knows nothing of mounts.

use std::collections::BTreeSet;

use crate::image::composefs::ImageError;
use crate::image::verity::VerityDigest;

/// Which composefs images are mounted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mounted {
    /// From this store.
    pub here: BTreeSet<VerityDigest>,
    /// From other stores of this machine; this one may have the same images.
    pub elsewhere: BTreeSet<VerityDigest>,
}

impl Mounted {
    /// All of them.
    pub fn all(&self) -> BTreeSet<VerityDigest> {
        self.here.union(&self.elsewhere).copied().collect()
    }
}

/// Tells which composefs images are mounted, or why that cannot be known.
pub type MountedImages<'a> = dyn Fn() -> Result<Mounted, String> + 'a;

/// Why a mounted image stops a collection.
pub(super) fn unreadable_mount(image: &VerityDigest, why: &ImageError) -> String {
    format!(
        "image {image} is mounted and cannot be read as an image ({why}), so what it needs is unknown; unmount it, or \
         pull the image again"
    )
}

/// Why one that was mounted from this store and is not in it stops a collection.
pub(super) fn missing_mount(image: &VerityDigest) -> String {
    format!(
        "image {image} is mounted from this store and is not in it, so what it needs is unknown; pull the image again, \
         or unmount it"
    )
}
