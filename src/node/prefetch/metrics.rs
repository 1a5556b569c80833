//! Metrics of a node's prefetches.

use super::desk::Desk;
use crate::metrics::{Description, Family, Gauges, Instruments, Label};
use crate::prefetch::report::State;

const IMAGES: Description = Description::new(
    "prefetch_images",
    "Images that prefetches want on this node, by how far they are; waiting: also between two attempts, failed: given up",
);

/// How many images prefetches want here. Clones share them.
#[derive(Debug, Clone)]
pub struct PrefetchMetrics {
    images: Gauges<StateLabel>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct StateLabel(State);

impl Label for StateLabel {
    const NAME: &'static str = "state";
    const ALL: &'static [Self] =
        &[Self(State::Waiting), Self(State::Pulling), Self(State::Ready), Self(State::Failed)];

    fn value(self) -> &'static str {
        match self.0 {
            State::Waiting => "waiting",
            State::Pulling => "pulling",
            State::Ready => "ready",
            State::Failed => "failed",
        }
    }
}

impl Default for PrefetchMetrics {
    fn default() -> Self {
        Self { images: Gauges::new(IMAGES) }
    }
}

impl Instruments for PrefetchMetrics {
    fn families(&self) -> Vec<&dyn Family> {
        vec![&self.images]
    }
}

impl PrefetchMetrics {
    pub(super) fn show(&self, desk: &Desk) {
        for label in StateLabel::ALL {
            self.images.set(*label, desk.count(label.0));
        }
    }
}
