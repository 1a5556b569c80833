//! Why a tar stream was refused.

use std::fmt;
use std::io;

use crate::kind::Kind;
use crate::oci::limits::Exceeded;

/// Why a tar stream was refused. Each error names the entry, or its place in the stream.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The stream could not be read. The source failed, not the archive.
    #[error("reading the tar stream: {0}")]
    Read(#[source] io::Error),
    /// The stream ends inside an entry.
    #[error("tar {0}: the archive is cut off here; rebuild the image")]
    Truncated(TarSubject),
    /// A header contradicts itself or the format.
    #[error("tar {0}: {1}; rebuild the image with another builder")]
    Malformed(TarSubject, &'static str),
    /// A name would lead out of the tree, or cannot exist on Linux.
    #[error("tar {0}: {1}; rebuild the image with names relative to its root")]
    Name(TarSubject, &'static str),
    /// A limit was reached.
    #[error("tar {0}: {1}")]
    Limit(TarSubject, Exceeded),
    /// A type of entry that images do not have.
    #[error("tar {0}: {1} is not supported in an image; rebuild it with the ustar, PAX or GNU format")]
    Unsupported(TarSubject, &'static str),
}

impl TarError {
    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Read(_) => Kind::Transient,
            Self::Truncated(_) | Self::Malformed(..) | Self::Name(..) => Kind::Invalid,
            Self::Limit(..) => Kind::Exhausted,
            Self::Unsupported(..) => Kind::Unsupported,
        }
    }
}

/// What an error is about: an entry by its name, or a place in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TarSubject {
    /// The header that begins at this byte of the decompressed stream.
    Header(u64),
    /// The entry of this name, as written in the archive.
    Entry(Box<[u8]>),
}

impl fmt::Display for TarSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Long enough to recognise, short enough for an event or a gRPC status.
        const SHOWN: usize = 200;
        match self {
            Self::Header(offset) => write!(f, "header at byte {offset}"),
            Self::Entry(name) => {
                let shown = name.get(..SHOWN).unwrap_or(name);
                let more = if shown.len() < name.len() { "…" } else { "" };
                write!(f, "entry \"{}{more}\"", shown.escape_ascii())
            }
        }
    }
}
