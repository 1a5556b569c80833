//! The fetched parts of a blob, in their order.

use std::io::{self, BufRead, Read};
use std::ops::Range;

use bytes::Bytes;

/// Consecutive bytes of a blob.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Part {
    /// Where they are in it.
    pub start: u64,
    /// The bytes.
    pub bytes: Bytes,
}

impl Part {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

/// Parts as they arrive, by ascending places.
pub struct Wire {
    parts: Box<dyn Iterator<Item = Part> + Send>,
    part: Part,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Wire(at {})", self.part.start)
    }
}

impl Wire {
    /// Parts that end where the fetching ends, for whatever reason.
    pub fn new(parts: impl Iterator<Item = Part> + Send + 'static) -> Self {
        Self { parts: Box::new(parts), part: Part::default() }
    }

    /// Reads one range of the blob, which lies behind all that were read before.
    pub(super) fn span(self, range: Range<u64>) -> Span {
        Span { wire: self, at: range.start, end: range.end }
    }
}

/// A range of the blob that is being read. What lies before it is dropped.
pub(super) struct Span {
    wire: Wire,
    at: u64,
    end: u64,
}

impl Span {
    pub(super) fn into_wire(self) -> Wire {
        self.wire
    }
}

impl BufRead for Span {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.end {
            return Ok(&[]);
        }
        while self.wire.part.end() <= self.at {
            // Its sender has the error.
            self.wire.part = self.wire.parts.next().ok_or(io::ErrorKind::UnexpectedEof)?;
        }
        let part = &self.wire.part;
        if part.start > self.at {
            return Err(io::Error::other("a part that is needed was not fetched"));
        }
        let from = usize::try_from(self.at - part.start).unwrap_or(usize::MAX);
        let most = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let rest = part.bytes.get(from..).unwrap_or_default();
        Ok(&rest[..rest.len().min(most)])
    }

    fn consume(&mut self, count: usize) {
        self.at += count as u64;
    }
}

impl Read for Span {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(into.len());
        into[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_across_parts_and_gaps() {
        let part = |start, bytes: &'static [u8]| Part { start, bytes: Bytes::from_static(bytes) };
        let parts = [part(10, b"abc"), part(13, b"def"), part(100, b"x")];
        let mut wire = Wire::new(parts.into_iter());
        for (range, expected) in [(10..11, "a"), (12..14, "cd"), (14..14, ""), (15..16, "f"), (100..101, "x")]
        {
            let (mut span, mut read) = (wire.span(range), String::new());
            span.read_to_string(&mut read).unwrap();
            assert_eq!(read, expected);
            wire = span.into_wire();
        }
        let mut more = wire.span(101..102);
        assert_eq!(more.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_part_that_is_missing_is_an_error() {
        let parts = [Part { start: 10, bytes: Bytes::from_static(b"abc") }];
        let mut span = Wire::new(parts.into_iter()).span(5..12);
        assert!(span.read(&mut [0; 4]).is_err());
    }
}
