//! The step from an object without fs-verity to one with it, and the note that there are any.
//!
//! The file `unsealed` is there as long as any object may lack fs-verity.

use std::path::PathBuf;

use rustix::io::Errno;

use super::StoredObjects;
use crate::image::store::error::StoreError;
use crate::image::verity::VerityDigest;
use crate::kind::Kind;
use crate::sys::verity::{enable_verity, measure_verity};

/// The note that objects may lack fs-verity, in the store's directory.
pub(in crate::image::store) const UNSEALED: &str = "unsealed";

/// What became of an object on which fs-verity was to be enabled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::image::store) enum Enabled {
    /// It has fs-verity now.
    Now,
    /// It had fs-verity before.
    Before,
    /// It is not there any more.
    Gone,
    /// Somebody has it open for writing.
    Written,
    /// It has fs-verity, and other content than its name says.
    Differs(VerityDigest),
}

impl StoredObjects {
    /// Whether objects may lack fs-verity that could have it.
    pub(in crate::image::store) fn lacks_verity(&self) -> bool {
        self.objects.seals() && self.note().exists()
    }

    /// Notes, before the first object is written, that objects will not have fs-verity.
    pub(super) fn note_lack_of_verity(&self) -> Result<(), StoreError> {
        let note = self.note();
        if self.objects.seals() || note.exists() { Ok(()) } else { self.disk.write_durably(&note, b"") }
    }

    /// Removes the note; durably. Needs the store's exclusive lock.
    pub(in crate::image::store) fn forget_lack_of_verity(&self) -> Result<(), StoreError> {
        self.disk.remove(&self.note())?;
        self.disk.sync_directory(self.root())
    }

    /// Calls `visit` with every object and whether it has fs-verity. Blocking, one statx(2) per object.
    pub(in crate::image::store) fn for_each_with_verity(
        &self,
        mut visit: impl FnMut(VerityDigest, bool),
    ) -> Result<(), StoreError> {
        self.objects.for_each(|digest| {
            if let Some(stat) = self.objects.stat(&digest)? {
                visit(digest, stat.has_verity);
            }
            Ok(())
        })
    }

    /// Enables fs-verity on an object, and measures it. Blocking: the kernel hashes the object.
    pub(in crate::image::store) fn enable_verity(
        &self,
        digest: &VerityDigest,
    ) -> Result<Enabled, StoreError> {
        let file = match self.objects.get(digest) {
            Err(error) if error.kind() == Kind::NotFound => return Ok(Enabled::Gone),
            other => other?,
        };
        let path = self.objects.path(digest);
        self.disk.step("enable fs-verity on", &path, || {
            let enabled = match enable_verity(&file) {
                Ok(()) => Enabled::Now,
                Err(Errno::EXIST) => Enabled::Before,
                Err(Errno::TXTBSY) => return Ok(Enabled::Written),
                Err(errno) => return Err(errno.into()),
            };
            let measured = VerityDigest(measure_verity(&file)?);
            Ok(if measured == *digest { enabled } else { Enabled::Differs(measured) })
        })
    }

    fn note(&self) -> PathBuf {
        self.root().join(UNSEALED)
    }
}
