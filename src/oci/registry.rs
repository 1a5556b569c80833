//! A client of OCI distribution-spec 1.1 that withstands failing and hostile servers. It pulls, and pushes manifests.
//!
//! One [`RegistryClient`] per registry and credential holds the tokens. All clients share one
//! [`Transport`], whose connections carry no identity. `docs/adr/0015-where-oci-client-is-used.md` says why
//! this is not the client of `oci-client`.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use reqwest::{Method, Response, header};

use super::{BlobStream, RawManifest, Referrer, Source, SourceError, Wait, whole};
use crate::oci::Ranged;
use crate::oci::digest::Digest;
use crate::oci::limits::Cap;
use crate::oci::manifest::{ACCEPTED_MEDIA_TYPES, Descriptor};
use crate::oci::reference::{RegistryReference, Version};

mod authorization;
mod blob;
pub mod challenge;
mod client;
mod documents;
mod failure;
mod hold;
mod listing;
mod location;
mod metrics;
mod pace;
mod range;
mod request;
mod retry;
mod timed;
mod token;
mod transport;
mod waiting;
mod write;

pub(super) use client::RegistryClient;
pub use documents::DocumentRules;
use documents::TimeLeft;
use location::Locations;
pub use metrics::RegistryMetrics;
pub use pace::Pace;
use request::Request;
pub use retry::RetryPolicy;
pub(super) use transport::Transport;

/// One repository of a registry.
#[derive(Debug)]
pub(super) struct RegistrySource {
    client: Arc<RegistryClient>,
    /// `HOST/REPOSITORY`, for messages.
    name: String,
    repository: String,
    /// The last manifest that came with an answer to what a version names, until it is read.
    kept: Mutex<Option<RawManifest>>,
    /// Where parts of blobs were found.
    locations: Arc<Locations>,
}

impl RegistrySource {
    pub(super) fn new(client: Arc<RegistryClient>, reference: &RegistryReference) -> Self {
        let (name, repository) = (reference.name(), reference.repository().to_owned());
        Self { client, name, repository, kept: Mutex::default(), locations: Arc::default() }
    }

    /// Fetches a manifest to learn its digest, and keeps it to be read.
    async fn keep(&self, request: &Request, version: &Version) -> Result<Digest, SourceError> {
        let raw = self.fetched(request, version).await?;
        let digest = raw.digest;
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(raw);
        Ok(digest)
    }

    async fn fetched(&self, request: &Request, version: &Version) -> Result<RawManifest, SourceError> {
        self.client.retrying(request, || self.fetch_manifest(request, version)).await
    }

    fn blob_request(&self, descriptor: &Descriptor) -> Request {
        Request {
            method: Method::GET,
            repository: self.repository.clone(),
            path: format!("blobs/{}", descriptor.digest),
            accept: None,
            offset: 0,
            end: None,
            body: None,
            quiet: false,
            subject: format!("blob {} of {}", descriptor.digest, self.name),
        }
    }

    async fn part(
        &self,
        descriptor: &Descriptor,
        range: Range<u64>,
        is_extra: bool,
    ) -> Result<Ranged, SourceError> {
        let (offset, end) = (range.start, Some(range.end));
        let request = Request { offset, end, ..self.blob_request(descriptor) };
        let (blob, size, locations) = (descriptor.digest, descriptor.size, Arc::clone(&self.locations));
        let wanted = range::Wanted { blob, size, locations, is_extra };
        range::open(Arc::clone(&self.client), request, wanted).await
    }

    fn manifest_request(&self, method: Method, version: &Version) -> Result<Request, SourceError> {
        let (subject, name) = match version {
            Version::Tag(tag) => (format!("{}:{tag}", self.name), tag.clone()),
            Version::Digest(digest) => (format!("{}@{digest}", self.name), digest.to_string()),
            Version::Sole => return Err(SourceError::NotFound { subject: self.name.clone() }),
        };
        Ok(Request {
            method,
            repository: self.repository.clone(),
            path: format!("manifests/{name}"),
            accept: Some(ACCEPTED_MEDIA_TYPES.join(", ")),
            offset: 0,
            end: None,
            body: None,
            quiet: false,
            subject,
        })
    }

    async fn fetch_manifest(&self, request: &Request, version: &Version) -> Result<RawManifest, SourceError> {
        let response = self.client.send(request).await?;
        let media_type = stated_media_type(&response);
        let stated = stated_digest(&response);
        let bytes = self.read_bounded(request, response).await?;
        let digest = Digest::of(&bytes);
        let expected = match version {
            // The caller's digest decides; what the server states about it proves nothing.
            Version::Digest(wanted) => Some(*wanted),
            _ => stated,
        };
        match expected.filter(|expected| *expected != digest) {
            Some(expected) => {
                Err(SourceError::WrongDigest { subject: request.subject.clone(), expected, actual: digest })
            }
            None => Ok(RawManifest { digest, media_type, bytes }),
        }
    }

    async fn read_bounded(&self, request: &Request, mut response: Response) -> Result<Bytes, SourceError> {
        let max = self.client.limits().manifest_bytes;
        let too_large = |found: u64| SourceError::Limit {
            subject: format!("manifest {}", request.subject),
            exceeded: Cap::ManifestBytes.exceeded(found, max),
        };
        if let Some(length) = response.content_length().filter(|length| *length > max as u64) {
            return Err(too_large(length));
        }
        // The length may be absent or a lie, so the limit holds for what arrives as well.
        let mut bytes = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.client.broken(e, &request.subject))? {
            if bytes.len() + chunk.len() > max {
                return Err(too_large((bytes.len() + chunk.len()) as u64));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.freeze())
    }
}

/// The media type that the registry states, without parameters; `None` for types that servers
/// give to any file.
fn stated_media_type(response: &Response) -> Option<String> {
    let value = response.headers().get(header::CONTENT_TYPE)?.to_str().ok()?;
    let bare = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match bare.as_str() {
        "" | "application/json" | "application/octet-stream" | "text/plain" => None,
        _ => Some(bare),
    }
}

/// The digest that the registry states, if it is one that this driver can verify.
fn stated_digest(response: &Response) -> Option<Digest> {
    response.headers().get("docker-content-digest")?.to_str().ok()?.parse().ok()
}

#[async_trait]
impl Source for RegistrySource {
    async fn resolve(&self, version: &Version) -> Result<Digest, SourceError> {
        let request = self.manifest_request(Method::HEAD, version)?;
        let answer = self.client.retrying(&request, || self.client.send(&request)).await;
        let stated = match answer {
            Ok(response) => stated_digest(&response),
            // Some proxies in front of registries do not support HEAD.
            Err(SourceError::Protocol { .. }) => None,
            Err(other) => return Err(other),
        };
        match (stated, version) {
            (Some(actual), Version::Digest(expected)) if actual != *expected => {
                let subject = request.subject;
                Err(SourceError::WrongDigest { subject, expected: *expected, actual })
            }
            (Some(digest), _) => Ok(digest),
            // Without a stated digest only the content tells.
            (None, _) => self.keep(&self.manifest_request(Method::GET, version)?, version).await,
        }
    }

    async fn resolve_to_read(&self, version: &Version) -> Result<Digest, SourceError> {
        let request = Request { quiet: true, ..self.manifest_request(Method::GET, version)? };
        self.keep(&request, version).await
    }

    async fn manifest(&self, version: &Version) -> Result<RawManifest, SourceError> {
        if let Version::Digest(wanted) = version {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(raw) = kept.take_if(|kept| kept.digest == *wanted) {
                return Ok(raw);
            }
        }
        self.fetched(&self.manifest_request(Method::GET, version)?, version).await
    }

    async fn blob(&self, descriptor: &Descriptor) -> Result<BlobStream, SourceError> {
        self.blob_from(descriptor, 0).await
    }

    async fn blob_from(&self, descriptor: &Descriptor, offset: u64) -> Result<BlobStream, SourceError> {
        let request = Request { offset, ..self.blob_request(descriptor) };
        blob::open(Arc::clone(&self.client), request, descriptor.size).await
    }

    fn has_ranges(&self) -> bool {
        self.client.ranges().may_be_asked(self.client.host())
    }

    async fn blob_range(&self, descriptor: &Descriptor, range: Range<u64>) -> Result<Ranged, SourceError> {
        self.part(descriptor, range, false).await
    }

    async fn extra_range(&self, descriptor: &Descriptor, range: Range<u64>) -> Result<Ranged, SourceError> {
        self.part(descriptor, range, true).await
    }

    fn takes_extra_ranges(&self) -> bool {
        self.has_ranges() && self.client.ranges().may_have_more(self.client.host())
    }

    async fn small_blob(&self, descriptor: &Descriptor) -> Result<Bytes, SourceError> {
        let subject = format!("blob {} of {}", descriptor.digest, self.name);
        let mut time = TimeLeft::of(self.client.document_timeout());
        // The stream itself tries again.
        let read = async { whole(self.blob(descriptor).await?).await };
        self.client.in_turn(&subject, &mut time, read).await
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Referrer>, SourceError> {
        self.list_referrers(subject).await
    }

    fn waits(&self) -> Option<Wait> {
        self.client.hold.current()
    }
}

#[cfg(test)]
mod tests;
