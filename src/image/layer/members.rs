//! Streams of several zstd frames (RFC 8878, 3), one after the other; gzip has a file of its own.
//!
//! NULs behind the last one are padding: tar programs write their output in blocks, and gzip(1) ignores them. Anything
//! else there is damage, as for Go's readers.

use std::io::{self, BufRead, Read};

use zstd::stream::raw::{self, DParameter, Operation as _};

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

/// Whether a frame follows, and not the end, nor padding up to the end, which is read.
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
