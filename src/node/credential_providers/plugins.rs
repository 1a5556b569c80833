//! kubelet's credential-provider plugins, with the same configuration, programs and protocol
//! (credentialprovider.kubelet.k8s.io/v1), so that a node that can run an image can also mount it.
//!
//! As in kubelet, a failed plugin is logged and skipped. Its credentials are then missing, and the registry decides.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use base64::Engine as _;
use serde::Deserialize;
use tokio::sync::Semaphore;

mod cache;
mod config;
mod exec;
#[cfg(test)]
mod tests;

pub(crate) use config::ConfigError;

use self::cache::{AnswerCache, CacheOwner};
use self::config::{CacheType, Provider, TokenAttributes};
use self::exec::ExecRequest;
use super::{CredentialProvider, CredentialProviderError, PodIdentity};
use crate::oci::Credentials;
use crate::oci::digest::Digest;
use crate::oci::reference::Reference;

/// The number of concurrent processes of one plugin.
const PROCESSES: usize = 4;

/// Reads the annotations of ServiceAccounts.
#[async_trait]
pub(crate) trait ServiceAccounts: Send + Sync + std::fmt::Debug {
    /// All annotations of a ServiceAccount.
    ///
    /// # Errors
    /// Why they cannot be read, a sentence.
    async fn annotations(&self, namespace: &str, name: &str) -> Result<BTreeMap<String, String>, String>;
}

/// The plugins of a node.
#[derive(Debug)]
pub(crate) struct Plugins {
    providers: Vec<ConfiguredPlugin>,
    accounts: Option<Arc<dyn ServiceAccounts>>,
}

/// One plugin, with its cached answers and the permits for its processes.
#[derive(Debug)]
struct ConfiguredPlugin {
    provider: Provider,
    cache: AnswerCache,
    permits: Semaphore,
}

impl Plugins {
    /// The plugins that `text`, the contents of `file`, configures. Their programs are in the directory `programs`.
    ///
    /// # Errors
    /// The configuration is malformed, or a program is missing.
    pub fn new(
        file: &Path,
        text: &str,
        programs: &Path,
        accounts: Option<Arc<dyn ServiceAccounts>>,
    ) -> Result<Self, ConfigError> {
        let configured = |provider| ConfiguredPlugin {
            provider,
            cache: AnswerCache::default(),
            permits: Semaphore::new(PROCESSES),
        };
        let providers = config::parse(file, text, programs)?.into_iter().map(configured).collect();
        Ok(Self { providers, accounts })
    }

    /// The credentials from one plugin, cached or by running it.
    async fn credentials_from(
        &self,
        plugin: &ConfiguredPlugin,
        image: &Reference,
        identity: &PodIdentity,
    ) -> Result<Credentials, String> {
        let Reference::Registry(registry) = image else { return Ok(Credentials::none()) };
        let provider = &plugin.provider;
        let (name, host) = (registry.name(), registry.host());
        let (token, annotations, owner) = match &provider.token {
            None => (None, BTreeMap::new(), CacheOwner::Node),
            Some(wanted) => match identity.tokens.get(&wanted.audience) {
                Some(token) => {
                    let annotations = self.annotations(wanted, identity).await?;
                    (Some(token), annotations.clone(), cache_owner(wanted, token, annotations))
                }
                None if wanted.require_service_account => {
                    return Err(format!(
                        "it needs a token for audience {:?}, and none came with the request; add the audience to \
                         tokenRequests of the CSIDriver, with serviceAccountTokenInSecrets",
                        wanted.audience
                    ));
                }
                // The token is optional: the plugin runs with the node's identity.
                None => (None, BTreeMap::new(), CacheOwner::Node),
            },
        };
        let cached = || plugin.cache.get(&name, host, &owner, Instant::now());
        if let Some(credentials) = cached() {
            return Ok(credentials);
        }
        let _permit = plugin.permits.acquire().await;
        // A call that had the permit before may have fetched the same answer.
        if let Some(credentials) = cached() {
            return Ok(credentials);
        }
        let request = ExecRequest {
            image: &name,
            service_account_token: token,
            service_account_annotations: annotations,
        };
        let answer = exec::run(provider, &request).await?;
        plugin.cache.keep(&name, host, owner.clone(), &answer, provider.default_cache, Instant::now());
        Ok(answer.credentials)
    }

    /// The annotations of the pod's ServiceAccount that the plugin's configuration lists.
    async fn annotations(
        &self,
        wanted: &TokenAttributes,
        identity: &PodIdentity,
    ) -> Result<BTreeMap<String, String>, String> {
        if wanted.required_annotations.is_empty() && wanted.optional_annotations.is_empty() {
            return Ok(BTreeMap::new());
        }
        let accounts = self.accounts.as_ref().ok_or(
            "it wants annotations of the ServiceAccount, which this plugin may not read; start it with --pull-secrets",
        )?;
        let mut all = accounts.annotations(&identity.pod.namespace, &identity.pod.service_account).await?;
        if let Some(missing) = wanted.required_annotations.iter().find(|key| !all.contains_key(*key)) {
            return Err(format!("the ServiceAccount lacks the annotation {missing:?} that it needs"));
        }
        all.retain(|key, _| {
            wanted.required_annotations.contains(key) || wanted.optional_annotations.contains(key)
        });
        Ok(all)
    }
}

#[async_trait]
impl CredentialProvider for Plugins {
    async fn credentials(
        &self,
        image: &Reference,
        identity: &PodIdentity,
    ) -> Result<Credentials, CredentialProviderError> {
        let mut found = Credentials::none();
        for plugin in &self.providers {
            if !plugin.provider.images.iter().any(|glob| glob.matches(image)) {
                continue;
            }
            match self.credentials_from(plugin, image, identity).await {
                // Several plugins may match an image; as in kubelet, their credentials are combined.
                Ok(credentials) => found = found.and(credentials),
                Err(why) => {
                    let provider = plugin.provider.name.as_str();
                    tracing::warn!(provider, image = %image, "no credentials from a credential provider: {why}");
                }
            }
        }
        Ok(found)
    }
}

/// The owner of an answer that was given for a token.
fn cache_owner(wanted: &TokenAttributes, token: &str, annotations: BTreeMap<String, String>) -> CacheOwner {
    let by_token = || CacheOwner::Token(Digest::of(token.as_bytes()));
    match wanted.cache_type {
        CacheType::Token => by_token(),
        // Without a readable ServiceAccount the answer belongs to the token itself.
        CacheType::ServiceAccount => claims(token).map_or_else(by_token, |claims| CacheOwner::Account {
            namespace: claims.namespace,
            name: claims.serviceaccount.name,
            uid: claims.serviceaccount.uid,
            annotations,
        }),
    }
}

#[derive(Deserialize)]
struct Payload {
    #[serde(rename = "kubernetes.io")]
    kubernetes: TokenClaims,
}

#[derive(Deserialize)]
struct TokenClaims {
    namespace: String,
    serviceaccount: Account,
}

#[derive(Deserialize)]
struct Account {
    name: String,
    uid: String,
}

/// The owner of a ServiceAccount's token. Not verified: kubelet sent the token, in the request's secrets.
fn claims(token: &str) -> Option<TokenClaims> {
    let payload = token.split('.').nth(1)?;
    let json = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).ok()?;
    serde_json::from_slice::<Payload>(&json).ok().map(|payload| payload.kubernetes)
}
