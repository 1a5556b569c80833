//! The puller: a request in, an image in the store out.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Semaphore;
use tracing::Instrument as _;

use super::admission::AdmissionControl;
use super::error::About as _;
use super::layers::{ImageLayers, LayerFetcher};
use super::locate::{Located, Plan, Search};
use super::rights::Rights;
use super::single_flight::{Lost, SingleFlight};
use super::{ImageRequest, Images, Progress, PullError, PullMetrics, Ready, build, renew};
use crate::image::access::{Origin, Rule};
use crate::image::seal::{MERGED_SHA512, Seal, why_unsealed};
use crate::image::store::{AccessRecord, ImageRecord, Lease, Store};
use crate::image::tree::Rules;
use crate::metrics::Outcome;
use crate::oci::Sources;
use crate::oci::digest::Digest;
use crate::oci::limits::{self, Budget, Cap};
use crate::oci::manifest::ImageConfig;
use crate::trust::PolicyEngine;

/// How much a node does at once, and what it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Layers fetched at the same time, over all pulls. Each holds a few MiB and three threads.
    pub parallel_layers: usize,
    /// Caps on each image.
    pub image: limits::Limits,
    /// Whether images keep their device nodes and named pipes.
    pub keep_special_files: bool,
}

impl Limits {
    /// The rules by which images that are pulled become trees.
    pub fn rules(&self) -> Rules {
        if self.keep_special_files { Rules::Verbatim } else { Rules::Faithful }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { parallel_layers: 3, image: limits::Limits::DEFAULT, keep_special_files: false }
    }
}

/// Makes images available: the one implementation of [`Images`].
#[derive(Debug)]
pub struct Puller {
    require_digest: bool,
    control: AdmissionControl,
    shared: Arc<Shared>,
    pulls: SingleFlight<PullKey, Arc<Progress>, Result<Pulled, PullError>>,
}

/// Who shares a pull: those to whom the same origin gave the same manifest. What an image is made of may depend on
/// where it comes from, until all of it has come.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct PullKey {
    manifest: Digest,
    origin: Origin,
    /// Only for those who read as this; anybody if `None`.
    reader: Option<AccessRecord>,
}

/// What a flight leaves behind for everybody who waited for it.
type Pulled = (ImageRecord, u64);

/// What the tasks of all pulls share.
#[derive(Debug)]
struct Shared {
    store: Arc<Store>,
    sources: Sources,
    rule: Arc<Rule>,
    layers: LayerFetcher,
    limits: Limits,
    /// Building holds a whole tree in memory, so images are built one after another.
    building: Semaphore,
    metrics: PullMetrics,
}

impl Puller {
    /// A puller into `store`.
    pub fn new(
        store: Arc<Store>,
        sources: Sources,
        engine: Arc<dyn PolicyEngine>,
        rule: Rule,
        limits: Limits,
    ) -> Self {
        let control = AdmissionControl { store: Arc::clone(&store), engine };
        let metrics = PullMetrics::default();
        let layers =
            LayerFetcher::new(Arc::clone(&store), limits.parallel_layers, limits.image, metrics.clone());
        let rule = Arc::new(rule);
        let shared = Shared { store, sources, rule, layers, limits, building: Semaphore::new(1), metrics };
        Self { require_digest: false, control, shared: Arc::new(shared), pulls: SingleFlight::new() }
    }

    /// The same, refusing images whose manifest does not carry their composefs digest, if `required`.
    #[must_use]
    pub fn with_digest_required(self, required: bool) -> Self {
        Self { require_digest: required, ..self }
    }

    /// What is counted of pulls.
    pub fn metrics(&self) -> &PullMetrics {
        &self.shared.metrics
    }

    /// What bringing layers here needs.
    pub(super) fn parts(&self) -> (&Arc<Store>, &Sources, &Arc<Rule>, &LayerFetcher) {
        let Shared { store, sources, rule, layers, .. } = &*self.shared;
        (store, sources, rule, layers)
    }

    /// Pulls under way.
    pub fn under_way(&self) -> usize {
        self.pulls.len()
    }

    /// Waits for the pull of a plan, which others may have begun.
    async fn pull(&self, plan: &Arc<Plan>, request: &ImageRequest) -> Result<Pulled, PullError> {
        let (origin, reader) = plan.rights.identity();
        let mut flight = PullKey { manifest: plan.digest, origin, reader: None };
        let (pulled, started) = self.join_or_start(flight.clone(), plan, request).await;
        match pulled {
            // That somebody else was refused says nothing about the one who asks.
            Err(error) if !started && error.is_refused_by_source() => {
                flight.reader = Some(reader);
                self.join_or_start(flight, plan, request).await.0
            }
            pulled => pulled,
        }
    }

    /// Before anything else is fetched: the manifest tells whether it carries a digest.
    fn check_seal(&self, plan: &Plan) -> Result<(), PullError> {
        let image = &plan.image;
        match Seal::of(&plan.manifest).about(image)? {
            Some(_) => Ok(()),
            None if self.require_digest => {
                let why = why_unsealed(&plan.manifest);
                Err(PullError::Unsealed { image: image.clone(), why })
            }
            None => {
                if plan.manifest.annotations.contains_key(MERGED_SHA512) {
                    tracing::warn!(image.reference = image, "not compared: {}", why_unsealed(&plan.manifest));
                }
                Ok(())
            }
        }
    }

    /// The image of a record, as this release builds it. Callers share the work, and it outlives them.
    async fn current(&self, record: ImageRecord, search: &Search<'_>) -> Result<ImageRecord, PullError> {
        if !record.is_outdated() {
            return Ok(record);
        }
        let manifest = record.manifest;
        let flight = PullKey { manifest, origin: search.rights.origin().clone(), reader: None };
        let (shared, image) = (Arc::clone(&self.shared), search.image.to_owned());
        let joined = self.pulls.join(flight, move || {
            let span = tracing::info_span!("renew", image.reference = image, image.digest = %manifest);
            let work = async move { shared.renew(record, image).await.map(|record| (record, 0)) };
            (Arc::new(Progress::new(manifest, [])), work.instrument(span))
        });
        let lost = |Lost(why)| PullError::Lost { image: search.image.to_owned(), why };
        joined.outcome.await.map_err(lost).flatten().map(|(record, _)| record)
    }

    async fn join_or_start(
        &self,
        flight: PullKey,
        plan: &Arc<Plan>,
        request: &ImageRequest,
    ) -> (Result<Pulled, PullError>, bool) {
        let (shared, starter) = (Arc::clone(&self.shared), Arc::clone(plan));
        let joined = self.pulls.join(flight, move || {
            let layers = starter.manifest.layers.iter().map(|l| (l.descriptor.digest, l.descriptor.size));
            let progress = Arc::new(Progress::new(starter.digest, layers));
            let span =
                tracing::info_span!("pull", image.reference = %starter.image, image.digest = %starter.digest);
            let seen = Arc::clone(&progress);
            (progress, async move { shared.counted(&starter, &seen).await }.instrument(span))
        });
        request.watch.join(&joined.info);
        let lost = |Lost(why)| PullError::Lost { image: plan.image.clone(), why };
        (joined.outcome.await.map_err(lost).flatten(), joined.started)
    }
}

#[async_trait]
impl Images for Puller {
    async fn ensure(&self, request: &ImageRequest) -> Result<Ready, PullError> {
        let image = request.reference.to_string();
        // The lease comes first: from here on nothing that is found can be swept away.
        let lease = self.shared.store.lease().await.about(&image)?;
        let shared = &*self.shared;
        let rights = Rights::of(&shared.store, &shared.sources, &shared.rule, request)?;
        let search = Search {
            store: &shared.store,
            limits: &shared.limits.image,
            sources: &shared.sources,
            request,
            rights: &rights,
            lease: &lease,
            image: &image,
        };
        match search.run().await? {
            Located::Here(record) => {
                let admission = self.control.readmit(&search, &record).await?;
                if self.require_digest && !record.sealed {
                    let why = "it was pulled without one".to_owned();
                    return Err(PullError::Unsealed { image, why });
                }
                let record = self.current(record, &search).await?;
                rights.preload(&lease, &record.manifest, [])?;
                self.used(&record.manifest);
                Ok(Ready { record, lease, fetched: 0, admission })
            }
            Located::There(mut plan) => {
                self.check_seal(&plan)?;
                let admission = self.control.admit_new(&mut plan, request).await?;
                let plan = Arc::new(*plan);
                let (record, fetched) = self.pull(&plan, request).await?;
                // One that is here from elsewhere may be another release's.
                let record = self.current(record, &search).await?;
                rights.record_grant(&lease, &record.manifest)?;
                let layers = plan.manifest.layers.iter().map(|layer| &layer.descriptor.digest);
                rights.preload(&lease, &record.manifest, layers)?;
                // Another reference may have led to the same flight.
                shared
                    .store
                    .names()
                    .remember(&plan.names, &request.platform, record.manifest)
                    .about(&image)?;
                Ok(Ready { record, lease, fetched, admission })
            }
        }
    }

    fn used(&self, manifest: &Digest) {
        if let Err(error) = self.shared.store.images().touch(manifest) {
            // It only makes the image go earlier than it should.
            tracing::warn!(image.digest = %manifest, "cannot note that an image is used: {error}");
        }
    }
}

impl Shared {
    async fn counted(&self, plan: &Arc<Plan>, progress: &Progress) -> Result<Pulled, PullError> {
        let timing = self.metrics.pull();
        let outcome = self.run(plan, progress).await;
        timing.end(Outcome::of(&outcome, PullError::kind));
        outcome
    }

    /// The whole of one pull. Runs in its own task, with its own lease.
    async fn run(&self, plan: &Arc<Plan>, progress: &Progress) -> Result<Pulled, PullError> {
        let started = std::time::Instant::now();
        let lease = self.store.lease().await.about(&plan.image)?;
        // Between planning and now another flight may have landed.
        if let Some(record) = self.store.images().get_or_set_aside(&plan.digest).about(&plan.image)?
            && plan.rights.is_from_here(&plan.digest)?
        {
            return Ok((record, 0));
        }
        let caps = &self.limits.image;
        let announced = plan.manifest.layers.iter().map(|layer| layer.descriptor.size);
        let announced = announced.fold(0, u64::saturating_add);
        if announced > caps.image_bytes {
            let exceeded = Cap::ImageBytes.exceeded(announced, caps.image_bytes);
            return Err(PullError::Limit { image: plan.image.clone(), exceeded });
        }
        let config = plan.config(caps).await?;
        let layers = ImageLayers {
            image: &plan.image,
            source: &*plan.source,
            rights: &plan.rights,
            lease: &lease,
            progress,
            unpacked: Arc::new(Budget::new(caps.image_bytes)),
        };
        self.layers.fetch_all(&layers, &plan.manifest.layers, &config.diff_ids).await?;
        let fetched: u64 = progress.layers.iter().map(|layer| layer.fetched()).sum();
        // Before the image is there, so that it never is without.
        plan.evidence.keep(&self.store, &lease, plan.rights.origin().name(), &plan.image)?;
        // If the image is here from elsewhere, all of its layers were proven, and nothing is left to be built.
        let record = match self.store.images().get_or_set_aside(&plan.digest).about(&plan.image)? {
            Some(record) if record.layers == config.diff_ids => record,
            _ => self.build(plan, config, &lease).await?,
        };
        plan.rights.came_from_here(&lease, &plan.digest)?;
        tracing::info!(
            composefs = %record.image,
            fetched_bytes = fetched,
            files_bytes = record.bytes,
            inodes = record.inodes,
            seconds = started.elapsed().as_secs_f64(),
            "pulled"
        );
        Ok((record, fetched))
    }

    async fn build(
        &self,
        plan: &Arc<Plan>,
        config: ImageConfig,
        lease: &Lease,
    ) -> Result<ImageRecord, PullError> {
        let _turn = self.building.acquire().await;
        let (store, limits) = (Arc::clone(&self.store), self.limits);
        let (plan, lease) = (Arc::clone(plan), lease.clone());
        let (image, platform) = (plan.image.clone(), config.platform.to_string());
        let seal = Seal::of(&plan.manifest).about(&image)?;
        tokio::task::spawn_blocking(move || {
            let work = build::Work {
                manifest: plan.digest,
                platform: Some(platform),
                name: plan.image.clone(),
                layers: config.diff_ids,
                seal,
                rules: limits.rules(),
                limits: limits.image,
            };
            build::build(&store, &lease, work)
        })
        .await
        .map_err(|error| PullError::Lost { image, why: error.to_string() })?
    }

    async fn renew(&self, old: ImageRecord, image: String) -> Result<ImageRecord, PullError> {
        let lease = self.store.lease().await.about(&image)?;
        let _turn = self.building.acquire().await;
        let (store, limits, name) = (Arc::clone(&self.store), self.limits, image.clone());
        let work = move || renew::renew(&store, &lease, old, limits.rules(), limits.image, &name);
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|error| PullError::Lost { image, why: error.to_string() })?
    }
}
