//! From a request to a plan: is the image here, may the one who asks have it, and if not, what exactly is to be
//! fetched?
//!
//! Everything here runs with the caller's own credentials and outside the single flight, so that joining somebody
//! else's pull never replaces being allowed to make one's own.
//!
//! Nobody learns here what others have: unless the image is given by what is on record, the registry is asked
//! first, by the very request that an image which is not here causes. Its refusal ends the matter.

use std::sync::Arc;

use super::error::About as _;
use super::evidence::Evidence;
use super::manifest_path::ManifestPath;
use super::rights::Rights;
use super::{ImageRequest, PullError, PullPolicy};
use crate::image::store::{ImageRecord, Lease, Store};
use crate::oci::digest::Digest;
use crate::oci::limits::{Cap, Limits};
use crate::oci::manifest::{ImageConfig, Manifest};
use crate::oci::reference::Version;
use crate::oci::{Source, Sources, read_blob};

/// What is to be done for a request.
pub(super) enum Located {
    /// Nothing: the image is in the store, and the one who asks may have it.
    Here(ImageRecord),
    /// It must be fetched.
    There(Box<Plan>),
}

/// An image that must be fetched, pinned to a digest. The registry has given its manifest to the one who asks.
pub(super) struct Plan {
    /// The reference as the user wrote it, for messages.
    pub image: String,
    /// Every name under which the image can be found again.
    pub names: Vec<String>,
    /// The platform's manifest.
    pub digest: Digest,
    /// The same, parsed.
    pub manifest: Manifest,
    /// What it is judged by.
    pub evidence: Evidence,
    /// Where its blobs are.
    pub source: Arc<dyn Source>,
    /// Of the one who asks.
    pub rights: Rights,
}

/// What finding out needs. The caller holds the lease.
pub(super) struct Search<'a> {
    pub store: &'a Store,
    pub limits: &'a Limits,
    pub sources: &'a Sources,
    pub request: &'a ImageRequest,
    pub rights: &'a Rights,
    pub lease: &'a Lease,
    /// The reference as the user wrote it.
    pub image: &'a str,
}

impl Search<'_> {
    /// Finds out whether the request needs a pull.
    pub(super) async fn run(&self) -> Result<Located, PullError> {
        let known = self.known()?;
        if let Some(record) = &known
            && self.rights.is_granted(&record.manifest)?
        {
            return Ok(Located::Here(record.clone()));
        }
        if known.is_none() && self.request.policy == PullPolicy::Never && self.rights.sees_all() {
            return Err(PullError::Absent(self.image.to_owned()));
        }
        let source = self.sources.open(&self.request.reference, &self.request.credentials);
        let source = source.about(self.image)?;
        self.request.watch.asks(&source);
        let top = source.resolve(&self.request.reference.version()).await.about(self.image)?;
        // From here on the one who asks has read the repository with his own credentials.
        if let Some(record) = known
            && self.registry_confirms(&*source, top, &record.manifest).await?
        {
            return Ok(Located::Here(record));
        }
        if let Some(pinned) = self.request.pinned {
            return self.found(source, pinned, Vec::new()).await;
        }
        let names = vec![self.image.to_owned(), self.request.reference.clone().pinned(top).to_string()];
        if let Some(record) = self.recall(&names[1])?
            && (self.rights.is_granted(&record.manifest)?
                || self.registry_confirms(&*source, top, &record.manifest).await?)
        {
            self.remember(&names, &record)?;
            return Ok(Located::Here(record));
        }
        self.found(source, top, names).await
    }

    /// What the request means as far as this node knows, for those who may have it.
    fn known(&self) -> Result<Option<ImageRecord>, PullError> {
        if let Some(pinned) = &self.request.pinned {
            return self.stored(pinned);
        }
        // A digest cannot move: what it names is asked for once, whatever the policy says.
        let fixed = matches!(self.request.reference.version(), Version::Digest(_));
        if self.request.policy == PullPolicy::Always && !fixed {
            return Ok(None);
        }
        self.recall(self.image)
    }

    /// Whether the registry from which a stored image came gives it to the one who asks: a HEAD by digest, unless
    /// that was the request already. Other registries are not believed.
    async fn registry_confirms(
        &self,
        source: &dyn Source,
        top: Digest,
        manifest: &Digest,
    ) -> Result<bool, PullError> {
        if !self.rights.is_from_here(manifest)? {
            return Ok(false);
        }
        if top != *manifest && source.resolve(&Version::Digest(*manifest)).await.is_err() {
            return Ok(false);
        }
        self.rights.record_grant(self.lease, manifest)?;
        Ok(true)
    }

    /// Reads the manifest from the registry, and looks once more whether its image is here.
    async fn found(
        &self,
        source: Arc<dyn Source>,
        top: Digest,
        names: Vec<String>,
    ) -> Result<Located, PullError> {
        let path =
            ManifestPath::resolve_platform(&*source, top, self.limits, &self.request.platform, self.image)
                .await?;
        let (digest, evidence) = (path.digest, Evidence::of(&path));
        if let Some(record) = self.stored(&digest)?
            && self.rights.is_from_here(&digest)?
        {
            self.rights.record_grant(self.lease, &digest)?;
            self.remember(&names, &record)?;
            return Ok(Located::Here(record));
        }
        if self.request.policy == PullPolicy::Never {
            return Err(PullError::Absent(self.image.to_owned()));
        }
        let (image, rights, manifest) = (self.image.to_owned(), self.rights.clone(), path.manifest);
        Ok(Located::There(Box::new(Plan { image, names, digest, manifest, evidence, source, rights })))
    }

    /// What the store knows under `name`.
    fn recall(&self, name: &str) -> Result<Option<ImageRecord>, PullError> {
        match self.store.names().resolve(name, &self.request.platform).about(self.image)? {
            Some(digest) => self.stored(&digest),
            None => Ok(None),
        }
    }

    /// The record of an image. One that is not authentic is put aside where the image can be pulled again, and the
    /// answer where it cannot.
    fn stored(&self, manifest: &Digest) -> Result<Option<ImageRecord>, PullError> {
        match self.request.policy {
            PullPolicy::Never => self.store.images().get(manifest).about(self.image),
            PullPolicy::Always | PullPolicy::IfNotPresent => {
                self.store.images().get_or_set_aside(manifest).about(self.image)
            }
        }
    }

    fn remember(&self, names: &[String], record: &ImageRecord) -> Result<(), PullError> {
        self.store.names().remember(names, &self.request.platform, record.manifest).about(self.image)
    }
}

impl Plan {
    /// Fetches and parses the image's config, checked against its descriptor.
    pub(super) async fn config(&self, limits: &Limits) -> Result<ImageConfig, PullError> {
        let (config, max) = (&self.manifest.config, limits.config_bytes);
        if config.size > max as u64 {
            let exceeded = Cap::ConfigBytes.exceeded(config.size, max);
            return Err(PullError::Limit { image: self.image.clone(), exceeded });
        }
        let bytes = read_blob(&*self.source, config, max).await.about(&self.image)?;
        ImageConfig::parse(&bytes, self.manifest.layers.len()).about(&self.image)
    }
}
