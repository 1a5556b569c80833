//! The unit of layer metadata: what one layer says about one path. The tar reader produces it, the layer record
//! stores it, and the tree folds it.

use crate::image::verity::VerityDigest;

/// One entry of a layer, in tar order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerEntry {
    /// Path relative to the root: components joined by `/`, none of them empty, `.` or `..`, no
    /// NUL, no leading or trailing slash. The root itself is the empty path.
    pub path: Box<[u8]>,
    /// Owner, mode, time and extended attributes. Meaningless for `Whiteout`, `Opaque` and `Hardlink`.
    pub meta: Meta,
    /// What stands at the path.
    pub kind: EntryKind,
}

/// Metadata of an inode.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meta {
    /// Permission bits only (`0o7777`). The type is in [`EntryKind`].
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Mtime,
    /// Extended attributes, sorted by name, each name once.
    pub xattrs: Vec<Xattr>,
}

/// An extended attribute: its name with its namespace, and its value.
pub type Xattr = (Box<[u8]>, Box<[u8]>);

/// A modification time. It may lie before 1970 in a tar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Mtime {
    /// Seconds since the epoch, rounded down.
    pub secs: i64,
    /// Nanoseconds to add, below 1,000,000,000.
    pub nanos: u32,
}

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file of at most [`INLINE_MAX`] bytes: its content.
    Inline(Box<[u8]>),
    /// A larger regular file: its object and its size in bytes.
    Object(VerityDigest, u64),
    /// A larger regular file whose content was not stored, since a choice leaves it out: its size in bytes. It keeps its
    /// place in the layer, where it may hide or replace something, and is never shown.
    LeftOut(u64),
    /// A symbolic link: its target, verbatim.
    Symlink(Box<[u8]>),
    /// Another name for the regular file (or link or device) at this path, cleaned like `path`.
    Hardlink(Box<[u8]>),
    /// A character device: major, minor.
    CharDevice(u32, u32),
    /// A block device: major, minor.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
    /// Hides `path` of the layers below. Written as `.wh.<name>`; `path` is the hidden one.
    Whiteout,
    /// Hides everything in directory `path` of the layers below. Written as `.wh..wh..opq`.
    Opaque,
}

impl EntryKind {
    /// The object of a larger regular file, and its size in bytes.
    pub fn object(&self) -> Option<(VerityDigest, u64)> {
        match self {
            Self::Object(digest, size) => Some((*digest, *size)),
            _ => None,
        }
    }

    /// The path of the inode that this is another name for.
    pub fn hard_link(&self) -> Option<&[u8]> {
        match self {
            Self::Hardlink(target) => Some(target),
            _ => None,
        }
    }
}

/// The directory at the root where Docker's aufs kept the inodes of files with several names: a layer's hard links may
/// lead into it. Its regular files are entries of the layer, and it is left out of the tree.
pub const AUFS_LINKS: &[u8] = b".wh..wh.plnk";

/// Files up to this many bytes are in the image itself, larger ones in the object store. The composefs format
/// sets the bound; a test compares it with the composefs crate's constant.
pub const INLINE_MAX: usize = 64;

/// Whether `path` has the form that [`LayerEntry::path`] promises.
pub fn is_clean(path: &[u8]) -> bool {
    path.is_empty()
        || path
            .split(|byte| *byte == b'/')
            .all(|name| !matches!(name, b"" | b"." | b"..") && !name.contains(&0))
}
