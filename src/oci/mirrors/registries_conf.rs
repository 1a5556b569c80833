//! containers-registries.conf(5), version 2, in a subset. Pure: the files are read by others.
//!
//! Kept are the `[[registry]]` tables with their mirrors. Settings of short names are known and not used, because a
//! reference here names its registry. What is not known is an error, because it may be a restriction.

use std::sync::Arc;

use reqwest::header::HeaderMap;

use super::document::{Fault, Place, Table, parse};
use super::host::{Capabilities, Host, Scheme};
use super::prefix::{Location, Prefix};
use crate::oci::registry::EndpointTls;

/// The most registries of all files together, and the most mirrors of one.
const REGISTRIES_MAX: usize = 4096;
const MIRRORS_MAX: usize = 64;

/// Settings of short names and of other programs' credentials; they say nothing about where an image is.
const UNUSED: [&str; 5] = [
    "unqualified-search-registries",
    "credential-helpers",
    "short-name-mode",
    "aliases",
    "additional-layer-store-auth-helper",
];

const REGISTRY: [&str; 7] = [
    "prefix",
    "location",
    "insecure",
    "blocked",
    "mirror",
    "mirror-by-digest-only",
    // Known, and refused where it stands.
    "pull-from-mirror",
];
const MIRROR: [&str; 3] = ["location", "insecure", "pull-from-mirror"];

/// The registries of all files.
#[derive(Debug, Default)]
pub(super) struct RegistriesConf(Vec<Registry>);

/// A `[[registry]]` table.
#[derive(Debug)]
pub(super) struct Registry {
    pub(super) prefix: Prefix,
    /// Where its images are.
    pub(super) primary: Source,
    pub(super) blocked: bool,
    pub(super) mirrors: Vec<Mirror>,
    /// The file and the line, for messages.
    pub(super) stated: String,
}

/// A location, and the ways to reach its host.
#[derive(Debug)]
pub(super) struct Source {
    /// `None`: names stay as they are written.
    pub(super) location: Option<Location>,
    pub(super) insecure: bool,
    /// In the order in which they are tried. Without a scheme, `--insecure-registry` decides.
    pub(super) hosts: Vec<(Option<Scheme>, Arc<Host>)>,
}

/// A `[[registry.mirror]]` table.
#[derive(Debug)]
pub(super) struct Mirror {
    pub(super) source: Source,
    pub(super) pulls: PullFrom,
}

/// The references for which a mirror is asked (`pull-from-mirror`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PullFrom {
    All,
    DigestOnly,
    TagOnly,
}

impl RegistriesConf {
    /// Adds a file. Its tables take the place of those with the same prefix in files before it, whole.
    ///
    /// # Errors
    /// It is no such file, or contradicts itself.
    pub(super) fn add(&mut self, bytes: &[u8], file: &str) -> Result<(), Fault> {
        let added = parse(bytes, |root| {
            if let Some(place) = root.has("registries") {
                let problem =
                    "[registries.…] is of version 1, which nobody reads any more; write [[registry]] tables";
                return Err(root.fault(&place, problem));
            }
            let known: Vec<_> = UNUSED.into_iter().chain(["registry"]).collect();
            root.only(&known)?;
            let mut found: Vec<Registry> = Vec::new();
            for (place, table) in root.tables("registry")? {
                let registry = registry(&table, &place, file)?;
                agrees(&found, &registry).map_err(|problem| table.fault(&place, problem))?;
                // The first of the same prefix counts.
                if found.iter().all(|other| other.prefix != registry.prefix) {
                    found.push(registry);
                }
                if found.len() > REGISTRIES_MAX {
                    return Err(
                        table.fault(&place, format!("there are more than {REGISTRIES_MAX} registries"))
                    );
                }
            }
            Ok(found)
        })?;
        self.0.retain(|old| !added.iter().any(|new| new.prefix == old.prefix));
        self.0.extend(added);
        if self.0.len() > REGISTRIES_MAX {
            let problem = format!("with the files before it there are more than {REGISTRIES_MAX} registries");
            return Err(Fault { line: None, problem });
        }
        Ok(())
    }

    /// The registry that applies to `name` (`HOST/REPOSITORY`), and what of the name its prefix leaves.
    pub(super) fn lookup<'n>(&self, name: &'n str) -> Option<(&Registry, &'n str)> {
        let matching = self.0.iter().filter_map(|registry| Some((registry, registry.prefix.rest(name)?)));
        matching.max_by_key(|(registry, _)| registry.prefix.length())
    }
}

/// Two tables of one location must say the same about how it is reached and whether it is.
fn agrees(others: &[Registry], new: &Registry) -> Result<(), String> {
    let same =
        |other: &&Registry| new.primary.location.is_some() && other.primary.location == new.primary.location;
    let differs =
        |other: &&Registry| (other.primary.insecure, other.blocked) != (new.primary.insecure, new.blocked);
    match others.iter().filter(same).find(differs) {
        None => Ok(()),
        Some(other) => Err(format!(
            "insecure or blocked differs from {}, which has the same location; make them agree",
            other.stated
        )),
    }
}

fn registry(table: &Table<'_, '_>, place: &Place, file: &str) -> Result<Registry, Fault> {
    table.only(&REGISTRY)?;
    if let Some(place) = table.has("pull-from-mirror") {
        return Err(table.fault(&place, "pull-from-mirror belongs into [[registry.mirror]]"));
    }
    let primary = source(table)?;
    let prefix = match table.text("prefix")?.filter(|(text, _)| !text.is_empty()) {
        Some((text, at)) => {
            Prefix::parse(text).map_err(|problem| table.fault(&at, format!("prefix {text:?} {problem}")))?
        }
        None => match &primary.location {
            Some(location) => {
                let text = location.to_string();
                Prefix::parse(&text).map_err(|problem| table.fault(place, format!("{text:?} {problem}")))?
            }
            None => return Err(table.fault(place, "it has neither prefix nor location; write one of them")),
        },
    };
    if primary.location.is_none() && !prefix.is_wildcard() {
        return Err(
            table.fault(place, "it has no location; write location, or a prefix such as *.example.com")
        );
    }
    let by_digest_only = table.boolean("mirror-by-digest-only")?.unwrap_or(false);
    let mut mirrors = Vec::new();
    for (at, inner) in table.tables("mirror")? {
        mirrors.push(mirror(&inner, &at, by_digest_only)?);
    }
    if mirrors.len() > MIRRORS_MAX {
        return Err(table.fault(place, format!("it has more than {MIRRORS_MAX} mirrors")));
    }
    Ok(Registry {
        prefix,
        primary,
        blocked: table.boolean("blocked")?.unwrap_or(false),
        mirrors,
        stated: format!("{file}, line {}", table.line(place)),
    })
}

fn mirror(table: &Table<'_, '_>, place: &Place, by_digest_only: bool) -> Result<Mirror, Fault> {
    table.only(&MIRROR)?;
    let source = source(table)?;
    if source.location.is_none() {
        return Err(table.fault(place, "a mirror has no location; write location = \"HOST[:PORT][/PATH]\""));
    }
    let own = match table.text("pull-from-mirror")?.filter(|(text, _)| !text.is_empty()) {
        None => None,
        Some(("all", _)) => Some(PullFrom::All),
        Some(("digest-only", _)) => Some(PullFrom::DigestOnly),
        Some(("tag-only", _)) => Some(PullFrom::TagOnly),
        Some((other, at)) => {
            let problem =
                format!("pull-from-mirror {other:?} is not known; write all, digest-only or tag-only");
            return Err(table.fault(&at, problem));
        }
    };
    let pulls = match (own, by_digest_only) {
        (Some(_), true) => {
            let problem =
                "pull-from-mirror and the registry's mirror-by-digest-only exclude each other; write one";
            return Err(table.fault(place, problem));
        }
        (Some(own), false) => own,
        (None, true) => PullFrom::DigestOnly,
        (None, false) => PullFrom::All,
    };
    Ok(Mirror { source, pulls })
}

fn source(table: &Table<'_, '_>) -> Result<Source, Fault> {
    let location = match table.text("location")?.filter(|(text, _)| !text.is_empty()) {
        None => None,
        Some((text, place)) => {
            let wrong = |problem| table.fault(&place, format!("location {text:?} {problem}"));
            Some(Location::parse(text).map_err(wrong)?)
        }
    };
    let insecure = table.boolean("insecure")?.unwrap_or(false);
    Ok(Source { location, insecure, hosts: hosts(insecure) })
}

/// An insecure registry is asked by TLS with any certificate, and else without TLS.
fn hosts(insecure: bool) -> Vec<(Option<Scheme>, Arc<Host>)> {
    let host = |scheme, skip_verify| {
        let tls = EndpointTls { skip_verify, ..EndpointTls::default() };
        (scheme, Arc::new(Host::new(None, Capabilities::ALL, HeaderMap::new(), tls)))
    };
    if insecure {
        vec![host(Some(Scheme::Https), true), host(Some(Scheme::Http), false)]
    } else {
        vec![host(None, false)]
    }
}

#[cfg(test)]
mod tests;
