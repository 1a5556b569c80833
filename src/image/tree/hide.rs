//! Whiteouts and opaque markers: hiding what lower layers hold (OCI image-spec, layer.md, "Whiteouts").
//!
//! They are gathered, and hide when their layer ends and before it lies over the others. So they count wherever they
//! stand in their layer, and never hide what the layer has itself.

use super::arena::{Arena, NodeId, View};
use super::error::TreeError;
use super::resolve;

/// Memory that a marker takes beside its path, in bytes.
const MARKER: usize = 40;

/// The markers of a layer.
#[derive(Debug, Default)]
pub(super) struct Markers(Vec<Marker>);

#[derive(Debug)]
struct Marker {
    path: Box<[u8]>,
    hides: Hides,
}

/// What a marker hides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hides {
    /// What is at its path.
    Path,
    /// What is in the directory at its path.
    Content,
}

impl Markers {
    /// Adds a marker. A layer may have many, so each counts as metadata.
    pub(super) fn add(&mut self, arena: &mut Arena, path: Box<[u8]>, hides: Hides) -> Result<(), TreeError> {
        arena.charge(path.len() + MARKER)?;
        self.0.push(Marker { path, hides });
        Ok(())
    }

    /// Hides what the lower layers have at these paths. A path goes through the symbolic links of its own layer, not
    /// through those of lower ones. Markers alone make no directory.
    pub(super) fn apply(self, arena: &mut Arena) -> Result<(), TreeError> {
        for Marker { path, hides } in self.0 {
            let (parent, name) = match hides {
                Hides::Path => resolve::split(&path),
                Hides::Content => (&*path, &[][..]),
            };
            let dir = match resolve::find_dir(arena, View::Hidden, parent, &path) {
                // The layer has a file where the path needs a directory, and hides what is there by that.
                Err(TreeError::NotADirectory { .. }) => None,
                found => found?.and_then(|place| place.low),
            };
            let Some(children) = dir.and_then(|dir| arena.children_mut(dir)) else { continue };
            let hidden: Vec<NodeId> = match hides {
                Hides::Path => children.remove(name).into_iter().collect(),
                Hides::Content => std::mem::take(children).into_values().collect(),
            };
            hidden.into_iter().for_each(|node| arena.release(node));
        }
        Ok(())
    }
}
