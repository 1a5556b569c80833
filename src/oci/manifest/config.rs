//! The part of an image's config that says what its layers must hash to.

use serde::Deserialize;

use super::ManifestError;
use crate::oci::digest::Digest;
use crate::oci::platform::Platform;

/// An image's config (OCI image-spec 1.1, config.md), reduced to what mounting needs.
///
/// It is a claim: the DiffIDs are compared with what is computed over the layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageConfig {
    /// The platform that the image was built for.
    pub platform: Platform,
    /// The digest of each uncompressed layer, lowest first.
    pub diff_ids: Vec<Digest>,
}

#[derive(Deserialize)]
struct Wire {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    variant: Option<String>,
    rootfs: WireRootfs,
}

#[derive(Deserialize)]
struct WireRootfs {
    #[serde(rename = "type")]
    kind: String,
    // Go writes the nil slice of an image without layers as null, or leaves it out.
    diff_ids: Option<Vec<Digest>>,
}

impl ImageConfig {
    /// Parses the config of a manifest that has `layers` layers.
    pub fn parse(bytes: &[u8], layers: usize) -> Result<Self, ManifestError> {
        let wire: Wire = serde_json::from_slice(bytes).map_err(|e| ManifestError::Syntax(e.to_string()))?;
        if wire.rootfs.kind != "layers" {
            return Err(ManifestError::RootfsType(wire.rootfs.kind.chars().take(100).collect()));
        }
        let diff_ids = wire.rootfs.diff_ids.unwrap_or_default();
        if diff_ids.len() != layers {
            return Err(ManifestError::DiffIdCount { diff_ids: diff_ids.len(), layers });
        }
        let platform = Platform::new(&wire.os, &wire.architecture, wire.variant.as_deref());
        Ok(Self { platform, diff_ids })
    }
}
