//! Opens sources: the settings that all of them share, and the clients that are kept.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::credentials::{Credential, CredentialId, Credentials};
use super::destination::Destination;
use super::layout::LayoutSource;
use super::registry::{Pace, RegistryClient, RegistryMetrics, RegistrySource, RetryPolicy, Transport};
use super::{Source, SourceError};
use crate::oci::limits::Limits;
use crate::oci::reference::{Reference, RegistryReference};

/// How registries are reached.
#[derive(Debug, Clone)]
pub struct SourceSettings {
    /// Registries (`HOST[:PORT]`) reached by plain HTTP. Nothing is implied, not even loopback.
    pub insecure_registries: BTreeSet<String>,
    /// PEM files with certificate authorities trusted in addition to the system's.
    pub ca_files: Vec<PathBuf>,
    /// The node's own credentials, used where the caller's have none for a repository.
    pub default_credentials: Credentials,
    /// Time limit for a connection, TLS included.
    pub connect_timeout: Duration,
    /// Time limit for the next bytes, of headers or content.
    pub read_timeout: Duration,
    /// Time limit for a whole manifest or token, which are small.
    pub document_timeout: Duration,
    /// The least that a blob's connection must bring.
    pub pace: Pace,
    /// Caps on images.
    pub limits: Limits,
    /// How failures that are likely to pass are retried.
    pub retry: RetryPolicy,
    /// Whether `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` of the environment apply.
    pub proxy_from_environment: bool,
    /// Where requests are counted.
    pub metrics: RegistryMetrics,
}

impl Default for SourceSettings {
    fn default() -> Self {
        Self {
            insecure_registries: BTreeSet::new(),
            ca_files: Vec::new(),
            default_credentials: Credentials::none(),
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(30),
            document_timeout: Duration::from_secs(120),
            pace: Pace::default(),
            limits: Limits::default(),
            retry: RetryPolicy::default(),
            proxy_from_environment: true,
            metrics: RegistryMetrics::default(),
        }
    }
}

/// Clients kept at a time; the least recently used goes. A client is a few hundred bytes and its
/// tokens.
const CLIENTS_MAX: usize = 256;

/// Opens sources and keeps one client per registry and credential.
///
/// Tokens live in a client, so that nobody's token can serve a request of somebody else.
#[derive(Debug)]
pub struct Sources {
    transport: Arc<Transport>,
    default_credentials: Credentials,
    clients: Mutex<Clients>,
}

#[derive(Debug, Default)]
struct Clients {
    kept: HashMap<(String, CredentialId), (Arc<RegistryClient>, u64)>,
    uses: u64,
}

impl Sources {
    /// Reads the CA files and sets up TLS; fails rather than leave out an authority.
    pub fn new(settings: &SourceSettings) -> Result<Self, SourceError> {
        Ok(Self {
            transport: Arc::new(Transport::new(settings)?),
            default_credentials: settings.default_credentials.clone(),
            clients: Mutex::default(),
        })
    }

    /// Opens the source of `reference` with the caller's credentials for it, or else the node's
    /// own, or else none. Does no I/O.
    pub fn open(
        &self,
        reference: &Reference,
        credentials: &Credentials,
    ) -> Result<Arc<dyn Source>, SourceError> {
        match reference {
            Reference::Layout(layout) => {
                let limits = *self.transport.limits();
                Ok(Arc::new(LayoutSource::new(layout).with_limits(limits)))
            }
            Reference::Registry(registry) => {
                let client = self.client(registry, reference, credentials)?;
                Ok(Arc::new(RegistrySource::new(client, registry)))
            }
        }
    }

    /// As whom [`Sources::open`] reads `reference`: by which credential, the caller's or the node's, or
    /// anonymously. Does no I/O.
    ///
    /// # Errors
    /// The credential for it cannot be used.
    pub fn identity(
        &self,
        reference: &Reference,
        credentials: &Credentials,
    ) -> Result<CredentialId, SourceError> {
        let credential = self.credential(reference, credentials)?;
        Ok(credential.map_or_else(CredentialId::anonymous, |credential| credential.id()))
    }

    fn credential(
        &self,
        reference: &Reference,
        credentials: &Credentials,
    ) -> Result<Option<Credential>, SourceError> {
        Ok(match credentials.for_repository(reference)? {
            Some(credential) => Some(credential),
            None => self.default_credentials.for_repository(reference)?,
        })
    }

    /// The same, to write manifests to.
    ///
    /// # Errors
    /// The credentials for the reference cannot be used.
    pub fn destination(
        &self,
        reference: &Reference,
        credentials: &Credentials,
    ) -> Result<Arc<dyn Destination>, SourceError> {
        match reference {
            Reference::Layout(layout) => Ok(Arc::new(LayoutSource::new(layout))),
            Reference::Registry(registry) => {
                let client = self.client(registry, reference, credentials)?;
                Ok(Arc::new(RegistrySource::new(client, registry)))
            }
        }
    }

    fn client(
        &self,
        registry: &RegistryReference,
        reference: &Reference,
        credentials: &Credentials,
    ) -> Result<Arc<RegistryClient>, SourceError> {
        let credential = self.credential(reference, credentials)?;
        let id = credential.as_ref().map_or_else(CredentialId::anonymous, |c| c.id());
        let key = (registry.host().to_owned(), id);
        // Nothing can panic half-way through a change, so a poisoned map is a good one.
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.uses += 1;
        let now = clients.uses;
        if let Some((client, used)) = clients.kept.get_mut(&key) {
            *used = now;
            return Ok(Arc::clone(client));
        }
        if clients.kept.len() >= CLIENTS_MAX {
            let oldest = clients.kept.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                clients.kept.remove(&oldest);
            }
        }
        let client = RegistryClient::new(Arc::clone(&self.transport), registry, credential)?;
        let client = Arc::new(client);
        clients.kept.insert(key, (Arc::clone(&client), now));
        Ok(client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(user: &str) -> Credentials {
        let json = format!(r#"{{"auths":{{"r.io":{{"username":"{user}","password":"p"}}}}}}"#);
        Credentials::parse(json.as_bytes()).unwrap()
    }

    fn client(sources: &Sources, name: &str, credentials: &Credentials) -> Arc<RegistryClient> {
        let reference: Reference = name.parse().unwrap();
        let Reference::Registry(registry) = &reference else { panic!() };
        sources.client(registry, &reference, credentials).unwrap()
    }

    #[test]
    fn clients_are_kept_per_registry_and_credential() {
        let sources = Sources::new(&SourceSettings::default()).unwrap();
        let (a, b, none) = (config("a"), config("b"), Credentials::none());
        let first = client(&sources, "r.io/x", &a);
        assert!(Arc::ptr_eq(&first, &client(&sources, "r.io/y", &a)));
        for other in [
            client(&sources, "r.io/x", &b),
            client(&sources, "r.io/x", &none),
            client(&sources, "s.io/x", &a),
        ] {
            assert!(!Arc::ptr_eq(&first, &other));
        }
    }

    #[test]
    fn the_nodes_credentials_fill_in() {
        let default_credentials = config("node");
        let settings = SourceSettings { default_credentials, ..SourceSettings::default() };
        let sources = Sources::new(&settings).unwrap();
        let node = client(&sources, "r.io/x", &Credentials::none());
        assert!(Arc::ptr_eq(&node, &client(&sources, "r.io/x", &config("node"))));
        assert!(!Arc::ptr_eq(&node, &client(&sources, "r.io/x", &config("pod"))));
        assert_ne!(Credential::password("node", "p").id(), CredentialId::anonymous());
    }

    #[test]
    fn the_number_of_clients_is_bounded() {
        let sources = Sources::new(&SourceSettings::default()).unwrap();
        let busy = client(&sources, "r.io/x", &config("busy"));
        for i in 0..CLIENTS_MAX + 10 {
            client(&sources, "r.io/x", &config(&format!("u{i}")));
            assert!(Arc::ptr_eq(&busy, &client(&sources, "r.io/x", &config("busy"))));
        }
        assert_eq!(sources.clients.lock().unwrap().kept.len(), CLIENTS_MAX);
    }

    #[test]
    fn a_bad_ca_file_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        for content in [None, Some(""), Some("no certificate")] {
            if let Some(content) = content {
                std::fs::write(&path, content).unwrap();
            }
            let settings = SourceSettings { ca_files: vec![path.clone()], ..SourceSettings::default() };
            let error = Sources::new(&settings).unwrap_err().to_string();
            assert!(error.contains(&path.display().to_string()), "{error}");
        }
    }
}
