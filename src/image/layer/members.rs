//! Compressed streams made of several: gzip members (RFC 1952, 2.2) and zstd frames (RFC 8878, 3), one after the other.
//!
//! NULs behind the last one are padding: tar programs write their output in blocks, and gzip(1) ignores them. Anything
//! else there is damage, as for Go's readers.

use std::io::{self, BufRead, Read};

use flate2::Crc;
use flate2::bufread::DeflateDecoder;
use zstd::stream::raw::{self, DParameter, Operation as _};

/// Decodes gzip members.
pub(super) struct GzipMembers<R> {
    inflate: DeflateDecoder<R>,
    /// Checksum and length of what the member has given.
    crc: Crc,
    /// Whether the source is at a member's beginning.
    between: bool,
}

/// Flags of a member's header (RFC 1952, 2.3.1).
const FHCRC: u8 = 1 << 1;
const FEXTRA: u8 = 1 << 2;
const FNAME: u8 = 1 << 3;
const FCOMMENT: u8 = 1 << 4;
const RESERVED: u8 = 0b1110_0000;

impl<R: BufRead> GzipMembers<R> {
    pub(super) fn new(source: R) -> Self {
        Self { inflate: DeflateDecoder::new(source), crc: Crc::new(), between: true }
    }

    pub(super) fn source(&mut self) -> &mut R {
        self.inflate.get_mut()
    }

    /// Reads a member's header. Nothing in it is needed, and its fields of any length are not kept.
    fn header(&mut self) -> io::Result<()> {
        let source = self.inflate.get_mut();
        let [0x1f, 0x8b, 8, flags, ..] = array::<10>(source)? else { return Err(invalid("no gzip header")) };
        if flags & RESERVED != 0 {
            return Err(invalid("a gzip header with unknown flags"));
        }
        if flags & FEXTRA != 0 {
            let length = u64::from(u16::from_le_bytes(array(source)?));
            if io::copy(&mut source.take(length), &mut io::sink())? < length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        for text in [FNAME, FCOMMENT] {
            if flags & text != 0 {
                while array(source)? != [0] {}
            }
        }
        if flags & FHCRC != 0 {
            array::<2>(source)?;
        }
        Ok(())
    }

    /// Reads what a member ends with, and compares it with what the member has given.
    fn trailer(&mut self) -> io::Result<()> {
        let stated = [array(self.inflate.get_mut())?, array(self.inflate.get_mut())?].map(u32::from_le_bytes);
        if stated != [self.crc.sum(), self.crc.amount()] {
            return Err(invalid("the checksum of a gzip member is wrong"));
        }
        Ok(())
    }
}

impl<R: BufRead> Read for GzipMembers<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        loop {
            if self.between {
                if !follows(self.source())? {
                    return Ok(0);
                }
                self.header()?;
                self.inflate.reset_data();
                self.crc.reset();
                self.between = false;
            }
            let count = self.inflate.read(into)?;
            if count > 0 {
                self.crc.update(&into[..count]);
                return Ok(count);
            }
            self.trailer()?;
            self.between = true;
        }
    }
}

fn array<const N: usize>(source: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    source.read_exact(&mut bytes).map(|()| bytes)
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Decodes zstd frames.
pub(super) struct ZstdFrames<R> {
    source: R,
    decoder: raw::Decoder<'static>,
    /// Whether the source is at a frame's beginning.
    between: bool,
}

impl<R: BufRead> ZstdFrames<R> {
    /// Frames may have a window of two to the power of `window_log` bytes.
    pub(super) fn new(source: R, window_log: u32) -> io::Result<Self> {
        let mut decoder = raw::Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(window_log))?;
        Ok(Self { source, decoder, between: true })
    }

    pub(super) fn source(&mut self) -> &mut R {
        &mut self.source
    }
}

impl<R: BufRead> Read for ZstdFrames<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        loop {
            if self.between {
                if !follows(&mut self.source)? {
                    return Ok(0);
                }
                self.decoder.reinit()?;
            }
            let bytes = self.source.fill_buf()?;
            let is_end = bytes.is_empty();
            let status = self.decoder.run_on_buffers(bytes, into)?;
            self.source.consume(status.bytes_read);
            // The frame has ended, and all of it is out.
            self.between = status.remaining == 0;
            if status.bytes_written > 0 {
                return Ok(status.bytes_written);
            }
            if is_end && !self.between {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "incomplete frame"));
            }
        }
    }
}

/// Whether a member or frame follows, and not the end, nor padding up to the end, which is read.
fn follows(source: &mut impl BufRead) -> io::Result<bool> {
    let mut is_padded = false;
    loop {
        let bytes = source.fill_buf()?;
        match bytes.iter().position(|byte| *byte != 0) {
            None if bytes.is_empty() => return Ok(false),
            Some(0) if !is_padded => return Ok(true),
            Some(_) => {
                return Err(invalid("something follows the zeros behind it"));
            }
            None => {
                let count = bytes.len();
                source.consume(count);
                is_padded = true;
            }
        }
    }
}
