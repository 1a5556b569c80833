//! Layers: from a compressed blob to a list of [`Entry`](super::entry::Entry) and the objects they name.
//!
//! [`ingest()`] does it all in one pass. What remains of a layer is its record ([`RecordWriter`],
//! [`RecordReader`]) and its objects; the tar stream is gone.

mod blob_reader;
mod buffer_pool;
mod compression;
mod error;
mod ingest;
pub mod record;
#[cfg(test)]
mod tests;
mod unpack;

pub use error::{LayerError, LayerFault};
pub use ingest::{Blob, LayerOutcome, ingest};
pub use record::{RecordError, RecordReader, RecordWriter};
pub use unpack::Contents;

pub use crate::image::tar::Limits;
