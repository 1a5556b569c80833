//! One call per volume at a time.
//!
//! A call takes the guard before it looks at anything of the volume, and moves it into the blocking closure that does
//! the work. A call whose future is dropped thus keeps its volume until the work has ended.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::volume::id::VolumeId;

/// The volumes that calls are working on.
#[derive(Debug, Clone, Default)]
pub struct Guards(Arc<Mutex<HashSet<VolumeId>>>);

/// The exclusive right to work on one volume. Released on drop.
#[derive(Debug)]
pub(crate) struct VolumeGuard {
    volume: VolumeId,
    guards: Guards,
}

impl Guards {
    /// Takes the volume's guard; `None` if another call has it.
    pub(crate) fn take(&self, volume: &VolumeId) -> Option<VolumeGuard> {
        self.lock()
            .insert(volume.clone())
            .then(|| VolumeGuard { volume: volume.clone(), guards: self.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<VolumeId>> {
        // A panic elsewhere cannot leave a set of ids inconsistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl VolumeGuard {
    /// The guarded volume.
    pub(crate) fn volume(&self) -> &VolumeId {
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
