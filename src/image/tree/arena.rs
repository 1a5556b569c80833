//! The inodes of a tree under construction, in one table.
//!
//! Indices instead of pointers keep an inode at about 80 bytes, make hard links trivial and let
//! subtrees go without recursion. The bytes that hostile layers can make us hold are counted here.

use std::collections::BTreeMap;

use super::error::TreeError;
use super::xattrs::XattrsId;
use crate::image::entry::Mtime;
use crate::image::verity::VerityDigest;
use crate::oci::limits::{Cap, Limits};

/// Index of an inode. Not reused while a layer is being applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NodeId(u32);

impl NodeId {
    /// The root directory.
    pub(crate) const ROOT: Self = Self(0);

    /// Position in a table with one slot per inode.
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// A directory's entries by name, in bytewise order as the image format wants them.
pub(crate) type Children = BTreeMap<Box<[u8]>, Child>;

/// One name of an inode.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Child {
    /// The inode.
    pub(crate) node: NodeId,
    /// Number of the layer that gave the name this inode; whiteouts hide only lower ones.
    pub(crate) layer: u32,
}

/// Metadata of an inode.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stat {
    /// Permission bits, without the type.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Never negative.
    pub(crate) mtime: Mtime,
    pub(crate) xattrs: XattrsId,
}

impl Stat {
    /// What a directory gets that no layer describes.
    pub(crate) const IMPLIED: Self =
        Self { mode: 0o755, uid: 0, gid: 0, mtime: Mtime { secs: 0, nanos: 0 }, xattrs: XattrsId::NONE };
}

/// An inode.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) stat: Stat,
    /// Names that it has; always 1 for a directory.
    pub(crate) links: u32,
    pub(crate) kind: NodeKind,
}

/// What an inode is.
#[derive(Debug)]
pub(crate) enum NodeKind {
    Directory(Children),
    Inline(Box<[u8]>),
    Object(VerityDigest, u64),
    Symlink(Box<[u8]>),
    /// Device number as the kernel encodes it (`new_encode_dev`).
    CharDevice(u32),
    BlockDevice(u32),
    Fifo,
    /// Holds the place of a hard link whose target is still to come in this layer.
    Pending,
    /// A free slot.
    Free,
}

impl NodeKind {
    /// Whether opening the file reaches something other than the image: a driver of the node, or, through a
    /// named pipe, another pod with the same image (the kernel allows writing to one on a read-only mount).
    pub(crate) fn is_special(&self) -> bool {
        matches!(self, Self::CharDevice(_) | Self::BlockDevice(_) | Self::Fifo)
    }
}

/// All inodes.
#[derive(Debug)]
pub(crate) struct Arena {
    nodes: Vec<Node>,
    /// Slots to use again.
    free: Vec<NodeId>,
    /// Slots freed by the layer being applied: its bookkeeping may still name them.
    freed: Vec<NodeId>,
    metadata: usize,
    xattrs: usize,
    pruned: u64,
    limits: Limits,
}

impl Arena {
    /// A root directory and nothing else.
    pub(crate) fn new(limits: Limits) -> Self {
        let root = Node { stat: Stat::IMPLIED, links: 1, kind: NodeKind::Directory(Children::new()) };
        Self {
            nodes: vec![root],
            free: Vec::new(),
            freed: Vec::new(),
            metadata: 0,
            xattrs: 0,
            pruned: 0,
            limits,
        }
    }

    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    pub(crate) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.index()]
    }

    /// Every inode in use.
    pub(crate) fn live(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| !matches!(node.kind, NodeKind::Free))
    }

    /// The first path, in order, of an inode that `wanted` tells.
    pub(crate) fn find(&self, wanted: impl Fn(&Node) -> bool) -> Option<Vec<u8>> {
        let mut todo = vec![(Vec::new(), NodeId::ROOT)];
        while let Some((path, id)) = todo.pop() {
            if wanted(self.node(id)) {
                return Some(path);
            }
            for (name, child) in self.children(id).into_iter().flatten().rev() {
                let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
                todo.push(([&path, slash, &**name].concat(), child.node));
            }
        }
        None
    }

    /// Slots, in use or not.
    pub(crate) fn slots(&self) -> usize {
        self.nodes.len()
    }

    /// A directory's entries; `None` if `id` is no directory.
    pub(crate) fn children(&self, id: NodeId) -> Option<&Children> {
        match &self.node(id).kind {
            NodeKind::Directory(children) => Some(children),
            _ => None,
        }
    }

    /// The same, to change.
    pub(crate) fn children_mut(&mut self, id: NodeId) -> Option<&mut Children> {
        match &mut self.node_mut(id).kind {
            NodeKind::Directory(children) => Some(children),
            _ => None,
        }
    }

    /// Adds an inode without a name.
    pub(crate) fn add(&mut self, stat: Stat, kind: NodeKind) -> Result<NodeId, TreeError> {
        self.charge(match &kind {
            NodeKind::Inline(bytes) | NodeKind::Symlink(bytes) => bytes.len(),
            _ => 0,
        })?;
        let node = Node { stat, links: 0, kind };
        if let Some(id) = self.free.pop() {
            self.nodes[id.index()] = node;
            return Ok(id);
        }
        if self.nodes.len() >= self.limits.inodes {
            return Err(Cap::Inodes.exceeded(self.nodes.len() + 1, self.limits.inodes).into());
        }
        let Ok(next) = u32::try_from(self.nodes.len()) else {
            return Err(Cap::Inodes.exceeded(self.nodes.len() + 1, u32::MAX).into());
        };
        let id = NodeId(next);
        self.nodes.push(node);
        Ok(id)
    }

    /// Counts bytes of metadata that a layer makes us hold.
    pub(crate) fn charge(&mut self, bytes: usize) -> Result<(), TreeError> {
        self.metadata = self.metadata.saturating_add(bytes);
        if self.metadata > self.limits.metadata_bytes {
            return Err(Cap::MetadataBytes.exceeded(self.metadata, self.limits.metadata_bytes).into());
        }
        Ok(())
    }

    /// The same for bytes of extended attributes.
    pub(crate) fn charge_xattrs(&mut self, bytes: usize) -> Result<(), TreeError> {
        self.xattrs = self.xattrs.saturating_add(bytes);
        if self.xattrs > self.limits.image_xattr_bytes {
            return Err(Cap::ImageXattrBytes.exceeded(self.xattrs, self.limits.image_xattr_bytes).into());
        }
        self.charge(bytes)
    }

    /// Gives `node` the name `name` in `dir`; what had that name loses it.
    pub(crate) fn attach(
        &mut self,
        dir: NodeId,
        name: &[u8],
        node: NodeId,
        layer: u32,
    ) -> Result<(), TreeError> {
        self.charge(name.len())?;
        // First, so that replacing a directory does not free a link target inside it.
        self.node_mut(node).links += 1;
        let old = self.children_mut(dir).and_then(|all| all.insert(name.into(), Child { node, layer }));
        if let Some(old) = old {
            self.release(old.node);
        }
        Ok(())
    }

    /// Takes one name from an inode; the last one frees it and, for a directory, all below it.
    pub(crate) fn release(&mut self, id: NodeId) {
        let mut doomed = vec![id];
        while let Some(id) = doomed.pop() {
            let node = self.node_mut(id);
            node.links = node.links.saturating_sub(1);
            if node.links > 0 {
                continue;
            }
            if let NodeKind::Directory(children) = std::mem::replace(&mut node.kind, NodeKind::Free) {
                doomed.extend(children.into_values().map(|child| child.node));
            }
            self.freed.push(id);
        }
    }

    /// Takes every name from the unwanted inodes, none of which is a directory, and so frees them. What they
    /// replaced stays replaced.
    pub(crate) fn prune(&mut self, unwanted: impl Fn(&NodeKind) -> bool) {
        if !self.live().any(|node| unwanted(&node.kind)) {
            return;
        }
        for index in 0..self.nodes.len() {
            let NodeKind::Directory(children) = &self.nodes[index].kind else { continue };
            let names = children.iter().filter(|(_, child)| unwanted(&self.node(child.node).kind));
            let doomed: Vec<(Box<[u8]>, NodeId)> =
                names.map(|(name, child)| (name.clone(), child.node)).collect();
            for (name, node) in doomed {
                if let NodeKind::Directory(children) = &mut self.nodes[index].kind {
                    children.remove(&name);
                }
                self.release(node);
                self.pruned += 1;
            }
        }
    }

    /// Names that [`Arena::prune`] took.
    pub(crate) fn pruned(&self) -> u64 {
        self.pruned
    }

    /// Makes the slots that a layer freed available to the next one.
    pub(crate) fn recycle(&mut self) {
        self.free.append(&mut self.freed);
    }

    /// Gives back memory that was kept for growth.
    pub(crate) fn shrink(&mut self) {
        self.nodes.shrink_to_fit();
        self.free = Vec::new();
        self.freed = Vec::new();
    }
}
