//! Manifests, indexes and configs: OCI image-spec 1.1 and Docker image manifest v2 schema 2.
//!
//! [`Document::parse`] and [`ImageConfig::parse`] parse untrusted bytes of bounded size. Their types
//! hold only what this driver acts on. Documents that two readers could understand differently are
//! refused: a manifest that is also an index (CVE-2021-41190), a media type that contradicts the
//! stated one, a config with another number of DiffIDs than the manifest has layers. Nesting is
//! bounded by `serde_json`'s recursion limit of 128.
//!
//! As for readers in Go, null is the same as absent, and what is absent is empty where the specification allows that.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::oci::digest::Digest;
use crate::oci::limits::{Cap, ImageLimits};
use crate::oci::platform::{Choice, Platform, PlatformError};

mod annotations;
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

/// The annotation by which buildkit marks entries that describe other entries.
const ATTESTATION: &str = "vnd.docker.reference.type";

/// A typed pointer to a blob or manifest (OCI image-spec 1.1, descriptor.md). `urls` and `data`
/// are not read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The media type of the bytes pointed at; empty if none is stated.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub media_type: String,
    /// Their digest.
    pub digest: Digest,
    /// Their length in bytes.
    pub size: u64,
    /// Annotations, as far as they mean something to this driver.
    #[serde(default, deserialize_with = "annotations::read", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// The media type, if one is stated.
    pub fn stated_type(&self) -> Option<&str> {
        Some(self.media_type.as_str()).filter(|stated| !stated.is_empty())
    }

    /// The size of a layer's archive in bytes, if its publisher states one. Proven by nothing.
    pub fn unpacked_size(&self) -> Option<u64> {
        self.annotations.get(annotations::UNPACKED_SIZE)?.parse().ok()
    }

    /// Whether a layer is described as zstd:chunked.
    pub fn is_zstd_chunked(&self) -> bool {
        let begins = [annotations::ZSTD_CHUNKED, annotations::OLD_ZSTD_CHUNKED];
        self.annotations.keys().any(|name| begins.iter().any(|prefix| name.starts_with(prefix)))
    }
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
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
    /// Whether it describes another entry, as buildkit's attestations do.
    pub is_attestation: bool,
    /// Whether the index gives it the type of an artifact.
    pub is_artifact: bool,
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
    #[serde(default, deserialize_with = "annotations::read")]
    annotations: BTreeMap<String, String>,
}

/// A descriptor in an index. Spelled out, since flattening would hold everything else of it in memory.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireEntry {
    #[serde(default, deserialize_with = "null_is_empty")]
    media_type: String,
    digest: Digest,
    size: u64,
    artifact_type: Option<String>,
    #[serde(default, deserialize_with = "annotations::read")]
    annotations: BTreeMap<String, String>,
    platform: Option<WirePlatform>,
}

#[derive(Deserialize)]
struct WirePlatform {
    os: Option<String>,
    architecture: Option<String>,
    variant: Option<String>,
}

impl WirePlatform {
    /// `None` if nothing is stated.
    fn stated(&self) -> Option<Platform> {
        let text = |member: &Option<String>| member.clone().unwrap_or_default();
        let platform = Platform::new(&text(&self.os), &text(&self.architecture), self.variant.as_deref());
        (!platform.is_empty()).then_some(platform)
    }
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
        // Old tools leave it out of layouts.
        if let Some(other) = wire.schema_version.filter(|version| *version != 2) {
            return Err(ManifestError::SchemaVersion(other));
        }
        match document_type(&wire, stated)? {
            DocumentType::Manifest => Manifest::from_wire(wire, limits).map(Self::Image),
            DocumentType::Index => Index::from_wire(wire, limits).map(Self::Index),
        }
    }
}

/// Determines the type of a document from its members and the stated media types. Contradictions are refused.
fn document_type(wire: &WireDocument, stated: Option<&str>) -> Result<DocumentType, ManifestError> {
    // Both media types are optional; if both are there they must agree.
    let own = wire.media_type.as_deref().filter(|own| !own.is_empty());
    let stated = stated.filter(|stated| !stated.is_empty());
    let is_index = |named: Option<&str>| named.map(DocumentType::of) == Some(Ok(DocumentType::Index));
    // The members decide, since they are what the parser reads.
    let shape = match (wire.config.is_some() || wire.layers.is_some(), wire.manifests.is_some()) {
        (true, true) => return Err(ManifestError::Ambiguous),
        (true, false) => DocumentType::Manifest,
        (false, true) => DocumentType::Index,
        // An empty list that an encoder has written as null.
        (false, false) if is_index(own.or(stated)) => DocumentType::Index,
        (false, false) => return Err(ManifestError::Neither),
    };
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
        let layers = wire.layers.unwrap_or_default();
        if layers.len() > limits.layers {
            return Err(Cap::Layers.exceeded(layers.len(), limits.layers).into());
        }
        // Artifacts are manifests with another type of config, and some that only their layers give away.
        let artifact = match config.stated_type() {
            Some(other) if !is_image_config(other) => {
                Some(ArtifactKind::of(other, wire.artifact_type.as_deref()))
            }
            _ => ArtifactKind::disguised(layers.iter()),
        };
        let form = |(index, descriptor): (usize, Descriptor)| {
            let form = match (artifact, descriptor.stated_type()) {
                (Some(kind), _) => kind.form(&descriptor),
                (None, Some(stated)) => LayerForm::Archive(LayerCompression::of(stated, index)?),
                // Where nothing is stated the bytes tell, as they do where something else is stated.
                (None, None) => LayerForm::Archive(LayerCompression::None),
            };
            Ok::<_, ManifestError>(Layer { descriptor, form })
        };
        let layers = layers.into_iter().enumerate().map(form).collect::<Result<_, _>>()?;
        Ok(Self { config, layers, annotations: wire.annotations, artifact })
    }
}

impl Index {
    fn from_wire(wire: WireDocument, limits: &ImageLimits) -> Result<Self, ManifestError> {
        let entries = wire.manifests.unwrap_or_default();
        if entries.len() > limits.index_entries {
            return Err(Cap::IndexEntries.exceeded(entries.len(), limits.index_entries).into());
        }
        let entries = entries.into_iter().map(IndexEntry::from_wire).collect();
        Ok(Self { entries, annotations: wire.annotations })
    }

    /// The entry that suits `wanted` best, see [`Platform::choose`]. Attestations are no candidates, and artifacts are
    /// none beside images.
    ///
    /// # Errors
    /// No entry can run on that platform.
    pub fn choose(&self, wanted: &Platform) -> Result<Choice<'_, IndexEntry>, PlatformError> {
        let mut candidates: Vec<&IndexEntry> = self.entries.iter().filter(|e| !e.is_attestation).collect();
        if candidates.iter().any(|entry| !entry.is_artifact) {
            candidates.retain(|entry| !entry.is_artifact);
        }
        wanted.choose(&candidates, |entry| entry.platform.as_ref())
    }
}

impl IndexEntry {
    fn from_wire(entry: WireEntry) -> Self {
        let WireEntry { media_type, digest, size, artifact_type, annotations, platform } = entry;
        let is_attestation = annotations.contains_key(ATTESTATION);
        let is_artifact = artifact_type.is_some_and(|kind| !kind.is_empty() && !is_image_config(&kind));
        let platform = platform.and_then(|platform| platform.stated());
        let descriptor = Descriptor { media_type, digest, size, annotations };
        Self { descriptor, platform, is_attestation, is_artifact }
    }
}

#[cfg(test)]
mod tests;
