//! What the plugin tells of itself: metrics, traces, the log's level. The real program, a real registry, real mounts.
//! Needs root.

mod metrics;
pub mod page;
mod traces;
mod transfers;
