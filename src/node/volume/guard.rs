//! One call per volume at a time.
//!
//! A guard is taken before anything of a volume is looked at and moved into the blocking closure that does
//! the work, so that a call whose future is dropped keeps its volume until the work has ended.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::volume::id::VolumeId;

/// The volumes that are being worked on.
#[derive(Debug, Clone, Default)]
pub struct Guards(Arc<Mutex<HashSet<VolumeId>>>);

/// The right to touch one volume. Given back when dropped.
#[derive(Debug)]
pub struct VolumeGuard {
    volume: VolumeId,
    guards: Guards,
}

impl Guards {
    /// Takes the volume, unless somebody has it.
    pub fn take(&self, volume: &VolumeId) -> Option<VolumeGuard> {
        self.lock()
            .insert(volume.clone())
            .then(|| VolumeGuard { volume: volume.clone(), guards: self.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<VolumeId>> {
        // A set of ids is right whatever its last user was doing when it panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl VolumeGuard {
    /// Which volume.
    pub fn volume(&self) -> &VolumeId {
        &self.volume
    }
}

impl Drop for VolumeGuard {
    fn drop(&mut self) {
        self.guards.lock().remove(&self.volume);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_until_the_first_is_done() {
        let guards = Guards::default();
        let (a, b): (VolumeId, VolumeId) = ("a".parse().unwrap(), "b".parse().unwrap());
        let first = guards.take(&a).unwrap();
        assert_eq!(first.volume(), &a);
        assert!(guards.take(&a).is_none());
        assert!(guards.take(&b).is_some());
        drop(first);
        assert!(guards.take(&a).is_some());
    }
}
