//! The part of an image's config that states the digests of the unpacked layers.

use serde::Deserialize;

use super::ManifestError;
use crate::oci::digest::Digest;
use crate::oci::platform::Platform;

/// An image's config (OCI image-spec 1.1, config.md), reduced to what mounting needs.
///
/// Its DiffIDs are only claims until they are compared with the digests computed over the layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageConfig {
    /// The platform that the image was built for.
    pub platform: Platform,
    /// The digest of each uncompressed layer, lowest first.
    pub diff_ids: Vec<Digest>,
}

// Go's encoders write null for what is empty, or leave it out.
#[derive(Deserialize)]
struct WireConfig {
    os: Option<String>,
    architecture: Option<String>,
    variant: Option<String>,
    rootfs: Option<WireRootfs>,
}

#[derive(Default, Deserialize)]
struct WireRootfs {
    #[serde(rename = "type")]
    kind: Option<String>,
    diff_ids: Option<Vec<Digest>>,
}

impl WireConfig {
    fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        serde_json::from_slice(bytes).map_err(|e| ManifestError::Syntax(e.to_string()))
    }

    fn platform(&self) -> Platform {
        let text = |member: &Option<String>| member.clone().unwrap_or_default();
        Platform::new(&text(&self.os), &text(&self.architecture), self.variant.as_deref())
    }
}

impl ImageConfig {
    /// Parses the config of a manifest that has `layers` layers.
    ///
    /// # Errors
    /// It is malformed, or does not belong to such a manifest.
    pub fn parse(bytes: &[u8], layers: usize) -> Result<Self, ManifestError> {
        let wire = WireConfig::parse(bytes)?;
        let platform = wire.platform();
        let WireRootfs { kind, diff_ids } = wire.rootfs.unwrap_or_default();
        if let Some(other) = kind.filter(|kind| !matches!(kind.as_str(), "" | "layers")) {
            return Err(ManifestError::RootfsType(other.chars().take(100).collect()));
        }
        let diff_ids = diff_ids.unwrap_or_default();
        if diff_ids.is_empty() && layers > 0 {
            return Err(ManifestError::NoDiffIds { layers });
        }
        // Each layer is compared with its DiffID, so none may be without one.
        if diff_ids.len() != layers {
            return Err(ManifestError::DiffIdCount { diff_ids: diff_ids.len(), layers });
        }
        Ok(Self { platform, diff_ids })
    }

    /// The platform that a config states, whatever else is in it.
    ///
    /// # Errors
    /// It is malformed.
    pub fn platform_of(bytes: &[u8]) -> Result<Platform, ManifestError> {
        WireConfig::parse(bytes).map(|wire| wire.platform())
    }
}
