//! Why the object store could not do something.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::room::Shortage;
use crate::image::verity::VerityDigest;
use crate::kind::Kind;

/// Why an object could not be stored or found.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The filesystem has no space, no inodes or no quota left.
    #[error(
        "the store's filesystem is full ({step} of {}: {errno}); remove images, or give the store more space",
        path.display()
    )]
    Full {
        /// The object or directory that was being written.
        path: PathBuf,
        /// The system call.
        step: &'static str,
        /// `ENOSPC` or `EDQUOT`.
        errno: Errno,
    },
    /// The filesystem has less left than pulls are to leave.
    #[error(transparent)]
    Reserved(#[from] Shortage),
    /// The object is not in the store.
    #[error("object {} is missing; pull the image again", .0.display())]
    Missing(PathBuf),
    /// The kernel computed another fs-verity digest than we did while writing the file.
    #[error(
        "object {} has the wrong fs-verity digest {found}; memory or disk of this node corrupts data: check both",
        path.display()
    )]
    Mismatch {
        /// The object that was being stored.
        path: PathBuf,
        /// What the kernel measured.
        found: VerityDigest,
    },
    /// The filesystem lacks a feature that the store needs.
    #[error(
        "{} lies on a filesystem without {feature} ({errno}); put the store on ext4, btrfs or xfs",
        path.display()
    )]
    Unsupported {
        /// The directory.
        path: PathBuf,
        /// The missing feature.
        feature: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
    /// Any other failure of a system call.
    #[error("{step} of {}: {errno}; see the kernel log for the disk's state", path.display())]
    Io {
        /// The object or directory.
        path: PathBuf,
        /// The system call.
        step: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
}

impl ObjectError {
    pub(super) fn new(errno: Errno, step: &'static str, path: &Path) -> Self {
        let path = path.to_path_buf();
        match errno {
            // A quota is a full filesystem for this process.
            Errno::NOSPC | Errno::DQUOT => Self::Full { path, step, errno },
            Errno::OPNOTSUPP | Errno::ISDIR if step == "open(O_TMPFILE)" => {
                Self::Unsupported { path, feature: "O_TMPFILE", errno }
            }
            _ => Self::Io { path, step, errno },
        }
    }

    pub(in crate::image) fn from_io(error: io::Error, step: &'static str, path: &Path) -> Self {
        Self::new(Errno::from_io_error(&error).unwrap_or(Errno::IO), step, path)
    }

    /// Whether nothing can be written at present: there is no room, or the filesystem is read-only.
    pub(in crate::image) fn is_unwritable(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Io { errno: Errno::ROFS, .. })
    }

    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Full { .. } | Self::Reserved(_) => Kind::Exhausted,
            Self::Missing(_) => Kind::NotFound,
            Self::Mismatch { .. } => Kind::Corrupt,
            Self::Unsupported { .. } => Kind::Unsupported,
            Self::Io { .. } => Kind::Transient,
        }
    }
}
