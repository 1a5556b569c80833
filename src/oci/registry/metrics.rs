//! Requests to registries counted, by what was asked for and how it ended.

use super::SourceError;
use crate::metrics::{Counters, Description, Family, Instruments, Label, Outcome};

const REQUESTS: Description = Description::new(
    "registry_requests_total",
    "Requests to registries and their token services by how they ended, each attempt counted; the answer to a \
     challenge is part of the request",
);

/// The metrics of all registry clients that share it. Clones count into the same.
#[derive(Debug, Clone)]
pub struct RegistryMetrics(Counters<(Asked, Outcome)>);

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// A manifest, or only its digest.
    Manifest,
    /// A blob; what happens once its bytes flow is not counted here.
    Blob,
    /// A token.
    Token,
    /// Anything else, such as what refers to an image.
    Other,
}

impl Label for Asked {
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

impl Asked {
    /// What a path below a repository means.
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
    /// Counts one request by its result, and hands it on.
    pub(super) fn count<T>(&self, asked: Asked, result: Result<T, SourceError>) -> Result<T, SourceError> {
        self.0.add((asked, Outcome::of(&result, SourceError::kind)), 1);
        result
    }

    /// How many requests have ended so.
    pub fn get(&self, asked: Asked, outcome: Outcome) -> u64 {
        self.0.get((asked, outcome))
    }
}
