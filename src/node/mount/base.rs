//! The directory of base mounts: one mount per image, visible in this process's mount namespace only.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags};

use super::MountError;
use super::object::ImageFile;
use super::store_mount::is_mount_root;
use crate::image::verity::VerityDigest;
use crate::sys::mount_attr::{MountAttr, Propagation, mount_setattr};

/// Opens a directory with O_PATH: follows no link and needs no read permission.
pub(super) const PATH_DIRECTORY: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

const LOWER: &str = ".lower";
/// The overlay for a pod's users, and the top over it, while that is put together.
pub(super) const MAPPED: &str = ".mapped";
pub(super) const TOP: &str = ".top";
/// The upper of a mount that can be written to, and the overlay with it, while that is put together.
pub(super) const UPPER: &str = ".upper";
pub(super) const WRITABLE: &str = ".writable";
/// The overlay of an image file that is in no store, while a target gets it.
pub(super) const FILE: &str = ".file";
/// What is attached for a moment only.
const TEMPORARY: [&str; 6] = [LOWER, MAPPED, TOP, UPPER, WRITABLE, FILE];
/// Where the self-test attaches its EROFS mount.
const SELF_TEST: &str = ".self-test";

/// `<state>/mounts`.
#[derive(Debug)]
pub(super) struct BaseMounts {
    directory: OwnedFd,
    path: PathBuf,
    is_for_self_test: bool,
    /// Dropped last: the descriptor above keeps the mount busy.
    _own: Option<OwnMount>,
}

/// The directory as a mount of its own. Dropped, it goes if nobody uses it, so that a state directory can be removed.
#[derive(Debug)]
struct OwnMount {
    state: PathBuf,
    path: PathBuf,
}

impl Drop for OwnMount {
    fn drop(&mut self) {
        // Another process may just be opening it. Its descriptor of the mount would otherwise come too late.
        let Ok(_lock) = lock(&self.state) else { return };
        let device = |path: &Path| rustix::fs::stat(path).map(|stat| stat.st_dev);
        // A filesystem that an operator mounted there is not ours.
        if device(&self.state) == device(&self.path) {
            // EBUSY while a volume is mounted below, or another process has it open.
            let _ = rustix::mount::unmount(&self.path, UnmountFlags::NOFOLLOW);
        }
    }
}

/// Locks the state directory against other processes that make or remove the mount in it.
fn lock(state: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(state, flags, Mode::empty())?;
    rustix::fs::flock(&directory, FlockOperation::LockExclusive)?;
    Ok(directory)
}

impl BaseMounts {
    /// Makes the directory a mount of its own, unless it is one already.
    ///
    /// The mount is unbindable. Otherwise a container that binds the host's root recursively would get a copy of each
    /// base mount and keep its image alive. The kernel does not move an unbindable mount into a shared one, so the
    /// mount is moved first and made unbindable then.
    pub(super) fn open(state: &Path) -> Result<Self, MountError> {
        let failed = |step: &str, errno| MountError::kernel(step, state.display(), errno);
        make_directory(state).map_err(|errno| failed("creating the state directory", errno))?;
        // Another process may start at the same time: the second of two mounts would hide the first.
        let _lock = lock(state).map_err(|errno| failed("locking the state directory", errno))?;
        let state = std::fs::canonicalize(state).map_err(|error| {
            failed("resolving the state directory", Errno::from_io_error(&error).unwrap_or(Errno::IO))
        })?;
        let path = state.join("mounts");
        make_directory(&path).map_err(|errno| failed("creating the directory of mounts", errno))?;
        let directory = own_mount(&path).map_err(|errno| failed("making a private mount", errno))?;
        let own = OwnMount { state, path: path.clone() };
        Ok(Self { directory, path, is_for_self_test: false, _own: Some(own) })
    }

    /// The same for the self-test. It attaches EROFS mounts always in the same place and leaves the empty directory, so
    /// that it needs no room the next time.
    pub(super) fn for_self_test(&self) -> Result<Self, MountError> {
        let directory = self.directory.try_clone().map_err(|error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            MountError::kernel("keeping the directory of mounts open", self.path.display(), errno)
        })?;
        Ok(Self { directory, path: self.path.clone(), is_for_self_test: true, _own: None })
    }

    pub(super) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// The path of the base mount of `image`, mounted or not.
    pub(super) fn path(&self, image: &VerityDigest) -> PathBuf {
        self.path.join(image.hex())
    }

    /// The root of the base mount of `image`, if it is mounted.
    pub(super) fn find(&self, image: &VerityDigest) -> Result<Option<OwnedFd>, MountError> {
        let failed =
            |errno| MountError::kernel("looking for the base mount", format!("image {image}"), errno);
        match rustix::fs::openat(&self.directory, image.hex(), PATH_DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(failed(errno)),
            Ok(place) => Ok(is_mount_root(&place).map_err(failed)?.then_some(place)),
        }
    }

    /// Attaches `mount` as the base mount of `image`, whose lock the caller holds.
    pub(super) fn attach(&self, mount: &OwnedFd, image: &ImageFile) -> Result<(), MountError> {
        self.attach_as(mount, &image.digest().hex(), image)
    }

    /// Attaches the EROFS mount alone, for kernels that do not stack an overlay on a detached mount.
    pub(super) fn attach_lower(
        &self,
        erofs: &OwnedFd,
        image: &ImageFile,
    ) -> Result<Attached<'_>, MountError> {
        match self.is_for_self_test {
            true => self.attach_for_now(erofs, SELF_TEST.to_owned(), image),
            false => self.attach_aside(erofs, LOWER, image),
        }
    }

    /// Attaches a mount beside the base mount of `image`, for a moment.
    pub(super) fn attach_aside(
        &self,
        mount: &OwnedFd,
        suffix: &str,
        image: &ImageFile,
    ) -> Result<Attached<'_>, MountError> {
        self.attach_for_now(mount, format!("{}{suffix}", image.digest()), image)
    }

    fn attach_for_now(
        &self,
        mount: &OwnedFd,
        name: String,
        image: &ImageFile,
    ) -> Result<Attached<'_>, MountError> {
        // The caller holds the image's lock, so an existing one is a crashed process's.
        self.remove(&name)?;
        self.attach_as(mount, &name, image)?;
        Ok(Attached { bases: self, name })
    }

    fn attach_as(&self, mount: &OwnedFd, name: &str, image: &ImageFile) -> Result<(), MountError> {
        let failed = |errno| {
            MountError::kernel("attaching to the state directory", format!("image {}", image.digest()), errno)
        };
        match rustix::fs::mkdirat(&self.directory, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed(errno)),
        }
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(mount, "", &self.directory, name, flags).map_err(|errno| {
            let _ = rustix::fs::unlinkat(&self.directory, name, AtFlags::REMOVEDIR);
            failed(errno)
        })
    }

    /// Unmounts everything stacked on the base of `image` and removes its directory. Succeeds if there is nothing.
    pub(super) fn drop_base(&self, image: &VerityDigest) -> Result<(), MountError> {
        self.remove(&image.hex())
    }

    fn remove(&self, name: &str) -> Result<(), MountError> {
        let path = self.path.join(name);
        let failed = |step: &str, errno| MountError::kernel(step, path.display(), errno);
        // Mounts may be stacked; each pass removes the topmost.
        loop {
            match rustix::fs::openat(&self.directory, name, PATH_DIRECTORY, Mode::empty()) {
                Err(Errno::NOENT) => return Ok(()),
                Err(errno) => return Err(failed("open", errno)),
                Ok(place) if !is_mount_root(&place).map_err(|errno| failed("statx", errno))? => break,
                Ok(_) => {}
            }
            // A top is always busy with what is mounted in it.
            let unmounted = if name.ends_with(TOP) { unmount_tree(&path) } else { unmount_lazily(&path) };
            unmounted.map_err(|errno| failed("umount", errno))?;
        }
        if self.is_for_self_test {
            return Ok(());
        }
        match rustix::fs::unlinkat(&self.directory, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(failed("rmdir", errno)),
        }
    }

    /// Removes what a killed process left: temporary mounts, and directories without a mount. Skips an image that
    /// another process has locked.
    pub(super) fn sweep(&self, objects: impl AsFd) -> Result<(), MountError> {
        let failed = |error: std::io::Error| {
            MountError::kernel(
                "readdir",
                self.path.display(),
                Errno::from_io_error(&error).unwrap_or(Errno::IO),
            )
        };
        for entry in std::fs::read_dir(&self.path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let Some(name) = name.to_str() else { continue };
            let of = TEMPORARY.iter().find_map(|suffix| name.strip_suffix(suffix));
            let Some(image) = VerityDigest::from_hex(of.unwrap_or(name)) else { continue };
            let lock = ImageFile::try_lock(&objects, &image);
            // Other errors are no obstacle: an image that was collected cannot be locked.
            if matches!(&lock, Err(MountError::Kernel { errno: Errno::WOULDBLOCK, .. })) {
                continue;
            }
            if of.is_some() {
                self.remove(name)?;
            } else if self.find(&image)?.is_none() {
                // Fails with EBUSY if a mount was attached meanwhile, which is right.
                let _ = rustix::fs::unlinkat(&self.directory, name, AtFlags::REMOVEDIR);
            }
        }
        Ok(())
    }
}

/// A mount that is attached only while something is made of it.
#[derive(Debug)]
pub(super) struct Attached<'a> {
    bases: &'a BaseMounts,
    name: String,
}

impl Attached<'_> {
    /// Its root.
    pub(super) fn root(&self) -> Result<OwnedFd, MountError> {
        rustix::fs::openat(&self.bases.directory, &self.name, PATH_DIRECTORY, Mode::empty())
            .map_err(|errno| MountError::kernel("open", self.bases.path.join(&self.name).display(), errno))
    }

    /// Detaches it. After a crash, [`BaseMounts::sweep`] does this.
    pub(super) fn remove(self) -> Result<(), MountError> {
        self.bases.remove(&self.name)
    }
}

/// Unmounts the topmost mount on `path`. Open files do not prevent this: the content is immutable, so a reader loses
/// nothing, and a leaked process must not block the teardown of a pod.
pub(super) fn unmount_lazily(path: &Path) -> Result<(), Errno> {
    match rustix::mount::unmount(path, UnmountFlags::NOFOLLOW) {
        Err(Errno::BUSY) => {
            tracing::info!(path = %path.display(), "mount is still in use; detaching it");
            rustix::mount::unmount(path, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)
        }
        other => other,
    }
}

/// Unmounts the topmost mount on `path` with all that is mounted in it, whoever uses it.
pub(super) fn unmount_tree(path: &Path) -> Result<(), Errno> {
    rustix::mount::unmount(path, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)
}

fn make_directory(path: &Path) -> Result<(), Errno> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// The directory `path` as a mount of its own, made one if necessary.
fn own_mount(path: &Path) -> Result<OwnedFd, Errno> {
    let open = || rustix::fs::open(path, PATH_DIRECTORY, Mode::empty());
    let mut place = open()?;
    if !is_mount_root(&place)? {
        let flags =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        let clone = rustix::mount::open_tree(&place, "", flags)?;
        mount_setattr(
            &clone,
            &MountAttr { propagation: Some(Propagation::Private), ..MountAttr::default() },
        )?;
        rustix::mount::move_mount(&clone, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        // The first descriptor is of the directory below the new mount.
        place = open()?;
    }
    mount_setattr(&place, &MountAttr { propagation: Some(Propagation::Unbindable), ..MountAttr::default() })?;
    Ok(place)
}
