//! Folding layers into one tree.
//!
//! [`Builder`] takes the entries of every layer, in order and one at a time, and ends in a
//! [`CheckedTree`]: the proof value that the image writer accepts. What it guarantees:
//!
//! * Every name, symbolic link, device number and extended attribute fits the composefs format.
//! * No path leaves the root, whatever `..` and symbolic links the layers contain.
//! * The result depends on the layers' entries alone, not on the machine or the time.
//!
//! Semantics are those of the OCI image specification, layer.md ("Applying Changesets" and
//! "Whiteouts"), and of extractors where it is silent:
//!
//! * Whiteouts and opaque markers of a layer hide what lower layers hold, never what their own layer
//!   holds, wherever in the tar they stand.
//! * A directory over a directory replaces its metadata and keeps its children; anything else
//!   replaces what was there, children included. The last of several entries for one path wins.
//! * Missing parents are made: 0755, root:root, mtime 0.
//! * A path through a symbolic link follows it inside the root, as it stands at that point of the
//!   tar; the last component is not followed.
//! * A hard link names an inode, not a path: it outlives the other name. Its target may appear later
//!   in the same layer.
//!
//! It must not read files, and must not know about images, stores or mounts.

mod arena;
mod builder;
mod checked;
mod error;
mod hide;
mod link;
mod resolve;
mod rules;
mod xattrs;

#[cfg(test)]
mod tests;

pub use builder::{Builder, Layer};
pub use checked::CheckedTree;
pub use error::TreeError;
pub use rules::{Rules, XattrRule};

pub(crate) use arena::{NodeId, NodeKind, Stat};
