//! `mount_setattr(2)`: flags, propagation and users of a mount.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

/// How mounts and unmounts below a mount propagate to its copies (mount_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// Events are neither sent nor received.
    Private,
    /// Private, and skipped when a tree that contains it is bind-mounted.
    Unbindable,
}

/// What to change on a mount.
#[derive(Debug)]
pub struct MountAttr {
    /// Flags to set.
    pub set: MountAttrFlags,
    /// Flags to clear.
    pub clear: MountAttrFlags,
    /// A new propagation type.
    pub propagation: Option<Propagation>,
}

impl Default for MountAttr {
    fn default() -> Self {
        Self { set: MountAttrFlags::empty(), clear: MountAttrFlags::empty(), propagation: None }
    }
}

/// `struct mount_attr`.
#[repr(C)]
struct RawAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

/// Changes the mount whose root is `mount` (a descriptor from `fsmount`, `open_tree` or `open`).
///
/// # Errors
/// `EPERM`: no CAP_SYS_ADMIN, or a flag that is locked. `EINVAL`: `mount` is not the root of a mount.
/// `ENOSYS`: Linux before 5.12.
pub fn mount_setattr(mount: impl AsFd, attr: &MountAttr) -> Result<(), Errno> {
    let raw = RawAttr {
        set: u64::from(attr.set.bits()),
        clear: u64::from(attr.clear.bits()),
        propagation: attr.propagation.map_or(0, |kind| match kind {
            Propagation::Private => libc::MS_PRIVATE,
            Propagation::Unbindable => libc::MS_UNBINDABLE,
        }),
        userns: 0,
    };
    set(mount, &raw)
}

/// Makes the owners of `mount` those that the user namespace `users` maps them to (mount_setattr(2), idmapped mounts).
/// `mount` is detached and has not been given users before.
///
/// # Errors
/// `EINVAL`: the filesystem has no idmapped mounts (overlayfs), or `users` is not a user namespace. `EPERM`: the mount is
/// attached or idmapped already, or no CAP_SYS_ADMIN.
pub fn map_users(mount: impl AsFd, users: impl AsFd) -> Result<(), Errno> {
    let users = u64::from(users.as_fd().as_raw_fd().unsigned_abs());
    set(mount, &RawAttr { set: libc::MOUNT_ATTR_IDMAP, clear: 0, propagation: 0, userns: users })
}

fn set(mount: impl AsFd, raw: &RawAttr) -> Result<(), Errno> {
    // SAFETY: the descriptors are open for the call; the path is a NUL-terminated literal; the kernel
    // reads `size_of::<RawAttr>()` bytes of `raw`, which has the layout of version 0 of mount_attr.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            std::ptr::from_ref(raw),
            size_of::<RawAttr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(super::errno()) }
}
