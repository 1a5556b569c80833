//! Volumes that follow a tag: a small read-only tmpfs with one directory, [`CURRENT`], on which the image is mounted.
//!
//! A container gets the mounts that are on the target when it starts. Later ones reach it only inside of a mount that it
//! has, and only if that one passes them on (`mountPropagation: HostToContainer`); one over the target itself never is.
//! Hence the tmpfs, which stays, and the directory in it ([0047](../../../docs/adr/0047-following-a-tag.md)).
//!
//! The new image is mounted beneath the old one, and then the old one is detached: at no moment is there another thing to
//! see than one of the two. After a crash in between, what lies beneath is the one that was wanted.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MoveMountFlags, OpenTreeFlags};

use super::base::{BaseMounts, PATH_DIRECTORY, TOP, unmount_tree};
use super::context::Context;
use super::object::ImageFile;
use super::publish::clone_of;
use super::store_mount::{CONFINED, StoreId, following_source_of};
use super::superblock::MountMethod;
use super::{MountError, MountSpec, table};
use crate::image::verity::VerityDigest;
use crate::sys::mount_attr::{MountAttr, Propagation, mount_setattr};

/// The directory of the volume that shows the image.
pub const CURRENT: &str = "current";

/// What makes the mounts of a new volume.
#[derive(Debug)]
pub(super) struct Maker<'a> {
    pub(super) method: MountMethod,
    pub(super) store: StoreId,
    pub(super) bases: &'a BaseMounts,
}

impl Maker<'_> {
    /// A detached tree that shows what `spec` says of the base mount. The caller holds the image's lock.
    pub(super) fn tree(
        &self,
        image: &ImageFile,
        base: &OwnedFd,
        spec: &MountSpec,
    ) -> Result<OwnedFd, MountError> {
        let subject = format!("image {}", spec.image);
        let shown = clone_of(base, spec)?;
        let context = Context::open("tmpfs", &subject)?;
        context.string("source", &following_source_of(self.store))?;
        context.string("size", "64k")?;
        context.string("nr_inodes", "8")?;
        context.string("mode", "0755")?;
        self.method.label(&context)?;
        // Only what is attached can be mounted in before Linux 6.15.
        let attached = self.bases.attach_aside(&context.mount_with(MountAttrFlags::empty())?, TOP, image)?;
        let tree = attached.root().and_then(|top| fill(&top, &shown, &subject));
        attached.remove()?;
        tree
    }
}

/// Mounts `shown` in the tmpfs, and returns a detached copy of both.
fn fill(top: &OwnedFd, shown: &OwnedFd, subject: &str) -> Result<OwnedFd, MountError> {
    let failed = |step: &'static str| move |errno| MountError::kernel(step, subject, errno);
    rustix::fs::mkdirat(top, CURRENT, Mode::RWXU).map_err(failed("mkdirat"))?;
    rustix::mount::move_mount(shown, "", top, CURRENT, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(failed("move_mount"))?;
    let context = Context::of_mounted(top, "tmpfs", subject)?;
    context.flag("ro")?;
    context.reconfigure()?;
    let attr = MountAttr { set: CONFINED, propagation: Some(Propagation::Private), ..MountAttr::default() };
    mount_setattr(top, &attr).map_err(failed("mount_setattr"))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    rustix::mount::open_tree(top, "", flags).map_err(failed("open_tree"))
}

/// What the volume at `target` shows, whose tmpfs is `top`; `None` if nothing is mounted in it any more.
pub(super) fn shown(top: &OwnedFd, target: &Path) -> Result<Option<MountSpec>, MountError> {
    let place = current(top, target)?;
    let failed = |errno| MountError::kernel("statx", target.display(), errno);
    match table::mount_at(&place).map_err(failed)? {
        Some(mount) => mount.spec().map(Some).ok_or_else(|| mount.foreign(&target.join(CURRENT))),
        None => Ok(None),
    }
}

/// Stands for what a volume shows that nothing is mounted in any more: no image, so that it is not taken for right, and can be
/// taken down like others.
pub(super) fn nothing() -> MountSpec {
    MountSpec { image: VerityDigest([0; 32]), path: PathBuf::new(), noexec: false, upper: None }
}

/// Shows what `spec` says of the base mount, in the place of what is shown.
pub(super) fn switch(
    top: &OwnedFd,
    base: &OwnedFd,
    spec: &MountSpec,
    target: &Path,
) -> Result<(), MountError> {
    settle(target)?;
    let failed = |step: &str, errno| {
        MountError::kernel(step, format!("image {} on {}", spec.image, target.display()), errno)
    };
    let found = shown(top, target)?;
    // The path of what is shown is the one that links in the image have led to.
    if found.as_ref().is_some_and(|found| (found.image, found.noexec) == (spec.image, spec.noexec)) {
        return Ok(());
    }
    let clone = clone_of(base, spec)?;
    let place = current(top, target)?;
    let beneath = if found.is_some() { MoveMountFlags::MOVE_MOUNT_BENEATH } else { MoveMountFlags::empty() };
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH | beneath;
    rustix::mount::move_mount(&clone, "", &place, "", flags)
        .map_err(|errno| failed("move_mount beneath what is shown (Linux 6.5 and later)", errno))?;
    // It would keep the old mount in use.
    drop(place);
    match found {
        // From here on nothing fails that would leave the old one to be seen and the new one not wanted.
        Some(_) => unmount_tree(&target.join(CURRENT)).map_err(|errno| failed("umount", errno)),
        None => Ok(()),
    }
}

/// Ends a switch that was interrupted: what lies beneath is what was wanted.
fn settle(target: &Path) -> Result<(), MountError> {
    let failed = |step: &str, errno| MountError::kernel(step, target.display(), errno);
    // The mount table has no symbolic links in it.
    let point = std::fs::canonicalize(target)
        .map_err(|error| failed("realpath", Errno::from_io_error(&error).unwrap_or(Errno::IO)))?
        .join(CURRENT);
    for _ in 1..table::stacked_on(&point)? {
        unmount_tree(&point).map_err(|errno| failed("umount", errno))?;
    }
    Ok(())
}

/// The directory that shows the image: the root of the topmost mount there.
fn current(top: &OwnedFd, target: &Path) -> Result<OwnedFd, MountError> {
    rustix::fs::openat(top, CURRENT, PATH_DIRECTORY, Mode::empty())
        .map_err(|errno| MountError::kernel("open", target.join(CURRENT).display(), errno))
}
