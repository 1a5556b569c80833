//! Writes manifests to a repository or layout, and blobs to a repository.
//!
//! Only `composefs-csi seal` and `push` do this; the node plugin never writes to a registry. `seal` writes no layers and
//! configs: the repository or layout has them already. What it publishes beside an image it writes whole.

use async_trait::async_trait;
use bytes::Bytes;

use super::{Source, SourceError};
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

    /// Stores a blob that is in memory, unless it is there.
    async fn put_blob(&self, bytes: Bytes) -> Result<(), SourceError>;

    /// Stores a manifest that names another one as its subject, so that it is found among the referrers of that
    /// (distribution-spec 1.1, "Pushing Manifests with Subject"). In a list that clients keep it takes the place of those of
    /// the same type, which stay where the registry keeps the list.
    async fn put_referrer(&self, manifest: &NewManifest, of: &Referring<'_>) -> Result<(), SourceError>;
}

/// What makes a manifest a referrer; the manifest itself says the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Referring<'a> {
    /// What it is about.
    pub subject: &'a Digest,
    /// Its artifact type.
    pub artifact_type: &'a str,
}

/// A blob to write, whose bytes are known before they are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
}

/// A repository that takes blobs (distribution-spec 1.1, "Push"). It reads from where it writes to, never from a mirror.
#[async_trait]
pub trait Repository: Destination + Source {
    /// Whether the repository has a blob. A registry that does not say so to this credential is taken to have none.
    ///
    /// # Errors
    /// The registry cannot be asked.
    async fn has_blob(&self, blob: &NewBlob) -> Result<bool, SourceError>;

    /// Begins to write a blob. `from` is another repository of the registry, which may have it.
    ///
    /// # Errors
    /// The registry refuses.
    async fn begin(&self, blob: &NewBlob, from: Option<&str>) -> Result<Begun, SourceError>;
}

/// How a blob begins.
#[derive(Debug)]
pub enum Begun {
    /// The registry has taken it from the other repository.
    Mounted,
    /// Its bytes are wanted.
    Open(Box<dyn BlobUpload>),
}

/// A blob that is being written. If it is dropped, the registry forgets it in time.
#[async_trait]
pub trait BlobUpload: Send + std::fmt::Debug {
    /// Sends the next bytes, at most a few MiB: they are sent again from memory if the connection breaks.
    ///
    /// # Errors
    /// They could not be sent, also not by further attempts.
    async fn append(&mut self, bytes: Bytes) -> Result<(), SourceError>;

    /// Ends the blob. The registry compares its digest.
    ///
    /// # Errors
    /// The registry has not all bytes, or others.
    async fn finish(self: Box<Self>) -> Result<(), SourceError>;
}
