//! The puller: a request in, an image in the store out.

use std::sync::Arc;

use async_trait::async_trait;

use super::error::About as _;
use super::execute::Execution;
use super::pulls::Pulls;
use super::{
    Busy, Combination, ImageRequest, Images, PullError, PullGauges, PullLimits, PullMetrics, PullUnderWay,
    Ready,
};
use crate::image::access::AccessRule;
use crate::image::store::Store;
use crate::oci::digest::Digest;
use crate::oci::reference::Reference;
use crate::oci::{Credentials, Sources};
use crate::trust::PolicyEngine;

/// Makes images available: the one implementation of [`Images`].
#[derive(Debug)]
pub struct Puller {
    require_digest: bool,
    pulls: Pulls,
}

impl Puller {
    /// A puller into `store`.
    pub fn new(
        store: Arc<Store>,
        sources: Sources,
        engine: Arc<dyn PolicyEngine>,
        rule: AccessRule,
        limits: PullLimits,
    ) -> Self {
        Self { require_digest: false, pulls: Pulls::new(store, sources, engine, rule, limits) }
    }

    /// The same, refusing images whose manifest does not carry their composefs digest, if `required`.
    #[must_use]
    pub fn with_digest_required(self, required: bool) -> Self {
        Self { require_digest: required, ..self }
    }

    /// What is counted of pulls.
    pub fn metrics(&self) -> &PullMetrics {
        self.pulls.metrics()
    }

    /// Metrics of the pulls under way.
    pub fn gauges(&self) -> PullGauges {
        self.pulls.gauges()
    }

    /// What is lent in turns, and how much of it.
    pub fn busy(&self) -> Busy {
        self.pulls.busy()
    }

    /// The pulls under way, the oldest first.
    pub fn under_way(&self) -> Vec<PullUnderWay> {
        self.pulls.list()
    }

    /// Ends the pulls of the image that is named by its manifest's digest or its reference, and returns them. Their
    /// callers get [`PullError::Cancelled`]; what is complete stays for the next pull.
    pub fn cancel(&self, wanted: &str) -> Vec<PullUnderWay> {
        self.pulls.cancel(wanted)
    }

    /// What a reference means now: the digest of its manifest or index. Its own, if it has one.
    ///
    /// # Errors
    /// The registry has no answer, or the credentials cannot be used.
    pub async fn resolve(
        &self,
        reference: &Reference,
        credentials: &Credentials,
    ) -> Result<Digest, PullError> {
        if let Some(digest) = reference.digest() {
            return Ok(digest);
        }
        let sources = self.pulls.sources();
        sources.ask_helpers(reference, credentials).await;
        let resolve = async || sources.open(reference, credentials)?.resolve(&reference.version()).await;
        resolve().await.about(&reference.to_string())
    }

    /// Whether images must carry their composefs digest.
    pub(super) fn requires_digest(&self) -> bool {
        self.require_digest
    }

    pub(super) fn pulls(&self) -> &Pulls {
        &self.pulls
    }
}

#[async_trait]
impl Images for Puller {
    async fn ensure(&self, request: &ImageRequest) -> Result<Ready, PullError> {
        self.pulls.sources().ask_helpers(&request.reference, &request.credentials).await;
        Execution::new(&self.pulls, request)?.run(self.require_digest).await
    }

    async fn combine(&self, first: &ImageRequest, wanted: Combination) -> Result<Ready, PullError> {
        let combined = self.pulls.combine(first, wanted).await?;
        let (record, hold) = (combined.record, combined.hold);
        Ok(Ready { image: record.image, record, hold, fetched: 0, admission: None })
    }

    fn used(&self, manifest: &Digest) {
        self.pulls.used(manifest);
    }
}
