//! What a manifest's composefs digest was when it was first built here, kept when the image has gone.
//!
//! The same manifest gives the same bytes on any day. If a later build gives others, then something that was believed
//! in between is not what it was, and the image must not be published. The record is authenticated, and it is bounded:
//! of manifests without an image the oldest are forgotten beyond [`KEPT`].
//!
//! An entry is written before the image's one sync, which covers it; one that a power cut tore is as good as none.

use serde::{Deserialize, Serialize};

use super::images::FORGED;
use super::layout::digest_of;
use super::{ImageRecord, Store, StoreError};
use crate::image::tree::Rules;
use crate::image::verity::VerityDigest;
use crate::oci::digest::Digest;

/// Entries kept of manifests that have no image: 16 MiB on disk.
const KEPT: usize = 4096;
/// The sort of record, for its code.
const DOMAIN: &str = "first digest";

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct First {
    builder: u32,
    manifest: Digest,
    rules: Rules,
    image: VerityDigest,
}

impl Store {
    /// Holds an image against its first build, or records it as that. A build by other rules or of another builder is
    /// another first one.
    ///
    /// # Errors
    /// [`StoreError::OtherDigest`], and those of reading and writing a file.
    pub(super) fn compare_with_first(&self, record: &ImageRecord) -> Result<(), StoreError> {
        let path = self.layout.first_digest(&record.manifest);
        let ImageRecord { builder, manifest, rules, image, .. } = *record;
        let now = First { builder, manifest, rules, image };
        match self.first(&record.manifest)? {
            Some(first) if first == now => return Ok(()),
            Some(first) if (first.builder, first.rules) == (now.builder, now.rules) => {
                let (manifest, built) = (record.manifest, record.image);
                return Err(StoreError::OtherDigest { manifest, built, recorded: first.image, path });
            }
            _ => {}
        }
        let bytes =
            serde_json::to_vec(&now).map_err(|error| self.disk.error("encode", &path, error.into()))?;
        self.disk.write_for_this_boot(&path, &self.key.seal_json(DOMAIN, &bytes))
    }

    /// One that is not authentic is put aside: nothing can be compared with it.
    fn first(&self, manifest: &Digest) -> Result<Option<First>, StoreError> {
        let path = self.layout.first_digest(manifest);
        let Some(bytes) = self.disk.read(&path)? else { return Ok(None) };
        let Ok(first) = serde_json::from_slice::<First>(&bytes) else { return Ok(None) };
        if first.manifest == *manifest && self.key.authenticates(DOMAIN, &bytes) {
            return Ok(Some(first));
        }
        let error = StoreError::unauthentic(&path, format!("the first digest of image {manifest}"));
        self.put_aside(&path, FORGED, &error)?;
        Ok(None)
    }

    /// Forgets what is too much. Exclusive.
    pub(super) fn sweep_digests(&self) -> Result<(), StoreError> {
        let directory = self.layout.digests();
        let mut alone = Vec::new();
        for name in self.disk.list(&directory)? {
            let path = directory.join(&name);
            if digest_of(&name, ".json").is_some_and(|manifest| self.layout.image(&manifest).exists()) {
                continue;
            }
            let modified = std::fs::metadata(&path).and_then(|metadata| metadata.modified());
            alone.extend(modified.ok().map(|modified| (modified, path)));
        }
        alone.sort();
        let excess = alone.len().saturating_sub(KEPT);
        alone.iter().take(excess).try_for_each(|(_, path)| self.disk.remove(path).map(drop))
    }
}
