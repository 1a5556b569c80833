//! The pull secrets of a pod and of its ServiceAccount, as kubelet uses them for the pod's containers.
//!
//! kubelet names the pod (`podInfoOnMount`), and the node service believes it only about the pod in whose directory the
//! volume is published. The named pod is read from the API server and must have that unique id and run on this node, so
//! that naming another pod yields no credentials. Nothing is cached: a changed or deleted Secret takes effect at the
//! next publish.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{LocalObjectReference, Pod, Secret, ServiceAccount};
use kube::Api;

use super::{Cluster, ClusterError};
use crate::kind::Kind;
use crate::node::credential_providers::plugins::ServiceAccounts;
use crate::node::credential_providers::{CredentialProvider, CredentialProviderError, PodIdentity};
use crate::oci::Credentials;
use crate::oci::reference::Reference;
use crate::volume::attributes::PodInfo;
use crate::volume::secrets;

/// Reads pull secrets for the pods of one node.
#[derive(Debug, Clone)]
pub(crate) struct PullSecrets {
    cluster: Cluster,
    node: String,
    /// All if empty.
    namespaces: Vec<String>,
}

/// How long the API server is waited for, for all of a pod's objects. Images that need no credentials must not wait long
/// for an API server that does not answer.
const PATIENCE: Duration = Duration::from_secs(5);

impl PullSecrets {
    /// Pull secrets for the pods of `node` in these `namespaces`, in all if there are none.
    pub fn new(cluster: Cluster, node: String, namespaces: Vec<String>) -> Self {
        Self { cluster, node, namespaces }
    }

    fn may_read(&self, namespace: &str) -> bool {
        self.namespaces.is_empty() || self.namespaces.iter().any(|listed| listed == namespace)
    }

    async fn of(&self, named: &PodInfo) -> Result<Credentials, PullSecretError> {
        let pod = self.pod(named).await?;
        let spec = pod.spec.unwrap_or_default();
        let mut names: Vec<String> = listed(spec.image_pull_secrets);
        if let Some(account) = spec.service_account_name {
            let account = self.account(&named.namespace, &account).await?;
            names.extend(listed(account.image_pull_secrets));
        }
        // Pod and ServiceAccount often name the same Secret; it is read once.
        let mut seen = Vec::new();
        let mut all = Credentials::none();
        for name in names {
            if !seen.contains(&name) {
                all = all.and(self.secret(&named.namespace, &name).await?);
                seen.push(name);
            }
        }
        Ok(all)
    }

    async fn pod(&self, named: &PodInfo) -> Result<Pod, PullSecretError> {
        let pods: Api<Pod> = Api::namespaced(self.cluster.0.clone(), &named.namespace);
        let pod = pods.get(&named.name).await.map_err(failed(format!("read pod {named}")))?;
        let uid = pod.metadata.uid.as_deref();
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        if uid != Some(&*named.uid) || node != Some(&*self.node) {
            return Err(PullSecretError::NotHere);
        }
        Ok(pod)
    }

    async fn account(&self, namespace: &str, name: &str) -> Result<ServiceAccount, PullSecretError> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.cluster.0.clone(), namespace);
        Ok(accounts.get(name).await.map_err(failed(format!("read ServiceAccount {namespace}/{name}")))?)
    }

    /// A Secret's credentials; none if it does not exist, as in kubelet.
    async fn secret(&self, namespace: &str, name: &str) -> Result<Credentials, PullSecretError> {
        let secrets: Api<Secret> = Api::namespaced(self.cluster.0.clone(), namespace);
        let read = secrets.get(name).await.map_err(failed(format!("read Secret {namespace}/{name}")));
        let secret = match read {
            Err(ClusterError::Missing { .. }) => {
                tracing::info!("pull secret {namespace}/{name} does not exist");
                return Ok(Credentials::none());
            }
            other => other?,
        };
        let data: BTreeMap<_, _> = secret.data.unwrap_or_default();
        // Docker configs are JSON; a value that is not UTF-8 cannot be one.
        let texts = data.into_iter().filter_map(|(key, value)| Some((key, String::from_utf8(value.0).ok()?)));
        secrets::credentials(&texts.collect())
            .map_err(|error| PullSecretError::Secret(format!("Secret {namespace}/{name}: {error}")))
    }
}

fn listed(references: Option<Vec<LocalObjectReference>>) -> Vec<String> {
    references.unwrap_or_default().into_iter().map(|reference| reference.name).collect()
}

fn failed(action: String) -> impl FnOnce(kube::Error) -> ClusterError {
    move |error| ClusterError::of(action, &error)
}

enum PullSecretError {
    /// A request to the API server failed.
    Cluster(ClusterError),
    /// A Secret is not a usable pull secret.
    Secret(String),
    /// The pod has another unique id or runs on another node.
    NotHere,
    /// The API server does not answer.
    Late,
}

impl From<ClusterError> for PullSecretError {
    fn from(error: ClusterError) -> Self {
        Self::Cluster(error)
    }
}

#[async_trait]
impl CredentialProvider for PullSecrets {
    async fn credentials(
        &self,
        image: &Reference,
        identity: &PodIdentity,
    ) -> Result<Credentials, CredentialProviderError> {
        let pod = &identity.pod;
        // A volume that is staged, a CSIDriver without podInfoOnMount, or a namespace whose Secrets are not for this plugin.
        if pod.name.is_empty() || pod.namespace.is_empty() || !self.may_read(&pod.namespace) {
            return Ok(Credentials::none());
        }
        let failed = |why, remedy, kind| CredentialProviderError {
            what: format!("the pull secrets of pod {pod} cannot be had"),
            image: image.to_string(),
            why,
            remedy,
            kind,
        };
        let read = tokio::time::timeout(PATIENCE, self.of(pod)).await;
        read.unwrap_or(Err(PullSecretError::Late)).map_err(|failure| match failure {
            PullSecretError::Late => failed(
                format!("the API server has not answered within {} s", PATIENCE.as_secs()),
                "it is tried again, look at the API server if this lasts",
                Kind::Transient,
            ),
            PullSecretError::Cluster(error) => {
                failed(error.to_string(), "or start the plugin without --pull-secrets", error.kind())
            }
            PullSecretError::Secret(why) => {
                failed(why, "correct or remove it from imagePullSecrets", Kind::Invalid)
            }
            PullSecretError::NotHere => failed(
                "there is no such pod on this node".to_owned(),
                "is podInfoOnMount set in the CSIDriver?",
                Kind::Denied,
            ),
        })
    }
}

#[async_trait]
impl ServiceAccounts for PullSecrets {
    async fn annotations(&self, namespace: &str, name: &str) -> Result<BTreeMap<String, String>, String> {
        if !self.may_read(namespace) {
            return Err(format!("ServiceAccounts of namespace {namespace} are not for this plugin to read"));
        }
        match self.account(namespace, name).await {
            Ok(account) => Ok(account.metadata.annotations.unwrap_or_default()),
            Err(PullSecretError::Cluster(error)) => Err(error.to_string()),
            Err(_) => Err("the ServiceAccount cannot be read".to_owned()),
        }
    }
}
