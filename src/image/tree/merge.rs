//! Laying what a layer has over what the lower layers have.

use super::arena::{Arena, NodeId, NodeKind};

/// Lays the layer's own tree over the lower ones, as overlayfs stacks directories: a directory over a directory adds
/// to it, anything else replaces what was there. Its cost is that of the layer's entries, not of the lower layers.
pub(super) fn merge(arena: &mut Arena) {
    // A list instead of recursion: a hostile layer decides how deep the tree is.
    let mut todo = vec![(NodeId::LAYER, NodeId::ROOT)];
    while let Some((own, low)) = todo.pop() {
        let Some(children) = arena.children_mut(own).map(std::mem::take) else { continue };
        // A directory that no entry describes is not changed by what is put into it.
        if !arena.node(own).implied {
            arena.node_mut(low).stat = arena.node(own).stat;
        }
        for (name, child) in children {
            let below = arena.children(low).and_then(|all| all.get(&name)).copied();
            let is_directory = |id: &NodeId| matches!(arena.node(*id).kind, NodeKind::Directory(_));
            match below.filter(|below| is_directory(&child) && is_directory(below)) {
                Some(below) => todo.push((child, below)),
                None => arena.put(low, name, child),
            }
        }
        if own != NodeId::LAYER {
            arena.release(own);
        }
    }
}
