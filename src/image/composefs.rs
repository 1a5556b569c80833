//! The composefs image of a tree; the only user of the `composefs` crate, which reads images.
//!
//! An image is an EROFS filesystem of format V1. It holds the metadata and the files of up to 64 bytes. Every
//! other file names its object by fs-verity digest, in the attributes that overlayfs reads. The same tree
//! gives the same bytes on every machine, and the same bytes as the composefs project's own tools
//! ([ADR 0058](../../docs/adr/0058-an-image-writer-of-our-own.md)).

mod erofs;
mod error;
mod header;
mod read;
#[cfg(test)]
mod tests;
mod thread;

use std::convert::Infallible;
use std::fmt;
use std::io::Write;

use composefs::erofs::reader::collect_objects;
use composefs::fsverity::Sha256HashValue;

pub use erofs::Image;
pub use error::ImageError;
pub use header::{HEADER, HeaderFault, check_header};
pub use read::each_entry;
use thread::in_own_thread;

use crate::image::tree::{self, CheckedTree};
use crate::image::verity::VerityDigest;

/// An image in memory, and figures of its tree.
#[derive(Clone, PartialEq, Eq)]
pub struct ImageBytes {
    /// The EROFS filesystem, a multiple of 4096 bytes.
    pub bytes: Box<[u8]>,
    /// Inodes of the tree, the root included.
    pub inodes: u64,
    /// Bytes of all regular files, hard links counted once.
    pub file_bytes: u64,
}

impl ImageBytes {
    /// The image's fs-verity digest: its identity, and its name in the object store.
    pub fn digest(&self) -> VerityDigest {
        VerityDigest::of(&self.bytes)
    }
}

impl fmt::Debug for ImageBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("ImageBytes");
        shown.field("bytes", &self.bytes.len()).field("inodes", &self.inodes);
        shown.field("file_bytes", &self.file_bytes).finish()
    }
}

/// The image of a tree in memory, for what is small. [`Image`] makes the bytes of a large one as they are written.
///
/// # Errors
/// The tree holds something that the format cannot express.
pub fn write_image(tree: CheckedTree) -> Result<ImageBytes, ImageError> {
    let image = Image::of(tree)?;
    let mut bytes = Vec::with_capacity(usize::try_from(image.size()).unwrap_or_default());
    let Ok(()) = image.each_piece(|piece| {
        bytes.extend_from_slice(piece);
        Ok::<_, Infallible>(())
    });
    Ok(ImageBytes { bytes: bytes.into(), inodes: image.inodes(), file_bytes: image.file_bytes() })
}

/// Writes the text form of a tree (composefs-dump(5)), in order of paths.
///
/// # Errors
/// `out` fails.
pub fn dump(tree: &CheckedTree, out: &mut impl Write) -> Result<(), ImageError> {
    tree::write_dump(tree, out).map_err(|source| ImageError::Write { source })
}

/// Writes `{"files": [...]}`, one object for each name, in order of paths.
///
/// # Errors
/// `out` fails.
pub fn dump_json(tree: &CheckedTree, out: &mut impl Write) -> Result<(), ImageError> {
    tree::write_json(tree, out).map_err(|source| ImageError::Write { source })
}

/// The objects that an image names, sorted, each once.
///
/// # Errors
/// The bytes are not a composefs image.
pub fn list_objects(image: &[u8]) -> Result<Vec<VerityDigest>, ImageError> {
    in_own_thread(|| {
        let found = collect_objects::<Sha256HashValue>(image)
            .map_err(|error| ImageError::Corrupt { reason: error.to_string() })?;
        // The crate's set has no stable order.
        let mut objects: Vec<VerityDigest> = found.iter().map(read::digest).collect();
        objects.sort_unstable();
        Ok(objects)
    })
}
