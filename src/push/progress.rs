//! How far a push is, for whoever shows it.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

/// The progress of a push that may not have begun.
#[derive(Debug, Clone, Default)]
pub struct Watch(Arc<OnceLock<Arc<Progress>>>);

impl Watch {
    /// The progress, once the directory has been looked through.
    pub fn get(&self) -> Option<&Arc<Progress>> {
        self.0.get()
    }

    pub(super) fn set(&self, progress: &Arc<Progress>) {
        // A watch is of one push.
        let _ = self.0.set(Arc::clone(progress));
    }
}

/// The blobs of a push.
#[derive(Debug)]
pub struct Progress {
    /// In the order of the manifest.
    pub blobs: Vec<Arc<BlobProgress>>,
}

/// How far a blob is.
#[derive(Debug, Default)]
pub struct BlobProgress {
    /// A file, or which layer it is.
    pub name: String,
    state: AtomicU8,
    /// Bytes of its files; of the blob once they are known.
    total: AtomicU64,
    done: AtomicU64,
}

/// What is done for a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobState {
    /// Nothing yet.
    Waiting,
    /// Its bytes are read for their digest.
    Reading,
    /// It is sent.
    Sending,
    /// It was sent.
    Sent,
    /// The repository had it.
    Present,
    /// The registry took it from another repository.
    Mounted,
}

const STATES: [BlobState; 6] = [
    BlobState::Waiting,
    BlobState::Reading,
    BlobState::Sending,
    BlobState::Sent,
    BlobState::Present,
    BlobState::Mounted,
];

impl BlobProgress {
    pub(super) fn new(name: String, bytes: u64) -> Self {
        Self { name, total: AtomicU64::new(bytes), ..Self::default() }
    }

    /// What is done for it.
    pub fn state(&self) -> BlobState {
        STATES.get(usize::from(self.state.load(Relaxed))).copied().unwrap_or(BlobState::Waiting)
    }

    /// Bytes of the step, and how many are done.
    pub fn step(&self) -> (u64, u64) {
        let total = self.total.load(Relaxed);
        (total, self.done.load(Relaxed).min(total))
    }

    pub(super) fn enter(&self, state: BlobState, total: Option<u64>) {
        self.done.store(0, Relaxed);
        if let Some(total) = total {
            self.total.store(total, Relaxed);
        }
        let number = STATES.iter().position(|known| *known == state).unwrap_or_default();
        self.state.store(u8::try_from(number).unwrap_or_default(), Relaxed);
    }

    pub(super) fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Relaxed);
    }
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count =
            |wanted: &[BlobState]| self.blobs.iter().filter(|blob| wanted.contains(&blob.state())).count();
        let sent: u64 = self
            .blobs
            .iter()
            .filter(|blob| blob.state() == BlobState::Sending)
            .map(|blob| blob.step().1)
            .sum();
        let there = count(&[BlobState::Sent, BlobState::Present, BlobState::Mounted]);
        write!(
            f,
            "{there} of {} blobs are there, {} are read",
            self.blobs.len(),
            count(&[BlobState::Reading])
        )?;
        write!(f, ", {} of {} sent", crate::units::bytes(sent), count(&[BlobState::Sending]))
    }
}
