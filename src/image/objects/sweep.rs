//! Finding, listing and removing objects. What may go is the caller's decision: it holds the store's
//! exclusive lock and knows the roots.

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::{ObjectError, Objects, name};
use crate::image::verity::VerityDigest;

/// How the names of objects begin that are about to replace a damaged one.
pub(super) const TEMPORARY: &str = ".new-";

impl Objects {
    /// Calls `visit` for every object, in no particular order. Names that are no objects are skipped.
    ///
    /// # Errors
    /// Those of reading the directories, and those of `visit`.
    pub fn for_each<E: From<ObjectError>>(
        &self,
        mut visit: impl FnMut(VerityDigest) -> Result<(), E>,
    ) -> Result<(), E> {
        self.for_each_inode(|digest, _| visit(digest))
    }

    /// The same with the inode number that the directory gives for each.
    ///
    /// # Errors
    /// The same.
    pub fn for_each_inode<E: From<ObjectError>>(
        &self,
        mut visit: impl FnMut(VerityDigest, u64) -> Result<(), E>,
    ) -> Result<(), E> {
        for byte in 0..=255u8 {
            let prefix = hex::encode([byte]);
            self.names(&prefix, |rest, inode| match VerityDigest::from_hex(&format!("{prefix}{rest}")) {
                Some(digest) => visit(digest, inode),
                None => Ok(()),
            })?;
        }
        Ok(())
    }

    /// Removes an object; returns whether it was there. Needs the store's exclusive lock.
    ///
    /// # Errors
    /// Those of unlink(2) other than `ENOENT`.
    pub fn remove(&self, digest: &VerityDigest) -> Result<bool, ObjectError> {
        self.unlink(&name(digest))
    }

    /// Removes what an interrupted replacement left behind. Needs the store's exclusive lock.
    ///
    /// # Errors
    /// Those of reading the directory and of unlink(2).
    pub fn remove_temporaries(&self) -> Result<(), ObjectError> {
        self.names(".", |name, _| match name.starts_with(TEMPORARY) {
            true => self.unlink(name).map(|_| ()),
            false => Ok(()),
        })
    }

    fn unlink(&self, name: &str) -> Result<bool, ObjectError> {
        match rustix::fs::unlinkat(&self.inner.dir, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(ObjectError::new(errno, "unlink", &self.inner.path.join(name))),
        }
    }

    fn names<E: From<ObjectError>>(
        &self,
        directory: &str,
        mut visit: impl FnMut(&str, u64) -> Result<(), E>,
    ) -> Result<(), E> {
        let fail = |errno| ObjectError::new(errno, "readdir", &self.inner.path.join(directory));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let opened = rustix::fs::openat(&self.inner.dir, directory, flags, Mode::empty()).map_err(fail)?;
        for entry in rustix::fs::Dir::new(opened).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            if let Ok(name) = entry.file_name().to_str() {
                visit(name, entry.ino())?;
            }
        }
        Ok(())
    }
}
