//! The upper of a volume that its pod can write to: a tmpfs of its own, of which the overlay takes two directories.
//!
//! * The filesystem is attached nowhere once the overlay has it. A pod reaches it through the overlay only, and so never the
//!   names by which overlayfs says where files come from (`trusted.overlay.*`).
//! * Its limits are exact, count for root too, and end with the mount: nothing is left to be removed, whatever is killed.
//! * Bytes and inodes are charged to the memory cgroup of who writes them, as those of a tmpfs that kubelet makes.

use std::ffi::CString;
use std::os::fd::OwnedFd;

use rustix::fs::{Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::MountError;
use super::base::PATH_DIRECTORY;
use super::context::Context;
use super::store_mount::GUARDED;

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
}

impl Upper {
    /// An upper of so many bytes, detached. What is written over `image`, the root of the image's EROFS mount, begins with the
    /// owner, mode, times and attributes of that directory. `label` is the SELinux label of all its files.
    pub(super) fn new(
        bytes: u64,
        image: &OwnedFd,
        label: Option<&str>,
        subject: &str,
    ) -> Result<Self, MountError> {
        let failed = |step: &'static str| move |errno| MountError::kernel(step, subject, errno);
        let context = Context::open("tmpfs", subject)?;
        context.string("source", "composefs-upper")?;
        context.string("size", &bytes.to_string())?;
        context.string("nr_inodes", &inodes(bytes).to_string())?;
        context.string("mode", "0700")?;
        if let Some(label) = label {
            context.string("context", label)?;
        }
        let filesystem = context.mount_with(GUARDED)?;
        let make = |name: &str| -> Result<OwnedFd, Errno> {
            rustix::fs::mkdirat(&filesystem, name, Mode::RWXU)?;
            rustix::fs::openat(&filesystem, name, PATH_DIRECTORY, Mode::empty())
        };
        let directory = make("upper").map_err(failed("making the upper"))?;
        let work = make("work").map_err(failed("making the upper"))?;
        begin_as(&directory, image).map_err(failed("making the root of the upper as the image's"))?;
        Ok(Self { filesystem, directory, work })
    }

    /// The root of the filesystem, to be attached where the kernel asks for that.
    pub(super) fn filesystem(&self) -> &OwnedFd {
        &self.filesystem
    }

    /// What the overlay writes to, and where it prepares that.
    pub(super) fn directories(&self) -> [(&'static str, &OwnedFd); 2] {
        [("upperdir", &self.directory), ("workdir", &self.work)]
    }
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
