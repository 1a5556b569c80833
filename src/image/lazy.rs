//! Images that start before their content is here: what is published beside a manifest for that, as bytes and documents,
//! without I/O.
//!
//! An [`Artifact`] is a referrer of the image's manifest. It has the composefs image, an [`OffsetMap`] from each object to
//! its place in the image's layers, and, if somebody recorded it, a [`FirstList`] of what is read first. The composefs
//! image counts only if its digest is one that the policy accepts: that of the manifest's seal, or of an artifact that is
//! signed itself. Map and list are hints of whoever can push: they are held within bounds and against the image, and an
//! object that they lead to is compared with its digest before it is stored.
//!
//! `docs/lazy.md` says how artifacts are published and chosen, and `docs/adr/0055-lazy-artifact.md` why they are so.

mod artifact;
mod check;
mod content;
mod error;
mod first_list;
mod map;
mod map_writer;
mod packed;

pub use artifact::{ARTIFACT_TYPE, Artifact, PackedBlob};
pub use check::{CheckedImage, check};
pub use content::Content;
pub use error::LazyError;
pub use first_list::FirstList;
pub use map::{Located, MapLayer, OffsetMap, Packing, Place};
pub use packed::{pack, unpack};

#[cfg(test)]
mod tests;
