//! The lock of the store: shared by those who use it, exclusive for removing.
//!
//! A [`Lease`] keeps every object, layer and record that its holder finds or writes; the sweep has
//! the store alone. Within the process that is a fair read-write lock, against other processes an
//! flock(2) on `<store>/lock`, one open file description per lease. Both end with the process.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use super::disk::Disk;
use super::error::StoreError;
use super::markers::Marker;
use crate::durable_file::try_lock;

/// The lock file, in the store's directory.
pub(super) const FILE: &str = "lock";
/// How often to try while another process holds the lock.
const POLL: Duration = Duration::from_millis(5);
const SWEEPING: &str = "a sweep is removing what no image needs";
const LEASED: &str = "pulls or publishes are under way";

/// Keeps the sweep away while it lives. Cheap to clone; the last clone ends it.
///
/// Its file descriptor was opened before anything was written under it, so `syncfs` through it
/// reports every failed write-back since (Linux 5.8).
#[derive(Debug, Clone)]
pub struct Lease(Arc<Held>);

#[derive(Debug)]
struct Held {
    /// Present once this lease has begun to write. Declared first: its lock goes before the lease's.
    marker: Mutex<Option<Marker>>,
    lock: File,
    _process: OwnedRwLockReadGuard<()>,
}

impl Lease {
    pub(super) fn file(&self) -> &File {
        &self.0.lock
    }

    /// The marker of this lease's writes, made by `make` if there is none.
    pub(super) fn mark(&self, make: impl FnOnce() -> Result<Marker, StoreError>) -> Result<(), StoreError> {
        let mut marker = self.0.marker.lock().unwrap_or_else(PoisonError::into_inner);
        // Held while the marker is made: no clone may write before it is durable.
        if marker.is_none() {
            *marker = Some(make()?);
        }
        Ok(())
    }

    /// Takes the marker away, once a sync has covered all that was written.
    pub(super) fn take_marker(&self) -> Option<Marker> {
        self.0.marker.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The store without any other user.
#[derive(Debug)]
pub(super) struct Exclusive {
    pub(super) lock: File,
    _process: OwnedRwLockWriteGuard<()>,
}

/// Hands out leases.
#[derive(Debug)]
pub(super) struct StoreLock {
    store: PathBuf,
    path: PathBuf,
    disk: Disk,
    /// Within this process.
    process: Arc<RwLock<()>>,
}

impl StoreLock {
    pub(super) fn new(disk: &Disk) -> Self {
        let (store, path) = (disk.root().to_owned(), disk.root().join(FILE));
        Self { store, path, disk: disk.clone(), process: Arc::default() }
    }

    /// A lease, as soon as no sweep runs; gives up after `patience`.
    pub(super) async fn shared(&self, patience: Duration) -> Result<Lease, StoreError> {
        let deadline = tokio::time::Instant::now() + patience;
        let waiting = Arc::clone(&self.process).read_owned();
        // This process first: its lock is fair, so no waiting caller is overtaken without end.
        let process = tokio::time::timeout_at(deadline, waiting).await.map_err(|_| self.busy(SWEEPING))?;
        let lock = self.open()?;
        // flock(2) has no waiting with a deadline.
        while !self.lock(&lock, FlockOperation::NonBlockingLockShared)? {
            if tokio::time::Instant::now() >= deadline {
                return Err(self.busy(SWEEPING));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(lease(lock, process))
    }

    /// The same for callers that may block.
    pub(super) fn shared_blocking(&self, patience: Duration) -> Result<Lease, StoreError> {
        let lock = self.open()?;
        let process =
            self.wait(patience, SWEEPING, || Ok(Arc::clone(&self.process).try_read_owned().ok()))?;
        self.wait(patience, SWEEPING, || {
            Ok(self.lock(&lock, FlockOperation::NonBlockingLockShared)?.then_some(()))
        })?;
        Ok(lease(lock, process))
    }

    /// The store without any other user, as soon as no lease exists in any process; gives up after `patience`.
    /// Blocking.
    pub(super) fn exclusive(&self, patience: Duration) -> Result<Exclusive, StoreError> {
        let lock = self.open()?;
        // Both at once or neither: holding one while waiting for the other would keep leases out.
        let process = self.wait(patience, LEASED, || {
            let Ok(process) = Arc::clone(&self.process).try_write_owned() else { return Ok(None) };
            Ok(self.lock(&lock, FlockOperation::NonBlockingLockExclusive)?.then_some(process))
        })?;
        Ok(Exclusive { lock, _process: process })
    }

    fn wait<T>(
        &self,
        patience: Duration,
        why: &'static str,
        mut attempt: impl FnMut() -> Result<Option<T>, StoreError>,
    ) -> Result<T, StoreError> {
        let deadline = Instant::now() + patience;
        loop {
            // Tried at least once, even without patience.
            if let Some(value) = attempt()? {
                return Ok(value);
            }
            if Instant::now() >= deadline {
                return Err(self.busy(why));
            }
            std::thread::sleep(POLL);
        }
    }

    fn open(&self) -> Result<File, StoreError> {
        let mut options = OpenOptions::new();
        let opened = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&self.path);
        let opened = match opened {
            // Enough for flock(2) and syncfs(2). NFS wants it writable, so that comes first.
            Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => File::open(&self.path),
            other => other,
        };
        opened.map_err(|error| self.disk.error("open", &self.path, error))
    }

    fn lock(&self, file: &File, operation: FlockOperation) -> Result<bool, StoreError> {
        try_lock(file, operation).map_err(|error| self.disk.error("lock", &self.path, error))
    }

    fn busy(&self, why: &'static str) -> StoreError {
        StoreError::Busy { store: self.store.clone(), why }
    }
}

fn lease(lock: File, process: OwnedRwLockReadGuard<()>) -> Lease {
    Lease(Arc::new(Held { marker: Mutex::new(None), lock, _process: process }))
}
