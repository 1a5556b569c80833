//! What a manifest's composefs digest was when it was first built here: `digests/<manifest hex>.json`, kept when the
//! image has gone.
//!
//! The same manifest gives the same bytes on any day. If a later build gives others, then something that was believed
//! in between is not what it was, and the image must not be published. The record is authenticated. Their number is
//! bounded: of manifests without an image the oldest are forgotten beyond [`KEPT`].
//!
//! An entry is written before the image's one sync, which covers it. One that a power cut tore counts as none.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::image::store::aside::Aside;
use crate::image::store::disk::Disk;
use crate::image::store::error::StoreError;
use crate::image::store::file_name::{digest_of, is_digest, json_of};
use crate::image::store::image_record::ImageRecord;
use crate::image::store::key::NodeKey;
use crate::image::store::record::{self, Record, RecordFault};
use crate::image::tree::Rules;
use crate::image::verity::VerityDigest;
use crate::oci::digest::Digest;

/// Entries kept of manifests that have no image: 16 MiB on disk.
const KEPT: usize = 4096;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FirstDigest {
    builder: u32,
    manifest: Digest,
    rules: Rules,
    image: VerityDigest,
}

impl Record for FirstDigest {
    const DOMAIN: &'static str = "first digest";
    const FORMAT: Option<u32> = None;
}

/// The first digests that a store has recorded.
#[derive(Debug)]
pub(in crate::image::store) struct FirstDigests {
    disk: Disk,
    key: NodeKey,
    directory: PathBuf,
}

impl FirstDigests {
    pub(in crate::image::store) const DIRECTORY: &str = "digests";

    pub(in crate::image::store) fn new(disk: &Disk, key: &NodeKey) -> Self {
        Self { disk: disk.clone(), key: key.clone(), directory: disk.root().join(Self::DIRECTORY) }
    }

    /// Compares an image with its first build, or records it as the first. A build by other rules or of another
    /// builder is another first one.
    ///
    /// # Errors
    /// [`StoreError::OtherDigest`], and those of reading and writing a file.
    pub(in crate::image::store) fn compare(&self, record: &ImageRecord) -> Result<(), StoreError> {
        let path = self.path(&record.manifest);
        let ImageRecord { builder, manifest, rules, image, .. } = *record;
        let now = FirstDigest { builder, manifest, rules, image };
        match self.get(&manifest)? {
            Some(first) if first == now => return Ok(()),
            Some(first) if (first.builder, first.rules) == (builder, rules) => {
                return Err(StoreError::OtherDigest { manifest, built: image, recorded: first.image, path });
            }
            // None, or made by other rules: this build is the first.
            _ => {}
        }
        let bytes = record::encode(&now, &self.key)
            .map_err(|error| self.disk.error("encode", &path, error.into()))?;
        self.disk.write_for_this_boot(&path, &bytes)
    }

    /// The composefs image that was first built of a manifest, if that is on record.
    ///
    /// # Errors
    /// Those of reading a file, and of putting one aside.
    pub(in crate::image::store) fn image_of(
        &self,
        manifest: &Digest,
    ) -> Result<Option<VerityDigest>, StoreError> {
        Ok(self.get(manifest)?.map(|first| first.image))
    }

    /// One that is not authentic is put aside: nothing can be compared with it.
    fn get(&self, manifest: &Digest) -> Result<Option<FirstDigest>, StoreError> {
        let path = self.path(manifest);
        let Some(bytes) = self.disk.read(&path)? else { return Ok(None) };
        match record::decode::<FirstDigest>(&bytes, &self.key) {
            Ok(first) if first.manifest == *manifest => return Ok(Some(first)),
            Err(RecordFault::Torn(_)) => return Ok(None),
            // Another manifest's, or not this node's.
            Ok(_) | Err(_) => {}
        }
        let error = StoreError::unauthentic(&path, format!("the first digest of image {manifest}"));
        self.disk.put_aside(&path, Aside::Forged, &error)?;
        Ok(None)
    }

    /// Forgets the oldest entries of manifests without an image beyond [`KEPT`]. Needs the store's exclusive lock.
    pub(in crate::image::store) fn sweep(
        &self,
        has_image: impl Fn(&Digest) -> bool,
    ) -> Result<(), StoreError> {
        let mut alone = Vec::new();
        for name in self.disk.files(&self.directory, |name| is_digest(name, &[".json", ".forged"]))? {
            let path = self.directory.join(&name);
            if digest_of(&name, ".json").is_none_or(|manifest| has_image(&manifest)) {
                continue;
            }
            let modified = std::fs::metadata(&path).and_then(|metadata| metadata.modified());
            // One without a time has just gone.
            alone.extend(modified.ok().map(|modified| (modified, path)));
        }
        alone.sort();
        let excess = alone.len().saturating_sub(KEPT);
        alone.iter().take(excess).try_for_each(|(_, path)| self.disk.remove(path).map(drop))
    }

    fn path(&self, manifest: &Digest) -> PathBuf {
        self.directory.join(json_of(manifest))
    }
}
