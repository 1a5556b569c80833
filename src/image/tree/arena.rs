//! The inodes of a tree under construction, in one table.
//!
//! Indices instead of pointers keep an inode at about 80 bytes, make hard links trivial and free subtrees
//! without recursion. The bytes that hostile layers can make the process hold are counted here.

use std::collections::{BTreeMap, VecDeque};

use super::error::TreeError;
use super::stop::Stop;
use super::xattrs::XattrsId;
use crate::image::entry::Mtime;
use crate::image::verity::VerityDigest;
use crate::oci::limits::{Cap, ImageLimits};

/// Index of an inode. Not reused while a layer is being applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::image) struct NodeId(u32);

impl NodeId {
    /// The root directory.
    pub(in crate::image) const ROOT: Self = Self(0);
    /// The root of what the layer being applied has. It lies over the lower layers when the layer ends.
    pub(super) const LAYER: Self = Self(1);

    /// Position in a table with one slot per inode.
    pub(in crate::image) fn index(self) -> usize {
        self.0 as usize
    }
}

/// A directory's entries by name, in the bytewise order of the image format.
pub(in crate::image) type Children = BTreeMap<Box<[u8]>, NodeId>;

/// Metadata of an inode.
#[derive(Debug, Clone, Copy)]
pub(in crate::image) struct Stat {
    /// Permission bits, without the type.
    pub(in crate::image) mode: u16,
    pub(in crate::image) uid: u32,
    pub(in crate::image) gid: u32,
    /// Never negative.
    pub(in crate::image) mtime: Mtime,
    pub(in crate::image) xattrs: XattrsId,
}

impl Stat {
    /// The metadata of a directory that no layer describes.
    pub(super) const IMPLIED: Self =
        Self { mode: 0o755, uid: 0, gid: 0, mtime: Mtime { secs: 0, nanos: 0 }, xattrs: XattrsId::NONE };
}

/// An inode.
#[derive(Debug)]
pub(in crate::image) struct Node {
    pub(in crate::image) stat: Stat,
    /// Number of its names; always 1 for a directory.
    pub(in crate::image) links: u32,
    /// A directory that the layer being applied has only in the paths of other entries.
    pub(super) implied: bool,
    pub(in crate::image) kind: NodeKind,
}

/// What an inode is.
#[derive(Debug)]
pub(in crate::image) enum NodeKind {
    Directory(Children),
    Inline(Box<[u8]>),
    Object(VerityDigest, u64),
    /// A file whose content is not here; in no finished tree.
    LeftOut,
    Symlink(Box<[u8]>),
    /// Device number as the kernel encodes it (`new_encode_dev`).
    CharDevice(u32),
    BlockDevice(u32),
    Fifo,
    /// Placeholder of a hard link whose target is still to come in this layer.
    Pending,
    /// A free slot.
    Free,
}

impl NodeKind {
    /// Whether opening the file leads out of the image: to a driver of the node or, through a named pipe, to
    /// another pod with the same image. The kernel allows writing to a pipe on a read-only mount.
    pub(super) fn is_special(&self) -> bool {
        matches!(self, Self::CharDevice(_) | Self::BlockDevice(_) | Self::Fifo)
    }
}

/// All inodes.
#[derive(Debug)]
pub(super) struct Arena {
    nodes: Vec<Node>,
    /// Slots that can be used again.
    free: Vec<NodeId>,
    /// Slots freed by the layer being applied, whose bookkeeping may still name them.
    freed: Vec<NodeId>,
    /// Bytes of metadata that the layers have brought, replaced ones included.
    metadata: usize,
    /// Those of them that are extended attributes.
    xattrs: usize,
    /// Names that [`Arena::prune`] has removed.
    pruned: u64,
    /// Path components looked up so far.
    steps: u64,
    /// Where the last paths of directories led, at most [`REMEMBERED`] of them, the oldest first. Neighbours in a layer
    /// mostly share their directory, and hard links that of their targets.
    last_walks: VecDeque<LastWalk>,
    limits: ImageLimits,
    stop: Stop,
}

/// Paths that are remembered: comparing with each costs less than a step of a walk.
const REMEMBERED: usize = 4;

/// In what a path is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    /// In what the layer being applied has itself. Its entries go there: a layer is unpacked by itself.
    Own,
    /// In that and, where it has nothing, in the lower layers. The targets of its hard links are looked for there.
    Merged,
    /// In the same, but without the symbolic links of lower layers. Its markers hide what is there.
    Hidden,
}

/// A directory of a view: what the layer being applied has of it, and what the lower layers have. One of them may lack
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StackedDir {
    pub(super) own: Option<NodeId>,
    pub(super) low: Option<NodeId>,
}

impl StackedDir {
    /// The root.
    pub(super) fn top(view: View) -> Self {
        Self { own: Some(NodeId::LAYER), low: (view != View::Own).then_some(NodeId::ROOT) }
    }
}

/// A path of directories, all of which exist, and where it leads.
#[derive(Debug)]
struct LastWalk {
    path: Box<[u8]>,
    view: View,
    place: StackedDir,
    depth: usize,
}

impl Arena {
    /// A root directory and nothing else.
    pub(super) fn new(limits: ImageLimits) -> Self {
        let root = || Node {
            stat: Stat::IMPLIED,
            links: 1,
            implied: true,
            kind: NodeKind::Directory(Children::new()),
        };
        Self {
            // In the order of their constants.
            nodes: vec![root(), root()],
            free: Vec::new(),
            freed: Vec::new(),
            metadata: 0,
            xattrs: 0,
            pruned: 0,
            steps: 0,
            last_walks: VecDeque::new(),
            limits,
            stop: Stop::default(),
        }
    }

    /// Whoever wants the tree says by `stop` that it is not wanted any more.
    pub(super) fn heed(&mut self, stop: Stop) {
        self.stop = stop;
    }

    /// Looks whether the tree is wanted: before each entry, each link that waits, and each walk.
    pub(super) fn check_stop(&self) -> Result<(), TreeError> {
        self.stop.check()
    }

    pub(super) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    pub(super) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.index()]
    }

    /// Every inode in use.
    pub(super) fn live(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| !matches!(node.kind, NodeKind::Free))
    }

    /// As [`Arena::live`], to be changed.
    pub(super) fn live_mut(&mut self) -> impl Iterator<Item = &mut Node> {
        self.nodes.iter_mut().filter(|node| !matches!(node.kind, NodeKind::Free))
    }

    /// The first path, in order, of an inode for which `wanted` is true.
    pub(super) fn find(&self, wanted: impl Fn(&Node) -> bool) -> Option<Vec<u8>> {
        self.search(NodeId::ROOT, |id| wanted(self.node(id)))
    }

    /// The same below `top`, and relative to it.
    pub(super) fn search(&self, top: NodeId, wanted: impl Fn(NodeId) -> bool) -> Option<Vec<u8>> {
        let mut todo = vec![(Vec::new(), top)];
        while let Some((path, id)) = todo.pop() {
            if wanted(id) {
                return Some(path);
            }
            // In reverse, since the stack returns the last one first.
            for (name, child) in self.children(id).into_iter().flatten().rev() {
                let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
                todo.push(([&path, slash, &**name].concat(), *child));
            }
        }
        None
    }

    /// Slots, in use or not.
    pub(super) fn slots(&self) -> usize {
        self.nodes.len()
    }

    /// A directory's entries; `None` if `id` is no directory.
    pub(super) fn children(&self, id: NodeId) -> Option<&Children> {
        match &self.node(id).kind {
            NodeKind::Directory(children) => Some(children),
            _ => None,
        }
    }

    /// As [`Arena::children`], to be changed.
    pub(super) fn children_mut(&mut self, id: NodeId) -> Option<&mut Children> {
        match &mut self.node_mut(id).kind {
            NodeKind::Directory(children) => Some(children),
            _ => None,
        }
    }

    /// Adds an inode without a name.
    pub(super) fn add(&mut self, stat: Stat, kind: NodeKind) -> Result<NodeId, TreeError> {
        self.charge(match &kind {
            NodeKind::Inline(bytes) | NodeKind::Symlink(bytes) => bytes.len(),
            _ => 0,
        })?;
        let node = Node { stat, links: 0, implied: false, kind };
        // Reuse bounds the table, however often layers replace files.
        if let Some(id) = self.free.pop() {
            self.nodes[id.index()] = node;
            return Ok(id);
        }
        // The layer's root is none of the image's.
        if self.nodes.len() > self.limits.inodes {
            return Err(Cap::Inodes.exceeded(self.nodes.len(), self.limits.inodes).into());
        }
        let Ok(next) = u32::try_from(self.nodes.len()) else {
            return Err(Cap::Inodes.exceeded(self.nodes.len(), u32::MAX).into());
        };
        let id = NodeId(next);
        self.nodes.push(node);
        Ok(id)
    }

    /// Counts bytes of metadata that a layer brings.
    pub(super) fn charge(&mut self, bytes: usize) -> Result<(), TreeError> {
        self.metadata = self.metadata.saturating_add(bytes);
        if self.metadata > self.limits.metadata_bytes {
            return Err(Cap::MetadataBytes.exceeded(self.metadata, self.limits.metadata_bytes).into());
        }
        Ok(())
    }

    /// Counts bytes of extended attributes, which also are metadata.
    pub(super) fn charge_xattrs(&mut self, bytes: usize) -> Result<(), TreeError> {
        self.xattrs = self.xattrs.saturating_add(bytes);
        if self.xattrs > self.limits.image_xattr_bytes {
            return Err(Cap::ImageXattrBytes.exceeded(self.xattrs, self.limits.image_xattr_bytes).into());
        }
        self.charge(bytes)
    }

    /// Counts path components that were looked up. A path is bounded, and so are the links that it goes through, but
    /// a layer of a few kilobytes can name the longest such path a million times.
    pub(super) fn charge_steps(&mut self, steps: u64) -> Result<(), TreeError> {
        self.check_stop()?;
        self.steps = self.steps.saturating_add(steps);
        if self.steps > self.limits.path_steps {
            return Err(Cap::PathSteps.exceeded(self.steps, self.limits.path_steps).into());
        }
        Ok(())
    }

    /// Where `path` leads, and how deep that is, if it is remembered.
    pub(super) fn remembered(&self, path: &[u8], view: View) -> Option<(StackedDir, usize)> {
        let found = self.last_walks.iter().find(|last| last.view == view && *last.path == *path);
        found.map(|last| (last.place, last.depth))
    }

    /// Remembers where a path leads. What the layer being applied gets may not change that: every name on the path is
    /// there already, and in what the layer has itself unless it gets nothing any more. That holds until a directory or
    /// a symbolic link loses a name: a new name changes no path that does without it.
    pub(super) fn remember(&mut self, path: &[u8], view: View, place: StackedDir, depth: usize) {
        if self.last_walks.len() == REMEMBERED {
            self.last_walks.pop_front();
        }
        self.last_walks.push_back(LastWalk { path: path.into(), view, place, depth });
    }

    /// Gives `node` the name `name` in `dir`, and takes it from the inode that had it.
    pub(super) fn attach(&mut self, dir: NodeId, name: &[u8], node: NodeId) -> Result<(), TreeError> {
        self.charge(name.len())?;
        // Before the release, so that replacing a directory does not free a link target inside it.
        self.node_mut(node).links += 1;
        self.put(dir, name.into(), node);
        Ok(())
    }

    /// Gives a directory the metadata of its entry.
    pub(super) fn describe(&mut self, dir: NodeId, stat: Stat) {
        let node = self.node_mut(dir);
        (node.stat, node.implied) = (stat, false);
    }

    /// Gives a name that `node` has elsewhere to `dir`, and takes it from the inode that had it there.
    pub(super) fn put(&mut self, dir: NodeId, name: Box<[u8]>, node: NodeId) {
        if let Some(old) = self.children_mut(dir).and_then(|all| all.insert(name, node)) {
            self.release(old);
        }
    }

    /// Takes one name from an inode. Without any name it is freed and, for a directory, everything below it.
    pub(super) fn release(&mut self, id: NodeId) {
        if matches!(self.node(id).kind, NodeKind::Directory(_) | NodeKind::Symlink(_)) {
            self.last_walks.clear();
        }
        let mut doomed = vec![id];
        while let Some(id) = doomed.pop() {
            let node = self.node_mut(id);
            node.links = node.links.saturating_sub(1);
            // It has other names.
            if node.links > 0 {
                continue;
            }
            // A list instead of recursion: a hostile layer decides how deep the tree is.
            if let NodeKind::Directory(children) = std::mem::replace(&mut node.kind, NodeKind::Free) {
                doomed.extend(children.into_values());
            }
            self.freed.push(id);
        }
    }

    /// Takes every name from the unwanted inodes, and so frees them. None of them may be a directory. What they
    /// had replaced does not come back.
    pub(super) fn prune(&mut self, unwanted: impl Fn(&NodeKind) -> bool) {
        // Most images have none, and then no name is copied.
        if !self.live().any(|node| unwanted(&node.kind)) {
            return;
        }
        for index in 0..self.nodes.len() {
            let NodeKind::Directory(children) = &self.nodes[index].kind else { continue };
            let names = children.iter().filter(|(_, child)| unwanted(&self.node(**child).kind));
            let doomed: Vec<(Box<[u8]>, NodeId)> =
                names.map(|(name, child)| (name.clone(), *child)).collect();
            for (name, node) in doomed {
                if let NodeKind::Directory(children) = &mut self.nodes[index].kind {
                    children.remove(&name);
                }
                self.release(node);
                self.pruned += 1;
            }
        }
    }

    /// Names that [`Arena::prune`] removed.
    pub(super) fn pruned(&self) -> u64 {
        self.pruned
    }

    /// Begins a new layer: nothing is its own, and the slots that the last one freed are available.
    pub(super) fn recycle(&mut self) {
        let layer = self.node_mut(NodeId::LAYER);
        (layer.stat, layer.implied) = (Stat::IMPLIED, true);
        layer.kind = NodeKind::Directory(Children::new());
        self.last_walks.clear();
        self.free.append(&mut self.freed);
    }

    /// Frees memory that was reserved for growth, and what only a layer needs.
    pub(super) fn shrink(&mut self) {
        self.node_mut(NodeId::LAYER).kind = NodeKind::Free;
        self.nodes.shrink_to_fit();
        self.free = Vec::new();
        self.freed = Vec::new();
    }
}
