//! Writes manifests to the repository or layout that an image came from.
//!
//! Only `composefs-csi seal` does this; the node plugin never writes to a registry. Layers and configs are not
//! written: the repository or layout has them already.

use async_trait::async_trait;
use bytes::Bytes;

use super::SourceError;
use crate::oci::digest::Digest;

/// A manifest or index to write.
#[derive(Debug, Clone)]
pub struct NewManifest {
    /// Its media type.
    pub media_type: String,
    /// The document.
    pub bytes: Bytes,
}

impl NewManifest {
    /// The digest of the document.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }
}

/// The name to give to a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewName {
    /// This tag, which may exist and then moves.
    Tag(String),
    /// Every name that the manifest with this digest has in a layout. A registry does not list the names of a digest.
    PlaceOf(Digest),
}

/// A repository or layout to write to.
#[async_trait]
pub trait Destination: Send + Sync + std::fmt::Debug {
    /// Stores a manifest under its digest.
    async fn put(&self, manifest: &NewManifest) -> Result<(), SourceError>;

    /// Stores a manifest and gives it a name.
    async fn put_as(&self, manifest: &NewManifest, name: &NewName) -> Result<(), SourceError>;
}
