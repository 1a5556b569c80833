//! Why a layer was refused.

use std::io;

use super::record::RecordError;
use crate::image::objects::ObjectError;
use crate::image::tar::{Subject, TarError};
use crate::kind::Kind;
use crate::oci::digest::Digest;
use crate::oci::limits::Exceeded;
use crate::oci::manifest::LayerCompression;

/// Why a layer could not be taken in.
#[derive(Debug, thiserror::Error)]
#[error("layer {blob}: {fault}")]
pub struct LayerError {
    /// The digest that the layer's descriptor states.
    pub blob: Digest,
    /// What is wrong with it.
    #[source]
    pub fault: LayerFault,
}

impl LayerError {
    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        self.fault.kind()
    }
}

/// What is wrong with a layer.
#[derive(Debug, thiserror::Error)]
pub enum LayerFault {
    /// The bytes are not compressed as the descriptor says, nor in any other way we know.
    #[error("its media type says {0}, but its bytes are not, nor are they a tar archive; rebuild the image")]
    Compression(LayerCompression),
    /// Fewer bytes came than the descriptor says.
    #[error("{} bytes short of {size}; the registry or a proxy cut it off, pull again", size - got)]
    Short {
        /// Bytes that came.
        got: u64,
        /// Bytes that the descriptor says.
        size: u64,
    },
    /// More bytes came than the descriptor says.
    #[error("longer than the {size} bytes that its descriptor says; the registry serves something else")]
    Long {
        /// Bytes that the descriptor says.
        size: u64,
    },
    /// The bytes hash to something else than the descriptor says.
    #[error("its bytes are {found}; the registry or a proxy altered it, pull again or from elsewhere")]
    Digest {
        /// What the bytes hash to.
        found: Digest,
    },
    /// The compressed data is damaged although its digest is right.
    #[error("its {compression} data is damaged ({error}); the builder pushed it so, rebuild the image")]
    Decompress {
        /// How it is compressed.
        compression: LayerCompression,
        /// What the decoder says.
        error: io::Error,
    },
    /// A zstd frame needs more memory to decode than a layer may have.
    #[error("its zstd window exceeds 32 MiB; recompress the image with a window log of at most 25")]
    Window,
    /// The decompressed stream is longer than allowed.
    #[error("it unpacks too far, as a bomb does: {0}")]
    TooLong(Exceeded),
    /// The archive is not acceptable.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// An entry's content could not be stored.
    #[error("storing {entry}: {error}")]
    Object {
        /// The entry.
        entry: Subject,
        /// What the store says.
        error: ObjectError,
    },
    /// The entries could not be recorded.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A thread could not be started, or died.
    #[error("thread {name} {what}")]
    Thread {
        /// Its name.
        name: &'static str,
        /// What happened to it.
        what: String,
        /// Whether that is a defect of ours.
        bug: bool,
    },
}

impl LayerFault {
    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Compression(_) | Self::Decompress { .. } => Kind::Invalid,
            Self::Short { .. } | Self::Long { .. } | Self::Digest { .. } => Kind::Corrupt,
            Self::Window | Self::TooLong(_) => Kind::Exhausted,
            Self::Tar(error) => error.kind(),
            Self::Object { error, .. } => error.kind(),
            Self::Record(error) => error.kind(),
            Self::Thread { bug: true, .. } => Kind::Bug,
            Self::Thread { bug: false, .. } => Kind::Exhausted,
        }
    }

    /// Puts the decoder's answer into words.
    pub(super) fn decompress(compression: LayerCompression, error: io::Error) -> Self {
        // libzstd's name for ZSTD_error_frameParameter_windowTooLarge; its crate keeps only the text.
        match compression {
            LayerCompression::Zstd if error.to_string().contains("too much memory") => Self::Window,
            _ => Self::Decompress { compression, error },
        }
    }

    /// Whether the blob's content is to blame rather than this node or a limit, so that it is worth knowing
    /// whether these are the bytes that the descriptor means.
    pub(super) fn blames_content(&self) -> bool {
        match self {
            Self::Compression(_) | Self::Decompress { .. } => true,
            Self::Tar(error) => !matches!(error, TarError::Limit(..) | TarError::Read(_)),
            _ => false,
        }
    }
}
