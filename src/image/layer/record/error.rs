//! Why a layer record could not be written or read.

use std::io;

use crate::kind::Kind;

/// Why a layer record could not be written or read. The caller adds the record's name.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file could not be written or read.
    #[error("layer record: {0}")]
    Io(#[from] io::Error),
    /// The bytes are not what was written.
    #[error("layer record is damaged at byte {offset}: {what}; remove it and pull the image again")]
    Damaged {
        /// Where in the record.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// Another release of the driver wrote the record.
    #[error(
        "layer record has format version {0}, this release reads 1 and 2; remove it and pull the image again"
    )]
    Version(u8),
}

impl RecordError {
    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Io(error) if is_full(error) => Kind::Exhausted,
            Self::Io(_) => Kind::Transient,
            Self::Damaged { .. } => Kind::Corrupt,
            Self::Version(_) => Kind::Unsupported,
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
