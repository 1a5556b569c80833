//! What a node plugin does with the API server: nothing by default.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::supervise::Supervisor;
use crate::cluster::Cluster;
use crate::cluster::events::Events;
use crate::cluster::taint::StartupTaint;
use crate::csi::readiness::Readiness;
use crate::node::volume::pod_events::PodEvents;

/// The enabled features.
#[derive(Debug, Clone, Default)]
pub struct KubernetesSettings {
    /// The kubeconfig for running outside a pod.
    pub kubeconfig: Option<PathBuf>,
    /// Write Events on pods.
    pub events: bool,
    /// Remove the startup taint of the node.
    pub startup_taint: bool,
    /// Bring images here before pods ask for them, as ImagePrefetches say.
    pub image_prefetch: bool,
}

impl KubernetesSettings {
    /// A client, if a feature needs one; `others` says whether something outside these settings does.
    ///
    /// # Errors
    /// No client can be made from the settings.
    pub async fn cluster(&self, others: bool) -> anyhow::Result<Option<Cluster>> {
        if !(self.events || self.startup_taint || self.image_prefetch || others) {
            return Ok(None);
        }
        Ok(Some(Cluster::connect(self.kubeconfig.as_deref()).await?))
    }

    /// Starts the enabled features, on `node` as `driver`, and returns the receivers of events on pods and on the node.
    pub fn start(
        &self,
        cluster: Option<&Cluster>,
        (node, driver): (&str, &str),
        ready: &Readiness,
        supervisor: &mut Supervisor,
        shutdown: &CancellationToken,
    ) -> (PodEvents, Option<Arc<Events>>) {
        let (mut pod_events, mut node_events) = (PodEvents::default(), None);
        // No feature needs the API server.
        let Some(cluster) = cluster else { return (pod_events, node_events) };
        if self.events {
            let (events, writer) = Events::new(cluster.clone(), driver.to_owned(), node.to_owned());
            let events = Arc::new(events);
            node_events = Some(Arc::clone(&events));
            pod_events = PodEvents::new(events);
            let token = shutdown.clone();
            supervisor.start("events", async move {
                writer.run(token).await;
                Ok(())
            });
        }
        if self.startup_taint {
            let taint = StartupTaint::new(cluster.clone(), node.to_owned(), driver.to_owned());
            let (ready, token) = (ready.clone(), shutdown.clone());
            supervisor.start("startup-taint", async move {
                // kubelet registers a driver before it can mount anything.
                while ready.waiting_for().is_some() && !token.is_cancelled() {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                taint.remove(&token).await;
                // A supervised task must not end before the shutdown.
                token.cancelled().await;
                Ok(())
            });
        }
        (pod_events, node_events)
    }
}
