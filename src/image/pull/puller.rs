//! The puller: a request in, an image in the store out.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Semaphore;
use tracing::Instrument as _;

use super::error::About as _;
use super::flight::{Flights, Lost};
use super::layers::{ImageLayers, LayerFetcher};
use super::locate::{Located, Plan, locate};
use super::{ImageRequest, Images, Progress, PullError, PullMetrics, Ready, build};
use crate::image::digest::Digest;
use crate::image::manifest::ImageConfig;
use crate::image::source::Sources;
use crate::image::store::{ImageRecord, Lease, Store};
use crate::metrics::Outcome;

/// How much a node does at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Layers fetched at the same time, over all pulls. Each holds a few MiB and three threads.
    pub parallel_layers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { parallel_layers: 3 }
    }
}

/// Makes images available: the one implementation of [`Images`].
#[derive(Debug)]
pub struct Puller {
    shared: Arc<Shared>,
    flights: Flights<Digest, Arc<Progress>, Result<Pulled, PullError>>,
}

/// What a flight leaves behind for everybody who waited for it.
type Pulled = (ImageRecord, u64);

/// What the tasks of all pulls share.
#[derive(Debug)]
struct Shared {
    store: Arc<Store>,
    sources: Sources,
    layers: LayerFetcher,
    /// Building holds a whole tree in memory, so images are built one after another.
    building: Semaphore,
    metrics: PullMetrics,
}

impl Puller {
    /// A puller into `store`.
    pub fn new(store: Arc<Store>, sources: Sources, limits: Limits) -> Self {
        let metrics = PullMetrics::default();
        let layers = LayerFetcher::new(Arc::clone(&store), limits.parallel_layers, metrics.clone());
        let shared = Shared { store, sources, layers, building: Semaphore::new(1), metrics };
        Self { shared: Arc::new(shared), flights: Flights::new() }
    }

    /// What is counted of pulls.
    pub fn metrics(&self) -> &PullMetrics {
        &self.shared.metrics
    }

    /// Pulls under way.
    pub fn under_way(&self) -> usize {
        self.flights.len()
    }

    async fn pull(&self, plan: Plan, request: &ImageRequest) -> Result<Pulled, PullError> {
        let image = plan.image.clone();
        let shared = Arc::clone(&self.shared);
        let (progress, outcome) = self.flights.join(plan.digest, move || {
            let layers = plan.manifest.layers.iter().map(|l| (l.descriptor.digest, l.descriptor.size));
            let progress = Arc::new(Progress::new(plan.digest, layers));
            let span =
                tracing::info_span!("pull", image.reference = %plan.image, image.digest = %plan.digest);
            let seen = Arc::clone(&progress);
            (progress, async move { shared.counted(plan, &seen).await }.instrument(span))
        });
        request.watch.join(&progress);
        outcome.await.map_err(|Lost(why)| PullError::Lost { image, why })?
    }
}

#[async_trait]
impl Images for Puller {
    async fn ensure(&self, request: &ImageRequest) -> Result<Ready, PullError> {
        let image = request.reference.to_string();
        // The lease comes first: from here on nothing that is found can be swept away.
        let lease = self.shared.store.lease().await.about(&image)?;
        match locate(&self.shared.store, &self.shared.sources, request).await? {
            Located::Here(record) => {
                self.used(&record.manifest);
                Ok(Ready { record, lease, fetched: 0 })
            }
            Located::There(plan) => {
                let names = plan.names.clone();
                let (record, fetched) = self.pull(*plan, request).await?;
                // Another reference may have led to the same flight.
                self.shared.store.remember(&names, &request.platform, record.manifest).about(&image)?;
                Ok(Ready { record, lease, fetched })
            }
        }
    }

    fn used(&self, manifest: &Digest) {
        if let Err(error) = self.shared.store.touch(manifest) {
            // It only makes the image go earlier than it should.
            tracing::warn!(image.digest = %manifest, "cannot note that an image is used: {error}");
        }
    }
}

impl Shared {
    async fn counted(&self, plan: Plan, progress: &Progress) -> Result<Pulled, PullError> {
        let timing = self.metrics.pull();
        let outcome = self.run(plan, progress).await;
        timing.end(Outcome::of(&outcome, PullError::kind));
        outcome
    }

    /// The whole of one pull. Runs in its own task, with its own lease.
    async fn run(&self, plan: Plan, progress: &Progress) -> Result<Pulled, PullError> {
        let started = std::time::Instant::now();
        let lease = self.store.lease().await.about(&plan.image)?;
        // Between planning and now another flight may have landed.
        if let Some(record) = self.store.image(&plan.digest).about(&plan.image)? {
            return Ok((record, 0));
        }
        let config = plan.config().await?;
        let layers = ImageLayers { image: &plan.image, source: &*plan.source, lease: &lease, progress };
        self.layers.fetch_all(&layers, &plan.manifest.layers, &config.diff_ids).await?;
        let fetched: u64 = progress.layers.iter().map(|layer| layer.fetched()).sum();
        let record = self.build(plan, config, lease).await?;
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

    async fn build(&self, plan: Plan, config: ImageConfig, lease: Lease) -> Result<ImageRecord, PullError> {
        let _turn = self.building.acquire().await;
        let store = Arc::clone(&self.store);
        let (image, platform) = (plan.image.clone(), config.platform.to_string());
        tokio::task::spawn_blocking(move || {
            let work = build::Work {
                manifest: plan.digest,
                platform: Some(platform),
                name: plan.image,
                layers: config.diff_ids,
            };
            build::build(&store, &lease, work)
        })
        .await
        .map_err(|error| PullError::Lost { image, why: error.to_string() })?
    }
}
