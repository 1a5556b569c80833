//! Taking an object from another store of this machine instead of writing it.
//!
//! 1. A further name of the same file (a hard link). It is one inode: disk and page cache are shared with the host, and stay
//!    when the host removes its own name. Ours goes with a collection, and takes nothing from the host.
//! 2. Where that cannot be, a file of our own that shares its blocks (FICLONE: btrfs), with fs-verity of its own.
//! 3. Else `None`: the caller writes it.
//!
//! What a link shares with the host is the inode: owner, mode, times, attributes. None of these reaches a volume, whose
//! metadata is the image's; overlayfs reads the object with the rights of this program. One does reach the kernel's checks:
//! the SELinux label of an object (`node::mount::relabel`), so a file is only linked if it has the label that ours have.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::directory::{Objects, name};
use super::error::ObjectError;
use super::publish::Put;
use super::sources::Source;
use crate::image::verity::VerityDigest;
use crate::sys::file_handle::open_through;

const LABEL: &str = "security.selinux";

impl Objects {
    /// Makes the object of what another store of this machine has, if one has it. `None`: it is to be written.
    pub(super) fn adopt(&self, digest: &VerityDigest, size: u64) -> Result<Option<Put>, ObjectError> {
        // Without fs-verity here, a name would be believed of a file that others may change.
        if !self.seals() {
            return Ok(None);
        }
        let name = name(digest);
        for source in self.inner.sources.of_use() {
            let Some(file) = source.find(&name, digest, size) else { continue };
            if let Some(put) = self.link_foreign((source, &file), &name, digest, size)? {
                return Ok(Some(put));
            }
            if let Some(put) = self.share_blocks((source, &file), digest, size)? {
                return Ok(Some(put));
            }
        }
        Ok(None)
    }

    /// Gives the file a name here; `None` if the kernel does not do that between these two places.
    fn link_foreign(
        &self,
        (source, file): (&Source, &File),
        name: &str,
        digest: &VerityDigest,
        size: u64,
    ) -> Result<Option<Put>, ObjectError> {
        if !source.links() {
            return Ok(None);
        }
        let linkable = match self.through_own_mount(file) {
            Ok(linkable) => linkable,
            Err(errno) => {
                source.links_not(errno);
                return Ok(None);
            }
        };
        if label(&linkable) != label(&self.inner.dir) {
            source.is_labelled_otherwise();
            return Ok(None);
        }
        if !source.is_sound(file, name) {
            return Ok(None);
        }
        match self.link(&linkable, name) {
            Ok(()) => Ok(Some(Put::Present)),
            // Another writer was faster, or the file of that name is damaged.
            Err(Errno::EXIST) if self.is_intact(digest, size)? => Ok(Some(Put::Present)),
            Err(Errno::EXIST) => self.replace(&linkable, digest).map(|()| Some(Put::Present)),
            // Of this file only: it is immutable, or has too many names.
            Err(Errno::PERM | Errno::MLINK) => Ok(None),
            // Another subvolume or quota project.
            Err(errno) => {
                source.links_not(errno);
                Ok(None)
            }
        }
    }

    /// The same file through the mount of our objects: in a container, the source is another mount.
    fn through_own_mount(&self, file: &File) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let ours = rustix::fs::openat(&self.inner.dir, ".", flags, Mode::empty())?;
        let (here, there) = (rustix::fs::fstat(&ours)?, rustix::fs::fstat(file)?);
        if here.st_dev != there.st_dev {
            return Err(Errno::XDEV);
        }
        let again = open_through(&ours, file)?;
        let found = rustix::fs::fstat(&again)?;
        if (found.st_dev, found.st_ino) == (there.st_dev, there.st_ino) {
            Ok(again)
        } else {
            Err(Errno::STALE)
        }
    }

    /// Makes a file of our own that has the blocks of this one; `None` if the filesystem does not share blocks.
    fn share_blocks(
        &self,
        (source, file): (&Source, &File),
        digest: &VerityDigest,
        size: u64,
    ) -> Result<Option<Put>, ObjectError> {
        if !source.shares() {
            return Ok(None);
        }
        let own = self.unnamed()?;
        if let Err(errno) = rustix::fs::ioctl_ficlone(&own, file) {
            source.shares_not(errno);
            return Ok(None);
        }
        // fs-verity is enabled anew, by which the kernel reads all of it, and measured.
        match self.publish(own, digest, size) {
            Ok(_) => Ok(Some(Put::Present)),
            Err(error) if error.is_unwritable() => Err(error),
            Err(error) => {
                tracing::warn!(object = %digest, %error, "the blocks of an object of another store are no good; it is written");
                Ok(None)
            }
        }
    }
}

/// The SELinux label of an open file; empty without one.
fn label(file: impl AsFd) -> Vec<u8> {
    // By path: O_PATH descriptors have no attributes of their own.
    let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    let mut value = vec![0; 1024];
    let length = rustix::fs::getxattr(&path, LABEL, &mut value).unwrap_or(0);
    value.truncate(length);
    value
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::image::objects::{ObjectSources, Room, Sealing};

    #[test]
    fn without_fs_verity_nothing_is_taken() {
        let (source, store) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let content = vec![5; 5000];
        let digest = VerityDigest::of(&content);
        for directory in [source.path(), store.path()] {
            Objects::create(directory).unwrap();
        }
        let there = Objects::open(source.path(), false).unwrap();
        there.put(&content).unwrap();
        let sources = ObjectSources::open(&[source.path().to_owned(), source.path().join("none")]);
        let source = sources.of_use().next().unwrap();
        assert!(source.find(&name(&digest), &digest, 5000).is_none(), "the kernel has not measured it");
        let objects = Objects::open_with(store.path(), Sealing::Off, Room::unlimited(), sources).unwrap();
        assert_eq!(objects.put(&content).unwrap(), (digest, Put::Written));
        let inode = |objects: &Objects| std::fs::metadata(objects.path(&digest)).unwrap().ino();
        assert_ne!(inode(&there), inode(&objects));
    }
}
