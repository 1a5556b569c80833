//! Why a policy cannot be used: which file, where in it, what, and what to do.

use std::path::{Path, PathBuf};

use crate::kind::Kind;

/// Why a policy file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("policy {}: {fault}", file.display())]
pub struct PolicyError {
    /// The policy file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub fault: Fault,
}

impl PolicyError {
    /// What is wrong is the operator's to correct.
    pub fn kind(&self) -> Kind {
        Kind::Denied
    }
}

/// Something wrong at a place of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The place: `transports.docker["r.example/a"][0].keyPath`; empty for the whole file.
    pub at: String,
    /// What is wrong there.
    pub problem: Problem,
}

impl Fault {
    /// The same, in a file.
    pub fn within(self, file: &Path) -> PolicyError {
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
pub enum Problem {
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
        /// What belongs here.
        expected: &'static str,
        /// What is here.
        found: &'static str,
    },
    /// An empty string or list.
    #[error("is empty, which means nothing; leave it out or fill it in")]
    Empty,
    /// A key that occurs twice.
    #[error("occurs twice; keep one")]
    Twice,
    /// A field that must be there.
    #[error("field {0:?} is missing")]
    Missing(&'static str),
    /// A field that means nothing here.
    #[error("field {name:?} is not known here; known are {known}")]
    UnknownField {
        /// The field.
        name: String,
        /// What is known.
        known: String,
    },
    /// A type of requirement or identity that does not exist.
    #[error("type {name:?} is not known; known are {known}")]
    UnknownType {
        /// The type.
        name: String,
        /// What is known.
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
    /// A scope that no image can ever be in.
    #[error("no image is ever in this scope: {0}")]
    Scope(&'static str),
    /// Not exactly one of several fields.
    #[error("exactly one of {choices} must be given, found {found}")]
    NotOne {
        /// The fields.
        choices: &'static str,
        /// How many are there.
        found: usize,
    },
    /// More than one of several fields.
    #[error("at most one of {0} may be given")]
    NotAtMostOne(&'static str),
    /// A value that is not what the field needs.
    #[error("{value:?} is not {expected}")]
    Value {
        /// The value, shortened.
        value: String,
        /// What it must be.
        expected: String,
    },
    /// A key, certificate or trusted root that cannot be used.
    #[error("{} cannot be used: {why}", of.as_ref().map_or_else(|| "this data".to_owned(), |p| p.display().to_string()))]
    Material {
        /// The file it is from; `None` if it stands in the policy itself.
        of: Option<PathBuf>,
        /// Why not, and what to do.
        why: String,
    },
    /// Fields that make no sense together.
    #[error("{0}")]
    Together(&'static str),
}
