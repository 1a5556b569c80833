//! Which credentials a pull sends to the registry, least privilege first.
//!
//! 1. the Secret of the request (`nodePublishSecretRef`): the pod's author chose it for this volume;
//! 2. the pull secrets of the pod and of its ServiceAccount, if the operator lets the plugin read them;
//! 3. kubelet's credential-provider plugins ([`plugins`]);
//! 4. the node's auth file, the fallback of [`Sources`](crate::oci::Sources).
//!
//! The first source with credentials for the image decides. A refusal by the registry does not lead to the next source:
//! that would try one tenant's image with another's credentials.

use std::sync::Arc;

use async_trait::async_trait;

use crate::kind::Kind;
use crate::oci::Credentials;
use crate::oci::reference::Reference;
use crate::volume::attributes::PodInfo;
use crate::volume::secrets::Tokens;

pub mod plugins;

/// The pod for which an image is pulled.
#[derive(Debug, Clone, Default)]
pub(crate) struct PodIdentity {
    /// The pod; empty if none is known, as for staging.
    pub pod: PodInfo,
    /// The tokens of its ServiceAccount.
    pub tokens: Tokens,
}

/// A source of credentials.
#[async_trait]
pub(crate) trait CredentialProvider: Send + Sync + std::fmt::Debug {
    /// The credentials for this image and this pod; may be none.
    ///
    /// # Errors
    /// The provider cannot tell whether it has credentials.
    async fn credentials(
        &self,
        image: &Reference,
        identity: &PodIdentity,
    ) -> Result<Credentials, CredentialProviderError>;
}

/// Why a provider cannot tell which credentials it has.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{what} for image {image}: {why}; {remedy}")]
pub struct CredentialProviderError {
    /// What failed, such as "the pull secrets of pod a/b cannot be had".
    pub what: String,
    /// The image that they were for.
    pub image: String,
    /// What happened. Without secrets.
    pub why: String,
    /// What to do.
    pub remedy: &'static str,
    /// What sort of failure this is.
    pub kind: Kind,
}

impl CredentialProviderError {
    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

/// The credential providers of a node, in order.
#[derive(Debug, Clone, Default)]
pub struct CredentialProviders(Vec<Arc<dyn CredentialProvider>>);

impl CredentialProviders {
    /// These providers, in this order.
    pub(crate) fn new(providers: Vec<Arc<dyn CredentialProvider>>) -> Self {
        Self(providers)
    }

    /// The credentials for `image`: `own` if they cover it, else those of the first provider that has some.
    ///
    /// # Errors
    /// A provider failed before another one had credentials.
    pub(crate) async fn complete(
        &self,
        image: &Reference,
        own: &Credentials,
        identity: &PodIdentity,
    ) -> Result<Credentials, CredentialProviderError> {
        // A layout is a directory of this node and needs no credentials.
        if own.cover(image) || matches!(image, Reference::Layout(_)) {
            return Ok(own.clone());
        }
        for provider in &self.0 {
            let found = provider.credentials(image, identity).await?;
            if found.cover(image) {
                return Ok(found);
            }
        }
        // They do not cover the image, so the registry is asked anonymously or with the node's auth file.
        Ok(own.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Fake(&'static str, Result<(), ()>);

    #[async_trait]
    impl CredentialProvider for Fake {
        async fn credentials(
            &self,
            image: &Reference,
            _: &PodIdentity,
        ) -> Result<Credentials, CredentialProviderError> {
            self.1.map(|()| has(self.0)).map_err(|()| CredentialProviderError {
                what: "test".to_owned(),
                image: image.to_string(),
                why: "broken".to_owned(),
                remedy: "mend it",
                kind: Kind::Transient,
            })
        }
    }

    fn has(key: &str) -> Credentials {
        Credentials::of_passwords([(key.to_owned(), (key.to_owned(), "p".to_owned()))]).unwrap()
    }

    #[tokio::test]
    async fn the_first_that_has_something_decides() {
        let chain = CredentialProviders::new(vec![
            Arc::new(Fake("a.io", Ok(()))),
            Arc::new(Fake("b.io", Ok(()))),
            Arc::new(Fake("c.io", Err(()))),
        ]);
        let ask = async |image: &str, own: &str| {
            let image = image.parse().unwrap();
            chain.complete(&image, &has(own), &PodIdentity::default()).await.map(|found| found.cover(&image))
        };
        assert!(ask("x.io/i", "x.io").await.unwrap(), "the request's own, and nobody else is asked");
        assert!(ask("b.io/i", "x.io").await.unwrap());
        assert_eq!(ask("d.io/i", "x.io").await.unwrap_err().kind(), Kind::Transient);
        assert!(!ask("oci:/srv/i", "x.io").await.unwrap(), "a directory asks for no credentials");
    }
}
