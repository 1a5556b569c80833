//! The artifact's manifest (OCI image-spec 1.1, "Guidelines for Artifact Usage"), a referrer of the image's.
//!
//! Its type, and the annotation with the image's digest, are those of the composefs project's sealing specification. The
//! blobs are this driver's: image, map and list, in this order, each compressed by zstd.

use std::io::{self, BufRead, Read};

use serde::Deserialize;
use serde_json::{Value, json};

use super::error::LazyError;
use super::packed::{decoder, unpack};
use crate::image::seal::{FAITHFUL, MERGED, Seal};
use crate::image::verity::VerityDigest;
use crate::oci::digest::Digest;
use crate::oci::manifest::{Descriptor, OCI_MANIFEST};

/// The type of artifacts with composefs metadata. Others than these may have it.
pub const ARTIFACT_TYPE: &str = "application/vnd.composefs.metadata.v1";

const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const IMAGE: &str = "application/vnd.composefs.erofs.v1+zstd";
const MAP: &str = "application/vnd.composefs.csi.offset-map.v1+zstd";
const FIRST: &str = "application/vnd.composefs.csi.first-uses.v1+zstd";
/// Bytes that a blob decompresses to.
const SIZE: &str = "dev.composefs.csi.uncompressed-size";
/// Which of several artifacts of an image is the newest.
const REVISION: &str = "dev.composefs.csi.lazy.revision";
const PART: &str = "manifest";

/// Bytes of a blob that are taken, compressed or not: metadata of some three million files.
const BLOB_MAX: u64 = 1 << 30;

/// An artifact by which an image starts lazily.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// The manifest of the image that it is about.
    pub subject: Descriptor,
    /// The digest of its composefs image, and the annotation that states it: as in a sealed manifest.
    pub seal: Seal,
    /// The composefs image.
    pub image: PackedBlob,
    /// The offset map.
    pub map: PackedBlob,
    /// The list of first uses.
    pub first: Option<PackedBlob>,
    /// A higher one replaces a lower one.
    pub revision: u64,
}

/// A compressed blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackedBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// Bytes that it decompresses to.
    pub unpacked: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireArtifact {
    artifact_type: Option<String>,
    #[serde(default)]
    layers: Vec<WireBlob>,
    subject: Option<Descriptor>,
    #[serde(default)]
    annotations: Option<WireNotes>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireBlob {
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default)]
    annotations: Option<WireNotes>,
}

/// The annotations that mean something; others take no memory.
#[derive(Deserialize)]
struct WireNotes {
    #[serde(rename = "composefs.merged.erofs.v1.fsverity-sha256-12")]
    merged: Option<String>,
    #[serde(rename = "dev.composefs.csi.faithful.erofs.v1.fsverity-sha256-12")]
    faithful: Option<String>,
    #[serde(rename = "dev.composefs.csi.uncompressed-size")]
    size: Option<String>,
    #[serde(rename = "dev.composefs.csi.lazy.revision")]
    revision: Option<String>,
}

impl Artifact {
    /// The most bytes of its manifest.
    pub const MANIFEST_MAX: usize = 64 << 10;

    /// Reads a manifest; `None` if it is about something else than `subject`, or of another form: artifacts of this type may
    /// have signatures instead.
    ///
    /// # Errors
    /// It is malformed.
    pub fn parse(bytes: &[u8], subject: &Digest) -> Result<Option<Self>, LazyError> {
        if bytes.len() > Self::MANIFEST_MAX {
            return Ok(None);
        }
        // What is no such document at all is something else.
        let Ok(wire) = serde_json::from_slice::<WireArtifact>(bytes) else { return Ok(None) };
        let WireArtifact { artifact_type, layers, subject: about, annotations } = wire;
        let Some(about) = about.filter(|about| about.digest == *subject) else { return Ok(None) };
        let is_ours = artifact_type.as_deref() == Some(ARTIFACT_TYPE)
            && layers.first().is_some_and(|blob| blob.media_type == IMAGE);
        if !is_ours {
            return Ok(None);
        }
        let (image, map, first) = match &layers[..] {
            [image, map] if map.media_type == MAP => (image, map, None),
            [image, map, first] if map.media_type == MAP && first.media_type == FIRST => {
                (image, map, Some(first))
            }
            _ => return Err(malformed("has not an image, a map and at most a list as its layers")),
        };
        let revision = annotations.and_then(|notes| notes.revision);
        let revision = revision.map_or(Some(0), |text| text.parse().ok());
        Ok(Some(Self {
            subject: about,
            seal: seal(image)?,
            image: PackedBlob::of(image)?,
            map: PackedBlob::of(map)?,
            first: first.map(PackedBlob::of).transpose()?,
            revision: revision.ok_or_else(|| malformed(format!("has a {REVISION} that is no number")))?,
        }))
    }

    /// The manifest.
    pub fn manifest(&self) -> Vec<u8> {
        let mut image = self.image.descriptor(IMAGE);
        image["annotations"][self.seal.annotation] = self.seal.digest.hex().into();
        let mut layers = vec![image, self.map.descriptor(MAP)];
        layers.extend(self.first.map(|first| first.descriptor(FIRST)));
        let Descriptor { media_type, digest, size, .. } = &self.subject;
        let mut manifest = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": ARTIFACT_TYPE,
            "config": {"mediaType": EMPTY, "digest": Digest::of(Self::CONFIG), "size": Self::CONFIG.len()},
            "layers": layers,
            "subject": {"mediaType": media_type, "digest": digest, "size": size},
        });
        if self.revision > 0 {
            manifest["annotations"] = json!({REVISION: self.revision.to_string()});
        }
        manifest.to_string().into_bytes()
    }

    /// Its config, a blob as the others.
    pub const CONFIG: &[u8] = b"{}";

    /// Whether two artifacts have the same image and the same map.
    pub fn is_like(&self, other: &Self) -> bool {
        (self.seal, self.image, self.map) == (other.seal, other.image, other.map)
    }
}

impl PackedBlob {
    /// A blob of these bytes, and what it decompresses to.
    pub fn new(packed: &[u8], unpacked: usize) -> Self {
        Self { digest: Digest::of(packed), size: packed.len() as u64, unpacked: unpacked as u64 }
    }

    fn of(blob: &WireBlob) -> Result<Self, LazyError> {
        let size = blob.annotations.as_ref().and_then(|notes| notes.size.as_deref()?.parse().ok());
        let unpacked =
            size.ok_or_else(|| malformed(format!("does not say by {SIZE} how large a layer is")))?;
        if blob.size.max(unpacked) > BLOB_MAX {
            return Err(LazyError::TooLarge { part: "metadata", limit: BLOB_MAX });
        }
        Ok(Self { digest: blob.digest, size: blob.size, unpacked })
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({
            "mediaType": media_type, "digest": self.digest, "size": self.size,
            "annotations": {SIZE: self.unpacked.to_string()},
        })
    }

    /// Decompresses it. `part` is for messages.
    ///
    /// # Errors
    /// It is not zstd, or not as large as it says.
    pub fn unpack(&self, packed: impl BufRead, part: &'static str) -> Result<Vec<u8>, LazyError> {
        unpack(packed, self.unpacked, part)
    }

    /// Decompresses it piece by piece, to at most one byte more than it has.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn decoder<'a, R: BufRead + 'a>(&self, packed: R) -> io::Result<impl Read + use<'a, R>> {
        Ok(decoder(packed)?.take(self.unpacked.saturating_add(1)))
    }

    /// What a source needs to give it.
    pub fn to_fetch(&self) -> Descriptor {
        Descriptor {
            media_type: String::new(),
            digest: self.digest,
            size: self.size,
            annotations: Default::default(),
        }
    }
}

/// The digest of the composefs image, by exactly one annotation.
fn seal(image: &WireBlob) -> Result<Seal, LazyError> {
    let notes = image.annotations.as_ref();
    let (annotation, value) = match notes.map(|notes| (notes.merged.as_deref(), notes.faithful.as_deref())) {
        Some((Some(value), None)) => (MERGED, value),
        Some((None, Some(value))) => (FAITHFUL, value),
        _ => return Err(malformed("does not say by one annotation which digest its image has")),
    };
    let is_lowercase = !value.bytes().any(|byte| byte.is_ascii_uppercase());
    let digest = VerityDigest::from_hex(value).filter(|_| is_lowercase);
    let digest =
        digest.ok_or_else(|| malformed(format!("has an annotation {annotation} that is no digest")))?;
    Ok(Seal { annotation, digest })
}

fn malformed(why: impl Into<String>) -> LazyError {
    LazyError::malformed(PART, why)
}
