//! Mounting an image before its objects are here: opens of missing ones wait until they have come.
//!
//! The overlay gets one more data layer behind the objects, a FUSE filesystem that has no contents ([`crate::node::fuse`]).
//! Everything else is as of any other mount, `verity=require` included. When all objects have come, the FUSE server ends,
//! and what is left of the layer is never asked again.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;

use super::base::BaseMounts;
use super::context::Context;
use super::object::ImageFile;
use super::store_mount::{StoreId, source_of};
use super::superblock::{Layers, MountMethod};
use super::{KernelMounter, MountError, MountSpec};
use crate::image::objects::{Arrivals, Objects};
use crate::image::verity::VerityDigest;
use crate::kind::Kind;
use crate::node::fuse::{Bell, Connection, ObjectNames, Server, Supply};

/// An image that is mounted, and whose objects are yet to come. Dropped, opens of missing objects give ENOTCONN; what is here,
/// or is open, goes on.
#[derive(Debug)]
#[must_use = "what is missing cannot be opened once this is dropped"]
pub struct LazyMount {
    server: Server,
    bell: Arc<dyn Arrivals>,
}

impl LazyMount {
    /// Who must be told of every object that comes to the store, as long as this lives.
    pub fn arrivals(&self) -> &Arc<dyn Arrivals> {
        &self.bell
    }

    /// Tells all who wait that objects do not come at present, because of a failure of this kind. Who opens a file after
    /// that waits again.
    pub fn fail(&self, kind: Kind) {
        self.server.bell().fail(match kind {
            Kind::Exhausted => Errno::NOSPC,
            Kind::Transient | Kind::Busy => Errno::HOSTUNREACH,
            // Never ENOENT: the file is in the image.
            _ => Errno::IO,
        });
    }

    /// Whether nothing shows the image any more.
    pub fn is_over(&self) -> bool {
        self.server.is_over()
    }
}

impl Arrivals for Bell {
    fn arrived(&self, object: &VerityDigest) {
        Self::arrived(self, object);
    }
}

/// A store's objects, as the server of one image asks for them.
#[derive(Debug)]
struct FromStore<W> {
    objects: Objects,
    wanted: W,
}

/// Is told which objects are waited for.
pub trait Wanted: fmt::Debug + Send + Sync {
    /// Somebody waits for the object. Must not wait for anything itself.
    fn want(&self, object: &VerityDigest);
}

impl<W: Wanted> Supply for FromStore<W> {
    fn is_here(&self, object: &VerityDigest) -> bool {
        // What cannot be looked at is waited for.
        self.objects.is_here(object).unwrap_or(false)
    }

    fn want(&self, object: &VerityDigest) {
        self.wanted.want(object);
    }
}

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

impl KernelMounter {
    /// Mounts `spec` on `target` as [`Mounter::mount`](super::Mounter::mount) does, although objects of the image are missing,
    /// whose names are `objects`. The image itself must be here. A base mount of the image that there is already is
    /// replaced, because nobody may answer for what it lacks; what was published of it stays.
    ///
    /// # Errors
    /// [`MountError::NotLazily`] where [`KernelMounter::can_be_lazy`] gives a reason; those of mounting.
    pub fn mount_lazily(
        &self,
        spec: &MountSpec,
        target: &Path,
        objects: impl IntoIterator<Item = VerityDigest>,
        wanted: impl Wanted + 'static,
    ) -> Result<LazyMount, MountError> {
        let refused = |why| MountError::NotLazily { image: spec.image, why };
        self.can_be_lazy().map_err(|why| refused(why.to_owned()))?;
        let connection = open_connection().map_err(refused)?;
        let supply = Arc::new(FromStore { objects: self.contents().clone(), wanted });
        let objects = ObjectNames::new(objects);
        let server = self.mount_anew(spec, target, |method, image, at, bases| {
            method.mount_lazily(image, at, bases, connection, (objects, supply))
        })?;
        let bell: Arc<dyn Arrivals> = Arc::new(server.bell());
        Ok(LazyMount { server, bell })
    }
}

/// Opens the device, or says why it cannot.
pub(super) fn open_connection() -> Result<Connection, String> {
    Connection::open().map_err(|errno| {
        format!("/dev/fuse cannot be opened ({errno}): load the kernel module fuse (modprobe fuse)")
    })
}
