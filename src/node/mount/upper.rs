//! The upper of a volume that its pod can write to: a filesystem of its own, of which the overlay takes two directories.
//!
//! * The filesystem is attached nowhere once the overlay has it. A pod reaches it through the overlay only, and so never the
//!   names by which overlayfs says where files come from (`trusted.overlay.*`).
//! * Its limits count for root too, and end with the mount: nothing is left to be removed, whatever is killed. A tmpfs needs
//!   nothing for that; on disk it is a file without a name, in a loop device that ends with its last user.
//! * In memory, bytes and inodes are charged to the memory cgroup of who writes them, as those of a tmpfs that kubelet makes.

mod ext4;

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;

use ext4::EmptyExt4;
use rustix::fs::FallocateFlags;
use rustix::fs::{Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::base::{BaseMounts, PATH_DIRECTORY};
use super::context::{Context, proc_path};
use super::store_mount::GUARDED;
use super::{MountError, UpperSpec};
use crate::sys::loop_device;

/// Bytes of the limit for each inode, and how few and many inodes there are. An inode takes about 1 KiB of kernel memory, and
/// one that only has another owner or mode than in the image takes nothing of the bytes.
const BYTES_PER_INODE: u64 = 4096;
const LEAST_INODES: u64 = 1024;
const MOST_INODES: u64 = 1 << 20;
/// The longest name and value of an extended attribute, and the longest list of names (xattr(7)).
const LONGEST: usize = 64 << 10;

/// An empty upper.
#[derive(Debug)]
pub(super) struct Upper {
    filesystem: OwnedFd,
    directory: OwnedFd,
    work: OwnedFd,
    on_disk: bool,
}

impl Upper {
    /// An upper as it is asked for, detached. What is written over `image`, the root of the image's EROFS mount, begins with the
    /// owner, mode, times and attributes of that directory. `label` is the SELinux label of all its files.
    pub(super) fn new(
        wanted: UpperSpec,
        (image, bases): (&OwnedFd, &BaseMounts),
        label: Option<&str>,
        subject: &str,
    ) -> Result<Self, MountError> {
        let failed = |step: &'static str| move |errno| MountError::kernel(step, subject, errno);
        let filesystem = match wanted.on_disk {
            false => in_memory(wanted.bytes, label, subject)?,
            true => on_disk(wanted.bytes, bases, label, subject)?,
        };
        let make = |name: &str| -> Result<OwnedFd, Errno> {
            rustix::fs::mkdirat(&filesystem, name, Mode::RWXU)?;
            rustix::fs::openat(&filesystem, name, PATH_DIRECTORY, Mode::empty())
        };
        let directory = make("upper").map_err(failed("making the upper"))?;
        let work = make("work").map_err(failed("making the upper"))?;
        begin_as(&directory, image).map_err(failed("making the root of the upper as the image's"))?;
        Ok(Self { filesystem, directory, work, on_disk: wanted.on_disk })
    }

    /// The root of the filesystem, to be attached where the kernel asks for that.
    pub(super) fn filesystem(&self) -> &OwnedFd {
        &self.filesystem
    }

    /// Whether the overlay need not write to it what only a disk would keep.
    pub(super) fn is_volatile(&self) -> bool {
        self.on_disk
    }

    /// What the overlay writes to, and where it prepares that.
    pub(super) fn directories(&self) -> [(&'static str, &OwnedFd); 2] {
        [("upperdir", &self.directory), ("workdir", &self.work)]
    }
}

/// A tmpfs of so many bytes, detached.
fn in_memory(bytes: u64, label: Option<&str>, subject: &str) -> Result<OwnedFd, MountError> {
    let context = Context::open("tmpfs", subject)?;
    context.string("source", "composefs-upper")?;
    context.string("size", &bytes.to_string())?;
    context.string("nr_inodes", &inodes(bytes).to_string())?;
    context.string("mode", "0700")?;
    mount(context, label)
}

/// An ext4 in which so many bytes can be written, detached. Its file lies beside the base mounts and has no name; all its room is
/// taken at once, so that a disk that fills up is no matter of a pod that runs.
fn on_disk(
    bytes: u64,
    bases: &BaseMounts,
    label: Option<&str>,
    subject: &str,
) -> Result<OwnedFd, MountError> {
    let failed = |step: &'static str| move |errno| MountError::kernel(step, subject, errno);
    let empty =
        EmptyExt4::for_bytes(bytes).ok_or_else(|| MountError::no_room(bytes, subject, Errno::FBIG))?;
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::openat(bases.directory(), ".", flags, Mode::RUSR | Mode::WUSR)
        .map_err(failed("making a file for the upper"))?;
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, empty.size())
        .map_err(|errno| MountError::no_room(bytes, subject, errno))?;
    let file = File::from(file);
    let write = |(at, data): (u64, Vec<u8>)| file.write_all_at(&data, at);
    let written = random().and_then(|uuid| empty.writes(uuid).try_for_each(write));
    written.map_err(|error| {
        failed("writing an empty ext4")(Errno::from_io_error(&error).unwrap_or(Errno::IO))
    })?;
    let device = loop_device::attach_writable(file.as_fd(), "composefs-upper", bases.directory()).map_err(
        |errno| match errno {
            Errno::NOENT => MountError::no_loop_devices(subject, errno),
            errno => MountError::kernel("attaching a loop device", subject, errno),
        },
    )?;
    let context = Context::open("ext4", subject)?;
    context.string("source", &proc_path(device.as_fd()))?;
    // Nothing of it is wanted after a crash.
    context.flag("nobarrier")?;
    mount(context, label)
}

fn mount(context: Context<'_>, label: Option<&str>) -> Result<OwnedFd, MountError> {
    if let Some(label) = label {
        context.string("context", label)?;
    }
    context.mount_with(GUARDED)
}

fn random() -> io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    openssl::rand::rand_bytes(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

/// Inodes of an upper of so many bytes.
fn inodes(bytes: u64) -> u64 {
    (bytes / BYTES_PER_INODE).clamp(LEAST_INODES, MOST_INODES)
}

/// Gives `upper` what `image` has: overlayfs shows the root of the upper where it shows the root.
fn begin_as(upper: &OwnedFd, image: &OwnedFd) -> Result<(), Errno> {
    // Neither extended attributes nor modes can be changed through a descriptor of a path alone.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |directory: &OwnedFd| rustix::fs::openat(directory, ".", flags, Mode::empty());
    let (upper, image) = (open(upper)?, open(image)?);
    let stat = rustix::fs::fstat(&image)?;
    for name in user_attributes(&image)? {
        let mut value = vec![0; LONGEST];
        let length = rustix::fs::fgetxattr(&image, &*name, &mut value)?;
        let value = value.get(..length).unwrap_or_default();
        rustix::fs::fsetxattr(&upper, &*name, value, XattrFlags::empty())?;
    }
    rustix::fs::fchown(&upper, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    rustix::fs::fchmod(&upper, Mode::from_raw_mode(stat.st_mode))?;
    let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec.try_into().unwrap_or(0) };
    rustix::fs::futimens(&upper, &Timestamps { last_access: time, last_modification: time })
}

/// The names of a directory's attributes that are users': all others are overlayfs's, or given by the kernel.
fn user_attributes(directory: &OwnedFd) -> Result<Vec<CString>, Errno> {
    let mut names = vec![0; LONGEST];
    let length = match rustix::fs::flistxattr(directory, &mut names) {
        Err(Errno::OPNOTSUPP) => 0,
        other => other?,
    };
    let names = names.get(..length).unwrap_or_default().split(|byte| *byte == 0);
    Ok(names.filter(|name| name.starts_with(b"user.")).filter_map(|name| CString::new(name).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_inodes_as_pages_within_bounds() {
        for (bytes, expected) in [(1 << 20, 1024), (64 << 20, 16_384), (1 << 40, 1 << 20)] {
            assert_eq!(inodes(bytes), expected);
        }
    }
}
