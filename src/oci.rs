//! Where images come from: a registry or an OCI layout directory, behind one trait.
//!
//! A [`Source`] reads one repository with one set of credentials. It returns bytes and checks the
//! *transport*: limits, retries, resumption, and that a manifest fetched by digest has that digest.
//! [`manifest`] says what the bytes mean. The consumer of a blob checks its digest
//! ([`crate::image::layer`]).

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

use crate::oci::digest::Digest;
use crate::oci::manifest::Descriptor;
use crate::oci::reference::Version;

pub mod artifact;
pub mod choice;
pub mod credentials;
pub mod destination;
pub mod digest;
mod error;
pub(crate) mod files;
mod followed;
mod layout;
pub mod limits;
pub mod manifest;
pub mod mirrors;
pub mod platform;
mod ranged;
mod read_blob;
pub mod reference;
mod referrers;
mod registry;
mod registry_settings;
mod settings;
mod sources;

pub use credentials::{CredentialId, Credentials};
pub use error::{RedirectedError, SourceError};
pub use ranged::Ranged;
pub(crate) use ranged::without_start;
pub use read_blob::read_blob;
use read_blob::whole;
pub use referrers::Referrer;
pub use registry::{DocumentRules, Pace, RegistryMetrics, RetryPolicy, challenge};
pub use settings::SourceSettings;
pub use sources::Sources;

/// The bytes of a manifest or an index exactly as served, and their digest.
#[derive(Debug, Clone)]
pub struct RawManifest {
    /// sha256 over `bytes`.
    pub digest: Digest,
    /// The media type that the registry, the document or the index states.
    pub media_type: Option<String>,
    /// At most [`limits::ImageLimits::manifest_bytes`].
    pub bytes: Bytes,
}

/// A blob's bytes in order.
pub type BlobStream = BoxStream<'static, Result<Bytes, SourceError>>;

/// One repository, reached with one set of credentials.
#[async_trait]
pub trait Source: Send + Sync + std::fmt::Debug {
    /// Returns the digest that a tag or digest names now, without its content where the protocol allows.
    async fn resolve(&self, version: &Version) -> Result<Digest, SourceError>;

    /// As [`Source::resolve`], for a caller who is going to read what it names: the content comes in the same answer where
    /// the protocol allows, and is kept for the next [`Source::manifest`]. A refusal has the words of `resolve`, so that
    /// nobody can tell which of the two was asked.
    async fn resolve_to_read(&self, version: &Version) -> Result<Digest, SourceError> {
        self.resolve(version).await
    }

    /// Fetches a manifest or index. If `version` is a digest, the bytes have been checked against it.
    async fn manifest(&self, version: &Version) -> Result<RawManifest, SourceError>;

    /// Opens a blob. The stream resumes by itself where the server allows. It yields exactly
    /// `descriptor.size` bytes or ends with an error. The consumer checks the digest.
    /// `descriptor.urls` are never followed.
    async fn blob(&self, descriptor: &Descriptor) -> Result<BlobStream, SourceError>;

    /// [`Source::blob`] without its first `offset` bytes, of which there are at most `descriptor.size`.
    async fn blob_from(&self, descriptor: &Descriptor, offset: u64) -> Result<BlobStream, SourceError> {
        Ok(without_start(self.blob(descriptor).await?, offset))
    }

    /// Whether parts of blobs are worth asking for: not where a blob is a local file, nor where the server is known to
    /// refuse them. Asks nobody.
    fn has_ranges(&self) -> bool {
        false
    }

    /// Opens the part of a blob from byte `range.start` to the one before `range.end`. The range is not empty and lies
    /// within `descriptor.size`. One request for one closed range, so that a server that ignores it costs nothing: its
    /// answer is the whole blob, as [`Source::blob`] gives it.
    ///
    /// # Errors
    /// Those of [`Source::blob`]. That the server does not serve the range is no error, but [`Ranged::Refused`].
    async fn blob_range(&self, descriptor: &Descriptor, range: Range<u64>) -> Result<Ranged, SourceError> {
        let _ = range;
        Ok(Ranged::Whole(self.blob(descriptor).await?))
    }

    /// [`Source::blob_range`] by a connection beside another one of the same blob. A server that does not want it is not
    /// asked again: any failure to open it is returned at once.
    ///
    /// # Errors
    /// Those of [`Source::blob_range`].
    async fn extra_range(&self, descriptor: &Descriptor, range: Range<u64>) -> Result<Ranged, SourceError> {
        self.blob_range(descriptor, range).await
    }

    /// Whether several parts of a blob may be asked for at the same time: not where the server refused that lately. Asks
    /// nobody.
    fn takes_extra_ranges(&self) -> bool {
        self.has_ranges()
    }

    /// Reads a small blob, such as a config, whole. The caller has checked that its size is small, and checks the digest.
    async fn small_blob(&self, descriptor: &Descriptor) -> Result<Bytes, SourceError> {
        whole(self.blob(descriptor).await?).await
    }

    /// Lists the manifests that name `subject` as their subject, in no particular order. The number is bounded.
    async fn referrers(&self, subject: &Digest) -> Result<Vec<Referrer>, SourceError>;

    /// Told that the bytes of the last [`Source::blob`] of this digest were not the blob. Whether the next one comes from
    /// another place, which may have the right ones.
    fn try_elsewhere(&self, blob: &Digest) -> bool {
        let _ = blob;
        false
    }

    /// The places at which documents about an image may lie, such as signatures: none of them hides what another has. Empty
    /// if this source is the only one.
    fn places(&self) -> Vec<Arc<dyn Source>> {
        Vec::new()
    }

    /// What requests wait for at the moment because the server limits their rate.
    fn waits(&self) -> Option<Wait> {
        None
    }
}

/// A server's request to send nothing for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// The server that asked for it: the registry, or the token service that it named.
    pub host: String,
    /// When it ends.
    pub until: Instant,
}

impl Wait {
    /// The time left; zero when it is over.
    pub fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }
}
