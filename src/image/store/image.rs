//! One record per image: everything needed to mount it, and nothing else.

use serde::{Deserialize, Serialize};

use crate::image::digest::Digest;
use crate::image::verity::VerityDigest;

/// What is known of an image that is completely in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// Digest of the platform's manifest (never of an index): the record's key.
    pub manifest: Digest,
    /// fs-verity digest of the composefs image, which is an object.
    pub image: VerityDigest,
    /// Size of the composefs image in bytes.
    pub image_size: u64,
    /// DiffIDs computed here, lowest layer first.
    pub layers: Vec<Digest>,
    /// Platform as `os/arch[/variant]`, where the image states one.
    pub platform: Option<String>,
    /// The references it was pulled as, for people.
    pub names: Vec<String>,
    /// Inodes of the tree.
    pub inodes: u64,
    /// Sum of the sizes of the tree's regular files in bytes, hardlinks counted once.
    pub bytes: u64,
    /// When the record was made, seconds since 1970.
    pub created: u64,
}

/// How far the bytes that a pod reads are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Integrity {
    /// Digests were checked when the image was pulled.
    Fetch,
    /// And once more, by this process, before the first mount.
    Mount,
    /// By the kernel at every read (fs-verity).
    Read,
}
