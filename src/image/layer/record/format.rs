//! Constants of the format.

/// Bytes of the checksum that a record ends with.
pub(in crate::image) const CHECKSUM_LENGTH: usize = 32;
/// The first bytes of a record.
pub(super) const MAGIC: [u8; 7] = *b"cfscsiL";
/// The version of the format that this release writes and reads.
pub(super) const VERSION: u8 = 1;
/// The longest path, target or attribute that a record holds, in bytes.
pub(super) const MAX_BYTES: usize = 1 << 20;
