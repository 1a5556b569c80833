//! Pull secrets as they come with a request: a `kubernetes.io/dockerconfigjson` Secret's one key.

use std::collections::HashMap;

use crate::image::source::Credentials;
use crate::image::source::credentials::CredentialError;
use crate::kind::Kind;

/// The key of a `kubernetes.io/dockerconfigjson` Secret.
const CONFIG_JSON: &str = ".dockerconfigjson";

/// Why secrets cannot be used. Values are never repeated.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Other keys than a pull secret's.
    #[error(
        "the secret has the keys {} and none is `.dockerconfigjson`; refer to a Secret of type \
         kubernetes.io/dockerconfigjson", list(.0)
    )]
    Keys(Vec<String>),
    /// A malformed docker config.
    #[error("key `.dockerconfigjson` of the secret: {0}")]
    Config(#[from] CredentialError),
}

fn list(keys: &[String]) -> String {
    keys.iter().map(|key| format!("{key:?}")).collect::<Vec<_>>().join(", ")
}

impl SecretError {
    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Keys(_) => Kind::Invalid,
            Self::Config(error) => error.kind(),
        }
    }
}

/// The credentials in a request's secrets; none where there are no secrets.
///
/// # Errors
/// There are secrets, but no usable docker config among them.
pub fn credentials(secrets: &HashMap<String, String>) -> Result<Credentials, SecretError> {
    if let Some(config) = secrets.get(CONFIG_JSON) {
        return Ok(Credentials::parse(config.as_bytes())?);
    }
    // The kubelet puts service account tokens here where the CSIDriver asks for them.
    let ours = secrets.keys().filter(|key| !key.starts_with("csi.storage.k8s.io/"));
    let mut keys: Vec<String> = ours.cloned().collect();
    keys.sort();
    if keys.is_empty() { Ok(Credentials::none()) } else { Err(SecretError::Keys(keys)) }
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
}
