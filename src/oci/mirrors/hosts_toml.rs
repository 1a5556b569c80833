//! containerd's `hosts.toml` (containerd's docs/hosts.md). Pure: the files that it names are read by others.
//!
//! Kept are: `server`, and per host `capabilities`, `ca`, `client`, `skip_verify`, `header`, `override_path` and
//! `dial_timeout`. containerd ignores a file that does not parse; here nothing is read past: a mistake is an error.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Url;
use reqwest::header::HeaderMap;

use super::document::{Fault, Place, Table, parse};
use super::host::{Address, Capabilities, Scheme, add_header};
use crate::duration;
use crate::oci::reference::canonical_host;

/// The most hosts of one file.
const HOSTS_MAX: usize = 64;
/// The most headers of one host, and the most files that it names.
const ITEMS_MAX: usize = 64;

/// A host of the file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct HostEntry {
    /// `None`: the registry that the image names.
    pub(super) address: Option<Address>,
    pub(super) capabilities: Capabilities,
    pub(super) headers: HeaderMap,
    pub(super) tls: TlsFiles,
    pub(super) dial_timeout: Option<Duration>,
}

/// The files of a host's TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TlsFiles {
    /// Certificate authorities in addition to the system's.
    pub(super) authorities: Vec<PathBuf>,
    /// The client's certificate and its key; one file may hold both.
    pub(super) client: Option<(PathBuf, Option<PathBuf>)>,
    /// Whether any certificate is taken.
    pub(super) skip_verify: bool,
}

const FIELDS: [&str; 7] =
    ["capabilities", "ca", "client", "skip_verify", "header", "override_path", "dial_timeout"];

impl HostEntry {
    /// The registry that the image names, with these files.
    pub(super) fn of_registry(tls: TlsFiles) -> Self {
        let (capabilities, headers) = (Capabilities::ALL, HeaderMap::new());
        Self { address: None, capabilities, headers, tls, dial_timeout: None }
    }
}

/// The hosts of a file in order, the server last. `directory` is what its relative paths are relative to.
///
/// # Errors
/// It is no such file.
pub(super) fn parse_hosts(bytes: &[u8], directory: &Path) -> Result<Vec<HostEntry>, Fault> {
    parse(bytes, |root| {
        let known: Vec<_> = ["server", "host"].into_iter().chain(FIELDS).collect();
        root.only(&known)?;
        let mut hosts = Vec::new();
        if let Some(tables) = root.table("host")? {
            for (url, place, table) in tables.inner_tables()? {
                table.only(&FIELDS)?;
                hosts.push(entry(&table, Some((url, place)), directory)?);
            }
        }
        if hosts.len() > HOSTS_MAX {
            return Err(Fault { line: None, problem: format!("it has more than {HOSTS_MAX} hosts") });
        }
        hosts.push(entry(root, root.text("server")?.filter(|(url, _)| !url.is_empty()), directory)?);
        Ok(hosts)
    })
}

fn entry(table: &Table<'_, '_>, url: Option<(&str, Place)>, directory: &Path) -> Result<HostEntry, Fault> {
    let override_path = table.boolean("override_path")?.unwrap_or(false);
    let address = url.map(|(url, place)| {
        address(url, override_path)
            .map_err(|problem| table.fault(&place, format!("the URL of a host {problem}")))
    });
    let files = |found: Vec<(&str, Place)>| found.into_iter().map(|(path, _)| directory.join(path)).collect();
    let authorities = bounded(table, "ca", table.texts("ca")?)?;
    Ok(HostEntry {
        address: address.transpose()?,
        capabilities: capabilities(table)?,
        headers: headers(table)?,
        tls: TlsFiles {
            authorities: files(authorities),
            client: client(table, directory)?,
            skip_verify: table.boolean("skip_verify")?.unwrap_or(false),
        },
        dial_timeout: dial_timeout(table)?,
    })
}

/// The address in a URL; the error ends a sentence.
fn address(text: &str, override_path: bool) -> Result<Address, String> {
    let bad = |why: &str| format!("{why}; write for example https://mirror.example:5000");
    let full = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let url = Url::parse(&full).map_err(|_| bad("cannot be understood"))?;
    let scheme = match url.scheme() {
        "https" => Scheme::Https,
        "http" => Scheme::Http,
        _ => return Err(bad("begins with neither https:// nor http://")),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("holds a user; credentials belong into a docker config"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad("has a query"));
    }
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let authority = format!("{}{port}", url.host_str().unwrap_or_default());
    let authority = canonical_host(&authority).ok_or_else(|| bad("names no host"))?;
    let path = url.path().trim_matches('/');
    let ends = path == "v2" || path.ends_with("/v2");
    let root = match (override_path || ends, path.is_empty()) {
        (true, _) => path.to_owned(),
        (false, true) => "v2".to_owned(),
        (false, false) => format!("{path}/v2"),
    };
    Ok(Address { scheme, authority, root })
}

fn capabilities(table: &Table<'_, '_>) -> Result<Capabilities, Fault> {
    let named = table.texts("capabilities")?;
    // containerd takes an empty list for all, too.
    if named.is_empty() {
        return Ok(Capabilities::ALL);
    }
    let mut found = Capabilities { pull: false, resolve: false, push: false, referrers: false };
    for (name, place) in named {
        match name {
            "pull" => found.pull = true,
            "resolve" => found.resolve = true,
            "push" => found.push = true,
            "referrers" => found.referrers = true,
            other => {
                let problem =
                    format!("capability {other:?} is not known; write pull, resolve, push or referrers");
                return Err(table.fault(&place, problem));
            }
        }
    }
    Ok(found)
}

fn headers(table: &Table<'_, '_>) -> Result<HeaderMap, Fault> {
    let mut headers = HeaderMap::new();
    let Some(given) = table.table("header")? else { return Ok(headers) };
    for (name, place) in given.keys() {
        for (value, _) in given.texts(name)? {
            add_header(&mut headers, name, value)
                .map_err(|problem| table.fault(&place, format!("header {name:?} {problem}; correct it")))?;
        }
        if headers.len() > ITEMS_MAX {
            return Err(table.fault(&place, format!("there are more than {ITEMS_MAX} headers")));
        }
    }
    Ok(headers)
}

fn client(table: &Table<'_, '_>, directory: &Path) -> Result<Option<(PathBuf, Option<PathBuf>)>, Fault> {
    let pairs = table.lists("client")?;
    let mut pairs = pairs.into_iter();
    let Some(pair) = pairs.next() else { return Ok(None) };
    let place = pair.first().map_or(0..0, |(_, place)| place.clone());
    if pairs.next().is_some() {
        return Err(table.fault(&place, "client names several certificates; a host may have one here"));
    }
    match &pair[..] {
        [(certificate, _)] => Ok(Some((directory.join(certificate), None))),
        [(certificate, _), (key, _)] => {
            // containerd writes an empty key for a file that holds both.
            let key = (!key.is_empty()).then(|| directory.join(key));
            Ok(Some((directory.join(certificate), key)))
        }
        _ => Err(table.fault(&place, "client must be a file, or a pair of certificate and key")),
    }
}

fn dial_timeout(table: &Table<'_, '_>) -> Result<Option<Duration>, Fault> {
    let Some((text, place)) = table.text("dial_timeout")? else { return Ok(None) };
    // Zero is Go's "no limit", which nobody wants here: the driver's own limit holds.
    let wrong = || table.fault(&place, "dial_timeout is no duration; write for example \"3s\"");
    duration::parse(text).map(|limit| Some(limit).filter(|limit| !limit.is_zero())).ok_or_else(wrong)
}

fn bounded<T>(table: &Table<'_, '_>, key: &str, items: Vec<T>) -> Result<Vec<T>, Fault> {
    if items.len() <= ITEMS_MAX {
        return Ok(items);
    }
    let place = table.has(key).unwrap_or_default();
    Err(table.fault(&place, format!("{key} names more than {ITEMS_MAX} files")))
}

#[cfg(test)]
mod tests;
