//! Storing an object: write it without a name, enable fs-verity, link it.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::directory::{Objects, name};
use super::error::ObjectError;
use super::sparse_file::{SparseFile, write_all};
use super::sweep::TEMPORARY;
use crate::image::verity::VerityDigest;
use crate::sys;

/// What became of content that was offered to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// Nothing was written: the object was there already, or another store of this machine had it.
    Present,
    /// It is new.
    Written,
}

/// The first object of a listing, which ends it.
enum First {
    Is(VerityDigest),
    Unknown(ObjectError),
}

impl From<ObjectError> for First {
    fn from(error: ObjectError) -> Self {
        Self::Unknown(error)
    }
}

impl Objects {
    /// Tries whether files below `store` can have fs-verity. Leaves nothing behind.
    ///
    /// # Errors
    /// Anything but the kernel's answer that this filesystem has no fs-verity.
    pub(in crate::image) fn supports_verity(store: &Path) -> Result<bool, ObjectError> {
        let objects = Self::open(store, true)?;
        let file = objects.create_unnamed()?;
        write_all(&file, b"probe").map_err(|errno| objects.fail(errno, "write"))?;
        match objects.enable_verity(file, &VerityDigest::of(b"probe")) {
            Ok(_) => Ok(true),
            Err(ObjectError::Io { errno: Errno::NOTTY | Errno::OPNOTSUPP, .. }) => Ok(false),
            Err(other) => Err(other),
        }
    }

    /// Whether an object that is here already has fs-verity, which the kernel answers without writing anything; `None`
    /// if there is no object. Blocking; reads directories until one has an object.
    ///
    /// # Errors
    /// Those of reading the directories.
    pub(in crate::image) fn has_sealed(store: &Path) -> Result<Option<bool>, ObjectError> {
        let objects = Self::open(store, false)?;
        match objects.for_each(|digest| Err(First::Is(digest))) {
            Ok(()) => Ok(None),
            Err(First::Is(digest)) => {
                let measured = sys::verity::measure_verity(objects.get(&digest)?);
                Ok(Some(measured == Ok(digest.0)))
            }
            Err(First::Unknown(error)) => Err(error),
        }
    }

    /// Stores content that is in memory, unless it is here already: one system call if it is.
    ///
    /// # Errors
    /// [`ObjectError::Full`] if the filesystem is; else the step that failed.
    pub fn put(&self, content: &[u8]) -> Result<(VerityDigest, Put), ObjectError> {
        let (digest, size) = (VerityDigest::of(content), content.len() as u64);
        let put =
            self.put_or(&digest, size, |digest, size| self.adopt(digest, size), |take| take(content))?;
        Ok((digest, put))
    }

    /// Stores a composefs image of a known digest and size, unless it is here already. `write` hands it on in pieces, if it
    /// is asked for; `digest` must be that of the same bytes. The file is never one of another store: mounts lock it
    /// (flock), and learn from leases who has it open.
    ///
    /// # Errors
    /// As [`Objects::put`].
    pub fn put_image(
        &self,
        digest: &VerityDigest,
        size: u64,
        write: impl FnOnce(&mut dyn FnMut(&[u8]) -> Result<(), ObjectError>) -> Result<(), ObjectError>,
    ) -> Result<Put, ObjectError> {
        self.put_or(digest, size, |_, _| Ok(None), write)
    }

    /// Stores content that neither is here nor can be had by `otherwise`.
    fn put_or(
        &self,
        digest: &VerityDigest,
        size: u64,
        otherwise: impl FnOnce(&VerityDigest, u64) -> Result<Option<Put>, ObjectError>,
        write: impl FnOnce(&mut dyn FnMut(&[u8]) -> Result<(), ObjectError>) -> Result<(), ObjectError>,
    ) -> Result<Put, ObjectError> {
        self.keep(digest)?;
        // Content that is here already is never written again.
        if self.contains(digest, size)? {
            return Ok(Put::Present);
        }
        if let Some(put) = otherwise(digest, size)? {
            return Ok(put);
        }
        let mut file = SparseFile::new(self, self.unnamed()?);
        write(&mut |piece| file.write(piece))?;
        self.publish(file.finish()?, digest, size)
    }

    /// A new file without a name, on the filesystem of the objects, if there is room for another.
    pub(super) fn unnamed(&self) -> Result<OwnedFd, ObjectError> {
        self.inner.room.take_file()?;
        self.create_unnamed()
    }

    fn create_unnamed(&self) -> Result<OwnedFd, ObjectError> {
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        rustix::fs::openat(&self.inner.dir, ".", flags, Mode::from_raw_mode(0o644))
            .map_err(|errno| self.fail(errno, "open(O_TMPFILE)"))
    }

    /// Enables fs-verity on `file` where the store requires it, and gives the file its name.
    pub(super) fn publish(
        &self,
        file: OwnedFd,
        digest: &VerityDigest,
        size: u64,
    ) -> Result<Put, ObjectError> {
        // Before the link: a name must never lead to a file without fs-verity.
        let file = if self.seals() { self.enable_verity(file, digest)? } else { file };
        match self.link(&file, &name(digest)) {
            Ok(()) => Ok(Put::Written),
            // Another writer linked the object in the meantime, or the file of that name is damaged.
            Err(Errno::EXIST) if self.is_intact(digest, size)? => Ok(Put::Present),
            Err(Errno::EXIST) => self.replace(&file, digest).map(|()| Put::Written),
            Err(errno) => Err(ObjectError::new(errno, "link", &self.path(digest))),
        }
    }

    pub(super) fn link(&self, file: &OwnedFd, name: &str) -> Result<(), Errno> {
        // Through /proc: AT_EMPTY_PATH would need CAP_DAC_READ_SEARCH before Linux 6.10.
        let source = format!("/proc/self/fd/{}", file.as_raw_fd());
        rustix::fs::linkat(rustix::fs::CWD, source, &self.inner.dir, name, AtFlags::SYMLINK_FOLLOW)
    }

    /// Whether the object passes every check that does not read its content.
    pub(super) fn is_intact(&self, digest: &VerityDigest, size: u64) -> Result<bool, ObjectError> {
        if !self.contains(digest, size)? {
            return Ok(false);
        }
        Ok(!self.requires_verity() || sys::verity::measure_verity(self.get(digest)?) == Ok(digest.0))
    }

    /// Puts `file` in the place of a damaged object.
    pub(super) fn replace(&self, file: &OwnedFd, digest: &VerityDigest) -> Result<(), ObjectError> {
        let number = self.inner.temporaries.fetch_add(1, Ordering::Relaxed);
        let temporary = format!("{TEMPORARY}{}-{number}", std::process::id());
        let fail = |errno, step| ObjectError::new(errno, step, &self.path(digest));
        // linkat(2) cannot replace a name, so the file gets a temporary one, which rename(2) can move.
        self.link(file, &temporary).map_err(|errno| fail(errno, "link"))?;
        rustix::fs::renameat(&self.inner.dir, &*temporary, &self.inner.dir, name(digest)).map_err(|errno| {
            // Recovery removes the name if this fails.
            let _ = rustix::fs::unlinkat(&self.inner.dir, &*temporary, AtFlags::empty());
            fail(errno, "rename")
        })
    }

    /// Enables fs-verity on a written file and compares the kernel's digest with ours. Returns the file
    /// opened for reading.
    fn enable_verity(&self, file: OwnedFd, digest: &VerityDigest) -> Result<OwnedFd, ObjectError> {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        // FS_IOC_ENABLE_VERITY needs a descriptor that is open for reading only.
        let readable = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| self.fail(errno, "reopen"))?;
        // The kernel refuses a file that anybody has open for writing.
        drop(file);
        let mut attempts_left = 20;
        loop {
            match sys::verity::enable_verity(&readable) {
                Ok(()) => break,
                // A child that another thread forked holds the writable descriptor until its exec.
                Err(Errno::TXTBSY) if attempts_left > 0 => attempts_left -= 1,
                Err(errno) => return Err(self.fail(errno, "FS_IOC_ENABLE_VERITY")),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let found = sys::verity::measure_verity(&readable)
            .map_err(|errno| self.fail(errno, "FS_IOC_MEASURE_VERITY"))?;
        if found == digest.0 {
            Ok(readable)
        } else {
            Err(ObjectError::Mismatch { path: self.path(digest), found: VerityDigest(found) })
        }
    }
}
