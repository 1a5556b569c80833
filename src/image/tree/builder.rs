//! Applying entries: the effect of each kind of entry on the tree.

use std::ops::RangeBounds;

use super::arena::{Arena, Node, NodeId, NodeKind, Stat};
use super::checked::CheckedTree;
use super::choose;
use super::error::{TreeError, shown};
use super::hide::{Hides, Markers};
use super::link::{self, PendingLinks};
use super::merge;
use super::reduce;
use super::resolve;
use super::rules::{self, Rules};
use super::stop::Stop;
use super::xattrs::{self, XattrTable};
use crate::image::entry::{AUFS_LINKS, EntryKind, INLINE_MAX, LayerEntry, Meta};
use crate::oci::choice::Choice;
use crate::oci::limits::ImageLimits;

/// Longest target of a symbolic link in bytes: `PATH_MAX` less the NUL.
const MAX_TARGET: usize = 4095;
/// Largest file in bytes: the span of one chunk of EROFS (2^31 blocks). No supported filesystem holds more.
const MAX_FILE: u64 = 1 << 43;

/// Folds layers into one tree.
///
/// ```
/// # use composefs_csi::image::tree::{Builder, Rules, TreeError};
/// # fn layers() -> Vec<Vec<composefs_csi::image::entry::LayerEntry>> { vec![] }
/// let mut builder = Builder::new(Rules::Faithful);
/// for entries in layers() {
///     let mut layer = builder.layer();
///     for entry in entries {
///         layer.apply(entry)?;
///     }
///     layer.end()?;
/// }
/// let tree = builder.finish()?;
/// # Ok::<(), TreeError>(())
/// ```
#[derive(Debug)]
pub struct Builder {
    rules: Rules,
    arena: Arena,
    xattrs: XattrTable,
    /// Hard links of the current layer without a target so far.
    pending: PendingLinks,
    /// What the current layer hides of lower ones.
    markers: Markers,
    /// What of the whole tree is wanted.
    choice: Choice,
}

impl Builder {
    /// Starts with an empty root.
    pub fn new(rules: Rules) -> Self {
        Self::with_limits(rules, ImageLimits::default())
    }

    /// As [`Builder::new`], with other limits than the default ones.
    pub fn with_limits(rules: Rules, limits: ImageLimits) -> Self {
        let (arena, xattrs) = (Arena::new(limits), XattrTable::new());
        Self {
            rules,
            arena,
            xattrs,
            pending: PendingLinks::default(),
            markers: Markers::default(),
            choice: Choice::default(),
        }
    }

    /// The same, of what `choice` takes of the whole tree.
    #[must_use]
    pub fn choosing(self, choice: &Choice) -> Self {
        Self { choice: choice.clone(), ..self }
    }

    /// The same, until `stop` says that the tree is not wanted any more.
    #[must_use]
    pub fn until(mut self, stop: &Stop) -> Self {
        self.arena.heed(stop.clone());
        self
    }

    /// The tree so far.
    pub(super) fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Starts the next layer, lowest first.
    pub fn layer(&mut self) -> Layer<'_> {
        Layer { builder: self }
    }

    /// Ends the tree.
    ///
    /// # Errors
    /// The canonical rules need a directory `/usr`. A layer that was dropped before its [`end`](Layer::end) may
    /// leave hard links without a target. A choice matches nothing, or takes what was not stored.
    pub fn finish(mut self) -> Result<CheckedTree, TreeError> {
        self.end_layer()?;
        // In this order: the rules may remove the device nodes that the check refuses.
        self.rules.finish(&mut self.arena)?;
        choose::choose(&mut self.arena, &self.choice)?;
        self.check_whiteouts()?;
        let reduction = self.rules.reduction();
        let reduced = reduction.map_or(0, |to| reduce::reduce(&mut self.arena, &mut self.xattrs, to));
        self.arena.shrink();
        Ok(CheckedTree::new(self.arena, self.xattrs, reduced))
    }

    /// The format turns a whiteout device into a file and marks its directory. With several names it would have
    /// to choose one.
    fn check_whiteouts(&self) -> Result<(), TreeError> {
        let linked = |node: &Node| matches!(node.kind, NodeKind::CharDevice(0)) && node.links > 1;
        if !self.arena.live().any(linked) {
            return Ok(());
        }
        let path = self.arena.find(|node| linked(node)).unwrap_or_default();
        Err(TreeError::LinkedWhiteout { path: shown(&path) })
    }

    fn end_layer(&mut self) -> Result<(), TreeError> {
        link::resolve_pending(&mut self.arena, std::mem::take(&mut self.pending))?;
        // Only now: links may lead to what the layer hides, as a file that was renamed does.
        std::mem::take(&mut self.markers).apply(&mut self.arena)?;
        let aufs = self.arena.children_mut(NodeId::LAYER).and_then(|all| all.remove(AUFS_LINKS));
        if let Some(aufs) = aufs {
            self.arena.release(aufs);
        }
        merge::merge(&mut self.arena);
        self.arena.recycle();
        Ok(())
    }

    fn apply(&mut self, entry: LayerEntry) -> Result<(), TreeError> {
        self.arena.check_stop()?;
        let LayerEntry { path, meta, kind } = entry;
        match kind {
            EntryKind::Whiteout => self.markers.add(&mut self.arena, path, Hides::Path),
            EntryKind::Opaque => self.markers.add(&mut self.arena, path, Hides::Content),
            EntryKind::Directory if path.is_empty() => self.root(meta),
            // Markers may name the root; anything else replaces it, which only a directory can.
            _ if path.is_empty() => Err(TreeError::RootNotADirectory),
            EntryKind::Directory => self.directory(&path, meta),
            EntryKind::Hardlink(target) => {
                let dir = self.parent(&path)?;
                link::hard_link(&mut self.arena, &mut self.pending, dir, path, target)
            }
            EntryKind::Inline(bytes) => {
                check_size(&path, bytes.len() as u64, ..=INLINE_MAX as u64)?;
                self.leaf(&path, meta, NodeKind::Inline(bytes))
            }
            EntryKind::Object(digest, size) => {
                check_size(&path, size, INLINE_MAX as u64 + 1..=MAX_FILE)?;
                self.leaf(&path, meta, NodeKind::Object(digest, size))
            }
            EntryKind::LeftOut(_) => self.leaf(&path, meta, NodeKind::LeftOut),
            EntryKind::Symlink(target) => {
                let target = checked_target(&path, target)?;
                self.leaf(&path, meta, NodeKind::Symlink(target))
            }
            EntryKind::CharDevice(major, minor) => {
                let number = device(&path, major, minor)?;
                self.leaf(&path, meta, NodeKind::CharDevice(number))
            }
            EntryKind::BlockDevice(major, minor) => {
                let number = device(&path, major, minor)?;
                self.leaf(&path, meta, NodeKind::BlockDevice(number))
            }
            EntryKind::Fifo => self.leaf(&path, meta, NodeKind::Fifo),
        }
    }

    /// The directory of a path, created if missing. Also checks the name in it.
    fn parent(&mut self, path: &[u8]) -> Result<NodeId, TreeError> {
        let (parent, name) = resolve::split(path);
        resolve::check_name(name, path)?;
        resolve::make_dir(&mut self.arena, parent, path)
    }

    fn root(&mut self, meta: Meta) -> Result<(), TreeError> {
        if self.rules.takes_root_entry() {
            let stat = self.stat(b"", meta)?;
            self.arena.describe(NodeId::LAYER, stat);
        }
        Ok(())
    }

    fn leaf(&mut self, path: &[u8], meta: Meta, kind: NodeKind) -> Result<(), TreeError> {
        let dir = self.parent(path)?;
        let stat = self.stat(path, meta)?;
        let node = self.arena.add(stat, kind)?;
        self.arena.attach(dir, resolve::split(path).1, node)
    }

    /// A directory over a directory keeps its children. Over anything else it starts empty.
    fn directory(&mut self, path: &[u8], meta: Meta) -> Result<(), TreeError> {
        let dir = self.parent(path)?;
        let stat = self.stat(path, meta)?;
        let (_, name) = resolve::split(path);
        let old = self.arena.children(dir).and_then(|all| all.get(name)).copied();
        if let Some(old) = old.filter(|old| self.arena.children(*old).is_some()) {
            self.arena.describe(old, stat);
            return Ok(());
        }
        let node = self.arena.add(stat, NodeKind::Directory(Default::default()))?;
        self.arena.attach(dir, name, node)
    }

    fn stat(&mut self, path: &[u8], meta: Meta) -> Result<Stat, TreeError> {
        // Before the check: attributes that the rules drop cannot be too many.
        let mut set = meta.xattrs;
        set.retain(|(name, _)| self.rules.keeps(name));
        xattrs::check(&set).map_err(|reason| TreeError::Xattrs { path: shown(path), reason })?;
        let (id, bytes) = self.xattrs.intern(set);
        self.arena.charge_xattrs(bytes)?;
        Ok(Stat {
            // The type is in the node's kind.
            mode: (meta.mode & 0o7777) as u16,
            uid: meta.uid,
            gid: meta.gid,
            mtime: rules::clamp(meta.mtime),
            xattrs: id,
        })
    }
}

/// One layer being applied.
#[derive(Debug)]
pub struct Layer<'a> {
    builder: &'a mut Builder,
}

impl Layer<'_> {
    /// Applies the next entry of the layer, in tar order.
    ///
    /// # Errors
    /// Every [`TreeError`] but `NoUsr`. The tree must then be dropped.
    pub fn apply(&mut self, entry: LayerEntry) -> Result<(), TreeError> {
        self.builder.apply(entry)
    }

    pub(super) fn builder(&self) -> &Builder {
        self.builder
    }

    /// The tree so far.
    #[cfg(test)]
    pub(super) fn arena(&mut self) -> &mut Arena {
        &mut self.builder.arena
    }

    /// Ends the layer, and makes the hard links whose target came after them.
    ///
    /// # Errors
    /// A hard link's target is missing, or is a directory.
    pub fn end(self) -> Result<(), TreeError> {
        self.builder.end_layer()
    }
}

/// Refuses a target that no symbolic link can have.
fn checked_target(path: &[u8], target: Box<[u8]>) -> Result<Box<[u8]>, TreeError> {
    if target.is_empty() || target.len() > MAX_TARGET {
        let length = target.len();
        return Err(TreeError::SymlinkTarget { path: shown(path), length, limit: MAX_TARGET });
    }
    Ok(target)
}

fn check_size(path: &[u8], size: u64, allowed: impl RangeBounds<u64>) -> Result<(), TreeError> {
    if allowed.contains(&size) { Ok(()) } else { Err(TreeError::FileSize { path: shown(path), size }) }
}

/// A device number as the kernel keeps it on disk: 12 bits of major, 20 of minor
/// (`new_encode_dev`, include/linux/kdev_t.h).
pub(super) fn device(path: &[u8], major: u32, minor: u32) -> Result<u32, TreeError> {
    if major > 0xfff || minor > 0xf_ffff {
        return Err(TreeError::DeviceNumber { path: shown(path), major, minor });
    }
    Ok((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12))
}
