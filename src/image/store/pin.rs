//! Pinning an image, which must be in the store.

use super::{Held, Store, StoreError};
use crate::oci::digest::Digest;

impl Store {
    /// Keeps the image, whatever happens, until its pin is removed ([`super::Pins::remove`]); durably.
    ///
    /// # Errors
    /// [`StoreError::NoImage`], and those of writing a file.
    pub fn pin(&self, manifest: &Digest) -> Result<(), StoreError> {
        let hold = self.hold();
        hold.keep_blocking(&[Held::Manifest(*manifest)])?;
        let image = self.parts.images.get(manifest)?.ok_or(StoreError::NoImage(*manifest))?;
        self.parts.pins.add(&hold, &image)
    }
}
