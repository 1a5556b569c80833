//! A client of OCI distribution-spec 1.1 that withstands failing and hostile servers. It pulls and pushes.
//!
//! One [`RegistryClient`] per registry and credential holds the tokens. All clients share one
//! [`Transport`], whose connections carry no identity. `docs/adr/0015-where-oci-client-is-used.md` says why
//! this is not the client of `oci-client`.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, TryStreamExt as _};
use reqwest::{Method, Response};

use super::{BlobStream, RawManifest, Referrer, Source, SourceError, Wait, whole};
use crate::oci::Ranged;
use crate::oci::digest::Digest;
use crate::oci::limits::Cap;
use crate::oci::manifest::{ACCEPTED_MEDIA_TYPES, Descriptor};
use crate::oci::reference::{RegistryReference, Version};

mod authorization;
mod blob;
mod body;
pub mod challenge;
mod client;
mod coding;
mod documents;
mod failure;
mod hold;
mod listing;
mod location;
mod metrics;
mod pace;
mod page;
mod presence;
mod range;
mod redirect;
mod request;
mod resolve;
mod retry;
mod retry_after;
mod scopes;
mod timed;
mod token;
mod transport;
mod upload;
mod waiting;
mod write;

use body::{Body, stated_type};
pub(super) use client::{ApiAddress, RegistryClient};
pub use documents::DocumentRules;
use documents::TimeLeft;
use location::Locations;
pub use metrics::RegistryMetrics;
use metrics::Standing;
pub use pace::Pace;
use request::Request;
pub use retry::RetryPolicy;
pub(super) use transport::{EndpointTls, Patience, Transport};

/// One repository of a registry.
#[derive(Debug)]
pub(super) struct RegistrySource {
    client: Arc<RegistryClient>,
    /// `HOST/REPOSITORY`, for messages.
    name: String,
    repository: String,
    /// The tag of the reference, and what it names: the reference's digest, or what the tag was resolved to here.
    tag: Option<String>,
    named: Mutex<Option<Digest>>,
    /// The last manifest that came with an answer to what a version names, until it is read.
    kept: Mutex<Option<RawManifest>>,
    /// Where parts of blobs were found.
    locations: Arc<Locations>,
    /// What the registry is to the image.
    standing: Standing,
}

impl RegistrySource {
    pub(super) fn new(client: Arc<RegistryClient>, reference: &RegistryReference) -> Self {
        let repository = reference.repository().to_owned();
        Self::at(client, reference, (reference.name(), repository), true)
    }

    /// The repository of `reference` under another name, which messages use, at another place. `by_tag` says whether the
    /// tag means the same there.
    pub(super) fn at(
        client: Arc<RegistryClient>,
        reference: &RegistryReference,
        (name, repository): (String, String),
        by_tag: bool,
    ) -> Self {
        let tag = reference.tag_or_default().map(str::to_owned).filter(|_| by_tag);
        let named = reference.pinned_digest();
        let (named, kept, locations) = (Mutex::new(named), Mutex::default(), Arc::default());
        Self { client, name, repository, tag, named, kept, locations, standing: Standing::Origin }
    }

    /// The same, where it is a mirror of the image's registry.
    pub(super) fn into_mirror(self) -> Self {
        Self { standing: Standing::Mirror, ..self }
    }

    /// Counts the bytes of a blob as they come.
    fn counted(&self, stream: BlobStream) -> BlobStream {
        let (metrics, standing) = (self.client.metrics().clone(), self.standing);
        stream.inspect_ok(move |chunk| metrics.count_received(standing, chunk.len())).boxed()
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
            upload: None,
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
        Ok(match range::open(Arc::clone(&self.client), request, wanted).await? {
            Ranged::Part(stream) => Ranged::Part(self.counted(stream)),
            Ranged::Whole(stream) => Ranged::Whole(self.counted(stream)),
            Ranged::Refused(error) => Ranged::Refused(error),
        })
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
            upload: None,
            quiet: false,
            subject,
        })
    }

    async fn fetch_manifest(&self, request: &Request, version: &Version) -> Result<RawManifest, SourceError> {
        let response = self.client.send(request).await?;
        let media_type = stated_media_type(&response);
        let stated = stated_digest(&response);
        let answered = response.url().clone();
        let bytes = self.read_bounded(request, response).await?;
        // A page has whatever digest; that nobody asked for one is what matters.
        if let Some(page) = page::described(&bytes) {
            return Err(self.client.protocol(&request.subject, page, Some(&answered)));
        }
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

    async fn read_bounded(&self, request: &Request, response: Response) -> Result<Bytes, SourceError> {
        let max = self.client.limits().manifest_bytes;
        let too_large = |found: u64| SourceError::Limit {
            subject: format!("manifest {}", request.subject),
            exceeded: Cap::ManifestBytes.exceeded(found, max),
        };
        if let Some(length) = response.content_length().filter(|length| *length > max as u64) {
            return Err(too_large(length));
        }
        // The length may be absent or a lie, so the limit holds for what arrives and what it expands to as well.
        let unreadable = |error| self.client.unreadable(error, &request.subject);
        let (mut bytes, mut body) = (BytesMut::new(), Body::of(response).map_err(unreadable)?);
        while let Some(chunk) = body.chunk().await.map_err(unreadable)? {
            if bytes.len() + chunk.len() > max {
                return Err(too_large((bytes.len() + chunk.len()) as u64));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.freeze())
    }
}

/// The media type that the registry states, where it is one of a document. Servers give others to any file (storage,
/// proxies), or several at once: then the document itself tells what it is.
fn stated_media_type(response: &Response) -> Option<String> {
    stated_type(response).filter(|stated| stated.starts_with("application/vnd.") && !stated.contains(','))
}

/// The digest that the registry states, if it is one that this driver can verify.
fn stated_digest(response: &Response) -> Option<Digest> {
    response.headers().get("docker-content-digest")?.to_str().ok()?.parse().ok()
}

#[async_trait]
impl Source for RegistrySource {
    async fn resolve(&self, version: &Version) -> Result<Digest, SourceError> {
        self.resolve_by(Method::HEAD, version).await
    }

    async fn resolve_to_read(&self, version: &Version) -> Result<Digest, SourceError> {
        self.resolve_by(Method::GET, version).await
    }

    async fn manifest(&self, version: &Version) -> Result<RawManifest, SourceError> {
        if let Version::Digest(wanted) = version {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(raw) = kept.take_if(|kept| kept.digest == *wanted) {
                return Ok(raw);
            }
        }
        self.fetched(version, false).await
    }

    async fn blob(&self, descriptor: &Descriptor) -> Result<BlobStream, SourceError> {
        self.blob_from(descriptor, 0).await
    }

    async fn blob_from(&self, descriptor: &Descriptor, offset: u64) -> Result<BlobStream, SourceError> {
        let request = Request { offset, ..self.blob_request(descriptor) };
        Ok(self.counted(blob::open(Arc::clone(&self.client), request, descriptor.size).await?))
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
