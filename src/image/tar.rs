//! Tar streams in every dialect that image builders write: v7, ustar, PAX, GNU and star.
//!
//! [`Archive`] reads a stream once, front to back. It returns one [`TarEntry`] after the other, with the
//! content as borrowed pieces. Nothing is ever extracted. [`TarLimits`] bound the memory, whatever the
//! stream claims.
//!
//! Where readers of tar differ, this one does as Go's `archive/tar` and containerd do, because images were
//! built and tested with them. Where that would lose or invent content, it refuses:
//! * Links, devices, directories and pipes have no content, whatever their size field says.
//! * An entry of v7's only type whose name ends in a slash is a directory. Any other keeps its type.
//! * A directory with an empty name is the root, and so is an empty file whose name is `./` or `/`.
//! * The last extended header of its type counts. GNU's long name goes before PAX's path, the name of a sparse
//!   file before both. What a global header says counts for nothing.
//! * Owners and groups are the 32 bits that chown(2) gets; those of -1 are root's.
//! * One or two blocks of zeros, or a clean end at a header, end the archive. What follows stays in the
//!   stream for the caller to drain.
//! * Absolute names begin at the root of the tree, in names and in hardlink targets (kaniko and ko write
//!   them). `..` is refused. Symlink targets are content and kept verbatim.
//! * Extended attributes outside `user.`, `security.` and `system.posix_acl_` are dropped, because no Linux
//!   tool could set them. Those of overlayfs are dropped too, because they are not data.
//! * `.wh.NAME` and `.wh..wh..opq` are whiteouts whatever their type. Other names that begin with
//!   `.wh..wh.` are bookkeeping of aufs and skipped, but for the files that hard links may lead to
//!   ([`crate::image::entry::AUFS_LINKS`]).
//!
//! `docs/adr/0030-how-layers-are-read.md` has the reasons, and where GNU tar differs.

mod archive;
mod error;
mod extension;
mod header;
mod interpret;
mod limits;
mod number;
mod path;
mod pax;
mod sparse;
mod sparse_map;
mod stream;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use archive::{Archive, Piece};
pub use error::{TarError, TarSubject};
pub use interpret::{TarEntry, TarKind};
pub use limits::TarLimits;

pub(in crate::image) use header::is_header;
