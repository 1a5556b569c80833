//! The directory by which an OCI layout is found in the scopes of a policy.

use std::path::{Component, Path, PathBuf};

use crate::oci::reference::Reference;

/// An OCI layout's directory with its links resolved: scopes are paths, and a link must not lead from one scope into
/// another. For a path that does not exist, the links of its nearest existing ancestor are resolved.
pub(super) fn layout_directory(reference: &Reference) -> Option<PathBuf> {
    let Reference::Layout(layout) = reference else { return None };
    let path = layout.directory();
    // The common case: the directory exists.
    if let Ok(resolved) = path.canonicalize() {
        return Some(resolved);
    }
    // Below a missing directory, what `..` leads to is unknown.
    if path.components().any(|part| part == Component::ParentDir) {
        return None;
    }
    path.ancestors().skip(1).find_map(|ancestor| {
        let ancestor_or_here = if ancestor.as_os_str().is_empty() { Path::new(".") } else { ancestor };
        let rest = path.strip_prefix(ancestor).ok()?;
        Some(ancestor_or_here.canonicalize().ok()?.join(rest))
    })
}
