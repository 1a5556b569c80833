//! Parts of artifacts: entries that stand next to each other, and do not lie on top of each other as layers do.
//!
//! No two parts may claim one path, unless both say the same. Files belong to root and may be read by everybody, and
//! executed if somebody could execute them where they were packed: whoever packed them is nobody on the node.

use super::arena::{Arena, NodeId, NodeKind};
use super::builder::{Builder, Layer};
use super::error::{TreeError, shown};
use crate::image::entry::{EntryKind, LayerEntry, Meta, Mtime};
use crate::oci::artifact::Place;

const READABLE: u32 = 0o444;
const EXECUTABLE: u32 = 0o555;
const DIRECTORY: u32 = 0o755;
const LINK: u32 = 0o777;

impl Layer<'_> {
    /// Puts the next entry of a part of an artifact at its place.
    ///
    /// # Errors
    /// As for [`Layer::apply`], and: the entry lies outside of its part's directory, it is nothing that an artifact may
    /// hold, or something else stands there. The tree must then be dropped.
    pub fn place(&mut self, entry: LayerEntry, place: &Place) -> Result<(), TreeError> {
        let Some(entry) = placed(entry, place)? else { return Ok(()) };
        refuse_collision(self.builder(), &entry)?;
        self.apply(entry)
    }
}

/// The entry as it is in the artifact's tree; `None` for an archive's root, which is not the tree's.
fn placed(entry: LayerEntry, place: &Place) -> Result<Option<LayerEntry>, TreeError> {
    let plain = |mode, mtime| Meta { mode, mtime, ..Meta::default() };
    match place {
        Place::File { path, executable, seconds, nanos } => {
            let mode = if *executable { EXECUTABLE } else { READABLE };
            let meta = plain(mode, Mtime { secs: *seconds, nanos: *nanos });
            Ok(Some(LayerEntry { path: path.as_bytes().into(), meta, kind: entry.kind }))
        }
        Place::Archive { .. } if entry.path.is_empty() && entry.kind == EntryKind::Directory => Ok(None),
        Place::Archive { within } => {
            if let Some(within) = within.as_deref().filter(|within| !lies_within(&entry.path, within)) {
                return Err(TreeError::Outside { path: shown(&entry.path), within: format!("/{within}") });
            }
            let mode = match &entry.kind {
                EntryKind::Directory => DIRECTORY,
                EntryKind::Inline(_) | EntryKind::Object(..) | EntryKind::LeftOut(_) => {
                    if entry.meta.mode & 0o111 != 0 { EXECUTABLE } else { READABLE }
                }
                EntryKind::Symlink(_) => LINK,
                // It has the metadata of its target.
                EntryKind::Hardlink(_) => 0,
                EntryKind::CharDevice(..)
                | EntryKind::BlockDevice(..)
                | EntryKind::Fifo
                | EntryKind::Whiteout
                | EntryKind::Opaque => return Err(TreeError::NotInArtifacts { path: shown(&entry.path) }),
            };
            Ok(Some(LayerEntry { meta: plain(mode, entry.meta.mtime), ..entry }))
        }
    }
}

fn lies_within(path: &[u8], within: &str) -> bool {
    path.strip_prefix(within.as_bytes()).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// Refuses an entry where something else stands, of its own part or another, or on whose way something stands that is no
/// directory.
fn refuse_collision(builder: &Builder, entry: &LayerEntry) -> Result<(), TreeError> {
    let arena = builder.arena();
    [NodeId::ROOT, NodeId::LAYER].into_iter().try_for_each(|top| refuse_collision_below(arena, top, entry))
}

fn refuse_collision_below(arena: &Arena, top: NodeId, entry: &LayerEntry) -> Result<(), TreeError> {
    let mut node = top;
    let mut names = entry.path.split(|byte| *byte == b'/').peekable();
    while let Some(name) = names.next() {
        let Some(children) = arena.children(node) else { return Err(collision(entry)) };
        let Some(child) = children.get(name) else { return Ok(()) };
        node = *child;
        if names.peek().is_none() {
            let there = arena.node(node);
            let is_same = match (&there.kind, &entry.kind) {
                (NodeKind::Directory(_), EntryKind::Directory) => true,
                (NodeKind::Inline(there), EntryKind::Inline(new)) => there == new,
                (NodeKind::Object(there, _), EntryKind::Object(new, _)) => there == new,
                (NodeKind::Symlink(there), EntryKind::Symlink(new)) => there == new,
                _ => false,
            };
            if !is_same || u32::from(there.stat.mode) != entry.meta.mode {
                return Err(collision(entry));
            }
        }
    }
    Ok(())
}

fn collision(entry: &LayerEntry) -> TreeError {
    TreeError::Collision { path: shown(&entry.path) }
}
