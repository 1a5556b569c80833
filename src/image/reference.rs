//! Image references as users write them.

use crate::image::digest::Digest;

/// Which version of an image: a tag that may move, or a digest that cannot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Version {
    /// A tag (or, in an OCI layout, an `org.opencontainers.image.ref.name`).
    Tag(String),
    /// A manifest or index digest.
    Digest(Digest),
}
