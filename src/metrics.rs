//! Metrics: the vocabulary that owners describe theirs in, and the registry that exports them.
//!
//! An owner (a service, the puller, the store) makes its families itself, beside the code that moves them,
//! and hands them out by [`Instruments`]; the run mode puts them into one [`MetricsRegistry`]. There is no global
//! state, and code that nobody watches counts into families that nobody reads.
//!
//! Labels are enums ([`Label`]), so that the number of series is known before the first pod arrives: never
//! an image, a pod or an error's text. Counting is an atomic addition; only a family with two labels takes a
//! lock to find its series, and nothing here is called per byte.

mod family;
mod label;
mod outcome;
mod registry;

pub use family::{Counter, Counters, Durations, Family, Gauge, Gauges};
pub use label::{Label, Labels};
pub use outcome::{Outcome, Timing};
pub use registry::{MetricsError, MetricsRegistry};

/// What a metric is, for whoever reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Description {
    /// Its name after the namespace, ending in the unit, and in `_total` where it only grows.
    pub name: &'static str,
    /// What it counts or measures, one sentence without the full stop.
    pub help: &'static str,
}

impl Description {
    /// A metric called `composefs_csi_<name>`.
    pub const fn new(name: &'static str, help: &'static str) -> Self {
        Self { name, help }
    }
}

/// Somebody who has metrics.
pub trait Instruments {
    /// All of them.
    fn families(&self) -> Vec<&dyn Family>;
}
