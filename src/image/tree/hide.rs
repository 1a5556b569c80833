//! Whiteouts and opaque markers: hiding what lower layers hold.
//!
//! The specification has two phases. One pass does both, because every name knows its layer: a marker spares
//! what its own layer has brought before it, and what comes after it is new in any case.

use std::collections::HashSet;

use super::arena::{Arena, Child, NodeId, NodeKind, Stat};
use super::error::TreeError;
use super::resolve;

/// Directories without anything of a lower layer. Nothing can bring it back before the layer ends, so further
/// markers need not look again. Otherwise the cost of many markers over a large directory is their product.
#[derive(Debug, Default)]
pub(super) struct Pruned(HashSet<NodeId>);

/// Hides `path` of the layers below `layer`.
pub(super) fn whiteout(
    arena: &mut Arena,
    pruned: &mut Pruned,
    path: &[u8],
    layer: u32,
) -> Result<(), TreeError> {
    let (parent, name) = resolve::split(path);
    let Some(dir) = hidden_dir(arena, parent, path)? else { return Ok(()) };
    let Some(child) = arena.children(dir).and_then(|all| all.get(name)).copied() else { return Ok(()) };
    // First what is below: whether the name itself stays depends on what is left there.
    prune(arena, pruned, child.node, layer);
    if survives(arena, &child, layer) {
        keep(arena, dir, name, layer);
    } else if let Some(child) = arena.children_mut(dir).and_then(|all| all.remove(name)) {
        arena.release(child.node);
    }
    Ok(())
}

/// Hides everything that the layers below `layer` have in directory `path`.
pub(super) fn opaque(
    arena: &mut Arena,
    pruned: &mut Pruned,
    path: &[u8],
    layer: u32,
) -> Result<(), TreeError> {
    if let Some(dir) = hidden_dir(arena, path, path)? {
        prune(arena, pruned, dir, layer);
    }
    Ok(())
}

/// A directory to hide things in. `None` if there is nothing to hide.
fn hidden_dir(arena: &mut Arena, path: &[u8], subject: &[u8]) -> Result<Option<NodeId>, TreeError> {
    match resolve::find_dir(arena, path, subject) {
        // A file where the path needs a directory.
        Err(TreeError::NotADirectory { .. }) => Ok(None),
        found => found,
    }
}

/// Removes everything below `top` that does not come from `layer`.
fn prune(arena: &mut Arena, pruned: &mut Pruned, top: NodeId, layer: u32) {
    // Listed with parents before children, then emptied in reverse: a directory that becomes empty goes when
    // its parent is emptied.
    let mut dirs = Vec::new();
    let mut todo = vec![top];
    while let Some(dir) = todo.pop() {
        let Some(children) = arena.children(dir) else { continue };
        if pruned.0.insert(dir) {
            todo.extend(children.values().map(|child| child.node));
            dirs.push(dir);
        }
    }
    for dir in dirs.into_iter().rev() {
        let Some(children) = arena.children_mut(dir).map(std::mem::take) else { continue };
        let (kept, gone): (Vec<_>, Vec<_>) =
            children.into_iter().partition(|(_, child)| survives(arena, child, layer));
        for (_, child) in gone {
            arena.release(child.node);
        }
        let names: Vec<Box<[u8]>> = kept.iter().map(|(name, _)| name.clone()).collect();
        if let Some(children) = arena.children_mut(dir) {
            children.extend(kept);
        }
        for name in names {
            keep(arena, dir, &name, layer);
        }
    }
}

/// Whether a name survives a marker of `layer`. It does if it comes from the layer, or leads to something that
/// does.
fn survives(arena: &Arena, child: &Child, layer: u32) -> bool {
    child.layer == layer || arena.children(child.node).is_some_and(|all| !all.is_empty())
}

/// Keeps a name. If it is a lower layer's directory, it stays for its new children alone, and its old metadata
/// is hidden.
fn keep(arena: &mut Arena, dir: NodeId, name: &[u8], layer: u32) {
    let Some(child) = arena.children_mut(dir).and_then(|all| all.get_mut(name)) else { return };
    // The layer has described it itself.
    if child.layer == layer {
        return;
    }
    child.layer = layer;
    let node = child.node;
    if matches!(arena.node(node).kind, NodeKind::Directory(_)) {
        arena.node_mut(node).stat = Stat::IMPLIED;
    }
}
