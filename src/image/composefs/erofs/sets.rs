//! Sets of extended attributes: those of the tree by their ids, and after them those that the format adds to inodes.

use super::attribute::{Attribute, OF_DIR, OF_ROOT, OF_WHITEOUT, Pair};
use super::number::{SELINUX, Source};
use crate::image::tree::{CheckedTree, Node, NodeId, Xattrs};

/// The format's own sets, after the tree's.
const ROOT: usize = 0;
const WHITEOUT: usize = 1;
const DIR: usize = 2;
/// What the stubs have from the root.
const STUB: usize = 3;
/// How many those are.
const OWN: usize = 4;

/// The sets of an inode: the tree's, and up to two that the format adds.
pub(super) type SetsOf = [Option<usize>; 3];

/// An attribute by its set and the position there.
pub(super) type Member = (u32, u32);

/// How many sets there are.
pub(super) fn len(tree: &CheckedTree) -> usize {
    tree.xattr_sets().len() + OWN
}

/// The sets of an inode.
pub(super) fn of(tree: &CheckedTree, source: Source<'_>) -> SetsOf {
    let of_tree = |node: &Node| Some(node.stat.xattrs.index());
    let own = |which: usize| Some(tree.xattr_sets().len() + which);
    match source {
        Source::Stub(_) => [own(STUB), None, None],
        Source::Node(node) => [of_tree(node), None, None],
        Source::Escaped(node) => [of_tree(node), own(WHITEOUT), None],
        Source::Directory(node, dir) => {
            let root = own(ROOT).filter(|_| dir.number == 0);
            [of_tree(node), root, own(DIR).filter(|_| dir.has_whiteouts)]
        }
    }
}

/// The attributes of the tree and those of the format that are in a set.
fn parts(tree: &CheckedTree, set: usize) -> (&Xattrs, &'static [Pair]) {
    match set.checked_sub(tree.xattr_sets().len()) {
        None => (&tree.xattr_sets()[set], &[]),
        Some(ROOT) => (&[], OF_ROOT),
        Some(WHITEOUT) => (&[], OF_WHITEOUT),
        Some(DIR) => (&[], OF_DIR),
        Some(_) => {
            let root = tree.xattrs(tree.node(NodeId::ROOT).stat.xattrs);
            let label = root.iter().position(|(name, _)| **name == *SELINUX);
            (label.map_or(&[], |at| &root[at..=at]), &[])
        }
    }
}

/// The attributes of a set.
pub(super) fn attributes(tree: &CheckedTree, set: usize) -> impl Iterator<Item = Attribute<'_>> {
    let (of_tree, own) = parts(tree, set);
    let of_tree = of_tree.iter().map(|(name, value)| Attribute::of_tree(name, value));
    of_tree.chain(own.iter().map(|(name, value)| Attribute::plain(name, value)))
}

/// One of them.
pub(super) fn attribute(tree: &CheckedTree, (set, at): Member) -> Attribute<'_> {
    let ((of_tree, own), at) = (parts(tree, set as usize), at as usize);
    match of_tree.get(at) {
        Some((name, value)) => Attribute::of_tree(name, value),
        None => {
            let (name, value) = own[at - of_tree.len()];
            Attribute::plain(name, value)
        }
    }
}
