//! Taking out of a tree what its programs could do: rights of others, or running at all.
//!
//! The flags `nosuid` and `noexec` of a mount do the same, but they are the mount's: container runtimes mount a volume
//! once more for each container, and some drop them. What must hold is therefore in the image.

use super::arena::{Arena, Node, NodeKind};
use super::rules::Reduction;
use super::xattrs::{XattrTable, Xattrs};
use crate::image::entry::Xattr;

/// The set-user-ID and set-group-ID bits. A directory keeps its set-group-ID bit: it gives no rights, and says only
/// which group new files get.
const SET_ID: u16 = 0o6000;
/// The permissions to execute.
const EXECUTE: u16 = 0o111;
/// Capabilities that a program has when it is executed.
const CAPABILITIES: &[u8] = b"security.capability";
/// The POSIX ACL of an inode: a version, and entries of tag, permissions (16 bits each) and id (32 bits), all
/// little-endian (linux/posix_acl_xattr.h).
const ACL: &[u8] = b"system.posix_acl_access";
const ACL_VERSION: [u8; 4] = 2u32.to_le_bytes();
const ACL_ENTRY: usize = 8;
/// ACL_EXECUTE, in the first of the two bytes of the permissions.
const ACL_EXECUTE: u8 = 1;

/// Whether the kernel gives a program more rights than its caller has.
pub(super) fn is_privileged(node: &Node, xattrs: &Xattrs) -> bool {
    is_regular(node)
        && (node.stat.mode & SET_ID != 0 || xattrs.iter().any(|(name, _)| **name == *CAPABILITIES))
}

/// Whether anybody may execute a file.
pub(super) fn is_executable(node: &Node, xattrs: &Xattrs) -> bool {
    let allows =
        |(name, value): &Xattr| **name == *ACL && without_execution(value).as_deref() != Some(&**value);
    is_regular(node) && (node.stat.mode & EXECUTE != 0 || xattrs.iter().any(allows))
}

/// Reduces every regular file. Returns the number of files that gave rights.
pub(super) fn reduce(arena: &mut Arena, xattrs: &mut XattrTable, to: Reduction) -> u64 {
    let mut privileged = 0;
    for node in arena.live_mut().filter(|node| is_regular(node)) {
        privileged += u64::from(is_privileged(node, xattrs.get(node.stat.xattrs)));
        let bits = match to {
            Reduction::Unprivileged => SET_ID,
            Reduction::NotExecutable => SET_ID | EXECUTE,
        };
        node.stat.mode &= !bits;
        let old = xattrs.get(node.stat.xattrs);
        let new = reduced(old, to);
        if *new != *old {
            // The table grows by less than what the layers were charged for.
            node.stat.xattrs = xattrs.intern(new).0;
        }
    }
    privileged
}

fn reduced(set: &Xattrs, to: Reduction) -> Vec<Xattr> {
    let kept = set.iter().filter(|(name, _)| **name != *CAPABILITIES);
    kept.filter_map(|(name, value)| match to {
        // An ACL that cannot be read is left out: what the kernel makes of it is unknown.
        Reduction::NotExecutable if **name == *ACL => Some((name.clone(), without_execution(value)?)),
        _ => Some((name.clone(), value.clone())),
    })
    .collect()
}

/// The ACL without its permissions to execute; `None` if it is not one.
fn without_execution(acl: &[u8]) -> Option<Box<[u8]>> {
    let entries = acl.strip_prefix(&ACL_VERSION).filter(|entries| entries.len() % ACL_ENTRY == 0)?;
    let mut new = acl.to_vec();
    for at in (0..entries.len()).step_by(ACL_ENTRY) {
        // Behind the version and the entry's tag.
        new[ACL_VERSION.len() + at + 2] &= !ACL_EXECUTE;
    }
    Some(new.into())
}

fn is_regular(node: &Node) -> bool {
    matches!(node.kind, NodeKind::Inline(_) | NodeKind::Object(..))
}
