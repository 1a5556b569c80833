//! The errors of writing and reading images.

use std::io;

use crate::kind::Kind;

/// Why a composefs image cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The tree holds something that the format cannot express.
    #[error("the tree does not fit a composefs image: {reason}; the image must be rebuilt without it")]
    Unsupported {
        /// What it is.
        reason: String,
    },
    /// The bytes are not a valid image.
    #[error("not a composefs image, or a damaged one: {reason}; remove it and pull again")]
    Corrupt {
        /// What is wrong.
        reason: String,
    },
    /// A directory of the image that is wanted is none.
    #[error("`path` {path:?} {problem} in the image; name a directory of it, or leave `path` out")]
    NoDirectory {
        /// The path.
        path: String,
        /// What is wrong, a predicate.
        problem: &'static str,
    },
    /// Writing a dump failed.
    #[error("cannot write the dump of a composefs image: {source}")]
    Write {
        /// The writer's error.
        source: io::Error,
    },
    /// No thread could be started.
    #[error("cannot start a thread for the composefs image: {source}; raise the process's task limit")]
    Thread {
        /// The system's error.
        source: io::Error,
    },
    /// The composefs library panicked.
    #[error("the composefs library panicked: {message}; please report the image to this project")]
    Panic {
        /// The panic's message.
        message: String,
    },
}

impl ImageError {
    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Unsupported { .. } | Self::NoDirectory { .. } => Kind::Invalid,
            Self::Corrupt { .. } => Kind::Corrupt,
            Self::Write { source } if source.kind() == io::ErrorKind::StorageFull => Kind::Exhausted,
            Self::Write { .. } => Kind::Transient,
            Self::Thread { .. } => Kind::Exhausted,
            Self::Panic { .. } => Kind::Bug,
        }
    }
}
