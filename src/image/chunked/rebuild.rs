//! The tar stream of a layer, from its tar-split, the store and the wire.

use std::fs::File;
use std::io::{self, Cursor, Read, Take};
use std::ops::Range;

use super::doubt::Doubt;
use super::local::{self, Local};
use super::plan::{Piece, Plan};
use super::tar_split::{Segment, TarSplit};
use super::toc::Toc;
use super::wire::{Span, Wire};
use crate::image::objects::Objects;
use crate::oci::digest::Hasher;

/// Largest window that a frame may ask for, as a power of two: 32 MiB, as in whole layers.
const WINDOW_LOG_MAX: u32 = 25;

/// Yields the tar stream. An error of its own is an [`io::Error`] around a [`Doubt`].
///
/// Content that is fetched is compared with its sha256; what is here was, before the plan was made. The DiffID proves the
/// whole.
pub struct Rebuild<'a, S: Read> {
    toc: &'a Toc,
    plan: &'a Plan,
    split: TarSplit<S>,
    objects: &'a Objects,
    /// `None` while a piece is being read from it.
    wire: Option<Wire>,
    now: Now,
    /// The pieces of the current file that are left.
    left: Range<usize>,
    /// Files that were begun.
    begun: usize,
    /// Of the current file, if some of it is fetched.
    hasher: Option<Hasher>,
}

/// What is being read.
enum Now {
    Nothing,
    Raw(Cursor<Vec<u8>>),
    Zeros(u64),
    Inline(Cursor<Box<[u8]>>),
    Object(Take<File>),
    /// The frames, and the bytes that they are still to give.
    Fetched(Box<zstd::Decoder<'static, Span>>, u64),
}

impl<S: Read> std::fmt::Debug for Rebuild<'_, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rebuild({} of {} files)", self.begun, self.toc.files.len())
    }
}

impl<'a, S: Read> Rebuild<'a, S> {
    /// A stream by this plan. `split` has been compared with the TOC.
    pub fn new(toc: &'a Toc, plan: &'a Plan, split: TarSplit<S>, objects: &'a Objects, wire: Wire) -> Self {
        let wire = Some(wire);
        Self { toc, plan, split, objects, wire, now: Now::Nothing, left: 0..0, begun: 0, hasher: None }
    }

    /// Goes on to what comes next; false at the end of the archive.
    fn advance(&mut self) -> Result<bool, io::Error> {
        self.end_piece()?;
        if let Some(number) = self.left.next() {
            self.begin_piece(number)?;
            return Ok(true);
        }
        self.end_file().map_err(doubtful)?;
        match self.split.next_segment().map_err(doubtful)? {
            None => Ok(false),
            Some(Segment::Raw(bytes)) => {
                self.now = Now::Raw(Cursor::new(bytes));
                Ok(true)
            }
            Some(Segment::File { .. }) => {
                let file = self.begun;
                self.begun += 1;
                self.left = self.plan.files.get(file).cloned().unwrap_or(0..0);
                self.hasher = self.plan.is_fetched(file).then(Hasher::default);
                Ok(true)
            }
        }
    }

    fn begin_piece(&mut self, number: usize) -> Result<(), io::Error> {
        let Some((piece, length)) = self.plan.pieces.get(number) else { return Ok(()) };
        self.now = match piece {
            Piece::Zeros => Now::Zeros(*length),
            Piece::Local(Local::Inline(bytes)) => Now::Inline(Cursor::new(bytes.clone())),
            Piece::Local(Local::Object(object, offset)) => {
                let opened = local::open(object, *offset, self.objects);
                Now::Object(opened.map_err(|_| doubtful(self.wrong()))?.take(*length))
            }
            Piece::Fetched(frames) => {
                let wire = self.wire.take().ok_or(io::ErrorKind::UnexpectedEof)?;
                let mut decoder = zstd::Decoder::with_buffer(wire.span(frames.clone()))?;
                decoder.window_log_max(WINDOW_LOG_MAX)?;
                Now::Fetched(Box::new(decoder), *length)
            }
        };
        Ok(())
    }

    /// What was read of a piece must be all of it.
    fn end_piece(&mut self) -> Result<(), io::Error> {
        let complete = match std::mem::replace(&mut self.now, Now::Nothing) {
            Now::Object(rest) => rest.limit() == 0,
            Now::Fetched(decoder, left) => {
                self.wire = Some(decoder.finish().into_wire());
                left == 0
            }
            Now::Zeros(left) => left == 0,
            Now::Nothing | Now::Raw(_) | Now::Inline(_) => true,
        };
        if complete { Ok(()) } else { Err(doubtful(self.wrong())) }
    }

    fn end_file(&mut self) -> Result<(), Doubt> {
        let Some(hasher) = self.hasher.take() else { return Ok(()) };
        match self.toc.files.get(self.begun.wrapping_sub(1)) {
            Some(file) if hasher.finish() == file.digest => Ok(()),
            _ => Err(self.wrong()),
        }
    }

    fn wrong(&self) -> Doubt {
        let file = self.toc.files.get(self.begun.wrapping_sub(1));
        Doubt::Content(file.map_or_else(String::new, |file| file.name.to_string()))
    }

    /// Reads of the current piece; 0 at its end.
    fn read_piece(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match &mut self.now {
            Now::Nothing => Ok(0),
            Now::Raw(bytes) => bytes.read(into),
            Now::Inline(bytes) => bytes.read(into),
            Now::Object(rest) => rest.read(into).map_err(|_| doubtful(self.wrong())),
            Now::Zeros(left) => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(into.len());
                into[..count].fill(0);
                *left -= count as u64;
                Ok(count)
            }
            Now::Fetched(decoder, left) => match decoder.read(into) {
                Ok(count) => match left.checked_sub(count as u64) {
                    Some(rest) => {
                        *left = rest;
                        Ok(count)
                    }
                    None => Err(doubtful(self.wrong())),
                },
                // The fetching has ended, and its error says why.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(error),
                Err(_) => Err(doubtful(self.wrong())),
            },
        }
    }
}

impl<S: Read> Read for Rebuild<'_, S> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        loop {
            let count = self.read_piece(into)?;
            if count > 0 {
                if let Some(hasher) = &mut self.hasher {
                    hasher.update(&into[..count]);
                }
                return Ok(count);
            }
            if !self.advance()? {
                return Ok(0);
            }
        }
    }
}

fn doubtful(doubt: Doubt) -> io::Error {
    io::Error::other(doubt)
}

#[cfg(test)]
mod tests;
