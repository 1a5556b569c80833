//! One file per volume that is in use on this node: `<store>/volumes/<sha256 of the id>.json`.
//!
//! A record is written before the mount that it describes (an intent) and removed after the last one has
//! gone, so that at any instruction every mount has its record. Records must survive a killed process, not
//! a power cut, which takes the mounts as well: they are renamed into place without fsync and carry the boot
//! id. `<store>/volumes/boot` says for which boot the directory was last put in order; a record that a power
//! cut has torn can therefore be told from damage.
//!
//! The sweep of the store reads `image` and keeps that image; it writes nothing here.

mod directory;
mod error;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use directory::{Listed, Records};
pub use error::RecordError;

use crate::image::verity::VerityDigest;
use crate::integrity::Integrity;
use crate::oci::digest::Digest;
use crate::volume::access::AccessMode;
use crate::volume::id::VolumeId;

/// The format that this version reads and writes.
const FORMAT: u32 = 1;

/// What a volume on this node is and where it is in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRecord {
    format: u32,
    /// The volume's id.
    pub volume_id: String,
    /// Digest of the manifest: what the sweep keeps.
    pub image: Digest,
    /// The composefs image that is mounted.
    pub composefs: VerityDigest,
    /// Bytes of the image's files.
    pub bytes: u64,
    /// Inodes of the image.
    pub inodes: u64,
    /// What was asked for when the image was resolved.
    pub request: Requested,
    /// The boot during which the image was resolved.
    pub boot: String,
    /// Where the volume is staged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staged: Option<PathBuf>,
    /// Where the volume is, or is about to be, published.
    pub targets: Vec<Target>,
}

/// The part of a volume's attributes that decides what it shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requested {
    /// The image as the user wrote it.
    pub image: String,
    /// The sub-directory, empty for the root.
    pub path: PathBuf,
    /// The platform, if not this node's own.
    pub platform: Option<String>,
}

/// One published mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Where.
    pub path: PathBuf,
    /// Whether programs in it may not be executed.
    pub noexec: bool,
    /// The access mode asked for.
    pub mode: AccessMode,
    /// The integrity level that was demanded of the mount.
    #[serde(default)]
    pub least: Integrity,
}

/// An image that was found for a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pinned {
    /// Digest of the manifest.
    pub image: Digest,
    /// The composefs image.
    pub composefs: VerityDigest,
    /// Bytes of the image's files.
    pub bytes: u64,
    /// Inodes of the image.
    pub inodes: u64,
}

impl VolumeRecord {
    /// A volume that is in use nowhere yet.
    pub fn new(id: &VolumeId, request: Requested, image: Pinned, boot: &str) -> Self {
        let Pinned { image, composefs, bytes, inodes } = image;
        let volume_id = id.as_str().to_owned();
        let boot = boot.to_owned();
        let targets = Vec::new();
        Self {
            format: FORMAT,
            volume_id,
            image,
            composefs,
            bytes,
            inodes,
            request,
            boot,
            staged: None,
            targets,
        }
    }

    /// Parses what is in the file `path`.
    ///
    /// # Errors
    /// [`RecordError::Damaged`] for what is no record, [`RecordError::Format`] for one of another version.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self, RecordError> {
        #[derive(Deserialize)]
        struct Versioned {
            format: u32,
        }
        let damaged =
            |error: serde_json::Error| RecordError::Damaged { path: path.to_owned(), why: error.to_string() };
        let Versioned { format } = serde_json::from_slice(bytes).map_err(damaged)?;
        if format != FORMAT {
            return Err(RecordError::Format { path: path.to_owned(), found: format });
        }
        serde_json::from_slice(bytes).map_err(damaged)
    }

    /// The image this volume shows.
    pub fn pinned(&self) -> Pinned {
        Pinned { image: self.image, composefs: self.composefs, bytes: self.bytes, inodes: self.inodes }
    }

    /// The entry for `path`.
    pub fn target(&self, path: &Path) -> Option<&Target> {
        self.targets.iter().find(|target| target.path == path)
    }

    /// Whether the volume is in use nowhere.
    pub fn is_idle(&self) -> bool {
        self.staged.is_none() && self.targets.is_empty()
    }
}

#[cfg(test)]
mod tests;
