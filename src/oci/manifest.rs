//! Manifests, indexes and configs: OCI image-spec 1.1 and Docker image manifest v2 schema 2.
//!
//! [`Document::parse`] and [`ImageConfig::parse`] parse untrusted bytes of bounded size. Their types
//! hold only what this driver acts on. Documents that two readers could understand differently are
//! refused: a manifest that is also an index (CVE-2021-41190), a media type that contradicts the
//! stated one, a config with another number of DiffIDs than the manifest has layers. Nesting is
//! bounded by `serde_json`'s recursion limit of 128.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::oci::digest::Digest;
use crate::oci::limits::{Cap, ImageLimits};
use crate::oci::platform::{Platform, PlatformError};

mod artifact_kind;
mod config;
mod error;
mod media_type;

pub use artifact_kind::ArtifactKind;
pub use config::ImageConfig;
pub use error::ManifestError;
use media_type::{DocumentType, is_image_config};
pub use media_type::{LayerCompression, OCI_INDEX, OCI_MANIFEST};

/// The media types that requests to registries accept.
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

/// A document that a tag or digest can name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// One image or artifact.
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
    /// What it is if it is no image.
    pub artifact: Option<ArtifactKind>,
}

/// A layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Where its bytes are.
    pub descriptor: Descriptor,
    /// What they are.
    pub form: LayerForm,
}

/// What the bytes of a layer are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerForm {
    /// A tar archive in the compression that the media type states. All layers of images are.
    Archive(LayerCompression),
    /// One file, as it is.
    File,
    /// A placeholder: the artifact has no layer.
    Nothing,
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
    /// The manifest or nested index.
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
        Self::parse_within(&ImageLimits::default(), bytes, stated)
    }

    /// Parses a manifest or an index, and refuses one with more layers or entries than `limits` allow.
    ///
    /// `stated` is the media type of the registry's `Content-Type` or of the descriptor in the parent
    /// index. The document must agree with it.
    ///
    /// # Errors
    /// The document is malformed, contradictory, beyond a limit or of an unsupported type.
    pub fn parse_within(
        limits: &ImageLimits,
        bytes: &[u8],
        stated: Option<&str>,
    ) -> Result<Self, ManifestError> {
        let wire: WireDocument =
            serde_json::from_slice(bytes).map_err(|e| ManifestError::Syntax(e.to_string()))?;
        // Schema 1 has a remedy of its own, so it is told apart from other versions.
        if wire.fs_layers.is_some() || wire.schema_version == Some(1) {
            return Err(ManifestError::SchemaOne);
        }
        if wire.schema_version != Some(2) {
            return Err(ManifestError::SchemaVersion(wire.schema_version));
        }
        match document_type(&wire, stated)? {
            DocumentType::Manifest => Manifest::from_wire(wire, limits).map(Self::Image),
            DocumentType::Index => Index::from_wire(wire, limits).map(Self::Index),
        }
    }
}

/// Determines the type of a document from its members and the stated media types. Contradictions are refused.
fn document_type(wire: &WireDocument, stated: Option<&str>) -> Result<DocumentType, ManifestError> {
    // The members decide, since they are what the parser reads.
    let shape = match (wire.config.is_some() || wire.layers.is_some(), wire.manifests.is_some()) {
        (true, true) => return Err(ManifestError::Ambiguous),
        (true, false) => DocumentType::Manifest,
        (false, true) => DocumentType::Index,
        (false, false) => return Err(ManifestError::Neither),
    };
    // Both media types are optional; if both are there they must agree.
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
    fn from_wire(wire: WireDocument, limits: &ImageLimits) -> Result<Self, ManifestError> {
        let config = wire.config.ok_or(ManifestError::Missing("config"))?;
        let layers = wire.layers.ok_or(ManifestError::Missing("layers"))?;
        if layers.len() > limits.layers {
            return Err(Cap::Layers.exceeded(layers.len(), limits.layers).into());
        }
        // Artifacts are manifests with another type of config, and some that only their layers give away.
        let artifact = if is_image_config(&config.media_type) {
            ArtifactKind::disguised(layers.iter())
        } else {
            Some(ArtifactKind::of(&config.media_type, wire.artifact_type.as_deref()))
        };
        let form = |(index, descriptor): (usize, Descriptor)| {
            let form = match artifact {
                Some(kind) => kind.form(&descriptor),
                None => LayerForm::Archive(LayerCompression::of(&descriptor.media_type, index)?),
            };
            Ok::<_, ManifestError>(Layer { descriptor, form })
        };
        let layers = layers.into_iter().enumerate().map(form).collect::<Result<_, _>>()?;
        Ok(Self { config, layers, annotations: wire.annotations.unwrap_or_default(), artifact })
    }
}

impl Index {
    fn from_wire(wire: WireDocument, limits: &ImageLimits) -> Result<Self, ManifestError> {
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
    ///
    /// # Errors
    /// No entry can run on that platform.
    pub fn choose(&self, wanted: &Platform) -> Result<&IndexEntry, PlatformError> {
        wanted.choose(&self.entries, |entry| entry.platform.as_ref())
    }
}

#[cfg(test)]
mod tests;
