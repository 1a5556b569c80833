//! Whose credentials a pull shows the registry, least privilege first.
//!
//! 1. the Secret that came with the request (`nodePublishSecretRef`): the pod's author chose it for this volume;
//! 2. the pull secrets of the pod and of its ServiceAccount, where the operator lets the plugin read them;
//! 3. kubelet's credential-provider plugins ([`plugins`]);
//! 4. the node's auth file, which [`Sources`](crate::oci::Sources) falls back to.
//!
//! The first that has something for the image decides. Nothing falls through because it was refused: that would
//! try one tenant's image with another's credentials.

use std::sync::Arc;

use async_trait::async_trait;

use crate::kind::Kind;
use crate::oci::Credentials;
use crate::oci::reference::Reference;
use crate::volume::attributes::PodInfo;
use crate::volume::secrets::Tokens;

pub mod plugins;

/// Who asks for an image.
#[derive(Debug, Clone, Default)]
pub struct PodIdentity {
    /// The pod; empty where none is known, as when a volume is staged.
    pub pod: PodInfo,
    /// Tokens of its ServiceAccount.
    pub tokens: Tokens,
}

/// Somebody who may have credentials.
#[async_trait]
pub trait CredentialProvider: Send + Sync + std::fmt::Debug {
    /// What it has for this image and this pod; nothing is an answer, too.
    ///
    /// # Errors
    /// It cannot be known whether there is something.
    async fn credentials(
        &self,
        image: &Reference,
        identity: &PodIdentity,
    ) -> Result<Credentials, CredentialProviderError>;
}

/// Why it is not known which credentials there are.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{what} for image {image}: {why}; {remedy}")]
pub struct CredentialProviderError {
    /// What was tried and failed, such as "cannot read the pull secrets of pod a/b".
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

/// The keyrings of a node, in order.
#[derive(Debug, Clone, Default)]
pub struct CredentialProviders(Vec<Arc<dyn CredentialProvider>>);

impl CredentialProviders {
    /// These keyrings, in this order.
    pub fn new(providers: Vec<Arc<dyn CredentialProvider>>) -> Self {
        Self(providers)
    }

    /// What to show the registry of `image`: `own` where it has something for it.
    ///
    /// # Errors
    /// A keyring that comes before the first with an answer failed.
    pub async fn complete(
        &self,
        image: &Reference,
        own: &Credentials,
        identity: &PodIdentity,
    ) -> Result<Credentials, CredentialProviderError> {
        if own.cover(image) || matches!(image, Reference::Layout(_)) {
            return Ok(own.clone());
        }
        for ring in &self.0 {
            let found = ring.credentials(image, identity).await?;
            if found.cover(image) {
                return Ok(found);
            }
        }
        Ok(own.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Ring(&'static str, Result<(), ()>);

    #[async_trait]
    impl CredentialProvider for Ring {
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
            Arc::new(Ring("a.io", Ok(()))),
            Arc::new(Ring("b.io", Ok(()))),
            Arc::new(Ring("c.io", Err(()))),
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
