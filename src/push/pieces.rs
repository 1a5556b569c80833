//! Passes bytes from the thread that reads and compresses to the task that sends them.

use std::io::{self, Write};

use bytes::Bytes;
use tokio::sync::mpsc::Sender;

use crate::oci::digest::{Digest, Hasher};

/// Bytes of a piece. Up to three are in memory for each blob that is being sent: one that grows, one that waits, one on
/// its way.
pub(super) const PIECE: usize = 4 << 20;

/// Gathers bytes into pieces, and hashes them.
pub(super) struct Pieces {
    to: Sender<Bytes>,
    piece: Vec<u8>,
    hasher: Hasher,
}

impl Pieces {
    pub(super) fn new(to: Sender<Bytes>) -> Self {
        Self { to, piece: Vec::new(), hasher: Hasher::default() }
    }

    /// Passes the last piece on, and returns the digest of all.
    ///
    /// # Errors
    /// Nobody wants it any more: [`io::ErrorKind::BrokenPipe`].
    pub(super) fn finish(mut self) -> io::Result<Digest> {
        self.pass()?;
        Ok(self.hasher.finish())
    }

    fn pass(&mut self) -> io::Result<()> {
        let piece = std::mem::take(&mut self.piece);
        if piece.is_empty() {
            return Ok(());
        }
        self.to.blocking_send(piece.into()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.capacity() == 0 {
            // All at once: a piece that grows would be in memory twice.
            self.piece.reserve_exact(PIECE);
        }
        let count = bytes.len().min(PIECE - self.piece.len());
        self.hasher.update(&bytes[..count]);
        self.piece.extend_from_slice(&bytes[..count]);
        if self.piece.len() == PIECE {
            self.pass()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
