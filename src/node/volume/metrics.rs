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
const MAPPED: Description = Description::new(
    "user_namespace_volumes",
    "Targets of pods with a user namespace (hostUsers: false), by whether the pod's containers can have the volume: with the \
     owners that they should see (mapped), or not at all (failed); the log says why",
);
/// From the clone of an existing mount (under 1 ms) to a wait for a pull (up to 120 s).
const BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5, 10.0, 60.0, 120.0];

/// The metrics of a node's volumes. Clones share the counters.
#[derive(Debug, Clone)]
pub struct VolumeMetrics {
    publish: Durations<Outcome>,
    published: Gauges<LevelLabel>,
    mapped: Gauges<MappedLabel>,
    /// The level of each mounted target, as far as this process knows.
    targets: Arc<Mutex<BTreeMap<PathBuf, Integrity>>>,
    /// The targets of pods with a user namespace.
    pods: Arc<Mutex<BTreeMap<PathBuf, MappedLabel>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MappedLabel {
    Mapped,
    Failed,
}

impl Label for MappedLabel {
    const NAME: &'static str = "state";
    const ALL: &'static [Self] = &[Self::Mapped, Self::Failed];

    fn value(self) -> &'static str {
        match self {
            Self::Mapped => "mapped",
            Self::Failed => "failed",
        }
    }
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
            mapped: Gauges::new(MAPPED),
            targets: Arc::default(),
            pods: Arc::default(),
        }
    }
}

impl Instruments for VolumeMetrics {
    fn families(&self) -> Vec<&dyn Family> {
        vec![&self.publish, &self.published, &self.mapped]
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
        self.mapped(target, Some(false));
    }

    /// Counts the target as one of a pod with a user namespace, if it is one (`true`), or may be one that cannot be mapped
    /// (`None`). Returns whether that is news.
    pub(super) fn mapped(&self, target: &Path, is_mapped: Option<bool>) -> bool {
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        let now = match is_mapped {
            Some(true) => Some(MappedLabel::Mapped),
            Some(false) => None,
            None => Some(MappedLabel::Failed),
        };
        let before = match now {
            Some(label) => pods.insert(target.to_owned(), label),
            None => pods.remove(target),
        };
        for label in MappedLabel::ALL {
            let count = pods.values().filter(|found| *found == label).count();
            self.mapped.set(*label, count as u64);
        }
        before != now
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
        for (target, is_mapped) in [("/a", Some(true)), ("/c", Some(true)), ("/c", None), ("/d", None)] {
            metrics.mapped(Path::new(target), is_mapped);
        }
        metrics.unmounted(Path::new("/d"));
        assert_eq!(MappedLabel::ALL.iter().map(|l| metrics.mapped.get(*l)).collect::<Vec<_>>(), [1, 1]);
        assert_eq!(LevelLabel::ALL.iter().map(|l| metrics.published.get(*l)).collect::<Vec<_>>(), [1, 0, 0]);
    }
}
