//! What is taken from the store and what is fetched, for each file of a layer: pure.

use std::ops::Range;

use super::local::{Found, Local};
use super::runs::{self, Run};
use super::toc::{Toc, TocFile};

/// How a layer is fetched in parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanRules {
    /// Bytes between two ranges that are fetched along rather than asked for apart.
    pub gap: u64,
    /// Ranges of a layer; where there would be more, they are joined over the smallest gaps.
    pub requests: usize,
}

impl Default for PlanRules {
    /// The gap has a frame with the headers of a few files in it. Each request costs a few hundred bytes besides.
    fn default() -> Self {
        Self { gap: 1 << 10, requests: 2000 }
    }
}

/// A piece of a file's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// Nothing but zeros.
    Zeros,
    /// It is here.
    Local(Local),
    /// These frames of the blob decompress to it.
    Fetched(Range<u64>),
}

/// How the files of a layer are put together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The pieces of all files with their lengths, in the order of the tar.
    pub(super) pieces: Vec<(Piece, u64)>,
    /// Which of them are whose; one range for each file of the TOC.
    pub(super) files: Vec<Range<usize>>,
    /// What is fetched, in its order.
    pub runs: Vec<Run>,
    /// Bytes of content that need not be fetched.
    pub reused: u64,
}

impl Plan {
    /// Plans a layer by what of it is here.
    pub fn of(toc: &Toc, found: &Found, rules: PlanRules) -> Self {
        let mut plan = Self { pieces: Vec::new(), files: Vec::new(), runs: Vec::new(), reused: 0 };
        for file in &toc.files {
            let first = plan.pieces.len();
            plan.add(toc, file, found);
            plan.files.push(first..plan.pieces.len());
        }
        let fetched = plan.pieces.iter().filter_map(|(piece, _)| match piece {
            Piece::Fetched(frames) => Some(frames.clone()),
            _ => None,
        });
        plan.runs = runs::join(fetched, rules.gap, rules.requests);
        plan.reused =
            plan.pieces.iter().map(|(piece, bytes)| if piece.is_fetched() { 0 } else { *bytes }).sum();
        plan
    }

    /// Compressed bytes that are fetched.
    pub fn bytes(&self) -> u64 {
        runs::bytes(&self.runs)
    }

    fn add(&mut self, toc: &Toc, file: &TocFile, found: &Found) {
        if let Some(local) = found.files.get(&file.digest) {
            return self.pieces.push((Piece::Local(local.clone()), file.size));
        }
        let chunks = toc.chunks(file);
        if chunks.is_empty() {
            return self.pieces.push((Piece::Fetched(file.frames.clone()), file.size));
        }
        let first = self.pieces.len();
        for chunk in chunks {
            let length = chunk.bytes.end - chunk.bytes.start;
            let piece = match &chunk.digest {
                None => Piece::Zeros,
                Some(digest) => match found.chunks.get(digest) {
                    Some(local) => Piece::Local(local.clone()),
                    None => Piece::Fetched(chunk.frames.clone()),
                },
            };
            match (self.pieces.get_mut(first..).and_then(<[_]>::last_mut), &piece) {
                // Frames that follow each other are one stream.
                (Some((Piece::Fetched(last), bytes)), Piece::Fetched(next)) if last.end == next.start => {
                    last.end = next.end;
                    *bytes += length;
                }
                _ => self.pieces.push((piece, length)),
            }
        }
    }

    /// Whether some of the file with this number is fetched, and its digest must be checked.
    pub(super) fn is_fetched(&self, file: usize) -> bool {
        let pieces = self.files.get(file).and_then(|range| self.pieces.get(range.clone()));
        pieces.is_some_and(|pieces| pieces.iter().any(|(piece, _)| piece.is_fetched()))
    }
}

impl Piece {
    fn is_fetched(&self) -> bool {
        matches!(self, Self::Fetched(_))
    }
}
