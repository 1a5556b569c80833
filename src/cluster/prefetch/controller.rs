//! What the controller reads and writes for prefetches: all nodes' labels and reports, the status of each prefetch.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::core::PartialObjectMeta;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::watch::{Start, Told, follow, prefetches};
use super::{image_prefetches, node_image_caches, part};
use crate::cluster::{Cluster, ClusterError};
use crate::controller::prefetch::{Labels, PrefetchStatuses, Seen, Written};
use crate::prefetch::report::NodeReport;
use crate::prefetch::status::PrefetchStatus;
use crate::prefetch::wish::Prefetch;

/// Follows prefetches, nodes and their reports until the shutdown.
pub(crate) async fn watch(cluster: Cluster, seen: mpsc::Sender<Seen>, shutdown: CancellationToken) {
    let nodes: Api<PartialObjectMeta<Node>> = Api::all(cluster.0.clone());
    let reports: Api<DynamicObject> = Api::all_with(cluster.0.clone(), &node_image_caches());
    let (nodes, reports) = (("Nodes", nodes, Start::Newest), ("NodeImageCaches", reports, Start::Newest));
    tokio::join!(
        prefetches(cluster, Start::Newest, seen.clone(), shutdown.clone()),
        follow(nodes, labels, tell_nodes, seen.clone(), shutdown.clone()),
        follow(reports, report, tell_reports, seen, shutdown),
    );
}

fn labels(node: PartialObjectMeta<Node>) -> Option<(String, Labels)> {
    Some((node.metadata.name?, node.metadata.labels.unwrap_or_default()))
}

fn tell_nodes(told: Told<(String, Labels)>) -> Seen {
    match told {
        Told::All(all) => Seen::Nodes(all),
        Told::Set((name, labels)) => Seen::Node(name, Some(labels)),
        Told::Gone((name, _)) => Seen::Node(name, None),
    }
}

/// One that cannot be read is as one that says nothing.
fn report(object: DynamicObject) -> Option<(String, NodeReport)> {
    let report = part(&object, "status").unwrap_or_default();
    Some((object.metadata.name?, report))
}

fn tell_reports(told: Told<(String, NodeReport)>) -> Seen {
    match told {
        Told::All(all) => Seen::Reports(all),
        Told::Set((name, report)) => Seen::Report(name, Some(report)),
        Told::Gone((name, _)) => Seen::Report(name, None),
    }
}

#[async_trait]
impl PrefetchStatuses for Cluster {
    async fn write(&self, prefetch: &Prefetch, status: &PrefetchStatus) -> Result<Written, String> {
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.0.clone(), &prefetch.namespace, &image_prefetches());
        // With the version that was seen: another replica of the controller, or a change of the spec, may have been faster.
        let metadata = json!({ "resourceVersion": prefetch.version, "uid": prefetch.uid });
        let patch = Patch::Merge(json!({ "metadata": metadata, "status": status }));
        match api.patch_status(&prefetch.name, &PatchParams::default(), &patch).await {
            Ok(object) => Ok(Written::As(object.metadata.resource_version.unwrap_or_default())),
            Err(kube::Error::Api(error)) if error.code == 409 || error.code == 404 => Ok(Written::Outdated),
            Err(error) => Err(ClusterError::of(action("write the status of", prefetch), &error).to_string()),
        }
    }

    async fn delete(&self, prefetch: &Prefetch) -> Result<(), String> {
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.0.clone(), &prefetch.namespace, &image_prefetches());
        let preconditions = Preconditions {
            uid: Some(prefetch.uid.clone()),
            resource_version: Some(prefetch.version.clone()),
        };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match api.delete(&prefetch.name, &parameters).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(error)) if error.code == 409 || error.code == 404 => Ok(()),
            Err(error) => Err(ClusterError::of(action("delete", prefetch), &error).to_string()),
        }
    }
}

fn action(what: &str, prefetch: &Prefetch) -> String {
    format!("{what} ImagePrefetch {}/{}", prefetch.namespace, prefetch.name)
}
