//! Which inodes an image has, in which order: breadth first, the names of a directory in bytewise order
//! (`lcfs_compute_tree` of composefs).
//!
//! An inode of several names gets its number in the directory of its first name in the order of paths, whenever that
//! comes: composefs makes an inode of the first line of a dump that has it.

use std::collections::HashMap;

use super::entries::{Entries, Splitter, Target, is_stub_name};
use super::format::BLOCK;
use super::unsupported;
use crate::image::composefs::ImageError;
use crate::image::entry::INLINE_MAX;
use crate::image::tree::{CheckedTree, Node, NodeId, NodeKind};

/// Largest file in bytes that one chunk holds: 2^31 blocks.
const MAX_FILE: u64 = 1 << 43;

/// In a table of numbers: none so far.
const NONE: u32 = u32::MAX;

/// A directory of the image.
#[derive(Debug)]
pub(super) struct Dir {
    pub(super) number: u32,
    /// The number of the directory that it is in; the root is in itself.
    pub(super) parent: u32,
    /// Directories in it.
    subdirs: u32,
    /// Blocks of its entries.
    pub(super) blocks: u32,
    /// Bytes of its last entries, which are beside the inode.
    pub(super) tail: u16,
    /// Whether something in it is a whiteout device of the tree.
    pub(super) has_whiteouts: bool,
}

impl Dir {
    fn new(number: u32, parent: u32) -> Self {
        Self { number, parent, subdirs: 0, blocks: 0, tail: 0, has_whiteouts: false }
    }

    /// As stat(2): the name in its parent, `.`, and `..` of each directory in it.
    pub(super) fn links(&self) -> u32 {
        self.subdirs.saturating_add(2)
    }
}

/// What an inode of the image is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source<'t> {
    /// An inode of the tree that is no directory.
    Node(&'t Node),
    /// A directory of the tree.
    Directory(&'t Node, &'t Dir),
    /// An own whiteout device of the tree: in the image it is a file whose attributes say so, since overlayfs would hide
    /// the name.
    Escaped(&'t Node),
    /// One of the root's stubs, with the root.
    Stub(&'t Node),
}

/// The inodes of an image by number.
#[derive(Debug)]
pub(super) struct Numbering {
    /// [`NodeId::ROOT`] at any place but the first stands for a stub.
    order: Vec<NodeId>,
    /// The number of each inode of the tree.
    numbers: Vec<u32>,
    /// The numbers of the stubs by name.
    stubs: Vec<u32>,
    /// Directories in the order of their numbers.
    dirs: Vec<Dir>,
    /// Whiteout devices of the tree that the crate takes for stubs, in the order of their numbers.
    like_stubs: Vec<u32>,
}

impl Numbering {
    /// # Errors
    /// Too many inodes, and what has no place in an image.
    pub(super) fn of(tree: &CheckedTree) -> Result<Self, ImageError> {
        let homes = homes(tree);
        let mut this = Self {
            order: vec![NodeId::ROOT],
            numbers: vec![NONE; tree.slots()],
            stubs: vec![NONE; 256],
            dirs: vec![Dir::new(0, 0)],
            like_stubs: Vec::new(),
        };
        let mut at = 0;
        while at < this.dirs.len() {
            this.enter(tree, &homes, at)?;
            at += 1;
        }
        Ok(this)
    }

    /// Numbers what is in the directory at `at` of the table.
    fn enter(
        &mut self,
        tree: &CheckedTree,
        homes: &HashMap<NodeId, NodeId>,
        at: usize,
    ) -> Result<(), ImageError> {
        let number = self.dirs[at].number;
        let dir = self.order[number as usize];
        let (mut splitter, mut subdirs, mut has_whiteouts) = (Splitter::default(), 0, false);
        for (name, target) in Entries::of(tree, dir).into_iter().flatten() {
            splitter.begins_block(name);
            match target {
                Target::Own | Target::Parent => {}
                Target::Stub(stub) => self.stubs[usize::from(stub)] = self.push(NodeId::ROOT)?,
                Target::Node(child) if tree.children(child).is_some() => {
                    subdirs += 1;
                    let new = self.push(child)?;
                    self.numbers[child.index()] = new;
                    self.dirs.push(Dir::new(new, number));
                }
                Target::Node(child) => {
                    let node = tree.node(child);
                    let is_home = node.links < 2 || homes.get(&child) == Some(&dir);
                    if !is_home || self.numbers[child.index()] != NONE {
                        continue;
                    }
                    check(&node.kind)?;
                    let new = self.push(child)?;
                    self.numbers[child.index()] = new;
                    if matches!(node.kind, NodeKind::CharDevice(0)) {
                        if node.links > 1 {
                            return Err(unsupported("a whiteout device with several names"));
                        }
                        if dir == NodeId::ROOT && is_stub_name(name) && is_like_stub(tree, node) {
                            self.like_stubs.push(new);
                        } else {
                            has_whiteouts = true;
                        }
                    }
                }
            }
        }
        let (blocks, tail) = splitter.end();
        let parent = self.dirs[at].parent;
        self.dirs[at] = Dir { number, parent, subdirs, blocks, tail, has_whiteouts };
        Ok(())
    }

    fn push(&mut self, id: NodeId) -> Result<u32, ImageError> {
        let number = u32::try_from(self.order.len()).ok().filter(|number| *number != NONE);
        self.order.push(id);
        number.ok_or_else(|| unsupported("more inodes than 32 bits can number"))
    }

    /// How many inodes there are.
    pub(super) fn len(&self) -> u32 {
        // None has a number of more bits.
        self.order.len() as u32
    }

    /// What an inode is.
    pub(super) fn source<'t>(&'t self, tree: &'t CheckedTree, number: u32) -> Source<'t> {
        let id = self.order[number as usize];
        let node = tree.node(id);
        if id == NodeId::ROOT && number != 0 {
            return Source::Stub(node);
        }
        match node.kind {
            NodeKind::Directory(_) => match self.dirs.binary_search_by_key(&number, |dir| dir.number) {
                Ok(at) => Source::Directory(node, &self.dirs[at]),
                // Every directory is there.
                Err(_) => Source::Node(node),
            },
            NodeKind::CharDevice(0) if self.like_stubs.binary_search(&number).is_err() => {
                Source::Escaped(node)
            }
            _ => Source::Node(node),
        }
    }

    /// The entries of a directory.
    pub(super) fn entries<'t>(
        &self,
        tree: &'t CheckedTree,
        dir: &Dir,
    ) -> impl Iterator<Item = (&'t [u8], Target)> {
        Entries::of(tree, self.order[dir.number as usize]).into_iter().flatten()
    }

    /// The number of what an entry of `dir` leads to.
    pub(super) fn number(&self, dir: &Dir, target: Target) -> u32 {
        match target {
            Target::Own => dir.number,
            Target::Parent => dir.parent,
            Target::Stub(stub) => self.stubs[usize::from(stub)],
            Target::Node(id) => self.numbers[id.index()],
        }
    }
}

/// The directory of the first name, in the order of paths, of every inode of several names.
fn homes(tree: &CheckedTree) -> HashMap<NodeId, NodeId> {
    let mut homes = HashMap::new();
    let names = |id| tree.children(id).map(|children| (id, children.values()));
    // Without recursion: layers decide how deep the tree is.
    let mut stack: Vec<_> = names(NodeId::ROOT).into_iter().collect();
    while let Some((dir, rest)) = stack.last_mut() {
        let Some(child) = rest.next() else {
            stack.pop();
            continue;
        };
        if tree.node(*child).links > 1 {
            homes.entry(*child).or_insert(*dir);
        }
        stack.extend(names(*child));
    }
    homes
}

/// Refuses content that the image cannot hold. A checked tree has none of it.
fn check(kind: &NodeKind) -> Result<(), ImageError> {
    match kind {
        NodeKind::Inline(bytes) if bytes.len() > INLINE_MAX => {
            Err(unsupported("a large file without an object"))
        }
        NodeKind::Symlink(target) if target.len() >= BLOCK as usize => {
            Err(unsupported("a symbolic link whose target is too long"))
        }
        NodeKind::Object(_, size) if *size > MAX_FILE => Err(unsupported("a file beyond 8 TiB")),
        NodeKind::LeftOut | NodeKind::Pending | NodeKind::Free => {
            Err(unsupported("an inode without content"))
        }
        _ => Ok(()),
    }
}

/// Whether a whiteout device of the tree with the name of a stub is what the stub would be. The composefs crate then takes
/// it for one (`is_overlay_whiteout_stub`), and the bytes of an image must not depend on who writes it.
fn is_like_stub(tree: &CheckedTree, node: &Node) -> bool {
    let root = tree.node(NodeId::ROOT);
    let all = |stat: &crate::image::tree::Stat| (stat.uid, stat.gid, stat.mtime);
    let labels = tree.xattrs(root.stat.xattrs).iter().filter(|(name, _)| **name == *SELINUX);
    node.stat.mode == STUB_MODE
        && all(&node.stat) == all(&root.stat)
        && tree.xattrs(node.stat.xattrs).iter().eq(labels)
}

/// The one attribute that the stubs have from the root.
pub(super) const SELINUX: &[u8] = b"security.selinux";
/// The permissions of stubs.
pub(super) const STUB_MODE: u16 = 0o644;
