//! The mounter that mounts.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::base::{Bases, PLACE, unmount_lazily};
use super::object::ImageFile;
use super::publish::{Target, clone_mount, restrict};
use super::table::StoreId;
use super::{
    Capabilities, MountError, MountSpec, Mounter, SelinuxContext, Verity, check, probe, relabel, selinux,
    table,
};
use crate::image::objects::Objects;
use crate::image::verity::VerityDigest;
use crate::integrity::Integrity;
use crate::sys::statmount::mount_id;

/// Mounts images of one store through the kernel. Needs CAP_SYS_ADMIN in the initial user namespace.
///
/// Holds no state that a restart would miss: base mounts and published clones are found in the mount table.
#[derive(Debug)]
pub struct KernelMounter {
    objects: OwnedFd,
    store: StoreId,
    bases: Bases,
    capabilities: Capabilities,
    /// The store's objects and images are sealed by fs-verity.
    sealed: bool,
    /// Base mounts that were looked at, by unique mount id: kernels before 6.13 tell a mount's source only in the
    /// whole mount table, which must not be read at every publish.
    seen: Mutex<BTreeMap<VerityDigest, u64>>,
    /// The store's objects, to examine them.
    contents: Objects,
    /// Base mounts that were checked, by the device of their overlay.
    checked: Mutex<BTreeMap<VerityDigest, u64>>,
}

impl KernelMounter {
    /// Opens the store at `store`, makes `state` the home of the base mounts, finds out what the kernel can do by
    /// mounting a tiny image that lies in the store's filesystem, and removes what a crash left.
    ///
    /// `sealed` says whether the store's objects carry fs-verity.
    ///
    /// # Errors
    /// [`MountError::NoWay`] where this node cannot mount images at all; it names each way and why it fails.
    pub fn start(store: &Path, state: &Path, sealed: bool) -> Result<Self, MountError> {
        Self::start_labelled(store, state, sealed, &SelinuxContext::Auto)
    }

    /// As [`KernelMounter::start`], with mounts labelled otherwise than by the best label that SELinux accepts.
    ///
    /// # Errors
    /// Besides the above, [`MountError::Label`] where SELinux refuses the one label that was asked for.
    pub fn start_labelled(
        store: &Path,
        state: &Path,
        sealed: bool,
        context: &SelinuxContext,
    ) -> Result<Self, MountError> {
        let bases = Bases::open(state)?;
        let capabilities = probe::run(store, &bases, sealed, context)?;
        Self::assemble(store, bases, capabilities, sealed)
    }

    /// As [`KernelMounter::start`], but mounts in the way that `capabilities` say, unproven.
    ///
    /// # Errors
    /// The store or the state directory cannot be opened or prepared.
    pub fn with_capabilities(
        store: &Path,
        state: &Path,
        sealed: bool,
        capabilities: Capabilities,
    ) -> Result<Self, MountError> {
        Self::assemble(store, Bases::open(state)?, capabilities, sealed)
    }

    fn assemble(
        store: &Path,
        bases: Bases,
        capabilities: Capabilities,
        sealed: bool,
    ) -> Result<Self, MountError> {
        let contents = Objects::open(store, sealed).map_err(|error| {
            tracing::error!(%error, "the objects cannot be opened");
            MountError::kernel("opening the objects", store.display(), Errno::IO)
        })?;
        let path = store.join("objects");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let objects = rustix::fs::open(&path, flags, Mode::empty())
            .map_err(|errno| MountError::kernel("opening the objects", path.display(), errno))?;
        let store =
            StoreId::of(&objects).map_err(|errno| MountError::kernel("fstat", path.display(), errno))?;
        bases.sweep(&objects)?;
        if let Some(label) = capabilities.selinux.of_objects() {
            relabel::relabel(&objects, label);
        }
        let (seen, checked) = (Mutex::default(), Mutex::default());
        Ok(Self { objects, store, bases, capabilities, sealed, seen, contents, checked })
    }

    /// What the self-test found.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// The root of the image's base mount: the one that stands, or a copy of a published one, or a new one. Only a
    /// new one can be checked: what an old one has opened already is not what the names lead to now. Whatever is
    /// published of the old one stays.
    fn base(&self, image: &ImageFile, least: Integrity) -> Result<OwnedFd, MountError> {
        let digest = image.digest();
        let here = self.capabilities.integrity();
        if least > here.max(Integrity::Mount) {
            return Err(MountError::Unreachable { image: digest });
        }
        let check = least > here;
        if let Some(base) = self.bases.find(&digest)? {
            let recognised = self.recognise(&base, &digest)?;
            if recognised && (!check || self.was_checked(&base, &digest)?) {
                return Ok(base);
            }
            if check {
                check::check(image, &self.contents)?;
            }
            // Or the store was replaced under the mount, or labels changed. What is published of it stays; nothing more is.
            drop(base);
            self.bases.drop_base(&digest)?;
        } else if check {
            check::check(image, &self.contents)?;
        }
        let copy = if check { None } else { self.copy_of_published(&digest)? };
        let mount = match copy {
            Some(copy) => copy,
            None => {
                if self.sealed {
                    image.measure()?;
                }
                self.capabilities.way().mount(image, self.objects.as_fd(), &self.bases)?
            }
        };
        if check {
            let device = device_of(&mount, &digest)?;
            lock(&self.checked).insert(digest, device);
        }
        self.bases.attach(&mount, image)?;
        if let Ok(Some(id)) = mount_id(&mount) {
            self.remember(digest, id);
        }
        Ok(mount)
    }

    /// Makes sure that what stands in the base's place is the image. Whether it is this store's, labelled as now.
    fn recognise(&self, base: &OwnedFd, image: &VerityDigest) -> Result<bool, MountError> {
        let failed = |errno| MountError::kernel("looking at the base mount", format!("image {image}"), errno);
        let id = mount_id(base).map_err(failed)?;
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(image).copied();
        if id.is_some() && id == seen {
            return Ok(true);
        }
        match table::mount_at(base).map_err(failed)? {
            Some(mount) if mount.image() != Some(*image) => Err(mount.foreign(&self.bases.path(image))),
            Some(mount) if !mount.is_of(image, self.store) => Ok(false),
            _ if !self.labelled(base).map_err(failed)? => Ok(false),
            _ => {
                if let Some(id) = id {
                    self.remember(*image, id);
                }
                Ok(true)
            }
        }
    }

    /// Has this mount the label that new ones get?
    fn labelled(&self, mount: &OwnedFd) -> Result<bool, Errno> {
        Ok(selinux::label_of(mount)? == self.capabilities.selinux.label)
    }

    fn was_checked(&self, base: &OwnedFd, image: &VerityDigest) -> Result<bool, MountError> {
        let Some(checked) = lock(&self.checked).get(image).copied() else { return Ok(false) };
        Ok(device_of(base, image)? == checked)
    }

    fn remember(&self, image: VerityDigest, id: u64) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(image, id);
    }

    /// A detached copy of a published mount of the whole image. After the plugin's container was replaced, its new
    /// namespace has the published mounts but no base mounts; a second superblock would share neither inodes nor
    /// dentries with them.
    fn copy_of_published(&self, image: &VerityDigest) -> Result<Option<OwnedFd>, MountError> {
        let verity = self.capabilities.verity == Verity::Required;
        // A mount may be hidden by another, or go away while we look; then the next one serves, or none.
        Ok(table::published_roots(image, self.store, verity)?.iter().find_map(|point| {
            let place = rustix::fs::openat(CWD, point, PLACE, Mode::empty()).ok()?;
            if !table::mount_at(&place).ok()??.shows_whole(image, self.store) {
                return None;
            }
            if !self.labelled(&place).ok()? {
                return None;
            }
            let copy = clone_mount(&place).ok()?;
            restrict(&copy, MountAttrFlags::empty()).ok()?;
            Some(copy)
        }))
    }

    /// Drops the base mount unless a clone of it is in the table. The caller holds the image's lock, or the image
    /// is gone from the store.
    fn drop_unused_base(&self, image: &VerityDigest) -> Result<(), MountError> {
        let Some(base) = self.bases.find(image)? else { return Ok(()) };
        let device = table::mount_at(&base)
            .map_err(|errno| {
                MountError::kernel("looking at the base mount", format!("image {image}"), errno)
            })?
            .map(|mount| mount.device);
        // It would keep the mount busy.
        drop(base);
        let path = self.bases.path(image);
        let mut held = false;
        table::scan(|mount| {
            held = mount.image() == Some(*image) && Some(mount.device) == device && mount.point != path;
            if held { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if held {
            return Ok(());
        }
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).remove(image);
        lock(&self.checked).remove(image);
        self.bases.drop_base(image)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Which superblock a mount is of. It is not given to another one as long as the mount stands.
fn device_of(mount: &OwnedFd, image: &VerityDigest) -> Result<u64, MountError> {
    let stat = rustix::fs::fstat(mount);
    stat.map(|stat| stat.st_dev).map_err(|errno| MountError::kernel("fstat", format!("image {image}"), errno))
}

/// Opens `target` and says what is mounted there; `None` where nothing is, or `target` is no directory.
fn look(target: &Path) -> Result<Option<(OwnedFd, table::Mount)>, MountError> {
    let failed = |step: &str, errno| MountError::kernel(step, target.display(), errno);
    let place = match rustix::fs::openat(CWD, target, PLACE, Mode::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
        other => other.map_err(|errno| failed("open", errno))?,
    };
    let mount = table::mount_at(&place).map_err(|errno| failed("statx", errno))?;
    Ok(mount.map(|mount| (place, mount)))
}

impl Mounter for KernelMounter {
    fn mount_at_least(
        &self,
        spec: &MountSpec,
        least: Integrity,
        target: &Path,
    ) -> Result<Integrity, MountError> {
        let target = Target::open(target)?;
        let image = ImageFile::lock(&self.objects, &spec.image)?;
        let published = self.base(&image, least).and_then(|base| target.publish(&base, spec));
        if published.is_err()
            && let Err(error) = self.drop_unused_base(&spec.image)
        {
            tracing::warn!(image = %spec.image, %error, "base mount of a failed publish remains");
        }
        published.map(|()| self.level(&spec.image))
    }

    fn level(&self, image: &VerityDigest) -> Integrity {
        let here = self.capabilities.integrity();
        if lock(&self.checked).contains_key(image) { here.max(Integrity::Mount) } else { here }
    }

    fn mounted(&self, target: &Path) -> Result<Option<MountSpec>, MountError> {
        match look(target)? {
            None => Ok(None),
            Some((_, mount)) => mount.spec().map(Some).ok_or_else(|| mount.foreign(target)),
        }
    }

    fn unmount(&self, target: &Path) -> Result<(), MountError> {
        // The descriptor that `look` returns would keep the mount busy; it is dropped before the call.
        while let Some(mount) = look(target)?.map(|(_, mount)| mount) {
            if mount.image().is_none() {
                return Err(mount.foreign(target));
            }
            match unmount_lazily(target) {
                // Gone in between.
                Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
                Err(errno) => return Err(MountError::kernel("umount", target.display(), errno)),
            }
        }
        Ok(())
    }

    fn release(&self, image: &VerityDigest) -> Result<(), MountError> {
        let _lock = match ImageFile::lock(&self.objects, image) {
            Err(MountError::NoSuchImage { .. }) => None,
            other => Some(other?),
        };
        self.drop_unused_base(image)
    }

    fn mounted_images(&self) -> Result<BTreeSet<VerityDigest>, MountError> {
        table::mounted_images()
    }
}
