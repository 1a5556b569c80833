//! Counts requests to registries by what they request and how they end, those that are repeated by the class of the
//! registry, and what came by what the place is to the image.

use super::SourceError;
use crate::metrics::{Counters, Description, Family, Instruments, Label, Labels, Outcome};

const REQUESTS: Description = Description::new(
    "registry_requests_total",
    "Requests to registries and their token services by how they ended, each attempt counted; the answer to a \
     challenge is part of the request",
);

const REPEATS: Description = Description::new(
    "registry_repeats_total",
    "Requests to registries that are sent again after a failure, by the class of the registry and by whether a blob goes \
     on where it broke",
);

const RECEIVED: Description = Description::new(
    "registry_received_bytes_total",
    "Bytes of blobs that came, by whether from a mirror or from the registry that the image names; layers, configs and \
     signatures, those of failed pulls included",
);

/// The metrics of registry clients. Clones share their counters.
#[derive(Debug, Clone)]
pub struct RegistryMetrics {
    requests: Counters<(RequestKind, Outcome)>,
    repeats: Counters<Repeated>,
    received: Counters<Standing>,
}

/// What a place is to an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// A mirror of its registry.
    Mirror,
    /// The registry itself.
    Origin,
}

impl Label for Standing {
    const NAME: &'static str = "from";
    const ALL: &'static [Self] = &[Self::Mirror, Self::Origin];

    fn value(self) -> &'static str {
        match self {
            Self::Mirror => "mirror",
            Self::Origin => "origin",
        }
    }
}

/// What a request does that is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// It asks for the same once more.
    Retried,
    /// It asks for the rest of a blob.
    Resumed,
}

impl Label for Repeat {
    const NAME: &'static str = "repeat";
    const ALL: &'static [Self] = &[Self::Retried, Self::Resumed];

    fn value(self) -> &'static str {
        match self {
            Self::Retried => "retried",
            Self::Resumed => "resumed",
        }
    }
}

/// Who runs a registry. Coarse: names of registries may be the secrets of tenants, and there may be any number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HostClass {
    /// Docker Hub, which limits rates.
    DockerHub,
    /// Another one that is open to all.
    Public,
    /// One that a cloud runs for its customer.
    Cloud,
    /// Any other, such as one's own.
    Other,
}

impl HostClass {
    /// Open to all, as far as they are widely used.
    const PUBLIC: [&'static str; 9] = [
        "gcr.io",
        "ghcr.io",
        "mcr.microsoft.com",
        "nvcr.io",
        "public.ecr.aws",
        "quay.io",
        "registry.gitlab.com",
        "registry.k8s.io",
        "registry.access.redhat.com",
    ];
    /// What the hosts of clouds' customers end in.
    const CLOUD: [&'static str; 5] =
        [".amazonaws.com", ".amazonaws.com.cn", ".azurecr.io", ".pkg.dev", ".gcr.io"];

    /// The class of a host in its one spelling, with or without a port.
    pub(super) fn of(host: &str) -> Self {
        match host {
            "docker.io" => Self::DockerHub,
            host if Self::PUBLIC.contains(&host) => Self::Public,
            host if Self::CLOUD.iter().any(|end| host.ends_with(end)) => Self::Cloud,
            _ => Self::Other,
        }
    }
}

impl Label for HostClass {
    const NAME: &'static str = "host";
    const ALL: &'static [Self] = &[Self::DockerHub, Self::Public, Self::Cloud, Self::Other];

    fn value(self) -> &'static str {
        match self {
            Self::DockerHub => "docker_hub",
            Self::Public => "public",
            Self::Cloud => "cloud",
            Self::Other => "other",
        }
    }
}

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestKind {
    /// A manifest, or only its digest.
    Manifest,
    /// A blob. Failures after its headers are not counted here.
    Blob,
    /// A token.
    Token,
    /// Anything else, such as a list of referrers.
    Other,
}

impl Label for RequestKind {
    const NAME: &'static str = "request";
    const ALL: &'static [Self] = &[Self::Manifest, Self::Blob, Self::Token, Self::Other];

    fn value(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Blob => "blob",
            Self::Token => "token",
            Self::Other => "other",
        }
    }
}

/// The labels of requests that are sent again. All series are there from the start, so that an alert sees the first one.
#[derive(Debug, Clone, Copy)]
struct Repeated {
    host: HostClass,
    repeat: Repeat,
}

impl Labels for Repeated {
    fn names() -> Vec<&'static str> {
        vec![HostClass::NAME, Repeat::NAME]
    }

    fn values(self) -> Vec<&'static str> {
        vec![self.host.value(), self.repeat.value()]
    }

    fn known() -> Vec<Self> {
        let all = HostClass::ALL.iter();
        all.flat_map(|host| Repeat::ALL.iter().map(|repeat| Self { host: *host, repeat: *repeat })).collect()
    }
}

impl RequestKind {
    /// The kind of a request for a path below a repository.
    pub(super) fn by_path(path: &str) -> Self {
        match path.split('/').next() {
            Some("manifests") => Self::Manifest,
            Some("blobs") => Self::Blob,
            _ => Self::Other,
        }
    }
}

impl Default for RegistryMetrics {
    fn default() -> Self {
        Self {
            requests: Counters::new(REQUESTS),
            repeats: Counters::new(REPEATS),
            received: Counters::new(RECEIVED),
        }
    }
}

impl Instruments for RegistryMetrics {
    fn families(&self) -> Vec<&dyn Family> {
        vec![&self.requests, &self.repeats, &self.received]
    }
}

impl RegistryMetrics {
    /// Counts one request by its result, and returns the result.
    pub(super) fn count<T>(
        &self,
        request: RequestKind,
        result: Result<T, SourceError>,
    ) -> Result<T, SourceError> {
        self.requests.add((request, Outcome::of(&result, SourceError::kind)), 1);
        result
    }

    /// Counts one request to `host` that is sent again.
    pub(super) fn count_repeat(&self, host: &str, repeat: Repeat) {
        self.repeats.add(Repeated { host: HostClass::of(host), repeat }, 1);
    }

    /// Counts bytes of blobs as they come.
    pub(super) fn count_received(&self, from: Standing, bytes: usize) {
        self.received.add(from, bytes as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_one_of_few_classes() {
        for (host, class) in [
            ("docker.io", HostClass::DockerHub),
            ("ghcr.io", HostClass::Public),
            ("gcr.io", HostClass::Public),
            ("123.dkr.ecr.eu-west-1.amazonaws.com", HostClass::Cloud),
            ("europe-docker.pkg.dev", HostClass::Cloud),
            ("eu.gcr.io", HostClass::Cloud),
            ("docker.io.evil.example", HostClass::Other),
            ("registry.example:5000", HostClass::Other),
            ("127.0.0.1:5000", HostClass::Other),
        ] {
            assert_eq!(HostClass::of(host), class, "{host}");
        }
    }
}
