//! The layer record: a layer's entries in tar order, as a file. What remains of a layer once its
//! contents are objects.
//!
//! ```text
//! record  = magic "cfscsiL", version 1 (one byte), entry*, 0 (one byte), count, sha256 of all bytes before
//! entry   = tag (1..=11), shared, bytes: the path is `shared` bytes of the previous path and these;
//!           meta (not for whiteout, opaque, hardlink), what the tag asks for
//! meta    = mode, uid, gid, seconds (zigzag), nanoseconds, number of xattrs, (bytes name, bytes value)*
//! bytes   = length, that many bytes;   all numbers are LEB128 of at most 64 bits
//! ```
//! A record that was torn or altered is refused: [`RecordReader`] gives an error in place of its
//! end. Until that end is reached its entries are well-formed but unproven, so nothing may be
//! published from them before. Lengths are never trusted with an allocation of more than 1 MiB.

mod read;
#[cfg(test)]
mod tests;
mod write;

pub use read::RecordReader;
pub use write::RecordWriter;

use std::io;

use crate::kind::Kind;

/// Bytes of the checksum that a record ends with.
pub const CHECKSUM_LENGTH: usize = 32;
const MAGIC: [u8; 7] = *b"cfscsiL";
const VERSION: u8 = 1;
/// The longest path, target or attribute that a record holds, in bytes.
const MAX_BYTES: usize = 1 << 20;

/// The tag of each kind of entry.
mod tag {
    pub(super) const END: u8 = 0;
    pub(super) const DIRECTORY: u8 = 1;
    pub(super) const INLINE: u8 = 2;
    pub(super) const OBJECT: u8 = 3;
    pub(super) const SYMLINK: u8 = 4;
    pub(super) const HARDLINK: u8 = 5;
    pub(super) const CHAR_DEVICE: u8 = 6;
    pub(super) const BLOCK_DEVICE: u8 = 7;
    pub(super) const FIFO: u8 = 8;
    pub(super) const WHITEOUT: u8 = 9;
    pub(super) const OPAQUE: u8 = 10;
}

/// Why a layer record could not be written or read. The caller adds which one it is.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file could not be written or read.
    #[error("layer record: {0}")]
    Io(#[from] io::Error),
    /// The bytes are not what was written.
    #[error("layer record is damaged at byte {offset}: {what}; remove it and pull the image again")]
    Damaged {
        /// Where in the record.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// Another release of the driver wrote it.
    #[error("layer record has format version {0}, this release reads 1; remove it and pull the image again")]
    Version(u8),
}

impl RecordError {
    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Io(error) if is_full(error) => Kind::Exhausted,
            Self::Io(_) => Kind::Transient,
            Self::Damaged { .. } => Kind::Corrupt,
            Self::Version(_) => Kind::Unsupported,
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
