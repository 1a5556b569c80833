//! Pods with a user namespace: what kubelet writes about them, and what a container runtime does with their volumes.

use std::os::fd::OwnedFd;
use std::path::Path;

use composefs_csi::sys::mount_attr::map_users;
use composefs_csi::sys::user_namespace::{IdRange, user_namespace};
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;

/// The number of ids that kubelet gives a pod by default.
pub const LENGTH: u32 = 65_536;

/// Writes the users of the pod with this directory as kubelet does: to another name first.
pub fn write_users(pod: &Path, first: u32) {
    let mapping = serde_json::json!([{"hostId": first, "containerId": 0, "length": LENGTH}]);
    let text = serde_json::json!({"uidMappings": mapping, "gidMappings": mapping}).to_string();
    std::fs::create_dir_all(pod).expect("the pod's directory");
    std::fs::write(pod.join(".userns.tmp"), text).expect("cannot write");
    std::fs::rename(pod.join(".userns.tmp"), pod.join("userns")).expect("cannot rename");
}

/// What runc and crun do with a volume of such a pod: clone its mount with what is mounted in it, and idmap the former.
///
/// # Errors
/// What the kernel answers, and with it the container's start: `EINVAL` for an overlay.
pub fn idmap_as_runtimes_do(volume: &Path, first: u32) -> Result<OwnedFd, Errno> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = rustix::mount::open_tree(CWD, volume, flags)?;
    let users = user_namespace(IdRange { first, length: LENGTH }).expect("a user namespace");
    map_users(&tree, &users)?;
    Ok(tree)
}
