//! The pulls of a node: what they share, and how callers share them.

use std::future::Future;
use std::sync::Arc;

use tracing::Instrument as _;

use super::admission::AdmissionControl;
use super::builders::Builders;
use super::gauges::PullGauges;
use super::layers::LayerFetcher;
use super::pull_task::{PullContext, PullTask, PulledImage};
use super::rights::Rights;
use super::single_flight::{Lost, SingleFlight};
use super::turns::Tenant;
use super::under_way::PullUnderWay;
use super::{
    Busy, Combination, ImageRequest, Kept, Phase, Progress, PullError, PullLimits, PullMetrics, Watch,
    blocking, combine,
};
use crate::image::access::{AccessRule, Origin};
use crate::image::store::{AccessRecord, ImageRecord, Store};
use crate::image::tree::Rules;
use crate::image::verity::VerityDigest;
use crate::oci::Sources;
use crate::oci::digest::Digest;
use crate::oci::limits::ImageLimits;
use crate::trust::PolicyEngine;

/// The pulls into one store.
#[derive(Debug)]
pub(super) struct Pulls {
    context: Arc<PullContext>,
    control: AdmissionControl,
    under_way: SingleFlight<PullKey, Arc<Progress>, Pulled>,
}

/// How a pull ended; `None` if nobody waited for it.
type Pulled = Option<Result<PulledImage, PullError>>;

/// Who shares a pull: those to whom the same origin gave the same manifest, and who want the same of it. What an image is made of may depend on
/// where it comes from, until all of it has come.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct PullKey {
    /// The image's key: what of the manifest is wanted is part of it.
    image: Digest,
    origin: Origin,
    /// Only callers that read as this share the pull; every caller if `None`.
    reader: Option<AccessRecord>,
    /// Another image of layers that are here is built, by these rules.
    rules: Option<Rules>,
    /// Images that are here become one, by these names: an error of the work says them, so nobody shares it who has others.
    names: Vec<String>,
}

impl PullKey {
    fn new(image: Digest, origin: Origin) -> Self {
        Self { image, origin, reader: None, rules: None, names: Vec::new() }
    }
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
        let layers = LayerFetcher::new(Arc::clone(&store), &limits, metrics.clone());
        let builders = Builders::new(Arc::clone(&store), limits.build_memory, limits.image);
        let rule = Arc::new(rule);
        let context = Arc::new(PullContext { store, sources, rule, layers, limits, builders, metrics });
        Self { context, control, under_way: SingleFlight::new() }
    }

    pub(super) fn metrics(&self) -> &PullMetrics {
        &self.context.metrics
    }

    pub(super) fn control(&self) -> &AdmissionControl {
        &self.control
    }

    pub(super) fn store(&self) -> &Arc<Store> {
        &self.context.store
    }

    pub(super) fn sources(&self) -> &Sources {
        &self.context.sources
    }

    pub(super) fn fetcher(&self) -> &LayerFetcher {
        &self.context.layers
    }

    pub(super) fn builders(&self) -> &Builders {
        &self.context.builders
    }

    pub(super) fn image_limits(&self) -> &ImageLimits {
        &self.context.limits.image
    }

    pub(super) fn kept(&self) -> Kept {
        self.context.limits.kept()
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
        let mut key = PullKey::new(task.key(), origin);
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
        let patient = request.caller.is_patient();
        loop {
            let (context, starter) = (Arc::clone(&self.context), Arc::clone(task));
            let joined = self.under_way.join(key.clone(), request.watch.waiter(), move |attendance| {
                let (image, key) = (&starter.image, starter.key());
                let (_, reader) = starter.rights.identity();
                let progress =
                    Progress::of(image, key, &starter.path.manifest).begun_by(reader).patient_if(patient);
                let progress = Arc::new(progress);
                let span = tracing::info_span!("pull", image.reference = %image, image.digest = %key);
                let seen = Arc::clone(&progress);
                let work = async move {
                    let pulling = context.run(&starter, &seen);
                    context.while_wanted(&attendance, &seen, pulling).await
                };
                (progress, work.instrument(span))
            });
            if !patient {
                joined.info.urgency().hurry();
            }
            let (_, reader) = task.rights.identity();
            request.watch.set_progress(&joined.info.seen_by(&reader, &task.image));
            let (image, started) = (task.image.clone(), joined.started);
            match joined.completion().await {
                Ok(Some(pulled)) => return (pulled, started),
                // It ended at the moment at which this caller joined it.
                Ok(None) => {}
                Err(Lost(why)) => return (Err(PullError::Lost { image, why }), started),
            }
        }
    }

    /// The image of a record, as this release builds it. Callers share the work, and it outlives them.
    pub(super) async fn renew(
        &self,
        record: ImageRecord,
        (rights, watch): (&Rights, &Watch),
        image: &str,
    ) -> Result<PulledImage, PullError> {
        let key = PullKey::new(record.key(), rights.origin().clone());
        let work = |context: Arc<PullContext>, tenant: Tenant, name: String| {
            let record = record.clone();
            async move { context.renew(record, tenant, name).await }
        };
        self.build_again(key, (rights, watch), image, "renew", work).await
    }

    /// The image of a record by other rules, in that record. Callers share the work, and it outlives them.
    pub(super) async fn vary(
        &self,
        record: ImageRecord,
        rules: Rules,
        (rights, watch): (&Rights, &Watch),
        image: &str,
    ) -> Result<(PulledImage, VerityDigest), PullError> {
        let key = PullKey { rules: Some(rules), ..PullKey::new(record.key(), rights.origin().clone()) };
        let work = |context: Arc<PullContext>, tenant: Tenant, name: String| {
            let record = record.clone();
            async move { context.vary(record, rules, tenant, name).await }
        };
        let varied = self.build_again(key, (rights, watch), image, "vary", work).await?;
        let built = varied.record.image_by(rules).ok_or_else(|| PullError::Lost {
            image: image.to_owned(),
            why: format!("the record names no image by the {rules} rules"),
        })?;
        Ok((varied, built))
    }

    /// Images that are here as one. Callers share the work, and it outlives them.
    pub(super) async fn combine(
        &self,
        first: &ImageRequest,
        wanted: Combination,
    ) -> Result<PulledImage, PullError> {
        let (store, hold, wanted) = (Arc::clone(self.store()), self.store().hold(), Arc::new(wanted));
        let (kept, looked_for) = (hold.clone(), Arc::clone(&wanted));
        let found = move || {
            let found = combine::stored(&store, &kept, &looked_for)?;
            if let Some(record) = &found {
                note_used(&store, &record.manifest);
            }
            Ok::<_, PullError>(found)
        };
        if let Some(record) = blocking(&wanted.name, found).await?? {
            return Ok(PulledImage { record, fetched: 0, hold });
        }
        let rights = self.rights(first)?;
        let names = wanted.members.iter().map(|(member, _)| member.name.clone()).collect();
        let key = PullKey { names, ..PullKey::new(wanted.key(), rights.origin().clone()) };
        let work = |context: Arc<PullContext>, tenant: Tenant, _| {
            let wanted = Arc::clone(&wanted);
            async move { context.combine(wanted, tenant).await }
        };
        self.build_again(key, (&rights, &first.watch), &wanted.name, "combine", work).await
    }

    /// Builds an image of layers that are here, or joins a caller that does. `what` names the span.
    async fn build_again<F>(
        &self,
        key: PullKey,
        (rights, watch): (&Rights, &Watch),
        image: &str,
        what: &'static str,
        work: impl Fn(Arc<PullContext>, Tenant, String) -> F,
    ) -> Result<PulledImage, PullError>
    where
        F: Future<Output = Result<PulledImage, PullError>> + Send + 'static,
    {
        let manifest = key.image;
        loop {
            let (context, name) = (Arc::clone(&self.context), image.to_owned());
            let joined = self.under_way.join(key.clone(), watch.waiter(), |attendance| {
                let span =
                    tracing::info_span!("build", what, image.reference = name, image.digest = %manifest);
                let progress = Arc::new(Progress::new(&name, manifest, []));
                let seen = Arc::clone(&progress);
                let building = work(Arc::clone(&context), rights.tenant(), name);
                let work = async move {
                    seen.enter(Phase::Waiting);
                    context.while_wanted(&attendance, &seen, building).await
                };
                (progress, work.instrument(span))
            });
            match joined.completion().await {
                Ok(Some(built)) => return built,
                // It ended at the moment at which this caller joined it.
                Ok(None) => {}
                Err(Lost(why)) => return Err(PullError::Lost { image: image.to_owned(), why }),
            }
        }
    }

    /// What is lent in turns, and how much of it.
    pub(super) fn busy(&self) -> Busy {
        let (layers, aside) = self.context.layers.busy();
        Busy { layers, aside, build_memory: self.context.builders.busy() }
    }

    /// Metrics of the pulls under way.
    pub(super) fn gauges(&self) -> PullGauges {
        let flights = self.under_way.clone();
        PullGauges::new(move || flights.list().into_iter().map(|(progress, _)| progress).collect())
    }

    /// The pulls under way, the oldest first.
    pub(super) fn list(&self) -> Vec<PullUnderWay> {
        let mut all = self.under_way.list();
        all.sort_by_key(|(progress, _)| progress.started);
        all.iter().map(|(progress, attendance)| PullUnderWay::of(progress, attendance)).collect()
    }

    /// Ends the pulls of the image that is named by digest or reference, and returns them.
    pub(super) fn cancel(&self, wanted: &str) -> Vec<PullUnderWay> {
        let mut ended = Vec::new();
        for (progress, attendance) in self.under_way.list() {
            let pull = PullUnderWay::of(&progress, &attendance);
            if pull.is_named(wanted) {
                attendance.end();
                ended.push(pull);
            }
        }
        ended
    }

    /// Notes that an image is in use. Blocking.
    pub(super) fn used(&self, manifest: &Digest) {
        note_used(&self.context.store, manifest);
    }
}

/// Notes that an image is in use. Blocking.
pub(super) fn note_used(store: &Store, manifest: &Digest) {
    if let Err(error) = store.images().touch_if_stale(manifest) {
        // The image is only removed earlier than it should.
        tracing::warn!(image.digest = %manifest, "cannot note that an image is used: {error}");
    }
}
