//! What images are judged by at every mount: `dossiers/<manifest hex>/<hash of the origin>.json`.
//!
//! One file per origin from which the image came, since signatures are found where an image is found, and no origin may
//! spoil what another said. The content is [`crate::pull`]'s, and worth nothing until it is verified: unlike the
//! store's own records it carries no code of the node's key.

use std::path::PathBuf;

use crate::image::store::disk::Disk;
use crate::image::store::error::StoreError;
use crate::image::store::file_name::{digest_of, json_of};
use crate::image::store::held::Held;
use crate::image::store::hold::Hold;
use crate::image::store::useless::Useless;
use crate::oci::digest::Digest;

/// The evidence of a store's images.
#[derive(Debug)]
pub struct EvidenceStore {
    disk: Disk,
    directory: PathBuf,
}

impl EvidenceStore {
    pub(in crate::image::store) const DIRECTORY: &str = "dossiers";

    pub(in crate::image::store) fn new(disk: &Disk) -> Self {
        Self { disk: disk.clone(), directory: disk.root().join(Self::DIRECTORY) }
    }

    /// The evidence of an image at an origin.
    ///
    /// # Errors
    /// Those of reading a file.
    pub fn get(&self, manifest: &Digest, origin: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.disk.read(&self.of(manifest).join(file_name(origin)))
    }

    /// Keeps the evidence of an image at an origin, replacing an older one; it survives a power cut. The hold
    /// keeps it until the image is here.
    ///
    /// # Errors
    /// Those of writing a file.
    pub fn put(&self, hold: &Hold, manifest: &Digest, origin: &str, bytes: &[u8]) -> Result<(), StoreError> {
        hold.keep_blocking(&[Held::Manifest(*manifest)])?;
        self.disk.write_durably_in(&self.of(manifest), &file_name(origin), bytes)
    }

    /// Finds or removes the evidence of images that are gone.
    pub(in crate::image::store) fn sweep(
        &self,
        useless: &mut Useless,
        has_image: impl Fn(&Digest) -> bool,
    ) -> Result<(), StoreError> {
        useless.sweep_directories(&self.disk, &self.directory, |name| {
            Ok(digest_of(name, "").is_none_or(|manifest| !has_image(&manifest)))
        })
    }

    fn of(&self, manifest: &Digest) -> PathBuf {
        self.directory.join(manifest.hex())
    }
}

fn file_name(origin: &str) -> String {
    json_of(&Digest::of(origin.as_bytes()))
}
