//! An image's object in the store: opened, locked, and measured before use.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::MountError;
use crate::image::verity::VerityDigest;
use crate::sys::verity::measure_verity;

/// An image's object, open for reading. Its owner holds the image's lock (an exclusive flock), which every change of
/// the image's base mount needs. The lock ends with the descriptor, also at a crash.
#[derive(Debug)]
pub(super) struct ImageFile {
    file: OwnedFd,
    digest: VerityDigest,
    has_acl: bool,
}

/// The path of an object below the directory of objects.
pub(super) fn object_name(digest: &VerityDigest) -> String {
    let hex = digest.hex();
    let (directory, rest) = hex.split_at(2);
    format!("{directory}/{rest}")
}

impl ImageFile {
    /// Opens and locks `image`; waits for another holder of the lock.
    pub(super) fn lock(objects: impl AsFd, image: &VerityDigest) -> Result<Self, MountError> {
        Self::open(objects, image, FlockOperation::LockExclusive)
    }

    /// Opens and locks `image`; `EWOULDBLOCK` if the lock is held.
    pub(super) fn try_lock(objects: impl AsFd, image: &VerityDigest) -> Result<Self, MountError> {
        Self::open(objects, image, FlockOperation::NonBlockingLockExclusive)
    }

    fn open(objects: impl AsFd, image: &VerityDigest, how: FlockOperation) -> Result<Self, MountError> {
        let digest = *image;
        let failed = |step: &str, errno| MountError::kernel(step, format!("image {digest}"), errno);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(objects, object_name(image), flags, Mode::empty()) {
            Err(Errno::NOENT) => return Err(MountError::NoSuchImage { image: digest }),
            other => other.map_err(|errno| failed("open", errno))?,
        };
        loop {
            match rustix::fs::flock(&file, how) {
                // Interrupted by a signal.
                Err(Errno::INTR) => {}
                other => break other.map_err(|errno| failed("flock", errno))?,
            }
        }
        let has_acl = has_acl(&file).map_err(|errno| failed("read", errno))?;
        Ok(Self { file, digest, has_acl })
    }

    /// An image file that is in no store, and that the caller has found to have this digest.
    pub(super) fn of(file: OwnedFd, digest: &VerityDigest) -> Result<Self, Errno> {
        let has_acl = has_acl(&file)?;
        Ok(Self { file, digest: *digest, has_acl })
    }

    /// Compares the file's fs-verity digest with the image's name. The kernel enforces that digest at every read.
    pub(super) fn measure(&self) -> Result<(), MountError> {
        let image = self.digest;
        match measure_verity(&self.file) {
            Ok(found) if found == image.0 => Ok(()),
            Ok(found) => Err(MountError::WrongDigest { image, measured: VerityDigest(found) }),
            // EOPNOTSUPP and ENOTTY: the store was moved to a filesystem without fs-verity.
            Err(Errno::NODATA | Errno::OVERFLOW | Errno::OPNOTSUPP | Errno::NOTTY) => {
                Err(MountError::NotSealed { image })
            }
            Err(errno) => Err(MountError::kernel("FS_IOC_MEASURE_VERITY", format!("image {image}"), errno)),
        }
    }

    /// Reads the whole image by the descriptor that will be mounted.
    pub(super) fn read(&self) -> Result<Vec<u8>, MountError> {
        let failed = |errno| MountError::kernel("reading the image", format!("image {}", self.digest), errno);
        let size = rustix::fs::fstat(&self.file).map_err(failed)?.st_size;
        let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
        let mut filled = 0;
        while filled < bytes.len() {
            match rustix::io::pread(&self.file, &mut bytes[filled..], filled as u64) {
                // Truncated meanwhile; the caller's digest check will fail.
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    pub(super) fn digest(&self) -> VerityDigest {
        self.digest
    }

    /// Whether any file of the image has a POSIX ACL.
    pub(super) fn has_acl(&self) -> bool {
        self.has_acl
    }
}

impl AsFd for ImageFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Bit 0 of the flags in the composefs header (magic, version, flags: three little-endian words). Without such a header
/// the answer is yes, which is safe: ACLs stay on, and EROFS rejects a bad file.
fn has_acl(file: &OwnedFd) -> Result<bool, Errno> {
    let mut header = [0; 12];
    let length = rustix::io::pread(file, &mut header, 0)?;
    let is_composefs = length == header.len() && header.starts_with(&0xd078_629a_u32.to_le_bytes());
    Ok(!is_composefs || header.get(8).is_some_and(|flags| flags & 1 != 0))
}
