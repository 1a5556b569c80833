//! Where the parts of a partial blob lie in its file. Pure.
//!
//! ```text
//! 0      magic and format, the blob's digest, its size, the size of a piece     (little endian)
//! 4096   for each piece, how many of its bytes are here: 8 bytes each
//! data   the blob, each byte at its place; from the next multiple of 4096
//! ```

use std::ops::Range;

use crate::oci::digest::Digest;

/// Names the format, whose number is the last byte.
const MAGIC: &[u8; 16] = b"composefs-part\0\x01";
/// Bytes of the head.
pub(super) const HEAD: usize = 64;
/// Where the table begins, and what the data's place is a multiple of.
const BLOCK: u64 = 4096;
/// A blob has no more pieces; those of a larger one are larger.
const PIECES_MAX: u64 = 1 << 16;

/// A blob and the pieces that it is fetched in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    size: u64,
    piece: u64,
}

impl Geometry {
    /// A blob of `size` bytes in pieces of `piece` bytes, or of as many as keep their number bounded.
    pub(crate) fn new(size: u64, piece: u64) -> Self {
        Self { size, piece: piece.max(1).max(size.div_ceil(PIECES_MAX)) }
    }

    /// Bytes of the blob.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The number of pieces.
    pub(crate) fn pieces(&self) -> usize {
        // At most PIECES_MAX.
        self.size.div_ceil(self.piece) as usize
    }

    /// Which bytes of the blob a piece is.
    pub(crate) fn bytes_of(&self, piece: usize) -> Range<u64> {
        let start = (piece as u64).saturating_mul(self.piece).min(self.size);
        start..start.saturating_add(self.piece).min(self.size)
    }

    /// Bytes of a piece.
    pub(crate) fn length_of(&self, piece: usize) -> u64 {
        let bytes = self.bytes_of(piece);
        bytes.end - bytes.start
    }

    /// Where in the file the number of a piece's bytes stands.
    pub(super) fn slot_of(&self, piece: usize) -> u64 {
        BLOCK + piece as u64 * 8
    }

    /// Where in the file the blob begins.
    pub(super) fn data(&self) -> u64 {
        self.slot_of(self.pieces()).next_multiple_of(BLOCK)
    }

    /// The head of the file for `blob`.
    pub(super) fn head(&self, blob: &Digest) -> [u8; HEAD] {
        let mut head = [0; HEAD];
        let parts = [&MAGIC[..], blob.as_bytes(), &self.size.to_le_bytes(), &self.piece.to_le_bytes()];
        let bytes = parts.concat();
        // 64 bytes by their types.
        for (to, from) in head.iter_mut().zip(bytes) {
            *to = from;
        }
        head
    }

    /// What a head says, if it is that of a file for `blob` with `size` bytes. Pieces may have had another size then.
    pub(super) fn of_head(head: &[u8; HEAD], blob: &Digest, size: u64) -> Option<Self> {
        let piece = u64::from_le_bytes(head[56..].try_into().ok()?);
        let stated = Self { size, piece };
        let plausible = piece > 0 && size.div_ceil(piece) <= PIECES_MAX;
        (plausible && stated.head(blob) == *head).then_some(stated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_a_blob_without_gap_or_overlap() {
        for (size, piece) in [(1, 1), (10, 3), (9, 3), (8 << 20, 8 << 20), (u64::MAX, 1 << 20), (1 << 40, 1)]
        {
            let geometry = Geometry::new(size, piece);
            let count = geometry.pieces();
            assert!(count as u64 <= PIECES_MAX, "{size} {piece}");
            let mut at = 0;
            for piece in 0..count {
                let bytes = geometry.bytes_of(piece);
                assert!(bytes.start == at && bytes.end > at, "{size} {piece}");
                assert_eq!(geometry.length_of(piece), bytes.end - bytes.start);
                at = bytes.end;
            }
            assert_eq!(at, size);
            assert_eq!(geometry.length_of(count), 0);
        }
        assert_eq!(Geometry::new(0, 5).pieces(), 0);
    }

    #[test]
    fn a_head_is_that_of_one_blob() {
        let (a, b, geometry) = (Digest::of(b"a"), Digest::of(b"b"), Geometry::new(100, 7));
        let head = geometry.head(&a);
        assert_eq!(Geometry::of_head(&head, &a, 100), Some(geometry));
        assert_eq!(Geometry::of_head(&head, &b, 100), None);
        assert_eq!(Geometry::of_head(&head, &a, 101), None);
        for byte in 0..HEAD - 8 {
            let mut other = head;
            other[byte] ^= 1;
            assert_eq!(Geometry::of_head(&other, &a, 100), None, "{byte}");
        }
        let mut none = head;
        none[56..].fill(0);
        assert_eq!(Geometry::of_head(&none, &a, 100), None, "pieces of no bytes");
        assert!(geometry.data() >= geometry.slot_of(geometry.pieces() - 1) + 8);
    }
}
