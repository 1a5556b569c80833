//! Why an artifact cannot be used to start an image lazily.

use std::io;

use crate::image::composefs::ImageError;
use crate::image::tree::TreeError;
use crate::image::verity::VerityDigest;
use crate::kind::Kind;

/// What is wrong with an artifact.
#[derive(Debug, thiserror::Error)]
pub enum LazyError {
    /// A part of it is not what it should be.
    #[error("its {part} {why}; publish the artifact anew with `composefs-csi seal --lazy`")]
    Malformed {
        /// Which part.
        part: &'static str,
        /// What is wrong, a predicate.
        why: String,
    },
    /// A part of it is more than is taken.
    #[error(
        "its {part} is larger than the {limit} bytes that are taken; make the image smaller, or pull it whole"
    )]
    TooLarge {
        /// Which part.
        part: &'static str,
        /// The limit in bytes.
        limit: u64,
    },
    /// It holds another image than the one whose digest counts.
    #[error(
        "its {part} is of composefs image {found}, and what counts is {expected}; it was published for another image, or \
         forged: publish it anew with `composefs-csi seal --lazy`"
    )]
    OtherImage {
        /// Which part.
        part: &'static str,
        /// Its digest, or the one that it names.
        found: VerityDigest,
        /// The digest that counts.
        expected: VerityDigest,
    },
    /// Nothing says that its image is the right one.
    #[error(
        "nothing vouches for its composefs image: the image's manifest is not sealed, and {why}; seal the image and sign \
         it again, or sign the artifact as the policy wants images to be signed"
    )]
    NotCovered {
        /// What became of signatures of the artifact.
        why: String,
    },
    /// The image is no composefs image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The image is more than this node takes.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The compressor failed.
    #[error("it cannot be compressed: {0}; free memory and try again")]
    Compress(io::Error),
}

impl LazyError {
    /// A part that is not what it should be; `why` is a predicate.
    pub(super) fn malformed(part: &'static str, why: impl Into<String>) -> Self {
        Self::Malformed { part, why: why.into() }
    }

    /// Whether the artifact is refused for what it claims to be, and not for how it is made.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::OtherImage { .. } | Self::NotCovered { .. })
    }

    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Malformed { .. } => Kind::Invalid,
            Self::TooLarge { .. } => Kind::Exhausted,
            Self::OtherImage { .. } => Kind::Corrupt,
            Self::NotCovered { .. } => Kind::Denied,
            Self::Image(error) => error.kind(),
            Self::Tree(error) => error.kind(),
            Self::Compress(_) => Kind::Transient,
        }
    }
}
