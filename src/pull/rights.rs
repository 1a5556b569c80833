//! One request's rights: the rule of [`crate::image::access`] over the store's access records.
//!
//! The credential that the request would show the registry decides: the pod's own, or else the node's for that
//! repository, or else none. So the node's credentials are an identity like any other, and every pod without
//! credentials of its own has it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::error::About as _;
use super::turns::Tenant;
use super::{Caller, ImageRequest, PullError};
use crate::image::access::{AccessRule, ImageFacts, LayerFacts, Origin};
use crate::image::store::{AccessRecord, AccessSubject, Hold, Store};
use crate::oci::digest::Digest;
use crate::oci::{CredentialId, Sources};

/// Seconds. A record from further in the future than this is not believed: the clock was set back.
const CLOCK_SKEW: u64 = 60;

/// What one request may have without asking, and the records of what it has proven.
#[derive(Debug, Clone)]
pub(super) struct Rights {
    store: Arc<Store>,
    rule: Arc<AccessRule>,
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
        rule: &Arc<AccessRule>,
        request: &ImageRequest,
    ) -> Result<Self, PullError> {
        let image = request.reference.to_string();
        let id = sources.identity(&request.reference, &request.credentials).about(&image)?;
        let anonymous = id == CredentialId::anonymous();
        let origin = Origin::of(&request.reference);
        let by_mirrors = sources.is_proven_by_mirrors(&request.reference);
        Ok(Self {
            store: Arc::clone(store),
            rule: Arc::clone(rule),
            caller: request.caller.clone(),
            origin: if by_mirrors { origin.by_mirrors() } else { origin },
            reader: if anonymous { AccessRecord::Anonymous } else { store.access().reader(&id) },
            image,
        })
    }

    /// Where the request wants the image from.
    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The reference, for messages.
    pub(super) fn image(&self) -> &str {
        &self.image
    }

    /// Tells pulls of the same image apart: by origin and credential.
    pub(super) fn identity(&self) -> (Origin, AccessRecord) {
        (self.origin.clone(), self.reader.clone())
    }

    /// Whose share of what a node lends the request uses.
    pub(super) fn tenant(&self) -> Tenant {
        (self.origin.host().to_owned(), self.reader.clone())
    }

    /// Whether there is nothing to hide from the caller.
    pub(super) fn sees_all(&self) -> bool {
        self.caller.is_operator() || self.rule.is_open()
    }

    /// Whether the image is given without asking the registry.
    pub(super) fn is_granted(&self, manifest: &Digest) -> Result<bool, PullError> {
        // The operator runs commands on the node as root, and sees what it has in any case.
        if self.caller.is_operator() {
            return Ok(true);
        }
        let granted = self.rule.image(&self.origin, &self.facts(manifest)?);
        if let Some(given) = granted {
            tracing::debug!(image.digest = %manifest, origin = %self.origin, ?given, "access is on record");
        }
        Ok(granted.is_some())
    }

    /// Whether the request's origin is believed about the image: it had all of its bytes.
    pub(super) fn is_from_here(&self, manifest: &Digest) -> Result<bool, PullError> {
        // Where nothing has to be proven, nothing is gained by fetching the same bytes from each origin.
        Ok(self.rule.is_open() || self.image_time(manifest, &AccessRecord::Origin)?.is_some())
    }

    fn facts(&self, manifest: &Digest) -> Result<ImageFacts, PullError> {
        let checked = match &self.reader {
            AccessRecord::Reader(_) => self.image_time(manifest, &self.reader)?.and_then(age),
            // A caller without credentials has no record of their own; that of all such callers counts.
            _ => None,
        };
        Ok(ImageFacts {
            from_here: self.image_time(manifest, &AccessRecord::Origin)?.is_some(),
            preloaded: self.image_time(manifest, &AccessRecord::Preloaded)?.is_some(),
            anonymous: self.image_time(manifest, &AccessRecord::Anonymous)?.is_some(),
            checked,
        })
    }

    /// When the image was recorded so at the origin, in seconds since 1970; `None` if it is not.
    fn image_time(&self, manifest: &Digest, record: &AccessRecord) -> Result<Option<u64>, PullError> {
        let about = AccessSubject::Image(manifest);
        self.store.access().time_of(about, self.origin.name(), record).about(&self.image)
    }

    /// Records that the origin, which had the image's bytes, has just given it to this request's credential.
    pub(super) fn record_grant(&self, hold: &Hold, manifest: &Digest) -> Result<(), PullError> {
        let now = now();
        self.record_image(hold, manifest, &self.reader, now)?;
        // Each new record removes those that do not count any more, so that they cannot pile up.
        let expired = now.saturating_sub(self.rule.ttl.as_secs());
        self.store.access().forget_readers(manifest, expired).about(&self.image)
    }

    /// Records that all of the image's bytes came from the origin.
    pub(super) fn record_origin(&self, hold: &Hold, manifest: &Digest) -> Result<(), PullError> {
        self.record_image(hold, manifest, &AccessRecord::Origin, now())
    }

    /// Records that the operator has pulled the image for everybody, and of `bytes`, its blobs and layers, those that have
    /// come. What a manifest only names has not: a layer that was put together from parts proves nothing about its blob.
    pub(super) fn record_preload(
        &self,
        hold: &Hold,
        manifest: &Digest,
        bytes: impl IntoIterator<Item = Digest>,
    ) -> Result<(), PullError> {
        for fetched in bytes {
            if self.layer_facts(&fetched)? != LayerFacts::default() {
                self.record_blob(hold, &fetched, "", &AccessRecord::Preloaded)?;
            }
        }
        // Every later `pull` of the image would write the same.
        if self.image_time(manifest, &AccessRecord::Preloaded)?.is_none() {
            self.record_image(hold, manifest, &AccessRecord::Preloaded, now())?;
        }
        Ok(())
    }

    /// The DiffID of a blob whose layer is here, if the caller may use it instead of fetching it.
    pub(super) fn layer(&self, blob: &Digest) -> Result<Option<Digest>, PullError> {
        let Some(diff_id) = self.store.layers().of_blob(blob).about(&self.image)? else { return Ok(None) };
        Ok(self.rule.layer(&self.layer_facts(blob)?).then_some(diff_id))
    }

    fn layer_facts(&self, blob: &Digest) -> Result<LayerFacts, PullError> {
        let access = self.store.access();
        let is_recorded = |host: &str, record: &AccessRecord| {
            let at = access.time_of(AccessSubject::Blob(blob), host, record).about(&self.image)?;
            Ok::<_, PullError>(at.is_some())
        };
        Ok(LayerFacts {
            preloaded: is_recorded("", &AccessRecord::Preloaded)?,
            anonymous: is_recorded("", &AccessRecord::Anonymous)?,
            own: is_recorded(self.origin.host(), &self.reader)?,
        })
    }

    /// Records that this request's credential has fetched these bytes: a blob, or a layer that was put together.
    pub(super) fn record_fetch(&self, hold: &Hold, blob: &Digest) -> Result<(), PullError> {
        // What a registry gives without credentials counts at all hosts. What a layout gives is not public.
        let public = self.reader == AccessRecord::Anonymous && self.origin.is_open();
        let host = if public { "" } else { self.origin.host() };
        self.record_blob(hold, blob, host, &self.reader)
    }

    fn record_image(
        &self,
        hold: &Hold,
        manifest: &Digest,
        record: &AccessRecord,
        at: u64,
    ) -> Result<(), PullError> {
        let (about, origin) = (AccessSubject::Image(manifest), self.origin.name());
        self.store.access().record(hold, about, origin, record, at).about(&self.image)
    }

    fn record_blob(
        &self,
        hold: &Hold,
        blob: &Digest,
        host: &str,
        record: &AccessRecord,
    ) -> Result<(), PullError> {
        let about = AccessSubject::Blob(blob);
        self.store.access().record(hold, about, host, record, now()).about(&self.image)
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
