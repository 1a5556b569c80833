//! Opens sources and destinations, and keeps the registry clients between uses.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::credentials::{Credential, CredentialId, Credentials};
use super::destination::Destination;
use super::files::Files;
use super::followed::Followed;
use super::layout::LayoutSource;
use super::registry::{RegistryClient, RegistrySource, Transport};
use super::registry_settings::{Reach, read_credentials};
use super::settings::SourceSettings;
use super::{Source, SourceError};
use crate::oci::reference::{Reference, RegistryReference};

/// The number of clients kept; the least recently used is dropped. A client is a few hundred bytes
/// and its tokens.
const CLIENTS_MAX: usize = 256;

/// Opens sources and keeps one client per registry and credential.
///
/// Tokens live in a client, so that a token never serves a request with another credential. The files that the settings
/// name are followed ([`Followed`]); a source that is open keeps what it was opened with.
#[derive(Debug)]
pub struct Sources {
    settings: SourceSettings,
    credentials: Followed<Credentials>,
    registries: Followed<Registries>,
}

/// Registries as they are reached now. Other certificate authorities need other connections, and so other clients.
#[derive(Debug)]
struct Registries {
    transport: Arc<Transport>,
    clients: Mutex<Clients>,
}

#[derive(Debug, Default)]
struct Clients {
    /// By host and credential: the client and the use that was its last.
    kept: HashMap<(String, CredentialId), (Arc<RegistryClient>, u64)>,
    /// Counts uses; a larger number is more recent.
    uses: u64,
}

impl Sources {
    /// Reads the files that the settings name, and sets up TLS.
    ///
    /// # Errors
    /// A file cannot be used; none is left out silently.
    pub fn new(settings: &SourceSettings) -> Result<Self, SourceError> {
        let credentials = Followed::new("the node's credentials", |files| read_credentials(settings, files))?;
        let registries =
            Followed::new("the node's settings of registries", |files| Registries::read(settings, files))?;
        Ok(Self { settings: settings.clone(), credentials, registries })
    }

    /// Opens the source of `reference` with the caller's credential for it, or else the node's own,
    /// or else anonymously. Asks nobody; looks at the files of the settings once in a while.
    ///
    /// # Errors
    /// The credential for the reference cannot be used.
    pub fn open(
        &self,
        reference: &Reference,
        credentials: &Credentials,
    ) -> Result<Arc<dyn Source>, SourceError> {
        match reference {
            Reference::Layout(layout) => {
                Ok(Arc::new(LayoutSource::new(layout).with_limits(self.settings.limits)))
            }
            Reference::Registry(registry) => {
                let client = self.client(registry, reference, credentials)?;
                Ok(Arc::new(RegistrySource::new(client, registry)))
            }
        }
    }

    /// The identity with which [`Sources::open`] reads `reference`: of the caller's credential, of the node's, or
    /// anonymous. Asks nobody, as [`Sources::open`].
    ///
    /// # Errors
    /// The credential for the reference cannot be used.
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
            None => {
                let own = self.credentials.current(|files| read_credentials(&self.settings, files));
                own.for_repository(reference)?
            }
        })
    }

    /// Opens `reference` for writing manifests, with the same credential as [`Sources::open`].
    ///
    /// # Errors
    /// The credential for the reference cannot be used.
    pub fn destination(
        &self,
        reference: &Reference,
        credentials: &Credentials,
    ) -> Result<Arc<dyn Destination>, SourceError> {
        match reference {
            Reference::Layout(layout) => {
                Ok(Arc::new(LayoutSource::new(layout).with_limits(self.settings.limits)))
            }
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
        let registries = self.registries.current(|files| Registries::read(&self.settings, files));
        // No change to the map can panic half-way, so a poisoned map is consistent.
        let mut clients = registries.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.uses += 1;
        let now = clients.uses;
        if let Some((client, used)) = clients.kept.get_mut(&key) {
            *used = now;
            return Ok(Arc::clone(client));
        }
        // Sources that are open keep their client; only the next one gets a new client.
        if clients.kept.len() >= CLIENTS_MAX {
            let oldest = clients.kept.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                clients.kept.remove(&oldest);
            }
        }
        let client = RegistryClient::new(Arc::clone(&registries.transport), registry, credential)?;
        let client = Arc::new(client);
        clients.kept.insert(key, (Arc::clone(&client), now));
        Ok(client)
    }
}

impl Registries {
    fn read(settings: &SourceSettings, files: &mut Files) -> Result<Self, SourceError> {
        let transport = Transport::new(settings, Reach::read(settings, files)?)?;
        Ok(Self { transport: Arc::new(transport), clients: Mutex::default() })
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
        let registries = sources.registries.current(|_| unreachable!("no file has changed"));
        assert_eq!(registries.clients.lock().unwrap().kept.len(), CLIENTS_MAX);
    }

    #[tokio::test]
    async fn a_layout_is_written_within_the_limits_that_are_set() {
        use crate::oci::destination::{NewManifest, NewName};
        use crate::oci::limits::ImageLimits;

        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("blobs/sha256")).unwrap();
        let index = format!(r#"{{"schemaVersion":2,"manifests":[],"x":"{}"}}"#, "x".repeat(5 << 20));
        std::fs::write(directory.path().join("index.json"), index).unwrap();
        std::fs::write(directory.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let reference: Reference = format!("oci:{}", directory.path().display()).parse().unwrap();
        let write = async |limits: ImageLimits| {
            let settings = SourceSettings { limits, ..SourceSettings::default() };
            let sources = Sources::new(&settings).unwrap();
            let destination = sources.destination(&reference, &Credentials::none()).unwrap();
            let manifest = NewManifest { media_type: "a/b".to_owned(), bytes: "{}".into() };
            destination.put_as(&manifest, &NewName::Tag("one".to_owned())).await
        };
        let error = write(ImageLimits::DEFAULT).await.unwrap_err().to_string();
        assert!(error.contains("--max-manifest-bytes"), "{error}");
        write(ImageLimits { manifest_bytes: 8 << 20, ..ImageLimits::DEFAULT }).await.unwrap();
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
