//! Constants of the format.

/// Bytes of the checksum that a record ends with.
pub(in crate::image) const CHECKSUM_LENGTH: usize = 32;
/// The first bytes of a record.
pub(super) const MAGIC: [u8; 7] = *b"cfscsiL";
/// The version of the format that this release writes.
pub(super) const VERSION: u8 = 2;
/// An older one that it reads: each entry has its attributes written out.
pub(super) const VERSION_1: u8 = 1;
/// In the place of an entry's attributes: it has none.
pub(super) const NO_SET: u64 = 0;
/// The same: a set follows that was not named before, or was forgotten.
pub(super) const NEW_SET: u64 = 1;
/// The same, for the first set that is remembered; the others follow.
pub(super) const FIRST_SET: u64 = 2;
/// The longest path, target or attribute that a record holds, in bytes.
pub(super) const MAX_BYTES: usize = 1 << 20;
