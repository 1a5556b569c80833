//! Layers: from a compressed blob to a list of [`entry::Entry`] and the objects they name.

pub mod entry;
pub mod record;

pub use record::{RecordError, RecordReader, RecordWriter};
