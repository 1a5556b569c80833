//! Several trees as one: each at its own place, or merged where their places meet.
//!
//! Unlike layers, images do not hide anything of each other, and unlike parts of artifacts they stay as they are: modes,
//! owners, times, extended attributes and hard links. Where directories meet, the later image decides on owner, mode and
//! time, whatever their order in the paths. Where files meet they must be the same, or it is an error: which of them a
//! pod would get must not depend on who comes last. No symbolic link is followed on the way to a place.

use super::arena::{Arena, NodeId, NodeKind, Stat};
use super::builder::device;
use super::checked::CheckedTree;
use super::error::{TreeError, shown};
use super::resolve::{self, MAX_DEPTH};
use super::rules::clamp;
use super::stop::Stop;
use super::xattrs::{self, XattrTable};
use crate::image::entry::{EntryKind, LayerEntry, Meta};
use crate::oci::limits::ImageLimits;

/// Combines trees, one entry at a time.
#[derive(Debug)]
pub struct Combiner {
    arena: Arena,
    xattrs: XattrTable,
    /// The images by name, in their order.
    names: Vec<String>,
    /// By inode: the first image that has it, as an index of `names`.
    owners: Vec<usize>,
    /// Where the last image lies.
    at: Box<[u8]>,
    /// The directory of the last entry: entries come directory by directory, and no directory goes.
    last: Option<(Box<[u8]>, NodeId)>,
}

impl Combiner {
    /// Starts with an empty root. It ends when `stop` says that the tree is not wanted any more.
    pub fn new(limits: ImageLimits, stop: &Stop) -> Self {
        let mut arena = Arena::new(limits);
        arena.heed(stop.clone());
        let (names, owners) = (Vec::new(), vec![0; arena.slots()]);
        Self { arena, xattrs: XattrTable::new(), names, owners, at: Box::default(), last: None }
    }

    /// Starts the next image: its root is the directory `at`, which has the form of [`LayerEntry::path`]. `name` is for
    /// messages.
    pub fn begin(&mut self, name: &str, at: &[u8]) {
        self.names.push(name.to_owned());
        self.at = at.into();
    }

    /// Adds the next entry of the image. A directory comes before what is in it, its root (the empty path) first, and a
    /// hard link after its target.
    ///
    /// # Errors
    /// [`TreeError::Meeting`] if another image has something else there, and those of [`super::Layer::apply`] that
    /// concern limits. The tree must then be dropped.
    pub fn add(&mut self, entry: LayerEntry) -> Result<(), TreeError> {
        self.arena.check_stop()?;
        let LayerEntry { path, meta, kind } = entry;
        let path = joined(&self.at, &path);
        if path.is_empty() {
            let EntryKind::Directory = kind else { return Err(TreeError::RootNotADirectory) };
            let stat = self.stat(&path, meta)?;
            self.arena.describe(NodeId::ROOT, stat);
            return Ok(());
        }
        let (parent, name) = resolve::split(&path);
        resolve::check_name(name, &path)?;
        let dir = self.directory(parent, &path)?;
        let there = self.child(dir, name);
        if let EntryKind::Hardlink(target) = &kind {
            return self.hard_link((dir, name, there), &path, &joined(&self.at, target));
        }
        let stat = self.stat(&path, meta)?;
        let kind = content(&path, kind)?;
        match there {
            None => self.attach(dir, name, stat, kind).map(drop),
            Some(id) if self.is_directory(id) && matches!(kind, NodeKind::Directory(_)) => {
                self.arena.describe(id, stat);
                Ok(())
            }
            Some(id) if self.is_same(id, &stat, &kind) => Ok(()),
            Some(id) => Err(self.meeting(&path, id)),
        }
    }

    /// Ends the tree.
    pub fn finish(mut self) -> CheckedTree {
        self.arena.shrink();
        CheckedTree::new(self.arena, self.xattrs, 0)
    }

    /// Gives the inode of `target`, which the image has brought or shares, another name.
    fn hard_link(
        &mut self,
        (dir, name, there): (NodeId, &[u8], Option<NodeId>),
        path: &[u8],
        target: &[u8],
    ) -> Result<(), TreeError> {
        let (parent, last) = resolve::split(target);
        let at = self.directory(parent, path)?;
        let Some(linked) = self.child(at, last) else {
            return Err(TreeError::LinkTargetMissing { path: shown(path), target: shown(target) });
        };
        match there {
            None => self.arena.attach(dir, name, linked),
            Some(id) if id == linked => Ok(()),
            Some(id) => {
                let (one, other) = (self.arena.node(id), self.arena.node(linked));
                let is_same = equal(&one.stat, &other.stat) && same(&one.kind, &other.kind);
                if is_same { Ok(()) } else { Err(self.meeting(path, id)) }
            }
        }
    }

    /// The directory at `path`, created with its parents where it is missing. `subject` needs it.
    fn directory(&mut self, path: &[u8], subject: &[u8]) -> Result<NodeId, TreeError> {
        if path.is_empty() {
            return Ok(NodeId::ROOT);
        }
        if let Some((_, id)) = self.last.as_ref().filter(|(last, _)| **last == *path) {
            return Ok(*id);
        }
        let names: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        self.arena.charge_steps(names.len() as u64)?;
        // Plus one for the entry itself.
        if names.len() + 1 > MAX_DEPTH {
            return Err(TreeError::TooDeep { path: shown(subject), limit: MAX_DEPTH });
        }
        let mut at = NodeId::ROOT;
        for (depth, name) in names.iter().enumerate() {
            at = match self.child(at, name) {
                Some(id) if self.is_directory(id) => id,
                Some(id) => return Err(self.meeting(&names[..=depth].join(&b'/'), id)),
                None => {
                    resolve::check_name(name, subject)?;
                    self.attach(at, name, Stat::IMPLIED, NodeKind::Directory(Default::default()))?
                }
            };
        }
        self.last = Some((path.into(), at));
        Ok(at)
    }

    fn attach(&mut self, dir: NodeId, name: &[u8], stat: Stat, kind: NodeKind) -> Result<NodeId, TreeError> {
        let id = self.arena.add(stat, kind)?;
        self.arena.attach(dir, name, id)?;
        // Nothing is ever freed here, so ids come in order.
        self.owners.resize(self.arena.slots(), self.names.len().saturating_sub(1));
        Ok(id)
    }

    fn child(&self, dir: NodeId, name: &[u8]) -> Option<NodeId> {
        self.arena.children(dir)?.get(name).copied()
    }

    fn is_directory(&self, id: NodeId) -> bool {
        self.arena.children(id).is_some()
    }

    fn is_same(&self, id: NodeId, stat: &Stat, kind: &NodeKind) -> bool {
        let there = self.arena.node(id);
        equal(&there.stat, stat) && same(&there.kind, kind)
    }

    fn meeting(&self, path: &[u8], id: NodeId) -> TreeError {
        let name =
            |index: Option<usize>| index.and_then(|index| self.names.get(index)).cloned().unwrap_or_default();
        let first = name(self.owners.get(id.index()).copied());
        TreeError::Meeting { path: shown(path), first, second: name(self.names.len().checked_sub(1)) }
    }

    fn stat(&mut self, path: &[u8], meta: Meta) -> Result<Stat, TreeError> {
        xattrs::check(&meta.xattrs).map_err(|reason| TreeError::Xattrs { path: shown(path), reason })?;
        let (xattrs, bytes) = self.xattrs.intern(meta.xattrs);
        self.arena.charge_xattrs(bytes)?;
        let mode = (meta.mode & 0o7777) as u16;
        Ok(Stat { mode, uid: meta.uid, gid: meta.gid, mtime: clamp(meta.mtime), xattrs })
    }
}

/// A path below `at`, either of which may be the root.
fn joined(at: &[u8], path: &[u8]) -> Vec<u8> {
    let slash: &[u8] = if at.is_empty() || path.is_empty() { b"" } else { b"/" };
    [at, slash, path].concat()
}

fn content(path: &[u8], kind: EntryKind) -> Result<NodeKind, TreeError> {
    Ok(match kind {
        EntryKind::Directory => NodeKind::Directory(Default::default()),
        EntryKind::Inline(bytes) => NodeKind::Inline(bytes),
        EntryKind::Object(digest, size) => NodeKind::Object(digest, size),
        EntryKind::Symlink(target) => NodeKind::Symlink(target),
        EntryKind::CharDevice(major, minor) => NodeKind::CharDevice(device(path, major, minor)?),
        EntryKind::BlockDevice(major, minor) => NodeKind::BlockDevice(device(path, major, minor)?),
        EntryKind::Fifo => NodeKind::Fifo,
        // Those are of layers; the caller treats links.
        EntryKind::Whiteout | EntryKind::Opaque | EntryKind::Hardlink(_) | EntryKind::LeftOut(_) => {
            return Err(TreeError::NotInArtifacts { path: shown(path) });
        }
    })
}

/// All but the time: the same file was often copied at another.
fn equal(one: &Stat, other: &Stat) -> bool {
    let all = |stat: &Stat| (stat.mode, stat.uid, stat.gid, stat.xattrs);
    all(one) == all(other)
}

/// Whether two inodes that are no directories hold the same.
fn same(one: &NodeKind, other: &NodeKind) -> bool {
    match (one, other) {
        (NodeKind::Inline(one), NodeKind::Inline(other)) => one == other,
        (NodeKind::Object(one, size), NodeKind::Object(other, length)) => (one, size) == (other, length),
        (NodeKind::Symlink(one), NodeKind::Symlink(other)) => one == other,
        (NodeKind::CharDevice(one), NodeKind::CharDevice(other))
        | (NodeKind::BlockDevice(one), NodeKind::BlockDevice(other)) => one == other,
        (NodeKind::Fifo, NodeKind::Fifo) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
