//! Mounting images once and cloning them per publish.
//!
//! One superblock pair per image; every publish is a clone of it, with the caller's flags and
//! sub-directory. An overlay made here carries the source `composefs:<image digest>`, so that the
//! mount table alone tells which image stands where, after any crash.

use std::path::{Path, PathBuf};

use crate::image::verity::VerityDigest;

/// What is to be mounted on a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountSpec {
    /// The composefs image, an object in the store.
    pub image: VerityDigest,
    /// Sub-directory of the image to publish, relative, no `.` or `..`; empty for the root.
    pub path: PathBuf,
    /// Refuse to execute programs from this mount.
    pub noexec: bool,
}

/// Makes and removes mounts. Blocking: callers run a whole sequence in one `spawn_blocking`.
pub trait Mounter: Send + Sync + std::fmt::Debug {
    /// Mounts `spec` on `target`, an existing empty directory. All or nothing.
    fn mount(&self, spec: &MountSpec, target: &Path) -> Result<(), MountError>;

    /// What of ours is mounted on `target` now (the topmost mount), if anything.
    fn mounted(&self, target: &Path) -> Result<Option<MountSpec>, MountError>;

    /// Removes every mount of ours stacked on `target`; nothing there is fine. Refuses to touch
    /// a foreign mount. The directory stays.
    fn unmount(&self, target: &Path) -> Result<(), MountError>;

    /// Drops the private mount of `image` unless a published clone of it remains.
    fn release(&self, image: &VerityDigest) -> Result<(), MountError>;
}

/// Why a mount could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The sub-directory is not in the image.
    #[error("path {path:?} does not exist in image {image}; check the volume attribute `path`")]
    NoSuchPath {
        /// The attribute's value.
        path: PathBuf,
        /// The image looked into.
        image: VerityDigest,
    },
}

impl MountError {
    /// What sort of failure this is.
    pub fn kind(&self) -> crate::kind::Kind {
        match self {
            Self::NoSuchPath { .. } => crate::kind::Kind::NotFound,
        }
    }
}
