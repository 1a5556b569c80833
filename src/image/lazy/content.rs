//! The content of one object, from the bytes of its range.

use std::io::{self, BufRead, Read};

use super::map::{Located, Packing, Place};

/// The largest window of a frame, as a power of two: memory of its decompressor.
const WINDOW_LOG_MAX: u32 = 25;

/// What the bytes of an object's range hold of it. It yields at most as many bytes as the object has, whatever comes; that
/// they are the object's, their digest must tell.
#[derive(Debug)]
pub struct Content<R: BufRead>(Source<R>);

enum Source<R: BufRead> {
    Raw(io::Take<R>),
    Zstd(io::Take<zstd::Decoder<'static, R>>),
}

impl<R: BufRead> std::fmt::Debug for Source<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Raw(_) => "Raw",
            Self::Zstd(_) => "Zstd",
        })
    }
}

impl Located {
    /// Reads the object from `range`, the bytes of [`Located::range`] in a layer of this packing. Skips what lies before it
    /// in shared frames.
    ///
    /// # Errors
    /// The decompressor fails, `range` does, or the object can be had as a stream only.
    pub fn content<R: BufRead>(&self, packing: Packing, range: R) -> io::Result<Content<R>> {
        let skipped = match &self.place {
            Place::Own(_) => 0,
            Place::Shared(_, offset) => *offset,
            Place::Stream => return Err(io::Error::other("the object has no range")),
        };
        match packing {
            Packing::Raw => Ok(Content(Source::Raw(range.take(self.size)))),
            Packing::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(range)?;
                decoder.window_log_max(WINDOW_LOG_MAX)?;
                // Bounded, as the map's records are.
                io::copy(&mut decoder.by_ref().take(skipped), &mut io::sink())?;
                Ok(Content(Source::Zstd(decoder.take(self.size))))
            }
            Packing::Stream => Err(io::Error::other("the layer has no ranges")),
        }
    }
}

impl<R: BufRead> Read for Content<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Source::Raw(source) => source.read(into),
            Source::Zstd(source) => source.read(into),
        }
    }
}
