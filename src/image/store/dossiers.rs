//! What images are judged by at every mount: `<store>/dossiers/<manifest hex>/<hash of the place>.json`.
//!
//! One per place from which the image came, since signatures are found where an image is found, and nobody may spoil
//! what another place said. What is in it is [`crate::image::pull`]'s, and worth nothing until it is verified.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use super::{Lease, Store, StoreError};
use crate::image::digest::Digest;

impl Store {
    /// The dossier of an image at a place.
    ///
    /// # Errors
    /// Those of reading a file.
    pub fn dossier(&self, manifest: &Digest, place: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.disk.read(&self.dossier_path(manifest, place))
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
        let directory = self.layout.dossiers().join(manifest.hex());
        let made = self.disk.step("make", &directory, || {
            match fs::DirBuilder::new().mode(0o700).create(&directory) {
                Ok(()) => Ok(true),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
                Err(error) => Err(error),
            }
        })?;
        self.disk.write_durably(&self.dossier_path(manifest, place), bytes)?;
        if made { self.disk.sync_parent(&directory) } else { Ok(()) }
    }

    fn dossier_path(&self, manifest: &Digest, place: &str) -> PathBuf {
        let name = format!("{}.json", Digest::of(place.as_bytes()).hex());
        self.layout.dossiers().join(manifest.hex()).join(name)
    }
}
