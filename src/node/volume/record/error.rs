//! Why a record could not be read or written.

use std::io;
use std::path::PathBuf;

use crate::kind::Kind;

/// Why a record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A system call failed.
    #[error("cannot {step} the volume record {}: {error}; check the filesystem that holds it", path.display())]
    System {
        /// The attempted step, a verb.
        step: &'static str,
        /// The record.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// Its contents are not a valid record.
    #[error(
        "volume record {} is damaged ({why}); unmount what the volume has mounted, then remove the file",
        path.display()
    )]
    Damaged {
        /// The record.
        path: PathBuf,
        /// The parser's message.
        why: String,
    },
    /// It was written by another version.
    #[error(
        "volume record {} has format {found} and this version reads format 1; run the version that wrote it",
        path.display()
    )]
    Format {
        /// The record.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
}

impl RecordError {
    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::System { error, .. } if error.kind() == io::ErrorKind::StorageFull => Kind::Exhausted,
            Self::System { error, .. } if error.kind() == io::ErrorKind::QuotaExceeded => Kind::Exhausted,
            Self::System { .. } | Self::Format { .. } => Kind::Unsupported,
            Self::Damaged { .. } => Kind::Corrupt,
        }
    }

    /// Whether a power cut during a write can have left this file.
    pub(in crate::node::volume) fn is_torn(&self) -> bool {
        matches!(self, Self::Damaged { .. })
    }
}
