//! `mount_setattr(2)`: flags, propagation and id mapping of a mount.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

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
pub struct MountAttr<'fd> {
    /// Flags to set.
    pub set: MountAttrFlags,
    /// Flags to clear.
    pub clear: MountAttrFlags,
    /// A new propagation type.
    pub propagation: Option<Propagation>,
    /// The user namespace (`/proc/PID/ns/user`) whose mapping the mount's owners are shown in. Only for a
    /// mount not yet attached, and not for overlayfs (`EINVAL`).
    pub idmap: Option<BorrowedFd<'fd>>,
}

impl Default for MountAttr<'_> {
    fn default() -> Self {
        Self { set: MountAttrFlags::empty(), clear: MountAttrFlags::empty(), propagation: None, idmap: None }
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

/// `MOUNT_ATTR_IDMAP`.
const IDMAP: u64 = 0x0010_0000;

/// Changes the mount whose root is `mount` (a descriptor from `fsmount`, `open_tree` or `open`).
///
/// # Errors
/// `EPERM`: no CAP_SYS_ADMIN, or a flag that is locked. `EINVAL`: `mount` is not the root of a mount, or
/// its filesystem cannot be id-mapped. `ENOSYS`: Linux before 5.12.
pub fn mount_setattr(mount: impl AsFd, attr: &MountAttr<'_>) -> Result<(), Errno> {
    let mut raw = RawAttr {
        set: u64::from(attr.set.bits()),
        clear: u64::from(attr.clear.bits()),
        propagation: attr.propagation.map_or(0, |kind| match kind {
            Propagation::Private => libc::MS_PRIVATE,
            Propagation::Unbindable => libc::MS_UNBINDABLE,
        }),
        userns: 0,
    };
    if let Some(userns) = attr.idmap {
        raw.set |= IDMAP;
        raw.userns = userns.as_raw_fd().unsigned_abs().into();
    }
    // SAFETY: both descriptors are open for the call; the path is a NUL-terminated literal; the kernel
    // reads `size_of::<RawAttr>()` bytes of `raw`, which has the layout of version 0 of mount_attr.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const raw,
            size_of::<RawAttr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(super::errno()) }
}
