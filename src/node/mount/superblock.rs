//! Makes an image's pair of superblocks: EROFS from the image, and an overlay of it with the objects as data layer.
//!
//! There are several methods. Which one works depends on the kernel and on the store's filesystem; the self-test
//! finds out once, at the start.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::base::{BaseMounts, UPPER};
use super::context::{Context, proc_path};
use super::id_map::Users;
use super::object::ImageFile;
use super::store_mount::{GUARDED, StoreId, mapped_source_of, source_of, writable_source_of};
use super::upper::Upper;
use super::{MountError, UpperSpec};
use crate::sys::loop_device;
use crate::sys::mount_attr::map_users;

/// What EROFS reads an image from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backing {
    /// The image file itself (Linux 6.12, and a filesystem that allows it).
    File,
    /// A read-only loop device.
    LoopDevice,
}

/// How the overlay gets its layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layers {
    /// By descriptor, from an EROFS mount that is never attached (Linux 6.15).
    Descriptors,
    /// By `lowerdir+` and `datadir+` paths, from an EROFS mount that is attached temporarily (Linux 6.8).
    Paths,
    /// By one option `lowerdir=image::objects` (Linux 6.6).
    Classic,
}

/// One method of mounting an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MountMethod {
    /// What EROFS reads from.
    pub backing: Backing,
    /// How the overlay gets its layers.
    pub layers: Layers,
    /// Whether the overlay demands every object's fs-verity digest at open (`verity=require`).
    pub verity: bool,
    /// The SELinux label of all files (`context=`), if any.
    pub context: Option<String>,
}

impl MountMethod {
    /// Mounts `image` over `objects`, detached. The caller holds the image's lock.
    pub(super) fn mount(
        &self,
        image: &ImageFile,
        objects: BorrowedFd<'_>,
        bases: &BaseMounts,
    ) -> Result<OwnedFd, MountError> {
        self.mount_for(image, objects, bases, None)
    }

    /// As [`MountMethod::mount`], with the owners of files as they are for `users`.
    ///
    /// overlayfs has no idmapped mounts, but takes a layer that is one. Objects need no owners: those are the image's.
    pub(super) fn mount_for(
        &self,
        image: &ImageFile,
        objects: BorrowedFd<'_>,
        bases: &BaseMounts,
        users: Option<&Users>,
    ) -> Result<OwnedFd, MountError> {
        let subject = format!("image {}", image.digest());
        let erofs = self.erofs(image, &subject, bases)?;
        if let Some(users) = users {
            map_users(&erofs, &users.namespace)
                .map_err(|errno| MountError::kernel("mount_setattr(erofs, idmap)", &subject, errno))?;
        }
        let store = StoreId::of(objects).map_err(|errno| MountError::kernel("fstat", &subject, errno))?;
        let source = match users {
            None => source_of(&image.digest(), store),
            Some(users) => mapped_source_of(&image.digest(), store, users.range),
        };
        self.stack(image, erofs, &source, &[objects], bases)
    }

    /// Mounts an image file that is in no store over these directories of objects, detached. The caller holds the file's
    /// lock.
    pub(super) fn mount_file(
        &self,
        image: &ImageFile,
        source: &str,
        objects: &[BorrowedFd<'_>],
        bases: &BaseMounts,
    ) -> Result<OwnedFd, MountError> {
        let erofs = self.erofs(image, &format!("image {}", image.digest()), bases)?;
        self.stack(image, erofs, source, objects, bases)
    }

    /// The read-only overlay of an image over its objects, detached.
    fn stack(
        &self,
        image: &ImageFile,
        erofs: OwnedFd,
        source: &str,
        objects: &[BorrowedFd<'_>],
        bases: &BaseMounts,
    ) -> Result<OwnedFd, MountError> {
        let subject = format!("image {}", image.digest());
        if self.layers == Layers::Descriptors {
            return self.overlay(source, &erofs, objects, None, &subject);
        }
        let lower = bases.attach_lower(&erofs, image)?;
        let overlay = self.overlay(source, &erofs, objects, None, &subject);
        // The overlay has its own clones of the layers' mounts. An open descriptor would keep the lower mount busy.
        drop(erofs);
        lower.remove()?;
        overlay
    }

    /// As [`MountMethod::mount`], with a new upper over the image, which is this mount's alone.
    pub(super) fn mount_writable(
        &self,
        image: &ImageFile,
        objects: BorrowedFd<'_>,
        bases: &BaseMounts,
        wanted: UpperSpec,
    ) -> Result<OwnedFd, MountError> {
        let subject = format!("image {}", image.digest());
        let erofs = self.erofs(image, &subject, bases)?;
        let upper = Upper::new(wanted, (&erofs, bases), self.context.as_deref(), &subject)?;
        let store = StoreId::of(objects).map_err(|errno| MountError::kernel("fstat", &subject, errno))?;
        let source = writable_source_of(&image.digest(), store, wanted);
        if self.layers == Layers::Descriptors {
            return self.overlay(&source, &erofs, &[objects], Some(&upper), &subject);
        }
        // All layers must be attached, the upper as well.
        let lower = bases.attach_lower(&erofs, image)?;
        let overlay = bases.attach_aside(upper.filesystem(), UPPER, image).and_then(|attached| {
            let overlay = self.overlay(&source, &erofs, &[objects], Some(&upper), &subject);
            drop(upper);
            attached.remove()?;
            overlay
        });
        drop(erofs);
        lower.remove()?;
        overlay
    }

    /// Mounts the image's metadata alone, detached.
    pub(super) fn erofs(
        &self,
        image: &ImageFile,
        subject: &str,
        bases: &BaseMounts,
    ) -> Result<OwnedFd, MountError> {
        let device = match self.backing {
            Backing::File => None,
            Backing::LoopDevice => Some(attach_loop(image, subject, bases)?),
        };
        let context = Context::open("erofs", subject)?;
        context.flag("ro")?;
        if !image.has_acl() {
            // Saves overlayfs a lookup of ACLs for every inode.
            context.flag("noacl")?;
        }
        self.label(&context)?;
        // The path of the measured descriptor, so that the measured file is mounted. EROFS takes only paths.
        let source = device.as_ref().map_or(image.as_fd(), AsFd::as_fd);
        context.string("source", &proc_path(source))?;
        context.mount().map_err(|error| match error {
            // The self-test has mounted an image here, so the image is at fault and not the kernel.
            MountError::Kernel { errno: errno @ (Errno::INVAL | Errno::UCLEAN | Errno::BADMSG), .. } => {
                MountError::NotAnImage { image: image.digest(), errno }
            }
            other => other,
        })
    }

    fn overlay(
        &self,
        source: &str,
        erofs: &OwnedFd,
        objects: &[BorrowedFd<'_>],
        upper: Option<&Upper>,
        subject: &str,
    ) -> Result<OwnedFd, MountError> {
        let context = Context::open("overlay", subject)?;
        context.string("source", source)?;
        match upper {
            None => context.flag("ro")?,
            // Links of one file stay links when it is changed, and the kernel refuses a second overlay over this upper.
            Some(upper) => {
                context.string("index", "on")?;
                // Its end would wait for the disk, to write what nobody will read.
                if upper.is_volatile() {
                    context.flag("volatile")?;
                }
            }
        }
        context.string("metacopy", "on")?;
        context.string("redirect_dir", "on")?;
        if self.verity {
            context.string("verity", "require")?;
        }
        self.label(&context)?;
        match self.layers {
            Layers::Descriptors => {
                context.descriptor("lowerdir+", erofs)?;
                objects.iter().try_for_each(|objects| context.descriptor("datadir+", objects))?;
            }
            Layers::Paths => {
                context.string("lowerdir+", &proc_path(erofs.as_fd()))?;
                objects.iter().try_for_each(|objects| context.string("datadir+", &proc_path(*objects)))?;
            }
            Layers::Classic => {
                let mut layers = proc_path(erofs.as_fd());
                objects.iter().for_each(|objects| layers += &format!("::{}", proc_path(*objects)));
                context.string("lowerdir", &layers)?;
            }
        }
        let Some(upper) = upper else { return context.mount() };
        for (key, directory) in upper.directories() {
            match self.layers {
                Layers::Descriptors => context.descriptor(key, directory)?,
                Layers::Paths | Layers::Classic => context.string(key, &proc_path(directory.as_fd()))?,
            }
        }
        context.mount_with(GUARDED)
    }

    /// Sets the label. EROFS needs it as well: SELinux checks the mapping of an inline file against EROFS's inode.
    pub(super) fn label(&self, context: &Context<'_>) -> Result<(), MountError> {
        self.context.as_deref().map_or(Ok(()), |label| context.string("context", label))
    }
}

fn attach_loop(image: &ImageFile, subject: &str, bases: &BaseMounts) -> Result<OwnedFd, MountError> {
    // The device holds its file open, and with it any flock. A file of its own keeps the image's lock out of it.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let own = rustix::fs::open(proc_path(image.as_fd()), flags, Mode::empty())
        .map_err(|errno| MountError::kernel("reopening the image", subject, errno))?;
    let label = format!("composefs:{}", image.digest());
    loop_device::attach_read_only(own.as_fd(), &label, bases.directory()).map_err(|errno| match errno {
        Errno::NOENT => MountError::no_loop_devices(subject, errno),
        errno => MountError::kernel("attaching a loop device", subject, errno),
    })
}
