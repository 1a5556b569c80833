//! The errors of taking a layer in.

use std::io;

use super::record::RecordError;
use crate::image::objects::ObjectError;
use crate::image::tar::{TarError, TarSubject};
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
    #[error("its media type says {0}, but its bytes are neither that nor a tar archive; rebuild the image")]
    Compression(LayerCompression),
    /// The bytes are compressed in a way that layers are not.
    #[error(
        "its bytes are {0}, and layers may be plain, gzip or zstd; compress it again with one of these and push it"
    )]
    ForeignCompression(&'static str),
    /// Fewer bytes came than the descriptor says.
    #[error("{} bytes short of {size}; the registry or a proxy cut it off, pull again", size - got)]
    Short {
        /// Bytes that came.
        got: u64,
        /// Bytes that the descriptor says.
        size: u64,
    },
    /// More bytes came than the descriptor says.
    #[error("longer than the {size} bytes that its descriptor says; the registry serves other content")]
    Long {
        /// Bytes that the descriptor says.
        size: u64,
    },
    /// The bytes have another digest than the descriptor says.
    #[error(
        "its bytes have the digest {found}; the registry or a proxy altered them, pull again or from elsewhere"
    )]
    Digest {
        /// The digest of the bytes.
        found: Digest,
    },
    /// The compressed data is damaged although its digest is right.
    #[error("its {compression} data is damaged ({error}); the builder pushed it damaged, rebuild the image")]
    Decompress {
        /// How it is compressed.
        compression: LayerCompression,
        /// What the decoder says.
        error: io::Error,
    },
    /// A tar stream that is put together from parts ended with an error.
    #[error("its tar could not be put together: {0}; pull again")]
    Source(io::Error),
    /// A zstd frame needs more memory to decode than a layer may have.
    #[error("its zstd window exceeds 32 MiB; recompress the image with a window log of at most 25")]
    Window,
    /// The decompressed stream is longer than allowed.
    #[error("it unpacks to too many bytes, like a decompression bomb: {0}")]
    TooLong(Exceeded),
    /// The layers of the image have too many entries, or too large ones.
    #[error("the image's layers together: {0}")]
    Entries(Exceeded),
    /// The archive was refused.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// An entry's content could not be stored.
    #[error("storing {entry}: {error}")]
    Object {
        /// The entry.
        entry: TarSubject,
        /// Why not.
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
        /// Whether this is a defect of the driver.
        bug: bool,
    },
}

impl LayerFault {
    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Compression(_) | Self::Decompress { .. } => Kind::Invalid,
            Self::ForeignCompression(_) => Kind::Unsupported,
            Self::Short { .. } | Self::Long { .. } | Self::Digest { .. } | Self::Source(_) => Kind::Corrupt,
            Self::Window | Self::TooLong(_) | Self::Entries(_) => Kind::Exhausted,
            Self::Tar(error) => error.kind(),
            Self::Object { error, .. } => error.kind(),
            Self::Record(error) => error.kind(),
            Self::Thread { bug: true, .. } => Kind::Bug,
            Self::Thread { bug: false, .. } => Kind::Exhausted,
        }
    }

    /// Whether other bytes came than those that the descriptor names.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Short { .. } | Self::Long { .. } | Self::Digest { .. })
    }

    /// The fault behind a decoder's error.
    pub(super) fn decompress(compression: LayerCompression, error: io::Error) -> Self {
        // libzstd's text for ZSTD_error_frameParameter_windowTooLarge. Its crate passes on no code.
        match compression {
            LayerCompression::Zstd if error.to_string().contains("too much memory") => Self::Window,
            _ => Self::Decompress { compression, error },
        }
    }

    /// Whether the blob's content caused the fault, and not this node or a limit. If so, the blob's digest tells
    /// whether the registry altered the content or the builder made it so.
    pub(super) fn blames_content(&self) -> bool {
        match self {
            Self::Compression(_) | Self::ForeignCompression(_) | Self::Decompress { .. } => true,
            Self::Tar(error) => !matches!(error, TarError::Limit(..) | TarError::Read(_)),
            _ => false,
        }
    }
}
