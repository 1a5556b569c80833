//! zstd:chunked layers: fetching only what is not here.
//!
//! Such a layer is an ordinary tar+zstd blob, compressed in frames of which each can be fetched and decompressed alone.
//! Behind the tar stand a table of contents ([`Toc`]: where each file's frames are, and the sha256 of its content) and
//! the tar-split ([`TarSplit`]: everything of the tar that is not content of files). With both, and with files and
//! pieces of files that the store has ([`ContentsReader`]), a [`Plan`] says what must be fetched, and a [`Rebuild`] yields the
//! very tar stream that the whole blob would have given. It goes the way of any other: one pass to objects, a record and
//! the DiffID, which alone proves it.
//!
//! Nothing here is believed. The TOC is checked against its digest in the manifest, then against the tar-split, and a file
//! of the store against its sha256 before the plan counts on it. Whatever does not fit is a [`Doubt`], and the layer is
//! fetched whole. [ADR 0036](../../docs/adr/0036-partial-pulls.md) says what proves what.

mod annotations;
mod compare;
mod contents;
mod doubt;
mod local;
mod plan;
mod rebuild;
mod runs;
mod tar_split;
#[cfg(test)]
#[path = "../../tests/support/chunked.rs"]
pub(crate) mod testing;
mod toc;
mod wire;
mod write;

pub use annotations::{Positions, Section};
pub use compare::compare;
pub use contents::{ContentsEntry, ContentsError, StoredContent};
pub(in crate::image) use contents::{ContentsReader, ContentsWriter};
pub use doubt::Doubt;
pub use local::{Found, Local, Wanted};
pub use plan::{Plan, PlanRules};
pub use rebuild::Rebuild;
pub use runs::{Run, cut};
pub use tar_split::{Segment, TarSplit};
pub use toc::{Chunk, Toc, TocFile};
pub use wire::{Part, Wire};
pub use write::{ChunkedWriter, Described};
