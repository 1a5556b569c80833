//! Writes manifests to a registry, and small blobs (distribution-spec 1.1, "Pushing Manifests").

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::{Method, Response};

use super::request::Body;
use super::{RegistrySource, Request, SourceError};
use crate::oci::Source as _;
use crate::oci::destination::{
    Begun, Destination, NewBlob, NewManifest, NewName, Referring, Repository as _,
};
use crate::oci::digest::Digest;
use crate::oci::manifest::OCI_INDEX;
use crate::oci::reference::Version;
use crate::oci::referrers::{NoIndex, fallback_tag, with_referrer};

/// Bytes of a blob that are sent at a time.
const PIECE: usize = 4 << 20;

impl RegistrySource {
    async fn write(&self, manifest: &NewManifest, name: &str) -> Result<Response, SourceError> {
        let separator = if name.contains(':') { '@' } else { ':' };
        let request = Request {
            method: Method::PUT,
            repository: self.repository.clone(),
            path: format!("manifests/{name}"),
            accept: None,
            offset: 0,
            end: None,
            body: Some(Body { media_type: manifest.media_type.clone(), bytes: manifest.bytes.clone() }),
            upload: None,
            quiet: false,
            subject: format!("{}{separator}{name}", self.name),
        };
        let response = self.client.retrying(&request, || self.client.send(&request)).await?;
        // The registry must have stored the bytes that were sent: those are what gets signed.
        match super::stated_digest(&response).filter(|digest| *digest != manifest.digest()) {
            Some(actual) => {
                let subject = request.subject;
                Err(SourceError::WrongDigest { subject, expected: manifest.digest(), actual })
            }
            None => Ok(response),
        }
    }

    /// Lists a referrer where the registry does not: under the tag that stands for such a list. Somebody who does the same at
    /// the same moment may undo it; registries have no compare-and-swap for tags.
    async fn list_under_tag(&self, manifest: &NewManifest, of: &Referring<'_>) -> Result<(), SourceError> {
        let tag = fallback_tag(of.subject);
        let before = match self.manifest(&Version::Tag(tag.clone())).await {
            Ok(raw) => Some(raw.bytes),
            Err(SourceError::NotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        match with_referrer(before.as_deref(), manifest, of.artifact_type) {
            Ok(Some(bytes)) => {
                let index = NewManifest { media_type: OCI_INDEX.to_owned(), bytes: bytes.into() };
                self.write(&index, &tag).await.map(drop)
            }
            Ok(None) => Ok(()),
            Err(NoIndex) => {
                let detail = format!("the tag {}:{tag} is no list of referrers; remove it", self.name);
                Err(SourceError::Settings { detail })
            }
        }
    }
}

#[async_trait]
impl Destination for RegistrySource {
    async fn put(&self, manifest: &NewManifest) -> Result<(), SourceError> {
        self.write(manifest, &manifest.digest().to_string()).await.map(drop)
    }

    async fn put_as(&self, manifest: &NewManifest, name: &NewName) -> Result<(), SourceError> {
        match name {
            NewName::Tag(tag) => self.write(manifest, tag).await.map(drop),
            NewName::PlaceOf(digest) => Err(self.unnamed(digest)),
        }
    }

    async fn put_blob(&self, bytes: Bytes) -> Result<(), SourceError> {
        let blob = NewBlob { digest: Digest::of(&bytes), size: bytes.len() as u64 };
        if self.has_blob(&blob).await? {
            return Ok(());
        }
        let Begun::Open(mut upload) = self.begin(&blob, None).await? else { return Ok(()) };
        let mut rest = bytes;
        while !rest.is_empty() {
            upload.append(rest.split_to(rest.len().min(PIECE))).await?;
        }
        upload.finish().await
    }

    async fn put_referrer(&self, manifest: &NewManifest, of: &Referring<'_>) -> Result<(), SourceError> {
        let answer = self.write(manifest, &manifest.digest().to_string()).await?;
        // A registry with the API says that it has seen the subject; to others the client keeps the list.
        match answer.headers().contains_key("oci-subject") {
            true => Ok(()),
            false => self.list_under_tag(manifest, of).await,
        }
    }
}

impl RegistrySource {
    /// A registry does not tell which tags point to a digest.
    fn unnamed(&self, digest: &Digest) -> SourceError {
        let detail = format!("{}@{digest} has no tag that could be moved", self.name);
        SourceError::Settings { detail }
    }
}
