//! What a node plugin does with the API server: nothing, unless it is asked to.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::supervise::Supervisor;
use crate::cluster::Cluster;
use crate::cluster::events::Events;
use crate::cluster::taint::StartupTaint;
use crate::csi::identity::Readiness;
use crate::node::volume::pod_events::PodEvents;

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct KubernetesSettings {
    /// How to reach the API server from outside a pod.
    pub kubeconfig: Option<PathBuf>,
    /// Write Events on pods.
    pub events: bool,
    /// Remove the startup taint of the node.
    pub startup_taint: bool,
}

impl KubernetesSettings {
    /// A client, where anything needs one; `others` says whether something else does.
    ///
    /// # Errors
    /// The settings make no client.
    pub async fn cluster(&self, others: bool) -> anyhow::Result<Option<Cluster>> {
        if !(self.events || self.startup_taint || others) {
            return Ok(None);
        }
        Ok(Some(Cluster::connect(self.kubeconfig.as_deref()).await?))
    }

    /// Starts what is asked for, on `node` as `driver`, and says whom to tell of pulls.
    pub fn start(
        &self,
        cluster: Option<&Cluster>,
        (node, driver): (&str, &str),
        ready: &Readiness,
        supervisor: &mut Supervisor,
        shutdown: &CancellationToken,
    ) -> PodEvents {
        let mut reports = PodEvents::default();
        let Some(cluster) = cluster else { return reports };
        if self.events {
            let (events, writer) = Events::new(cluster.clone(), driver.to_owned(), node.to_owned());
            reports = PodEvents::new(Arc::new(events));
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
                while !ready.get() && !token.is_cancelled() {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                taint.remove(&token).await;
                token.cancelled().await;
                Ok(())
            });
        }
        reports
    }
}
