//! Writing manifests to where an image came from. Only `composefs-csi seal` does; the node plugin never writes to a
//! registry.
//!
//! Layers and configs stay as they are: a manifest is written into the repository (or layout) that has them already.

use async_trait::async_trait;
use bytes::Bytes;

use super::SourceError;
use crate::oci::digest::Digest;

/// A manifest or index to be written.
#[derive(Debug, Clone)]
pub struct NewManifest {
    /// Its media type.
    pub media_type: String,
    /// The document.
    pub bytes: Bytes,
}

impl NewManifest {
    /// The digest it has.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }
}

/// The name that a manifest gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewName {
    /// This tag, wherever it points now.
    Tag(String),
    /// Every name that this manifest has in the layout. A registry tells no names of a digest.
    PlaceOf(Digest),
}

/// One repository, or one layout, to write to.
#[async_trait]
pub trait Destination: Send + Sync + std::fmt::Debug {
    /// Stores a manifest under its digest.
    async fn put(&self, manifest: &NewManifest) -> Result<(), SourceError>;

    /// Stores a manifest and gives it a name.
    async fn put_as(&self, manifest: &NewManifest, name: &NewName) -> Result<(), SourceError>;
}
