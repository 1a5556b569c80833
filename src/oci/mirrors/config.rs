//! The files that say where registries are: read when they are needed, and again when they change.
//!
//! Unlike the other files of a node's settings, these fail closed: one that cannot be used refuses the pulls that it
//! concerns until it is repaired, because the restriction that was just written into it would otherwise not hold. A
//! `hosts.toml` concerns its registry, `_default` all registries without a directory, and registries.conf all.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::document::Fault;
use super::host::Host;
use super::hosts_toml::{HostEntry, TlsFiles, parse_hosts};
use super::registries_conf::RegistriesConf;
use super::route::{Endpoint, Route, rewrite};
use super::{MirrorSettings, tls};
use crate::oci::SourceError;
use crate::oci::files::Files;
use crate::oci::followed::Followed;
use crate::oci::reference::RegistryReference;

/// The number of registries whose files are kept in memory.
const HOSTS_MAX: usize = 256;
/// The most drop-in files, and the most certificate files of a directory.
const ENTRIES_MAX: usize = 256;

/// The hosts that a directory gives a registry; `None` if there is no directory for it.
type HostFile = Option<DirectoryHosts>;

#[derive(Debug)]
struct DirectoryHosts {
    /// In order, the registry itself last.
    hosts: Vec<Arc<Host>>,
    /// Whether the directory is the registry's own, and not `_default`.
    is_own: bool,
}

/// What files say; the error is why they cannot be used.
type Read<T> = Result<T, String>;

/// The files of [`MirrorSettings`].
#[derive(Debug)]
pub(in crate::oci) struct MirrorFiles {
    settings: MirrorSettings,
    /// A host about which no file says anything.
    plain: Arc<Host>,
    conf: Option<Followed<Read<RegistriesConf>>>,
    hosts: Mutex<HashMap<String, Arc<Followed<Read<HostFile>>>>>,
}

impl MirrorFiles {
    /// Reads the file that concerns all registries. That it cannot be used is no error before there is a pull.
    pub(in crate::oci) fn new(settings: &MirrorSettings) -> Result<Self, SourceError> {
        let conf = settings.registries_conf.as_deref();
        let conf = conf.map(|path| {
            Followed::new("the registries.conf of this node", |files| Ok(read_conf(path, files)))
        });
        let (plain, hosts) = (Arc::new(Host::plain()), Mutex::default());
        Ok(Self { settings: settings.clone(), plain, conf: conf.transpose()?, hosts })
    }

    /// Where `reference` is asked for; `None` if no file says anything about it.
    ///
    /// # Errors
    /// A file that concerns it cannot be used, or blocks it.
    pub(in crate::oci) fn route(
        &self,
        reference: &RegistryReference,
        by_digest: bool,
    ) -> Result<Option<Route>, SourceError> {
        let conf = match (&self.conf, &self.settings.registries_conf) {
            (Some(followed), Some(path)) => Some(followed.current(|files| Ok(read_conf(path, files)))),
            _ => None,
        };
        let conf = conf.as_ref().map(|read| usable(read)).transpose()?;
        let rewritten = rewrite(reference, by_digest, conf)?;
        let hosts = self.hosts_of(&rewritten.name.host)?;
        let hosts = hosts.as_ref().map(|read| usable(read)).transpose()?.and_then(Option::as_ref);
        let hosts = hosts.map(|found| (&found.hosts[..], found.is_own));
        let mut route = rewritten.by_hosts(hosts, &self.plain);
        for mirror in route.without_files() {
            self.add_certificates(mirror)?;
        }
        Ok(Some(route).filter(|route| !route.is_plain()))
    }

    /// Gives a mirror of registries.conf the certificates that lie in its own directory, as containers-certs.d(5) has it.
    fn add_certificates(&self, mirror: &mut Endpoint) -> Result<(), SourceError> {
        let read = self.hosts_of(&mirror.authority)?;
        let found = read.as_ref().map(|read| usable(read)).transpose()?.and_then(Option::as_ref);
        if let Some(DirectoryHosts { hosts, is_own: true }) = found
            && let [only] = &hosts[..]
            && only.address.is_none()
        {
            mirror.host = Arc::clone(only);
        }
        Ok(())
    }

    fn hosts_of(&self, host: &str) -> Result<Option<Arc<Read<HostFile>>>, SourceError> {
        let roots = &self.settings.hosts_dirs;
        if roots.is_empty() {
            return Ok(None);
        }
        let followed = {
            let mut all = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
            match all.get(host) {
                Some(followed) => Arc::clone(followed),
                None => {
                    // References are foreign input. Reading a few files again is not worth finding the oldest.
                    if all.len() >= HOSTS_MAX {
                        all.clear();
                    }
                    let made = Followed::new("the hosts.toml files of this node", |files| {
                        Ok(read_hosts(roots, host, files))
                    })?;
                    let made = Arc::new(made);
                    all.insert(host.to_owned(), Arc::clone(&made));
                    made
                }
            }
        };
        Ok(Some(followed.current(|files| Ok(read_hosts(roots, host, files)))))
    }
}

fn usable<T>(read: &Read<T>) -> Result<&T, SourceError> {
    read.as_ref().map_err(|why| SourceError::Settings { detail: why.clone() })
}

/// Logs why files cannot be used: the pulls that they refuse may be those of others.
fn told<T>(read: Read<T>) -> Read<T> {
    if let Err(why) = &read {
        tracing::error!("{why}; the pulls that it concerns are refused until it is repaired");
    }
    read
}

fn read_conf(path: &Path, files: &mut Files) -> Read<RegistriesConf> {
    let mut read = || {
        let mut conf = RegistriesConf::default();
        let mut drop_ins = path.as_os_str().to_owned();
        drop_ins.push(".d");
        let drop_ins = PathBuf::from(drop_ins);
        let listed = files.list(&drop_ins, ENTRIES_MAX);
        let listed = match listed {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            listed => {
                listed.map_err(|error| format!("{}: it cannot be listed: {error}", drop_ins.display()))?
            }
        };
        let names = listed.iter().filter(|name| Path::new(name).extension() == Some(OsStr::new("conf")));
        let all = std::iter::once(path.to_owned()).chain(names.map(|name| drop_ins.join(name)));
        for file in all {
            let shown = file.display().to_string();
            let bytes = files.read(&file).map_err(|error| {
                format!(
                    "{shown}: it cannot be read: {error}; write it (it may be empty), or start without it"
                )
            })?;
            conf.add(&bytes, &shown).map_err(|fault| about(&file, &fault))?;
        }
        Ok(conf)
    };
    told(read())
}

/// `FILE, line N: what is wrong`.
fn about(file: &Path, fault: &Fault) -> String {
    match fault.line {
        Some(_) => format!("{}, {fault}", file.display()),
        None => format!("{}: {fault}", file.display()),
    }
}

/// The hosts of the first directory that there is for the registry.
fn read_hosts(roots: &[PathBuf], host: &str, files: &mut Files) -> Read<HostFile> {
    let mut read = || {
        for root in roots {
            // A directory that is not there may be one that is not mounted.
            if !has_directory(root, files)? {
                return Err(format!(
                    "{}: there is no such directory; make it (it may be empty), or start without it",
                    root.display()
                ));
            }
        }
        for root in roots {
            for (name, is_own) in directories(host) {
                let directory = root.join(name);
                if has_directory(&directory, files)? {
                    let hosts = read_directory(&directory, files)?;
                    return Ok(Some(DirectoryHosts { hosts, is_own }));
                }
            }
        }
        Ok(None)
    };
    told(read())
}

fn has_directory(path: &Path, files: &mut Files) -> Read<bool> {
    files
        .has_directory(path)
        .map_err(|error| format!("{}: it cannot be read: {error}; correct it", path.display()))
}

/// The names that a registry's directory may have, in the order in which containerd looks for them.
fn directories(host: &str) -> Vec<(String, bool)> {
    let mut names = Vec::new();
    if let Some((name, port)) = host.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
        names.push((format!("{name}_{port}_"), true));
    }
    names.push((host.to_owned(), true));
    names.push(("_default".to_owned(), false));
    names
}

/// The hosts of a `hosts.toml`, or else the registry itself with the certificates that lie there, as docker has them.
fn read_directory(directory: &Path, files: &mut Files) -> Read<Vec<Arc<Host>>> {
    let file = directory.join("hosts.toml");
    let entries = match files.read(&file) {
        Ok(bytes) => parse_hosts(&bytes, directory).map_err(|fault| about(&file, &fault))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            vec![certificates(directory, files)?]
        }
        Err(error) => {
            return Err(format!("{}: it cannot be read: {error}; make it readable", file.display()));
        }
    };
    let host = |entry: HostEntry| {
        let tls = tls::read(&entry.tls, entry.dial_timeout, files)?;
        Ok(Arc::new(Host::new(entry.address, entry.capabilities, entry.headers, tls)))
    };
    entries.into_iter().map(host).collect()
}

/// `*.crt` are authorities, `NAME.cert` with `NAME.key` the client's (docker's `certs.d`).
fn certificates(directory: &Path, files: &mut Files) -> Read<HostEntry> {
    let listed = files.list(directory, ENTRIES_MAX);
    let listed = listed.map_err(|error| format!("{}: it cannot be listed: {error}", directory.display()))?;
    let mut found = TlsFiles::default();
    for name in listed {
        let path = directory.join(&name);
        match path.extension().and_then(OsStr::to_str) {
            Some("crt") => found.authorities.push(path),
            Some("cert") if found.client.is_some() => {
                return Err(format!(
                    "{}: it has several client certificates (*.cert); a host may have one here",
                    directory.display()
                ));
            }
            Some("cert") => {
                let key = path.with_extension("key");
                found.client = Some((path, Some(key)));
            }
            _ => {}
        }
    }
    Ok(HostEntry::of_registry(found))
}

#[cfg(test)]
mod tests;
