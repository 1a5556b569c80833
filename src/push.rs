//! From a directory to an image or artifact in a registry.
//!
//! ```text
//! scan ─> items ─> split: blobs ─> describe: digest, size, DiffID ─> has the registry it? ─> send
//!                                          └─> manifest (sealed and signed, if asked for) ─> tag, last of all
//! ```
//! The same tree gives the same digest, whoever pushes it and when ([`ScanRules`]): names, modes, links, attributes and
//! contents count; owners and times do if they are asked for. Every blob is read twice, first for its digest and then to be
//! sent, so that nothing is sent that the registry has, and nothing is kept on disk. What changes in between is noticed.
//!
//! The room knows nothing of stores and mounts. ADR 0044 has the alternatives.

mod archive;
mod compress;
mod contents;
mod describe;
mod error;
mod header;
mod item;
mod key;
mod manifest;
mod model;
mod pieces;
mod progress;
mod publish;
mod read;
mod scan;
mod seal;
mod send;
mod sign;
mod split;

pub use compress::Compression;
pub use error::PushError;
pub use key::{KeyError, SigningKey};
pub use manifest::Shape;
pub use progress::{BlobProgress, BlobState, Progress, Watch};
pub use publish::{Options, Pushed, PushedBlob, push};
pub use scan::{ScanRules, Times};
pub use seal::Sealed;
pub use sign::Signing;

#[cfg(test)]
mod tests;
