//! The room that is left for others: pulls stop before the filesystem is full, since kubelet and others write to it too.
//!
//! Asking the filesystem at every write would cost a system call each, so writers count what they write, together, and
//! look every [`GRAIN`] bytes. By so much, and what each writer has in hand, the reserve may be missed.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that are written between two looks at the filesystem.
const GRAIN: u64 = 16 << 20;
/// What a file counts for besides its bytes, so that there is a look every 256 files.
const FILE: u64 = 64 << 10;

/// Less is left on the filesystem than is to be left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "pulls stop here: {free} {what} of the store's filesystem are free, and {reserve} are left for others; remove images \
     with `composefs-csi prune`, give the store more space, or lower --min-free"
)]
pub struct Shortage {
    /// `bytes` or `inodes`.
    pub what: &'static str,
    /// How many are free.
    pub free: u64,
    /// How many are to be left.
    pub reserve: u64,
}

/// Answers what is short, if anything.
type Look = dyn Fn() -> Option<Shortage> + Send + Sync;

/// What writers of a store may still write. Clones are the same.
#[derive(Clone)]
pub(in crate::image) struct Room {
    look: Arc<Look>,
    /// Bytes written since the last look that found room.
    since: Arc<AtomicU64>,
}

impl Room {
    /// Asks `look`, first at the first write.
    pub(in crate::image) fn new(look: impl Fn() -> Option<Shortage> + Send + Sync + 'static) -> Self {
        Self { look: Arc::new(look), since: Arc::new(AtomicU64::new(GRAIN)) }
    }

    /// No reserve.
    pub(in crate::image) fn unlimited() -> Self {
        Self::new(|| None)
    }

    /// The next write looks: others may have filled the disk while nothing was written here.
    pub(in crate::image) fn look_next(&self) {
        self.since.store(GRAIN, Ordering::Relaxed);
    }

    /// Counts bytes that are about to be written.
    ///
    /// # Errors
    /// There is no room for them. So it is for every writer until there is.
    pub(in crate::image) fn take(&self, bytes: u64) -> Result<(), Shortage> {
        let since = self.since.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if since < GRAIN {
            return Ok(());
        }
        match (self.look)() {
            None => {
                // What another writer adds meanwhile may be forgotten: a grain more or less.
                self.since.store(0, Ordering::Relaxed);
                Ok(())
            }
            Some(shortage) => {
                // Stays at the mark, and does not wrap however often it is asked.
                self.look_next();
                Err(shortage)
            }
        }
    }

    /// Counts a file that is about to be made.
    ///
    /// # Errors
    /// As [`Room::take`].
    pub(super) fn take_file(&self) -> Result<(), Shortage> {
        self.take(FILE)
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Room")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    const SHORT: Shortage = Shortage { what: "bytes", free: 1, reserve: 2 };

    fn counted() -> (Room, Arc<AtomicU64>, Arc<AtomicBool>) {
        let (looks, full) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counter, answer) = (Arc::clone(&looks), Arc::clone(&full));
        let room = Room::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
            answer.load(Ordering::Relaxed).then_some(SHORT)
        });
        (room, looks, full)
    }

    #[test]
    fn writers_look_once_in_a_grain_together() {
        let (room, looks, full) = counted();
        let other = room.clone();
        for _ in 0..500 {
            room.take_file().unwrap();
            other.take_file().unwrap();
        }
        // The first write looks, and then every 256th file.
        assert_eq!(looks.load(Ordering::Relaxed), 4);
        full.store(true, Ordering::Relaxed);
        let refused = (0..257).find_map(|_| room.take_file().err());
        assert_eq!(refused, Some(SHORT));
        // From then on nobody gets past, until there is room again.
        assert_eq!((other.take(1), room.take(1)), (Err(SHORT), Err(SHORT)));
        full.store(false, Ordering::Relaxed);
        assert_eq!((other.take(1), room.take(1)), (Ok(()), Ok(())));
    }

    #[test]
    fn a_pull_that_begins_looks_at_once() {
        let (room, _, full) = counted();
        room.take(1).unwrap();
        full.store(true, Ordering::Relaxed);
        assert_eq!(room.take(1), Ok(()));
        room.look_next();
        assert_eq!(room.take(1), Err(SHORT));
    }

    #[test]
    fn any_number_of_bytes_is_counted() {
        let (room, _, full) = counted();
        full.store(true, Ordering::Relaxed);
        for _ in 0..3 {
            assert_eq!(room.take(u64::MAX), Err(SHORT));
        }
    }
}
