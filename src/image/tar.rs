//! Tar streams in every dialect that image builders write: v7, ustar, PAX, GNU and star.
//!
//! [`Archive`] reads a stream once, front to back, and gives [`TarEntry`] after [`TarEntry`] with
//! their content as borrowed pieces. Nothing is ever extracted, and memory is bounded by
//! [`Limits`], whatever the stream claims.
//!
//! Where readers of tar differ, this one does as Go's `archive/tar` and containerd do, because
//! that is what built and tested the images; where that would lose or invent content, it refuses:
//! * Links, devices, directories and pipes have no content, whatever their size field says.
//! * A regular entry whose name ends in a slash is a directory.
//! * One or two blocks of zeros, or a clean end at a header, end the archive. What follows is left
//!   in the stream for the caller to drain.
//! * Absolute names, in names and in hardlink targets, begin at the root of the tree (kaniko and ko write
//!   them), and `..` is refused. Symlink targets are content and kept verbatim.
//! * Extended attributes outside `user.`, `security.` and `system.posix_acl_`, and those of
//!   overlayfs, are dropped: no Linux tool could set the former, and the latter are not data.
//! * `.wh.NAME` and `.wh..wh..opq` are whiteouts whatever their type; other names that begin with
//!   `.wh..wh.` are bookkeeping of aufs and skipped.

mod archive;
mod error;
mod header;
mod interpret;
mod limits;
mod number;
mod path;
mod pax;
mod sparse;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use archive::{Archive, Piece};
pub use error::{Subject, TarError};
pub use interpret::{TarEntry, TarKind};
pub use limits::Limits;

/// Size of a header and unit of padding, in bytes.
const BLOCK: usize = 512;
