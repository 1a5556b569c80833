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
    /// A provider that cannot be reached for now stands in no image's way that needs no credentials: what it would have
    /// given is [`Found::missing`], and the pull is tried without.
    ///
    /// # Errors
    /// A provider failed for good before another one had credentials.
    pub(crate) async fn complete(
        &self,
        image: &Reference,
        own: &Credentials,
        identity: &PodIdentity,
    ) -> Result<Found, CredentialProviderError> {
        let found = |credentials| Ok(Found { credentials, missing: None });
        // A layout is a directory of this node and needs no credentials.
        if own.cover(image) || matches!(image, Reference::Layout(_)) {
            return found(own.clone());
        }
        for provider in &self.0 {
            match provider.credentials(image, identity).await {
                Ok(credentials) if credentials.cover(image) => return found(credentials),
                Ok(_) => {}
                // No other provider is asked: it might know the image by somebody else's credentials.
                Err(error) if error.kind() == Kind::Transient => {
                    return Ok(Found { credentials: own.clone(), missing: Some(error) });
                }
                Err(error) => return Err(error),
            }
        }
        // They do not cover the image, so the registry is asked anonymously or with the node's auth file.
        found(own.clone())
    }
}

/// The credentials for a pull.
#[derive(Debug)]
pub(crate) struct Found {
    /// What to show the registry.
    pub credentials: Credentials,
    /// Why there may be others that are not known now. A refusal by the registry is then due to this.
    pub missing: Option<CredentialProviderError>,
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
            Arc::new(Fake("e.io", Ok(()))),
        ]);
        let ask = async |image: &str, own: &str| {
            let image = image.parse().unwrap();
            let found = chain.complete(&image, &has(own), &PodIdentity::default()).await.unwrap();
            (found.credentials.cover(&image), found.missing.map(|error| error.kind()))
        };
        assert_eq!(ask("x.io/i", "x.io").await, (true, None), "the request's own, and nobody else is asked");
        assert_eq!(ask("b.io/i", "x.io").await, (true, None));
        assert_eq!(ask("d.io/i", "x.io").await, (false, Some(Kind::Transient)), "a pull without, and why");
        assert_eq!(ask("e.io/i", "x.io").await, (false, Some(Kind::Transient)), "nobody after it is asked");
        assert_eq!(ask("oci:/srv/i", "x.io").await, (false, None), "a directory asks for no credentials");
    }
}
