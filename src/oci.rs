//! Where images come from: a registry or an OCI layout directory, behind one trait.
//!
//! A [`Source`] reads one repository with one set of credentials. It returns bytes and checks the
//! *transport*: limits, retries, resumption, and that a manifest fetched by digest has that digest.
//! [`manifest`] says what the bytes mean. The consumer of a blob checks its digest
//! ([`crate::image::layer`]).

use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

use crate::oci::digest::Digest;
use crate::oci::manifest::Descriptor;
use crate::oci::reference::Version;

pub mod artifact;
pub mod credentials;
pub mod destination;
pub mod digest;
mod error;
pub(crate) mod files;
mod followed;
mod layout;
pub mod limits;
pub mod manifest;
pub mod platform;
mod read_blob;
pub mod reference;
mod referrers;
mod registry;
mod registry_settings;
mod settings;
mod sources;

pub use credentials::{CredentialId, Credentials};
pub use error::SourceError;
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

    /// Reads a small blob, such as a config, whole. The caller has checked that its size is small, and checks the digest.
    async fn small_blob(&self, descriptor: &Descriptor) -> Result<Bytes, SourceError> {
        whole(self.blob(descriptor).await?).await
    }

    /// Lists the manifests that name `subject` as their subject, in no particular order. The number is bounded.
    async fn referrers(&self, subject: &Digest) -> Result<Vec<Referrer>, SourceError>;

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
