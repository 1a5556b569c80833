//! Credentials from a docker config file or a Kubernetes pull secret.
//!
//! A key of `auths` is a host with an optional port and path. The host may have `*` and `?` within
//! a label, as Kubernetes allows. The most specific key wins: an exact host before a pattern, then
//! the longest path. No secret is ever printed: `Debug` shows `[redacted]`.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use serde::Deserialize;

use crate::kind::Kind;
use crate::oci::digest::Hasher;
use crate::oci::reference::Reference;

mod helper;
mod pattern;

pub(super) use helper::Helpers;
pub use pattern::ImageGlob;
use pattern::Pattern;

/// The credentials of a docker config file.
#[derive(Clone, Default)]
pub struct Credentials {
    entries: Vec<(Pattern, AuthEntry)>,
    /// The helper program for registries without a key (`credsStore`).
    store: Option<String>,
}

/// What a key leads to.
#[derive(Clone)]
enum AuthEntry {
    Secret(Credential),
    Helper(HelperEntry),
}

/// A helper program that has a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
struct HelperEntry {
    /// `docker-credential-` before it is the program's name.
    helper: String,
    /// The key in `auths` or `credHelpers` as it is written.
    key: String,
}

/// What a docker config has for a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// A credential.
    Secret(Credential),
    /// A helper program has it.
    Helper {
        /// The program's name without `docker-credential-`.
        helper: String,
        /// What it is asked for.
        server: String,
        /// The key that led to it, for messages.
        key: String,
    },
}

/// One credential for one registry or part of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential(Secret);

#[derive(Clone, PartialEq, Eq)]
pub(super) enum Secret {
    Password {
        user: String,
        password: String,
    },
    /// An OAuth2 refresh token, exchanged at the registry's token service.
    IdentityToken(String),
    /// A bearer token to use as it is.
    RegistryToken(String),
}

/// The identity of a credential in caches and records. It is stable across restarts. A strong secret
/// cannot be recovered from it, but a weak password could be guessed, so it must not be logged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CredentialId([u8; 32]);

/// Why a docker config file cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CredentialError {
    /// Not the JSON of a docker config file. The content is not repeated.
    #[error(
        "the docker config is not valid: {0}; write it with docker login or kubectl create secret docker-registry"
    )]
    Syntax(String),
    /// One entry is broken.
    #[error("entry {key:?} of the docker config is not valid: {problem}; log in to the registry again")]
    Entry {
        /// The key in `auths`.
        key: String,
        /// What is wrong, without the value.
        problem: &'static str,
    },
    /// A helper program has the credential, and is not run.
    #[error(
        "the docker config leaves the credential for {key:?} to the helper program docker-credential-{helper}, which is run for the node's own config only (--auth-file with --credential-helper-dir); put user and password, or a token, in the entry itself"
    )]
    Helper {
        /// The key in `auths` or `credHelpers`.
        key: String,
        /// The helper's name.
        helper: String,
    },
    /// A helper program did not give the credential.
    #[error(
        "the helper program docker-credential-{helper} gives no credential for {key:?}: {why}; run it as the driver does (get, {key} on its standard input), and see --credential-helper-dir"
    )]
    HelperFailed {
        /// What it was asked for.
        key: String,
        /// The helper's name.
        helper: String,
        /// What happened, without its output.
        why: String,
    },
}

impl CredentialError {
    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Syntax(_) | Self::Entry { .. } => Kind::Invalid,
            Self::Helper { .. } => Kind::Unsupported,
            Self::HelperFailed { .. } => Kind::Transient,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, DockerAuth>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Deserialize, Default)]
struct DockerAuth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

/// Parses JSON that holds secrets.
fn read<T: serde::de::DeserializeOwned>(json: &[u8]) -> Result<T, CredentialError> {
    // The messages of serde_json repeat values, and these values are secrets.
    serde_json::from_slice(json).map_err(|e| {
        let what = if e.is_data() { "a member has the wrong type" } else { "it is not JSON" };
        CredentialError::Syntax(format!("{what}, line {} column {}", e.line(), e.column()))
    })
}

impl Credentials {
    /// No credentials at all.
    pub fn none() -> Self {
        Self::default()
    }

    /// Parses the content of a docker config file.
    pub fn parse(json: &[u8]) -> Result<Self, CredentialError> {
        Self::from_config(read(json)?)
    }

    /// Parses the content of a `kubernetes.io/dockercfg` secret. This older format is only the `auths` of docker's
    /// config.json.
    pub fn parse_dockercfg(json: &[u8]) -> Result<Self, CredentialError> {
        Self::from_config(DockerConfig {
            auths: read(json)?,
            cred_helpers: BTreeMap::new(),
            creds_store: None,
        })
    }

    /// Users and passwords by the keys of a docker config.
    pub fn of_passwords(
        passwords: impl IntoIterator<Item = (String, (String, String))>,
    ) -> Result<Self, CredentialError> {
        let entry = |(key, (user, password)): (String, (String, String))| {
            let auth = DockerAuth { username: Some(user), password: Some(password), ..DockerAuth::default() };
            (key, auth)
        };
        let auths = passwords.into_iter().map(entry).collect();
        Self::from_config(DockerConfig { auths, cred_helpers: BTreeMap::new(), creds_store: None })
    }

    /// Both sets of credentials. Where keys are equally specific, these win over `others`.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.entries.extend(others.entries);
        self.store = self.store.or(others.store);
        self.sort();
        self
    }

    /// Whether there is an entry for a reference, usable or not.
    pub fn cover(&self, reference: &Reference) -> bool {
        !matches!(self.for_repository(reference), Ok(None))
    }

    fn from_config(config: DockerConfig) -> Result<Self, CredentialError> {
        let mut entries = Vec::new();
        for (key, auth) in config.auths {
            let pattern = Pattern::parse(&key)?;
            match (auth.into_credential(&key)?, &config.creds_store) {
                (Some(credential), _) => entries.push((pattern, AuthEntry::Secret(credential))),
                (None, Some(helper)) => {
                    let helper = HelperEntry { helper: helper.clone(), key };
                    entries.push((pattern, AuthEntry::Helper(helper)));
                }
                // An empty entry states nothing, and without a store nothing else does.
                (None, None) => {}
            }
        }
        for (key, helper) in config.cred_helpers {
            entries.push((Pattern::parse(&key)?, AuthEntry::Helper(HelperEntry { helper, key })));
        }
        let mut all = Self { entries, store: config.creds_store.filter(|store| !store.is_empty()) };
        all.sort();
        Ok(all)
    }

    /// Sorts the most specific first, and a secret before a helper of the same key. The sort is stable.
    fn sort(&mut self) {
        self.entries.sort_by(|(a, left), (b, right)| {
            let helper = |entry: &AuthEntry| matches!(entry, AuthEntry::Helper(_));
            b.specificity().cmp(&a.specificity()).then(helper(left).cmp(&helper(right)))
        });
    }

    /// The credential for a reference; `None` for layouts and if no key matches.
    pub fn for_repository(&self, reference: &Reference) -> Result<Option<Credential>, CredentialError> {
        let Reference::Registry(registry) = reference else { return Ok(None) };
        self.for_name(registry.host(), registry.repository())
    }

    /// The credential for a repository at a host; `None` if no key matches.
    pub(super) fn for_name(
        &self,
        host: &str,
        repository: &str,
    ) -> Result<Option<Credential>, CredentialError> {
        match self.find(host, repository) {
            None => Ok(None),
            Some(Found::Secret(credential)) => Ok(Some(credential)),
            // A less specific entry would be another identity than docker uses.
            Some(Found::Helper { helper, key, .. }) => Err(CredentialError::Helper { key, helper }),
        }
    }

    /// What the entries have for a repository at a host.
    fn find(&self, host: &str, repository: &str) -> Option<Found> {
        let (_, entry) = self.entries.iter().find(|(pattern, _)| pattern.matches(host, repository))?;
        Some(match entry {
            AuthEntry::Secret(credential) => Found::Secret(credential.clone()),
            AuthEntry::Helper(HelperEntry { helper, key }) => {
                // A pattern names no registry.
                let server = if key.contains(['*', '?']) { server_of(host) } else { key.clone() };
                Found::Helper { helper: helper.clone(), server, key: key.clone() }
            }
        })
    }

    /// The same with the program for registries without an entry, if there is one (`credsStore`). For the node's own config:
    /// docker asks that program about every registry.
    pub(super) fn find_or_store(&self, host: &str, repository: &str) -> Option<Found> {
        self.find(host, repository).or_else(|| {
            let (helper, server) = (self.store.clone()?, server_of(host));
            Some(Found::Helper { helper, key: server.clone(), server })
        })
    }
}

/// What helper programs call a registry.
fn server_of(host: &str) -> String {
    if host == "docker.io" { "https://index.docker.io/v1/".to_owned() } else { host.to_owned() }
}

impl DockerAuth {
    fn into_credential(self, key: &str) -> Result<Option<Credential>, CredentialError> {
        let problem = |problem| CredentialError::Entry { key: key.to_owned(), problem };
        let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
        // With a token docker login stores a user without password, so the token comes first.
        if let Some(token) = filled(self.identitytoken) {
            return Ok(Some(Credential(Secret::IdentityToken(token))));
        }
        if let Some(token) = filled(self.registrytoken) {
            return Ok(Some(Credential(Secret::RegistryToken(token))));
        }
        if let Some(auth) = filled(self.auth) {
            let decoded = base64::engine::general_purpose::STANDARD
                .decode(auth.trim())
                .map_err(|_| problem("\"auth\" is not base64"))?;
            let text = String::from_utf8(decoded).map_err(|_| problem("\"auth\" is not UTF-8"))?;
            let (user, password) =
                text.split_once(':').ok_or_else(|| problem("\"auth\" does not hold user:password"))?;
            // Docker's own client trims these zero bytes as well.
            return Ok(Some(Credential::password(user, password.trim_end_matches('\0'))));
        }
        match (filled(self.username), filled(self.password)) {
            (Some(user), Some(password)) => Ok(Some(Credential::password(&user, &password))),
            (None, None) => Ok(None),
            _ => Err(problem("it has a user without password, or a password without user")),
        }
    }
}

impl Credential {
    /// A user with a password.
    pub(super) fn password(user: &str, password: &str) -> Self {
        Self(Secret::Password { user: user.to_owned(), password: password.to_owned() })
    }

    pub(super) fn secret(&self) -> &Secret {
        &self.0
    }

    /// The identity of the credential.
    pub(super) fn id(&self) -> CredentialId {
        let (label, parts) = match &self.0 {
            Secret::Password { user, password } => ("password", vec![user, password]),
            Secret::IdentityToken(token) => ("identity-token", vec![token]),
            Secret::RegistryToken(token) => ("registry-token", vec![token]),
        };
        CredentialId::of(label, &parts)
    }
}

impl CredentialId {
    /// The identity of having no credential.
    pub fn anonymous() -> Self {
        Self::of("anonymous", &[])
    }

    /// The identity of one who shows several credentials at several places.
    pub(super) fn joined(ids: &[Self]) -> Self {
        match ids {
            [] => Self::anonymous(),
            [first, others @ ..] if others.iter().all(|other| other == first) => *first,
            _ => {
                Self::of("joined", &ids.iter().map(Self::hex).collect::<Vec<_>>().iter().collect::<Vec<_>>())
            }
        }
    }

    /// 64 hexadecimal digits. They must not be logged, see the type.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    fn of(label: &str, parts: &[&String]) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(b"composefs-csi credential v1\0");
        hasher.update(label.as_bytes());
        for part in parts {
            // The length in front keeps "a" + "bc" apart from "ab" + "c".
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part.as_bytes());
        }
        Self(*hasher.finish().as_bytes())
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.entries.iter().map(|(pattern, _)| (pattern.to_string(), "[redacted]"));
        f.debug_map().entries(keys).finish()
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl fmt::Debug for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests;
