//! Clones an image's mount, or a directory of it, onto a target.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MoveMountFlags, OpenTreeFlags};

use super::base::PATH_DIRECTORY;
use super::store_mount::{CONFINED, GUARDED};
use super::{MountError, MountSpec, table};
use crate::sys::mount_attr::{MountAttr, Propagation, mount_setattr};

/// A target directory on which nothing is mounted.
#[derive(Debug)]
pub(super) struct MountTarget<'a> {
    place: OwnedFd,
    path: &'a Path,
}

impl<'a> MountTarget<'a> {
    /// Opens the target, so that a later change of its path has no effect.
    pub(super) fn open(path: &'a Path) -> Result<Self, MountError> {
        let bad = |problem| MountError::BadTarget { target: path.to_owned(), problem };
        let failed = |step: &str, errno| MountError::kernel(step, path.display(), errno);
        let place =
            rustix::fs::openat(CWD, path, PATH_DIRECTORY, Mode::empty()).map_err(|errno| match errno {
                Errno::NOENT => bad("does not exist"),
                Errno::NOTDIR | Errno::LOOP => bad("is not a directory"),
                errno => failed("open", errno),
            })?;
        match table::mount_at(&place).map_err(|errno| failed("statx", errno))? {
            None => Ok(Self { place, path }),
            Some(mount) if mount.image().is_some() => Err(MountError::Occupied { target: path.to_owned() }),
            Some(mount) => Err(mount.foreign(path)),
        }
    }

    /// Mounts the sub-directory that `spec` names, of the image whose root is `base`. Only the last step is visible from
    /// outside, so a failure leaves nothing.
    pub(super) fn publish(&self, base: &OwnedFd, spec: &MountSpec) -> Result<(), MountError> {
        let failed = |step: &str, errno| {
            MountError::kernel(step, format!("image {} on {}", spec.image, self.path.display()), errno)
        };
        let clone = match resolve(base, spec)? {
            None => clone_mount(base),
            Some(directory) => clone_mount(&directory),
        }
        .map_err(|errno| failed("open_tree", errno))?;
        let noexec = if spec.noexec { MountAttrFlags::MOUNT_ATTR_NOEXEC } else { MountAttrFlags::empty() };
        let flags = if spec.upper.is_some() { GUARDED } else { CONFINED };
        set_flags(&clone, flags | noexec).map_err(|errno| failed("mount_setattr", errno))?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        rustix::mount::move_mount(&clone, "", &self.place, "", flags)
            .map_err(|errno| failed("move_mount", errno))
    }
}

/// A detached clone of the mount, with `directory` as its root.
pub(super) fn clone_mount(directory: &OwnedFd) -> Result<OwnedFd, Errno> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    rustix::mount::open_tree(directory, "", flags)
}

/// Makes a clone read-only and confined, and `noexec` if that is asked for. The flags are the clone's own; the cloned mount
/// keeps its flags.
pub(super) fn restrict(clone: &OwnedFd, noexec: MountAttrFlags) -> Result<(), Errno> {
    set_flags(clone, CONFINED | noexec)
}

/// Sets these flags of a clone, and makes it private.
fn set_flags(clone: &OwnedFd, flags: MountAttrFlags) -> Result<(), Errno> {
    let attr = MountAttr {
        set: flags,
        clear: MountAttrFlags::MOUNT_ATTR_NOEXEC.difference(flags),
        propagation: Some(Propagation::Private),
    };
    mount_setattr(clone, &attr)
}

/// Opens the sub-directory below `base`; `None` for the root itself.
///
/// The kernel resolves the path with `base` as the root: absolute links and `..` in the image's links cannot leave it
/// (openat2(2), RESOLVE_IN_ROOT).
pub(super) fn resolve(base: &OwnedFd, spec: &MountSpec) -> Result<Option<OwnedFd>, MountError> {
    let (image, path) = (spec.image, &spec.path);
    if !table::is_plain_descent(path) {
        return Err(MountError::BadPath { path: path.clone() });
    }
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    // NO_XDEV: nothing is mounted inside an image, so a mount there is not the image's.
    loop {
        return match rustix::fs::openat2(base, path, flags, Mode::empty(), inside) {
            Ok(directory) => Ok(Some(directory)),
            // A rename anywhere on the machine raced with a `..` (EAGAIN), or a signal came (EINTR).
            Err(Errno::AGAIN | Errno::INTR) => continue,
            Err(Errno::NOENT) => Err(MountError::NoSuchPath { path: path.clone(), image }),
            Err(Errno::NOTDIR | Errno::LOOP) => {
                Err(MountError::PathNotDirectory { path: path.clone(), image })
            }
            Err(errno) => {
                Err(MountError::kernel("openat2", format!("{} of image {image}", path.display()), errno))
            }
        };
    }
}
