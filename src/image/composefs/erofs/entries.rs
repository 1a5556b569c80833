//! The entries of a directory, in the order and the blocks of the image.

use std::collections::btree_map;
use std::iter::Peekable;

use super::format::{BLOCK, DIRENT};
use crate::image::tree::{CheckedTree, NodeId};

/// What an entry leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// The directory itself: `.`.
    Own,
    /// `..`.
    Parent,
    /// The whiteout device of this name in hexadecimal, which hides a directory of objects.
    Stub(u8),
    /// An inode of the tree.
    Node(NodeId),
}

/// Names of the stubs that the root has besides its own entries: overlayfs finds the objects below the root of its data
/// layer, and must not show their directories (`add_overlay_whiteouts` of composefs).
static STUBS: [[u8; 2]; 256] = stub_names();

const fn stub_names() -> [[u8; 2]; 256] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut names = [[0; 2]; 256];
    let mut at = 0;
    while at < names.len() {
        names[at] = [DIGITS[at / 16], DIGITS[at % 16]];
        at += 1;
    }
    names
}

/// Whether `name` is a stub's.
pub(super) fn is_stub_name(name: &[u8]) -> bool {
    STUBS.binary_search_by(|stub| stub.as_slice().cmp(name)).is_ok()
}

/// The entries of a directory in bytewise order, `.` and `..` and the root's stubs among them.
pub(super) struct Entries<'t> {
    /// How many of the format's own have passed.
    passed: usize,
    /// How many the directory has at most. Those whose name it has itself are left out.
    own: usize,
    children: Peekable<btree_map::Iter<'t, Box<[u8]>, NodeId>>,
}

impl<'t> Entries<'t> {
    /// Those of `dir`; `None` if it is no directory.
    pub(super) fn of(tree: &'t CheckedTree, dir: NodeId) -> Option<Self> {
        let own = if dir == NodeId::ROOT { 2 + STUBS.len() } else { 2 };
        Some(Self { passed: 0, own, children: tree.children(dir)?.iter().peekable() })
    }

    /// The next one of the format's own. They are in bytewise order.
    fn own(&self) -> Option<(&'static [u8], Target)> {
        match self.passed {
            passed if passed >= self.own => None,
            0 => Some((b".", Target::Own)),
            1 => Some((b"..", Target::Parent)),
            passed => STUBS.get(passed - 2).map(|name| (name.as_slice(), Target::Stub((passed - 2) as u8))),
        }
    }
}

impl<'t> Iterator for Entries<'t> {
    type Item = (&'t [u8], Target);

    fn next(&mut self) -> Option<Self::Item> {
        while let Some((name, target)) = self.own() {
            match self.children.peek() {
                Some((child, _)) if ***child < *name => break,
                // The tree's own entry takes the stub's place.
                Some((child, _)) if ***child == *name => self.passed += 1,
                _ => {
                    self.passed += 1;
                    return Some((name, target));
                }
            }
        }
        self.children.next().map(|(name, child)| (&**name, Target::Node(*child)))
    }
}

/// Divides a directory into blocks: as many entries in each as fit, and the last ones beside the inode if they take no
/// more than half a block.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    blocks: u32,
    filled: usize,
}

impl Splitter {
    /// Takes the next entry. True if it begins another block.
    pub(super) fn begins_block(&mut self, name: &[u8]) -> bool {
        let size = DIRENT + name.len();
        if self.filled + size <= BLOCK as usize {
            self.filled += size;
            return false;
        }
        self.blocks = self.blocks.saturating_add(1);
        self.filled = size;
        true
    }

    /// Full blocks, and bytes beside the inode.
    pub(super) fn end(self) -> (u32, u16) {
        if self.filled > BLOCK as usize / 2 {
            return (self.blocks.saturating_add(1), 0);
        }
        (self.blocks, self.filled as u16)
    }
}
