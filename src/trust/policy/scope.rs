//! Scopes: which requirements of a policy govern an image (containers-policy.json(5), "Supported transports").
//!
//! An image has a list of names, from the most specific to the most general. The first name that is a scope of the
//! policy decides alone. A tag beside a digest is ignored: the digest decides what is mounted, and anybody can write
//! any tag in front of it.

use std::path::Path;

use super::error::Problem;
use super::json::shortened;
use crate::oci::reference::{Reference, RegistryReference, Version, canonical_host};

/// Known transports that this driver never uses. Their scopes are parsed and have no effect.
const UNUSED: [&str; 9] = [
    "atomic",
    "containers-storage",
    "dir",
    "docker-archive",
    "docker-daemon",
    "oci-archive",
    "ostree",
    "sif",
    "tarball",
];

/// A transport of containers-transports(5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Transport {
    /// Images from registries.
    Docker,
    /// OCI image layouts.
    Oci,
}

impl Transport {
    /// The transport of this name; `Ok(None)` for one that this driver never uses.
    pub(super) fn named(name: &str) -> Result<Option<Self>, Problem> {
        match name {
            "docker" => Ok(Some(Self::Docker)),
            "oci" => Ok(Some(Self::Oci)),
            name if UNUSED.contains(&name) => Ok(None),
            name => Err(Problem::UnknownTransport { name: shortened(name) }),
        }
    }

    /// The transport's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Oci => "oci",
        }
    }

    /// Refuses scopes that match no image: their author meant something else.
    pub(super) fn check(self, scope: &str) -> Result<(), Problem> {
        let wrong = match self {
            // The transport's own default.
            _ if scope.is_empty() => None,
            Self::Docker => return wrong_name(scope).map_or(Ok(()), Err),
            Self::Oci => wrong_path(scope),
        };
        wrong.map_or(Ok(()), |rule| Err(Problem::Scope(rule)))
    }
}

fn wrong_name(scope: &str) -> Option<Problem> {
    let (host, rest) = scope.split_once('/').map_or((scope, None), |(host, rest)| (host, Some(rest)));
    let domain = host.strip_prefix("*.");
    let rule = if scope.contains("://") {
        "write it without a transport, as host/namespace/repository"
    } else if domain.unwrap_or(host).contains('*') || rest.is_some_and(|rest| rest.contains('*')) {
        "a wildcard stands only in front, as *.example.com"
    } else if domain.is_some_and(|domain| domain.is_empty() || domain.contains(':'))
        || domain.and(rest).is_some()
    {
        "a wildcard covers whole hosts: write *.example.com, without port or repository"
    } else if scope.starts_with('/') || scope.ends_with('/') || scope.contains("//") {
        "write host/namespace/repository without empty parts"
    } else if !scope.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-:/@[]*".contains(&b)) {
        "it has characters that no image name has"
    } else if domain.is_none() && !host.contains(['.', ':']) && host != "localhost" {
        "it does not begin with a registry's host; write for example docker.io/library/busybox"
    } else {
        return misspelt_host(domain.unwrap_or(host));
    };
    Some(Problem::Scope(rule))
}

/// A host that references spell in another way, so that none would be in the scope.
fn misspelt_host(host: &str) -> Option<Problem> {
    match canonical_host(host) {
        Some(canonical) if canonical == host => None,
        Some(canonical) => Some(Problem::Host { host: shortened(host), canonical: shortened(&canonical) }),
        None => Some(Problem::Scope(
            "its host is none that a reference can name: write names without a final dot, addresses as 192.0.2.1 or \
             [2001:db8::1], and ports without leading zeros",
        )),
    }
}

fn wrong_path(scope: &str) -> Option<&'static str> {
    let parts = || scope.split('/').skip(1);
    if !scope.starts_with('/') {
        Some("write the absolute path of a directory")
    } else if scope == "/" {
        Some("for all layouts, write the empty scope \"\"")
    } else if parts().any(|part| part.is_empty() || part == "." || part == "..") {
        Some("write the path without '.', '..' and empty parts")
    } else if scope.contains(':') {
        Some("a scope is a directory, without the image's name")
    } else {
        None
    }
}

/// The scopes that can match an image, the most specific first, without the transport's own default.
///
/// `directory` is the layout's directory with all links resolved; an image from a registry has none.
pub(super) fn names(reference: &Reference, directory: Option<&Path>) -> (Transport, Vec<String>) {
    match reference {
        Reference::Registry(registry) => (Transport::Docker, registry_names(registry, &reference.version())),
        Reference::Layout(_) => {
            let own = directory.unwrap_or(Path::new(""));
            // `/` is no scope of its own: it would be the transport's default.
            let holds_images = |path: &&Path| path.parent().is_some();
            let names = own.ancestors().filter(holds_images).filter_map(Path::to_str).map(str::to_owned);
            (Transport::Oci, names.collect())
        }
    }
}

fn registry_names(registry: &RegistryReference, version: &Version) -> Vec<String> {
    let repository = registry.name();
    let mut names = match version {
        Version::Tag(tag) => vec![format!("{repository}:{tag}")],
        Version::Digest(digest) => vec![format!("{repository}@{digest}")],
        Version::Sole => Vec::new(),
    };
    let mut left = repository.as_str();
    names.push(left.to_owned());
    // Namespaces, from the inner to the outer, end with the host and its port.
    while let Some((parent, _)) = left.rsplit_once('/') {
        names.push(parent.to_owned());
        left = parent;
    }
    // The rest is the host. Wildcards match any port.
    let mut domain = match left.rsplit_once(':') {
        // An IPv6 address without a port ends with a bracket.
        Some((host, _)) if !left.ends_with(']') => host,
        _ => left,
    };
    while let Some((_, parent)) = domain.split_once('.') {
        names.push(format!("*.{parent}"));
        domain = parent;
    }
    names
}
