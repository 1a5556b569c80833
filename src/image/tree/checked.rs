//! The finished tree.

use std::sync::Arc;

use super::arena::{Arena, Children, Node, NodeId, NodeKind};
use super::powers::Powers;
use super::xattrs::{XattrTable, Xattrs, XattrsId};
use crate::image::verity::VerityDigest;

/// A tree that the composefs format can hold: the result of the builder.
#[derive(Debug)]
pub struct CheckedTree {
    arena: Arena,
    xattrs: XattrTable,
    reduced: u64,
}

impl CheckedTree {
    pub(super) fn new(arena: Arena, mut xattrs: XattrTable, reduced: u64) -> Self {
        xattrs.shrink();
        Self { arena, xattrs, reduced }
    }

    /// Number of inodes, the root included.
    pub fn inodes(&self) -> u64 {
        self.arena.live().count() as u64
    }

    /// Number of names that the rules removed, of device nodes and named pipes.
    pub(crate) fn left_out(&self) -> u64 {
        self.arena.pruned()
    }

    /// Number of files that lost set-user-ID or set-group-ID bits or capabilities by the rules.
    pub(crate) fn reduced(&self) -> u64 {
        self.reduced
    }

    /// What it gives to the pods that see it.
    pub fn powers(&self) -> Powers {
        Powers::of(&self.arena, &self.xattrs)
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

    /// The object and size in bytes of every file that is not inline. Files of equal content repeat.
    pub fn objects(&self) -> impl Iterator<Item = (VerityDigest, u64)> {
        self.arena.live().filter_map(|node| match node.kind {
            NodeKind::Object(digest, size) => Some((digest, size)),
            _ => None,
        })
    }

    pub(in crate::image) fn node(&self, id: NodeId) -> &Node {
        self.arena.node(id)
    }

    pub(in crate::image) fn children(&self, id: NodeId) -> Option<&Children> {
        self.arena.children(id)
    }

    pub(in crate::image) fn xattrs(&self, id: XattrsId) -> &Xattrs {
        self.xattrs.get(id)
    }

    /// Every distinct set of extended attributes that the layers brought, by its id. Not all are in use.
    pub(in crate::image) fn xattr_sets(&self) -> &[Arc<Xattrs>] {
        self.xattrs.sets()
    }

    /// Size of a table with one slot per inode.
    pub(in crate::image) fn slots(&self) -> usize {
        self.arena.slots()
    }
}
