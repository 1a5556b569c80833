//! What a manifest's composefs digests were when they were first built here, by each of the rules:
//! `digests/<manifest hex>.json`, kept when the image has gone.
//!
//! The same manifest gives the same bytes on any day. If a later build gives others, then something that was believed
//! in between is not what it was, and the image must not be published. The record is authenticated. Their number is
//! bounded: of manifests without an image the oldest are forgotten beyond [`KEPT`].
//!
//! An entry is written before the image's one sync, which covers it. One that a power cut tore counts as none.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::image::store::aside::Aside;
use crate::image::store::disk::Disk;
use crate::image::store::error::StoreError;
use crate::image::store::file_name::{digest_of, is_digest, json_of};
use crate::image::store::image_record::Variant;
use crate::image::store::key::NodeKey;
use crate::image::store::record::{self, Record, RecordFault};
use crate::image::store::useless::Useless;
use crate::image::tree::Rules;
use crate::image::verity::VerityDigest;
use crate::oci::digest::Digest;

/// Entries kept of manifests that have no image: 16 MiB on disk.
const KEPT: usize = 4096;

/// Builds that one entry names: all rules by this builder and the one before, so that an upgrade under mounted volumes
/// forgets none.
const BUILDS: usize = 2 * Rules::ALL.len();

/// The newest build in its own members, as earlier releases read it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FirstDigest {
    builder: u32,
    manifest: Digest,
    rules: Rules,
    image: VerityDigest,
    /// Newer ones first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    others: Vec<FirstBuild>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct FirstBuild {
    builder: u32,
    rules: Rules,
    image: VerityDigest,
}

impl FirstDigest {
    fn builds(&self) -> impl Iterator<Item = FirstBuild> {
        let Self { builder, rules, image, .. } = *self;
        std::iter::once(FirstBuild { builder, rules, image }).chain(self.others.iter().copied())
    }
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

    /// Where they are.
    pub(in crate::image::store) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Compares a composefs image of `manifest` with its first build, or records it as the first. A build by other rules
    /// or of another builder is another first one.
    ///
    /// # Errors
    /// [`StoreError::OtherDigest`], and those of reading and writing a file.
    pub(in crate::image::store) fn compare(&self, manifest: Digest, now: &Variant) -> Result<(), StoreError> {
        let path = self.path(&manifest);
        let Variant { builder, rules, image, .. } = *now;
        let mut others: Vec<_> = self.get(&manifest)?.iter().flat_map(FirstDigest::builds).collect();
        let is_same = |known: &&FirstBuild| (known.builder, known.rules) == (builder, rules);
        match others.iter().find(is_same) {
            Some(first) if first.image == image => return Ok(()),
            Some(first) => {
                return Err(StoreError::OtherDigest { manifest, built: image, recorded: first.image, path });
            }
            // This build is the first by its rules.
            None => others.truncate(BUILDS - 1),
        }
        let bytes = record::encode(&FirstDigest { builder, manifest, rules, image, others }, &self.key)
            .map_err(|error| self.disk.error("encode", &path, error.into()))?;
        self.disk.write_for_this_boot(&path, &bytes)
    }

    /// The composefs images that were first built of a manifest, as far as they are on record.
    ///
    /// # Errors
    /// Those of reading a file, and of putting one aside.
    pub(in crate::image::store) fn images_of(
        &self,
        manifest: &Digest,
    ) -> Result<Vec<VerityDigest>, StoreError> {
        let found = self.get(manifest)?;
        Ok(found.iter().flat_map(FirstDigest::builds).map(|build| build.image).collect())
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

    /// Finds or removes the oldest entries of manifests without an image, beyond [`KEPT`].
    pub(in crate::image::store) fn sweep(
        &self,
        useless: &mut Useless,
        has_image: impl Fn(&Digest) -> bool,
    ) -> Result<(), StoreError> {
        let alone = |name: &OsStr| digest_of(name, ".json").is_some_and(|manifest| !has_image(&manifest));
        let mut entries = Vec::new();
        // What was found stays among the oldest.
        let is_ours = |name: &OsStr| is_digest(name, &[".json", ".forged"]);
        let names =
            if useless.is_looking() { self.disk.files(&self.directory, is_ours)? } else { Vec::new() };
        for name in names {
            let modified =
                std::fs::metadata(self.directory.join(&name)).and_then(|metadata| metadata.modified());
            // One without a time has just gone.
            entries.extend(modified.ok().filter(|_| alone(&name)).map(|modified| (modified, name)));
        }
        entries.sort();
        let kept: HashSet<_> = entries.into_iter().rev().take(KEPT).map(|(_, name)| name).collect();
        useless.sweep_files(&self.disk, &self.directory, |name| Ok(alone(name) && !kept.contains(name)))
    }

    fn path(&self, manifest: &Digest) -> PathBuf {
        self.directory.join(json_of(manifest))
    }
}
