//! The locks of the store. None is held while anybody waits for a registry, a mount or a caller.
//!
//! ```text
//! <store>/lock        flock: shared while a hold is noted, exclusive while the sweep removes
//! <store>             flock on the directory: of the one collection or repair that runs
//! ```
//! What must stay is in the holds ([`super::hold`]). The shared lock is taken for the microseconds of writing an entry:
//! whoever has noted an entry and finds the thing afterwards can rely on it, because every slice of a sweep that begins
//! later reads the entry first. Each [`Gate`] and each [`Exclusive`] is an open file description of its own, so threads
//! of one process exclude each other as processes do. All locks end with the process.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation::{self, NonBlockingLockExclusive, NonBlockingLockShared};
use rustix::io::Errno;

use super::disk::Disk;
use super::error::StoreError;
use crate::durable_file::try_lock;

/// The lock file, in the store's directory.
pub(super) const FILE: &str = "lock";
/// How often to try while another has the lock.
pub(super) const POLL: Duration = Duration::from_millis(2);
/// How often to look whether holds have ended.
const HOLDS_POLL: Duration = Duration::from_millis(10);
pub(super) const SWEEPING: &str = "a sweep is removing what no image needs";
const HELD: &str = "a pull or publish relies on what is to be removed";
const COLLECTING: &str = "another collection or repair is under way";

/// The locks of one store.
#[derive(Debug, Clone)]
pub(super) struct StoreLock {
    disk: Disk,
}

/// The store while nothing can be noted in a hold.
#[derive(Debug)]
pub(super) struct Exclusive {
    pub(super) lock: Locked,
}

/// The right to remove things, slice by slice.
#[derive(Debug)]
pub(super) struct Collecting {
    _lock: Locked,
}

/// A file with an exclusive lock, which ends with this value. Closing would not be enough: a program that is being
/// started has a copy of the descriptor for a moment.
#[derive(Debug)]
pub(super) struct Locked(File);

impl Drop for Locked {
    fn drop(&mut self) {
        // If it fails, the lock ends when the last copy is closed.
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

impl AsFd for Locked {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// One holder's way to the shared lock.
#[derive(Debug)]
pub(super) struct Gate {
    lock: File,
}

impl StoreLock {
    pub(super) fn new(disk: &Disk) -> Self {
        Self { disk: disk.clone() }
    }

    pub(super) fn gate(&self) -> Result<Gate, StoreError> {
        Ok(Gate { lock: self.open_lock()? })
    }

    /// The store's lock file, opened anew. Lost writes are told to files that were opened before they were made.
    pub(super) fn open_lock(&self) -> Result<File, StoreError> {
        let path = self.path();
        let mut options = OpenOptions::new();
        let opened = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let opened = match opened {
            // Enough for flock(2) and syncfs(2). NFS wants it writable, so that comes first.
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => File::open(&path),
            other => other,
        };
        opened.map_err(|error| self.disk.error("open", &path, error))
    }

    /// Keeps everybody from noting anything, as soon as nobody is doing so; gives up after `patience`. Blocking.
    pub(super) fn exclusive(&self, patience: Duration) -> Result<Exclusive, StoreError> {
        Ok(Exclusive { lock: self.lock(self.open_lock()?, patience, SWEEPING)? })
    }

    /// The same once `nothing_held` says, under the lock, that nobody holds what is to be changed.
    pub(super) fn exclusive_once(
        &self,
        patience: Duration,
        mut nothing_held: impl FnMut() -> Result<bool, StoreError>,
    ) -> Result<Exclusive, StoreError> {
        let deadline = Instant::now() + patience;
        loop {
            let all = self.exclusive(patience)?;
            if nothing_held()? {
                return Ok(all);
            }
            drop(all);
            if Instant::now() >= deadline {
                return Err(self.busy(HELD));
            }
            std::thread::sleep(HOLDS_POLL);
        }
    }

    /// As soon as no other collection or repair runs in any process; gives up after `patience`. Blocking.
    pub(super) fn collecting(&self, patience: Duration) -> Result<Collecting, StoreError> {
        let root = self.disk.root();
        // No file of its own, which a full disk might not have room for.
        let lock = File::open(root).map_err(|error| self.disk.error("open", root, error))?;
        Ok(Collecting { _lock: self.lock(lock, patience, COLLECTING)? })
    }

    pub(super) fn busy(&self, why: &'static str) -> StoreError {
        StoreError::Busy { store: self.disk.root().to_owned(), why }
    }

    fn lock(&self, file: File, patience: Duration, why: &'static str) -> Result<Locked, StoreError> {
        let deadline = Instant::now() + patience;
        // Tried at least once, even without patience. flock(2) has no waiting with a deadline.
        while !try_lock(&file, NonBlockingLockExclusive)
            .map_err(|error| self.disk.error("lock", self.disk.root(), error))?
        {
            if Instant::now() >= deadline {
                return Err(self.busy(why));
            }
            std::thread::sleep(POLL);
        }
        Ok(Locked(file))
    }

    fn path(&self) -> PathBuf {
        self.disk.root().join(FILE)
    }
}

impl Gate {
    /// Does `act` while no sweep removes anything. Waits for the end of a sweep's slice if it may `wait`, and else
    /// returns false during one.
    pub(super) fn pass(&self, wait: bool, act: impl FnOnce() -> io::Result<()>) -> io::Result<bool> {
        let entered = if wait { self.enter()? } else { try_lock(&self.lock, NonBlockingLockShared)? };
        if !entered {
            return Ok(false);
        }
        let done = act();
        rustix::fs::flock(&self.lock, FlockOperation::Unlock)?;
        done.map(|()| true)
    }

    fn enter(&self) -> io::Result<bool> {
        loop {
            match rustix::fs::flock(&self.lock, FlockOperation::LockShared) {
                Ok(()) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}
