//! Manifests, indexes and configs: OCI image-spec 1.1 and Docker image manifest v2 schema 2.
//!
//! These are parsers of foreign bytes: [`Document::parse`] and [`ImageConfig::parse`] take what a
//! registry or a layout gave, of bounded size, and return types that hold only what this driver
//! acts on. Whatever two readers could understand differently is refused: a document that is a
//! manifest and an index at once (CVE-2021-41190), a media type that contradicts the one the
//! document was announced with, a config whose number of DiffIDs is not that of the layers.
//! Nesting is bounded by `serde_json`'s recursion limit of 128.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::oci::digest::Digest;
use crate::oci::limits::{Cap, Limits};
use crate::oci::platform::{Platform, PlatformError};

mod config;
mod error;
mod media_type;

pub use config::ImageConfig;
pub use error::ManifestError;
pub use media_type::LayerCompression;
use media_type::{DocumentType, is_image_config};

/// The media types to ask a registry for.
pub const ACCEPTED_MEDIA_TYPES: [&str; 4] = media_type::DOCUMENTS;

/// A typed pointer to a blob or manifest (OCI image-spec 1.1, descriptor.md). `urls` and `data`
/// are not read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The media type of the bytes pointed at.
    pub media_type: String,
    /// Their digest.
    pub digest: Digest,
    /// Their length in bytes.
    pub size: u64,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What a tag or digest can name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// One image.
    Image(Manifest),
    /// Several images or artifacts, usually one per platform.
    Index(Index),
}

/// An image manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The image's config, see [`ImageConfig`].
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Layer>,
    /// The manifest's own annotations.
    pub annotations: BTreeMap<String, String>,
}

/// A filesystem layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Where its bytes are.
    pub descriptor: Descriptor,
    /// How the media type says that they are compressed.
    pub compression: LayerCompression,
}

/// An index or manifest list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// The entries in the order of the document.
    pub entries: Vec<IndexEntry>,
    /// The index's own annotations.
    pub annotations: BTreeMap<String, String>,
}

/// One entry of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// The manifest or nested index pointed at.
    pub descriptor: Descriptor,
    /// The platform it is for.
    pub platform: Option<Platform>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireDocument {
    schema_version: Option<u32>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<WireEntry>>,
    fs_layers: Option<IgnoredAny>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct WireEntry {
    #[serde(flatten)]
    descriptor: Descriptor,
    platform: Option<WirePlatform>,
}

#[derive(Deserialize)]
struct WirePlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    variant: Option<String>,
}

impl Document {
    /// Parses a manifest or an index within the default limits.
    ///
    /// # Errors
    /// Those of [`Document::parse_within`].
    pub fn parse(bytes: &[u8], stated: Option<&str>) -> Result<Self, ManifestError> {
        Self::parse_within(&Limits::default(), bytes, stated)
    }

    /// Parses a manifest or an index, and refuses one with more layers or entries than `limits` allow.
    ///
    /// `stated` is the media type that the registry's `Content-Type` or the descriptor in the
    /// index above gave; the document must agree with it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse_within(limits: &Limits, bytes: &[u8], stated: Option<&str>) -> Result<Self, ManifestError> {
        let wire: WireDocument =
            serde_json::from_slice(bytes).map_err(|e| ManifestError::Syntax(e.to_string()))?;
        if wire.fs_layers.is_some() || wire.schema_version == Some(1) {
            return Err(ManifestError::SchemaOne);
        }
        if wire.schema_version != Some(2) {
            return Err(ManifestError::SchemaVersion(wire.schema_version));
        }
        match settle_type(&wire, stated)? {
            DocumentType::Manifest => Manifest::from_wire(wire, limits).map(Self::Image),
            DocumentType::Index => Index::from_wire(wire, limits).map(Self::Index),
        }
    }
}

/// Decides what a document is from all that speaks of it, and refuses contradictions.
fn settle_type(wire: &WireDocument, stated: Option<&str>) -> Result<DocumentType, ManifestError> {
    let shape = match (wire.config.is_some() || wire.layers.is_some(), wire.manifests.is_some()) {
        (true, true) => return Err(ManifestError::Ambiguous),
        (true, false) => DocumentType::Manifest,
        (false, true) => DocumentType::Index,
        (false, false) => return Err(ManifestError::Neither),
    };
    let own = wire.media_type.as_deref();
    if let (Some(own), Some(stated)) = (own, stated)
        && own != stated
    {
        return Err(ManifestError::MediaTypeMismatch { document: own.to_owned(), stated: stated.to_owned() });
    }
    if let Some(named) = own.or(stated)
        && DocumentType::of(named)? != shape
    {
        return Err(ManifestError::WrongShape { media_type: named.to_owned() });
    }
    Ok(shape)
}

impl Manifest {
    fn from_wire(wire: WireDocument, limits: &Limits) -> Result<Self, ManifestError> {
        let config = wire.config.ok_or(ManifestError::Missing("config"))?;
        if !is_image_config(&config.media_type) {
            return Err(ManifestError::NotAnImage {
                config_media_type: config.media_type,
                artifact_type: wire.artifact_type,
            });
        }
        let layers = wire.layers.ok_or(ManifestError::Missing("layers"))?;
        if layers.len() > limits.layers {
            return Err(Cap::Layers.exceeded(layers.len(), limits.layers).into());
        }
        let layers = layers.into_iter().enumerate().map(Layer::from_wire);
        Ok(Self {
            config,
            layers: layers.collect::<Result<_, _>>()?,
            annotations: wire.annotations.unwrap_or_default(),
        })
    }
}

impl Layer {
    fn from_wire((index, descriptor): (usize, Descriptor)) -> Result<Self, ManifestError> {
        let compression = LayerCompression::of(&descriptor.media_type, index)?;
        Ok(Self { descriptor, compression })
    }
}

impl Index {
    fn from_wire(wire: WireDocument, limits: &Limits) -> Result<Self, ManifestError> {
        let entries = wire.manifests.ok_or(ManifestError::Missing("manifests"))?;
        if entries.len() > limits.index_entries {
            return Err(Cap::IndexEntries.exceeded(entries.len(), limits.index_entries).into());
        }
        let entries = entries.into_iter().map(|entry| IndexEntry {
            descriptor: entry.descriptor,
            platform: entry.platform.map(|p| Platform::new(&p.os, &p.architecture, p.variant.as_deref())),
        });
        Ok(Self { entries: entries.collect(), annotations: wire.annotations.unwrap_or_default() })
    }

    /// The entry that suits `wanted` best, see [`Platform::choose`].
    pub fn choose(&self, wanted: &Platform) -> Result<&IndexEntry, PlatformError> {
        wanted.choose(&self.entries, |entry| entry.platform.as_ref())
    }
}

#[cfg(test)]
mod tests;
