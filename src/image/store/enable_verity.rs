//! A store made where there was no fs-verity, found again where there is (a newer kernel, `tune2fs -O
//! verity`): its objects are sealed once, so that the level `read` is true of every image.
//!
//! The file `unsealed` is there as long as any object may lack fs-verity.

use super::lease::Exclusive;
use super::{Store, StoreError};
use crate::image::verity::VerityDigest;
use crate::sys::verity::{enable_verity, measure_verity};
use rustix::io::Errno;

impl Store {
    /// Whether there are objects to seal now.
    pub(super) fn lacks_verity(&self) -> bool {
        self.objects.seals() && self.layout.unsealed().exists()
    }

    /// Notes, before the first object is written, that objects will not be sealed.
    pub(super) fn note_unsealed(&self) -> Result<(), StoreError> {
        let note = self.layout.unsealed();
        if self.objects.seals() || note.exists() { Ok(()) } else { self.disk.write_durably(&note, b"") }
    }

    /// Seals every object. One whose content is not what its name says is removed.
    pub(super) fn enable_verity_everywhere(&self, _all: &Exclusive) -> Result<(), StoreError> {
        if !self.lacks_verity() {
            return Ok(());
        }
        tracing::info!(store = %self.root().display(), "sealing objects: the filesystem has fs-verity now");
        let mut sealed = 0u64;
        self.objects.for_each(|digest| {
            let measured = self.seal(&digest)?;
            if measured == digest {
                sealed += 1;
                return Ok(());
            }
            tracing::error!(object = %digest, %measured, "damaged object removed; remove its images and pull them again");
            self.remove_object(&digest).map(drop)
        })?;
        self.disk.remove(&self.layout.unsealed())?;
        tracing::info!(sealed, "objects sealed");
        self.disk.sync_directory(self.root())
    }

    fn seal(&self, digest: &VerityDigest) -> Result<VerityDigest, StoreError> {
        let file = self.objects.get(digest)?;
        let path = self.objects.path(digest);
        self.disk.step("seal", &path, || match enable_verity(&file) {
            Ok(()) | Err(Errno::EXIST) => Ok(VerityDigest(measure_verity(&file)?)),
            Err(errno) => Err(errno.into()),
        })
    }
}
