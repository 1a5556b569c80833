//! Mounts each image once and clones that mount for every publish.
//!
//! An image has one pair of superblocks. Every publish is a clone of its mount, with the caller's flags and
//! sub-directory. An overlay made here has the source `composefs:<image digest>@<store>`, so that after any crash the
//! mount table alone shows which image is mounted where. This module keeps no state of its own on disk.
//!
//! ```text
//! <state>/mounts/               a mount of its own, unbindable: mounts below it reach no other namespace
//! <state>/mounts/<64 hex>       the base mount of an image: EROFS below an overlay, read-only
//! <state>/mounts/<64 hex>.lower the EROFS mount alone, for a moment, on kernels before 6.15
//! <state>/mounts/<64 hex>.mapped, .top  what a pod with a user namespace, or with a volume that follows a tag, gets, while
//!                               it is put together
//! <state>/mounts/<64 hex>.file  an image file that is in no store (`image_file`), likewise
//! <state>/mounts/<64 hex>.upper, .writable  what a pod gets that may write, likewise
//! ```
//!
//! All work on an image's base mount is done under an exclusive flock on the image's object. The lock works between
//! threads and between processes (the plugin and an operator's command), and is released when they end.

mod base;
mod capabilities;
mod check;
mod context;
mod error;
pub mod fake;
mod follow;
mod id_map;
mod image_file;
mod kernel;
mod mountinfo;
mod object;
mod probe;
mod propagation;
mod publish;
mod read_ahead;
mod relabel;
mod selinux;
mod stat_ahead;
mod store_mount;
mod superblock;
mod table;
mod top;
mod upper;
mod users;

use std::path::{Path, PathBuf};

pub use capabilities::{Capabilities, Verity};
pub use error::MountError;
pub use follow::CURRENT;
pub use image_file::{
    ImageFileError, ImageFileMount, ImageFileName, image_file_on, mount_image_file, unmount_image_file,
};
pub use kernel::{KernelMounter, unmount};
pub use propagation::{NotShared, reaches_kubelet};
pub use selinux::{BadContext, Labelling, SelinuxContext};
pub use superblock::{Backing, Layers};
pub use table::mounted_images;

use crate::image::store::Mounted;
use crate::image::verity::VerityDigest;
use crate::integrity::Integrity;
pub use crate::sys::user_namespace::IdRange;

/// What to mount on a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountSpec {
    /// The composefs image, an object in the store.
    pub image: VerityDigest,
    /// Sub-directory of the image to publish, relative, no `.` or `..`; empty for the root.
    pub path: PathBuf,
    /// Mount `noexec`.
    pub noexec: bool,
    /// What may be written to it by whoever has this one mount; `None`: read-only.
    pub upper: Option<UpperSpec>,
}

/// What may be written to a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpperSpec {
    /// How many bytes.
    pub bytes: u64,
    /// Whether they lie on the disk of the state directory, or in memory.
    pub on_disk: bool,
}

/// What a mount that can be written to holds besides the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes that may be written in all.
    pub bytes: u64,
    /// Bytes of these that are free.
    pub free_bytes: u64,
    /// Files, directories and links that may be made or changed in all.
    pub inodes: u64,
    /// Of these, how many more.
    pub free_inodes: u64,
}

/// Makes and removes mounts. Blocking: callers run a whole sequence in one `spawn_blocking`.
pub trait Mounter: Send + Sync + std::fmt::Debug {
    /// Mounts `spec` on `target`, an existing directory on which nothing is mounted yet: nosuid, nodev and, unless it has
    /// an upper, read-only. All or nothing. An upper is empty and new, whatever is mounted elsewhere.
    ///
    /// `spec.path` is resolved inside the image: a symbolic link, absolute or with `..`, stays below the
    /// image's root.
    fn mount(&self, spec: &MountSpec, target: &Path) -> Result<(), MountError> {
        self.mount_at_least(spec, Integrity::Fetch, target).map(drop)
    }

    /// As [`Mounter::mount`], from a base mount that reaches the integrity level `least`. A base mount that does not is
    /// replaced, after a check of the image and its objects that reads them in full. Returns the level reached.
    ///
    /// # Errors
    /// Besides those of mounting: [`MountError::Unreachable`] for `read` if the kernel does not check reads, and
    /// [`MountError::WrongDigest`] and [`MountError::BadObject`] if the check fails.
    fn mount_at_least(
        &self,
        spec: &MountSpec,
        least: Integrity,
        target: &Path,
    ) -> Result<Integrity, MountError>;

    /// The integrity level of the image's base mount as far as this process knows. After a restart, that is the level
    /// that every mount reaches.
    fn level(&self, image: &VerityDigest) -> Integrity;

    /// The image mount on `target` (the topmost mount); `None` if nothing is mounted or `target` does not exist. A
    /// foreign mount is [`MountError::Foreign`].
    ///
    /// The kernel reports `path` with symbolic links resolved, so it may differ from the requested path. Compare the
    /// image and the flags, and take the path from the volume's record.
    fn mounted(&self, target: &Path) -> Result<Option<MountSpec>, MountError>;

    /// How full the upper of the mount on `target` is; `None` if nothing with an upper is mounted there.
    fn usage(&self, target: &Path) -> Result<Option<Usage>, MountError>;

    /// Lets a pod with these users have the image mount on `target`, at the integrity level `least`: covers it with one that
    /// a container runtime can idmap, in which `spec` is seen with the owners that the pod should see. Returns whether there
    /// was anything to do.
    ///
    /// # Errors
    /// As [`Mounter::mount_at_least`]; also if `target` does not show the image. It then shows what it did before.
    fn map(
        &self,
        spec: &MountSpec,
        least: Integrity,
        users: IdRange,
        target: &Path,
    ) -> Result<bool, MountError>;

    /// Shows `spec` in the directory [`CURRENT`] of `target`, in place of what is shown there, in one step and wherever
    /// the mount on `target` has been passed on to. `target` shows something in this way already, or has no mount yet.
    /// Returns the level reached.
    ///
    /// # Errors
    /// As [`Mounter::mount_at_least`]. The target then shows what it did before.
    fn show_current(
        &self,
        spec: &MountSpec,
        least: Integrity,
        target: &Path,
    ) -> Result<Integrity, MountError>;

    /// Whether a mount of `image` exists anywhere, in whatever mount namespace, or detached with files in use. Unknown is yes.
    fn in_use(&self, image: &VerityDigest) -> bool;

    /// Removes every image mount stacked on `target`. Succeeds if there is none. Refuses to remove a foreign mount. The
    /// directory stays.
    fn unmount(&self, target: &Path) -> Result<(), MountError>;

    /// Drops the base mount of `image` unless a published clone of it remains.
    fn release(&self, image: &VerityDigest) -> Result<(), MountError>;

    /// Every image with a base mount or a published mount in this mount namespace, by whether it was mounted from this
    /// store. The garbage collector must keep the objects of these.
    fn mounted_images(&self) -> Result<Mounted, MountError>;
}
