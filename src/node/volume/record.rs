//! One file per volume that is in use on this node: `<store>/volumes/<sha256 of the id>.json`.
//!
//! A record is written before the mount that it describes (an intent) and removed after the last unmount, so that
//! every mount has its record at any time. Records must survive a killed process, but not a power cut, which
//! removes the mounts as well: they are renamed into place without fsync and carry the boot id.
//! `<store>/volumes/boot` holds the boot id of the last recovery. It distinguishes a record that a power cut has
//! torn from a corrupt one.
//!
//! The store's garbage collection reads `image` and keeps that image; it writes nothing here.

mod directory;
mod error;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use directory::Records;
pub use error::RecordError;

use crate::image::verity::VerityDigest;
use crate::integrity::Integrity;
use crate::node::mount::UpperSpec;
use crate::oci::choice::Choice;
use crate::oci::digest::Digest;
use crate::volume::access::AccessMode;
use crate::volume::id::VolumeId;

/// The format that this version reads and writes.
const FORMAT: u32 = 1;

/// A volume on this node: its image, and where it is in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRecord {
    format: u32,
    /// The volume's id.
    pub volume_id: String,
    /// The image's key in the store: digest of the manifest, or of a choice of it. Garbage collection keeps this image.
    pub image: Digest,
    /// Digest of the manifest, where the image is a choice of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Digest>,
    /// The composefs image that is mounted.
    pub composefs: VerityDigest,
    /// Bytes of the image's files.
    pub bytes: u64,
    /// Inodes of the image.
    pub inodes: u64,
    /// The images that it is made of, if there are several. Garbage collection keeps them, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<PinnedMember>,
    /// The images that it has shown before, where it follows a tag, and that somebody may still have open. Garbage collection
    /// keeps them, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<EarlierImage>,
    /// The request for which the image was resolved.
    pub request: Requested,
    /// The boot during which the image was resolved.
    pub boot: String,
    /// Where the volume is staged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staged: Option<PathBuf>,
    /// Where the volume is, or is about to be, published.
    pub targets: Vec<PublishedTarget>,
}

/// The part of a volume's attributes that determines its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requested {
    /// The image as the user wrote it, or the list of several.
    pub image: String,
    /// The sub-directory, empty for the root.
    pub path: PathBuf,
    /// The platform, if the volume names one.
    pub platform: Option<String>,
    /// What of the image.
    #[serde(default, skip_serializing_if = "Choice::is_all")]
    pub choice: Choice,
    /// Bytes that the pod may write, if it may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upper: Option<u64>,
    /// Whether these lie on disk, and not in memory.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub upper_on_disk: bool,
    /// Whether it shows another image when the tag names another.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub follow: bool,
}

impl Requested {
    /// What the pod may write.
    pub(super) fn upper(&self) -> Option<UpperSpec> {
        self.upper.map(|bytes| UpperSpec { bytes, on_disk: self.upper_on_disk })
    }

    /// The integrity level that the volume has, where that of its image has this one: what a pod has changed is checked by
    /// nobody, so that a writable volume never has `read`.
    pub(super) fn level(&self, of_image: Integrity) -> Integrity {
        if self.upper.is_some() { of_image.min(Integrity::Mount) } else { of_image }
    }
}

/// An image that a volume has shown before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlierImage {
    /// Its key in the store.
    pub image: Digest,
    /// The composefs image.
    pub composefs: VerityDigest,
}

/// One published mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedTarget {
    /// The mount point.
    pub path: PathBuf,
    /// Whether the mount is `noexec`.
    pub noexec: bool,
    /// The requested access mode.
    pub mode: AccessMode,
    /// The integrity level that was demanded of the mount.
    #[serde(default)]
    pub least: Integrity,
    /// The namespace of the pod, as far as kubelet says it. For people only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// The image to which a volume is pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PinnedImage {
    /// The image's key in the store, or what stands for it where several images are one.
    pub image: Digest,
    /// Digest of the manifest.
    pub manifest: Digest,
    /// The composefs image.
    pub composefs: VerityDigest,
    /// Bytes of the image's files.
    pub bytes: u64,
    /// Inodes of the image.
    pub inodes: u64,
    /// The images that it is made of, if there are several.
    pub members: Vec<PinnedMember>,
}

/// One of several images to which a volume is pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedMember {
    /// Its key in the store.
    pub image: Digest,
    /// Digest of the manifest.
    pub manifest: Digest,
}

impl VolumeRecord {
    /// The record of a volume that is not in use yet.
    pub(crate) fn new(id: &VolumeId, request: Requested, image: PinnedImage, boot: &str) -> Self {
        let PinnedImage { image, manifest, composefs, bytes, inodes, members } = image;
        let manifest = (manifest != image).then_some(manifest);
        let volume_id = id.as_str().to_owned();
        let boot = boot.to_owned();
        let targets = Vec::new();
        Self {
            format: FORMAT,
            volume_id,
            image,
            manifest,
            composefs,
            bytes,
            inodes,
            members,
            earlier: Vec::new(),
            request,
            boot,
            staged: None,
            targets,
        }
    }

    /// Parses the contents of the file `path`.
    ///
    /// # Errors
    /// [`RecordError::Damaged`] if it is not a record, [`RecordError::Format`] if it has another version.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self, RecordError> {
        #[derive(Deserialize)]
        struct Versioned {
            format: u32,
        }
        let damaged =
            |error: serde_json::Error| RecordError::Damaged { path: path.to_owned(), why: error.to_string() };
        // The version first: a newer record may lack fields, and must not be reported as damaged.
        let Versioned { format } = serde_json::from_slice(bytes).map_err(damaged)?;
        if format != FORMAT {
            return Err(RecordError::Format { path: path.to_owned(), found: format });
        }
        serde_json::from_slice(bytes).map_err(damaged)
    }

    /// The image of this volume.
    pub(crate) fn pinned(&self) -> PinnedImage {
        let Self { image, composefs, bytes, inodes, .. } = *self;
        let manifest = self.manifest.unwrap_or(image);
        PinnedImage { image, manifest, composefs, bytes, inodes, members: self.members.clone() }
    }

    /// Whether `image`, which the same request got, is another form of the volume's own: what all targets show then.
    /// The forms of a single image have one manifest. What several images are called by differs for each form, so there
    /// the images are compared.
    pub(crate) fn is_form_of(&self, request: &Requested, image: &PinnedImage) -> bool {
        let is_same_list = !self.members.is_empty() && self.members == image.members;
        self.image == image.image || (is_same_list && self.request == *request)
    }

    /// Whether the volume follows a tag and has shown this image before: what a switch leaves that was interrupted.
    pub(crate) fn has_shown(&self, image: &VerityDigest) -> bool {
        self.request.follow && self.earlier.iter().any(|earlier| earlier.composefs == *image)
    }

    /// The entry for `path`.
    pub(crate) fn target(&self, path: &Path) -> Option<&PublishedTarget> {
        self.targets.iter().find(|target| target.path == path)
    }

    /// Whether the volume is neither staged nor published.
    pub(crate) fn is_idle(&self) -> bool {
        self.staged.is_none() && self.targets.is_empty()
    }
}

#[cfg(test)]
mod tests;
