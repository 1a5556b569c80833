//! Errors of documents that this driver does not accept as manifest, index or config.

use crate::kind::Kind;
use crate::oci::limits::Exceeded;

/// Why a document was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ManifestError {
    /// Not JSON, or not of the expected structure.
    #[error("it is not a valid manifest, index or config: {0}; push the image again")]
    Syntax(String),
    /// Docker's schema 1, whose layers cannot be verified.
    #[error(
        "it uses Docker's manifest schema 1, which registries stopped serving; push the image again with a current tool, for example: skopeo copy --format oci SOURCE DESTINATION"
    )]
    SchemaOne,
    /// Any other schema version.
    #[error("its schemaVersion is {0}, expected 2; push the image again with a current tool")]
    SchemaVersion(u32),
    /// Manifest and index at once (CVE-2021-41190).
    #[error(
        "it is both a manifest and an index, so that two readers would see two images; do not trust where it comes from, and build the image again"
    )]
    Ambiguous,
    /// Neither manifest nor index.
    #[error("it has neither layers nor manifests; it is not an image")]
    Neither,
    /// A required member is missing.
    #[error("it has no member {0:?}; push the image again")]
    Missing(&'static str),
    /// The announced type and the document's own type differ.
    #[error(
        "it calls itself {document} but was announced as {stated}; the registry or a proxy mixes up documents"
    )]
    MediaTypeMismatch {
        /// The document's own media type.
        document: String,
        /// That of the `Content-Type` header or the descriptor.
        stated: String,
    },
    /// The media type says manifest and the content is an index, or the reverse.
    #[error("its content is not what its media type {media_type} says; push the image again")]
    WrongShape {
        /// The media type.
        media_type: String,
    },
    /// A document type that is not understood.
    #[error("media type {0} is not one of an OCI or Docker v2 manifest or index")]
    UnknownDocument(String),
    /// A layer that is not a tar archive in a known compression.
    #[error(
        "layer {index} has media type {media_type}, which is not a tar layer, plain or compressed by gzip or zstd; convert the image, for example: skopeo copy --format oci SOURCE DESTINATION"
    )]
    UnknownLayer {
        /// Position from the bottom, from 0.
        index: usize,
        /// The media type.
        media_type: String,
    },
    /// An encrypted layer.
    #[error(
        "layer {index} is encrypted ({media_type}); decrypt the image when copying it to the registry, this driver holds no keys"
    )]
    EncryptedLayer {
        /// Position from the bottom, from 0.
        index: usize,
        /// The media type.
        media_type: String,
    },
    /// A list is longer than its limit.
    #[error("it lists too many: {0}")]
    Limit(#[from] Exceeded),
    /// A layer that is a ready-made filesystem.
    #[error(
        "layer {index} is a ready-made filesystem ({media_type}), and a filesystem made elsewhere is never mounted; push the image with tar layers, the node makes the filesystem itself"
    )]
    FilesystemLayer {
        /// Position from the bottom, from 0.
        index: usize,
        /// The media type.
        media_type: String,
    },
    /// Config and manifest disagree.
    #[error(
        "its config lists {diff_ids} DiffIDs for {layers} layers; config and manifest do not belong together, push the image again"
    )]
    DiffIdCount {
        /// How many DiffIDs the config has.
        diff_ids: usize,
        /// How many layers the manifest has.
        layers: usize,
    },
    /// A config that is one by its media type only.
    #[error(
        "its config names no DiffIDs for {layers} layers, so that it is no image but most likely an artifact in an image's \
         dress; push it with a config that lists the digests of its unpacked layers (rootfs.diff_ids)"
    )]
    NoDiffIds {
        /// How many layers the manifest has.
        layers: usize,
    },
    /// A root filesystem that is not made of layers.
    #[error("its config has a root filesystem of type {0:?}, expected \"layers\"")]
    RootfsType(String),
}

impl ManifestError {
    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::SchemaOne
            | Self::UnknownDocument(_)
            | Self::UnknownLayer { .. }
            | Self::EncryptedLayer { .. }
            | Self::FilesystemLayer { .. }
            | Self::NoDiffIds { .. }
            | Self::SchemaVersion(_) => Kind::Unsupported,
            Self::Limit(_) => Kind::Exhausted,
            Self::Syntax(_)
            | Self::Ambiguous
            | Self::Neither
            | Self::Missing(_)
            | Self::MediaTypeMismatch { .. }
            | Self::WrongShape { .. }
            | Self::DiffIdCount { .. }
            | Self::RootfsType(_) => Kind::Corrupt,
        }
    }
}
