//! An image's source where there are mirrors: who may read is proven first, then the places are asked in order.
//!
//! Under [`AccessProof::Origin`] no mirror is asked for a digest before the registry itself has confirmed that very
//! digest to the caller's own credential. So a caller gets from a mirror only what a pull without mirrors would have
//! brought, and one without rights is told what the registry says, after the same requests, whatever mirrors have.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::AccessProof;
use super::memory::Memory;
use super::route::Route;
use super::view::{Place, Places, View};
use crate::kind::Kind;
use crate::oci::digest::Digest;
use crate::oci::manifest::Descriptor;
use crate::oci::reference::Version;
use crate::oci::{BlobStream, Ranged, RawManifest, Referrer, Source, SourceError, Wait};

/// A repository that several places have.
#[derive(Debug)]
pub(in crate::oci) struct MirroredSource {
    everywhere: View,
    /// The registry itself.
    own: View,
    proof: AccessProof,
    /// Whether the registry's word about a digest counts.
    is_believed: bool,
}

impl MirroredSource {
    /// `places` as in the route; `image` is for messages.
    pub(in crate::oci) fn new(image: String, places: Vec<Place>, proof: AccessProof, route: &Route) -> Self {
        let (is_believed, serves) = (route.is_believed(), route.origin_serves());
        let own: BTreeSet<_> = (0..places.len()).filter(|at| places[*at].is_own).collect();
        let of = (0..places.len()).filter(|at| serves || !own.contains(at)).collect();
        // Where the registry itself is asked for everything, that is the proof.
        let proof = if route.has_mirrors() { proof } else { AccessProof::Mirror };
        let places = Arc::new(Places { image, all: places, memory: Memory::default() });
        let view = |of| View { places: Arc::clone(&places), of };
        Self { everywhere: view(of), own: view(own), proof, is_believed }
    }

    fn memory(&self) -> &Memory {
        &self.everywhere.places.memory
    }

    /// The digest that the registry confirms to the caller.
    async fn proven(&self, version: &Version) -> Result<Digest, SourceError> {
        let own_tells = matches!(version, Version::Digest(_)) || self.own_resolves();
        let version = if own_tells {
            version.clone()
        } else {
            // The registry may not say what a tag means; what a mirror says must be confirmed.
            self.everywhere.require(version)?;
            Version::Digest(self.everywhere.resolve(version).await?)
        };
        self.own.require(&version)?;
        let digest = self.own.resolve(&version).await.map_err(|error| self.unproven(error))?;
        self.memory().confirm(digest);
        Ok(digest)
    }

    fn own_resolves(&self) -> bool {
        self.own.of.iter().any(|at| self.own.places.all[*at].host.capabilities.resolve)
    }

    /// The error of a registry that cannot be asked now: mirrors could be, but prove nothing.
    fn unproven(&self, error: SourceError) -> SourceError {
        // A limited rate has an Event of its own.
        let passes = error.kind() == Kind::Transient && !matches!(error, SourceError::RateLimited { .. });
        if !passes || !self.is_believed {
            return error;
        }
        SourceError::Unproven { image: self.own.places.image.clone(), source: Box::new(error) }
    }

    /// The places that may be asked for a manifest.
    async fn for_manifest(&self, digest: &Digest) -> Result<&View, SourceError> {
        match self.proof {
            AccessProof::Mirror => Ok(&self.everywhere),
            AccessProof::Origin if !self.is_believed => Ok(&self.own),
            AccessProof::Origin => {
                if !self.memory().is_confirmed(digest) {
                    self.proven(&Version::Digest(*digest)).await?;
                }
                Ok(&self.everywhere)
            }
        }
    }

    /// The places that may be asked for a blob. Where the registry does not confirm it, only the registry itself, which
    /// then says why.
    async fn for_blob(&self, blob: &Descriptor) -> &View {
        match self.proof {
            AccessProof::Mirror => &self.everywhere,
            AccessProof::Origin if !self.is_believed => &self.own,
            AccessProof::Origin if self.memory().is_confirmed(&blob.digest) => &self.everywhere,
            AccessProof::Origin => match self.confirm_blob(blob).await {
                Ok(()) => {
                    self.memory().confirm(blob.digest);
                    &self.everywhere
                }
                Err(error) => {
                    tracing::info!(
                        blob = %blob.digest,
                        %error,
                        "the registry does not confirm it by HEAD, so that no mirror is asked for it"
                    );
                    &self.own
                }
            },
        }
    }

    async fn confirm_blob(&self, blob: &Descriptor) -> Result<(), SourceError> {
        let mut failure = None;
        for at in self.own.order(|able| able.pull, None) {
            match self.own.places.all[at].source.confirm_blob(blob).await {
                Ok(()) => return Ok(()),
                Err(error) => failure = Some(self.own.failed(at, error, failure)),
            }
        }
        Err(failure.map_or_else(|| self.own.absent(), |(_, error)| error))
    }
}

#[async_trait]
impl Source for MirroredSource {
    async fn resolve(&self, version: &Version) -> Result<Digest, SourceError> {
        match self.proof {
            AccessProof::Origin => self.proven(version).await,
            AccessProof::Mirror => {
                self.everywhere.require(version)?;
                self.everywhere.resolve(version).await
            }
        }
    }

    async fn resolve_to_read(&self, version: &Version) -> Result<Digest, SourceError> {
        match self.proof {
            // Where a mirror is going to be asked for the content, the registry need not send it.
            AccessProof::Origin if self.is_believed => self.proven(version).await,
            AccessProof::Origin => self.own.resolve_to_read(version).await,
            AccessProof::Mirror => {
                self.everywhere.require(version)?;
                self.everywhere.resolve_to_read(version).await
            }
        }
    }

    async fn manifest(&self, version: &Version) -> Result<RawManifest, SourceError> {
        let digest = match (version, self.proof) {
            (Version::Digest(digest), _) => *digest,
            (_, AccessProof::Mirror) => return self.everywhere.manifest(version).await,
            (_, AccessProof::Origin) => self.proven(version).await?,
        };
        self.for_manifest(&digest).await?.manifest(&Version::Digest(digest)).await
    }

    async fn blob(&self, descriptor: &Descriptor) -> Result<BlobStream, SourceError> {
        self.for_blob(descriptor).await.blob(descriptor).await
    }

    async fn blob_from(&self, descriptor: &Descriptor, offset: u64) -> Result<BlobStream, SourceError> {
        self.for_blob(descriptor).await.blob_from(descriptor, offset).await
    }

    fn has_ranges(&self) -> bool {
        self.everywhere.has_ranges() || self.own.has_ranges()
    }

    async fn blob_range(&self, descriptor: &Descriptor, range: Range<u64>) -> Result<Ranged, SourceError> {
        self.for_blob(descriptor).await.blob_range(descriptor, range).await
    }

    async fn small_blob(&self, descriptor: &Descriptor) -> Result<Bytes, SourceError> {
        self.for_blob(descriptor).await.small_blob(descriptor).await
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Referrer>, SourceError> {
        self.everywhere.referrers(subject).await
    }

    fn waits(&self) -> Option<Wait> {
        self.own.waits()
    }

    fn try_elsewhere(&self, blob: &Digest) -> bool {
        self.everywhere.try_elsewhere(blob)
    }

    /// The mirrors one by one, then the registry itself. Documents about an image are no part of it: nobody gets them, and
    /// what they say is verified, so nothing has to be proven.
    fn places(&self) -> Vec<Arc<dyn Source>> {
        let mirrors = self.everywhere.of.difference(&self.own.of);
        let own = self.own.of.iter().any(|at| self.everywhere.of.contains(at)).then(|| self.own.of.clone());
        let each = mirrors.map(|at| BTreeSet::from([*at])).chain(own);
        let view = |of| Arc::new(View { places: Arc::clone(&self.own.places), of }) as Arc<dyn Source>;
        each.map(view).collect()
    }
}
