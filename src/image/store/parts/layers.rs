//! Layer records by the DiffID computed here, and the DiffIDs of compressed blobs.
//!
//! ```text
//! <store>/layers/<diffid hex>                synced
//! <store>/staging/<boot id>/<diffid hex>     of an unfinished pull: no sync of this boot has covered it yet
//! <store>/blobs/<blob hex>                   the DiffID that a compressed blob was found to have
//! <store>/contents/<blob hex>                its files by the sha256 of their content, of zstd:chunked layers
//! ```
//! A file is a record ([`crate::image::layer::record`]) and the node key's code over its DiffID and its checksum: a
//! record that was altered, or put in the place of another layer's, ends in an error and not in an image.

mod blobs;
mod contents;
mod entries;
mod staged;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use blobs::BlobLinks;
pub use entries::{LayerEntries, LayerSize};
pub use staged::StagedLayer;

use crate::image::entry::EntryKind;
use crate::image::store::aside::Aside;
use crate::image::store::disk::Disk;
use crate::image::store::error::StoreError;
use crate::image::store::file_name::{digest_of, is_digest};
use crate::image::store::hold::Hold;
use crate::image::store::key::NodeKey;
use crate::image::store::useless::Useless;
use crate::image::verity::VerityDigest;
use crate::kind::Kind;
use crate::oci::digest::Digest;

/// The layer records of a store.
#[derive(Debug)]
pub struct Layers {
    disk: Disk,
    key: NodeKey,
    boot_id: String,
    kept: PathBuf,
    /// This boot's.
    staging: PathBuf,
    blobs: BlobLinks,
    contents: PathBuf,
}

impl Layers {
    pub(in crate::image::store) const DIRECTORY: &str = "layers";
    pub(in crate::image::store) const STAGING: &str = "staging";
    pub(in crate::image::store) const BLOBS: &str = "blobs";
    pub(in crate::image::store) const CONTENTS: &str = "contents";

    pub(in crate::image::store) fn new(disk: &Disk, key: &NodeKey, boot_id: &str) -> Self {
        let root = disk.root();
        Self {
            disk: disk.clone(),
            key: key.clone(),
            boot_id: boot_id.to_owned(),
            kept: root.join(Self::DIRECTORY),
            staging: root.join(Self::STAGING).join(boot_id),
            blobs: BlobLinks::new(disk, key, root.join(Self::BLOBS)),
            contents: root.join(Self::CONTENTS),
        }
    }

    /// The DiffID of a compressed blob that was ingested before, if the layer's record (and so every
    /// object that it names) is still here. What was noted in a hold before stays.
    ///
    /// # Errors
    /// Those of reading files.
    pub fn of_blob(&self, blob: &Digest) -> Result<Option<Digest>, StoreError> {
        let Some(diff_id) = self.blobs.get(blob)? else { return Ok(None) };
        // The line may outlive the layer until the next sweep.
        Ok(self.contains(&diff_id)?.then_some(diff_id))
    }

    /// Reads a layer's entries as a stream.
    ///
    /// # Errors
    /// [`StoreError::NoLayer`], and those of reading the record's head.
    pub fn entries(&self, diff_id: &Digest) -> Result<LayerEntries, StoreError> {
        for path in self.paths(diff_id) {
            match open(&path) {
                Ok(file) => return LayerEntries::open(file, path, *diff_id, &self.key),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(self.disk.error("open", &path, error)),
            }
        }
        Err(StoreError::NoLayer(*diff_id))
    }

    /// How large a layer's record is. It has not been read to its end, so this is no more than what it says of itself.
    ///
    /// # Errors
    /// [`StoreError::NoLayer`], and those of reading the record's end.
    pub fn size(&self, diff_id: &Digest) -> Result<LayerSize, StoreError> {
        for path in self.paths(diff_id) {
            match open(&path).and_then(|file| entries::size(&file)) {
                Ok(size) => return Ok(size),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(self.disk.error("read", &path, error)),
            }
        }
        Err(StoreError::NoLayer(*diff_id))
    }

    /// Starts a layer record. The objects that it names are written under the same
    /// hold; dropped before [`StagedLayer::finish`], it leaves nothing.
    ///
    /// # Errors
    /// Those of creating a file.
    pub fn stage<'a>(&'a self, hold: &'a Hold) -> Result<StagedLayer<'a>, StoreError> {
        StagedLayer::new(&self.disk, &self.key, &self.staging, &self.blobs, hold)
    }

    /// Puts a layer's record aside if reading it to its end shows that it is damaged or not authentic, so that the
    /// next pull fetches the layer again. Says whether it did.
    ///
    /// # Errors
    /// Those of reading and renaming the file.
    pub fn set_aside_if_bad(&self, diff_id: &Digest) -> Result<bool, StoreError> {
        let Some(path) = self.path(diff_id)? else { return Ok(false) };
        let read =
            self.entries(diff_id).and_then(|mut entries| entries.try_for_each(|entry| entry.map(drop)));
        match read {
            Err(error @ (StoreError::Unauthentic { .. } | StoreError::Layer { .. }))
                if error.kind() == Kind::Corrupt =>
            {
                self.disk.put_aside(&path, Aside::Forged, &error).map(|()| true)
            }
            // Gone meanwhile, or whole: another record is the bad one.
            Err(StoreError::NoLayer(_)) | Ok(()) => Ok(false),
            Err(other) => Err(other),
        }
    }

    /// Where the staged records of this boot are, and the synced ones.
    pub(in crate::image::store) fn directories(&self) -> [&Path; 2] {
        [&self.staging, &self.kept]
    }

    /// Whether there is a record, synced or staged.
    pub(in crate::image::store) fn contains(&self, diff_id: &Digest) -> Result<bool, StoreError> {
        Ok(self.path(diff_id)?.is_some())
    }

    /// Every object that a layer names; some more than once.
    pub(in crate::image::store) fn each_object(
        &self,
        diff_id: &Digest,
        mut visit: impl FnMut(VerityDigest, u64),
    ) -> Result<(), StoreError> {
        for entry in self.entries(diff_id)? {
            if let EntryKind::Object(digest, size) = entry?.kind {
                visit(digest, size);
            }
        }
        Ok(())
    }

    /// Gives a staged record, which a sync has covered, its place among the synced ones; to be followed by
    /// [`Layers::sync`].
    pub(in crate::image::store) fn keep(&self, diff_id: &Digest) -> Result<(), StoreError> {
        let [staged, kept] = self.paths(diff_id);
        let moved = self.disk.step("keep", &staged, || match fs::rename(&staged, &kept) {
            Ok(()) => Ok(true),
            // Kept already, by this image or another one.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        })?;
        let present =
            moved || kept.try_exists().map_err(|error| self.disk.error("look for", &kept, error))?;
        if present { Ok(()) } else { Err(StoreError::NoLayer(*diff_id)) }
    }

    /// Makes the names of synced records, and the absence of removed ones, survive a power cut.
    pub(in crate::image::store) fn sync(&self) -> Result<(), StoreError> {
        self.disk.sync_directory(&self.kept)
    }

    /// The staged layers of this boot, and how long ago each was staged; nothing where the clock was set back.
    pub(in crate::image::store) fn staged(&self) -> Result<Vec<(Digest, Duration)>, StoreError> {
        let mut staged = Vec::new();
        for name in self.disk.files(&self.staging, is_record)? {
            let Some(diff_id) = digest_of(&name, "") else { continue };
            let modified = fs::metadata(self.staging.join(&name)).and_then(|metadata| metadata.modified());
            // A commit may move it meanwhile; then its image is marked.
            let Ok(modified) = modified else { continue };
            staged.push((diff_id, SystemTime::now().duration_since(modified).unwrap_or_default()));
        }
        Ok(staged)
    }

    /// The layers of all records, staged or synced; some twice.
    pub(in crate::image::store) fn list(&self) -> Result<Vec<Digest>, StoreError> {
        // The staged ones first: a commit may move one meanwhile.
        let names =
            [self.disk.files(&self.staging, is_record)?, self.disk.files(&self.kept, is_record)?].concat();
        Ok(names.iter().filter_map(|name| digest_of(name, "")).collect())
    }

    /// Finds or removes the DiffIDs of blobs without a layer.
    pub(in crate::image::store) fn sweep_blobs(
        &self,
        useless: &mut Useless,
        has_layer: impl Fn(&Digest) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        self.blobs.sweep(useless, has_layer)
    }

    /// Removes records, staged or synced, that are not `marked`, until `end`, to be followed by [`Layers::sync_removed`]. Returns
    /// how many went, and whether none is left. Needs the store's exclusive lock.
    pub(in crate::image::store) fn sweep(
        &self,
        marked: impl Fn(&Digest) -> bool,
        end: Instant,
    ) -> Result<(u64, bool), StoreError> {
        let mut swept = 0;
        for directory in self.directories() {
            for name in self.disk.files(directory, is_record)? {
                // One that was put aside stays, for the operator to find out where it comes from.
                if digest_of(&name, "").is_none_or(|diff_id| marked(&diff_id)) {
                    continue;
                }
                // At least one each time.
                if swept > 0 && Instant::now() >= end {
                    return Ok((swept, false));
                }
                swept += u64::from(self.disk.remove(&directory.join(name))?);
            }
        }
        Ok((swept, true))
    }

    /// Makes the absence of removed records survive a power cut: a layer that came back would name objects that did not.
    pub(in crate::image::store) fn sync_removed(&self) -> Result<(), StoreError> {
        // A boot in which nothing was pulled has no directory of staged ones.
        let directories = self.directories().into_iter().filter(|directory| directory.is_dir());
        directories.into_iter().try_for_each(|directory| self.disk.sync_directory(directory))
    }

    /// Removes the records that name any of `objects`, and those that cannot be read; durably. Needs the store's
    /// exclusive lock.
    pub(in crate::image::store) fn remove_naming(
        &self,
        objects: &BTreeSet<VerityDigest>,
    ) -> Result<(), StoreError> {
        for directory in [&self.staging, &self.kept] {
            for name in self.disk.files(directory, is_record)? {
                let Some(diff_id) = digest_of(&name, "") else { continue };
                if self.names_any(&diff_id, objects)? {
                    self.disk.remove(&directory.join(&name))?;
                }
            }
        }
        self.sync()
    }

    /// A record that is lost counts as one that names them.
    fn names_any(&self, diff_id: &Digest, objects: &BTreeSet<VerityDigest>) -> Result<bool, StoreError> {
        let mut names = false;
        match self.each_object(diff_id, |digest, _| names |= objects.contains(&digest)) {
            Ok(()) => Ok(names),
            Err(error) if error.is_lost_record() => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Removes what other boots have staged: no sync has covered it. Needs the store's exclusive lock.
    pub(in crate::image::store) fn remove_other_boots(&self) -> Result<(), StoreError> {
        let staging = self.disk.root().join(Self::STAGING);
        for boot in
            self.disk.directories(&staging, |_| true)?.into_iter().filter(|boot| *boot != *self.boot_id)
        {
            let directory = staging.join(boot);
            for name in self.disk.files(&directory, is_record)? {
                self.disk.remove(&directory.join(name))?;
            }
            self.disk.remove_empty(&directory)?;
        }
        Ok(())
    }

    /// Where the record of a layer is, synced or staged.
    fn path(&self, diff_id: &Digest) -> Result<Option<PathBuf>, StoreError> {
        for path in self.paths(diff_id) {
            match fs::symlink_metadata(&path) {
                Ok(found) if found.is_file() => return Ok(Some(path)),
                // Not the store's; the listing names it.
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(self.disk.error("look for", &path, error)),
            }
        }
        Ok(None)
    }

    /// The staged one first: a commit may move it meanwhile, and then the other directory has it.
    fn paths(&self, diff_id: &Digest) -> [PathBuf; 2] {
        [self.staging.join(diff_id.hex()), self.kept.join(diff_id.hex())]
    }
}

/// Opens a record. A pipe in its place would be waited for.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

/// Whether a layer's record may be called so, or one that was put aside.
fn is_record(name: &OsStr) -> bool {
    is_digest(name, &["", ".forged"])
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::durable_file::Steps;

    #[test]
    fn a_record_is_staged_for_its_boot_and_then_kept() {
        let disk = Disk::new(Path::new("/s"), Steps::default());
        let layers = Layers::new(&disk, &NodeKey::from_bytes(&[1; 32]), "boot");
        let digest = Digest::of(b"x");
        let directories = [Path::new("/s/staging/boot"), Path::new("/s/layers")];
        assert_eq!(layers.paths(&digest), directories.map(|directory| directory.join(digest.hex())));
    }
}
