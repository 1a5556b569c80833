//! What a directory holds, before anything of it is read.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::image::entry::Meta;

/// One name in the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    /// Relative to the root, as [`crate::image::entry::LayerEntry::path`].
    pub path: Box<[u8]>,
    /// As it will be in the image. Attributes are sorted by name.
    pub meta: Meta,
    pub kind: ItemKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ItemKind {
    Directory,
    File(FileSource),
    /// Its target.
    Symlink(Box<[u8]>),
    /// The path of the file that it is another name of, which comes before it.
    Hardlink(Box<[u8]>),
}

/// A file to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileSource {
    /// Where it is on this machine.
    pub path: PathBuf,
    pub stamp: Stamp,
}

/// What is different about a file after somebody wrote to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    pub size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(stat: &std::fs::Metadata) -> Self {
        Self {
            device: stat.dev(),
            inode: stat.ino(),
            size: stat.size(),
            modified: (stat.mtime(), stat.mtime_nsec()),
            changed: (stat.ctime(), stat.ctime_nsec()),
        }
    }

    #[cfg(test)]
    pub(super) fn sized(size: u64) -> Self {
        Self { device: 0, inode: 0, size, modified: (0, 0), changed: (0, 0) }
    }
}

impl Item {
    /// Bytes of its content.
    pub(super) fn size(&self) -> u64 {
        match &self.kind {
            ItemKind::File(file) => file.stamp.size,
            _ => 0,
        }
    }

    /// The path for messages.
    pub(super) fn shown(&self) -> String {
        shown(&self.path)
    }
}

/// A path for messages.
pub(super) fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).chars().take(400).collect()
}
