//! The pull secrets of a pod and of its ServiceAccount, as kubelet uses them for the pod's containers.
//!
//! Which pod asks is kubelet's word (`podInfoOnMount`), and where the CSIDriver does not ask for that, it is the
//! word of whoever wrote the volume. So the pod is looked up and must be the one named, by its unique id, on this
//! very node: nobody gets the credentials of a pod elsewhere by naming it. Nothing is kept: a Secret that was
//! changed or taken away counts at the next publish.

use std::collections::BTreeMap;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{LocalObjectReference, Pod, Secret, ServiceAccount};
use kube::Api;

use super::{Cluster, ClusterError};
use crate::kind::Kind;
use crate::node::credential_providers::plugins::Accounts;
use crate::node::credential_providers::{CredentialProvider, CredentialProviderError, PodIdentity};
use crate::oci::Credentials;
use crate::oci::reference::Reference;
use crate::volume::attributes::PodInfo;
use crate::volume::secrets;

/// Reads pull secrets for the pods of one node.
#[derive(Debug, Clone)]
pub struct PullSecrets {
    cluster: Cluster,
    node: String,
}

impl PullSecrets {
    /// For the pods of `node`.
    pub fn new(cluster: Cluster, node: String) -> Self {
        Self { cluster, node }
    }

    async fn of(&self, asked: &PodInfo) -> Result<Credentials, Failure> {
        let pod = self.pod(asked).await?;
        let spec = pod.spec.unwrap_or_default();
        let mut names: Vec<String> = listed(spec.image_pull_secrets);
        if let Some(account) = spec.service_account_name {
            let account = self.account(&asked.namespace, &account).await?;
            names.extend(listed(account.image_pull_secrets));
        }
        let mut seen = Vec::new();
        let mut all = Credentials::none();
        for name in names {
            if !seen.contains(&name) {
                all = all.and(self.secret(&asked.namespace, &name).await?);
                seen.push(name);
            }
        }
        Ok(all)
    }

    async fn pod(&self, asked: &PodInfo) -> Result<Pod, Failure> {
        let pods: Api<Pod> = Api::namespaced(self.cluster.0.clone(), &asked.namespace);
        let pod = pods.get(&asked.name).await.map_err(failed(format!("read pod {asked}")))?;
        let uid = pod.metadata.uid.as_deref();
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        if uid != Some(&*asked.uid) || node != Some(&*self.node) {
            return Err(Failure::NotHere);
        }
        Ok(pod)
    }

    async fn account(&self, namespace: &str, name: &str) -> Result<ServiceAccount, Failure> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.cluster.0.clone(), namespace);
        Ok(accounts.get(name).await.map_err(failed(format!("read ServiceAccount {namespace}/{name}")))?)
    }

    /// A Secret's credentials; none if it does not exist or is of another type, as kubelet has it.
    async fn secret(&self, namespace: &str, name: &str) -> Result<Credentials, Failure> {
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
        let texts = data.into_iter().filter_map(|(key, value)| Some((key, String::from_utf8(value.0).ok()?)));
        secrets::credentials(&texts.collect())
            .map_err(|error| Failure::Secret(format!("Secret {namespace}/{name}: {error}")))
    }
}

fn listed(references: Option<Vec<LocalObjectReference>>) -> Vec<String> {
    references.unwrap_or_default().into_iter().map(|reference| reference.name).collect()
}

fn failed(action: String) -> impl FnOnce(kube::Error) -> ClusterError {
    move |error| ClusterError::of(action, &error)
}

enum Failure {
    /// The API server.
    Cluster(ClusterError),
    /// A Secret that is none.
    Secret(String),
    /// Another pod than the one named, or one of another node.
    NotHere,
}

impl From<ClusterError> for Failure {
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
        if pod.name.is_empty() || pod.namespace.is_empty() {
            // A volume that is staged, or a CSIDriver without podInfoOnMount.
            return Ok(Credentials::none());
        }
        let failed = |why, remedy, kind| CredentialProviderError {
            what: format!("the pull secrets of pod {pod} cannot be had"),
            image: image.to_string(),
            why,
            remedy,
            kind,
        };
        self.of(pod).await.map_err(|failure| match failure {
            Failure::Cluster(error) => {
                failed(error.to_string(), "or start the plugin without --pull-secrets", error.kind())
            }
            Failure::Secret(why) => failed(why, "correct or remove it from imagePullSecrets", Kind::Invalid),
            Failure::NotHere => failed(
                "there is no such pod on this node".to_owned(),
                "is podInfoOnMount set in the CSIDriver?",
                Kind::Denied,
            ),
        })
    }
}

#[async_trait]
impl Accounts for PullSecrets {
    async fn annotations(&self, namespace: &str, name: &str) -> Result<BTreeMap<String, String>, String> {
        match self.account(namespace, name).await {
            Ok(account) => Ok(account.metadata.annotations.unwrap_or_default()),
            Err(Failure::Cluster(error)) => Err(error.to_string()),
            Err(_) => Err("the ServiceAccount cannot be read".to_owned()),
        }
    }
}
