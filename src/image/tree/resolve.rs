//! From a path in a tar to an inode in the tree, inside the root whatever the path goes through.
//!
//! As in a chroot, `..` stops at the root and absolute link targets start at the root. Components that do not
//! exist are taken literally, so that `..` after one of them only removes it.

use super::arena::{Arena, NodeId, NodeKind, StackedDir, Stat, View};
use super::error::{TreeError, shown};

/// Symbolic links that one path may go through, as in Linux (MAXSYMLINKS).
const MAX_LINKS: usize = 40;
/// Deepest nesting of directories: a path of 4096 bytes cannot name a deeper one.
pub(super) const MAX_DEPTH: usize = 2047;
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
    at: StackedDir,
    /// Its depth below the root.
    depth: usize,
    /// Names of the path below it, which do not exist.
    missing: Vec<Box<[u8]>>,
    /// Whether more entries of the layer cannot change where the path leads, see [`Arena::remember`].
    is_lasting: bool,
}

/// Splits off the last component.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

/// The directory `path` of a view, or `None` if it does not exist. Follows symbolic links, the last one too. Errors
/// name `subject`, the entry that needs the directory.
pub(super) fn find_dir(
    arena: &mut Arena,
    view: View,
    path: &[u8],
    subject: &[u8],
) -> Result<Option<StackedDir>, TreeError> {
    let walk = walk(arena, view, path, subject)?;
    Ok(walk.missing.is_empty().then_some(walk.at))
}

/// The directory `path` of the layer being applied, created with its parents if the layer does not have it.
pub(super) fn make_dir(arena: &mut Arena, path: &[u8], subject: &[u8]) -> Result<NodeId, TreeError> {
    let Walk { at, depth, missing, .. } = walk(arena, View::Own, path, subject)?;
    // Plus one for the entry itself.
    if depth + missing.len() + 1 > MAX_DEPTH {
        return Err(TreeError::TooDeep { path: shown(subject), limit: MAX_DEPTH });
    }
    let mut at = at.own.unwrap_or(NodeId::LAYER);
    for name in missing {
        check_name(&name, subject)?;
        let dir = arena.add(Stat::IMPLIED, NodeKind::Directory(Default::default()))?;
        arena.node_mut(dir).implied = true;
        arena.attach(at, &name, dir)?;
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

/// Where `path` leads: as it is remembered, or by walking it. Counts the steps of a walk.
fn walk(arena: &mut Arena, view: View, path: &[u8], subject: &[u8]) -> Result<Walk, TreeError> {
    if let Some((at, depth)) = arena.remembered(path, view) {
        return Ok(Walk { at, depth, missing: Vec::new(), is_lasting: true });
    }
    let mut steps = 0;
    let walked = walk_from_root(arena, view, path, subject, &mut steps);
    // Also where the walk ends in an error: a whiteout goes on after it.
    arena.charge_steps(steps)?;
    let walk = walked?;
    if walk.is_lasting {
        arena.remember(path, view, walk.at, walk.depth);
    }
    Ok(walk)
}

fn walk_from_root(
    arena: &Arena,
    view: View,
    path: &[u8],
    subject: &[u8],
    steps: &mut u64,
) -> Result<Walk, TreeError> {
    // Directories from the root to the current one: `..` goes back along them.
    let mut dirs = vec![StackedDir::top(view)];
    let mut missing: Vec<Box<[u8]>> = Vec::new();
    // The rest of the path, below the rests of the targets of the symbolic links that it goes through.
    let mut todo = vec![components(path)];
    let (mut links, mut is_lasting) = (0, true);
    while let Some(rest) = todo.last_mut() {
        let Some(name) = rest.next() else {
            todo.pop();
            continue;
        };
        *steps += 1;
        let at = dirs.last().copied().unwrap_or(StackedDir::top(view));
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
        let step = if missing.is_empty() { step(arena, view, at, name) } else { Step::Missing };
        match step {
            Step::Missing => {
                missing.push(name.into());
                is_lasting = false;
            }
            Step::Directory(place) => {
                // What markers hide is looked up when the layer gets nothing more.
                is_lasting &= place.own.is_some() || view == View::Hidden;
                dirs.push(place);
            }
            Step::Link { target, is_own } => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(TreeError::SymlinkLoop { path: shown(subject), limit: MAX_LINKS });
                }
                is_lasting &= is_own;
                // The walk starts again at the root, or goes on in the link's directory.
                if target.starts_with(b"/") {
                    dirs.truncate(1);
                }
                todo.push(components(target));
            }
            Step::Blocked => {
                let blocker = blocker(arena, at, name);
                return Err(TreeError::NotADirectory { path: shown(subject), blocker });
            }
        }
    }
    let at = dirs.last().copied().unwrap_or(StackedDir::top(view));
    Ok(Walk { at, depth: dirs.len() - 1, missing, is_lasting })
}

/// What a name on a path is.
enum Step<'a> {
    Missing,
    Directory(StackedDir),
    Link {
        target: &'a [u8],
        is_own: bool,
    },
    /// Something that has nothing in it.
    Blocked,
}

fn step<'a>(arena: &'a Arena, view: View, at: StackedDir, name: &[u8]) -> Step<'a> {
    let child = |dir: Option<NodeId>| arena.children(dir?)?.get(name).copied();
    let is_directory = |id: &NodeId| arena.children(*id).is_some();
    let low = child(at.low);
    match (child(at.own), low.filter(|low| view == View::Merged || is_directory(low))) {
        (None, None) => Step::Missing,
        (Some(own), low) => match &arena.node(own).kind {
            NodeKind::Directory(_) => {
                Step::Directory(StackedDir { own: Some(own), low: low.filter(is_directory) })
            }
            NodeKind::Symlink(target) => Step::Link { target, is_own: true },
            _ => Step::Blocked,
        },
        (None, Some(low)) => match &arena.node(low).kind {
            NodeKind::Directory(_) => Step::Directory(StackedDir { own: None, low: Some(low) }),
            NodeKind::Symlink(target) => Step::Link { target, is_own: false },
            _ => Step::Blocked,
        },
    }
}

/// The whole path of what stands in the way, for messages.
fn blocker(arena: &Arena, at: StackedDir, name: &[u8]) -> String {
    let has = |dir: NodeId| arena.children(dir).is_some_and(|all| all.contains_key(name));
    let path = match (at.own.filter(|own| has(*own)), at.low) {
        (Some(own), _) => arena.search(NodeId::LAYER, |id| id == own),
        (None, Some(low)) => arena.search(NodeId::ROOT, |id| id == low),
        (None, None) => None,
    };
    match path {
        Some(dir) if !dir.is_empty() => shown(&[&dir, &b"/"[..], name].concat()),
        _ => shown(name),
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::image::entry::{EntryKind, LayerEntry, Meta};
    use crate::image::tree::{Builder, Rules};

    /// Paths and link targets over three names, so that entries meet.
    fn path() -> impl Strategy<Value = String> {
        vec(prop_oneof![4 => "[abc]", 1 => Just("..".to_owned())], 1..4).prop_map(|names| names.join("/"))
    }

    fn entry() -> impl Strategy<Value = LayerEntry> {
        let kind = prop_oneof![
            3 => Just(EntryKind::Directory),
            1 => Just(EntryKind::Inline(b"x".as_slice().into())),
            3 => path().prop_map(|target| EntryKind::Symlink(target.into_bytes().into())),
            1 => vec("[abc]", 1..3).prop_map(|names| EntryKind::Hardlink(names.join("/").into_bytes().into())),
            1 => Just(EntryKind::Whiteout),
            1 => Just(EntryKind::Opaque),
        ];
        (vec("[abc]", 1..4), kind).prop_map(|(names, kind)| LayerEntry {
            path: names.join("/").into_bytes().into(),
            meta: Meta::default(),
            kind,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

        #[test]
        fn what_is_remembered_is_what_a_walk_finds(
            layers in vec(vec(entry(), 1..16), 1..4),
        ) {
            let mut builder = Builder::new(Rules::Verbatim);
            for entries in layers {
                let mut layer = builder.layer();
                for entry in entries {
                    // What the entry itself has just walked, and its neighbour walks next.
                    let asked = split(&entry.path).0.to_owned();
                    // An entry that is refused ends a pull, so the rest of the layer is of no interest.
                    if layer.apply(entry).is_err() {
                        return Ok(());
                    }
                    let arena = layer.arena();
                    for view in [View::Own, View::Merged] {
                        let remembered = walk(arena, view, &asked, b"");
                        let plain = walk_from_root(arena, view, &asked, b"", &mut 0);
                        match (remembered, plain) {
                            (Ok(one), Ok(other)) => prop_assert_eq!(
                                (one.at, one.depth, one.missing),
                                (other.at, other.depth, other.missing)
                            ),
                            (one, other) => prop_assert_eq!(one.err(), other.err()),
                        }
                    }
                }
                if layer.end().is_err() {
                    return Ok(());
                }
            }
        }
    }
}
