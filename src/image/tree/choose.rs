//! Taking of a whole tree what a choice takes.
//!
//! Only when all layers lie on top of each other: a file that is not wanted may hide or replace something, be the target
//! of a hard link, or be reached through a symbolic link of its layer.

use super::arena::{Arena, Children, NodeId, NodeKind};
use super::error::{TreeError, shown};
use crate::oci::choice::{Choice, ChoiceError, Verdict};

/// Removes what the choice does not take. Directories on the way to something stay as they are.
///
/// # Errors
/// A pattern of `include` matches nothing, nothing is left, or something is left whose content was not stored.
pub(super) fn choose(arena: &mut Arena, choice: &Choice) -> Result<(), TreeError> {
    if !choice.is_all() {
        cut(arena, choice)?;
    }
    if !arena.live().any(|node| matches!(node.kind, NodeKind::LeftOut)) {
        return Ok(());
    }
    let path = arena.find(|node| matches!(node.kind, NodeKind::LeftOut)).unwrap_or_default();
    Err(TreeError::LeftOut { path: shown(&path) })
}

fn cut(arena: &mut Arena, choice: &Choice) -> Result<(), TreeError> {
    let mut used = choice.unused();
    // Directories that are nothing by themselves: each after the one that it is in.
    let mut open = Vec::new();
    let mut todo = vec![(Vec::new(), NodeId::ROOT, choice.takes_by_default())];
    while let Some((above, dir, taken)) = todo.pop() {
        arena.check_stop()?;
        let children = arena.children(dir).into_iter().flatten();
        let children: Vec<_> = children.map(|(name, child)| (name.clone(), *child)).collect();
        for (name, child) in children {
            let slash: &[u8] = if above.is_empty() { b"" } else { b"/" };
            let path = [&above[..], slash, &name].concat();
            let is_directory = arena.children(child).is_some();
            match choice.verdict(&path, taken, &mut used) {
                Verdict::Taken if is_directory => todo.push((path, child, true)),
                Verdict::Taken => {}
                Verdict::Open if is_directory => {
                    open.push((dir, name, child));
                    todo.push((path, child, false));
                }
                Verdict::Open | Verdict::Left => remove(arena, dir, &name),
            }
        }
    }
    for (dir, name, child) in open.into_iter().rev() {
        if arena.children(child).is_some_and(Children::is_empty) {
            remove(arena, dir, &name);
        }
    }
    choice.check_used(&used)?;
    if arena.children(NodeId::ROOT).is_none_or(Children::is_empty) {
        return Err(ChoiceError::Nothing { choice: choice.clone() }.into());
    }
    Ok(())
}

fn remove(arena: &mut Arena, dir: NodeId, name: &[u8]) {
    if let Some(node) = arena.children_mut(dir).and_then(|all| all.remove(name)) {
        arena.release(node);
    }
}
