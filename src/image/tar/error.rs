//! Why a tar stream was refused.

use std::fmt;
use std::io;

use crate::kind::Kind;
use crate::oci::limits::Exceeded;

/// Why a tar stream was refused. Each names the entry, or where in the stream it lies.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The stream could not be read; this is the source's failure, not the archive's.
    #[error("reading the tar stream: {0}")]
    Read(#[source] io::Error),
    /// The stream ends inside an entry.
    #[error("tar {0}: the archive is cut off here; rebuild the image")]
    Truncated(Subject),
    /// A header cannot be what its type says.
    #[error("tar {0}: {1}; rebuild the image with another builder")]
    Malformed(Subject, &'static str),
    /// A name would lead out of the tree, or cannot exist on Linux.
    #[error("tar {0}: {1}; rebuild the image with names relative to its root")]
    Name(Subject, &'static str),
    /// A limit was reached.
    #[error("tar {0}: {1}")]
    Limit(Subject, Exceeded),
    /// A kind of entry that images do not have.
    #[error("tar {0}: {1} is not supported in an image; rebuild it with the ustar, PAX or GNU format")]
    Unsupported(Subject, &'static str),
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
pub enum Subject {
    /// The header that begins at this byte of the decompressed stream.
    Header(u64),
    /// The entry of this name, as the archive has it.
    Entry(Box<[u8]>),
}

impl fmt::Display for Subject {
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
