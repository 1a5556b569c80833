//! Credentials from a docker config file or a pull secret of Kubernetes.
//!
//! Keys of `auths` are a host with optional port and path; the host may have `*` and `?` within
//! a label, as Kubernetes allows. The most specific key wins: an exact host before a pattern,
//! then the longest path. Nothing here prints a secret: `Debug` shows `[redacted]`.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use serde::Deserialize;

use crate::kind::Kind;
use crate::oci::digest::Hasher;
use crate::oci::reference::Reference;

mod pattern;

pub use pattern::ImageGlob;
use pattern::Pattern;

/// Every credential that a docker config file holds.
#[derive(Clone, Default)]
pub struct Credentials {
    entries: Vec<(Pattern, Entry)>,
}

#[derive(Clone)]
enum Entry {
    Secret(Credential),
    Helper(String),
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

/// Which credential a cache entry belongs to: stable across restarts, and not reversible to the
/// credential for a secret that cannot be guessed. Not for logs, where weak passwords could be
/// guessed from it.
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
    /// The credential is with a helper program.
    #[error(
        "the docker config leaves the credential for {key:?} to the helper program docker-credential-{helper}, which this driver does not run yet; put user and password, or a token, in the entry itself"
    )]
    Helper {
        /// The key in `auths` or `credHelpers`.
        key: String,
        /// The helper's name.
        helper: String,
    },
}

impl CredentialError {
    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Syntax(_) | Self::Entry { .. } => Kind::Invalid,
            Self::Helper { .. } => Kind::Unsupported,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    #[serde(default)]
    auths: BTreeMap<String, WireAuth>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Deserialize, Default)]
struct WireAuth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

fn read<T: serde::de::DeserializeOwned>(json: &[u8]) -> Result<T, CredentialError> {
    // serde_json repeats values in its messages, and these values are secrets.
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
        Self::from_wire(read(json)?)
    }

    /// Parses the content of a `kubernetes.io/dockercfg` secret: the format before docker's config.json, which
    /// is its `auths` alone.
    pub fn parse_dockercfg(json: &[u8]) -> Result<Self, CredentialError> {
        Self::from_wire(Wire { auths: read(json)?, cred_helpers: BTreeMap::new(), creds_store: None })
    }

    /// Users and passwords by the keys that docker's config would have them under.
    pub fn of_passwords(
        passwords: impl IntoIterator<Item = (String, (String, String))>,
    ) -> Result<Self, CredentialError> {
        let entry = |(key, (user, password)): (String, (String, String))| {
            let auth = WireAuth { username: Some(user), password: Some(password), ..WireAuth::default() };
            (key, auth)
        };
        let auths = passwords.into_iter().map(entry).collect();
        Self::from_wire(Wire { auths, cred_helpers: BTreeMap::new(), creds_store: None })
    }

    /// These, and `others` where they are more specific.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.entries.extend(others.entries);
        self.sort();
        self
    }

    /// Whether there is something for a reference, usable or not.
    pub fn cover(&self, reference: &Reference) -> bool {
        !matches!(self.for_repository(reference), Ok(None))
    }

    fn from_wire(wire: Wire) -> Result<Self, CredentialError> {
        let mut entries = Vec::new();
        for (key, auth) in wire.auths {
            let pattern = Pattern::parse(&key)?;
            match (auth.into_credential(&key)?, &wire.creds_store) {
                (Some(credential), _) => entries.push((pattern, Entry::Secret(credential))),
                (None, Some(helper)) => entries.push((pattern, Entry::Helper(helper.clone()))),
                (None, None) => {}
            }
        }
        for (key, helper) in wire.cred_helpers {
            entries.push((Pattern::parse(&key)?, Entry::Helper(helper)));
        }
        let mut all = Self { entries };
        all.sort();
        Ok(all)
    }

    /// The most specific first; a secret before a helper of the same key.
    fn sort(&mut self) {
        self.entries.sort_by(|(a, left), (b, right)| {
            let helper = |entry: &Entry| matches!(entry, Entry::Helper(_));
            b.specificity().cmp(&a.specificity()).then(helper(left).cmp(&helper(right)))
        });
    }

    /// The credential for a reference; `None` for layouts and where nothing matches.
    pub fn for_repository(&self, reference: &Reference) -> Result<Option<Credential>, CredentialError> {
        let Reference::Registry(registry) = reference else { return Ok(None) };
        let found =
            self.entries.iter().find(|(pattern, _)| pattern.matches(registry.host(), registry.repository()));
        match found {
            None => Ok(None),
            Some((_, Entry::Secret(credential))) => Ok(Some(credential.clone())),
            Some((pattern, Entry::Helper(helper))) => {
                Err(CredentialError::Helper { key: pattern.to_string(), helper: helper.clone() })
            }
        }
    }
}

impl WireAuth {
    fn into_credential(self, key: &str) -> Result<Option<Credential>, CredentialError> {
        let problem = |problem| CredentialError::Entry { key: key.to_owned(), problem };
        let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
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
    pub fn password(user: &str, password: &str) -> Self {
        Self(Secret::Password { user: user.to_owned(), password: password.to_owned() })
    }

    pub(super) fn secret(&self) -> &Secret {
        &self.0
    }

    /// The identity for cache keys.
    pub fn id(&self) -> CredentialId {
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

    /// 64 hexadecimal digits, for keys of caches. Not for logs, see the type.
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
