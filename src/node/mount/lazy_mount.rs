//! Mounting an image before its objects are here: opens of missing ones wait until they have come. When all have come, the
//! FUSE server ends, and what is left of its layer is never asked again.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;

use super::lazy::open_connection;
use super::{KernelMounter, MountError, MountSpec};
use crate::image::objects::{Arrivals, Objects};
use crate::image::verity::VerityDigest;
use crate::kind::Kind;
use crate::node::fuse::{Bell, ObjectNames, Server, Supply};

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
        let supply: Arc<dyn Supply> = Arc::new(FromStore { objects: self.contents().clone(), wanted });
        let objects = ObjectNames::new(objects);
        let server = self.mount_anew(spec, target, |method, image, at, bases| {
            method.mount_lazily(image, at, bases, connection, (objects, supply))
        })?;
        let bell: Arc<dyn Arrivals> = Arc::new(server.bell());
        Ok(LazyMount { server, bell })
    }
}
