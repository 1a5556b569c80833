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
    "Bytes saved by sharing: of layers that were here and not fetched (compressed), and of files whose content \
     was here and not stored (those in steps of 64 MiB, hourly); and of layers that were fetched in parts (compressed)",
);
const PARTIAL: Description = Description::new(
    "partial_pulls_total",
    "Layers that were tried to be fetched in parts, by what came of it; all but `done` were fetched whole: the registry \
     does not serve ranges, the layer's tables or contents are no good, little of it was here, or others took the memory",
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
    partial: Counters<PartialOutcome>,
    /// Bytes of files that are not shown yet.
    held_back: Arc<HeldBack>,
}

/// What was here already and is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reuse {
    /// A layer: its blob was not fetched.
    Layer,
    /// Files of a layer, and pieces of them: they were not fetched.
    File,
    /// A file's content: it was not stored.
    Object,
}

/// What came of fetching a layer in parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PartialOutcome {
    /// The layer was put together.
    Done,
    /// The registry does not serve ranges.
    Ranges,
    /// What the layer says of itself is no good.
    Tables,
    /// What was put together is not the layer.
    Content,
    /// Little of it was here.
    NotWorth,
    /// Too many other layers were being put together.
    Busy,
}

impl Label for PartialOutcome {
    const NAME: &'static str = "result";
    const ALL: &'static [Self] =
        &[Self::Done, Self::Ranges, Self::Tables, Self::Content, Self::NotWorth, Self::Busy];

    fn value(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Ranges => "ranges",
            Self::Tables => "tables",
            Self::Content => "content",
            Self::NotWorth => "not_worth",
            Self::Busy => "busy",
        }
    }
}

impl Label for Reuse {
    const NAME: &'static str = "shared";
    const ALL: &'static [Self] = &[Self::Layer, Self::File, Self::Object];

    fn value(self) -> &'static str {
        match self {
            Self::Layer => "layer",
            Self::File => "file",
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
            partial: Counters::new(PARTIAL),
            held_back: Arc::new(HeldBack::new(coarse::BYTES)),
        }
    }
}

impl Instruments for PullMetrics {
    fn families(&self) -> Vec<&dyn Family> {
        vec![&self.duration, &self.under_way, &self.fetched, &self.saved, &self.partial]
    }
}

impl PullMetrics {
    /// Counts a pull from now until its end.
    pub(super) fn pull(&self) -> Timing {
        Timing::start(&self.duration).counted_by(&self.under_way)
    }

    /// Counts bytes that sharing has saved.
    pub(super) fn saved(&self, what: Reuse, bytes: u64) {
        // Layers, and files in place of a fetch, are used by those only who could fetch them; on disk all share.
        let shown = match what {
            Reuse::Layer | Reuse::File => bytes,
            Reuse::Object => self.held_back.add(bytes),
        };
        self.saved.add(what, shown);
    }

    /// Counts a layer that was tried to be fetched in parts.
    pub(super) fn partial(&self, outcome: PartialOutcome) {
        self.partial.add(outcome, 1);
    }
}
