//! The media types of images: OCI image-spec 1.1, media-types.md, and Docker's equivalents.

use super::ManifestError;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const SCHEMA_ONE: &str = "application/vnd.docker.distribution.manifest.v1+";

pub(super) const DOCUMENTS: [&str; 4] = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST];

const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// The two shapes of document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DocumentType {
    Manifest,
    Index,
}

impl DocumentType {
    pub(super) fn of(media_type: &str) -> Result<Self, ManifestError> {
        match media_type {
            OCI_MANIFEST | DOCKER_MANIFEST => Ok(Self::Manifest),
            OCI_INDEX | DOCKER_LIST => Ok(Self::Index),
            old if old.starts_with(SCHEMA_ONE) => Err(ManifestError::SchemaOne),
            other => Err(ManifestError::UnknownDocument(other.chars().take(200).collect())),
        }
    }
}

pub(super) fn is_image_config(media_type: &str) -> bool {
    matches!(media_type, OCI_CONFIG | DOCKER_CONFIG)
}

/// How a layer's tar archive is compressed, by its media type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LayerCompression {
    /// A plain tar archive.
    None,
    /// gzip, of one or more members.
    Gzip,
    /// zstd, of one or more frames.
    Zstd,
}

impl std::fmt::Display for LayerCompression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "uncompressed",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }
}

impl LayerCompression {
    /// Reads the media type of layer number `index`.
    ///
    /// Layers marked as not distributable or foreign are pulled from the registry like any
    /// other; where the bytes are not there the registry says so. Their `urls` are not followed.
    pub(super) fn of(media_type: &str, index: usize) -> Result<Self, ManifestError> {
        match media_type {
            "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar"
            | "application/vnd.docker.image.rootfs.diff.tar"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar" => Ok(Self::None),
            "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => Ok(Self::Gzip),
            "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.zstd" => Ok(Self::Zstd),
            other => {
                let media_type: String = other.chars().take(200).collect();
                let filesystem = ["erofs", "squashfs", "ext4"].iter().any(|name| other.contains(name));
                Err(if other.ends_with("+encrypted") {
                    ManifestError::EncryptedLayer { index, media_type }
                } else if filesystem {
                    ManifestError::FilesystemLayer { index, media_type }
                } else {
                    ManifestError::UnknownLayer { index, media_type }
                })
            }
        }
    }
}
