//! The node plugin's process is nothing that a mount needs: it is killed under pods that read.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::cluster::{Cluster, until};
use crate::images::{Files, noise, sha256};
use crate::inline::no_volume;
use crate::pods::{Reader, inline};

/// Reads the whole file again and again, past the page cache's memory of it, and counts: a line for each round.
const READ_ON: &str = "while :; do sha256sum </content/blob; sleep 0.1; done";

/// Every pod of the node plugin is killed without notice; the reader never sees it. The next plugin publishes new
/// volumes and takes down the old ones.
pub async fn under_a_reader(cluster: &Cluster) {
    let reading = Reading::start(cluster, "restart").await;
    cluster.kill_node_plugins().await;
    reading.went_on(cluster).await;
    cluster.start(&Reader::new("restart-new", inline(json!({"image": reading.image})))).await;
    let sum = cluster.sh("restart-new", "sha256sum </content/blob");
    assert!(sum.starts_with(&reading.sum), "{sum}");
    cluster.clear().await;
    no_volume(cluster).await;
}

/// A pod that reads without end.
pub struct Reading {
    /// The image it reads.
    pub image: String,
    sum: String,
    pod: String,
}

impl Reading {
    /// Starts it and waits for its first round.
    pub async fn start(cluster: &Cluster, name: &str) -> Self {
        let blob = noise(name.len() as u64, 2_000_000);
        let (image, _) =
            cluster.registries.open.push(&Files::default().with("blob", blob.clone()), "reading:1");
        let pod = format!("{name}-reader");
        let volume = inline(json!({"image": image, "pullPolicy": "Always"}));
        cluster.start(&Reader::new(&pod, volume).running(&["sh", "-c", READ_ON])).await;
        let reading = Self { image, sum: sha256(&blob), pod };
        reading.went_on(cluster).await;
        reading
    }

    /// It has read all the time, always the same, and goes on.
    pub async fn went_on(&self, cluster: &Cluster) {
        let before = self.rounds(cluster);
        until("another round of the reader", 60, async || (self.rounds(cluster) > before).then_some(()))
            .await;
        let pod = cluster.api::<Pod>().get(&self.pod).await.expect("the reader");
        let restarts = pod.status.and_then(|status| status.container_statuses).unwrap_or_default();
        assert!(
            restarts.iter().all(|container| container.restart_count == 0),
            "the reader was started again"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    fn rounds(&self, cluster: &Cluster) -> usize {
        let log = cluster.kubectl(&["logs", &self.pod]);
        let wrong = log.lines().find(|line| !line.starts_with(&self.sum));
        assert_eq!(wrong, None, "the reader saw something else than {}", self.sum);
        log.lines().count()
    }
}
