//! Mounting an image before its objects are here: the file systems.
//!
//! The overlay gets one more data layer behind the objects, a FUSE filesystem that has no contents ([`crate::node::fuse`]).
//! Everything else is as of any other mount, `verity=require` included.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::MountError;
use super::base::BaseMounts;
use super::context::Context;
use super::object::ImageFile;
use super::store_mount::{StoreId, source_of};
use super::superblock::{Layers, MountMethod};
use crate::node::fuse::{Connection, ObjectNames, Server, Supply};

impl MountMethod {
    /// Mounts `image` over `objects`, detached, and what is missing there is waited for. The caller holds the image's lock.
    pub(super) fn mount_lazily(
        &self,
        image: &ImageFile,
        objects: BorrowedFd<'_>,
        bases: &BaseMounts,
        connection: Connection,
        (names, supply): (ObjectNames, Arc<dyn Supply>),
    ) -> Result<(OwnedFd, Server), MountError> {
        let subject = format!("image {}", image.digest());
        if self.layers == Layers::Classic {
            let why = "its kernel takes no list of data layers (Linux 6.12 or later is needed)".to_owned();
            return Err(MountError::NotLazily { image: image.digest(), why });
        }
        let fuse = fuse_mount(&connection, &subject)?;
        // Before the overlay, which asks it for its size.
        let server = connection.serve(names, supply);
        let server = server.map_err(|errno| MountError::kernel("starting a thread", &subject, errno))?;
        let erofs = self.erofs(image, &subject, bases)?;
        let store = StoreId::of(objects).map_err(|errno| MountError::kernel("fstat", &subject, errno))?;
        let source = source_of(&image.digest(), store);
        let overlay = || self.overlay(&source, &erofs, &[objects, fuse.as_fd()], None, &subject);
        if self.layers == Layers::Descriptors {
            return overlay().map(|overlay| (overlay, server));
        }
        let lower = bases.attach_lower(&erofs, image)?;
        let overlay = bases.attach_waiting(&fuse, image).and_then(|waiting| {
            let overlay = overlay();
            waiting.remove()?;
            overlay
        });
        drop(erofs);
        lower.remove()?;
        overlay.map(|overlay| (overlay, server))
    }
}

/// A FUSE filesystem on `connection`, mounted nowhere.
fn fuse_mount(connection: &Connection, subject: &str) -> Result<OwnedFd, MountError> {
    let context = Context::open("fuse", subject)?;
    context.flag("ro")?;
    context.string("source", "composefs-lazy")?;
    context.string("fd", &connection.as_fd().as_raw_fd().to_string())?;
    for (key, value) in [("rootmode", "40000"), ("user_id", "0"), ("group_id", "0")] {
        context.string(key, value)?;
    }
    context.mount()
}

/// Opens the device, or says why it cannot.
pub(super) fn open_connection() -> Result<Connection, String> {
    Connection::open().map_err(|errno| {
        format!("/dev/fuse cannot be opened ({errno}): load the kernel module fuse (modprobe fuse)")
    })
}
