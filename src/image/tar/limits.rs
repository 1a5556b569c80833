//! What a layer may ask of this node.

/// Bounds on one layer. Reaching one refuses the layer with [`crate::kind::Kind::Exhausted`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
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
    /// Bytes of the decompressed stream, and (counted on their own) bytes of files with their
    /// holes filled.
    pub bytes: u64,
}

impl Limits {
    /// Compression beyond this is a bomb rather than a layer, above [`Self::FREE`].
    const RATIO: u64 = 200;
    /// What any layer may unpack to, however small the blob: small layers of zeros are real.
    const FREE: u64 = 1 << 30;

    /// The bounds for a blob of `size` compressed bytes: the stream may be 200 times as long, or
    /// 1 GiB if that is more.
    pub fn for_blob(size: u64) -> Self {
        Self { bytes: size.saturating_mul(Self::RATIO).max(Self::FREE), ..Self::default() }
    }
}

impl Default for Limits {
    /// The bounds for a layer of any size: everything bounded but the bytes, which are at 1 TiB.
    fn default() -> Self {
        Self {
            path: 4095,
            xattrs: 64 << 10,
            header: 1 << 20,
            segments: 1 << 16,
            headers: 8 << 20,
            bytes: 1 << 40,
        }
    }
}
