//! Volumes of pods with a user namespace (`hostUsers: false`).
//!
//! The container runtime idmaps the volume's own mount, and not what is mounted in it; overlayfs refuses, and the container
//! does not start. Such a pod therefore gets a *top*: a small read-only tmpfs, which can be idmapped, with a mount of the
//! image on each entry ([`top`](super::top)). Those are of an overlay of the pod's own, whose EROFS layer is idmapped
//! beforehand: the owners are right, and the pages of objects are the same as everywhere
//! ([0045](../../../docs/adr/0045-user-namespaces.md)).
//!
//! The top is mounted over what the target shows, in one step. Nothing is ever taken away, so that no moment is without a
//! volume, and after a crash the mount table says which of the two a pod has.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode};
use rustix::mount::{MoveMountFlags, OpenTreeFlags};

use super::base::{BaseMounts, MAPPED, PATH_DIRECTORY, TOP};
use super::id_map::Users;
use super::object::ImageFile;
use super::publish::resolve;
use super::store_mount::StoreId;
use super::superblock::MountMethod;
use super::top::Top;
use super::{MountError, MountSpec, table};
use crate::sys::mount_attr::{MountAttr, Propagation, mount_setattr};
use crate::sys::user_namespace::IdRange;

/// A target that shows an image mount.
#[derive(Debug)]
pub(super) struct Published<'a> {
    place: OwnedFd,
    path: &'a Path,
    /// The users that it is for already, if they are not the node's own.
    pub(super) users: Option<IdRange>,
}

impl<'a> Published<'a> {
    /// The mount of the image of `spec` on `path`.
    pub(super) fn open(path: &'a Path, spec: &MountSpec) -> Result<Self, MountError> {
        let failed = |step: &str, errno| MountError::kernel(step, path.display(), errno);
        let bad = |problem| MountError::BadTarget { target: path.to_owned(), problem };
        let place = rustix::fs::openat(CWD, path, PATH_DIRECTORY, Mode::empty())
            .map_err(|errno| failed("open", errno))?;
        match table::mount_at(&place).map_err(|errno| failed("statx", errno))? {
            None => Err(bad("has no volume any more")),
            Some(mount) if mount.image().is_none() => Err(mount.foreign(path)),
            Some(mount) if mount.image() != Some(spec.image) => Err(bad("shows another image")),
            Some(mount) => Ok(Self { place, path, users: mount.users() }),
        }
    }

    /// Mounts a tree over what is there.
    pub(super) fn cover(&self, tree: &OwnedFd) -> Result<(), MountError> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        rustix::mount::move_mount(tree, "", &self.place, "", flags)
            .map_err(|errno| MountError::kernel("move_mount", self.path.display(), errno))
    }
}

/// What makes a mount of an image for a pod's users.
#[derive(Debug)]
pub(super) struct Maker<'a> {
    pub(super) method: MountMethod,
    pub(super) objects: &'a OwnedFd,
    pub(super) store: StoreId,
    pub(super) bases: &'a BaseMounts,
}

impl Maker<'_> {
    /// A detached tree that shows what `spec` says, with the owners that `users` see. The caller holds the image's lock.
    pub(super) fn tree(
        &self,
        image: &ImageFile,
        spec: &MountSpec,
        users: &Users,
    ) -> Result<OwnedFd, MountError> {
        let overlay = self.method.mount_for(image, self.objects.as_fd(), self.bases, Some(users))?;
        // Before Linux 6.15, only what is attached can be cloned.
        let attached = self.bases.attach_aside(&overlay, MAPPED, image)?;
        drop(overlay);
        let tree = attached.root().and_then(|root| self.with_top(image, &root, spec, users));
        attached.remove()?;
        tree
    }

    fn with_top(
        &self,
        image: &ImageFile,
        root: &OwnedFd,
        spec: &MountSpec,
        users: &Users,
    ) -> Result<OwnedFd, MountError> {
        let directory = resolve(root, spec)?;
        let subject = format!("image {}", spec.image);
        let top = Top { method: &self.method, subject: &subject, users: users.range, noexec: spec.noexec };
        let attached = self.bases.attach_aside(&top.mount(image, self.store)?, TOP, image)?;
        let tree = attached.root().and_then(|place| {
            top.fill(&place, directory.as_ref().unwrap_or(root), spec)?;
            let failed = |step: &str, errno| MountError::kernel(step, &subject, errno);
            let private = MountAttr { propagation: Some(Propagation::Private), ..MountAttr::default() };
            mount_setattr(&place, &private).map_err(|errno| failed("mount_setattr", errno))?;
            let flags = OpenTreeFlags::OPEN_TREE_CLONE
                | OpenTreeFlags::OPEN_TREE_CLOEXEC
                | OpenTreeFlags::AT_EMPTY_PATH
                | OpenTreeFlags::AT_RECURSIVE;
            rustix::mount::open_tree(&place, "", flags).map_err(|errno| failed("open_tree", errno))
        });
        attached.remove()?;
        tree
    }
}
