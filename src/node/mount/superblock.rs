//! Making an image's pair of superblocks: EROFS from the image, overlay of it over the objects.
//!
//! There are several ways, and which of them works depends on the kernel and on the filesystem of the store;
//! [`super::probe`] finds out once.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::MountError;
use super::base::Bases;
use super::context::Context;
use super::object::ImageFile;
use super::table::{StoreId, source_of};
use crate::sys::loop_device;

/// What every mount of ours has.
pub(super) const CONFINED: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_RDONLY
    .union(MountAttrFlags::MOUNT_ATTR_NOSUID)
    .union(MountAttrFlags::MOUNT_ATTR_NODEV);

/// What EROFS reads an image from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backing {
    /// The image file itself (Linux 6.12, and a filesystem that allows it).
    File,
    /// A read-only loop device.
    LoopDevice,
}

/// How the overlay is told its layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layers {
    /// By descriptor, of an EROFS mount that was never attached (Linux 6.15).
    Descriptors,
    /// By `lowerdir+` and `datadir+` paths, of an EROFS mount attached for the moment (Linux 6.8).
    Paths,
    /// By one `lowerdir=image::objects` (Linux 6.6).
    Classic,
}

/// One way of mounting an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// What EROFS reads from.
    pub backing: Backing,
    /// How the overlay gets its layers.
    pub layers: Layers,
    /// Whether the overlay demands every object's fs-verity digest at open (`verity=require`).
    pub verity: bool,
    /// The SELinux label of all files, if they get one.
    pub context: Option<String>,
}

impl Way {
    /// Mounts `image` over `objects`, attached nowhere. The caller holds the image's lock.
    pub(super) fn mount(
        &self,
        image: &ImageFile,
        objects: BorrowedFd<'_>,
        bases: &Bases,
    ) -> Result<OwnedFd, MountError> {
        let subject = format!("image {}", image.digest());
        let erofs = self.erofs(image, &subject, bases)?;
        if self.layers == Layers::Descriptors {
            return self.overlay(image, &erofs, objects, &subject);
        }
        let lower = bases.attach_lower(&erofs, image)?;
        let overlay = self.overlay(image, &erofs, objects, &subject);
        // The overlay has clones of its layers' mounts; before the removal of this one the descriptor goes.
        drop(erofs);
        lower.remove()?;
        overlay
    }

    /// Mounts the image's metadata alone, attached nowhere.
    pub(super) fn erofs(
        &self,
        image: &ImageFile,
        subject: &str,
        bases: &Bases,
    ) -> Result<OwnedFd, MountError> {
        let device = match self.backing {
            Backing::File => None,
            Backing::LoopDevice => Some(attach_loop(image, subject, bases)?),
        };
        let context = Context::open("erofs", subject)?;
        context.flag("ro")?;
        if !image.has_acl() {
            // Spares overlayfs a look for ACLs at every inode.
            context.flag("noacl")?;
        }
        self.label(&context)?;
        // By descriptor, so that what was measured is what is mounted; EROFS takes paths only.
        let source = device.as_ref().map_or(image.as_fd(), AsFd::as_fd);
        context.string("source", &proc_path(source))?;
        context.mount().map_err(|error| match error {
            // Of the image, not of the kernel: the self-test has mounted one.
            MountError::Kernel { errno: errno @ (Errno::INVAL | Errno::UCLEAN | Errno::BADMSG), .. } => {
                MountError::NotAnImage { image: image.digest(), errno }
            }
            other => other,
        })
    }

    fn overlay(
        &self,
        image: &ImageFile,
        erofs: &OwnedFd,
        objects: BorrowedFd<'_>,
        subject: &str,
    ) -> Result<OwnedFd, MountError> {
        let context = Context::open("overlay", subject)?;
        let store = StoreId::of(objects).map_err(|errno| MountError::kernel("fstat", subject, errno))?;
        context.string("source", &source_of(&image.digest(), store))?;
        context.flag("ro")?;
        context.string("metacopy", "on")?;
        context.string("redirect_dir", "on")?;
        if self.verity {
            context.string("verity", "require")?;
        }
        self.label(&context)?;
        match self.layers {
            Layers::Descriptors => {
                context.descriptor("lowerdir+", erofs)?;
                context.descriptor("datadir+", objects)?;
            }
            Layers::Paths => {
                context.string("lowerdir+", &proc_path(erofs.as_fd()))?;
                context.string("datadir+", &proc_path(objects))?;
            }
            Layers::Classic => {
                let layers = format!("{}::{}", proc_path(erofs.as_fd()), proc_path(objects));
                context.string("lowerdir", &layers)?;
            }
        }
        context.mount()
    }

    /// Of EROFS as well: where a file lies in the image itself, it is EROFS's inode that a mapping is checked against.
    fn label(&self, context: &Context<'_>) -> Result<(), MountError> {
        self.context.as_deref().map_or(Ok(()), |label| context.string("context", label))
    }
}

fn attach_loop(image: &ImageFile, subject: &str, bases: &Bases) -> Result<OwnedFd, MountError> {
    // The device keeps the open file that it is given, and with it a lock on it: it gets one of its own.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let own = rustix::fs::open(proc_path(image.as_fd()), flags, Mode::empty())
        .map_err(|errno| MountError::kernel("reopening the image", subject, errno))?;
    let label = format!("composefs:{}", image.digest());
    loop_device::attach_read_only(own.as_fd(), &label, bases.directory()).map_err(|errno| match errno {
        Errno::NOENT => MountError::no_loop_devices(subject, errno),
        errno => MountError::kernel("attaching a loop device", subject, errno),
    })
}

/// A path that leads to an open file whatever its name.
pub(super) fn proc_path(file: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}
