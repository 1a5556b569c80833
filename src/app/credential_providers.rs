//! The credential providers of a node, by its settings.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;

use crate::cluster::Cluster;
use crate::cluster::pull_secrets::PullSecrets;
use crate::node::credential_providers::plugins::{Plugins, ServiceAccounts};
use crate::node::credential_providers::{CredentialProvider, CredentialProviders};

/// Where credentials come from, in addition to those of a request and the auth file.
#[derive(Debug, Clone, Default)]
pub struct CredentialProviderSettings {
    /// Read the pull secrets of pods and ServiceAccounts.
    pub pull_secrets: bool,
    /// Of which namespaces; all if empty.
    pub pull_secrets_namespaces: Vec<String>,
    /// kubelet's configuration of credential providers, and the directory of their programs.
    pub providers: Option<(PathBuf, PathBuf)>,
}

/// Makes the credential providers, least privilege first.
///
/// # Errors
/// The configuration of credential providers cannot be read or used, or a provider needs the API server and there is
/// none.
pub async fn credential_providers(
    settings: &CredentialProviderSettings,
    cluster: Option<&Cluster>,
    node: &str,
) -> anyhow::Result<CredentialProviders> {
    let mut providers: Vec<Arc<dyn CredentialProvider>> = Vec::new();
    let mut accounts: Option<Arc<dyn ServiceAccounts>> = None;
    if settings.pull_secrets {
        let cluster = cluster.context("--pull-secrets needs the API server")?;
        let secrets = Arc::new(PullSecrets::new(
            cluster.clone(),
            node.to_owned(),
            settings.pull_secrets_namespaces.clone(),
        ));
        providers.push(secrets.clone());
        accounts = Some(secrets);
    }
    if let Some((file, programs)) = &settings.providers {
        let text = tokio::fs::read_to_string(file).await;
        let text =
            text.with_context(|| format!("cannot read --credential-provider-config {}", file.display()))?;
        providers.push(Arc::new(Plugins::new(file, &text, programs, accounts)?));
    }
    Ok(CredentialProviders::new(providers))
}
