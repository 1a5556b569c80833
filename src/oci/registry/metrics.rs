//! Counts requests to registries by what they request and how they end.

use super::SourceError;
use crate::metrics::{Counters, Description, Family, Instruments, Label, Outcome};

const REQUESTS: Description = Description::new(
    "registry_requests_total",
    "Requests to registries and their token services by how they ended, each attempt counted; the answer to a \
     challenge is part of the request",
);

/// The metrics of registry clients. Clones share their counters.
#[derive(Debug, Clone)]
pub struct RegistryMetrics(Counters<(RequestKind, Outcome)>);

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
        Self(Counters::new(REQUESTS))
    }
}

impl Instruments for RegistryMetrics {
    fn families(&self) -> Vec<&dyn Family> {
        vec![&self.0]
    }
}

impl RegistryMetrics {
    /// Counts one request by its result, and returns the result.
    pub(super) fn count<T>(
        &self,
        request: RequestKind,
        result: Result<T, SourceError>,
    ) -> Result<T, SourceError> {
        self.0.add((request, Outcome::of(&result, SourceError::kind)), 1);
        result
    }
}
