//! Markers of unsynced objects: `dirty/<boot id>.<unique>`, one per lease that writes.
//!
//! A marker is durable before the first object of its lease is linked, and removed after a sync has
//! covered the lease's objects. Its writer holds an flock on it, so anybody can tell whose writer is
//! gone. A marker of another boot at opening means: the power went while objects were unsynced.
//! What no image record reaches may then be torn and is removed, whatever it looks like; what a
//! record reaches was synced before the record was written. No clock and no hashing is needed.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use rustix::fs::FlockOperation;

use super::StoreError;
use super::disk::Disk;
use super::layout::Layout;
use crate::durable_file::try_lock;

/// A marker whose lock is held here.
#[derive(Debug)]
pub(super) struct Marker {
    path: PathBuf,
    /// Holds the lock.
    _file: File,
}

impl Marker {
    /// Makes a marker of this boot, durably.
    pub(super) fn make(disk: &Disk, layout: &Layout) -> Result<Self, StoreError> {
        let mut temporary = disk.temporary()?;
        let unique = temporary.path().file_name().map(|name| name.to_string_lossy().into_owned());
        let path = layout.dirty().join(format!("{}.{}", layout.boot_id(), unique.unwrap_or_default()));
        temporary.rename(&path).map_err(|error| disk.failed(error))?;
        disk.sync_directory(&layout.dirty())?;
        let file = temporary.file().try_clone().map_err(|error| disk.error("keep open", &path, error))?;
        Ok(Self { path, _file: file })
    }

    /// Removes the marker. If the power goes first it comes back, and costs a needless check.
    pub(super) fn remove(self, disk: &Disk) -> Result<(), StoreError> {
        disk.remove(&self.path).map(drop)
    }
}

/// Markers of this boot whose writers are gone; their locks are taken. A sync from now on covers
/// what those writers wrote.
pub(super) fn abandoned(disk: &Disk, layout: &Layout) -> Result<Vec<Marker>, StoreError> {
    let mut found = Vec::new();
    for name in disk.list(&layout.dirty())? {
        let path = layout.dirty().join(&name);
        if !is_of_this_boot(&name, layout) {
            continue;
        }
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(disk.error("open", &path, error)),
        };
        let fail = |error| disk.error("lock", &path, error);
        if try_lock(&file, FlockOperation::NonBlockingLockExclusive).map_err(fail)?
            && file.metadata().map_err(fail)?.nlink() > 0
        {
            found.push(Marker { path, _file: file });
        }
    }
    Ok(found)
}

/// Markers of other boots, and the one left by a failed sync.
pub(super) fn of_other_boots(disk: &Disk, layout: &Layout) -> Result<Vec<PathBuf>, StoreError> {
    let names = disk.list(&layout.dirty())?;
    let foreign = names.into_iter().filter(|name| !is_of_this_boot(name, layout));
    Ok(foreign.map(|name| layout.dirty().join(name)).collect())
}

/// Where a failed sync is noted: as if by another boot, so that the next opening repairs.
pub(super) fn unsound(layout: &Layout) -> PathBuf {
    layout.dirty().join("failed-sync")
}

fn is_of_this_boot(marker: &OsStr, layout: &Layout) -> bool {
    marker.to_str().and_then(|name| name.split_once('.')).is_some_and(|(boot, _)| boot == layout.boot_id())
}
