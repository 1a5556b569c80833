//! What a version names, and the manifest of that name: the ways to have it, one after the other.
//!
//! * An answer to HEAD is a hint. Some registries and proxies refuse HEAD, or redirect it to where only GET is allowed;
//!   GET decides ([ADR 0028](../../../docs/adr/0028-what-a-digest-proves-may-come-any-way.md)).
//! * A digest that a registry does not find may still be what the tag beside it names. Content that has the digest is
//!   what was asked for, however it came.
//! * Content that has another digest was damaged on its way; it is fetched once more.
//!
//! Refusals are the same, in number of requests and in words, whichever method the first one had. A stranger could tell
//! otherwise whether the reference is known here ([ADR 0026](../../../docs/adr/0026-how-a-reference-is-resolved.md)).

use std::sync::PoisonError;

use reqwest::{Method, Response};

use super::documents::TimeLeft;
use super::{RawManifest, RegistrySource, Request, stated_digest};
use crate::oci::SourceError;
use crate::oci::digest::Digest;
use crate::oci::reference::Version;

/// What the first answer was.
enum First {
    /// The digest, which a HEAD states.
    Stated(Digest),
    /// The content.
    Content(RawManifest),
    /// Nothing that tells.
    Nothing,
}

impl RegistrySource {
    /// The digest that `version` names. The first request has the method `first`; whatever else comes than an answer, the
    /// content tells. Content is kept to be read.
    pub(super) async fn resolve_by(&self, first: Method, version: &Version) -> Result<Digest, SourceError> {
        let request = Request { quiet: true, ..self.manifest_request(first, version)? };
        let digest = match (self.first_answer(&request, version).await?, version) {
            (First::Stated(digest), _) => digest,
            (First::Content(raw), _) => self.keep(raw),
            (First::Nothing, _) => self.keep(self.fetched(version, true).await?),
        };
        if *version == self.tagged() {
            *self.named.lock().unwrap_or_else(PoisonError::into_inner) = Some(digest);
        }
        Ok(digest)
    }

    /// Asks once, and again only where the registry limits the rate of requests: a download would count as well.
    ///
    /// # Errors
    /// Those that no other request would be spared.
    async fn first_answer(&self, request: &Request, version: &Version) -> Result<First, SourceError> {
        let (mut failed, mut time) = (0, TimeLeft::of(self.client.document_timeout()));
        loop {
            self.client.wait_for_hold(&request.subject).await?;
            let subject = &request.subject;
            let answer = async {
                if request.method == Method::HEAD {
                    let response = self.client.send(request).await?;
                    return Ok(hinted(&response, version).map_or(First::Nothing, First::Stated));
                }
                self.fetch_manifest(request, version).await.map(First::Content)
            };
            match self.client.in_turn(subject, &mut time, answer).await {
                Ok(answer) => return Ok(answer),
                Err(error @ SourceError::RateLimited { .. }) => {
                    failed += 1;
                    self.client.pause_or_fail(failed, error).await?;
                }
                Err(error) if time.is_over() || is_final(&error) => return Err(error),
                Err(error) => {
                    tracing::debug!(registry = self.client.host(), %error, method = %request.method, "asking by GET");
                    return Ok(First::Nothing);
                }
            }
        }
    }

    /// Fetches the manifest of a version: by its name, or else by the tag that names it too; once more if it is damaged.
    /// `quiet` leaves the registry's own words out of a refusal.
    pub(super) async fn fetched(&self, version: &Version, quiet: bool) -> Result<RawManifest, SourceError> {
        let request = Request { quiet, ..self.manifest_request(Method::GET, version)? };
        let fetch = async || self.client.retrying(&request, || self.fetch_manifest(&request, version)).await;
        let found = match fetch().await {
            Err(SourceError::WrongDigest { actual, .. }) => {
                tracing::warn!(subject = request.subject, %actual, "it came with a wrong digest and is fetched again");
                fetch().await
            }
            other => other,
        };
        match (found, version) {
            (Err(missing @ SourceError::NotFound { .. }), Version::Digest(digest)) => {
                self.by_tag(digest, missing, quiet).await
            }
            (other, _) => other,
        }
    }

    /// Fetches what the tag names instead of a digest that was not found, if the tag is known to have named it.
    async fn by_tag(
        &self,
        digest: &Digest,
        missing: SourceError,
        quiet: bool,
    ) -> Result<RawManifest, SourceError> {
        let named = *self.named.lock().unwrap_or_else(PoisonError::into_inner);
        let tagged = self.tagged();
        if named != Some(*digest) || !matches!(tagged, Version::Tag(_)) {
            return Err(missing);
        }
        let request = Request { quiet, ..self.manifest_request(Method::GET, &tagged)? };
        match self.client.retrying(&request, || self.fetch_manifest(&request, &tagged)).await {
            Ok(raw) if raw.digest == *digest => {
                tracing::debug!(subject = request.subject, %digest, "not found by its digest, but by the tag");
                Ok(raw)
            }
            Ok(raw) => Err(SourceError::NotFound {
                subject: format!("{}@{digest} ({tagged} names {} now)", self.name, raw.digest),
            }),
            Err(SourceError::NotFound { .. }) => Err(missing),
            Err(other) => Err(other),
        }
    }

    fn tagged(&self) -> Version {
        self.tag.clone().map_or(Version::Sole, Version::Tag)
    }

    /// Keeps a manifest to be read.
    fn keep(&self, raw: RawManifest) -> Digest {
        let digest = raw.digest;
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(raw);
        digest
    }
}

/// The digest that a HEAD states, unless it contradicts the one that was asked for: then the content decides.
fn hinted(response: &Response, version: &Version) -> Option<Digest> {
    let stated = stated_digest(response)?;
    (!matches!(version, Version::Digest(wanted) if *wanted != stated)).then_some(stated)
}

/// Whether a failure is one of this node's settings or of the connection's security, which a second request has as well.
fn is_final(error: &SourceError) -> bool {
    matches!(
        error,
        SourceError::Certificate { .. }
            | SourceError::PlainHttp { .. }
            | SourceError::InsecureRealm { .. }
            | SourceError::Settings { .. }
            | SourceError::Credential(_)
            | SourceError::Limit { .. }
    )
}
