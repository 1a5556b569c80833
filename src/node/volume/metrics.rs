//! Metrics: the duration of publishes, and the number of published volumes by integrity level.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::integrity::Integrity;
use crate::metrics::{Description, Durations, Family, Gauges, Instruments, Label, Outcome, Timing};

const PUBLISH: Description = Description::new(
    "publish_duration_seconds",
    "Publishes by how they ended, waiting for the image included; pending: the pull goes on and kubelet asks again",
);
const PUBLISHED: Description = Description::new(
    "published_volumes",
    "Targets on which a volume is mounted, by what is checked when a pod reads: nothing since the pull (fetch), \
     nothing since the first mount (mount), every page by the kernel (read)",
);
/// From the clone of an existing mount (under 1 ms) to a wait for a pull (up to 120 s).
const BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5, 10.0, 60.0, 120.0];

/// The metrics of a node's volumes. Clones share the counters.
#[derive(Debug, Clone)]
pub struct VolumeMetrics {
    publish: Durations<Outcome>,
    published: Gauges<LevelLabel>,
    /// The level of each mounted target, as far as this process knows.
    targets: Arc<Mutex<BTreeMap<PathBuf, Integrity>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LevelLabel(Integrity);

impl Label for LevelLabel {
    const NAME: &'static str = "integrity";
    const ALL: &'static [Self] = &[Self(Integrity::Fetch), Self(Integrity::Mount), Self(Integrity::Read)];

    fn value(self) -> &'static str {
        match self.0 {
            Integrity::Fetch => "fetch",
            Integrity::Mount => "mount",
            Integrity::Read => "read",
        }
    }
}

impl Default for VolumeMetrics {
    fn default() -> Self {
        Self {
            publish: Durations::new(PUBLISH, &BUCKETS),
            published: Gauges::new(PUBLISHED),
            targets: Arc::default(),
        }
    }
}

impl Instruments for VolumeMetrics {
    fn families(&self) -> Vec<&dyn Family> {
        vec![&self.publish, &self.published]
    }
}

impl VolumeMetrics {
    /// Starts the timing of one publish.
    pub(super) fn publish(&self) -> Timing {
        Timing::start(&self.publish)
    }

    /// Counts the volume on `target` as mounted.
    pub(super) fn mounted(&self, target: &Path, integrity: Integrity) {
        self.change(|targets| {
            targets.insert(target.to_owned(), integrity);
        });
    }

    /// No longer counts a volume on `target`.
    pub(super) fn unmounted(&self, target: &Path) {
        self.change(|targets| {
            targets.remove(target);
        });
    }

    /// The number of targets that count as mounted.
    pub(super) fn targets(&self) -> usize {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<PathBuf, Integrity>)) {
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut targets);
        // All levels: a target may have moved from one to another.
        for level in LevelLabel::ALL {
            let count = targets.values().filter(|integrity| **integrity == level.0).count();
            self.published.set(*level, count as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_counts_once_whatever_is_repeated() {
        let metrics = VolumeMetrics::default();
        for target in ["/a", "/a", "/b"] {
            metrics.mounted(Path::new(target), Integrity::Read);
        }
        assert_eq!(metrics.published.get(LevelLabel(Integrity::Read)), 2);
        metrics.mounted(Path::new("/a"), Integrity::Fetch);
        metrics.unmounted(Path::new("/b"));
        metrics.unmounted(Path::new("/never"));
        assert_eq!(LevelLabel::ALL.iter().map(|l| metrics.published.get(*l)).collect::<Vec<_>>(), [1, 0, 0]);
    }
}
