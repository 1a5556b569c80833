//! From a path in a tar to an inode in the tree, inside the root whatever the path goes through.
//!
//! As in a chroot, `..` stops at the root and absolute link targets start at the root. Components that do not
//! exist are taken literally, so that `..` after one of them only removes it.

use super::arena::{Arena, NodeId, NodeKind, Stat};
use super::error::{TreeError, shown};

/// Symbolic links that one path may go through, as in Linux (MAXSYMLINKS).
const MAX_LINKS: usize = 40;
/// Deepest nesting of directories: a path of 4096 bytes cannot name a deeper one.
const MAX_DEPTH: usize = 2047;
/// Longest name in bytes (`EROFS_NAME_LEN`).
const MAX_NAME: usize = 255;

/// Components of a path.
type Components<'a> = std::slice::Split<'a, u8, fn(&u8) -> bool>;

fn components(path: &[u8]) -> Components<'_> {
    path.split(|byte| *byte == b'/')
}

/// The directory that a path leads to.
#[derive(Debug)]
struct Walk {
    /// The last directory that exists.
    at: NodeId,
    /// Its depth below the root.
    depth: usize,
    /// Names of the path below it, which do not exist.
    missing: Vec<Box<[u8]>>,
}

/// Splits off the last component.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

/// The directory `path`, or `None` if it does not exist. Follows symbolic links, the last one too. Errors name
/// `subject`, the entry that needs the directory.
pub(super) fn find_dir(arena: &Arena, path: &[u8], subject: &[u8]) -> Result<Option<NodeId>, TreeError> {
    let walk = walk(arena, path, subject)?;
    Ok(walk.missing.is_empty().then_some(walk.at))
}

/// The directory `path`, created with its parents if it does not exist.
pub(super) fn make_dir(
    arena: &mut Arena,
    path: &[u8],
    subject: &[u8],
    layer: u32,
) -> Result<NodeId, TreeError> {
    let Walk { mut at, depth, missing } = walk(arena, path, subject)?;
    // Plus one for the entry itself.
    if depth + missing.len() + 1 > MAX_DEPTH {
        return Err(TreeError::TooDeep { path: shown(subject), limit: MAX_DEPTH });
    }
    for name in missing {
        check_name(&name, subject)?;
        let dir = arena.add(Stat::IMPLIED, NodeKind::Directory(Default::default()))?;
        arena.attach(at, &name, dir, layer)?;
        at = dir;
    }
    Ok(at)
}

/// Refuses a name that no filesystem holds.
pub(super) fn check_name(name: &[u8], subject: &[u8]) -> Result<(), TreeError> {
    if name.len() > MAX_NAME {
        return Err(TreeError::NameTooLong { path: shown(subject), length: name.len(), limit: MAX_NAME });
    }
    Ok(())
}

fn walk(arena: &Arena, path: &[u8], subject: &[u8]) -> Result<Walk, TreeError> {
    // Directories from the root to the current one: `..` goes back along them.
    let mut dirs = vec![NodeId::ROOT];
    let mut missing: Vec<Box<[u8]>> = Vec::new();
    // The rest of the path, below the rests of the targets of the symbolic links that it goes through.
    let mut todo = vec![components(path)];
    let mut links = 0;
    while let Some(rest) = todo.last_mut() {
        let Some(name) = rest.next() else {
            todo.pop();
            continue;
        };
        let at = dirs.last().copied().unwrap_or(NodeId::ROOT);
        match name {
            b"" | b"." => continue,
            b".." => {
                // The root is its own parent.
                if missing.pop().is_none() && dirs.len() > 1 {
                    dirs.pop();
                }
                continue;
            }
            _ => {}
        }
        // Below a name that does not exist, nothing does.
        let child = if missing.is_empty() { arena.children(at).and_then(|all| all.get(name)) } else { None };
        let Some(child) = child else {
            missing.push(name.into());
            continue;
        };
        match &arena.node(child.node).kind {
            NodeKind::Directory(_) => dirs.push(child.node),
            NodeKind::Symlink(target) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(TreeError::SymlinkLoop { path: shown(subject), limit: MAX_LINKS });
                }
                // The walk starts again at the root, or goes on in the link's directory.
                if target.starts_with(b"/") {
                    dirs.truncate(1);
                }
                todo.push(components(target));
            }
            _ => {
                let blocker = shown(name);
                return Err(TreeError::NotADirectory { path: shown(subject), blocker });
            }
        }
    }
    Ok(Walk { at: dirs.last().copied().unwrap_or(NodeId::ROOT), depth: dirs.len() - 1, missing })
}
