//! Hard links, also those that come before their target.

use super::arena::{Arena, NodeId, NodeKind, Stat};
use super::error::{TreeError, shown};
use super::resolve;

/// Rounds over the waiting links of one layer. Chains in tar order, or against it, need one or two.
const MAX_ROUNDS: usize = 40;

/// Hard links of a layer that wait for their target.
#[derive(Debug, Default)]
pub(super) struct Waiting(Vec<Wait>);

#[derive(Debug)]
struct Wait {
    /// Holds the place; whatever replaces it cancels the wait.
    placeholder: NodeId,
    dir: NodeId,
    path: Box<[u8]>,
    target: Box<[u8]>,
}

/// Makes `path`, which is `name` in `dir`, another name of what is at `target`.
pub(super) fn hard_link(
    arena: &mut Arena,
    waiting: &mut Waiting,
    dir: NodeId,
    path: Box<[u8]>,
    target: Box<[u8]>,
    layer: u32,
) -> Result<(), TreeError> {
    let (_, name) = resolve::split(&path);
    match find(arena, &path, &target)? {
        Some(node) => arena.attach(dir, name, node, layer),
        None => {
            arena.charge(path.len() + target.len())?;
            let placeholder = arena.add(Stat::IMPLIED, NodeKind::Pending)?;
            arena.attach(dir, name, placeholder, layer)?;
            waiting.0.push(Wait { placeholder, dir, path, target });
            Ok(())
        }
    }
}

/// Makes the links whose targets have come since.
pub(super) fn settle(arena: &mut Arena, waiting: Waiting, layer: u32) -> Result<(), TreeError> {
    let mut waits = waiting.0;
    for _ in 0..MAX_ROUNDS {
        // Replaced since, or gone with its directory: nothing to do.
        waits.retain(|wait| {
            let (_, name) = resolve::split(&wait.path);
            let child = arena.children(wait.dir).and_then(|all| all.get(name));
            child.is_some_and(|child| child.node == wait.placeholder)
        });
        // Forwards and backwards in turn, so that a chain in either order is settled at once.
        waits.reverse();
        let mut left = Vec::new();
        for wait in waits {
            match find(arena, &wait.path, &wait.target)? {
                Some(node) => arena.attach(wait.dir, resolve::split(&wait.path).1, node, layer)?,
                None => left.push(wait),
            }
        }
        waits = left;
        if waits.is_empty() {
            return Ok(());
        }
    }
    match waits.first() {
        Some(wait) => {
            Err(TreeError::LinkTargetMissing { path: shown(&wait.path), target: shown(&wait.target) })
        }
        None => Ok(()),
    }
}

/// The inode at `target`; its last component is not followed, so a link to a symbolic link links
/// that. `None` if there is nothing yet.
fn find(arena: &Arena, path: &[u8], target: &[u8]) -> Result<Option<NodeId>, TreeError> {
    let to_directory = || TreeError::LinkToDirectory { path: shown(path), target: shown(target) };
    let (parent, name) = resolve::split(target);
    if name.is_empty() {
        return Err(to_directory());
    }
    let Some(dir) = resolve::find_dir(arena, parent, path)? else { return Ok(None) };
    let Some(child) = arena.children(dir).and_then(|all| all.get(name)) else { return Ok(None) };
    match arena.node(child.node).kind {
        NodeKind::Directory(_) => Err(to_directory()),
        NodeKind::Pending => Ok(None),
        _ => Ok(Some(child.node)),
    }
}
