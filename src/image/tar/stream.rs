//! The bytes of an archive: read in blocks, lent in pieces, skipped. Errors of the stream name what is being
//! read.

use std::io::BufRead;

use super::error::{TarError, TarSubject};
use super::header::BLOCK;
use super::number::PaxError;
use crate::oci::limits::Exceeded;

/// The source of an archive and the position in it.
pub(super) struct Stream<R> {
    source: R,
    /// Bytes consumed or lent.
    offset: u64,
    /// What is being read: errors name it.
    subject: TarSubject,
    /// Bytes of the last piece. They are consumed before the next read, so that the piece can be borrowed
    /// from the source's buffer until then.
    lent: usize,
}

impl<R> Stream<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, offset: 0, subject: TarSubject::Header(0), lent: 0 }
    }

    pub(super) fn into_source(self) -> R {
        self.source
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn subject(&self) -> &TarSubject {
        &self.subject
    }

    pub(super) fn set_subject(&mut self, subject: TarSubject) {
        self.subject = subject;
    }

    pub(super) fn truncated(&self) -> TarError {
        TarError::Truncated(self.subject.clone())
    }

    pub(super) fn malformed(&self, what: &'static str) -> TarError {
        TarError::Malformed(self.subject.clone(), what)
    }

    pub(super) fn limit(&self, exceeded: Exceeded) -> TarError {
        TarError::Limit(self.subject.clone(), exceeded)
    }

    pub(super) fn pax_error(&self, error: PaxError) -> TarError {
        match error {
            PaxError::Malformed(what) => self.malformed(what),
            PaxError::Limit(exceeded) => self.limit(exceeded),
        }
    }
}

impl<R: BufRead> Stream<R> {
    /// Consumes the piece that was lent last.
    pub(super) fn consume_lent(&mut self) {
        self.source.consume(std::mem::take(&mut self.lent));
    }

    /// Lends 1 to `wanted` bytes from the source's buffer. The last piece must be consumed.
    pub(super) fn lend(&mut self, wanted: u64) -> Result<&[u8], TarError> {
        let available = self.source.fill_buf().map_err(TarError::Read)?;
        if available.is_empty() {
            return Err(TarError::Truncated(self.subject.clone()));
        }
        let length = available.len().min(usize::try_from(wanted).unwrap_or(usize::MAX));
        self.lent = length;
        self.offset += length as u64;
        Ok(available.get(..length).unwrap_or_default())
    }

    /// Reads a block, or `None` if the stream ends where the block would begin.
    pub(super) fn block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            let available = self.source.fill_buf().map_err(TarError::Read)?;
            let length = available.len().min(BLOCK - filled);
            if length == 0 {
                return if filled == 0 { Ok(None) } else { Err(self.truncated()) };
            }
            block[filled..filled + length].copy_from_slice(&available[..length]);
            self.source.consume(length);
            self.offset += length as u64;
            filled += length;
        }
        Ok(Some(block))
    }

    /// Reads a block that must be there.
    pub(super) fn need_block(&mut self) -> Result<[u8; BLOCK], TarError> {
        self.block()?.ok_or_else(|| self.truncated())
    }

    /// Skips `stored` bytes and the padding behind them. The stream may end where the padding begins, or
    /// within it: `umoci insert` writes neither the padding of the last entry nor the blocks of zeros. Go's
    /// reader takes that for the end of the archive, and every other runtime reads layers with it.
    pub(super) fn skip(&mut self, stored: u64, padding: u64) -> Result<(), TarError> {
        let mut left = stored + padding;
        while left > 0 {
            let available = self.source.fill_buf().map_err(TarError::Read)?.len();
            if available == 0 && left <= padding {
                break;
            }
            if available == 0 {
                return Err(self.truncated());
            }
            let length = available.min(usize::try_from(left).unwrap_or(usize::MAX));
            self.source.consume(length);
            self.offset += length as u64;
            left -= length as u64;
        }
        Ok(())
    }
}
