//! Why an image file cannot be mounted.

use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::super::MountError;
use crate::image::composefs::HeaderFault;
use crate::image::verity::VerityDigest;
use crate::kind::Kind;

/// Why an image file cannot be mounted.
#[derive(Debug, thiserror::Error)]
pub enum ImageFileError {
    /// The name is none.
    #[error(
        "{text:?} {problem}; write composefs:FILE@DIGEST, with the digest that `composefs-info measure-file FILE` prints and \
         somebody you trust has said"
    )]
    Name {
        /// As given.
        text: String,
        /// What is wrong, a predicate.
        problem: &'static str,
    },
    /// The file cannot be opened.
    #[error("image file {} cannot be opened: {errno}; check its path", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A directory or a device.
    #[error("image file {} is not a regular file; name one that a composefs tool has written", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("image file {} cannot be read: {errno}; it or the disk is damaged", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// No directory of objects was named.
    #[error(
        "no directory with the files of the image is named; give --object-source DIR, as mkcomposefs --digest-store"
    )]
    NoObjects,
    /// A directory of objects cannot be opened.
    #[error("object source {} cannot be opened: {errno}; name a directory with objects at xx/…", path.display())]
    Objects {
        /// The directory.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The kernel cannot hold the file to its digest.
    #[error(
        "image file {} has no fs-verity ({errno}), so that nothing holds it to its digest once it is mounted; enable it \
         (`fsverity enable`), on ext4 with `-O verity`, btrfs or f2fs, or say --noverity to have it hashed now and \
         not again", path.display()
    )]
    NotSealed {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The file is not the one that is wanted.
    #[error(
        "image file {} has the fs-verity digest {measured}, not {wanted}: it is another image, or was changed; nothing is mounted",
        path.display()
    )]
    WrongDigest {
        /// The file.
        path: PathBuf,
        /// As named.
        wanted: VerityDigest,
        /// As it is.
        measured: VerityDigest,
    },
    /// The file has its digest, and is not what composefs tools write.
    #[error("image file {} is no composefs image: {fault}; make it with mkcomposefs or cfsctl", path.display())]
    NotAnImage {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: HeaderFault,
    },
    /// Its objects cannot be listed.
    #[error("the files of image file {} cannot be listed: {why}; leave --verify mount out, or make it anew", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The reader's words.
        why: String,
    },
    /// Its objects are not listed.
    #[error(
        "image file {} has {size} bytes, and at most {most} are read to list its files; leave --verify mount out",
        path.display()
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        size: u64,
        /// The limit.
        most: u64,
    },
    /// A file of the image is not what its digest says.
    #[error("{} {problem}; restore it, or name another --object-source first; nothing is mounted", path.display())]
    BadObject {
        /// Where it is, or would be.
        path: PathBuf,
        /// What is wrong, a predicate.
        problem: String,
    },
    /// The kernel's EROFS refuses the file.
    #[error(
        "image file {} is not one that this kernel's EROFS accepts ({errno}; the kernel log may say more): it is damaged, or \
         was made otherwise; make it anew", path.display()
    )]
    Refused {
        /// The file.
        path: PathBuf,
        /// The kernel's error.
        errno: Errno,
    },
    /// No method of mounting works.
    #[error(
        "this kernel does not mount the image file: {}; it needs Linux 6.6 or later with EROFS and overlayfs, and, before \
         6.12, loop devices", tried.join("; ")
    )]
    NoMethod {
        /// Each method, and why it failed.
        tried: Vec<String>,
    },
    /// The target, or the mount itself.
    #[error(transparent)]
    Mount(#[from] MountError),
}

impl ImageFileError {
    pub(super) fn open(path: &Path, errno: Errno) -> Self {
        Self::Open { path: path.to_owned(), errno }
    }

    pub(super) fn read(path: &Path, error: &std::io::Error) -> Self {
        Self::Read { path: path.to_owned(), errno: Errno::from_io_error(error).unwrap_or(Errno::IO) }
    }

    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Open { errno: Errno::NOENT, .. } | Self::Objects { errno: Errno::NOENT, .. } => {
                Kind::NotFound
            }
            Self::Open { errno: Errno::ACCESS | Errno::PERM, .. } => Kind::Denied,
            Self::Name { .. }
            | Self::NotAFile { .. }
            | Self::NoObjects
            | Self::Open { .. }
            | Self::Objects { .. }
            | Self::TooLarge { .. }
            | Self::NotAnImage { .. } => Kind::Invalid,
            Self::Refused { .. }
            | Self::Read { .. }
            | Self::WrongDigest { .. }
            | Self::Unreadable { .. }
            | Self::BadObject { .. } => Kind::Corrupt,
            Self::NotSealed { .. } | Self::NoMethod { .. } => Kind::Unsupported,
            Self::Mount(error) => error.kind(),
        }
    }
}
