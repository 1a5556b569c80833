//! Why a directory could not be pushed.

use std::io;
use std::path::PathBuf;

use crate::image::composefs::ImageError;
use crate::image::seal::document::EditError;
use crate::image::tree::TreeError;
use crate::kind::Kind;
use crate::oci::SourceError;
use crate::oci::artifact::ArtifactError;
use crate::oci::digest::Digest;
use crate::oci::manifest::ManifestError;

/// Why a directory could not be pushed. No tag was written.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// It is no directory.
    #[error("{} is not a directory; name the directory whose content is to be pushed", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// There is nothing in it.
    #[error("{} holds no file to push, and an empty volume would say nothing; put files into it", path.display())]
    Empty {
        /// The directory.
        path: PathBuf,
    },
    /// A file or directory cannot be read.
    #[error("{} cannot be read and pushed: {source}; let this user read it, or take it out of the directory", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file was written to meanwhile.
    #[error("{path} changed while it was being pushed; push again when nobody writes to the directory")]
    Changed {
        /// The file, relative to the directory.
        path: String,
    },
    /// Something that is neither file, directory nor link.
    #[error("{path} is a {what}, and volumes have none; take it out of the directory that is pushed")]
    Special {
        /// The path, relative to the directory.
        path: String,
        /// What it is.
        what: &'static str,
    },
    /// A name that layers use for something else.
    #[error("the name of {path} begins with .wh., by which layers say that a file is deleted; rename it")]
    Marker {
        /// The path, relative to the directory.
        path: String,
    },
    /// A link that an artifact cannot have.
    #[error(
        "{path} is a symbolic link, and artifacts hold files alone; push with --follow-links, or an image (without --artifact)"
    )]
    Link {
        /// The path, relative to the directory.
        path: String,
    },
    /// A link that is followed leads to no file.
    #[error(
        "{path} is a symbolic link that leads to no regular file, and --follow-links needs one; remove the link, or push without it"
    )]
    Dangling {
        /// The path, relative to the directory.
        path: String,
    },
    /// A name that an annotation cannot hold.
    #[error(
        "the name of {path} is not UTF-8, and names of an artifact's files are; rename it, or push an image (without --artifact)"
    )]
    NotText {
        /// The path, relative to the directory.
        path: String,
    },
    /// There is more than nodes take.
    #[error(
        "the directory has {found} {what}, and nodes take at most {limit}; push a part of it, or several"
    )]
    TooMany {
        /// How many.
        found: u64,
        /// Of what.
        what: &'static str,
        /// The limit without any flag of a node.
        limit: u64,
    },
    /// The reference has no tag.
    #[error(
        "{reference} names a digest, and what is pushed gets one of its own; write REGISTRY/REPOSITORY:TAG"
    )]
    NoTag {
        /// The reference.
        reference: String,
    },
    /// The reference is a directory.
    #[error(
        "{reference} is a layout, and push writes to registries; push there, and copy with skopeo if it must be a layout"
    )]
    Layout {
        /// The reference.
        reference: String,
    },
    /// A layer cannot be compressed.
    #[error("a layer cannot be compressed: {0}; free memory, or push with --compression=gzip")]
    Compress(io::Error),
    /// A blob had another digest when it was read again.
    #[error(
        "{name} had digest {found} when it was sent, and {expected} when it was read first; push again when nobody writes to the directory"
    )]
    Differs {
        /// The blob.
        name: String,
        /// The first digest.
        expected: Digest,
        /// The second.
        found: Digest,
    },
    /// The tag for signatures has something else.
    #[error("the tag {tag} of the repository is no manifest of signatures; remove it, and push again")]
    NoSignatures {
        /// The tag.
        tag: String,
    },
    /// OpenSSL does not sign.
    #[error("the image cannot be signed: {0}; check the key")]
    Sign(openssl::error::ErrorStack),
    /// The reader of an upload has gone. Its own error says more.
    #[error("the upload ended before the blob")]
    Cut,
    /// The registry.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The tree cannot be an image.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The tree cannot be an image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The manifest cannot be sealed.
    #[error(transparent)]
    Seal(#[from] EditError),
    /// What was made is no manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// What was made is no artifact that nodes show.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// A thread of this program has ended.
    #[error("a thread that reads files ended: {0}; this is a defect of composefs-csi, please report it")]
    Thread(String),
}

impl PushError {
    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NotADirectory { .. }
            | Self::Empty { .. }
            | Self::Special { .. }
            | Self::Marker { .. }
            | Self::Link { .. }
            | Self::Dangling { .. }
            | Self::NotText { .. }
            | Self::NoTag { .. }
            | Self::NoSignatures { .. }
            | Self::Sign(_)
            | Self::Layout { .. } => Kind::Invalid,
            Self::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => Kind::Denied,
            Self::Read { .. } | Self::Compress(_) | Self::Cut => Kind::Transient,
            Self::Changed { .. } | Self::Differs { .. } => Kind::Busy,
            Self::TooMany { .. } => Kind::Exhausted,
            Self::Source(error) => error.kind(),
            Self::Tree(error) => error.kind(),
            Self::Image(error) => error.kind(),
            Self::Seal(error) => error.kind(),
            Self::Manifest(error) => error.kind(),
            Self::Artifact(error) => error.kind(),
            Self::Thread(_) => Kind::Bug,
        }
    }
}
