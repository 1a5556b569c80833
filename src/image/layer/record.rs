//! The layer record: a layer's entries in tar order, as a file. With the objects it replaces the layer.
//!
//! ```text
//! record  = magic "cfscsiL", version 2 (one byte), entry*, 0 (one byte), count, sha256 of all bytes before
//! entry   = tag (1..=11), shared, bytes: the path is `shared` bytes of the previous path and these;
//!           meta (not for whiteout, opaque, hardlink), what the tag asks for
//! meta    = mode, uid, gid, seconds (zigzag), nanoseconds, xattrs
//! xattrs  = 0 (none), or 1 and a new set, or 2 + number of a set that came before
//! set     = number of attributes, (bytes name, bytes value)*
//! bytes   = length, that many bytes;   all numbers are LEB128 of at most 64 bits
//! ```
//! In version 1, which is read as well, each meta ends with its own set. Which sets have a number says [`sets`].
//!
//! A record that was torn or altered is refused: [`RecordReader`] returns an error in place of its end.
//! Before that end the entries are well-formed but not yet checked, so nothing may be published from them.
//! No length in a record causes an allocation of more than 1 MiB.

mod count;
mod error;
mod format;
mod read;
mod sets;
mod tag;
#[cfg(test)]
mod tests;
mod write;

pub(in crate::image) use count::{TAIL, stated_count};
pub use error::RecordError;
pub(in crate::image) use format::CHECKSUM_LENGTH;
pub use read::RecordReader;
pub use write::RecordWriter;
