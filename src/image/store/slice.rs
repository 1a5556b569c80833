//! How long a collection takes the store at a time. Nothing can be noted in a hold meanwhile, so that a publish waits, at each
//! of its notes, for the end of a slice at most.

use std::time::{Duration, Instant};

/// How long a slice is, with what it reads before it removes anything.
const SLICE: Duration = Duration::from_millis(5);
/// What of it is there for removing at least, however long the reading took.
const LEAST: Duration = Duration::from_millis(2);

/// A slice that has begun.
#[derive(Debug)]
pub(super) struct Slice {
    begun: Instant,
}

impl Slice {
    /// Begins now: the store has just been taken.
    pub(super) fn begin() -> Self {
        Self { begun: Instant::now() }
    }

    /// When it ends, for who begins to remove now.
    pub(super) fn end(&self) -> Instant {
        (self.begun + SLICE).max(Instant::now() + LEAST)
    }

    /// Leaves the store to others for as long as the slice took, and not less than it may: a pull notes each object, and goes
    /// on at half its speed. The caller has let the store go.
    pub(super) fn pause(&self) {
        std::thread::sleep(self.begun.elapsed().max(SLICE));
    }
}
