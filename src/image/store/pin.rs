//! Pinning an image, which must be in the store.

use super::{Store, StoreError};
use crate::oci::digest::Digest;

impl Store {
    /// Keeps the image, whatever happens, until its pin is removed ([`super::Pins::remove`]); durably.
    ///
    /// # Errors
    /// [`StoreError::NoImage`], and those of writing a file.
    pub fn pin(&self, manifest: &Digest) -> Result<(), StoreError> {
        let lease = self.lease_blocking()?;
        let image = self.parts.images.get(manifest)?.ok_or(StoreError::NoImage(*manifest))?;
        self.parts.pins.add(&lease, &image)
    }
}
