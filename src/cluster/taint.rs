//! The startup taint: `<driver>/agent-not-ready` keeps pods off a node until the driver can serve them. It is removed
//! once kubelet has registered the driver, as the node's CSINode object shows.
//!
//! A JSON patch removes the taint. Its test operation has the list of taints as it was read: if another client has
//! changed the list meanwhile, the patch fails, and the next attempt reads the list again. The patch changes nothing
//! else of the node.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Taint};
use k8s_openapi::api::storage::v1::CSINode;
use kube::{Api, Client};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{Cluster, ClusterError};

/// The pause after the first attempt without success; doubled after each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The taint of a driver on a node.
#[derive(Debug)]
pub(crate) struct StartupTaint {
    cluster: Cluster,
    node: String,
    driver: String,
}

/// The outcome of one attempt.
#[derive(Debug, PartialEq, Eq)]
enum Attempt {
    /// The node does not have the taint.
    Gone,
    /// It was removed.
    Removed,
    /// kubelet has not registered the driver yet.
    NotRegistered,
}

impl StartupTaint {
    /// The taint of `driver` on `node`.
    pub fn new(cluster: Cluster, node: String, driver: String) -> Self {
        Self { cluster, node, driver }
    }

    /// Removes the taint once the driver is registered. Returns when it is removed, or at the shutdown. Failures are
    /// retried without limit, because a node that keeps its taint runs no pods.
    pub async fn remove(&self, shutdown: &CancellationToken) {
        let (mut pause, mut warned) = (FIRST_PAUSE, false);
        loop {
            match self.attempt().await {
                Ok(Attempt::Gone) => return tracing::debug!("there is no startup taint"),
                Ok(Attempt::Removed) => {
                    return tracing::info!(node = self.node, "the startup taint was removed");
                }
                Ok(Attempt::NotRegistered) => tracing::debug!("the driver is not registered yet"),
                // The first failure is a warning; repetitions are not.
                Err(error) if warned => tracing::debug!("the startup taint stays for now: {error}"),
                Err(error) => {
                    warned = true;
                    tracing::warn!("the startup taint stays for now: {error}");
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt(&self) -> Result<Attempt, ClusterError> {
        let client = &self.cluster.0;
        let nodes: Api<Node> = Api::all(client.clone());
        let failed = |action: &str| {
            let action = format!("{action} {}", self.node);
            move |error| ClusterError::of(action, &error)
        };
        let node = nodes.get(&self.node).await.map_err(failed("read node"))?;
        let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
        let Some(patch) = patch(&taints, &format!("{}/agent-not-ready", self.driver)) else {
            return Ok(Attempt::Gone);
        };
        // Read only if there is a taint: most nodes have none.
        let registered: Api<CSINode> = Api::all(client.clone());
        let registered = registered.get_opt(&self.node).await.map_err(failed("read CSINode"))?;
        let drivers = registered.map(|found| found.spec.drivers).unwrap_or_default();
        if !drivers.iter().any(|driver| driver.name == self.driver) {
            return Ok(Attempt::NotRegistered);
        }
        send(client, &self.node, &patch).await.map_err(failed("patch node"))?;
        Ok(Attempt::Removed)
    }
}

/// The patch that removes every taint with this key; `None` if there is none.
fn patch(taints: &[Taint], key: &str) -> Option<serde_json::Value> {
    let kept: Vec<_> = taints.iter().filter(|taint| taint.key != key).collect();
    if kept.len() == taints.len() {
        return None;
    }
    let change = match kept.as_slice() {
        [] => json!({"op": "remove", "path": "/spec/taints"}),
        kept => json!({"op": "replace", "path": "/spec/taints", "value": kept}),
    };
    Some(json!([{"op": "test", "path": "/spec/taints", "value": taints}, change]))
}

async fn send(client: &Client, node: &str, patch: &serde_json::Value) -> Result<(), kube::Error> {
    let request = hyper::http::Request::patch(format!("/api/v1/nodes/{node}"))
        .header("content-type", "application/json-patch+json")
        .body(patch.to_string().into_bytes())
        .map_err(kube::Error::HttpError)?;
    client.request_text(request).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taint(key: &str) -> Taint {
        Taint { key: key.to_owned(), effect: "NoExecute".to_owned(), ..Taint::default() }
    }

    #[test]
    fn only_our_taint_goes_and_only_from_the_list_that_was_seen() {
        assert_eq!(patch(&[taint("other")], "d/agent-not-ready"), None);
        let ours = taint("d/agent-not-ready");
        let both = patch(&[taint("other"), ours.clone()], "d/agent-not-ready").unwrap();
        assert_eq!(both[0]["op"], "test");
        assert_eq!(both[0]["value"].as_array().unwrap().len(), 2);
        assert_eq!(both[1]["op"], "replace");
        assert_eq!(both[1]["value"][0]["key"], "other");
        assert_eq!(patch(&[ours], "d/agent-not-ready").unwrap()[1]["op"], "remove");
    }
}
