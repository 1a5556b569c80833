//! One request for a range, which keeps what it has received whatever becomes of its connections.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;

use crate::image::chunked::{Part, Run};

/// Bytes of a request for content. They are held in memory until their turn comes.
pub(super) const REQUEST_MAX: u64 = 1 << 20;

/// A range, and what has come of it.
pub(super) struct Request {
    run: Run,
    came: Mutex<BytesMut>,
}

impl Request {
    pub(super) fn new(run: Run) -> Self {
        Self { run, came: Mutex::default() }
    }

    /// The bytes of the blob that have not come.
    pub(super) fn missing(&self) -> Run {
        self.run.start + self.came().len() as u64..self.run.end
    }

    /// Adds bytes that came. Says whether they belong to it: no more than are missing.
    pub(super) fn receive(&self, bytes: &[u8]) -> bool {
        let (mut came, length) = (self.came(), self.run.end - self.run.start);
        let fits = (came.len() + bytes.len()) as u64 <= length;
        if fits {
            if came.is_empty() {
                came.reserve(usize::try_from(length.min(REQUEST_MAX)).unwrap_or_default());
            }
            came.extend_from_slice(bytes);
        }
        fits
    }

    /// What has come. There is nothing of it here afterwards.
    pub(super) fn take(&self) -> Part {
        Part { start: self.run.start, bytes: std::mem::take(&mut *self.came()).freeze() }
    }

    fn came(&self) -> MutexGuard<'_, BytesMut> {
        // No change can panic half-way.
        self.came.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
