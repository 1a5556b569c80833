//! Bounds on what a layer makes this node read and hold.

use crate::oci::limits::{self, Cap};

/// Bounds on one layer. A layer that exceeds one is refused with [`crate::kind::Kind::Exhausted`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TarLimits {
    /// Length of a path or link target in bytes. Linux takes at most 4095.
    pub path: usize,
    /// Names and values of one entry's extended attributes in bytes.
    pub xattrs: usize,
    /// One extended header (PAX record block, GNU long name) in bytes.
    pub header: usize,
    /// Segments of one sparse file.
    pub segments: usize,
    /// Headers of any type, extended ones included.
    pub headers: u64,
    /// Bytes of the decompressed stream. The bytes of files are counted separately against the same bound.
    pub bytes: u64,
    /// Which cap `bytes` comes from.
    pub bytes_cap: Cap,
    /// Bytes of files, with the holes of sparse ones.
    pub bytes_with_holes: u64,
}

impl TarLimits {
    /// The bounds for a blob of `size` compressed bytes within those of its image.
    pub(crate) fn for_blob(image: &limits::ImageLimits, size: u64) -> Self {
        let (bytes, bytes_cap) = image.unpacked(size);
        Self {
            path: image.path_bytes,
            xattrs: image.xattr_bytes,
            // Room for a path or the attributes, and their keys.
            header: (1 << 20).max(2 * image.xattr_bytes).max(2 * image.path_bytes),
            segments: 1 << 16,
            headers: image.entries,
            bytes,
            bytes_cap,
            bytes_with_holes: image.layer_bytes,
        }
    }
}

impl Default for TarLimits {
    /// The bounds for a blob of any size within an image's default ones.
    fn default() -> Self {
        Self::for_blob(&limits::ImageLimits::default(), u64::MAX)
    }
}
