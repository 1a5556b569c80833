//! The directory of a store's objects: creating and opening it, and looking objects up.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use super::error::ObjectError;
use super::keep::Keep;
use super::metrics::ObjectMetrics;
use super::room::Room;
use super::sources::ObjectSources;
use super::strangers::Strangers;
use crate::image::verity::VerityDigest;

/// The objects of one store. Cloning is cheap; all clones are the same directory.
#[derive(Debug, Clone)]
pub struct Objects {
    pub(super) inner: Arc<Inner>,
    /// Told of every object that is put.
    keeper: Option<Arc<dyn Keep>>,
}

#[derive(Debug)]
pub(super) struct Inner {
    /// `objects/`, opened with O_PATH.
    pub(super) dir: OwnedFd,
    pub(super) path: PathBuf,
    pub(super) sealing: Sealing,
    pub(super) sources: ObjectSources,
    /// Temporary names given so far.
    pub(super) temporaries: AtomicU64,
    pub(super) room: Room,
    pub(super) strangers: Strangers,
    pub(super) metrics: ObjectMetrics,
}

/// Which objects have fs-verity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::image) enum Sealing {
    /// None has to: the filesystem has no fs-verity.
    Off,
    /// New ones get it. Those that were written before may lack it.
    New,
    /// All; one without it counts as absent.
    All,
}

/// What the filesystem says of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::image) struct ObjectStat {
    /// Length in bytes.
    pub(in crate::image) size: u64,
    /// Bytes allocated on the filesystem for this store (st_blocks), without fs-verity's own metadata where the
    /// filesystem does not count that. None for a file that has names elsewhere, too (`adopt`): removing ours frees
    /// nothing.
    pub(in crate::image) allocated: u64,
    /// Whether fs-verity is enabled on the file.
    pub(in crate::image) has_verity: bool,
}

impl Objects {
    /// Creates `objects/` and its 256 directories below `store`, where they are missing. The caller
    /// syncs.
    ///
    /// # Errors
    /// Those of mkdir(2).
    pub fn create(store: &Path) -> Result<(), ObjectError> {
        let objects = store.join("objects");
        let make = |path: PathBuf| match std::fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(ObjectError::from_io(error, "mkdir", &path))
            }
            _ => Ok(()),
        };
        make(objects.clone())?;
        // All 256 now, so that no write has to create one.
        (0..=255u8).try_for_each(|byte| make(objects.join(hex::encode([byte]))))
    }

    /// Opens the objects of `store`. If `require_verity` is set, new objects get fs-verity, and objects
    /// without it count as absent. [`Objects::supports_verity`] tells whether the filesystem allows that.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn open(store: &Path, require_verity: bool) -> Result<Self, ObjectError> {
        let sealing = if require_verity { Sealing::All } else { Sealing::Off };
        Self::open_with(store, sealing, Room::unlimited(), ObjectSources::default())
    }

    /// The same, with writers that leave some room to others, and first look for an object in `sources`.
    ///
    /// # Errors
    /// Those of open(2).
    pub(in crate::image) fn open_with(
        store: &Path,
        sealing: Sealing,
        room: Room,
        sources: ObjectSources,
    ) -> Result<Self, ObjectError> {
        let path = store.join("objects");
        let dir = rustix::fs::open(
            &path,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::empty(),
        )
        .map_err(|errno| ObjectError::new(errno, "open", &path))?;
        let inner = Inner {
            dir,
            path,
            sealing,
            sources,
            temporaries: AtomicU64::new(0),
            room,
            strangers: Strangers::default(),
            metrics: ObjectMetrics::default(),
        };
        Ok(Self { inner: Arc::new(inner), keeper: None })
    }

    /// The same objects, where `keeper` is told of each one before it is put.
    pub(in crate::image) fn kept_by(&self, keeper: Arc<dyn Keep>) -> Self {
        Self { inner: Arc::clone(&self.inner), keeper: Some(keeper) }
    }

    pub(super) fn keep(&self, digest: &VerityDigest) -> Result<(), ObjectError> {
        self.keeper.as_ref().map_or(Ok(()), |keeper| keeper.keep(digest))
    }

    /// Whether objects without fs-verity count as absent.
    pub(in crate::image) fn requires_verity(&self) -> bool {
        self.inner.sealing == Sealing::All
    }

    /// Whether new objects get fs-verity.
    pub(in crate::image) fn seals(&self) -> bool {
        self.inner.sealing != Sealing::Off
    }

    pub(in crate::image) fn metrics(&self) -> &ObjectMetrics {
        &self.inner.metrics
    }

    /// Where an object is or would be.
    pub fn path(&self, digest: &VerityDigest) -> PathBuf {
        self.inner.path.join(name(digest))
    }

    /// Whether the object is here in full: it has this size, and fs-verity where the store requires it.
    ///
    /// # Errors
    /// Those of statx(2) other than `ENOENT`.
    pub fn contains(&self, digest: &VerityDigest, size: u64) -> Result<bool, ObjectError> {
        let stat = self.stat(digest)?;
        Ok(stat.is_some_and(|stat| stat.size == size && (stat.has_verity || !self.requires_verity())))
    }

    /// What the filesystem says of the object; `None` if there is none.
    ///
    /// # Errors
    /// Those of statx(2) other than `ENOENT`.
    pub(in crate::image) fn stat(&self, digest: &VerityDigest) -> Result<Option<ObjectStat>, ObjectError> {
        let wanted = StatxFlags::SIZE | StatxFlags::BLOCKS | StatxFlags::TYPE | StatxFlags::NLINK;
        match rustix::fs::statx(&self.inner.dir, name(digest), AtFlags::SYMLINK_NOFOLLOW, wanted) {
            // Something else in its place is no object.
            Ok(stat) if FileType::from_raw_mode(stat.stx_mode.into()) != FileType::RegularFile => Ok(None),
            Ok(stat) => Ok(Some(ObjectStat {
                size: stat.stx_size,
                // The kernel counts in units of 512 bytes, whatever the filesystem's block size.
                allocated: if stat.stx_nlink > 1 { 0 } else { stat.stx_blocks * 512 },
                has_verity: stat.stx_attributes.contains(StatxAttributes::VERITY),
            })),
            // The usual answer for new content, and not an error.
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(ObjectError::new(errno, "statx", &self.path(digest))),
        }
    }

    /// Opens an object for reading.
    ///
    /// # Errors
    /// [`ObjectError::Missing`] if it is not here, else those of open(2).
    pub fn get(&self, digest: &VerityDigest) -> Result<OwnedFd, ObjectError> {
        // A pipe in its place would be waited for.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        rustix::fs::openat(&self.inner.dir, name(digest), flags, Mode::empty()).map_err(|errno| match errno {
            Errno::NOENT => ObjectError::Missing(self.path(digest)),
            other => ObjectError::new(other, "open", &self.path(digest)),
        })
    }

    /// The error of a step on a file that has no name yet: it names the directory.
    pub(super) fn fail(&self, errno: Errno, step: &'static str) -> ObjectError {
        ObjectError::new(errno, step, &self.inner.path)
    }
}

/// The name of an object below `objects/`: two hexadecimal digits, `/`, the other 62.
pub(super) fn name(digest: &VerityDigest) -> String {
    let mut name = digest.hex();
    name.insert(2, '/');
    name
}
