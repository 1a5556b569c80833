//! The mounter that mounts images through the kernel.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::base::{BaseMounts, PATH_DIRECTORY, WRITABLE, unmount_lazily, unmount_tree};
use super::id_map::Users;
use super::object::ImageFile;
use super::publish::{MountTarget, clone_mount, restrict};
use super::read_ahead::ReadAhead;
use super::stat_ahead::StatAhead;
use super::store_mount::{Mount, StoreId};
use super::superblock::MountMethod;
use super::users::{Maker, Published};
use super::{
    Capabilities, IdRange, MountError, MountSpec, Mounter, SelinuxContext, UpperSpec, Usage, Verity, check,
    follow, lazy_probe, probe, relabel, selinux, table,
};
use crate::image::objects::Objects;
use crate::image::store::Mounted;
use crate::image::verity::VerityDigest;
use crate::integrity::Integrity;
use crate::sys::lease::is_open_elsewhere;
use crate::sys::statmount::mount_id;

/// Mounts images of one store through the kernel. Needs CAP_SYS_ADMIN in the initial user namespace.
///
/// A restart loses no state: the mount table shows the base mounts and the published clones.
#[derive(Debug)]
pub struct KernelMounter {
    objects: OwnedFd,
    store: StoreId,
    bases: BaseMounts,
    capabilities: Capabilities,
    /// Whether the store's objects and images have fs-verity.
    sealed: bool,
    /// Unique mount ids of base mounts that were recognised. Kernels before 6.13 report a mount's source only in the
    /// whole mount table, which must not be read at every publish.
    recognised: Mutex<BTreeMap<VerityDigest, u64>>,
    /// The store's objects, to examine them.
    contents: Objects,
    /// Base mounts that were checked, by the device of their overlay.
    checked: Mutex<BTreeMap<VerityDigest, u64>>,
    read_ahead: ReadAhead,
    stat_ahead: StatAhead,
    /// The store's directory.
    root: PathBuf,
    /// Whether images can be mounted lazily, once that was tested.
    lazy: OnceLock<Result<(), String>>,
    /// Whether that is allowed without fs-verity.
    lazy_unsealed: bool,
}

impl KernelMounter {
    /// Opens the store at `store` and the directory of base mounts below `state`, runs the self-test on the store's
    /// filesystem, and removes what a crash left.
    ///
    /// `sealed` says whether the store's objects have fs-verity.
    ///
    /// # Errors
    /// [`MountError::NoMountMethod`] if this node cannot mount images at all; it names each method and why it fails.
    pub fn start(store: &Path, state: &Path, sealed: bool) -> Result<Self, MountError> {
        Self::start_labelled(store, state, sealed, &SelinuxContext::Auto)
    }

    /// As [`KernelMounter::start`], with the SELinux label that `context` says.
    ///
    /// # Errors
    /// Besides the above, [`MountError::Label`] if SELinux refuses the configured label.
    pub fn start_labelled(
        store: &Path,
        state: &Path,
        sealed: bool,
        context: &SelinuxContext,
    ) -> Result<Self, MountError> {
        let bases = BaseMounts::open(state)?;
        let capabilities = probe::run(store, &bases, sealed, context)?;
        Self::assemble(store, bases, capabilities, sealed)
    }

    /// As [`KernelMounter::start`], but takes the method from `capabilities`, without a self-test.
    ///
    /// # Errors
    /// The store or the state directory cannot be opened or prepared.
    pub fn with_capabilities(
        store: &Path,
        state: &Path,
        sealed: bool,
        capabilities: Capabilities,
    ) -> Result<Self, MountError> {
        Self::assemble(store, BaseMounts::open(state)?, capabilities, sealed)
    }

    fn assemble(
        store: &Path,
        bases: BaseMounts,
        capabilities: Capabilities,
        sealed: bool,
    ) -> Result<Self, MountError> {
        let contents = Objects::open(store, sealed).map_err(|error| {
            tracing::error!(%error, "the objects cannot be opened");
            MountError::kernel("opening the objects", store.display(), Errno::IO)
        })?;
        let root = store.to_owned();
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
        let (recognised, checked) = (Mutex::default(), Mutex::default());
        let (read_ahead, stat_ahead) = (ReadAhead::default(), StatAhead::default());
        Ok(Self {
            objects,
            store,
            bases,
            capabilities,
            sealed,
            recognised,
            contents,
            checked,
            read_ahead,
            stat_ahead,
            root,
            lazy: OnceLock::new(),
            lazy_unsealed: false,
        })
    }

    /// Looks up at most so many objects of each image in the background when its base mount is made.
    #[must_use]
    pub fn with_stat_ahead(self, objects: usize) -> Self {
        Self { stat_ahead: StatAhead::new(objects), ..self }
    }

    /// Mounts lazily where nothing checks what is read. Only for tests, on machines without fs-verity.
    #[doc(hidden)]
    #[must_use]
    pub fn lazily_without_verity(self) -> Self {
        Self { lazy_unsealed: true, ..self }
    }

    /// Whether images can be mounted before their objects are here: only where the kernel checks every read, and where a
    /// self-test has shown it, which the first call makes. Blocking.
    ///
    /// # Errors
    /// The reason why not.
    pub fn can_be_lazy(&self) -> Result<(), &str> {
        let test = || match &self.capabilities.verity {
            Verity::Required => lazy_probe::run(&self.capabilities.method(), &self.root, &self.bases),
            Verity::NotInStore if self.lazy_unsealed => {
                lazy_probe::run(&self.capabilities.method(), &self.root, &self.bases)
            }
            Verity::NotInStore => Err("its store has no fs-verity, without which nothing checks what comes \
                                       after the mount"
                .to_owned()),
            Verity::Unusable(why) => Err(format!("fs-verity of its store cannot be required: {why}")),
        };
        self.lazy.get_or_init(test).as_ref().copied().map_err(String::as_str)
    }

    pub(super) fn contents(&self) -> &Objects {
        &self.contents
    }

    /// What the self-test found.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// The root of the image's base mount: the existing one, a copy of a published one, or a new one.
    ///
    /// Only a new one can be checked: an existing one may hold files open that the names no longer lead to. Published
    /// clones of a replaced base mount stay.
    fn base_mount(&self, image: &ImageFile, least: Integrity) -> Result<OwnedFd, MountError> {
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
            // Unchecked, from a store that was replaced meanwhile, or with another label: no new clones of it.
            drop(base);
            self.bases.drop_base(&digest)?;
        } else if check {
            check::check(image, &self.contents)?;
        }
        // A published mount was not checked by this process, so a check needs a new mount.
        let copy = if check { None } else { self.copy_of_published(&digest)? };
        let mount = match copy {
            Some(copy) => copy,
            None => {
                if self.sealed {
                    image.measure()?;
                }
                let mount = self.capabilities.method().mount(image, self.objects.as_fd(), &self.bases)?;
                self.read_ahead.begin(image);
                self.stat_ahead.begin(image, &self.objects);
                mount
            }
        };
        if check {
            let device = device_of(&mount, &digest)?;
            lock(&self.checked).insert(digest, device);
        }
        self.bases.attach(&mount, image)?;
        // Without an id (before Linux 6.8) the next publish reads the mount table.
        if let Ok(Some(id)) = mount_id(&mount) {
            self.remember(digest, id);
        }
        Ok(mount)
    }

    /// Makes a base mount by `make`, in the place of the one that there may be, and mounts that on `target`. Returns what
    /// was made besides.
    pub(super) fn mount_anew<T>(
        &self,
        spec: &MountSpec,
        target: &Path,
        make: impl FnOnce(
            &MountMethod,
            &ImageFile,
            BorrowedFd<'_>,
            &BaseMounts,
        ) -> Result<(OwnedFd, T), MountError>,
    ) -> Result<T, MountError> {
        let target = MountTarget::open(target)?;
        let image = ImageFile::lock(&self.objects, &spec.image)?;
        if self.sealed {
            image.measure()?;
        }
        let (mount, made) = make(&self.capabilities.method(), &image, self.objects.as_fd(), &self.bases)?;
        self.bases.drop_base(&spec.image)?;
        lock(&self.recognised).remove(&spec.image);
        lock(&self.checked).remove(&spec.image);
        self.bases.attach(&mount, &image)?;
        self.read_ahead.begin(&image);
        if let Ok(Some(id)) = mount_id(&mount) {
            self.remember(spec.image, id);
        }
        let published = target.publish(&mount, spec);
        drop(mount);
        if published.is_err()
            && let Err(error) = self.drop_unused_base(&spec.image)
        {
            tracing::warn!(image = %spec.image, %error, "the base mount of a failed publish remains");
        }
        published.map(|()| made)
    }

    /// Checks what a superblock of its own is made of: other mounts of the image say nothing about it.
    fn examine(&self, image: &ImageFile, least: Integrity) -> Result<(), MountError> {
        let here = self.capabilities.integrity();
        if least > here.max(Integrity::Mount) {
            return Err(MountError::Unreachable { image: image.digest() });
        }
        if least > here {
            check::check(image, &self.contents)?;
        }
        if self.sealed { image.measure() } else { Ok(()) }
    }

    /// Mounts the image with an upper of its own. Nothing but the target shows it in the end.
    fn mount_writable(
        &self,
        (spec, upper): (&MountSpec, UpperSpec),
        least: Integrity,
        target: &MountTarget<'_>,
    ) -> Result<(), MountError> {
        let image = ImageFile::lock(&self.objects, &spec.image)?;
        self.examine(&image, least)?;
        let context = self.capabilities.selinux.for_writing();
        let method = MountMethod { context, ..self.capabilities.method() };
        let overlay = method.mount_writable(&image, self.objects.as_fd(), &self.bases, upper)?;
        self.read_ahead.begin(&image);
        // Before Linux 6.15, only what is attached can be cloned.
        let attached = self.bases.attach_aside(&overlay, WRITABLE, &image)?;
        drop(overlay);
        let published = attached.root().and_then(|root| target.publish(&root, spec));
        attached.remove()?;
        published
    }

    /// Whether the base mount is from this store and has the current label.
    ///
    /// # Errors
    /// [`MountError::Foreign`] if it is not a mount of the image at all.
    fn recognise(&self, base: &OwnedFd, image: &VerityDigest) -> Result<bool, MountError> {
        let failed = |errno| MountError::kernel("looking at the base mount", format!("image {image}"), errno);
        let id = mount_id(base).map_err(failed)?;
        // A unique mount id is never reused, so the earlier answer still holds.
        if id.is_some() && id == lock(&self.recognised).get(image).copied() {
            return Ok(true);
        }
        match table::mount_at(base).map_err(failed)? {
            Some(mount) if mount.image() != Some(*image) => Err(mount.foreign(&self.bases.path(image))),
            Some(mount) if !mount.is_of(image, self.store) => Ok(false),
            _ if !self.has_current_label(base).map_err(failed)? => Ok(false),
            _ => {
                if let Some(id) = id {
                    self.remember(*image, id);
                }
                Ok(true)
            }
        }
    }

    /// Whether this mount has the label that new mounts get.
    fn has_current_label(&self, mount: &OwnedFd) -> Result<bool, Errno> {
        Ok(selinux::label_of(mount)? == self.capabilities.selinux.label)
    }

    fn was_checked(&self, base: &OwnedFd, image: &VerityDigest) -> Result<bool, MountError> {
        let Some(checked) = lock(&self.checked).get(image).copied() else { return Ok(false) };
        Ok(device_of(base, image)? == checked)
    }

    fn remember(&self, image: VerityDigest, id: u64) {
        lock(&self.recognised).insert(image, id);
    }

    /// A detached copy of a published mount of the whole image.
    ///
    /// After the plugin's container is replaced, its new namespace has the published mounts but no base mounts. A second
    /// superblock would share neither inodes nor dentries with them.
    fn copy_of_published(&self, image: &VerityDigest) -> Result<Option<OwnedFd>, MountError> {
        let verity = self.capabilities.verity == Verity::Required;
        // A mount may be hidden by another or be unmounted meanwhile; then the next one is tried.
        Ok(table::published_roots(image, self.store, verity)?.iter().find_map(|point| {
            let place = rustix::fs::openat(CWD, point, PATH_DIRECTORY, Mode::empty()).ok()?;
            if !table::mount_at(&place).ok()??.is_whole_image(image, self.store) {
                return None;
            }
            if !self.has_current_label(&place).ok()? {
                return None;
            }
            let copy = clone_mount(&place).ok()?;
            restrict(&copy, MountAttrFlags::empty()).ok()?;
            Some(copy)
        }))
    }

    /// Drops the base mount unless the mount table has a clone of it. The caller holds the image's lock, or the image
    /// is no longer in the store.
    fn drop_unused_base(&self, image: &VerityDigest) -> Result<(), MountError> {
        let Some(base) = self.bases.find(image)? else { return Ok(()) };
        let device = table::mount_at(&base)
            .map_err(|errno| {
                MountError::kernel("looking at the base mount", format!("image {image}"), errno)
            })?
            .map(|mount| mount.device);
        // An open descriptor would keep the mount busy.
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
        lock(&self.recognised).remove(image);
        lock(&self.checked).remove(image);
        self.stat_ahead.end(image);
        self.bases.drop_base(image)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The device number of a mount's superblock. The kernel does not reuse it while the mount exists.
fn device_of(mount: &OwnedFd, image: &VerityDigest) -> Result<u64, MountError> {
    let stat = rustix::fs::fstat(mount);
    stat.map(|stat| stat.st_dev).map_err(|errno| MountError::kernel("fstat", format!("image {image}"), errno))
}

/// Opens `target` and looks up the mount there; `None` if nothing is mounted or `target` is not a directory.
fn open_mount(target: &Path) -> Result<Option<(OwnedFd, Mount)>, MountError> {
    let failed = |step: &str, errno| MountError::kernel(step, target.display(), errno);
    let place = match rustix::fs::openat(CWD, target, PATH_DIRECTORY, Mode::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
        other => other.map_err(|errno| failed("open", errno))?,
    };
    let mount = table::mount_at(&place).map_err(|errno| failed("statx", errno))?;
    Ok(mount.map(|mount| (place, mount)))
}

/// Removes every image mount stacked on `target`; see [`Mounter::unmount`]. Needs the mount table only, and no store.
///
/// # Errors
/// A mount there is foreign, or cannot be removed.
pub fn unmount(target: &Path) -> Result<(), MountError> {
    // The descriptor from `open_mount` would keep the mount busy, so it is dropped before the unmount.
    while let Some(mount) = open_mount(target)?.map(|(_, mount)| mount) {
        let following = mount.is_following();
        if mount.image().is_none() && !following {
            return Err(mount.foreign(target));
        }
        // What is mounted in a tmpfs keeps it busy.
        let is_tree = mount.users().is_some() || following;
        let unmounted = if is_tree { unmount_tree(target) } else { unmount_lazily(target) };
        match unmounted {
            // EINVAL and ENOENT: unmounted meanwhile.
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(errno) => return Err(MountError::kernel("umount", target.display(), errno)),
        }
    }
    Ok(())
}

impl Mounter for KernelMounter {
    fn mount_at_least(
        &self,
        spec: &MountSpec,
        least: Integrity,
        target: &Path,
    ) -> Result<Integrity, MountError> {
        let target = MountTarget::open(target)?;
        if let Some(upper) = spec.upper {
            self.mount_writable((spec, upper), least, &target)?;
            return Ok(self.capabilities.integrity().max(least));
        }
        let image = ImageFile::lock(&self.objects, &spec.image)?;
        // A failed publish must not leave a base mount that nothing else would release.
        let published = self.base_mount(&image, least).and_then(|base| target.publish(&base, spec));
        if published.is_err()
            && let Err(error) = self.drop_unused_base(&spec.image)
        {
            tracing::warn!(image = %spec.image, %error, "the base mount of a failed publish remains");
        }
        published.map(|()| self.level(&spec.image))
    }

    fn level(&self, image: &VerityDigest) -> Integrity {
        let here = self.capabilities.integrity();
        if lock(&self.checked).contains_key(image) { here.max(Integrity::Mount) } else { here }
    }

    fn mounted(&self, target: &Path) -> Result<Option<MountSpec>, MountError> {
        match open_mount(target)? {
            None => Ok(None),
            Some((top, mount)) if mount.is_following() => {
                Ok(Some(follow::shown(&top, target)?.unwrap_or_else(follow::nothing)))
            }
            Some((_, mount)) => mount.spec().map(Some).ok_or_else(|| mount.foreign(target)),
        }
    }

    fn usage(&self, target: &Path) -> Result<Option<Usage>, MountError> {
        let Some((place, mount)) = open_mount(target)? else { return Ok(None) };
        if mount.upper().is_none() {
            return Ok(None);
        }
        // Of an overlay, these are the upper's.
        let found = rustix::fs::fstatvfs(&place)
            .map_err(|errno| MountError::kernel("fstatvfs", target.display(), errno))?;
        Ok(Some(Usage {
            bytes: found.f_blocks.saturating_mul(found.f_frsize),
            free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
            inodes: found.f_files,
            free_inodes: found.f_favail,
        }))
    }

    fn show_current(
        &self,
        spec: &MountSpec,
        least: Integrity,
        target: &Path,
    ) -> Result<Integrity, MountError> {
        let found = open_mount(target)?;
        let image = ImageFile::lock(&self.objects, &spec.image)?;
        let shown = self.base_mount(&image, least).and_then(|base| match found {
            None => {
                let target = MountTarget::open(target)?;
                let maker = follow::Maker {
                    method: self.capabilities.method(),
                    store: self.store,
                    bases: &self.bases,
                };
                let tree = maker.tree(&image, &base, spec)?;
                target
                    .attach(&tree)
                    .map_err(|errno| MountError::kernel("move_mount", format!("image {}", spec.image), errno))
            }
            Some((top, mount)) if mount.is_following() => follow::switch(&top, &base, spec, target),
            Some((_, mount)) => Err(mount.foreign(target)),
        });
        if shown.is_err()
            && let Err(error) = self.drop_unused_base(&spec.image)
        {
            tracing::warn!(image = %spec.image, %error, "the base mount of an image that is not shown remains");
        }
        shown.map(|()| self.level(&spec.image))
    }

    fn in_use(&self, image: &VerityDigest) -> bool {
        match ImageFile::lock(&self.objects, image) {
            // The filesystem's own descriptor is the one that counts: every mount of it has that.
            Ok(file) => is_open_elsewhere(&file).unwrap_or(true),
            Err(MountError::NoSuchImage { .. }) => false,
            Err(_) => true,
        }
    }

    fn map(
        &self,
        spec: &MountSpec,
        least: Integrity,
        users: IdRange,
        target: &Path,
    ) -> Result<bool, MountError> {
        let published = Published::open(target, spec)?;
        if published.users == Some(users) {
            return Ok(false);
        }
        let image = ImageFile::lock(&self.objects, &spec.image)?;
        self.examine(&image, least)?;
        let maker = Maker {
            method: self.capabilities.method(),
            objects: &self.objects,
            store: self.store,
            bases: &self.bases,
        };
        published.cover(&maker.tree(&image, spec, &Users::new(users)?)?)?;
        Ok(true)
    }

    fn unmount(&self, target: &Path) -> Result<(), MountError> {
        unmount(target)
    }

    fn release(&self, image: &VerityDigest) -> Result<(), MountError> {
        // An image that was collected has no object to lock; its base mount must go all the same.
        let _lock = match ImageFile::lock(&self.objects, image) {
            Err(MountError::NoSuchImage { .. }) => None,
            other => Some(other?),
        };
        self.drop_unused_base(image)
    }

    fn mounted_images(&self) -> Result<Mounted, MountError> {
        table::images_from(self.store)
    }
}
