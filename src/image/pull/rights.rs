//! One request's rights: the rule of [`crate::image::access`] over the store's marks.
//!
//! The credential that the request would show the registry decides, whoever wrote it down: the pod's own, or else
//! the node's for that repository, or else none. So the node's credentials are an identity like any other, which
//! every pod without credentials of its own takes on.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::error::About as _;
use super::{Caller, ImageRequest, PullError};
use crate::image::access::{Given, ImageFacts, LayerFacts, Origin, Rule};
use crate::image::store::{AccessRecord, AccessSubject, Lease, Store};
use crate::oci::digest::Digest;
use crate::oci::{CredentialId, Sources};

/// A mark from further in the future than this is not believed: the clock was set back.
const CLOCK_SKEW: u64 = 60;

/// What one request may have without asking, and what it has proven.
#[derive(Debug, Clone)]
pub(super) struct Rights {
    store: Arc<Store>,
    rule: Arc<Rule>,
    caller: Caller,
    origin: Origin,
    /// As whom the request reads: [`AccessRecord::Anonymous`] or [`AccessRecord::Reader`].
    reader: AccessRecord,
    image: String,
}

impl Rights {
    /// The rights of a request. Asks nobody.
    ///
    /// # Errors
    /// The credentials for the reference cannot be used.
    pub(super) fn of(
        store: &Arc<Store>,
        sources: &Sources,
        rule: &Arc<Rule>,
        request: &ImageRequest,
    ) -> Result<Self, PullError> {
        let image = request.reference.to_string();
        let id = sources.identity(&request.reference, &request.credentials).about(&image)?;
        let anonymous = id == CredentialId::anonymous();
        Ok(Self {
            store: Arc::clone(store),
            rule: Arc::clone(rule),
            caller: request.caller.clone(),
            origin: Origin::of(&request.reference),
            reader: if anonymous { AccessRecord::Anonymous } else { store.access().reader(&id) },
            image,
        })
    }

    /// Where the request wants the image from.
    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Tells flights of the same image apart: by credential and registry.
    pub(super) fn identity(&self) -> (Origin, AccessRecord) {
        (self.origin.clone(), self.reader.clone())
    }

    /// Whether there is nothing to hide from the one who asks.
    pub(super) fn sees_all(&self) -> bool {
        self.caller.is_operator() || self.rule.is_open()
    }

    /// Whether the image is given without asking the registry.
    pub(super) fn is_granted(&self, manifest: &Digest) -> Result<bool, PullError> {
        // Who runs commands on a node as root needs no leave to see what it has.
        if self.caller.is_operator() {
            return Ok(true);
        }
        let given = self.rule.image(&self.origin, &self.facts(manifest)?);
        if let Some(given @ (Given::Exempt | Given::Public | Given::Checked)) = given {
            tracing::debug!(image.digest = %manifest, origin = %self.origin, ?given, "access is on record");
        }
        Ok(given.is_some())
    }

    /// Whether this origin is believed about the image: it had all of its bytes.
    pub(super) fn is_from_here(&self, manifest: &Digest) -> Result<bool, PullError> {
        Ok(self.rule.is_open() || self.set(manifest, &AccessRecord::Origin)?.is_some())
    }

    fn facts(&self, manifest: &Digest) -> Result<ImageFacts, PullError> {
        let checked = match &self.reader {
            AccessRecord::Reader(_) => self.set(manifest, &self.reader)?.and_then(age),
            _ => None,
        };
        Ok(ImageFacts {
            from_here: self.set(manifest, &AccessRecord::Origin)?.is_some(),
            preloaded: self.set(manifest, &AccessRecord::Preloaded)?.is_some(),
            anonymous: self.set(manifest, &AccessRecord::Anonymous)?.is_some(),
            checked,
        })
    }

    fn set(&self, manifest: &Digest, mark: &AccessRecord) -> Result<Option<u64>, PullError> {
        self.store
            .access()
            .time_of(AccessSubject::Image(manifest), self.origin.name(), mark)
            .about(&self.image)
    }

    /// Notes that the origin, which had the image's bytes, has just given it to this request's credential.
    pub(super) fn record_grant(&self, lease: &Lease, manifest: &Digest) -> Result<(), PullError> {
        // The operator's credential says nothing about others, and he needs no mark.
        let now = now();
        let about = AccessSubject::Image(manifest);
        self.store.access().record(lease, about, self.origin.name(), &self.reader, now).about(&self.image)?;
        let expired = now.saturating_sub(self.rule.ttl.as_secs());
        self.store.access().forget_readers(lease, manifest, expired).about(&self.image)
    }

    /// Notes that all of the image's bytes came from the origin.
    pub(super) fn came_from_here(&self, lease: &Lease, manifest: &Digest) -> Result<(), PullError> {
        let about = AccessSubject::Image(manifest);
        self.store
            .access()
            .record(lease, about, self.origin.name(), &AccessRecord::Origin, now())
            .about(&self.image)
    }

    /// If this is the operator's `pull`: notes that image and layers are for everybody.
    pub(super) fn preload<'a>(
        &self,
        lease: &Lease,
        manifest: &Digest,
        blobs: impl IntoIterator<Item = &'a Digest>,
    ) -> Result<(), PullError> {
        if self.caller != Caller::Preload {
            return Ok(());
        }
        for blob in blobs {
            self.store
                .access()
                .record(lease, AccessSubject::Blob(blob), "", &AccessRecord::Preloaded, now())
                .about(&self.image)?;
        }
        if self.set(manifest, &AccessRecord::Preloaded)?.is_none() {
            let about = AccessSubject::Image(manifest);
            let origin = self.origin.name();
            self.store
                .access()
                .record(lease, about, origin, &AccessRecord::Preloaded, now())
                .about(&self.image)?;
        }
        Ok(())
    }

    /// The DiffID of a blob whose layer is here, if it may stand in for fetching it.
    pub(super) fn layer(&self, blob: &Digest) -> Result<Option<Digest>, PullError> {
        let Some(diff_id) = self.store.layers().of_blob(blob).about(&self.image)? else { return Ok(None) };
        let set = |origin: &str, mark: &AccessRecord| {
            self.store
                .access()
                .time_of(AccessSubject::Blob(blob), origin, mark)
                .about(&self.image)
                .map(|at| at.is_some())
        };
        let facts = LayerFacts {
            preloaded: set("", &AccessRecord::Preloaded)?,
            anonymous: set("", &AccessRecord::Anonymous)?,
            own: set(self.origin.host(), &self.reader)?,
        };
        Ok(self.rule.layer(&facts).then_some(diff_id))
    }

    /// Notes that this request's credential has fetched the blob.
    pub(super) fn fetched(&self, lease: &Lease, blob: &Digest) -> Result<(), PullError> {
        let public = self.reader == AccessRecord::Anonymous && self.origin.is_open();
        let host = if public { "" } else { self.origin.host() };
        self.store
            .access()
            .record(lease, AccessSubject::Blob(blob), host, &self.reader, now())
            .about(&self.image)
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// How long ago that was; `None` if the clock must have been set back since.
fn age(at: u64) -> Option<Duration> {
    let now = now();
    (at <= now + CLOCK_SKEW).then(|| Duration::from_secs(now.saturating_sub(at)))
}
