//! What images are judged by at every mount: `<store>/dossiers/<manifest hex>/<hash of the place>.json`.
//!
//! One per place from which the image came, since signatures are found where an image is found, and nobody may spoil
//! what another place said. What is in it is [`crate::image::pull`]'s, and worth nothing until it is verified: unlike the
//! store's own records it carries no code of the node's key.

use std::path::PathBuf;

use super::{Lease, Store, StoreError};
use crate::image::digest::Digest;

impl Store {
    /// The dossier of an image at a place.
    ///
    /// # Errors
    /// Those of reading a file.
    pub fn dossier(&self, manifest: &Digest, place: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.disk.read(&self.dossiers_of(manifest).join(dossier_name(place)))
    }

    /// Keeps the dossier of an image at a place, in the stead of an older one; it survives a power cut. The lease
    /// keeps away the sweep, which takes dossiers of images that are not here.
    ///
    /// # Errors
    /// Those of writing a file.
    pub fn keep_dossier(
        &self,
        _lease: &Lease,
        manifest: &Digest,
        place: &str,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        self.disk.write_durably_in(&self.dossiers_of(manifest), &dossier_name(place), bytes)
    }

    fn dossiers_of(&self, manifest: &Digest) -> PathBuf {
        self.layout.dossiers().join(manifest.hex())
    }
}

fn dossier_name(place: &str) -> String {
    format!("{}.json", Digest::of(place.as_bytes()).hex())
}
