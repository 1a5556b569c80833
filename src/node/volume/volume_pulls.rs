//! What a volume's condition says of pulls: of one that a call waits for, and of one that was slow.
//!
//! Only what the volume's own call may see is here ([`Watch`]), because the condition is shown to the pod's owner.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::pull::Watch;
use crate::volume::id::VolumeId;

/// How long a call must have waited for a pull to be worth saying afterwards.
const SLOW: Duration = Duration::from_secs(60);
/// The number of slow pulls that are remembered. A volume is forgotten when it is unpublished.
const SLOW_MAX: usize = 1000;

/// The pulls of this node's volumes. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct VolumePulls(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// By the number of each of the volume's images.
    awaited: HashMap<VolumeId, BTreeMap<usize, (String, Watch)>>,
    slow: HashMap<VolumeId, Duration>,
}

/// A call that waits for one of a volume's images. Dropped, it does not any more.
#[derive(Debug)]
pub(super) struct Awaiting<'a> {
    pulls: &'a VolumePulls,
    volume: &'a VolumeId,
    number: usize,
}

impl VolumePulls {
    /// A call waits for `image`, the volume's image with this number. There is one call per volume at a time.
    pub(super) fn await_for<'a>(
        &'a self,
        volume: &'a VolumeId,
        number: usize,
        image: &str,
        watch: &Watch,
    ) -> Awaiting<'a> {
        let awaited = (image.to_owned(), watch.clone());
        self.known().awaited.entry(volume.clone()).or_default().insert(number, awaited);
        Awaiting { pulls: self, volume, number }
    }

    /// What the volume waits for, if a call of it does: `image … is being pulled (…)`, of several the first one.
    pub(super) fn awaited(&self, volume: &VolumeId) -> Option<String> {
        let (count, (image, watch)) = {
            let known = self.known();
            let all = known.awaited.get(volume)?;
            (all.len(), all.values().next()?.clone())
        };
        let progress = watch.get().map_or_else(|| "not begun".to_owned(), ToString::to_string);
        let others = if count > 1 { format!(", and {} more", count - 1) } else { String::new() };
        Some(format!("image {image} is being pulled ({progress}){others}"))
    }

    /// The volume's image is here, after the call has waited so long.
    pub(super) fn ended(&self, volume: &VolumeId, waited: Duration) {
        let mut known = self.known();
        if waited < SLOW {
            known.slow.remove(volume);
        } else if known.slow.len() < SLOW_MAX {
            known.slow.insert(volume.clone(), waited);
        }
    }

    /// How long the volume's last call waited, if that was long.
    pub(super) fn slow(&self, volume: &VolumeId) -> Option<Duration> {
        self.known().slow.get(volume).copied()
    }

    /// The volume is gone.
    pub(super) fn forget(&self, volume: &VolumeId) {
        self.known().slow.remove(volume);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // No change to the maps can panic half-way, so poisoned ones are consistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Awaiting<'_> {
    fn drop(&mut self) {
        let mut known = self.pulls.known();
        if let Some(all) = known.awaited.get_mut(self.volume) {
            all.remove(&self.number);
            if all.is_empty() {
                known.awaited.remove(self.volume);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pull_is_said_while_it_is_awaited_and_afterwards_if_it_was_slow() {
        let (pulls, volume) = (VolumePulls::default(), "a".parse::<VolumeId>().unwrap());
        let second = pulls.await_for(&volume, 1, "r.io/y:1", &Watch::default());
        let first = pulls.await_for(&volume, 0, "r.io/x:1", &Watch::default());
        assert_eq!(pulls.awaited(&volume).unwrap(), "image r.io/x:1 is being pulled (not begun), and 1 more");
        drop(first);
        assert_eq!(pulls.awaited(&volume).unwrap(), "image r.io/y:1 is being pulled (not begun)");
        drop(second);
        assert_eq!(pulls.awaited(&volume), None);
        pulls.ended(&volume, Duration::from_secs(59));
        assert_eq!(pulls.slow(&volume), None);
        pulls.ended(&volume, Duration::from_secs(61));
        assert_eq!(pulls.slow(&volume), Some(Duration::from_secs(61)));
        pulls.forget(&volume);
        assert_eq!(pulls.slow(&volume), None);
    }
}
