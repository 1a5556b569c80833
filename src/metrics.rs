//! Metrics: the types that owners describe their metrics with, and the registry that exports them.
//!
//! An owner (a service, the puller, the store) makes its families beside the code that updates them, and exposes them
//! through [`Instruments`]. The run mode adds them to one [`MetricsRegistry`]. There is no global state; without a
//! registry, the families are simply not read.
//!
//! Labels are enums ([`Label`]), never an image, a pod or an error's text, so that the number of series is bounded.
//! Counting is an atomic addition; only a family with two labels takes a lock to find its series. Nothing here is
//! called per byte.

pub mod coarse;
mod description;
mod family;
mod label;
mod outcome;
mod registry;
mod sampled;

pub use description::Description;
pub use family::{Counter, Counters, Durations, Family, Gauge, Gauges, Instruments};
pub use label::{Label, Labels};
pub use outcome::{Outcome, Timing};
pub use registry::MetricsRegistry;
pub use sampled::Sampled;
