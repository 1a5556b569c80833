//! Marks of damaged objects: `damaged/<object hex>`, a file for each object that was found damaged and is not whole yet.
//!
//! A mark says what is wrong and which images have the object. As long as it is there, these images are in quarantine: they
//! are given to nobody before their content has been fetched again. It carries no code: whoever can write here can remove
//! objects as well, and a mark makes nothing believed.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::disk::Disk;
use super::error::StoreError;
use crate::image::verity::VerityDigest;
use crate::oci::digest::Digest;

/// Marks that are made at most. Of a disk that loses more than this, the rest is found when these are repaired.
const MAX: usize = 1024;

/// The marks of a store.
#[derive(Debug, Clone)]
pub(super) struct DamagedObjects {
    disk: Disk,
    directory: PathBuf,
}

/// A damaged object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamageMark {
    /// The object.
    pub object: VerityDigest,
    /// What is wrong with it, as a phrase.
    pub damage: String,
    /// When it was found, seconds since 1970.
    pub since: u64,
    /// The keys of the images that have it.
    pub images: BTreeSet<Digest>,
}

impl DamagedObjects {
    pub(super) const DIRECTORY: &str = "damaged";

    pub(super) fn new(disk: &Disk) -> Self {
        Self { disk: disk.clone(), directory: disk.root().join(Self::DIRECTORY) }
    }

    /// Makes or replaces a mark, durably. Returns whether it is there: not if there are too many.
    pub(super) fn set(&self, mark: &DamageMark) -> Result<bool, StoreError> {
        let path = self.path(&mark.object);
        if !path.exists() && self.objects()?.len() >= MAX {
            return Ok(false);
        }
        let bytes = serde_json::to_vec(mark).unwrap_or_default();
        self.disk.write_durably(&path, &bytes).map(|()| true)
    }

    /// Removes the mark of an object that is whole on disk, or of no use any more.
    pub(super) fn remove(&self, object: &VerityDigest) -> Result<(), StoreError> {
        self.disk.remove(&self.path(object)).map(drop)
    }

    /// The marked objects.
    pub(super) fn objects(&self) -> Result<BTreeSet<VerityDigest>, StoreError> {
        let object = |name: &std::ffi::OsStr| name.to_str().and_then(VerityDigest::from_hex);
        let names = self.disk.files(&self.directory, |name| object(name).is_some())?;
        Ok(names.iter().filter_map(|name| object(name)).collect())
    }

    /// All marks. One that a power cut has torn still says which object it is about.
    pub(super) fn list(&self) -> Result<Vec<DamageMark>, StoreError> {
        let mut marks = Vec::new();
        for object in self.objects()? {
            let Some(bytes) = self.disk.read(&self.path(&object))? else { continue };
            let read = serde_json::from_slice(&bytes).ok().filter(|mark: &DamageMark| mark.object == object);
            marks.push(read.unwrap_or_else(|| DamageMark {
                object,
                damage: "was found damaged".to_owned(),
                since: 0,
                images: BTreeSet::new(),
            }));
        }
        Ok(marks)
    }

    fn path(&self, object: &VerityDigest) -> PathBuf {
        self.directory.join(object.hex())
    }
}
