//! Markers of unsynced objects: `dirty/<boot id>.<unique>`, one per hold that writes.
//!
//! A marker is durable before the first object of its hold is linked, and removed after a sync has
//! covered the hold's objects. Its writer holds an flock on it, so that any process can tell whether the writer
//! lives. A marker of another boot at opening means that the power went while objects were unsynced. What no image
//! record names may then be torn and is removed; what a record names was synced before the record was written. No
//! clock and no hashing is needed.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use rustix::fs::FlockOperation;

use super::disk::Disk;
use super::error::StoreError;
use crate::durable_file::try_lock;

/// The markers of one store, seen from one boot.
#[derive(Debug)]
pub(super) struct Markers {
    disk: Disk,
    directory: PathBuf,
    boot_id: String,
}

/// A marker whose lock is held here.
#[derive(Debug)]
pub(super) struct Marker {
    path: PathBuf,
    /// Holds the lock.
    _file: File,
}

impl Markers {
    pub(super) const DIRECTORY: &str = "dirty";

    pub(super) fn new(disk: &Disk, boot_id: &str) -> Self {
        let directory = disk.root().join(Self::DIRECTORY);
        Self { disk: disk.clone(), directory, boot_id: boot_id.to_owned() }
    }

    /// Makes a marker of this boot, durably.
    pub(super) fn make(&self) -> Result<Marker, StoreError> {
        let mut temporary = self.disk.temporary()?;
        let unique = temporary.path().file_name().map(|name| name.to_string_lossy().into_owned());
        let path = self.directory.join(format!("{}.{}", self.boot_id, unique.unwrap_or_default()));
        temporary.rename(&path).map_err(|error| self.disk.failed(error))?;
        self.disk.sync_directory(&self.directory)?;
        // The clone shares the lock, which lasts as long as either is open.
        let file =
            temporary.file().try_clone().map_err(|error| self.disk.error("keep open", &path, error))?;
        Ok(Marker { path, _file: file })
    }

    /// Removes markers whose writes a sync has covered. If the power goes first they come back, and cost a needless
    /// check.
    pub(super) fn remove(&self, covered: impl IntoIterator<Item = Marker>) -> Result<(), StoreError> {
        covered.into_iter().try_for_each(|marker| self.disk.remove(&marker.path).map(drop))
    }

    /// Markers of this boot whose writers are gone; their locks are taken. A sync from now on covers
    /// what those writers wrote.
    pub(super) fn abandoned(&self) -> Result<Vec<Marker>, StoreError> {
        let mut found = Vec::new();
        for name in self.disk.list(&self.directory)? {
            let path = self.directory.join(&name);
            if !self.is_of_this_boot(&name) {
                continue;
            }
            let file = match File::open(&path) {
                Ok(file) => file,
                // Its writer has committed since the listing.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(self.disk.error("open", &path, error)),
            };
            let fail = |error| self.disk.error("lock", &path, error);
            // Without a name it was removed between the listing and the lock.
            if try_lock(&file, FlockOperation::NonBlockingLockExclusive).map_err(fail)?
                && file.metadata().map_err(fail)?.nlink() > 0
            {
                found.push(Marker { path, _file: file });
            }
        }
        Ok(found)
    }

    /// Markers of other boots, and the one left by a failed sync.
    pub(super) fn of_other_boots(&self) -> Result<Vec<PathBuf>, StoreError> {
        let names = self.disk.list(&self.directory)?;
        let foreign = names.into_iter().filter(|name| !self.is_of_this_boot(name));
        Ok(foreign.map(|name| self.directory.join(name)).collect())
    }

    /// Removes those, once nothing is left that they warn of; durably.
    pub(super) fn remove_foreign(&self, markers: &[PathBuf]) -> Result<(), StoreError> {
        markers.iter().try_for_each(|marker| self.disk.remove(marker).map(drop))?;
        self.disk.sync_directory(&self.directory)
    }

    /// Waits until everything written so far is on disk. Of lost writes the kernel tells only files that
    /// were opened before (Linux 5.8).
    ///
    /// After a failure it is unknown what is on disk: the kernel reports a lost write once and then calls the
    /// page clean. So the failure is noted, and every later commit refuses until the store was reopened.
    pub(super) fn sync_filesystem(&self, opened_before: &File) -> Result<(), StoreError> {
        let (noted, root) = (self.failed_sync(), self.disk.root());
        if noted.exists() {
            return Err(StoreError::Unsound { store: root.to_owned() });
        }
        let synced =
            self.disk.step("sync the filesystem of", root, || Ok(rustix::fs::syncfs(opened_before)?));
        if let Err(error) = &synced {
            tracing::error!(%error, "the store's filesystem lost writes");
            self.disk.write_for_this_boot(&noted, b"")?;
        }
        synced
    }

    /// Where a failed sync is noted: as if by another boot, so that the next opening repairs.
    fn failed_sync(&self) -> PathBuf {
        self.directory.join("failed-sync")
    }

    fn is_of_this_boot(&self, marker: &OsStr) -> bool {
        marker.to_str().and_then(|name| name.split_once('.')).is_some_and(|(boot, _)| boot == self.boot_id)
    }
}
