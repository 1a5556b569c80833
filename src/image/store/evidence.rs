//! What images are judged by at every mount: `<store>/dossiers/<manifest hex>/<hash of the place>.json`.
//!
//! One per origin from which the image came, since signatures are found where an image is found, and nobody may spoil
//! what another origin said. What is in it is [`crate::image::pull`]'s, and worth nothing until it is verified: unlike the
//! store's own records it carries no code of the node's key.

use std::path::PathBuf;

use super::{Lease, Store, StoreError};
use crate::oci::digest::Digest;

impl Store {
    /// The dossier of an image at an origin.
    ///
    /// # Errors
    /// Those of reading a file.
    pub fn evidence(&self, manifest: &Digest, origin: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.disk.read(&self.evidence_of(manifest).join(evidence_name(origin)))
    }

    /// Keeps the dossier of an image at an origin, in the stead of an older one; it survives a power cut. The lease
    /// keeps away the sweep, which takes evidence of images that are not here.
    ///
    /// # Errors
    /// Those of writing a file.
    pub fn keep_evidence(
        &self,
        _lease: &Lease,
        manifest: &Digest,
        origin: &str,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        self.disk.write_durably_in(&self.evidence_of(manifest), &evidence_name(origin), bytes)
    }

    fn evidence_of(&self, manifest: &Digest) -> PathBuf {
        self.layout.evidence().join(manifest.hex())
    }
}

fn evidence_name(origin: &str) -> String {
    format!("{}.json", Digest::of(origin.as_bytes()).hex())
}
