//! Hard links, including those that come before their target.

use super::arena::{Arena, NodeId, NodeKind, Stat, View};
use super::error::{TreeError, shown};
use super::resolve;

/// Rounds over the pending links of one layer. A chain in tar order or in reverse needs one or two.
const MAX_ROUNDS: usize = 40;

/// Hard links of a layer whose target is still to come.
#[derive(Debug, Default)]
pub(super) struct PendingLinks(Vec<PendingLink>);

#[derive(Debug)]
struct PendingLink {
    /// The inode at `path` until then. An entry that replaces it cancels the link.
    placeholder: NodeId,
    dir: NodeId,
    path: Box<[u8]>,
    target: Box<[u8]>,
}

/// Makes `path`, whose directory is `dir`, another name of the inode at `target`.
pub(super) fn hard_link(
    arena: &mut Arena,
    pending: &mut PendingLinks,
    dir: NodeId,
    path: Box<[u8]>,
    target: Box<[u8]>,
) -> Result<(), TreeError> {
    let (_, name) = resolve::split(&path);
    match find(arena, &path, &target)? {
        Some(node) => arena.attach(dir, name, node),
        None => {
            // A pending link holds both paths, and a layer may have many.
            arena.charge(path.len() + target.len())?;
            let placeholder = arena.add(Stat::IMPLIED, NodeKind::Pending)?;
            arena.attach(dir, name, placeholder)?;
            pending.0.push(PendingLink { placeholder, dir, path, target });
            Ok(())
        }
    }
}

/// Makes the pending links at the end of their layer.
pub(super) fn resolve_pending(arena: &mut Arena, pending: PendingLinks) -> Result<(), TreeError> {
    let mut links = pending.0;
    for _ in 0..MAX_ROUNDS {
        // Drop the links that were replaced since, or went with their directory.
        links.retain(|link| {
            let (_, name) = resolve::split(&link.path);
            let child = arena.children(link.dir).and_then(|all| all.get(name));
            child == Some(&link.placeholder)
        });
        let waiting = links.len();
        // Alternate the direction, so that a chain in either order takes one round.
        links.reverse();
        let mut left = Vec::new();
        for link in links {
            arena.check_stop()?;
            match find(arena, &link.path, &link.target)? {
                Some(node) => arena.attach(link.dir, resolve::split(&link.path).1, node)?,
                None => left.push(link),
            }
        }
        links = left;
        if links.is_empty() {
            return Ok(());
        }
        // Nothing has changed, so another round would find the same.
        if links.len() == waiting {
            break;
        }
    }
    match links.first() {
        Some(link) => {
            Err(TreeError::LinkTargetMissing { path: shown(&link.path), target: shown(&link.target) })
        }
        None => Ok(()),
    }
}

/// The inode at `target` in the layer or else in those below it, as they were before the layer; `None` if there is
/// nothing yet. The last component is not followed, so a link to a symbolic link is another name of that link.
fn find(arena: &mut Arena, path: &[u8], target: &[u8]) -> Result<Option<NodeId>, TreeError> {
    let to_directory = || TreeError::LinkToDirectory { path: shown(path), target: shown(target) };
    let (parent, name) = resolve::split(target);
    // The target is the root.
    if name.is_empty() {
        return Err(to_directory());
    }
    let Some(place) = resolve::find_dir(arena, View::Merged, parent, path)? else { return Ok(None) };
    let child = |dir: Option<NodeId>| arena.children(dir?)?.get(name).copied();
    let Some(child) = child(place.own).or_else(|| child(place.low)) else { return Ok(None) };
    match arena.node(child).kind {
        NodeKind::Directory(_) => Err(to_directory()),
        // A chain: this link waits for the other one.
        NodeKind::Pending => Ok(None),
        _ => Ok(Some(child)),
    }
}
