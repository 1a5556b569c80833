//! Writing to the store's directory.
//!
//! Every step that a crash can separate from the next one passes through [`Disk::step`], so that
//! tests can stop the world before any of them, and so that every error names step and file and
//! tells a full disk apart.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::FlockOperation;

use super::StoreError;

/// Called with the name of each step before it is taken; an error is given to the caller as the
/// step's own. For fault injection in tests; does nothing by default.
#[derive(Clone, Default)]
pub struct Steps(Option<Arc<dyn Fn(&'static str) -> io::Result<()> + Send + Sync>>);

impl Steps {
    /// Calls `before` ahead of every step.
    pub fn new(before: impl Fn(&'static str) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(before)))
    }

    fn before(&self, doing: &'static str) -> io::Result<()> {
        self.0.as_ref().map_or(Ok(()), |before| before(doing))
    }
}

impl fmt::Debug for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Steps(watched)" } else { "Steps" })
    }
}

/// The store's directory, as something to write to.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    root: PathBuf,
    steps: Steps,
}

impl Disk {
    pub(super) fn new(root: &Path, steps: Steps) -> Self {
        Self { root: root.to_owned(), steps }
    }

    /// One step: `doing` it to `path`.
    pub(super) fn step<T>(
        &self,
        doing: &'static str,
        path: &Path,
        act: impl FnOnce() -> io::Result<T>,
    ) -> Result<T, StoreError> {
        self.steps.before(doing).and_then(|()| act()).map_err(|source| self.error(doing, path, source))
    }

    /// The error of a step that was not taken through [`Disk::step`].
    pub(super) fn error(&self, doing: &'static str, path: &Path, source: io::Error) -> StoreError {
        StoreError::io(&self.root, doing, path, source)
    }

    /// Makes `path` hold exactly `bytes`, all or nothing, and survive a power cut.
    pub(super) fn write_durably(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let mut temp = self.temp()?;
        let written = temp.path.clone();
        self.step("write", &written, || temp.file.write_all(bytes))?;
        self.step("sync", &written, || temp.file.sync_all())?;
        temp.rename(self, path)?;
        self.sync_parent(path)
    }

    /// The same in a directory that may have to be made, and then survives as well; its parent is there.
    pub(super) fn write_durably_in(
        &self,
        directory: &Path,
        name: &str,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        let new = self.make(directory)?;
        self.write_durably(&directory.join(name), bytes)?;
        if new { self.sync_parent(directory) } else { Ok(()) }
    }

    /// Makes a directory that nobody else may look into; one that is there is fine. Returns whether it is new.
    pub(super) fn make(&self, directory: &Path) -> Result<bool, StoreError> {
        self.step("make", directory, || match DirBuilder::new().mode(0o700).create(directory) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        })
    }

    /// Makes `path` hold exactly `bytes`, all or nothing as long as the machine runs.
    pub(super) fn write_for_this_boot(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let mut temp = self.temp()?;
        let written = temp.path.clone();
        self.step("write", &written, || temp.file.write_all(bytes))?;
        temp.rename(self, path)?;
        Ok(())
    }

    /// An empty file under a temporary name.
    pub(super) fn temp(&self) -> Result<Temp, StoreError> {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let directory = self.root.join("tmp");
        loop {
            let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_nanos());
            let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
            let path = directory.join(format!("{}-{nanos:x}-{serial:x}", std::process::id()));
            let opened = self.step("create", &path, || {
                match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
                    other => other.map(Some),
                }
            })?;
            let Some(file) = opened else { continue };
            // A cleaner may have taken the file between its creation and this lock.
            rustix::fs::flock(&file, FlockOperation::LockExclusive)
                .map_err(|errno| self.error("lock", &path, errno.into()))?;
            let links = file.metadata().map_err(|error| self.error("inspect", &path, error))?.nlink();
            if links > 0 {
                return Ok(Temp { file, path, kept: false });
            }
        }
    }

    /// Removes the file; one that is not there is fine. Returns whether it was.
    pub(super) fn remove(&self, path: &Path) -> Result<bool, StoreError> {
        self.step("remove", path, || match fs::remove_file(path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        })
    }

    /// Makes the names in a directory survive a power cut.
    pub(super) fn sync_directory(&self, directory: &Path) -> Result<(), StoreError> {
        self.step("sync directory", directory, || File::open(directory)?.sync_all())
    }

    /// Makes the name `path` survive a power cut.
    pub(super) fn sync_parent(&self, path: &Path) -> Result<(), StoreError> {
        self.sync_directory(path.parent().unwrap_or(&self.root))
    }

    /// Reads a small file whole; `None` if it does not exist.
    pub(super) fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
        match fs::read(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.error("read", path, error)),
        }
    }

    /// The names in a directory; none if it does not exist.
    pub(super) fn list(&self, directory: &Path) -> Result<Vec<std::ffi::OsString>, StoreError> {
        let fail = |error| self.error("list", directory, error);
        match fs::read_dir(directory) {
            Ok(entries) => entries.map(|entry| Ok(entry.map_err(fail)?.file_name())).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(fail(error)),
        }
    }
}

/// A file under a temporary name. It is locked while its writer lives, which tells a cleaner in any
/// process that it is no leftover. Dropped without [`Temp::rename`] it is gone.
#[derive(Debug)]
pub(super) struct Temp {
    pub(super) file: File,
    pub(super) path: PathBuf,
    kept: bool,
}

impl Temp {
    /// Gives the file its name, replacing what has it. The file stays open and locked.
    pub(super) fn rename(&mut self, disk: &Disk, to: &Path) -> Result<(), StoreError> {
        disk.step("rename a temporary file to", to, || fs::rename(&self.path, to))?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if !self.kept {
            // What stays behind is swept as a leftover.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Takes `file`'s lock alone, without waiting; false if somebody else has it.
pub(super) fn try_lock(file: impl AsFd, operation: FlockOperation) -> io::Result<bool> {
    match rustix::fs::flock(file, operation) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}
