//! The top of a volume whose pod has a user namespace: a tmpfs with what a directory of the image has, by mounts.
//!
//! * The filesystem is read-only, its mount is not and has no other flag either. A runtime that is asked for a writable
//!   mount, as kubelet does where `readOnly` is not said, clears flags that a user namespace does not let it clear.
//! * A symbolic link is copied, everything else is mounted. Above [`MOST_MOUNTS`] the directory is mounted once, and the
//!   entries are links into it: every mount is one more in the table of each process that reads it.
//! * The owners in the tmpfs are those in the image: the runtime idmaps it.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MoveMountFlags};

use super::context::{Context, proc_path};
use super::object::ImageFile;
use super::publish::{clone_mount, restrict};
use super::store_mount::{StoreId, top_source_of};
use super::superblock::MountMethod;
use super::{MountError, MountSpec};
use crate::sys::user_namespace::IdRange;

/// Entries of a directory that get a mount each.
const MOST_MOUNTS: usize = 64;
/// Entries that a directory may have. A link takes about 1 KiB of kernel memory.
const MOST_ENTRIES: usize = 4096;
/// Where the directory is mounted if its entries are links; the first such name that it does not have itself.
const WHOLE: &str = ".composefs";
/// An id that no pod has: the kernel shows it as nobody's.
const NOBODY: u32 = u32::MAX - 1;

/// A top to be made.
#[derive(Debug)]
pub(super) struct Top<'a> {
    pub(super) method: &'a MountMethod,
    pub(super) subject: &'a str,
    pub(super) users: IdRange,
    pub(super) noexec: bool,
}

impl Top<'_> {
    /// The empty filesystem, detached and writable.
    pub(super) fn mount(&self, image: &ImageFile, store: StoreId) -> Result<OwnedFd, MountError> {
        let context = Context::open("tmpfs", self.subject)?;
        context.string("source", &top_source_of(&image.digest(), store, self.users, self.noexec))?;
        // Only a long link takes a page.
        context.string("size", "20m")?;
        context.string("nr_inodes", &(MOST_ENTRIES + 8).to_string())?;
        self.method.label(&context)?;
        context.mount_with(MountAttrFlags::empty())
    }

    /// Shows at `top`, the attached filesystem, what `directory` of the attached overlay has; then makes it read-only.
    pub(super) fn fill(
        &self,
        top: &OwnedFd,
        directory: &OwnedFd,
        spec: &MountSpec,
    ) -> Result<(), MountError> {
        let entries = self.entries(directory, spec)?;
        let failed = |step: &'static str| move |errno| MountError::kernel(step, self.subject, errno);
        let mounts = entries.iter().filter(|(_, stat)| !is_link(stat)).count();
        let whole = if mounts > MOST_MOUNTS { Some(free_name(&entries)) } else { None };
        if let Some(whole) = &whole {
            rustix::fs::mkdirat(top, whole, Mode::RWXU).map_err(failed("mkdirat"))?;
            self.attach(directory, top, whole).map_err(failed("mounting the directory"))?;
        }
        for (name, stat) in &entries {
            let shown = match (&whole, is_link(stat)) {
                (_, true) => rustix::fs::readlinkat(directory, name, Vec::new())
                    .and_then(|goal| self.link(&goal, top, name, stat)),
                (Some(whole), false) => self.link(&inside(whole, name), top, name, stat),
                (None, false) => self.mirror(directory, top, name, stat),
            };
            shown.map_err(failed("mounting an entry"))?;
        }
        self.imitate(directory, top).map_err(failed("taking over owner, mode and times"))?;
        let context = Context::of_mounted(top, "tmpfs", self.subject)?;
        context.flag("ro")?;
        context.reconfigure()
    }

    /// The entries, by name.
    fn entries(&self, directory: &OwnedFd, spec: &MountSpec) -> Result<Vec<(CString, Stat)>, MountError> {
        let failed = |errno| MountError::kernel("readdir", self.subject, errno);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let listed =
            rustix::fs::openat(CWD, proc_path(directory.as_fd()), flags, Mode::empty()).map_err(failed)?;
        let mut entries = Vec::new();
        for entry in Dir::new(listed).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            if entries.len() == MOST_ENTRIES {
                let (image, path) = (spec.image, spec.path.clone());
                return Err(MountError::TooManyEntries { path, image, most: MOST_ENTRIES });
            }
            let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
            entries.push((name.to_owned(), stat));
        }
        entries.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(entries)
    }

    /// Mounts one entry of `directory` on a new one of `top`.
    fn mirror(&self, directory: &OwnedFd, top: &OwnedFd, name: &CStr, stat: &Stat) -> Result<(), Errno> {
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            rustix::fs::mkdirat(top, name, Mode::RWXU)?;
        } else {
            rustix::fs::mknodat(top, name, FileType::RegularFile, Mode::RUSR, 0)?;
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let entry = rustix::fs::openat(directory, name, flags, Mode::empty())?;
        self.attach(&entry, top, name)
    }

    fn attach(&self, entry: &OwnedFd, top: &OwnedFd, name: &CStr) -> Result<(), Errno> {
        let clone = clone_mount(entry)?;
        let noexec = if self.noexec { MountAttrFlags::MOUNT_ATTR_NOEXEC } else { MountAttrFlags::empty() };
        restrict(&clone, noexec)?;
        rustix::mount::move_mount(&clone, "", top, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
    }

    fn link(&self, goal: &CStr, top: &OwnedFd, name: &CStr, stat: &Stat) -> Result<(), Errno> {
        rustix::fs::symlinkat(goal, top, name)?;
        self.own(top, name, stat, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Makes the root of the filesystem what the directory is. Extended attributes of the directory itself are left out.
    fn imitate(&self, directory: &OwnedFd, top: &OwnedFd) -> Result<(), Errno> {
        let stat = rustix::fs::statat(directory, c"", AtFlags::EMPTY_PATH)?;
        // By a path, because a descriptor with O_PATH cannot be changed.
        rustix::fs::chmodat(
            CWD,
            proc_path(top.as_fd()),
            Mode::from_raw_mode(stat.st_mode),
            AtFlags::empty(),
        )?;
        self.own(top, c"", &stat, AtFlags::EMPTY_PATH)
    }

    /// Sets the owner, as the image has it, and the times.
    fn own(&self, top: &OwnedFd, name: &CStr, stat: &Stat, flags: AtFlags) -> Result<(), Errno> {
        let (uid, gid) = (Uid::from_raw(self.raw(stat.st_uid)), Gid::from_raw(self.raw(stat.st_gid)));
        rustix::fs::chownat(top, name, Some(uid), Some(gid), flags)?;
        let modified =
            Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec.try_into().unwrap_or(0) };
        let times = Timestamps { last_access: modified, last_modification: modified };
        rustix::fs::utimensat(top, name, &times, flags)
    }

    /// The id that the image has, of one that the idmapped overlay shows.
    fn raw(&self, shown: u32) -> u32 {
        shown.checked_sub(self.users.first).filter(|id| *id < self.users.length).unwrap_or(NOBODY)
    }
}

fn is_link(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Symlink
}

/// `whole/name`.
fn inside(whole: &CStr, name: &CStr) -> CString {
    let path = [whole.to_bytes(), b"/", name.to_bytes()].concat();
    // Neither has a NUL in it.
    CString::new(path).unwrap_or_default()
}

/// A name that no entry has.
fn free_name(entries: &[(CString, Stat)]) -> CString {
    let taken = |name: &CString| entries.binary_search_by(|(entry, _)| entry.cmp(name)).is_ok();
    let mut name = CString::new(WHOLE).unwrap_or_default();
    // Each round makes it longer, and there are fewer entries than rounds before it is too long.
    while taken(&name) {
        name = CString::new([name.to_bytes(), b"-"].concat()).unwrap_or_default();
    }
    name
}
