//! Why a policy cannot be used: the file, the place in it, the problem, and the remedy.

use std::path::{Path, PathBuf};

use crate::kind::Kind;

/// Why a policy file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("policy {}: {fault}", file.display())]
pub struct PolicyError {
    /// The policy file.
    pub(super) file: PathBuf,
    /// What is wrong with it.
    pub(super) fault: Fault,
}

impl PolicyError {
    /// What sort of failure this is: an unusable policy admits nothing.
    pub fn kind(&self) -> Kind {
        Kind::Denied
    }
}

/// A problem at one place of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// The place: `transports.docker["r.example/a"][0].keyPath`; empty for the whole file.
    pub(super) at: String,
    /// What is wrong there.
    pub(super) problem: Problem,
}

impl Fault {
    /// The error for a whole file.
    pub(super) fn within(self, file: &Path) -> PolicyError {
        PolicyError { file: file.to_owned(), fault: self }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.at.is_empty() {
            write!(f, "at {}: ", self.at)?;
        }
        write!(f, "{}", self.problem)
    }
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Problem {
    /// A file cannot be read.
    #[error("cannot read {}: {why}; mount the file there and make it readable for the driver", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        why: String,
    },
    /// It is not JSON.
    #[error("not valid JSON (comments are not allowed either): {0}")]
    Json(String),
    /// A value of another type.
    #[error("expected {expected}, found {found}")]
    Sort {
        /// What the policy needs here.
        expected: &'static str,
        /// What it has here.
        found: &'static str,
    },
    /// An empty string or list.
    #[error("is empty, which means nothing; leave it out or fill it in")]
    Empty,
    /// A key that occurs twice.
    #[error("occurs twice; keep one")]
    Twice,
    /// A required field is missing.
    #[error("field {0:?} is missing")]
    Missing(&'static str),
    /// A field that is not known here.
    #[error("field {name:?} is not known here; known are {known}")]
    UnknownField {
        /// The field.
        name: String,
        /// The known ones.
        known: String,
    },
    /// A type of requirement or identity that does not exist.
    #[error("type {name:?} is not known; known are {known}")]
    UnknownType {
        /// The type.
        name: String,
        /// The known ones.
        known: &'static str,
    },
    /// A transport that containers-policy.json(5) does not know.
    #[error(
        "transport {name:?} is not known; images from registries are \"docker\", OCI layouts are \"oci\""
    )]
    UnknownTransport {
        /// The transport.
        name: String,
    },
    /// A scope that matches no image.
    #[error("no image matches this scope: {0}")]
    Scope(&'static str),
    /// A scope whose host references spell in another way.
    #[error("no image matches this scope: references spell the host {host:?} {canonical}; write it so")]
    Host {
        /// The host.
        host: String,
        /// As references spell it.
        canonical: String,
    },
    /// Not exactly one of several fields.
    #[error("exactly one of {choices} must be given, found {found}")]
    NotOne {
        /// The fields.
        choices: &'static str,
        /// How many the policy has.
        found: usize,
    },
    /// More than one of several fields.
    #[error("at most one of {0} may be given")]
    NotAtMostOne(&'static str),
    /// A value that the field does not accept.
    #[error("{value:?} is not {expected}")]
    Value {
        /// The value, shortened.
        value: String,
        /// What is accepted.
        expected: String,
    },
    /// A key, certificate or trusted root that cannot be used.
    #[error("{} cannot be used: {why}", of.as_ref().map_or_else(|| "this data".to_owned(), |p| p.display().to_string()))]
    Material {
        /// Its file; `None` if it is inline in the policy.
        of: Option<PathBuf>,
        /// Why not, and what to do.
        why: String,
    },
    /// Fields that contradict each other.
    #[error("{0}")]
    Together(&'static str),
}
