//! Which range is next. Pure.

use std::ops::Range;

use crate::image::store::Geometry;

/// The pieces of a blob: what is here of each, and which are being fetched.
#[derive(Debug)]
pub(super) struct Pieces {
    geometry: Geometry,
    /// Bytes that are here, by piece.
    have: Vec<u64>,
    taken: Vec<bool>,
    /// The first piece that is not whole.
    first: usize,
    /// Bytes that are here in all pieces.
    sum: u64,
}

impl Pieces {
    /// With so many bytes of each piece.
    pub(super) fn new(geometry: Geometry, have: Vec<u64>) -> Self {
        let (taken, sum) = (vec![false; have.len()], have.iter().sum());
        let mut pieces = Self { geometry, have, taken, first: 0, sum };
        pieces.skip_whole();
        pieces
    }

    /// Takes the first piece that is missing something, begins before `limit` and is not being fetched. Returns it with
    /// the bytes of the blob that are missing.
    pub(super) fn take(&mut self, limit: u64) -> Option<(usize, Range<u64>)> {
        let piece = self.next(limit)?;
        *self.taken.get_mut(piece)? = true;
        let bytes = self.geometry.bytes_of(piece);
        Some((piece, bytes.start + self.have(piece)..bytes.end))
    }

    /// Whether [`Pieces::take`] would return something.
    pub(super) fn has_next(&self, limit: u64) -> bool {
        self.next(limit).is_some()
    }

    fn next(&self, limit: u64) -> Option<usize> {
        let begins = |piece: &usize| self.geometry.bytes_of(*piece).start < limit;
        let is_free = |piece: &usize| {
            self.taken.get(*piece) == Some(&false) && self.have(*piece) < self.geometry.length_of(*piece)
        };
        (self.first..self.geometry.pieces()).take_while(begins).find(is_free)
    }

    /// Gives a piece back that was taken.
    pub(super) fn release(&mut self, piece: usize) {
        if let Some(taken) = self.taken.get_mut(piece) {
            *taken = false;
        }
    }

    /// Gives all of them back.
    pub(super) fn release_all(&mut self) {
        self.taken.fill(false);
    }

    /// Counts bytes that have come for a piece.
    pub(super) fn came(&mut self, piece: usize, bytes: u64) {
        if let Some(have) = self.have.get_mut(piece) {
            *have += bytes;
            self.sum += bytes;
        }
        self.skip_whole();
    }

    /// Bytes of the blob that are here without a gap from its first one.
    pub(super) fn reached(&self) -> u64 {
        self.geometry.bytes_of(self.first).start + self.have(self.first)
    }

    /// Bytes of the blob that are here.
    pub(super) fn sum(&self) -> u64 {
        self.sum
    }

    pub(super) fn is_whole(&self) -> bool {
        self.first == self.geometry.pieces()
    }

    fn have(&self, piece: usize) -> u64 {
        self.have.get(piece).copied().unwrap_or(0)
    }

    fn skip_whole(&mut self) {
        while self.first < self.geometry.pieces()
            && self.have(self.first) >= self.geometry.length_of(self.first)
        {
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_missing_bytes_are_taken_first() {
        let mut pieces = Pieces::new(Geometry::new(25, 10), vec![10, 3, 0]);
        assert_eq!((pieces.reached(), pieces.sum(), pieces.is_whole()), (13, 13, false));
        assert_eq!(pieces.take(u64::MAX), Some((1, 13..20)));
        assert_eq!(pieces.take(20), None, "the next begins at the limit");
        assert_eq!(pieces.take(21), Some((2, 20..25)));
        assert!(!pieces.has_next(u64::MAX));
        pieces.came(2, 5);
        assert_eq!((pieces.reached(), pieces.sum()), (13, 18));
        pieces.release(1);
        pieces.came(1, 2);
        assert_eq!(pieces.take(u64::MAX), Some((1, 15..20)));
        pieces.came(1, 5);
        assert_eq!((pieces.reached(), pieces.is_whole()), (25, true));
    }

    proptest! {
        /// Whatever order the bytes come in, each is asked for once and the blob becomes whole.
        #[test]
        fn all_is_taken_once(size in 1..500_u64, piece in 1..50_u64, seed in any::<u64>(), lead in 1..200_u64) {
            let geometry = Geometry::new(size, piece);
            let mut pieces = Pieces::new(geometry, vec![0; geometry.pieces()]);
            let (mut under_way, mut got, mut dice) = (Vec::new(), vec![0_u8; size as usize], seed);
            while !pieces.is_whole() {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let reached = pieces.reached();
                if (dice >> 33) % 3 == 0 || under_way.is_empty() {
                    match pieces.take(reached + lead) {
                        Some((piece, bytes)) => under_way.push((piece, bytes)),
                        None => prop_assert!(!under_way.is_empty(), "nothing to do and not whole"),
                    }
                } else {
                    let at = (dice >> 40) as usize % under_way.len();
                    let (piece, mut bytes) = under_way.swap_remove(at);
                    let count = ((dice >> 20) % 7).min(bytes.end - bytes.start);
                    got[bytes.start as usize..(bytes.start + count) as usize].iter_mut().for_each(|b| *b += 1);
                    pieces.came(piece, count);
                    bytes.start += count;
                    if bytes.is_empty() || (dice >> 50) % 4 == 0 {
                        pieces.release(piece);
                    } else {
                        under_way.push((piece, bytes));
                    }
                }
                prop_assert!(pieces.reached() >= reached);
            }
            prop_assert!(got.iter().all(|count| *count == 1));
            prop_assert_eq!((pieces.sum(), pieces.reached()), (size, size));
        }
    }
}
