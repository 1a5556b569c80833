//! Objects: file contents and composefs images, each named by its fs-verity digest.
//!
//! Invariants:
//! * A name under `objects/` appears only when the file is complete (and sealed, where the store
//!   seals): it is written as an unnamed file and linked as the last step. kill -9 leaves nothing.
//! * A name never changes its content. An object that is *found* damaged (wrong size, not sealed,
//!   sealed with another digest) is replaced by a rename, so that a reader sees one or the other.
//! * An object is safe from a power cut only after a `syncfs` that follows its linking, unless
//!   the store seals (FS_IOC_ENABLE_VERITY writes the file out by itself). Until then the name may
//!   come back with the right size and zeros for content. The store therefore keeps a marker while
//!   objects are unsynced; where it finds one of another boot, objects that no synced record
//!   reaches are removed ([`Objects::for_each`], [`Objects::remove`]) and not looked at: records are
//!   written after the `syncfs` that covers what they name, so whatever they name is good, and
//!   nobody can miss the rest. Nothing needs hashing.
//!
//! Cost: one statx for content that is here already; for new content also open, write, link and close, and
//! with sealing two ioctls. New files get their inodes near `objects/` in the order they come, which keeps
//! a layer together on disk. (ext4 skips inodes that were freed in the last minutes one by one: a pull
//! right after a large sweep spends about 60 us more per object.)

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, OFlags, SeekFrom, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use crate::image::verity::{VerityDigest, VerityHasher};
use crate::sys;

mod error;
mod examine;
mod metrics;
mod sweep;
#[cfg(test)]
mod tests;

pub use error::ObjectError;
pub use examine::Corruption;
pub(in crate::image) use metrics::ObjectMetrics;

/// The objects of one store. Cloning is cheap; all clones are the same directory.
#[derive(Debug, Clone)]
pub struct Objects {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// `objects/`, opened with O_PATH.
    dir: OwnedFd,
    path: PathBuf,
    seal: bool,
    temporaries: AtomicU64,
    metrics: ObjectMetrics,
}

/// What became of content that was offered to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The object was there already.
    Present,
    /// It is new.
    Written,
}

/// What the filesystem says of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectStat {
    /// Length in bytes.
    pub size: u64,
    /// Bytes allocated on the filesystem (st_blocks), without fs-verity's own metadata where the
    /// filesystem does not count that.
    pub allocated: u64,
    /// Whether fs-verity is enabled on the file.
    pub sealed: bool,
}

impl Objects {
    /// Makes `objects/` and its 256 directories below `store`, where they are missing. The caller
    /// syncs.
    ///
    /// # Errors
    /// Those of mkdir(2).
    pub fn create(store: &Path) -> Result<(), ObjectError> {
        let objects = store.join("objects");
        let made = |path: PathBuf| match std::fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(ObjectError::from_io(error, "mkdir", &path))
            }
            _ => Ok(()),
        };
        made(objects.clone())?;
        (0..=255u8).try_for_each(|byte| made(objects.join(hex::encode([byte]))))
    }

    /// Opens the objects of `store`. `seal` says whether new objects get fs-verity, and whether
    /// those without it count as absent; [`Objects::can_seal`] finds out what the filesystem does.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn open(store: &Path, seal: bool) -> Result<Self, ObjectError> {
        let path = store.join("objects");
        let dir = rustix::fs::open(
            &path,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::empty(),
        )
        .map_err(|errno| ObjectError::new(errno, "open", &path))?;
        let inner =
            Inner { dir, path, seal, temporaries: AtomicU64::new(0), metrics: ObjectMetrics::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Tries whether files below `store` can be sealed with fs-verity. Leaves nothing behind.
    ///
    /// # Errors
    /// Anything but the kernel's answer that this filesystem has no fs-verity.
    pub fn can_seal(store: &Path) -> Result<bool, ObjectError> {
        let objects = Self::open(store, true)?;
        let file = objects.unnamed()?;
        write_all(&file, b"probe").map_err(|errno| objects.fail(errno, "write"))?;
        match objects.sealed(file, &VerityDigest::of(b"probe")) {
            Ok(_) => Ok(true),
            Err(ObjectError::Io { errno: Errno::NOTTY | Errno::OPNOTSUPP, .. }) => Ok(false),
            Err(other) => Err(other),
        }
    }

    /// Whether new objects get fs-verity.
    pub fn seals(&self) -> bool {
        self.inner.seal
    }

    pub(super) fn metrics(&self) -> &ObjectMetrics {
        &self.inner.metrics
    }

    /// The directory `objects/`, for the overlay's data layer.
    pub fn directory(&self) -> &Path {
        &self.inner.path
    }

    /// Where an object is or would be.
    pub fn path(&self, digest: &VerityDigest) -> PathBuf {
        self.inner.path.join(name(digest))
    }

    /// Whether the object is here in full: with this size and, where the store seals, sealed.
    ///
    /// # Errors
    /// Those of statx(2) other than `ENOENT`.
    pub fn contains(&self, digest: &VerityDigest, size: u64) -> Result<bool, ObjectError> {
        let stat = self.stat(digest)?;
        Ok(stat.is_some_and(|stat| stat.size == size && (stat.sealed || !self.inner.seal)))
    }

    /// What the filesystem says of the object; `None` if there is none.
    ///
    /// # Errors
    /// Those of statx(2) other than `ENOENT`.
    pub fn stat(&self, digest: &VerityDigest) -> Result<Option<ObjectStat>, ObjectError> {
        let wanted = StatxFlags::SIZE | StatxFlags::BLOCKS | StatxFlags::TYPE;
        match rustix::fs::statx(&self.inner.dir, name(digest), AtFlags::SYMLINK_NOFOLLOW, wanted) {
            Ok(stat) => Ok(Some(ObjectStat {
                size: stat.stx_size,
                allocated: stat.stx_blocks * 512,
                sealed: stat.stx_attributes.contains(StatxAttributes::VERITY),
            })),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(ObjectError::new(errno, "statx", &self.path(digest))),
        }
    }

    /// Opens an object for reading.
    ///
    /// # Errors
    /// [`ObjectError::Missing`] if it is not here, else those of open(2).
    pub fn get(&self, digest: &VerityDigest) -> Result<OwnedFd, ObjectError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::openat(&self.inner.dir, name(digest), flags, Mode::empty()).map_err(|errno| match errno {
            Errno::NOENT => ObjectError::Missing(self.path(digest)),
            other => ObjectError::new(other, "open", &self.path(digest)),
        })
    }

    /// Stores content that is in memory, unless it is here already: one system call if it is.
    ///
    /// # Errors
    /// [`ObjectError::Full`] if the filesystem is; else the step that failed.
    pub fn put(&self, content: &[u8]) -> Result<(VerityDigest, Put), ObjectError> {
        let digest = VerityDigest::of(content);
        if self.contains(&digest, content.len() as u64)? {
            return Ok((digest, Put::Present));
        }
        let file = self.unnamed()?;
        write_all(&file, content).map_err(|errno| self.fail(errno, "write"))?;
        let put = self.publish(file, &digest, content.len() as u64)?;
        Ok((digest, put))
    }

    /// Starts an object whose content comes as a stream.
    ///
    /// # Errors
    /// Those of open(2) with `O_TMPFILE`.
    pub fn writer(&self) -> Result<ObjectWriter, ObjectError> {
        let file = self.unnamed()?;
        Ok(ObjectWriter {
            objects: self.clone(),
            file,
            hasher: VerityHasher::default(),
            size: 0,
            ends_in_hole: false,
        })
    }

    fn unnamed(&self) -> Result<OwnedFd, ObjectError> {
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        rustix::fs::openat(&self.inner.dir, ".", flags, Mode::from_raw_mode(0o644))
            .map_err(|errno| self.fail(errno, "open(O_TMPFILE)"))
    }

    /// Seals `file` if the store does, and gives it its name.
    fn publish(&self, file: OwnedFd, digest: &VerityDigest, size: u64) -> Result<Put, ObjectError> {
        let file = if self.inner.seal { self.sealed(file, digest)? } else { file };
        match self.link(&file, &name(digest)) {
            Ok(()) => {
                self.inner.metrics.written(size);
                Ok(Put::Written)
            }
            // Somebody else linked it since we looked, or what stands there is damaged.
            Err(Errno::EXIST) if self.is_good(digest, size)? => Ok(Put::Present),
            Err(Errno::EXIST) => self.replace(&file, digest).map(|()| Put::Written),
            Err(errno) => Err(ObjectError::new(errno, "link", &self.path(digest))),
        }
    }

    fn link(&self, file: &OwnedFd, name: &str) -> Result<(), Errno> {
        // By way of /proc: AT_EMPTY_PATH would need CAP_DAC_READ_SEARCH before Linux 6.10.
        let source = format!("/proc/self/fd/{}", file.as_raw_fd());
        rustix::fs::linkat(rustix::fs::CWD, source, &self.inner.dir, name, AtFlags::SYMLINK_FOLLOW)
    }

    fn is_good(&self, digest: &VerityDigest, size: u64) -> Result<bool, ObjectError> {
        if !self.contains(digest, size)? {
            return Ok(false);
        }
        Ok(!self.inner.seal || sys::verity::measure_verity(self.get(digest)?) == Ok(digest.0))
    }

    fn replace(&self, file: &OwnedFd, digest: &VerityDigest) -> Result<(), ObjectError> {
        let number = self.inner.temporaries.fetch_add(1, Ordering::Relaxed);
        let temporary = format!("{}{}-{number}", sweep::TEMPORARY, std::process::id());
        let fail = |errno, step| ObjectError::new(errno, step, &self.path(digest));
        self.link(file, &temporary).map_err(|errno| fail(errno, "link"))?;
        rustix::fs::renameat(&self.inner.dir, &*temporary, &self.inner.dir, name(digest)).map_err(|errno| {
            let _ = rustix::fs::unlinkat(&self.inner.dir, &*temporary, AtFlags::empty());
            fail(errno, "rename")
        })
    }

    /// Turns a written file into a sealed one that has the digest the kernel computed for it.
    fn sealed(&self, file: OwnedFd, digest: &VerityDigest) -> Result<OwnedFd, ObjectError> {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let sealed = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| self.fail(errno, "reopen"))?;
        drop(file);
        let mut patience = 20;
        loop {
            match sys::verity::enable_verity(&sealed) {
                Ok(()) => break,
                // A child that another thread forked holds the writable descriptor until its exec.
                Err(Errno::TXTBSY) if patience > 0 => patience -= 1,
                Err(errno) => return Err(self.fail(errno, "FS_IOC_ENABLE_VERITY")),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let found = sys::verity::measure_verity(&sealed)
            .map_err(|errno| self.fail(errno, "FS_IOC_MEASURE_VERITY"))?;
        if found == digest.0 {
            Ok(sealed)
        } else {
            Err(ObjectError::Mismatch { path: self.path(digest), found: VerityDigest(found) })
        }
    }

    fn fail(&self, errno: Errno, step: &'static str) -> ObjectError {
        ObjectError::new(errno, step, &self.inner.path)
    }
}

/// The name of an object below `objects/`: two hexadecimal digits, `/`, the other 62.
fn name(digest: &VerityDigest) -> String {
    let mut name = digest.hex();
    name.insert(2, '/');
    name
}

fn write_all(file: &OwnedFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(file, bytes) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// An object being written; without a name, and gone if dropped, until [`ObjectWriter::finish`].
#[derive(Debug)]
pub struct ObjectWriter {
    objects: Objects,
    file: OwnedFd,
    hasher: VerityHasher,
    size: u64,
    ends_in_hole: bool,
}

impl ObjectWriter {
    /// Appends `bytes`.
    ///
    /// # Errors
    /// [`ObjectError::Full`] if the filesystem is; else that of write(2).
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ObjectError> {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        self.ends_in_hole = false;
        write_all(&self.file, bytes).map_err(|errno| self.objects.fail(errno, "write"))
    }

    /// Appends `count` zeros as a hole: they are hashed, but take no space.
    ///
    /// # Errors
    /// Those of lseek(2).
    pub fn zeros(&mut self, count: u64) -> Result<(), ObjectError> {
        const ZEROS: [u8; 16 << 10] = [0; 16 << 10];
        let mut left = count;
        while left > 0 {
            let now = usize::try_from(left).unwrap_or(usize::MAX).min(ZEROS.len());
            self.hasher.update(&ZEROS[..now]);
            left -= now as u64;
        }
        self.size += count;
        rustix::fs::seek(&self.file, SeekFrom::Start(self.size))
            .map(|_| self.ends_in_hole = true)
            .map_err(|errno| self.objects.fail(errno, "seek"))
    }

    /// Bytes written so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Gives the content its name.
    ///
    /// # Errors
    /// As [`Objects::put`].
    pub fn finish(self) -> Result<(VerityDigest, Put), ObjectError> {
        if self.ends_in_hole {
            rustix::fs::ftruncate(&self.file, self.size)
                .map_err(|errno| self.objects.fail(errno, "ftruncate"))?;
        }
        let digest = self.hasher.finish();
        if self.objects.contains(&digest, self.size)? {
            return Ok((digest, Put::Present));
        }
        let put = self.objects.publish(self.file, &digest, self.size)?;
        Ok((digest, put))
    }
}
