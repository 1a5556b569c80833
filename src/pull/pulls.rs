//! The pulls of a node: what they share, and how callers share them.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tracing::Instrument as _;

use super::admission::AdmissionControl;
use super::layers::LayerFetcher;
use super::pull_task::{PullContext, PullTask, PulledImage};
use super::rights::Rights;
use super::single_flight::{Lost, SingleFlight};
use super::{ImageRequest, Progress, PullError, PullLimits, PullMetrics};
use crate::image::access::{AccessRule, Origin};
use crate::image::store::{AccessRecord, ImageRecord, Store};
use crate::oci::Sources;
use crate::oci::digest::Digest;
use crate::oci::limits::ImageLimits;
use crate::trust::PolicyEngine;

/// The pulls into one store.
#[derive(Debug)]
pub(super) struct Pulls {
    context: Arc<PullContext>,
    control: AdmissionControl,
    under_way: SingleFlight<PullKey, Arc<Progress>, Result<PulledImage, PullError>>,
}

/// Who shares a pull: those to whom the same origin gave the same manifest. What an image is made of may depend on
/// where it comes from, until all of it has come.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct PullKey {
    manifest: Digest,
    origin: Origin,
    /// Only callers that read as this share the pull; every caller if `None`.
    reader: Option<AccessRecord>,
}

impl Pulls {
    /// No pulls yet.
    pub(super) fn new(
        store: Arc<Store>,
        sources: Sources,
        engine: Arc<dyn PolicyEngine>,
        rule: AccessRule,
        limits: PullLimits,
    ) -> Self {
        let control = AdmissionControl { store: Arc::clone(&store), engine, memory: Arc::default() };
        let metrics = PullMetrics::default();
        let layers =
            LayerFetcher::new(Arc::clone(&store), limits.parallel_layers, limits.image, metrics.clone());
        let (rule, building) = (Arc::new(rule), Semaphore::new(1));
        let context = Arc::new(PullContext { store, sources, rule, layers, limits, building, metrics });
        Self { context, control, under_way: SingleFlight::new() }
    }

    pub(super) fn metrics(&self) -> &PullMetrics {
        &self.context.metrics
    }

    pub(super) fn control(&self) -> &AdmissionControl {
        &self.control
    }

    pub(super) fn store(&self) -> &Store {
        &self.context.store
    }

    pub(super) fn sources(&self) -> &Sources {
        &self.context.sources
    }

    pub(super) fn fetcher(&self) -> &LayerFetcher {
        &self.context.layers
    }

    pub(super) fn image_limits(&self) -> &ImageLimits {
        &self.context.limits.image
    }

    /// The rights of a request.
    ///
    /// # Errors
    /// The credentials for the reference cannot be used.
    pub(super) fn rights(&self, request: &ImageRequest) -> Result<Rights, PullError> {
        let PullContext { store, sources, rule, .. } = &*self.context;
        Rights::of(store, sources, rule, request)
    }

    /// Waits for the pull of an image, which another caller may have started.
    pub(super) async fn pull(
        &self,
        task: &Arc<PullTask>,
        request: &ImageRequest,
    ) -> Result<PulledImage, PullError> {
        let (origin, reader) = task.rights.identity();
        let mut key = PullKey { manifest: task.path.digest, origin, reader: None };
        let (pulled, started) = self.join_or_start(key.clone(), task, request).await;
        match pulled {
            // The refusal of another caller's credential says nothing about this caller.
            Err(error) if !started && error.is_refused_by_source() => {
                key.reader = Some(reader);
                self.join_or_start(key, task, request).await.0
            }
            pulled => pulled,
        }
    }

    async fn join_or_start(
        &self,
        key: PullKey,
        task: &Arc<PullTask>,
        request: &ImageRequest,
    ) -> (Result<PulledImage, PullError>, bool) {
        let (context, starter) = (Arc::clone(&self.context), Arc::clone(task));
        let joined = self.under_way.join(key, move || {
            let (image, manifest) = (&starter.image, starter.path.digest);
            let progress = Arc::new(Progress::of(manifest, &starter.path.manifest));
            let span = tracing::info_span!("pull", image.reference = %image, image.digest = %manifest);
            let seen = Arc::clone(&progress);
            (progress, async move { context.run(&starter, &seen).await }.instrument(span))
        });
        request.watch.set_progress(&joined.info);
        let lost = |Lost(why)| PullError::Lost { image: task.image.clone(), why };
        (joined.completion.await.map_err(lost).flatten(), joined.started)
    }

    /// The image of a record, as this release builds it. Callers share the work, and it outlives them.
    pub(super) async fn renew(
        &self,
        record: ImageRecord,
        origin: &Origin,
        image: &str,
    ) -> Result<ImageRecord, PullError> {
        let manifest = record.manifest;
        let key = PullKey { manifest, origin: origin.clone(), reader: None };
        let (context, name) = (Arc::clone(&self.context), image.to_owned());
        let joined = self.under_way.join(key, move || {
            let span = tracing::info_span!("renew", image.reference = name, image.digest = %manifest);
            let work = async move { context.renew(record, name).await.map(|record| (record, 0)) };
            (Arc::new(Progress::new(manifest, [])), work.instrument(span))
        });
        let lost = |Lost(why)| PullError::Lost { image: image.to_owned(), why };
        joined.completion.await.map_err(lost).flatten().map(|(record, _)| record)
    }

    /// Notes that an image is in use.
    pub(super) fn used(&self, manifest: &Digest) {
        if let Err(error) = self.context.store.images().touch(manifest) {
            // The image is only removed earlier than it should.
            tracing::warn!(image.digest = %manifest, "cannot note that an image is used: {error}");
        }
    }
}
