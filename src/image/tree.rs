//! Folding layers into one tree.
//!
//! [`Builder`] takes the entries of every layer, in order and one at a time. The result is a [`CheckedTree`],
//! the proof value that the image writer accepts. It guarantees:
//!
//! * Every name, symbolic link, device number and extended attribute fits the composefs format.
//! * No path leaves the root, whatever `..` and symbolic links the layers contain.
//! * The result depends on the layers' entries alone, not on the machine or the time.
//!
//! The semantics are those of the OCI image specification, layer.md ("Applying Changesets" and
//! "Whiteouts"). Where it is silent, they are those of containerd and podman on overlayfs: a layer is unpacked
//! by itself, and the result is laid over the lower layers (`docs/adr/0030-how-layers-are-read.md`):
//!
//! * Whiteouts and opaque markers of a layer hide what lower layers hold, never what their own layer
//!   holds, whatever their position in the tar. They make no directories.
//! * A directory over a directory replaces its metadata and keeps its children. Anything else replaces what
//!   was there, children included. The last of several entries for one path wins.
//! * Missing parents are created: 0755, root:root, mtime 0. Over a lower layer's directory they change nothing, over
//!   anything else of a lower layer they replace it.
//! * A path through a symbolic link of its own layer follows it inside the root, as the layer is at that point of the
//!   tar. The last component is not followed. Symbolic links of lower layers are replaced by a directory.
//! * A hard link names an inode, not a path: it stays when the other name goes. Its target is looked for in its layer,
//!   then in the lower ones as they were, symbolic links included. It may appear later in the same layer.
//!
//! This module must not read files, and must not know about images, stores or mounts.

mod arena;
mod builder;
mod checked;
mod choose;
mod combine;
mod dump;
mod error;
mod hide;
mod json;
mod link;
mod merge;
mod place;
mod powers;
mod reduce;
mod resolve;
mod rules;
mod stop;
mod walk;
mod xattrs;

#[cfg(test)]
mod tests;

pub use builder::{Builder, Layer};
pub use checked::CheckedTree;
pub use combine::Combiner;
pub use error::TreeError;
pub use powers::Powers;
pub use rules::{Reduction, Rules, XattrRule};
pub use stop::Stop;

pub(in crate::image) use arena::{Node, NodeId, NodeKind, Stat};
pub(in crate::image) use dump::write_dump;
pub(in crate::image) use json::write_json;
pub(in crate::image) use xattrs::Xattrs;
