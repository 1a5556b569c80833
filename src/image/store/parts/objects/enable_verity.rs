//! A store made where there was no fs-verity, found again where there is (a newer kernel, `tune2fs -O
//! verity`): fs-verity is enabled on its objects once, so that the level `read` is true of every image.
//!
//! The file `unsealed` is there as long as any object may lack fs-verity.

use std::path::PathBuf;

use rustix::io::Errno;

use super::StoredObjects;
use crate::image::store::error::StoreError;
use crate::image::store::lock::Exclusive;
use crate::image::verity::VerityDigest;
use crate::sys::verity::{enable_verity, measure_verity};

/// The note that objects may lack fs-verity, in the store's directory.
pub(in crate::image::store) const UNSEALED: &str = "unsealed";

impl StoredObjects {
    /// Whether there are objects to enable fs-verity on now.
    pub(in crate::image::store) fn lacks_verity(&self) -> bool {
        self.objects.requires_verity() && self.note().exists()
    }

    /// Notes, before the first object is written, that objects will not have fs-verity.
    pub(super) fn note_lack_of_verity(&self) -> Result<(), StoreError> {
        let note = self.note();
        if self.objects.requires_verity() || note.exists() {
            Ok(())
        } else {
            self.disk.write_durably(&note, b"")
        }
    }

    /// Enables fs-verity on every object. One whose content is not what its name says is removed.
    pub(in crate::image::store) fn enable_verity_everywhere(
        &self,
        _all: &Exclusive,
    ) -> Result<(), StoreError> {
        if !self.lacks_verity() {
            return Ok(());
        }
        tracing::info!(store = %self.root().display(), "enabling fs-verity on objects: the filesystem has it now");
        let mut sealed = 0u64;
        self.objects.for_each(|digest| {
            let measured = self.enable_verity(&digest)?;
            if measured == digest {
                sealed += 1;
                return Ok(());
            }
            tracing::error!(object = %digest, %measured, "damaged object removed; remove its images and pull them again");
            self.remove(&digest).map(drop)
        })?;
        // Last, so that an interrupted attempt is made again.
        self.disk.remove(&self.note())?;
        tracing::info!(sealed, "fs-verity enabled on objects");
        self.disk.sync_directory(self.root())
    }

    fn enable_verity(&self, digest: &VerityDigest) -> Result<VerityDigest, StoreError> {
        let file = self.objects.get(digest)?;
        let path = self.objects.path(digest);
        self.disk.step("enable fs-verity on", &path, || match enable_verity(&file) {
            // Enabled already, before an earlier attempt was interrupted.
            Ok(()) | Err(Errno::EXIST) => Ok(VerityDigest(measure_verity(&file)?)),
            Err(errno) => Err(errno.into()),
        })
    }

    fn note(&self) -> PathBuf {
        self.root().join(UNSEALED)
    }
}
