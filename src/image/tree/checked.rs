//! The finished tree.

use super::arena::{Arena, Children, Node, NodeId, NodeKind};
use super::xattrs::{XattrTable, Xattrs, XattrsId};
use crate::image::verity::VerityDigest;

/// A tree that the composefs format can hold: what [`Builder`](super::Builder) ends in.
#[derive(Debug)]
pub struct CheckedTree {
    arena: Arena,
    xattrs: XattrTable,
}

impl CheckedTree {
    pub(super) fn new(arena: Arena, xattrs: XattrTable) -> Self {
        Self { arena, xattrs }
    }

    /// Inodes, the root included.
    pub fn inodes(&self) -> u64 {
        self.arena.live().count() as u64
    }

    /// Names of device nodes and named pipes that the layers have and the tree has not.
    pub fn left_out(&self) -> u64 {
        self.arena.pruned()
    }

    /// Bytes of all regular files, each inode once.
    pub fn file_bytes(&self) -> u64 {
        self.arena
            .live()
            .map(|node| match &node.kind {
                NodeKind::Inline(bytes) => bytes.len() as u64,
                NodeKind::Object(_, size) => *size,
                _ => 0,
            })
            .fold(0, u64::saturating_add)
    }

    /// The object and size in bytes of every file that is not inline; files of equal content repeat.
    pub fn objects(&self) -> impl Iterator<Item = (VerityDigest, u64)> {
        self.arena.live().filter_map(|node| match node.kind {
            NodeKind::Object(digest, size) => Some((digest, size)),
            _ => None,
        })
    }

    pub(crate) fn node(&self, id: NodeId) -> &Node {
        self.arena.node(id)
    }

    pub(crate) fn children(&self, id: NodeId) -> Option<&Children> {
        self.arena.children(id)
    }

    pub(crate) fn xattrs(&self, id: XattrsId) -> &Xattrs {
        self.xattrs.get(id)
    }

    /// For tables with one slot per inode.
    pub(crate) fn slots(&self) -> usize {
        self.arena.slots()
    }
}
