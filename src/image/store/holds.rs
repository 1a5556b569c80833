//! The files of holds: `holds/<unique>`, one per holder, locked by flock(2) while the holder lives.
//!
//! An entry ([`super::held`]) is appended before the holder looks for the thing or makes it. Any process can read what
//! all others hold, and the file of a dead holder holds nothing: no clock is needed. Nothing is synced, since nothing is
//! held across a boot. The file of a holder that may have left things behind stays, unlocked: it says that a sweep
//! would find something.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::disk::Disk;
use super::error::StoreError;
use super::held::{self, Held};
use crate::durable_file::try_lock;

/// What the files of holders that may have left something behind are renamed to: one name, however many they are.
const ABANDONED: &str = "abandoned";
/// What that one is called while a sweep looks for what they left.
const SWEEPING: &str = "sweeping";
/// Entries read at a time.
const CHUNK: usize = 2048 * held::LENGTH;

/// The files of a store's holds.
#[derive(Debug, Clone)]
pub(super) struct Holds {
    disk: Disk,
    directory: PathBuf,
}

/// How far each file was read.
pub(super) type ReadSoFar = HashMap<OsString, u64>;

impl Holds {
    pub(super) const DIRECTORY: &str = "holds";

    pub(super) fn new(disk: &Disk) -> Self {
        Self { disk: disk.clone(), directory: disk.root().join(Self::DIRECTORY) }
    }

    /// A new file, locked from the moment that it has its name.
    pub(super) fn make(&self) -> Result<(File, PathBuf), StoreError> {
        let mut temporary = self.disk.temporary()?;
        let path = self.directory.join(temporary.path().file_name().unwrap_or_default());
        temporary.rename(&path).map_err(|error| self.disk.failed(error))?;
        // The clone shares the lock, which lasts as long as either is open.
        let file =
            temporary.file().try_clone().map_err(|error| self.disk.error("keep open", &path, error))?;
        Ok((file, path))
    }

    /// Ends a hold whose holder left nothing that is not recorded.
    pub(super) fn end(&self, path: &Path) {
        // A sweep removes what stays here.
        let _ = fs::remove_file(path);
    }

    /// Ends a hold whose holder may have left something.
    pub(super) fn abandon(&self, path: &Path) {
        let _ = fs::rename(path, self.directory.join(ABANDONED));
    }

    /// Calls `visit` for each entry of living holders that was not read before. Entries that were written before the
    /// exclusive lock was taken are all there.
    ///
    /// # Errors
    /// [`StoreError::Blocked`] if a later release holds something that this one does not know.
    pub(super) fn for_each_new(
        &self,
        read: &mut ReadSoFar,
        mut visit: impl FnMut(Held),
    ) -> Result<(), StoreError> {
        let mut buffer = vec![0; CHUNK];
        for name in self.disk.list(&self.directory)? {
            let path = self.directory.join(&name);
            let Some(file) = self.living(&path)? else { continue };
            let offset = read.entry(name).or_default();
            loop {
                let count = file
                    .read_at(&mut buffer, *offset)
                    .map_err(|error| self.disk.error("read", &path, error))?;
                let known = held::for_each(buffer.get(..count).unwrap_or_default(), &mut visit);
                let whole = known.ok_or_else(|| later_release(&path))?;
                if whole == 0 {
                    break;
                }
                *offset += whole as u64;
            }
        }
        Ok(())
    }

    /// Whether any holder lives.
    pub(super) fn any_living(&self) -> Result<bool, StoreError> {
        for name in self.disk.list(&self.directory)? {
            if self.living(&self.directory.join(name))?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a holder that is gone may have left something behind.
    pub(super) fn any_dead(&self) -> Result<bool, StoreError> {
        Ok(!self.list_dead()?.is_empty())
    }

    /// The files of such holders, for a sweep that begins now; only one collector at a time may ask.
    pub(super) fn dead(&self) -> Result<Vec<PathBuf>, StoreError> {
        // Under another name, so that a holder that ends during the sweep can leave its own.
        let _ = fs::rename(self.directory.join(ABANDONED), self.directory.join(SWEEPING));
        self.list_dead()
    }

    /// Removes such files, once the sweep has removed what their holders left.
    pub(super) fn remove(&self, dead: &[PathBuf]) -> Result<(), StoreError> {
        dead.iter().try_for_each(|path| self.disk.remove(path).map(drop))
    }

    fn list_dead(&self) -> Result<Vec<PathBuf>, StoreError> {
        let mut dead = Vec::new();
        for name in self.disk.list(&self.directory)? {
            let path = self.directory.join(name);
            if path.exists() && self.living(&path)?.is_none() {
                dead.push(path);
            }
        }
        Ok(dead)
    }

    /// The file, if its holder lives.
    fn living(&self, path: &Path) -> Result<Option<File>, StoreError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.disk.error("open", path, error)),
        };
        let free = try_lock(&file, FlockOperation::NonBlockingLockShared)
            .map_err(|error| self.disk.error("lock", path, error))?;
        Ok((!free).then_some(file))
    }
}

fn later_release(path: &Path) -> StoreError {
    StoreError::Blocked(format!(
        "{} is a hold of a later release, so what it needs is unknown; run that release, or wait for the end of its pull",
        path.display()
    ))
}
