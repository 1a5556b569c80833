//! Every name of a tree, in the order of paths.

use super::arena::NodeId;
use super::checked::CheckedTree;

/// One name.
pub(super) struct Name<'a> {
    /// Its path, from `/`.
    pub(super) path: &'a [u8],
    /// The inode.
    pub(super) node: NodeId,
    /// The first path of the same inode, if this is a further one.
    pub(super) first: Option<&'a [u8]>,
}

/// Visits every name, without recursion: layers decide how deep a tree is.
///
/// # Errors
/// The first of `visit`, which ends the walk.
pub(super) fn walk<E>(tree: &CheckedTree, mut visit: impl FnMut(Name<'_>) -> Result<(), E>) -> Result<(), E> {
    // Only of inodes with several names.
    let mut first: Vec<Option<Box<[u8]>>> = vec![None; tree.slots()];
    let mut todo: Vec<(Vec<u8>, NodeId)> = vec![(b"/".to_vec(), NodeId::ROOT)];
    while let Some((path, node)) = todo.pop() {
        visit(Name { path: &path, node, first: first[node.index()].as_deref() })?;
        if tree.node(node).links > 1 && first[node.index()].is_none() {
            first[node.index()] = Some(path.as_slice().into());
        }
        // In reverse, since the stack returns the last one first.
        for (name, child) in tree.children(node).into_iter().flatten().rev() {
            let slash: &[u8] = if path.ends_with(b"/") { b"" } else { b"/" };
            todo.push(([&path[..], slash, name].concat(), *child));
        }
    }
    Ok(())
}
