//! The tag of each kind of entry: the first byte of an entry in a record.

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
pub(super) const LEFT_OUT: u8 = 11;
