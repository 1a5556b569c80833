//! kubelet's credential-provider plugins: the same configuration, the same programs, the same protocol
//! (credentialprovider.kubelet.k8s.io/v1), so that a node which can run an image can mount it, too.
//!
//! A plugin that fails is reported and passed over, as kubelet does: what it would have said is then missing,
//! and the registry decides.

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
mod duration;
mod exec;
#[cfg(test)]
mod tests;

pub use config::ConfigError;

use self::cache::{Cache, Owner};
use self::config::{CacheType, Provider, TokenAttributes};
use self::exec::Question;
use super::{CredentialProvider, CredentialProviderError, PodIdentity};
use crate::oci::Credentials;
use crate::oci::digest::Digest;
use crate::oci::reference::Reference;

/// Processes of one plugin at a time.
const PROCESSES: usize = 4;

/// Somebody who can say which annotations a ServiceAccount has.
#[async_trait]
pub trait Accounts: Send + Sync + std::fmt::Debug {
    /// All annotations of a ServiceAccount.
    ///
    /// # Errors
    /// A sentence, if they cannot be had.
    async fn annotations(&self, namespace: &str, name: &str) -> Result<BTreeMap<String, String>, String>;
}

/// The plugins of a node.
#[derive(Debug)]
pub struct Plugins {
    providers: Vec<Asked>,
    accounts: Option<Arc<dyn Accounts>>,
}

#[derive(Debug)]
struct Asked {
    provider: Provider,
    cache: Cache,
    turns: Semaphore,
}

impl Plugins {
    /// The plugins that `text`, the content of `file`, configures; their programs are in `programs`.
    ///
    /// # Errors
    /// The configuration is malformed, or a program is missing.
    pub fn new(
        file: &Path,
        text: &str,
        programs: &Path,
        accounts: Option<Arc<dyn Accounts>>,
    ) -> Result<Self, ConfigError> {
        let asked = |provider| Asked { provider, cache: Cache::default(), turns: Semaphore::new(PROCESSES) };
        let providers = config::parse(file, text, programs)?.into_iter().map(asked).collect();
        Ok(Self { providers, accounts })
    }

    /// Asks one plugin, unless it has answered before.
    async fn ask(
        &self,
        asked: &Asked,
        image: &Reference,
        identity: &PodIdentity,
    ) -> Result<Credentials, String> {
        let Reference::Registry(registry) = image else { return Ok(Credentials::none()) };
        let provider = &asked.provider;
        let (name, host) = (registry.name(), registry.host());
        let (token, annotations, owner) = match &provider.token {
            None => (None, BTreeMap::new(), Owner::Node),
            Some(wanted) => match identity.tokens.get(&wanted.audience) {
                Some(token) => {
                    let annotations = self.annotations(wanted, identity).await?;
                    (Some(token), annotations.clone(), owner(wanted, token, annotations))
                }
                None if wanted.require_service_account => {
                    return Err(format!(
                        "it needs a token for audience {:?}, and none came with the request; add the audience to \
                         tokenRequests of the CSIDriver, with serviceAccountTokenInSecrets",
                        wanted.audience
                    ));
                }
                None => (None, BTreeMap::new(), Owner::Node),
            },
        };
        let cached = || asked.cache.get(&name, host, &owner, Instant::now());
        if let Some(credentials) = cached() {
            return Ok(credentials);
        }
        let _turn = asked.turns.acquire().await;
        // Whoever was before us may have asked the same.
        if let Some(credentials) = cached() {
            return Ok(credentials);
        }
        let question =
            Question { image: &name, service_account_token: token, service_account_annotations: annotations };
        let answer = exec::ask(provider, &question).await?;
        asked.cache.keep(&name, host, owner.clone(), &answer, provider.default_cache, Instant::now());
        Ok(answer.credentials)
    }

    /// Those annotations of the pod's ServiceAccount that the plugin is to be shown.
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
        for asked in &self.providers {
            if !asked.provider.images.iter().any(|glob| glob.matches(image)) {
                continue;
            }
            match self.ask(asked, image, identity).await {
                Ok(credentials) => found = found.and(credentials),
                Err(why) => {
                    let provider = asked.provider.name.as_str();
                    tracing::warn!(provider, image = %image, "no credentials from a credential provider: {why}");
                }
            }
        }
        Ok(found)
    }
}

/// Whose answer is bought with a token.
fn owner(wanted: &TokenAttributes, token: &str, annotations: BTreeMap<String, String>) -> Owner {
    let by_token = || Owner::Token(Digest::of(token.as_bytes()));
    match wanted.cache_type {
        CacheType::Token => by_token(),
        // A token whose owner cannot be read is its own.
        CacheType::ServiceAccount => claims(token).map_or_else(by_token, |claims| Owner::Account {
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
    kubernetes: Claims,
}

#[derive(Deserialize)]
struct Claims {
    namespace: String,
    serviceaccount: Account,
}

#[derive(Deserialize)]
struct Account {
    name: String,
    uid: String,
}

/// What a ServiceAccount's token says of its owner. Not verified: it came from kubelet, in secrets.
fn claims(token: &str) -> Option<Claims> {
    let payload = token.split('.').nth(1)?;
    let json = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).ok()?;
    serde_json::from_slice::<Payload>(&json).ok().map(|payload| payload.kubernetes)
}
