//! Prefetching, put together: on a node and in the controller.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::engine::Engine;
use super::kubernetes::KubernetesSettings;
use super::supervise::Supervisor;
use crate::cluster::Cluster;
use crate::cluster::prefetch::controller::watch;
use crate::cluster::prefetch::node::NodePrefetches;
use crate::cluster::prefetch::watch::{Start, prefetches};
use crate::controller::prefetch as statuses;
use crate::image::store::gc::Policy;
use crate::metrics::MetricsRegistry;
use crate::node::credential_providers::CredentialProviders;
use crate::node::prefetch::metrics::PrefetchMetrics;
use crate::node::prefetch::{self as agent, Depot, Parts, PrefetchApi, Prefetcher};
use crate::oci::platform::Platform;
use crate::prefetch::Change;
use crate::volume::layouts::Layouts;

/// Changes that wait for their reader. A watch that is faster waits.
const QUEUE: usize = 256;
/// Percent of the filesystem that prefetches may fill where images are not removed by watermarks.
const UP_TO: u8 = 85;

/// What a node's prefetching is made of.
pub(super) struct NodePrefetching {
    pub cluster: Option<Cluster>,
    pub kubernetes: KubernetesSettings,
    pub node: String,
    pub credential_providers: CredentialProviders,
    pub layouts: Layouts,
    pub policy: Policy,
    pub housekeeping: Arc<Notify>,
    pub metrics: MetricsRegistry,
}

/// Prefetches until the shutdown, if that is enabled. If it is not, what it has kept before is let go.
pub(super) fn on_node(
    settings: NodePrefetching,
    engine: &Engine,
    shutdown: CancellationToken,
) -> impl Future<Output = anyhow::Result<()>> + use<> {
    let (store, images) = (Arc::clone(&engine.store), Arc::clone(&engine.images));
    async move {
        let enabled = settings.kubernetes.image_prefetch;
        let metrics = PrefetchMetrics::default();
        settings.metrics.add(&metrics)?;
        let Some(cluster) = settings.cluster.filter(|_| enabled) else {
            let gone = tokio::task::spawn_blocking(move || agent::let_all_go(&store)).await?;
            match gone {
                Ok(0) => {}
                Ok(images) => tracing::info!(images, "images of earlier prefetches are not kept any more"),
                Err(error) => tracing::warn!("images of earlier prefetches are kept for now: {error}"),
            }
            return Ok(());
        };
        let watching = Cluster::connect_to_watch(settings.kubernetes.kubeconfig.as_deref()).await?;
        let api: Arc<dyn PrefetchApi> = Arc::new(NodePrefetches::new(cluster, settings.node.clone()));
        let depot = Parts {
            images,
            store,
            credential_providers: settings.credential_providers,
            layouts: settings.layouts,
            platform: Platform::host(),
            up_to: match settings.policy {
                Policy::Watermarks { high, .. } => high,
                Policy::Unneeded { .. } => UP_TO,
            },
            housekeeping: settings.housekeeping,
            api: Arc::clone(&api),
        };
        let node = Prefetcher { name: settings.node, depot: Arc::new(depot), api, metrics };
        work(watching, node, shutdown).await;
        Ok(())
    }
}

/// A node's side of prefetching, against the API server of a kubeconfig, with images brought to `depot` and no plugin around
/// it. It is what a plugin does, so that a simulation can do it for many nodes.
///
/// # Errors
/// The kubeconfig is missing or malformed.
pub async fn prefetch_alone(
    kubeconfig: &Path,
    name: String,
    depot: Arc<dyn Depot>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let cluster = Cluster::connect(Some(kubeconfig)).await?;
    let watching = Cluster::connect_to_watch(Some(kubeconfig)).await?;
    let api = Arc::new(NodePrefetches::new(cluster, name.clone()));
    let node = Prefetcher { name, depot, api, metrics: PrefetchMetrics::default() };
    work(watching, node, shutdown).await;
    Ok(())
}

async fn work(watching: Cluster, node: Prefetcher, shutdown: CancellationToken) {
    let (sender, changes) = mpsc::channel::<Change>(QUEUE);
    let watched = prefetches(watching, Start::AtHand, sender, shutdown.clone());
    tokio::join!(watched, agent::run(node, changes, shutdown));
}

/// Starts to keep the statuses of ImagePrefetches.
///
/// # Errors
/// There is no API server to be found.
pub(super) async fn keep_statuses(
    kubeconfig: Option<&Path>,
    supervisor: &mut Supervisor,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let cluster = Arc::new(Cluster::connect(kubeconfig).await?);
    let watching = Cluster::connect_to_watch(kubeconfig).await?;
    let (sender, seen) = mpsc::channel(QUEUE);
    let shutdown = shutdown.clone();
    supervisor.start("prefetches", async move {
        let watched = watch(watching, sender, shutdown.clone());
        tokio::join!(watched, statuses::run(cluster, seen, shutdown));
        Ok(())
    });
    Ok(())
}
