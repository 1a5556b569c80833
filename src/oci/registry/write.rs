//! Writes manifests to a registry, and nothing else (distribution-spec 1.1, "Pushing Manifests").

use async_trait::async_trait;
use reqwest::Method;

use super::request::Body;
use super::{RegistrySource, Request, SourceError};
use crate::oci::destination::{Destination, NewManifest, NewName};
use crate::oci::digest::Digest;

impl RegistrySource {
    async fn write(&self, manifest: &NewManifest, name: &str) -> Result<(), SourceError> {
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
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Destination for RegistrySource {
    async fn put(&self, manifest: &NewManifest) -> Result<(), SourceError> {
        self.write(manifest, &manifest.digest().to_string()).await
    }

    async fn put_as(&self, manifest: &NewManifest, name: &NewName) -> Result<(), SourceError> {
        match name {
            NewName::Tag(tag) => self.write(manifest, tag).await,
            NewName::PlaceOf(digest) => Err(self.unnamed(digest)),
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
