//! Mounting images once and cloning them per publish.
//!
//! One superblock pair per image; every publish is a clone of it, with the caller's flags and
//! sub-directory. An overlay made here carries the source `composefs:<image digest>@<store>`, so that the
//! mount table alone tells which image stands where, after any crash: this module keeps no state of
//! its own on disk.
//!
//! ```text
//! <state>/mounts/               a mount of its own, unbindable: what hangs below reaches no other namespace
//! <state>/mounts/<64 hex>       the base mount of an image: EROFS below an overlay, read-only
//! <state>/mounts/<64 hex>.lower the EROFS mount alone, for a moment, on kernels before 6.15
//! ```
//!
//! All work on one image's base mount is done under an exclusive flock on the image's object, which holds
//! between threads and between processes (the plugin and an operator's command), and ends with them.

mod base;
mod capabilities;
mod check;
mod context;
mod error;
pub mod fake;
mod kernel;
mod mountinfo;
mod object;
mod probe;
mod publish;
mod relabel;
mod selinux;
mod superblock;
mod table;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub use capabilities::{Capabilities, Verity};
pub use error::MountError;
pub use kernel::KernelMounter;
pub use selinux::{BadContext, Labelling, SelinuxContext};
pub use superblock::{Backing, Layers};
pub use table::mounted_images;

use crate::image::verity::VerityDigest;
use crate::integrity::Integrity;

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
    /// Mounts `spec` on `target`, an existing directory on which nothing is mounted yet: read-only,
    /// nosuid, nodev. All or nothing.
    ///
    /// `spec.path` is resolved inside the image: a symbolic link, absolute or with `..`, stays below the
    /// image's root.
    fn mount(&self, spec: &MountSpec, target: &Path) -> Result<(), MountError> {
        self.mount_at_least(spec, Integrity::Fetch, target).map(drop)
    }

    /// The same, of a base mount that reaches the integrity level `least`: one that does not is made anew, after image
    /// and objects were checked, which takes as long as reading them. Returns the level reached.
    ///
    /// # Errors
    /// Besides those of mounting: [`MountError::Unreachable`] for `read` where the kernel does not check reads, and
    /// [`MountError::WrongDigest`] and [`MountError::BadObject`] where the check fails.
    fn mount_at_least(
        &self,
        spec: &MountSpec,
        least: Integrity,
        target: &Path,
    ) -> Result<Integrity, MountError>;

    /// The integrity level of the image's private mount as far as this process knows: after a restart, what every
    /// mount reaches here.
    fn level(&self, image: &VerityDigest) -> Integrity;

    /// What of ours is mounted on `target` now (the topmost mount); `None` where nothing is, or where
    /// `target` does not exist. A foreign mount is [`MountError::Foreign`].
    ///
    /// `path` is as the kernel knows it, with symbolic links resolved: for a spec whose path leads through
    /// a link it differs from what was asked for. Compare image and flags, and take the path from the
    /// volume's record.
    fn mounted(&self, target: &Path) -> Result<Option<MountSpec>, MountError>;

    /// Removes every mount of ours stacked on `target`; nothing there is fine. Refuses to touch
    /// a foreign mount. The directory stays.
    fn unmount(&self, target: &Path) -> Result<(), MountError>;

    /// Drops the private mount of `image` unless a published clone of it remains.
    fn release(&self, image: &VerityDigest) -> Result<(), MountError>;

    /// Every image that is mounted anywhere in this mount namespace, privately or published: the garbage
    /// collector must not remove what these need.
    fn mounted_images(&self) -> Result<BTreeSet<VerityDigest>, MountError>;
}
