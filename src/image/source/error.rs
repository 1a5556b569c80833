//! What can go wrong between here and the bytes of an image.

use crate::kind::Kind;

/// Why a source gave no bytes.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The repository, tag, digest or blob is not there.
    #[error("{subject} was not found; check the name, and that the credentials may read it")]
    NotFound {
        /// The reference or blob asked for.
        subject: String,
    },
}

impl SourceError {
    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NotFound { .. } => Kind::NotFound,
        }
    }
}
