//! Committing an image: from "all its parts are written" to "it exists".
//!
//! ```text
//! digests/<manifest>.json       unless it is there already: compared, and then another digest is refused
//! syncfs                        objects and staged layer records are on disk
//! staging/* -> layers/, fsync   from here the layers outlive a reboot
//! images/<manifest>.json        temporary file, fsync, rename, fsync of the directory
//! dirty/<marker> removed        nothing unsynced is left of this lease
//! ```
//! A crash between two lines leaves layers without an image, which the next pull uses and the sweep
//! removes; never an image without its parts.

use std::fs::{self, File};
use std::io;

use super::{ImageRecord, Lease, Store, StoreError, dirty};
use crate::oci::digest::Digest;

impl Store {
    /// Makes the image exist. Its layers are staged or stored, its composefs image is an object, and
    /// all that was written under `lease`. Blocking: waits for the disk.
    ///
    /// Committing an image again replaces its record.
    ///
    /// # Errors
    /// [`StoreError::NoLayer`] and [`StoreError::NoObject`] if a part is missing, [`StoreError::OtherDigest`] if the
    /// image was another when it was first built here, [`StoreError::Unsound`] if the filesystem lost writes, and those of the steps above.
    pub fn commit_image(&self, lease: &Lease, record: &ImageRecord) -> Result<(), StoreError> {
        for layer in &record.layers {
            self.layer_path(layer)?.ok_or(StoreError::NoLayer(*layer))?;
        }
        if !self.objects.contains(&record.image, record.image_size)? {
            return Err(StoreError::NoObject(record.manifest));
        }
        self.compare_with_first(record)?;
        let covered = dirty::abandoned(&self.disk, &self.layout)?;
        self.sync_filesystem(lease.file())?;
        for layer in &record.layers {
            self.keep_layer(layer)?;
        }
        // Also when another commit did the moving: its own sync may not have come yet.
        self.disk.sync_directory(&self.layout.layers())?;
        let path = self.layout.image(&record.manifest);
        let bytes =
            record.render(&self.key).map_err(|error| self.disk.error("encode", &path, error.into()))?;
        self.disk.write_durably(&path, &bytes)?;
        covered.into_iter().chain(lease.take_marker()).try_for_each(|marker| marker.remove(&self.disk))
    }

    /// Waits until everything written so far is on disk. Of lost writes the kernel tells only files that
    /// were opened before (Linux 5.8).
    ///
    /// After a failure nobody knows what is: the kernel reports a lost write once and then calls the
    /// page clean. So it is noted, and every later commit refuses until the store was reopened.
    pub(super) fn sync_filesystem(&self, opened_before: &File) -> Result<(), StoreError> {
        let noted = dirty::unsound(&self.layout);
        let unsound = || StoreError::Unsound { store: self.layout.root().to_owned() };
        if noted.exists() {
            return Err(unsound());
        }
        let synced = self
            .disk
            .step("sync the filesystem of", self.layout.root(), || Ok(rustix::fs::syncfs(opened_before)?));
        if let Err(error) = &synced {
            tracing::error!(%error, "the store's filesystem lost writes");
            self.disk.write_for_this_boot(&noted, b"")?;
        }
        synced
    }

    fn keep_layer(&self, diff_id: &Digest) -> Result<(), StoreError> {
        let (staged, kept) = (self.layout.staged(diff_id), self.layout.layer(diff_id));
        let moved = self.disk.step("keep", &staged, || match fs::rename(&staged, &kept) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        })?;
        let present =
            moved || kept.try_exists().map_err(|error| self.disk.error("look for", &kept, error))?;
        if present { Ok(()) } else { Err(StoreError::NoLayer(*diff_id)) }
    }
}
