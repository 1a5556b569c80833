//! The writer of images: EROFS in the form of composefs, format V1.
//!
//! It lays a tree out and makes the bytes from that, in order, as often as they are wanted. Beside the tree it holds some
//! twelve bytes for each inode, and no image. The same tree gives the same bytes as `mkcomposefs --min-version=1`
//! (`lcfs-writer-erofs.c` of composefs) and the composefs crate; the tests compare them.
//!
//! It must not read or write files, and must not depend on anything but the tree.

mod attribute;
mod emit;
mod entries;
mod format;
mod layout;
mod number;
mod objects;
mod out;
mod sets;
mod share;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::fmt;

use emit::Emitter;
use format::BLOCK;
use layout::Layout;

use super::ImageError;
use crate::image::tree::CheckedTree;
use crate::image::verity::{VerityDigest, VerityHasher};

/// The image of a tree. It holds the tree, and no bytes: they are made when they are wanted.
pub struct Image {
    tree: CheckedTree,
    layout: Layout,
    digest: VerityDigest,
}

impl Image {
    /// Lays out the image of a tree, and hashes it.
    ///
    /// # Errors
    /// [`ImageError::Unsupported`] if the tree holds something that the format cannot express.
    pub fn of(tree: CheckedTree) -> Result<Self, ImageError> {
        let layout = Layout::of(&tree)?;
        let mut hasher = VerityHasher::default();
        let Ok(()) = Emitter::new(&tree, &layout, |bytes: &[u8]| {
            hasher.update(bytes);
            Ok::<_, Infallible>(())
        })
        .run();
        Ok(Self { tree, layout, digest: hasher.finish() })
    }

    /// The image's fs-verity digest: its identity, and its name in the object store.
    pub fn digest(&self) -> VerityDigest {
        self.digest
    }

    /// Bytes of the image, a multiple of 4096.
    pub fn size(&self) -> u64 {
        u64::from(self.layout.blocks) * BLOCK
    }

    /// Inodes of the tree, the root included.
    pub fn inodes(&self) -> u64 {
        self.tree.inodes()
    }

    /// Bytes of all regular files, hard links counted once.
    pub fn file_bytes(&self) -> u64 {
        self.tree.file_bytes()
    }

    /// Hands on the bytes of the image from its beginning to its end, in pieces of at most 64 KiB.
    ///
    /// # Errors
    /// The first of `take`, which ends it.
    pub fn each_piece<E>(&self, take: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        Emitter::new(&self.tree, &self.layout, take).run()
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Image");
        shown
            .field("digest", &self.digest)
            .field("size", &self.size())
            .field("inodes", &self.inodes())
            .finish()
    }
}

fn unsupported(what: &str) -> ImageError {
    ImageError::Unsupported { reason: what.to_owned() }
}
