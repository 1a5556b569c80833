//! Opens sources and destinations, and keeps the registry clients between uses.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::credentials::{Credential, CredentialError, CredentialId, Credentials, Found, Helpers};
use super::destination::{Destination, Repository};
use super::files::Files;
use super::followed::Followed;
use super::layout::LayoutSource;
use super::mirrors::{AccessProof, Endpoint, MirrorFiles, MirroredSource, Place, Route};
use super::registry::{ApiAddress, Patience, RegistryClient, RegistrySource, Transport};
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
    helpers: Helpers,
    registries: Followed<Registries>,
}

/// Registries as they are reached now. Other certificate authorities need other connections, and so other clients.
#[derive(Debug)]
struct Registries {
    transport: Arc<Transport>,
    mirrors: MirrorFiles,
    clients: Mutex<Clients>,
}

/// A host under the name that says how it is reached, and the credential shown there.
type ClientKey = (String, CredentialId);

#[derive(Debug, Default)]
struct Clients {
    /// By host and credential: the client and the use that was its last.
    kept: HashMap<ClientKey, (Arc<RegistryClient>, u64)>,
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
        let helpers = Helpers::new(settings.credential_helpers.clone());
        Ok(Self { settings: settings.clone(), credentials, helpers, registries })
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
                let registries = self.registries();
                match registries.route(reference)? {
                    Some(route) => self.mirrored(&registries, &route, registry, credentials),
                    None => {
                        let client = self.client(&registries, registry, reference, credentials)?;
                        Ok(Arc::new(RegistrySource::new(client, registry)))
                    }
                }
            }
        }
    }

    fn registries(&self) -> Arc<Registries> {
        self.registries.current(|files| Registries::read(&self.settings, files))
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
        let id = |credential: Option<Credential>| {
            credential.map_or_else(CredentialId::anonymous, |credential| credential.id())
        };
        // Files that cannot be used refuse pulls. What has been proven before stays proven.
        let Some(route) = self.registries().route(reference).ok().flatten() else {
            return Ok(id(self.credential(reference, credentials)?));
        };
        let shown = |(place, is_own)| Ok(id(self.credential_for(place, is_own, credentials)?));
        let proving = route.proving(self.settings.mirrors.proof);
        let shown = proving.map(shown).collect::<Result<Vec<_>, SourceError>>()?;
        Ok(CredentialId::joined(&shown))
    }

    /// Whether places other than the registry itself say who may read `reference`. What they say is not the registry's word.
    pub fn is_proven_by_mirrors(&self, reference: &Reference) -> bool {
        let has_mirrors = || {
            let route = self.registries().route(reference).ok().flatten();
            route.is_some_and(|route| route.has_mirrors())
        };
        self.settings.mirrors.proof == AccessProof::Mirror && has_mirrors()
    }

    /// Runs the helper programs that have the node's credentials for `reference`. Until then [`Sources::open`] and
    /// [`Sources::identity`] do not know what they answer.
    pub async fn ask_helpers(&self, reference: &Reference, credentials: &Credentials) {
        for (helper, server) in self.helpers_for(reference, credentials) {
            self.helpers.ask(&helper, &server).await;
        }
    }

    /// The programs, and what each is asked for.
    fn helpers_for(&self, reference: &Reference, credentials: &Credentials) -> Vec<(String, String)> {
        let Reference::Registry(registry) = reference else { return Vec::new() };
        let own = self.own_credentials();
        let route = self.registries().route(reference).ok().flatten();
        let names = match &route {
            None => vec![(registry.host().to_owned(), registry.repository().to_owned())],
            Some(route) => {
                let names = route.all().map(|(place, _)| place.credential_name());
                names.map(|(host, path)| (host.to_owned(), path)).collect()
            }
        };
        let is_wanted = |(host, path): &(String, String)| {
            // The caller's own go before the node's.
            matches!(credentials.for_name(host, path), Ok(None))
        };
        let helper = |(host, path): (String, String)| match own.find_or_store(&host, &path) {
            Some(Found::Helper { helper, server, .. }) => Some((helper, server)),
            _ => None,
        };
        names.into_iter().filter(is_wanted).filter_map(helper).collect()
    }

    fn credential(
        &self,
        reference: &Reference,
        credentials: &Credentials,
    ) -> Result<Option<Credential>, SourceError> {
        match (credentials.for_repository(reference)?, reference) {
            (None, Reference::Registry(registry)) => {
                Ok(self.own_credential(registry.host(), registry.repository())?)
            }
            (found, _) => Ok(found),
        }
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
            Reference::Registry(registry) => Ok(Arc::new(self.written(registry, reference, credentials)?)),
        }
    }

    /// Opens the repository of `registry` to push to, as [`Sources::destination`].
    ///
    /// # Errors
    /// The credential for the repository cannot be used.
    pub fn repository(
        &self,
        registry: &RegistryReference,
        credentials: &Credentials,
    ) -> Result<Arc<dyn Repository>, SourceError> {
        let reference = Reference::Registry(registry.clone());
        Ok(Arc::new(self.written(registry, &reference, credentials)?))
    }

    /// The repository that is written to: the registry's own place, never a mirror.
    fn written(
        &self,
        registry: &RegistryReference,
        reference: &Reference,
        credentials: &Credentials,
    ) -> Result<RegistrySource, SourceError> {
        let registries = self.registries();
        match registries.route(reference)? {
            Some(route) => {
                let place = (route.writable(&registry.name())?, true);
                self.place(&registries, registry, place, Patience::Settings, credentials)
            }
            None => {
                let client = self.client(&registries, registry, reference, credentials)?;
                Ok(RegistrySource::new(client, registry))
            }
        }
    }

    /// The source of a reference that has mirrors, or whose registry is reached in a way of its own.
    fn mirrored(
        &self,
        registries: &Registries,
        route: &Route,
        reference: &RegistryReference,
        credentials: &Credentials,
    ) -> Result<Arc<dyn Source>, SourceError> {
        let mut places = Vec::new();
        for (endpoint, is_own) in route.all() {
            // Only where no place is left a request is tried again.
            let patience = if route.is_last(endpoint) { Patience::Settings } else { Patience::None };
            let source = self.place(registries, reference, (endpoint, is_own), patience, credentials)?;
            let source = if is_own { source } else { source.into_mirror() };
            places.push(Place::new(source, endpoint, is_own));
        }
        let proof = self.settings.mirrors.proof;
        Ok(Arc::new(MirroredSource::new(reference.name(), places, proof, route)))
    }

    /// The repository at one place, with the credential that names that place.
    fn place(
        &self,
        registries: &Registries,
        reference: &RegistryReference,
        (endpoint, is_own): (&Endpoint, bool),
        patience: Patience,
        credentials: &Credentials,
    ) -> Result<RegistrySource, SourceError> {
        let credential = self.credential_for(endpoint, is_own, credentials)?;
        let id = credential.as_ref().map_or_else(CredentialId::anonymous, Credential::id);
        let client = registries.client_for((endpoint.client_key(), id), || {
            let (settings, shared) = (&self.settings, &registries.transport);
            let transport = endpoint.transport(settings, shared, patience)?;
            let scheme = endpoint.scheme().unwrap_or_else(|| transport.scheme(endpoint.host()));
            let (host, root, namespace) = (endpoint.host(), endpoint.root(), endpoint.namespace());
            let address = ApiAddress { scheme, host, root, namespace };
            RegistryClient::at(transport, &address, endpoint.headers(), credential)
        })?;
        let name = (endpoint.name(), endpoint.repository().to_owned());
        Ok(RegistrySource::at(client, reference, name, endpoint.resolves()))
    }

    /// The credential that names the place: what it is called there, and never what the image is called.
    fn credential_for(
        &self,
        endpoint: &Endpoint,
        is_own: bool,
        credentials: &Credentials,
    ) -> Result<Option<Credential>, SourceError> {
        let (host, path) = endpoint.credential_name();
        if let Some(credential) = credentials.for_name(host, &path)? {
            return Ok(Some(credential));
        }
        match self.own_credential(host, &path) {
            // Another place is asked if this one wants the credential.
            Err(CredentialError::HelperFailed { .. }) if !is_own => Ok(None),
            found => Ok(found?),
        }
    }

    /// The node's own credential for a repository at a host.
    fn own_credential(&self, host: &str, path: &str) -> Result<Option<Credential>, CredentialError> {
        match self.own_credentials().find_or_store(host, path) {
            None => Ok(None),
            Some(Found::Secret(credential)) => Ok(Some(credential)),
            Some(Found::Helper { helper, key, .. }) if self.settings.credential_helpers.is_none() => {
                // A store that is not run knows nothing of registries that the config does not name.
                let named = self.own_credentials().for_name(host, path);
                named.map_err(|_| CredentialError::Helper { key, helper })
            }
            Some(Found::Helper { helper, server, .. }) => self
                .helpers
                .known(&helper, &server)
                .map_err(|why| CredentialError::HelperFailed { key: server, helper, why }),
        }
    }

    fn own_credentials(&self) -> Arc<Credentials> {
        self.credentials.current(|files| read_credentials(&self.settings, files))
    }

    fn client(
        &self,
        registries: &Registries,
        registry: &RegistryReference,
        reference: &Reference,
        credentials: &Credentials,
    ) -> Result<Arc<RegistryClient>, SourceError> {
        let credential = self.credential(reference, credentials)?;
        let id = credential.as_ref().map_or_else(CredentialId::anonymous, |c| c.id());
        registries.client_for((registry.host().to_owned(), id), || {
            RegistryClient::new(Arc::clone(&registries.transport), registry, credential)
        })
    }
}

impl Registries {
    fn read(settings: &SourceSettings, files: &mut Files) -> Result<Self, SourceError> {
        let transport = Transport::new(settings, Reach::read(settings, files)?)?;
        let mirrors = MirrorFiles::new(&settings.mirrors)?;
        Ok(Self { transport: Arc::new(transport), mirrors, clients: Mutex::default() })
    }

    /// Where `reference` is asked for, if files say something about it.
    fn route(&self, reference: &Reference) -> Result<Option<Route>, SourceError> {
        match reference {
            Reference::Registry(registry) => self.mirrors.route(registry, reference.digest().is_some()),
            Reference::Layout(_) => Ok(None),
        }
    }

    /// The client with this key, made by `make` if there is none.
    fn client_for(
        &self,
        key: ClientKey,
        make: impl FnOnce() -> Result<RegistryClient, SourceError>,
    ) -> Result<Arc<RegistryClient>, SourceError> {
        // No change to the map can panic half-way, so a poisoned map is consistent.
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
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
        let client = Arc::new(make()?);
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
        sources.client(&sources.registries(), registry, &reference, credentials).unwrap()
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
