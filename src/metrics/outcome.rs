//! How an operation ended, and a guard that records cancelled operations too.

use std::time::Instant;

use super::family::{Durations, Gauge};
use super::label::Label;
use crate::kind::Kind;

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Successfully.
    Ok,
    /// With a failure of this kind.
    Failed(Kind),
    /// Before its end: the caller's deadline passed, or the caller disconnected.
    Cancelled,
}

impl Outcome {
    /// The outcome of a result; `kind` returns the kind of its error.
    pub fn of<T, E>(result: &Result<T, E>, kind: impl Fn(&E) -> Kind) -> Self {
        result.as_ref().map_or_else(|error| Self::Failed(kind(error)), |_| Self::Ok)
    }
}

impl Label for Outcome {
    const NAME: &'static str = "outcome";
    const ALL: &'static [Self] = &[
        Self::Ok,
        Self::Failed(Kind::Invalid),
        Self::Failed(Kind::NotFound),
        Self::Failed(Kind::Conflict),
        Self::Failed(Kind::Busy),
        Self::Failed(Kind::Denied),
        Self::Failed(Kind::Exhausted),
        Self::Failed(Kind::Transient),
        Self::Failed(Kind::Corrupt),
        Self::Failed(Kind::Unsupported),
        Self::Failed(Kind::Pending),
        Self::Failed(Kind::Bug),
        Self::Cancelled,
    ];

    fn value(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Cancelled => "cancelled",
            Self::Failed(kind) => kind.name(),
        }
    }
}

/// Times one operation. If dropped before [`Timing::end`], it records a cancellation.
#[derive(Debug)]
pub struct Timing {
    durations: Durations<Outcome>,
    begun: Instant,
    outcome: Outcome,
    under_way: Option<Gauge>,
}

impl Timing {
    /// Starts the clock.
    pub fn start(durations: &Durations<Outcome>) -> Self {
        Self {
            durations: durations.clone(),
            begun: Instant::now(),
            outcome: Outcome::Cancelled,
            under_way: None,
        }
    }

    /// Counts the operation in `gauge` while it is in progress.
    #[must_use]
    pub fn counted_by(mut self, gauge: &Gauge) -> Self {
        gauge.add(1);
        self.under_way = Some(gauge.clone());
        self
    }

    /// Stops the clock.
    pub fn end(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Timing {
    fn drop(&mut self) {
        self.durations.observe(self.outcome, self.begun.elapsed());
        if let Some(gauge) = &self.under_way {
            gauge.add(-1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::metrics::Description;

    #[test]
    fn every_kind_is_an_outcome_with_a_name_of_its_own() {
        assert!(Kind::ALL.iter().all(|kind| Outcome::ALL.contains(&Outcome::Failed(*kind))));
        let names: BTreeSet<_> = Outcome::ALL.iter().map(|outcome| outcome.value()).collect();
        assert_eq!(names.len(), Outcome::ALL.len());
    }

    #[test]
    fn a_guard_that_is_dropped_has_been_cancelled() {
        let durations = Durations::new(Description::new("test_seconds", "A test"), &[1.0]);
        Timing::start(&durations).end(Outcome::Ok);
        let under_way = Gauge::new(Description::new("test_under_way", "A test"));
        let timing = Timing::start(&durations).counted_by(&under_way);
        assert_eq!(under_way.get(), 1);
        drop(timing);
        assert_eq!(under_way.get(), 0);
        assert_eq!((durations.count(Outcome::Ok), durations.count(Outcome::Cancelled)), (1, 1));
    }
}
