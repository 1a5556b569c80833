//! Prefetching, as decisions without any I/O: what a namespace wishes, which nodes begin when, what a node does next, and
//! what is said of it.
//!
//! An ImagePrefetch ([`wish`]) is written by people, its status ([`status`]) by the controller, and each node's report
//! ([`report`]) by that node alone. Nobody tells nodes one by one: the controller writes one number, and a node begins
//! once its place ([`waves`]) is below it. [`docs/adr/0043`](../docs/adr/0043-prefetch.md) says why.

pub mod backoff;
pub mod pace;
pub mod report;
pub mod status;
pub mod summary;
pub mod waves;
pub mod wish;

/// Prefetches that a controller or a node knows at the most; of more, the youngest wait.
pub const PREFETCHES_MAX: usize = 1000;

/// A change of what is wished, as a watch tells it.
#[derive(Debug, Clone)]
pub enum Change {
    /// All that there are: what was known before and is not among them has gone.
    All(Vec<wish::Prefetch>),
    /// One is new or has changed.
    Set(Box<wish::Prefetch>),
    /// The one with this uid has gone.
    Gone(String),
}
