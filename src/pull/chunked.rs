//! Fetching a layer in parts: only what the store does not have ([ADR 0036](../../docs/adr/0036-partial-pulls.md)).
//!
//! ```text
//! may anything be used? ─> TOC ─> what is here ─> plan ─> tar-split ─> [ranges] ─> tar ─> as any other layer
//! ```
//! Each step may find that the layer is better fetched whole, and says so in the log; a server that ignores the first range
//! has sent the whole layer already, and goes on with that answer. What is used of the store is what the caller may have
//! in place of a fetch ([ADR 0037](../../docs/adr/0037-whose-files-a-partial-pull-uses.md)).

mod attempt;
pub(super) mod capture;
mod feed;
mod in_parts;
pub(super) mod list;
pub(super) mod memory;
mod ranges;
mod request;
mod requests;
mod search;
pub(super) mod settings;
pub(super) mod words;
