//! What a node reads and writes for its prefetches: Secrets by name, its own labels, its own NodeImageCache.

use std::collections::BTreeMap;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Node, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Api;
use kube::api::{DynamicObject, ObjectMeta, Patch, PatchParams, PostParams};
use kube::core::PartialObjectMeta;
use serde_json::json;

use super::node_image_caches;
use crate::cluster::{Cluster, ClusterError};
use crate::node::prefetch::{PrefetchApi, Refusal};
use crate::oci::Credentials;
use crate::prefetch::report::NodeReport;
use crate::volume::secrets;

/// The API server as one node uses it.
#[derive(Debug, Clone)]
pub(crate) struct NodePrefetches {
    cluster: Cluster,
    node: String,
}

impl NodePrefetches {
    /// That of `node`.
    pub fn new(cluster: Cluster, node: String) -> Self {
        Self { cluster, node }
    }

    async fn own_node(&self) -> Result<PartialObjectMeta<Node>, ClusterError> {
        let nodes: Api<Node> = Api::all(self.cluster.0.clone());
        let read = nodes.get_metadata(&self.node).await;
        read.map_err(|error| ClusterError::of(format!("read node {}", self.node), &error))
    }

    fn caches(&self) -> Api<DynamicObject> {
        Api::all_with(self.cluster.0.clone(), &node_image_caches())
    }

    /// Makes the object; the node's end is its end.
    async fn create(&self) -> Result<(), ClusterError> {
        let node = self.own_node().await?;
        let owner = OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: self.node.clone(),
            uid: node.metadata.uid.unwrap_or_default(),
            ..OwnerReference::default()
        };
        let mut object = DynamicObject::new(&self.node, &node_image_caches());
        object.metadata = ObjectMeta { owner_references: Some(vec![owner]), ..object.metadata };
        match self.caches().create(&PostParams::default(), &object).await {
            Ok(_) => Ok(()),
            // An earlier process, which has not seen the answer.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(ClusterError::of(format!("create NodeImageCache {}", self.node), &error)),
        }
    }

    async fn patch(&self, report: &NodeReport) -> Result<(), ClusterError> {
        // One process writes it, so that what is there need not be read. A merge replaces lists as a whole.
        let patch = Patch::Merge(json!({ "status": report }));
        let patched = self.caches().patch_status(&self.node, &PatchParams::default(), &patch).await;
        patched.map(drop).map_err(|error| {
            ClusterError::of(format!("write the status of NodeImageCache {}", self.node), &error)
        })
    }
}

#[async_trait]
impl PrefetchApi for NodePrefetches {
    async fn secret(&self, namespace: &str, name: &str) -> Result<Credentials, Refusal> {
        let api: Api<Secret> = Api::namespaced(self.cluster.0.clone(), namespace);
        let refusal = |reason, message| Refusal { reason, message };
        let secret = api.get(name).await.map_err(|error| {
            match ClusterError::of(format!("read Secret {namespace}/{name}"), &error) {
                ClusterError::Forbidden { .. } => refusal(
                    "SecretForbidden",
                    format!(
                        "the node plugin may not read Secret {name}: in namespace {namespace}, bind a Role that lets its \
                         ServiceAccount get secrets with resourceNames [{name}], see docs/prefetch.md"
                    ),
                ),
                ClusterError::Missing { .. } => {
                    refusal("SecretMissing", format!("there is no Secret {namespace}/{name}; create it"))
                }
                other => refusal("ApiServerUnavailable", other.to_string()),
            }
        })?;
        let data = secret.data.unwrap_or_default();
        // Docker configs are JSON; a value that is not UTF-8 cannot be one.
        let texts = data.into_iter().filter_map(|(key, value)| Some((key, String::from_utf8(value.0).ok()?)));
        secrets::credentials(&texts.collect())
            .map_err(|error| refusal("SecretUnusable", format!("Secret {namespace}/{name}: {error}")))
    }

    async fn labels(&self) -> Result<BTreeMap<String, String>, String> {
        let node = self.own_node().await.map_err(|error| error.to_string())?;
        Ok(node.metadata.labels.unwrap_or_default())
    }

    async fn report(&self, report: &NodeReport) -> Result<(), String> {
        let written = match self.patch(report).await {
            Err(ClusterError::Missing { .. }) => {
                self.create().await.map_err(|error| error.to_string())?;
                self.patch(report).await
            }
            written => written,
        };
        written.map_err(|error| error.to_string())
    }
}
