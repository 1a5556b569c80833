//! Hands the bytes of a partial blob in order to the pipeline, which waits for them on a thread of its own.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::image::store::Partial;

/// Bytes that are read at a time: enough for the system call not to count, and for the cache.
const READ: usize = 64 << 10;

/// The network's end. Dropped, there is no more to come than was said.
#[derive(Debug)]
pub(in crate::pull) struct Feed(Arc<Shared>);

/// The pipeline's end: the blob's bytes from the first one to where the network's end says.
#[derive(Debug)]
pub(in crate::pull) struct Reader {
    shared: Arc<Shared>,
    partial: Arc<Partial>,
    at: u64,
}

#[derive(Debug, Default)]
struct Shared {
    said: Mutex<Said>,
    more: Condvar,
    /// Bytes that the pipeline has taken.
    taken: AtomicU64,
    /// Wakes the network's end: the pipeline has taken some, or is gone.
    moved: Notify,
    gone: AtomicBool,
    /// Bytes that are here could not be read.
    unreadable: AtomicBool,
    /// The room that they take is wanted by others once they are read.
    given_up: AtomicBool,
}

#[derive(Debug, Default)]
struct Said {
    /// Bytes that are here without a gap.
    here: u64,
    /// Whether it stays at that.
    is_all: bool,
}

impl Feed {
    /// Both ends for a partial blob of which nothing is said to be here yet.
    pub(in crate::pull) fn new(partial: &Arc<Partial>) -> (Self, Reader) {
        let shared = Arc::<Shared>::default();
        (Self(Arc::clone(&shared)), Reader { shared, partial: Arc::clone(partial), at: 0 })
    }

    /// Says that so many bytes are here without a gap.
    pub(super) fn here(&self, bytes: u64) {
        let mut said = self.0.said();
        if bytes > said.here {
            said.here = bytes;
            self.0.more.notify_one();
        }
    }

    /// Says that no more come than `bytes`, which are here.
    pub(super) fn all(self, bytes: u64) {
        self.here(bytes);
    }

    /// The same, where there is no room for them once they have been read.
    pub(super) fn give_up(self, bytes: u64) {
        self.0.given_up.store(true, Ordering::Release);
        self.here(bytes);
    }

    /// Bytes that the pipeline has taken.
    pub(super) fn taken(&self) -> u64 {
        self.0.taken.load(Ordering::Acquire)
    }

    /// Whether the pipeline has ended: it failed.
    pub(super) fn is_gone(&self) -> bool {
        self.0.gone.load(Ordering::Acquire)
    }

    /// Waits until the pipeline has taken more, or is gone. One that was told meanwhile is told now.
    pub(super) async fn moved(&self) {
        self.0.moved.notified().await;
    }

    /// Tells, once the pipeline has ended, whether it could not read what is here.
    pub(in crate::pull) fn damage(&self) -> Damage {
        Damage(Arc::clone(&self.0))
    }
}

/// Whether bytes that were here could not be read.
#[derive(Debug)]
pub(in crate::pull) struct Damage(Arc<Shared>);

impl Damage {
    pub(in crate::pull) fn is_found(&self) -> bool {
        self.0.unreadable.load(Ordering::Acquire)
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.0.said().is_all = true;
        self.0.more.notify_one();
    }
}

impl Shared {
    fn said(&self) -> MutexGuard<'_, Said> {
        // No change can panic half-way, so what a poisoned lock guards is consistent.
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Iterator for Reader {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let here = {
            let mut said = self.shared.said();
            while said.here <= self.at && !said.is_all {
                said = self.shared.more.wait(said).unwrap_or_else(PoisonError::into_inner);
            }
            said.here
        };
        let count = usize::try_from(here.saturating_sub(self.at)).unwrap_or(READ).min(READ);
        if count == 0 {
            if self.shared.given_up.load(Ordering::Acquire)
                && let Err(error) =
                    self.partial.remove().map_err(io::Error::other).and_then(|()| self.partial.empty())
            {
                tracing::warn!(%error, "the room of what was received of a layer is not given back yet");
            }
            return None;
        }
        let mut bytes = vec![0; count];
        if let Err(error) = self.partial.read(self.at, &mut bytes) {
            tracing::warn!(%error, "what was received of a layer cannot be read");
            self.shared.unreadable.store(true, Ordering::Release);
            return None;
        }
        self.at += count as u64;
        self.shared.taken.store(self.at, Ordering::Release);
        self.shared.moved.notify_one();
        Some(bytes.into())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.gone.store(true, Ordering::Release);
        self.shared.moved.notify_one();
    }
}
