//! The places that a reference is asked for, in order. Pure: what the files say is read by others.
//!
//! The mirrors of containers-registries.conf come first, then those of containerd's `hosts.toml` for the registry that is
//! left, then that registry itself. What blocks a registry is looked up by the name as it is written, and once more by
//! what it becomes.

use std::sync::Arc;

use reqwest::header::HeaderMap;

use super::AccessProof;
use super::host::{Address, Capabilities, Host, Scheme};
use super::prefix::Name;
use super::registries_conf::{PullFrom, RegistriesConf, Registry, Source};
use crate::oci::SourceError;
use crate::oci::reference::RegistryReference;
use crate::oci::registry::{Patience, Transport};
use crate::oci::settings::SourceSettings;

/// One place that has an image's repository.
#[derive(Debug, Clone)]
pub(in crate::oci) struct Endpoint {
    pub(super) host: Arc<Host>,
    /// `None`: by `--insecure-registry`.
    pub(super) scheme: Option<Scheme>,
    /// `HOST[:PORT]` as references spell it: for messages, and the name that a credential must have.
    pub(super) authority: String,
    /// The path of the API, without slashes at its ends.
    pub(super) root: String,
    /// Below the API.
    pub(super) repository: String,
    /// The registry that the image names, for hosts that serve several (`?ns=`).
    pub(super) namespace: Option<String>,
}

/// Where a reference is asked for.
///
/// The origin is the registry that the image names. Everything else is a mirror, also where a file puts it in the
/// registry's place (`server`, `location`): what such a host says about who may read is not the registry's word.
#[derive(Debug)]
pub(in crate::oci) struct Route {
    /// In order.
    pub(super) mirrors: Vec<Endpoint>,
    /// One that may be insecure has several ways to it. Never empty.
    pub(super) origin: Vec<Endpoint>,
    /// Whether content is asked for there as well, after all mirrors.
    pub(super) origin_serves: bool,
    /// Whether a file names the registry, and not only all of them (`_default`).
    pub(super) is_named: bool,
}

impl Endpoint {
    /// `v2` is where the registry of that name has its API.
    fn of(host: &Arc<Host>, scheme: Option<Scheme>, name: &Name) -> Self {
        let (host, repository) = (Arc::clone(host), name.repository.clone());
        let authority = name.host.clone();
        Self { host, scheme, authority, root: "v2".to_owned(), repository, namespace: None }
    }

    fn is(&self, name: &Name) -> bool {
        (&self.authority, &self.repository) == (&name.host, &name.repository)
    }

    pub(super) fn capabilities(&self) -> Capabilities {
        self.host.capabilities
    }

    pub(in crate::oci) fn host(&self) -> &str {
        &self.authority
    }

    pub(in crate::oci) fn scheme(&self) -> Option<&'static str> {
        self.scheme.map(Scheme::as_str)
    }

    pub(in crate::oci) fn root(&self) -> &str {
        &self.root
    }

    pub(in crate::oci) fn repository(&self) -> &str {
        &self.repository
    }

    pub(in crate::oci) fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// Whether it may say what a tag means.
    pub(in crate::oci) fn resolves(&self) -> bool {
        self.host.capabilities.resolve
    }

    pub(in crate::oci) fn headers(&self) -> HeaderMap {
        self.host.headers.clone()
    }

    /// Tells its clients from those of other places and of other versions of the file.
    pub(in crate::oci) fn client_key(&self) -> String {
        let namespace = self.namespace.as_deref().unwrap_or_default();
        format!("{} {}/{}?{namespace}", self.host.id, self.authority, self.root)
    }

    /// The connections to it.
    ///
    /// # Errors
    /// The TLS library refuses what the file says.
    pub(in crate::oci) fn transport(
        &self,
        settings: &SourceSettings,
        shared: &Transport,
        patience: Patience,
    ) -> Result<Arc<Transport>, SourceError> {
        let host = &self.host;
        host.transport(|| shared.for_host(settings, &host.tls, !host.headers.is_empty(), patience))
    }

    /// What a credential for it is looked up by: host, and the path that it has there.
    pub(in crate::oci) fn credential_name(&self) -> (&str, String) {
        let root =
            self.root.strip_prefix("v2").map(|rest| rest.trim_start_matches('/')).unwrap_or(&self.root);
        let root = root.strip_suffix("v2").map(|rest| rest.trim_end_matches('/')).unwrap_or(root);
        let path =
            if root.is_empty() { self.repository.clone() } else { format!("{root}/{}", self.repository) };
        (&self.authority, path)
    }

    /// `HOST/REPOSITORY`, for messages.
    pub(in crate::oci) fn name(&self) -> String {
        let (host, path) = self.credential_name();
        format!("{host}/{path}")
    }
}

/// What containers-registries.conf makes of a reference: mirrors, and the registry's own place.
#[derive(Debug)]
pub(super) struct Rewritten<'c> {
    pub(super) mirrors: Vec<Endpoint>,
    /// The name as it is written.
    written: Name,
    /// Where the registry's repository is.
    pub(super) name: Name,
    registry: Option<&'c Registry>,
}

/// Applies containers-registries.conf.
///
/// # Errors
/// The registry is blocked, or the rule that applies makes no name of the reference.
pub(super) fn rewrite<'c>(
    reference: &RegistryReference,
    by_digest: bool,
    conf: Option<&'c RegistriesConf>,
) -> Result<Rewritten<'c>, SourceError> {
    let written = reference.name();
    let own = Name { host: reference.host().to_owned(), repository: reference.repository().to_owned() };
    let found = conf.and_then(|conf| conf.lookup(&written));
    let (Some(conf), Some((registry, rest))) = (conf, found) else {
        return Ok(Rewritten { mirrors: Vec::new(), name: own.clone(), written: own, registry: None });
    };
    let blocked =
        |by: &Registry| SourceError::Blocked { subject: written.clone(), stated: by.stated.clone() };
    if registry.blocked {
        return Err(blocked(registry));
    }
    let name = rewritten(&registry.primary, rest, registry)?.unwrap_or_else(|| own.clone());
    let is_blocked = |name: &Name| {
        let name = name.to_string();
        conf.lookup(&name).map(|(by, _)| by).filter(|by| by.blocked)
    };
    if let Some(by) = is_blocked(&name) {
        return Err(blocked(by));
    }
    let mut mirrors = Vec::new();
    for mirror in &registry.mirrors {
        let wanted = match mirror.pulls {
            PullFrom::All => true,
            PullFrom::DigestOnly => by_digest,
            PullFrom::TagOnly => !by_digest,
        };
        // `parse` gives every mirror a location.
        let Some(name) = rewritten(&mirror.source, rest, registry)?.filter(|_| wanted) else { continue };
        if is_blocked(&name).is_none() {
            mirrors
                .extend(mirror.source.hosts.iter().map(|(scheme, host)| Endpoint::of(host, *scheme, &name)));
        }
    }
    Ok(Rewritten { mirrors, written: own, name, registry: Some(registry) })
}

/// The name at a location; `None` where names stay as they are.
fn rewritten(source: &Source, rest: &str, registry: &Registry) -> Result<Option<Name>, SourceError> {
    let Some(location) = &source.location else { return Ok(None) };
    location.with(rest).map(Some).ok_or_else(|| SourceError::Settings {
        detail: format!(
            "{}: location {location} with the rest {rest:?} of the image's name makes no name; write a prefix with \
             the port, or a location with a repository",
            registry.stated
        ),
    })
}

impl Rewritten<'_> {
    /// Completes the route with the hosts of containerd's file for the registry, if there is one (`true`: a file of its
    /// own). `plain` is a host about which no file says anything.
    pub(super) fn by_hosts(self, hosts: Option<(&[Arc<Host>], bool)>, plain: &Arc<Host>) -> Route {
        let Self { mut mirrors, written, name, registry } = self;
        let (hosts, has_file) = hosts.unwrap_or_default();
        let is_named = has_file || registry.is_some();
        let conf = registry.map(|registry| &registry.primary);
        let by_conf = |source: &Source| {
            let ways = source.hosts.iter();
            ways.map(|(scheme, host)| Endpoint::of(host, *scheme, &name)).collect::<Vec<_>>()
        };
        match (hosts.split_last(), conf) {
            (Some((last, others)), conf) => {
                mirrors.extend(others.iter().map(|host| at(host, &name)));
                match conf {
                    // The file says nothing about where the registry is.
                    Some(source) if source.insecure && last.address.is_none() => {
                        mirrors.extend(by_conf(source));
                    }
                    _ => mirrors.push(at(last, &name)),
                }
            }
            (None, Some(source)) => mirrors.extend(by_conf(source)),
            (None, None) => mirrors.push(Endpoint::of(plain, None, &name)),
        }
        let (mut origin, mut mirrors): (Vec<_>, Vec<_>) =
            mirrors.into_iter().partition(|place| place.is(&written));
        let origin_serves = !origin.is_empty();
        if !origin_serves {
            origin.push(Endpoint::of(plain, None, &written));
        }
        // One that may only resolve is asked for nothing: what it says could not be fetched there.
        mirrors.retain(|mirror| mirror.capabilities().pull || mirror.capabilities().referrers);
        Route { mirrors, origin, origin_serves, is_named }
    }
}

/// The repository at a host of containerd's file.
fn at(host: &Arc<Host>, name: &Name) -> Endpoint {
    let mut endpoint = Endpoint::of(host, None, name);
    if let Some(Address { scheme, authority, root }) = &host.address {
        endpoint.scheme = Some(*scheme);
        endpoint.root.clone_from(root);
        if *authority != name.host {
            endpoint.authority.clone_from(authority);
            endpoint.namespace = Some(name.host.clone());
        }
    }
    endpoint
}

impl Route {
    /// Whether it says nothing that is not so without any file.
    pub(super) fn is_plain(&self) -> bool {
        let [only] = &self.origin[..] else { return false };
        let host = &only.host;
        self.mirrors.is_empty()
            && self.origin_serves
            && host.address.is_none()
            && only.scheme.is_none()
            && host.headers.is_empty()
            && host.capabilities == Capabilities::ALL
            && host.tls.is_plain()
    }

    /// The mirrors about whose TLS no file has said anything.
    pub(super) fn without_files(&mut self) -> impl Iterator<Item = &mut Endpoint> {
        let is_plain = |mirror: &&mut Endpoint| {
            mirror.namespace.is_none() && mirror.host.address.is_none() && mirror.scheme.is_none()
        };
        self.mirrors.iter_mut().filter(is_plain)
    }

    /// All places in order, and whether each is the origin. It is last.
    pub(in crate::oci) fn all(&self) -> impl Iterator<Item = (&Endpoint, bool)> {
        let mirrors = self.mirrors.iter().map(|mirror| (mirror, false));
        mirrors.chain(self.origin.iter().map(|own| (own, true)))
    }

    pub(in crate::oci) fn has_mirrors(&self) -> bool {
        !self.mirrors.is_empty()
    }

    pub(in crate::oci) fn origin_serves(&self) -> bool {
        self.origin_serves
    }

    /// Whether nothing is left to ask after this place.
    pub(in crate::oci) fn is_last(&self, place: &Endpoint) -> bool {
        let last = self.mirrors.last().filter(|_| !self.origin_serves);
        [self.origin.last(), last].into_iter().flatten().any(|last| std::ptr::eq(last, place))
    }

    /// The places whose answer says who may read.
    pub(in crate::oci) fn proving(&self, proof: AccessProof) -> impl Iterator<Item = (&Endpoint, bool)> {
        let by_mirrors = proof == AccessProof::Mirror;
        let counts = move |is_own: bool| if is_own { !by_mirrors || self.origin_serves } else { by_mirrors };
        self.all().filter(move |(_, is_own)| counts(*is_own))
    }

    /// The place where manifests are written; `image` is for the message.
    ///
    /// # Errors
    /// No file says that they are written there.
    pub(in crate::oci) fn writable(&self, image: &str) -> Result<&Endpoint, SourceError> {
        let found = self.origin.iter().find(|own| self.origin_serves && own.capabilities().push);
        found.ok_or_else(|| SourceError::Settings {
            detail: format!(
                "{image} cannot be written: the files about mirrors put another host in the registry's place, or give \
                 it no capability push"
            ),
        })
    }

    /// Whether the registry's word about a digest counts: the operator has named it. Anybody may run a registry that
    /// only the rule for all registries applies to, and it could claim to have what a mirror has of others.
    pub(in crate::oci) fn is_believed(&self) -> bool {
        self.is_named
    }
}

#[cfg(test)]
mod tests;
