//! Large blobs by several ranges at once, into a file from which the pipeline takes them in order.
//!
//! ```text
//! registry ══ range ══> worker ──┐
//! registry ══ range ══> worker ──┼──> partial blob on disk ──> feed ──> pipeline (hash, decompress, unpack)
//! registry ══ range ══> worker ──┘
//! ```
//! The file makes three things one: ranges need no memory to wait in for those before them, a killed process leaves what
//! it had, and the network is read as fast as it sends whatever the pipeline does ([ADR 0031](../../docs/adr/0031-partial-blobs.md)).
//!
//! The first range goes alone. What the registry answers to it decides: more at once, or the whole blob on that very
//! answer, or the usual single stream. Whenever ranges fail, or there is no room for the file, the stream goes on from
//! the byte that was reached. Nothing that goes wrong here is an error of the pull.

mod feed;
mod fetch;
mod pieces;
mod worker;

pub(super) use self::feed::{Feed, Reader};
pub(super) use self::fetch::{PartialFetch, Rest, Stopped};
use super::turns::Tenant;
use crate::fair::Gate;

/// How large blobs are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RangeRules {
    /// Bytes of a range. What is smaller is fetched by one.
    pub size: u64,
    /// Ranges of one blob that are fetched at the same time; 1 for one after another.
    pub at_once: usize,
    /// Connections of all blobs of a node beyond the first of each.
    pub connections: usize,
}

impl Default for RangeRules {
    /// Four connections bring four times as much where each is throttled. More cost a registry that throttles none.
    fn default() -> Self {
        Self { size: 8 << 20, at_once: 4, connections: 20 }
    }
}

/// Blobs below this come again as fast as they are found on the disk.
const KEPT_MIN: u64 = 1 << 20;
/// The fewest bytes of a range: a request costs a round trip.
const RANGE_MIN: u64 = 1 << 20;

impl RangeRules {
    /// Whether what has been received of a blob of `size` bytes is worth a file.
    pub(super) fn are_for(&self, size: u64) -> bool {
        size >= KEPT_MIN
    }

    /// Bytes of a range.
    pub(super) fn piece(&self) -> u64 {
        self.size.max(RANGE_MIN)
    }

    /// How far the network may be ahead of the pipeline, in bytes: what lies between is read from the page cache.
    fn lead(&self) -> u64 {
        self.piece().saturating_mul(2 * self.at_once.max(1) as u64)
    }

    /// The connections beyond the first of each blob. One tenant has at most three quarters of them.
    pub(super) fn connections(&self) -> Gate<Tenant> {
        let all = self.connections as u64;
        Gate::new(all, (all - all / 4).max(1))
    }
}
