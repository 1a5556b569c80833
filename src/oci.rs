//! Where images come from: a registry or an OCI layout directory, behind one seam.
//!
//! A [`Source`] speaks for one repository with one set of credentials. It hands out bytes and
//! checks what concerns *transport*: limits, retries, resumption, that a manifest fetched by
//! digest has that digest. What the bytes mean is [`crate::oci::manifest`]'s business, and blob
//! digests are checked where the bytes are consumed ([`crate::image::layer`]).

use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

use crate::oci::digest::Digest;
use crate::oci::limits::Limits;
use crate::oci::manifest::Descriptor;
use crate::oci::reference::Version;

pub mod credentials;
pub mod destination;
pub mod digest;
mod error;
mod layout;
pub mod limits;
pub mod manifest;
pub mod platform;
mod read_blob;
pub mod reference;
mod referrers;
mod registry;
mod sources;

pub use credentials::{Credential, CredentialId, Credentials};
pub use error::SourceError;
pub use layout::LayoutSource;
pub use read_blob::read_blob;
pub use referrers::Referrer;
pub use registry::{Pace, RegistryMetrics, RetryPolicy, challenge};
pub use sources::{SourceSettings, Sources};

/// The bytes of a manifest or an index exactly as served, with the digest computed over them.
#[derive(Debug, Clone)]
pub struct RawManifest {
    /// sha256 over `bytes`.
    pub digest: Digest,
    /// The media type that the registry gave, or that the document or the index names.
    pub media_type: Option<String>,
    /// At most as many as [`Limits::manifest_bytes`].
    pub bytes: Bytes,
}

/// Manifests and indexes larger than this, in bytes, are refused unless a setting says otherwise.
pub const MANIFEST_MAX: usize = Limits::DEFAULT.manifest_bytes;

/// A blob's bytes in order.
pub type BlobStream = BoxStream<'static, Result<Bytes, SourceError>>;

/// One repository, reached with one set of credentials.
#[async_trait]
pub trait Source: Send + Sync + std::fmt::Debug {
    /// Finds what a tag or digest names now, without its content where the protocol allows.
    async fn resolve(&self, version: &Version) -> Result<Digest, SourceError>;

    /// Fetches a manifest or index; a digest in `version` has been checked on return.
    async fn manifest(&self, version: &Version) -> Result<RawManifest, SourceError>;

    /// Opens a blob. The stream resumes by itself where the far side allows; it ends early or
    /// late only with an error. It yields at most `descriptor.size` bytes. Digests are the
    /// consumer's to check. `descriptor.urls` are never followed.
    async fn blob(&self, descriptor: &Descriptor) -> Result<BlobStream, SourceError>;

    /// Lists what says that it refers to `subject`, in no order that means anything; an empty list where nothing
    /// does. The list is cut where it has no end.
    async fn referrers(&self, subject: &Digest) -> Result<Vec<Referrer>, SourceError>;

    /// What requests wait for just now, because the far side limits their rate.
    fn waits(&self) -> Option<Wait> {
        None
    }
}

/// A registry that wants not to be asked for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// Who said so: the registry, or the token service that it named.
    pub host: String,
    /// Until when.
    pub until: Instant,
}

impl Wait {
    /// How long that is from now; zero when it is over.
    pub fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }
}
