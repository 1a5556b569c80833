//! Partial blobs: what has been received of the compressed blobs of layers, for the next process to go on with.
//!
//! ```text
//! <store>/partial/<boot id>/<hash>    one file per blob, registry and credential, locked while it is being fetched
//! ```
//! A file serves only the credential that it was received with, at the registry that it came from, by the rule that holds
//! for whole layers as well (`docs/tenancy.md`). Nothing is synced: a killed process loses no page cache, and what another
//! boot has left is removed, as staged layers are (ADR 0001). Nor is anything authenticated: the blob is hashed from its
//! first byte when it is unpacked, wherever its bytes come from (ADR 0031).
//!
//! No hold keeps these files. Their lock says that they are used; others go by age, or when room is short.

mod geometry;
mod partial;
#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::FlockOperation;

pub(crate) use self::geometry::Geometry;
use self::partial::allocated;
pub use self::partial::{NotKept, Partial};
use crate::durable_file::try_lock;
use crate::image::store::disk::Disk;
use crate::image::store::error::StoreError;
use crate::image::store::file_name::is_digest;
use crate::image::store::space::Spare;
use crate::oci::digest::Digest;

/// Percent of the filesystem's bytes that files of blobs which nobody fetches may take. Beyond it the oldest go, but for those
/// that were written to just now: after a restart, the layers of one image are gone on with one by one.
const IDLE_MAX: u64 = 10;
const JUST_NOW: Duration = Duration::from_secs(600);

/// How long the lock of a file is waited for: a pull that has ended needs a moment until its threads have, too.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is tried.
const POLL: Duration = Duration::from_millis(10);

/// The blob that a file is about, and who receives it from where.
#[derive(Debug, Clone, Copy)]
pub struct PartialOf<'a> {
    /// The compressed blob.
    pub blob: &'a Digest,
    /// Its bytes, as its descriptor says.
    pub size: u64,
    /// The registry's host.
    pub host: &'a str,
    /// As whom it is read, in any words that tell readers apart.
    pub reader: &'a str,
}

/// The partial blobs of a store.
#[derive(Debug)]
pub struct Partials {
    disk: Disk,
    boot_id: String,
    spare: Spare,
    /// How long a file stays that nobody goes on with; zero for no files at all.
    keep: Duration,
}

impl Partials {
    pub(in crate::image::store) const DIRECTORY: &str = "partial";

    pub(in crate::image::store) fn new(disk: &Disk, boot_id: &str, spare: Spare, keep: Duration) -> Self {
        Self { disk: disk.clone(), boot_id: boot_id.to_owned(), spare, keep }
    }

    /// Opens the file of a blob, and tells how many bytes are there of each piece: with `piece` bytes each in a new file.
    /// `None` if none is kept, there is little room, or another process is receiving the blob. Blocking.
    ///
    /// # Errors
    /// Those of making a file. The blob can be fetched without.
    pub fn open(&self, of: PartialOf<'_>, piece: u64) -> Result<Option<(Partial, Vec<u64>)>, StoreError> {
        if self.keep.is_zero() {
            return Ok(None);
        }
        let directory = self.disk.root().join(Self::DIRECTORY).join(&self.boot_id);
        // A sweep removes empty directories of this boot, too.
        self.disk.step("make", &directory, || fs::create_dir_all(&directory))?;
        let path = directory.join(name_of(of));
        let open = || open_locked(&path);
        let Some(file) = self.disk.step("open", &path, open)? else { return Ok(None) };
        // Only now: what is gone on with is no surplus, however large it is.
        self.remove_surplus()?;
        let (disk, spare) = (&self.disk, &self.spare);
        let wanted = Geometry::new(of.size, piece);
        let (partial, have) = Partial::resume((file, path), (disk, spare), of.blob, wanted)?;
        let left = of.size.saturating_sub(have.iter().sum());
        if let Err(why) = partial.look_for_room(left) {
            tracing::debug!(blob = %of.blob, %why, "no part of the layer is kept");
            return partial.remove().map(|()| None);
        }
        Ok(Some((partial, have)))
    }

    /// Bytes of a blob that are here for its next pull, as the file's disk space tells; nothing where there is no file.
    pub fn received(&self, of: PartialOf<'_>) -> u64 {
        let path = self.disk.root().join(Self::DIRECTORY).join(&self.boot_id).join(name_of(of));
        fs::symlink_metadata(path).map_or(0, |found| allocated(&found).min(of.size))
    }

    /// Removes what nobody may go on with any more: files of other boots, and those that have been idle for so long that
    /// they are not kept. Returns their disk space in bytes. Blocking.
    ///
    /// # Errors
    /// Those of reading directories and removing files.
    pub(in crate::image::store) fn remove_expired(&self) -> Result<u64, StoreError> {
        self.remove_idle(self.keep)
    }

    /// The same with files that have been idle for `age`.
    pub(in crate::image::store) fn remove_idle(&self, age: Duration) -> Result<u64, StoreError> {
        let (now, mut freed) = (SystemTime::now(), 0);
        let parent = self.disk.root().join(Self::DIRECTORY);
        for boot in self.disk.directories(&parent, |_| true)? {
            let (directory, mine) = (parent.join(&boot), *boot == *self.boot_id);
            for file in self.files(&directory)? {
                // The clock may have been set back.
                let idle = now.duration_since(file.modified).unwrap_or_default();
                if !mine || idle >= age {
                    freed += self.remove_unless_used(&file)?;
                }
            }
            if !mine {
                self.disk.remove_empty(&directory)?;
            }
        }
        Ok(freed)
    }

    /// Removes the oldest files that nobody uses, where they take too much together.
    fn remove_surplus(&self) -> Result<(), StoreError> {
        let mut files = self.files(&self.disk.root().join(Self::DIRECTORY).join(&self.boot_id))?;
        let most = self.spare.total() / 100 * IDLE_MAX;
        let mut taken: u64 = files.iter().map(|file| file.allocated).sum();
        files.sort_by_key(|file| file.modified);
        let now = SystemTime::now();
        let is_old = |file: &Found| now.duration_since(file.modified).unwrap_or_default() >= JUST_NOW;
        for file in files.into_iter().filter(is_old) {
            if taken <= most {
                break;
            }
            taken = taken.saturating_sub(self.remove_unless_used(&file)?);
        }
        Ok(())
    }

    fn files(&self, directory: &Path) -> Result<Vec<Found>, StoreError> {
        let mut found = Vec::new();
        for name in self.disk.files(directory, is_partial)? {
            let path = directory.join(name);
            let metadata = match fs::symlink_metadata(&path) {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(self.disk.error("inspect", &path, error)),
            };
            let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            found.push(Found { path, modified, allocated: allocated(&metadata) });
        }
        Ok(found)
    }

    /// Removes a file that nobody has locked. Returns its disk space.
    fn remove_unless_used(&self, found: &Found) -> Result<u64, StoreError> {
        let path = &found.path;
        // Removed or used by somebody else since it was listed.
        let Ok(file) = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path) else {
            return Ok(0);
        };
        let lock = FlockOperation::NonBlockingLockExclusive;
        if !try_lock(&file, lock).map_err(|error| self.disk.error("lock", path, error))? {
            return Ok(0);
        }
        Ok(if self.disk.remove(path)? { found.allocated } else { 0 })
    }
}

/// A file that is there.
struct Found {
    path: PathBuf,
    modified: SystemTime,
    allocated: u64,
}

fn is_partial(name: &OsStr) -> bool {
    is_digest(name, &[""])
}

/// What the file is called by. A host may be longer than a file name and has colons, so all is hashed.
fn name_of(of: PartialOf<'_>) -> String {
    let PartialOf { blob, host, reader, .. } = of;
    Digest::of(format!("{blob}\0{host}\0{reader}").as_bytes()).hex()
}

/// The file at `path`, made if there is none, and locked; `None` if another one has it and keeps it.
fn open_locked(path: &Path) -> io::Result<Option<File>> {
    let end = Instant::now() + PATIENCE;
    loop {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is not a file; remove it"));
        }
        if !try_lock(&file, FlockOperation::NonBlockingLockExclusive)? {
            if Instant::now() >= end {
                return Ok(None);
            }
            std::thread::sleep(POLL);
            continue;
        }
        // A sweep may have removed it between the two.
        if file.metadata()?.nlink() > 0 {
            return Ok(Some(file));
        }
    }
}
