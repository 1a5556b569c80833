//! What comes with a request in `secrets`: a pull secret of Kubernetes, and the tokens of a ServiceAccount.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::Deserialize;

use crate::kind::Kind;
use crate::oci::Credentials;
use crate::oci::credentials::CredentialError;

/// The key of a `kubernetes.io/dockerconfigjson` Secret.
const CONFIG_JSON: &str = ".dockerconfigjson";
/// The key of a `kubernetes.io/dockercfg` Secret.
const DOCKERCFG: &str = ".dockercfg";
/// What kubelet adds. No Secret can have such a key: `/` is not allowed in one.
const KUBELETS: &str = "csi.storage.k8s.io/";
const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";

/// Why secrets cannot be used. Values are never repeated.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Other keys than a pull secret's.
    #[error(
        "the secret has the keys {} and none is `.dockerconfigjson` or `.dockercfg`; refer to a Secret of type \
         kubernetes.io/dockerconfigjson", list(.0)
    )]
    Keys(Vec<String>),
    /// A malformed docker config.
    #[error("key `{key}` of the secret: {error}")]
    Config {
        /// The key.
        key: &'static str,
        /// What is wrong with its value.
        error: CredentialError,
    },
    /// Tokens that kubelet never writes so.
    #[error(
        "the service account tokens that came with the request are not the JSON that kubelet writes; \
             is the caller kubelet?"
    )]
    Tokens,
}

fn list(keys: &[String]) -> String {
    keys.iter().map(|key| format!("{key:?}")).collect::<Vec<_>>().join(", ")
}

impl SecretError {
    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Keys(_) | Self::Tokens => Kind::Invalid,
            Self::Config { error, .. } => error.kind(),
        }
    }
}

/// The credentials in a request's secrets; none where there are no secrets.
///
/// # Errors
/// There are secrets, but no usable docker config among them.
pub fn credentials(secrets: &HashMap<String, String>) -> Result<Credentials, SecretError> {
    type Parse = fn(&[u8]) -> Result<Credentials, CredentialError>;
    let formats: [(&'static str, Parse); 2] =
        [(CONFIG_JSON, Credentials::parse), (DOCKERCFG, Credentials::parse_dockercfg)];
    let mut found: Option<Credentials> = None;
    for (key, parse) in formats {
        let Some(text) = secrets.get(key) else { continue };
        let parsed = parse(text.as_bytes()).map_err(|error| SecretError::Config { key, error })?;
        found = Some(found.unwrap_or_default().and(parsed));
    }
    if let Some(found) = found {
        return Ok(found);
    }
    let mut keys: Vec<String> = secrets.keys().filter(|key| !key.starts_with(KUBELETS)).cloned().collect();
    keys.sort();
    if keys.is_empty() { Ok(Credentials::none()) } else { Err(SecretError::Keys(keys)) }
}

/// Tokens of the pod's ServiceAccount by audience: those that the CSIDriver's `tokenRequests` ask for.
///
/// They are taken from secrets only (`serviceAccountTokenInSecrets: true`). In a volume's context anybody who
/// writes a PersistentVolume could put one there.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Tokens(BTreeMap<String, String>);

#[derive(Deserialize)]
struct WireToken {
    token: String,
}

impl Tokens {
    /// The tokens that came with a request.
    ///
    /// # Errors
    /// They are not what kubelet writes.
    pub fn of(secrets: &HashMap<String, String>) -> Result<Self, SecretError> {
        let Some(text) = secrets.get(TOKENS).filter(|text| !text.is_empty()) else {
            return Ok(Self::default());
        };
        let wire: BTreeMap<String, WireToken> =
            serde_json::from_str(text).map_err(|_| SecretError::Tokens)?;
        Ok(Self(wire.into_iter().map(|(audience, token)| (audience, token.token)).collect()))
    }

    /// The token for an audience.
    pub fn get(&self, audience: &str) -> Option<&str> {
        self.0.get(audience).map(String::as_str)
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.keys().map(|audience| (audience, "[redacted]"))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_pull_secret_or_nothing() {
        assert!(credentials(&HashMap::new()).is_ok());
        assert!(credentials(&secrets(&[("csi.storage.k8s.io/serviceAccount.tokens", "x")])).is_ok());
        let config = r#"{"auths":{"r.example":{"auth":"dXNlcjpodW50ZXIy"}}}"#;
        let parsed = credentials(&secrets(&[(CONFIG_JSON, config)])).unwrap();
        let reference = "r.example/a:1".parse().unwrap();
        assert!(parsed.for_repository(&reference).unwrap().is_some());
        assert!(!format!("{parsed:?}").contains("hunter2"));
    }

    #[test]
    fn errors_name_keys_and_no_values() {
        for bad in [&[("password", "hunter2")][..], &[(CONFIG_JSON, "hunter2")]] {
            let error = credentials(&secrets(bad)).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid);
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn both_formats_count() {
        let new = r#"{"auths":{"r.example":{"auth":"dXNlcjpodW50ZXIy"}}}"#;
        let old = r#"{"s.example":{"auth":"dXNlcjpodW50ZXIy"}}"#;
        let parsed = credentials(&secrets(&[(CONFIG_JSON, new), (DOCKERCFG, old)])).unwrap();
        for image in ["r.example/a:1", "s.example/a:1"] {
            assert!(parsed.cover(&image.parse().unwrap()), "{image}");
        }
    }

    #[test]
    fn tokens_by_audience_and_never_in_print() {
        let text = r#"{"r.example":{"token":"hunter2","expirationTimestamp":"2026-01-01T00:00:00Z"}}"#;
        let tokens = Tokens::of(&secrets(&[(TOKENS, text)])).unwrap();
        assert_eq!((tokens.get("r.example"), tokens.get("other")), (Some("hunter2"), None));
        assert!(!format!("{tokens:?}").contains("hunter2"));
        assert_eq!(Tokens::of(&secrets(&[])).unwrap(), Tokens::default());
        let error = Tokens::of(&secrets(&[(TOKENS, "hunter2")])).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
