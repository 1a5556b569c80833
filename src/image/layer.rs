//! Layers: from a compressed blob to objects and a list of entries that name them.
//!
//! [`ingest()`] does it all in one pass, and [`ingest_file()`] for a blob that is one file. A layer is kept as a record ([`RecordWriter`], [`RecordReader`]) and
//! objects. The tar stream itself is not kept.

mod blob_reader;
mod buffer_pool;
mod compression;
mod content_ranges;
mod error;
mod file;
mod gzip;
mod inflate;
mod ingest;
mod members;
pub(in crate::image) mod record;
#[cfg(test)]
mod tests;
mod unpack;

pub use blob_reader::Blob;
pub use content_ranges::content_ranges;
pub use error::{LayerError, LayerFault};
pub use file::{file_id, ingest_file};
pub use ingest::{LayerOutcome, ingest, ingest_chosen, ingest_tar};
pub use record::{RecordError, RecordReader, RecordWriter};
pub use unpack::Contents;

pub use crate::image::tar::{TarError, TarLimits};
