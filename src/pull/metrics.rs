//! Metrics of pulls: how they ended, what they fetched, and what they did not have to fetch.

use std::sync::Arc;

use crate::metrics::coarse::{self, HeldBack};
use crate::metrics::{
    Counter, Counters, Description, Durations, Family, Gauge, Instruments, Label, Outcome, Timing,
};

const DURATION: Description = Description::new(
    "pull_duration_seconds",
    "Pulls by how they ended, from the first layer to the committed image; one pull serves all who wait for it",
);
const UNDER_WAY: Description = Description::new("pulls_under_way", "Pulls that have begun and not ended");
const FETCHED: Description = Description::new(
    "fetched_bytes_total",
    "Compressed bytes of layers that came from registries or layouts, those of failed pulls included",
);
const SAVED: Description = Description::new(
    "saved_bytes_total",
    "Bytes saved: of layers that were here and not fetched and of parts of layers that an interrupted pull had received \
     (both compressed), and of files whose content was here and not stored (those in steps of 64 MiB, hourly)",
);
/// From an image whose layers are all here to tens of gigabytes.
const BUCKETS: [f64; 11] = [0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 1200.0];

/// The metrics of a puller. Clones count into the same.
#[derive(Debug, Clone)]
pub struct PullMetrics {
    duration: Durations<Outcome>,
    under_way: Gauge,
    /// Compressed bytes as they arrive.
    pub(super) fetched: Counter,
    saved: Counters<Reuse>,
    /// Bytes of files that are not shown yet.
    held_back: Arc<HeldBack>,
}

/// What was here already and is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reuse {
    /// A layer: its blob was not fetched.
    Layer,
    /// Some of a layer's blob: an earlier pull had received it.
    Part,
    /// A file's content: it was not stored.
    Object,
}

impl Label for Reuse {
    const NAME: &'static str = "shared";
    const ALL: &'static [Self] = &[Self::Layer, Self::Part, Self::Object];

    fn value(self) -> &'static str {
        match self {
            Self::Layer => "layer",
            Self::Part => "part",
            Self::Object => "object",
        }
    }
}

impl Default for PullMetrics {
    fn default() -> Self {
        Self {
            duration: Durations::new(DURATION, &BUCKETS),
            under_way: Gauge::new(UNDER_WAY),
            fetched: Counter::new(FETCHED),
            saved: Counters::new(SAVED),
            held_back: Arc::new(HeldBack::new(coarse::BYTES)),
        }
    }
}

impl Instruments for PullMetrics {
    fn families(&self) -> Vec<&dyn Family> {
        vec![&self.duration, &self.under_way, &self.fetched, &self.saved]
    }
}

impl PullMetrics {
    /// Counts a pull from now until its end.
    pub(super) fn pull(&self) -> Timing {
        Timing::start(&self.duration).counted_by(&self.under_way)
    }

    /// Counts bytes that sharing has saved.
    pub(super) fn saved(&self, what: Reuse, bytes: u64) {
        // Layers are used by those only who could fetch them; files are shared by all.
        let shown = match what {
            Reuse::Layer | Reuse::Part => bytes,
            Reuse::Object => self.held_back.add(bytes),
        };
        self.saved.add(what, shown);
    }
}
