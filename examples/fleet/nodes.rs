//! The nodes: objects in the cluster, and the plugins' side of prefetching.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use composefs_csi::node::prefetch::{Depot, Job, KeptKey, Outcome};
use composefs_csi::oci::digest::Digest;
use composefs_csi::prefetch::waves;
use composefs_csi::prefetch_alone;
use composefs_csi::pull::Watch;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Node;
use kube::api::PostParams;
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::admin::Admin;

/// Objects made at the same time.
const AT_ONCE: usize = 32;

/// Where nothing is brought, and time passes.
#[derive(Debug)]
pub struct Pretended {
    takes: Duration,
}

#[async_trait]
impl Depot for Pretended {
    async fn bring(&self, job: Job, _watch: Watch) -> Outcome {
        tokio::time::sleep(self.takes).await;
        // What the first node says of a tag is what all others are told.
        Outcome::Ready { target: job.target.unwrap_or_else(|| Digest::of(job.key.1.as_bytes())) }
    }

    async fn let_go(&self, _kept: HashSet<KeptKey>) -> bool {
        true
    }

    async fn free_bytes(&self) -> u64 {
        1 << 40
    }
}

/// Nodes by name, each with a kubeconfig, which go with this.
pub struct Files {
    nodes: Vec<(String, PathBuf)>,
    _directory: TempDir,
}

/// Makes the objects, and a kubeconfig for each.
pub async fn prepare(admin: &Admin, count: u32) -> Result<Files> {
    let directory = tempfile::tempdir()?;
    let nodes: Api<Node> = Api::all(admin.client.clone());
    let (nodes, path) = (&nodes, directory.path());
    let made = stream::iter(0..count).map(|number| async move {
        let name = format!("fleet-{number:05}");
        // No kubelet is there, so nothing must be sent there.
        let object = json!({
            "metadata": {"name": name, "labels": {"type": "virtual-kubelet", "kubernetes.io/os": "linux"}},
            "spec": {"unschedulable": true},
        });
        let node = nodes.create(&PostParams::default(), &serde_json::from_value(object)?).await;
        let uid = node.with_context(|| format!("node {name} cannot be made"))?.uid().unwrap_or_default();
        let file = admin.account("node", Some((&name, &uid)), path).await?;
        Ok::<_, anyhow::Error>((name, file))
    });
    let nodes = made.buffer_unordered(AT_ONCE).try_collect().await?;
    Ok(Files { nodes, _directory: directory })
}

/// Starts what the plugins do, evenly over `start`.
pub fn start(
    files: &Files,
    pull: Duration,
    start: Duration,
    shutdown: &CancellationToken,
) -> Vec<JoinHandle<Result<()>>> {
    let step = start / u32::try_from(files.nodes.len()).unwrap_or(u32::MAX).max(1);
    let nodes = files.nodes.iter().zip(0_u32..);
    let task = |((name, file), number): (&(String, PathBuf), u32)| {
        let (name, file, shutdown) = (name.clone(), file.clone(), shutdown.clone());
        // From a half to three halves, by a hash.
        let takes = pull / 2 + pull * u32::from(waves::place("pull", &name)) / u32::from(waves::PLACES);
        let depot = Arc::new(Pretended { takes });
        tokio::spawn(async move {
            tokio::time::sleep(step * number).await;
            prefetch_alone(&file, name, depot, shutdown).await
        })
    };
    nodes.map(task).collect()
}
