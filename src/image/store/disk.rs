//! Writing to the store's directory.
//!
//! Every step that a crash can separate from the next one passes through [`Disk::step`], so that
//! tests can stop the world before any of them, and so that every error names step and file and
//! tells a full disk apart.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FlockOperation;

use super::error::StoreError;
use crate::durable_file::{self, StepError, Steps, Temporary, assert_may_block, try_lock};
use crate::image::objects::{Room, Strangers};

/// Files that are being written, each locked while its writer lives.
pub(super) const TEMPORARY: &str = "tmp";

/// The store's directory, as something to write to.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    root: PathBuf,
    steps: Steps,
    room: Room,
    strangers: Strangers,
    /// Why nothing is written, if nothing is.
    only_read: Option<Arc<str>>,
}

impl Disk {
    pub(super) fn new(root: &Path, steps: Steps) -> Self {
        let (room, strangers) = (Room::unlimited(), Strangers::default());
        Self { root: root.to_owned(), steps, room, strangers, only_read: None }
    }

    /// The same, on which no step is taken any more, for this reason.
    pub(super) fn only_read(self, why: &str) -> Self {
        let refuse = |_: &'static str| Err(io::ErrorKind::ReadOnlyFilesystem.into());
        Self { steps: Steps::new(refuse), only_read: Some(why.into()), ..self }
    }

    /// Whether nothing is written here, whatever the filesystem allows.
    pub(super) fn is_only_read(&self) -> bool {
        self.only_read.is_some()
    }

    /// The same, with writers of much that leave some room to others.
    pub(super) fn with_room(self, room: Room) -> Self {
        Self { room, ..self }
    }

    /// What was found that is not the store's.
    pub(super) fn strangers(&self) -> &Strangers {
        &self.strangers
    }

    /// What writers of much may still write.
    pub(super) fn room(&self) -> &Room {
        &self.room
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
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
        match (StoreError::io(&self.root, doing, path, source), &self.only_read) {
            (StoreError::ReadOnly { store, doing }, Some(why)) => {
                StoreError::OnlyRead { store, doing, why: why.to_string() }
            }
            (error, _) => error,
        }
    }

    /// The error of a step of writing a file.
    pub(super) fn failed(&self, failed: StepError) -> StoreError {
        self.error(failed.step.doing(), &failed.path, failed.source)
    }

    /// Makes `path` hold exactly `bytes`, all or nothing, and survive a power cut.
    pub(super) fn write_durably(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let mut temporary = self.temporary()?;
        let written = temporary.write(bytes).and_then(|()| temporary.sync());
        written.and_then(|()| temporary.rename(path)).map_err(|error| self.failed(error))?;
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
        // The directory's own name is synced last: until then a power cut takes the directory with the file in it.
        self.write_durably(&directory.join(name), bytes)?;
        if new { self.sync_parent(directory) } else { Ok(()) }
    }

    /// Makes a directory that only its owner may look into; one that is there is fine. Returns whether it is new.
    pub(super) fn make(&self, directory: &Path) -> Result<bool, StoreError> {
        self.step("make", directory, || match DirBuilder::new().mode(0o700).create(directory) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        })
    }

    /// Makes `path` hold exactly `bytes`, all or nothing as long as the machine runs.
    pub(super) fn write_for_this_boot(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let mut temporary = self.temporary()?;
        let written = temporary.write(bytes).and_then(|()| temporary.rename(path));
        written.map_err(|error| self.failed(error))
    }

    /// An empty file under a temporary name.
    pub(super) fn temporary(&self) -> Result<Temporary, StoreError> {
        Temporary::create_locked(&self.root.join(TEMPORARY), &self.steps).map_err(|error| self.failed(error))
    }

    /// Removes the file; one that is not there is fine. Returns whether it was.
    pub(super) fn remove(&self, path: &Path) -> Result<bool, StoreError> {
        self.step("remove", path, || match fs::remove_file(path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        })
    }

    /// Removes a directory if nothing is left in it.
    pub(super) fn remove_empty(&self, directory: &Path) -> Result<(), StoreError> {
        self.step("remove", directory, || match fs::remove_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            other => other,
        })
    }

    /// Removes a directory and what is in it.
    pub(super) fn remove_all(&self, directory: &Path) -> Result<(), StoreError> {
        self.step("remove", directory, || fs::remove_dir_all(directory))
    }

    /// Removes temporary files whose writers are dead. Needs the store's exclusive lock.
    pub(super) fn remove_leftovers(&self) -> Result<(), StoreError> {
        let directory = self.root.join(TEMPORARY);
        for name in self.files(&directory, |_| true)? {
            let path = directory.join(name);
            // A writer needs no hold, so it may be alive; and it may have renamed the file since the listing.
            let Ok(file) = fs::File::open(&path) else { continue };
            let lock = FlockOperation::NonBlockingLockExclusive;
            if try_lock(&file, lock).map_err(|error| self.error("lock", &path, error))? {
                self.remove(&path)?;
            }
        }
        Ok(())
    }

    /// Makes the names in a directory survive a power cut.
    pub(super) fn sync_directory(&self, directory: &Path) -> Result<(), StoreError> {
        durable_file::sync_directory(directory, &self.steps).map_err(|error| self.failed(error))
    }

    /// Makes the name `path` survive a power cut.
    pub(super) fn sync_parent(&self, path: &Path) -> Result<(), StoreError> {
        self.sync_directory(path.parent().unwrap_or(&self.root))
    }

    /// Reads a small file whole; `None` if it does not exist, or is no file.
    pub(super) fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
        assert_may_block();
        // A pipe in its place would be waited for.
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        let read = opened.and_then(|mut file| {
            if !file.metadata()?.is_file() {
                self.strangers.note(path);
                return Ok(None);
            }
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(Some(bytes))
        });
        match read {
            Ok(found) => Ok(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.error("read", path, error)),
        }
    }

    /// All names in a directory; none if it does not exist.
    pub(super) fn list(&self, directory: &Path) -> Result<Vec<std::ffi::OsString>, StoreError> {
        assert_may_block();
        let fail = |error| self.error("list", directory, error);
        self.read_directory(directory)?.map(|entry| Ok(entry.map_err(fail)?.file_name())).collect()
    }

    /// The entries of a directory; none if it does not exist.
    pub(super) fn read_directory(
        &self,
        directory: &Path,
    ) -> Result<impl Iterator<Item = io::Result<fs::DirEntry>> + use<>, StoreError> {
        match fs::read_dir(directory) {
            Ok(entries) => Ok(Some(entries).into_iter().flatten()),
            // Such as the staging of this boot, or the records of an image of which nothing is recorded yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None.into_iter().flatten()),
            Err(error) => Err(self.error("list", directory, error)),
        }
    }
}
