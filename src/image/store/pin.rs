//! Pinning an image, which must be in the store.

use super::{Held, PinNote, Store, StoreError};
use crate::oci::digest::Digest;

impl Store {
    /// Keeps the image, whatever happens, until the note's end or until its pin is removed ([`super::Pins::remove`]);
    /// durably.
    ///
    /// # Errors
    /// [`StoreError::NoImage`], and those of writing a file.
    pub fn pin(&self, manifest: &Digest, note: &PinNote) -> Result<(), StoreError> {
        let hold = self.hold();
        hold.keep_blocking(&[Held::Manifest(*manifest)])?;
        let image = self.parts.images.get(manifest)?.ok_or(StoreError::NoImage(*manifest))?;
        self.parts.pins.add(&hold, &image, note)
    }

    /// Keeps the image of this key for a wish of a prefetch, which was resolved to `target`, until that is removed
    /// ([`super::Prefetched::remove`]); durably. An image that was kept for the same wish before is kept no longer.
    ///
    /// # Errors
    /// [`StoreError::NoImage`], and those of writing a file.
    pub fn keep_prefetched(
        &self,
        (owner, wish, target): (&str, Digest, Digest),
        key: &Digest,
    ) -> Result<(), StoreError> {
        let hold = self.hold();
        hold.keep_blocking(&[Held::Manifest(*key)])?;
        let image = self.parts.images.get(key)?.ok_or(StoreError::NoImage(*key))?;
        let prefetched = &self.parts.prefetched;
        prefetched.add(&hold, (owner, wish, target), &image)?;
        let before = prefetched.list()?.into_iter();
        let mut before = before.filter(|pin| pin.owner == owner && pin.wish == wish && pin.image != *key);
        before.try_for_each(|pin| prefetched.remove(&pin))
    }
}
