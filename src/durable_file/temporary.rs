//! A file under a temporary name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::FlockOperation;

use super::{Step, StepError, Steps};

/// A file under a temporary name. Dropped before [`Temporary::rename`] it is gone.
#[derive(Debug)]
pub struct Temporary {
    file: File,
    path: PathBuf,
    steps: Steps,
    renamed: bool,
}

impl Temporary {
    /// An empty file at `path`, in the place of what a killed writer has left there.
    ///
    /// # Errors
    /// [`Step::Create`].
    pub fn create(path: PathBuf, steps: &Steps) -> Result<Self, StepError> {
        let file = steps.take(Step::Create, &path, || File::create(&path))?;
        Ok(Self { file, path, steps: steps.clone(), renamed: false })
    }

    /// An empty file that only its owner may read (mode 0600), under a name in `directory` that no other writer in
    /// any process has. It is locked while it is open, which tells a cleaner that it is no leftover.
    ///
    /// # Errors
    /// [`Step::Create`], [`Step::Lock`] and [`Step::Inspect`].
    pub fn create_locked(directory: &Path, steps: &Steps) -> Result<Self, StepError> {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        loop {
            // The time, because another process may have had this id before.
            let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_nanos());
            let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
            let path = directory.join(format!("{}-{nanos:x}-{serial:x}", std::process::id()));
            let opened = steps.take(Step::Create, &path, || {
                match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
                    other => other.map(Some),
                }
            })?;
            let Some(file) = opened else { continue };
            let failed = |step, source| StepError { step, path: path.clone(), source };
            rustix::fs::flock(&file, FlockOperation::LockExclusive)
                .map_err(|errno| failed(Step::Lock, errno.into()))?;
            // A cleaner may have removed the file between its creation and the lock.
            if file.metadata().map_err(|error| failed(Step::Inspect, error))?.nlink() > 0 {
                return Ok(Self { file, path, steps: steps.clone(), renamed: false });
            }
        }
    }

    /// The file, for writing what comes as a stream.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// The temporary name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// [`Step::Write`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StepError> {
        self.steps.take(Step::Write, &self.path, || self.file.write_all(bytes))
    }

    /// Makes the content survive a power cut.
    ///
    /// # Errors
    /// [`Step::Sync`].
    pub fn sync(&self) -> Result<(), StepError> {
        self.steps.take(Step::Sync, &self.path, || self.file.sync_all())
    }

    /// Gives the file its name, replacing what has it. The file stays open, and locked if it was.
    ///
    /// # Errors
    /// [`Step::Rename`], which is about the new name.
    pub fn rename(&mut self, to: &Path) -> Result<(), StepError> {
        self.steps.take(Step::Rename, to, || fs::rename(&self.path, to))?;
        self.renamed = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.renamed {
            // Where this fails, the owner of the directory removes the file at its next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Takes the lock of `file` without waiting; false if another holder has it.
///
/// # Errors
/// Those of flock(2) other than `EWOULDBLOCK`.
pub fn try_lock(file: impl AsFd, operation: FlockOperation) -> io::Result<bool> {
    match rustix::fs::flock(file, operation) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}
