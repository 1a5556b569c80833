//! Listing and removing objects. The caller decides which ones to remove: it holds the store's exclusive lock
//! and knows the roots.

use rustix::fs::{AtFlags, FileType, Mode, OFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use super::directory::{Objects, name};
use super::error::ObjectError;
use crate::image::verity::VerityDigest;

/// Prefix of the temporary name of an object that is about to replace a damaged one.
pub(super) const TEMPORARY: &str = ".new-";

impl Objects {
    /// Calls `visit` for every object, in no particular order. Other names are skipped.
    ///
    /// # Errors
    /// Those of reading the directories, and those of `visit`.
    pub fn for_each<E: From<ObjectError>>(
        &self,
        mut visit: impl FnMut(VerityDigest) -> Result<(), E>,
    ) -> Result<(), E> {
        self.for_each_inode(|digest, _| visit(digest))
    }

    /// As [`Objects::for_each`], with the inode number from the directory entry.
    ///
    /// # Errors
    /// As [`Objects::for_each`].
    pub(in crate::image) fn for_each_inode<E: From<ObjectError>>(
        &self,
        mut visit: impl FnMut(VerityDigest, u64) -> Result<(), E>,
    ) -> Result<(), E> {
        // Directory by directory, so that only one is open.
        (0..=255u8).try_for_each(|byte| self.for_each_of(byte, &mut visit))
    }

    /// The same of the objects whose digest begins with `byte`.
    ///
    /// # Errors
    /// As [`Objects::for_each`].
    pub(in crate::image) fn for_each_of<E: From<ObjectError>>(
        &self,
        byte: u8,
        visit: &mut impl FnMut(VerityDigest, u64) -> Result<(), E>,
    ) -> Result<(), E> {
        let prefix = hex::encode([byte]);
        self.names(&prefix, |rest, sort, inode| {
            match VerityDigest::from_hex(&format!("{prefix}{rest}")).filter(|_| may_be_a_file(sort)) {
                Some(digest) => visit(digest, inode),
                None => {
                    self.inner.strangers.note(&self.inner.path.join(&prefix).join(rest));
                    Ok(())
                }
            }
        })
    }

    /// Removes an object; returns whether it was there. Needs the store's exclusive lock.
    ///
    /// # Errors
    /// Those of unlink(2) other than `ENOENT`.
    pub(in crate::image) fn remove(&self, digest: &VerityDigest) -> Result<bool, ObjectError> {
        self.unlink(&name(digest))
    }

    /// Removes what an interrupted replacement left behind. Needs the store's exclusive lock.
    ///
    /// # Errors
    /// Those of reading the directory and of unlink(2).
    pub(in crate::image) fn remove_temporaries(&self) -> Result<(), ObjectError> {
        self.names(".", |name, sort, _| {
            if name.starts_with(TEMPORARY) && may_be_a_file(sort) {
                return self.unlink(name).map(|_| ());
            }
            let is_ours = name.len() == 2 && u8::from_str_radix(name, 16).is_ok();
            if !is_ours {
                self.inner.strangers.note(&self.inner.path.join(name));
            }
            Ok(())
        })
    }

    fn unlink(&self, name: &str) -> Result<bool, ObjectError> {
        match rustix::fs::unlinkat(&self.inner.dir, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            // A file that the host shares with us, and has made immutable since: its name goes once that has ended.
            Err(Errno::PERM) if self.is_immutable(name) => {
                let object = self.inner.path.join(name);
                tracing::warn!(object = %object.display(), "an object cannot be removed: the host has made its file immutable (chattr +i)");
                Ok(false)
            }
            Err(errno) => Err(ObjectError::new(errno, "unlink", &self.inner.path.join(name))),
        }
    }

    fn is_immutable(&self, name: &str) -> bool {
        let stat = rustix::fs::statx(&self.inner.dir, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty());
        stat.is_ok_and(|stat| stat.stx_attributes.contains(StatxAttributes::IMMUTABLE))
    }

    /// Calls `visit` with name, sort and inode number of each entry of `directory`. What is there instead of a directory
    /// has none.
    fn names<E: From<ObjectError>>(
        &self,
        directory: &str,
        mut visit: impl FnMut(&str, FileType, u64) -> Result<(), E>,
    ) -> Result<(), E> {
        let fail = |errno| ObjectError::new(errno, "readdir", &self.inner.path.join(directory));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let opened = match rustix::fs::openat(&self.inner.dir, directory, flags, Mode::empty()) {
            // The next opening of the store makes it.
            Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTDIR | Errno::LOOP) => {
                self.inner.strangers.note(&self.inner.path.join(directory));
                return Ok(());
            }
            other => other.map_err(fail)?,
        };
        for entry in rustix::fs::Dir::new(opened).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            // Names that are not UTF-8 are not ours.
            match entry.file_name().to_str() {
                Ok("." | "..") | Err(_) => {}
                Ok(name) => visit(name, entry.file_type(), entry.ino())?,
            }
        }
        Ok(())
    }
}

/// Some filesystems do not say what an entry is.
fn may_be_a_file(sort: FileType) -> bool {
    matches!(sort, FileType::RegularFile | FileType::Unknown)
}
