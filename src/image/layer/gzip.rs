//! gzip (RFC 1952): the members of a blob as one stream.
//!
//! Neither checksum nor length of a member is looked at: the blob's digest covers every byte that goes in, and a layer's
//! DiffID every byte that comes out. The checksum would be a tenth of the work.

use std::io::{self, BufRead, Read};

use super::inflate::{Inflater, Paused};

/// Flags of a member's header (section 2.3.1).
const HEADER_SUM: u8 = 1 << 1;
const EXTRA: u8 = 1 << 2;
const NAME: u8 = 1 << 3;
const COMMENT: u8 = 1 << 4;
const RESERVED: u8 = 0b1110_0000;

/// Bytes behind a member: checksum and length.
const TRAILER: usize = 8;

/// Decompresses a blob.
pub(super) struct GzipReader<R> {
    source: R,
    inflater: Inflater,
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    Member,
    /// Behind a member, where another may follow.
    Behind,
    End,
}

impl<R: BufRead> GzipReader<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, inflater: Inflater::new(), place: Place::Start }
    }

    pub(super) fn source(&mut self) -> &mut R {
        &mut self.source
    }

    /// Goes on until there is output, or the blob ends.
    fn advance(&mut self) -> io::Result<()> {
        while self.inflater.output().is_empty() && self.place != Place::End {
            match self.place {
                Place::Member => self.decode()?,
                _ => self.next_member()?,
            }
        }
        Ok(())
    }

    fn decode(&mut self) -> io::Result<()> {
        let input = self.source.fill_buf()?;
        let is_all = input.is_empty();
        let (used, paused) = self.inflater.decode(input).map_err(invalid)?;
        self.source.consume(used);
        match paused {
            Paused::Ended => self.place = Place::Behind,
            Paused::NeedsInput if is_all => return Err(io::ErrorKind::UnexpectedEof.into()),
            Paused::NeedsInput | Paused::Full => {}
        }
        Ok(())
    }

    /// Reads over a trailer, and a header if another member follows.
    fn next_member(&mut self) -> io::Result<()> {
        if self.place == Place::Behind {
            self.skip(TRAILER)?;
            self.place = Place::End;
            match self.byte()? {
                None => return Ok(()),
                // NULs behind the last one are padding: tar programs write their output in blocks, and gzip(1) ignores them.
                Some(0) => return self.padding(),
                Some(0x1f) => {}
                Some(_) => return Err(invalid("no gzip header")),
            }
        } else if self.expect()? != 0x1f {
            return Err(invalid("no gzip header"));
        }
        self.header()?;
        self.inflater.restart();
        self.place = Place::Member;
        Ok(())
    }

    fn padding(&mut self) -> io::Result<()> {
        loop {
            match self.byte()? {
                None => return Ok(()),
                Some(0) => {}
                // As Go's readers: damage, even if it is another member.
                Some(_) => return Err(invalid("something follows the zeros behind it")),
            }
        }
    }

    /// The rest of a header, behind its first byte.
    fn header(&mut self) -> io::Result<()> {
        let [magic, method, flags] = [self.expect()?, self.expect()?, self.expect()?];
        if magic != 0x8b || method != 8 {
            return Err(invalid("no gzip header"));
        }
        if flags & RESERVED != 0 {
            return Err(invalid("a gzip header with unknown flags"));
        }
        // Time, level and operating system.
        self.skip(6)?;
        if flags & EXTRA != 0 {
            let length = u16::from_le_bytes([self.expect()?, self.expect()?]);
            self.skip(length.into())?;
        }
        for text in [NAME, COMMENT] {
            if flags & text != 0 {
                while self.expect()? != 0 {}
            }
        }
        if flags & HEADER_SUM != 0 { self.skip(2) } else { Ok(()) }
    }

    fn skip(&mut self, count: usize) -> io::Result<()> {
        (0..count).try_for_each(|_| self.expect().map(drop))
    }

    fn expect(&mut self) -> io::Result<u8> {
        self.byte()?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn byte(&mut self) -> io::Result<Option<u8>> {
        if let Some(byte) = self.inflater.left_over() {
            return Ok(Some(byte));
        }
        let byte = self.source.fill_buf()?.first().copied();
        if byte.is_some() {
            self.source.consume(1);
        }
        Ok(byte)
    }
}

impl<R: BufRead> Read for GzipReader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.advance()?;
        let output = self.inflater.output();
        let count = output.len().min(into.len());
        into[..count].copy_from_slice(&output[..count]);
        self.inflater.take(count);
        Ok(count)
    }
}

fn invalid(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
