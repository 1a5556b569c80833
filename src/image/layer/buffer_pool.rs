//! A pool of buffers between the threads of one layer. The first thread fills a buffer, the others read it in
//! turn, and the last one returns it. The number of buffers bounds the layer's memory.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, Sender};

/// Bytes per buffer: large enough that passing it on costs nothing, small enough for the cache.
pub(super) const BUFFER: usize = 128 << 10;
/// Buffers per layer: enough for each thread to work on one while another one waits.
pub(super) const BUFFERS: usize = 8;

/// Fills `buffer`. It stays shorter than [`BUFFER`] only at the source's end.
pub(super) fn fill(buffer: &mut Vec<u8>, mut source: impl Read) -> io::Result<()> {
    buffer.resize(BUFFER, 0);
    let mut filled = 0;
    // A decoder returns few bytes at a time: only full buffers keep the costs of passing them on low.
    let result = loop {
        match source.read(buffer.get_mut(filled..).unwrap_or_default()) {
            Ok(0) => break Ok(()),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };
    buffer.truncate(filled);
    result
}

/// The last thread's view of the pool: the filled buffers as one stream.
pub(super) struct PoolReader {
    full: Receiver<Vec<u8>>,
    empty: Sender<Vec<u8>>,
    buffer: Vec<u8>,
    position: usize,
}

impl PoolReader {
    pub(super) fn new(full: Receiver<Vec<u8>>, empty: Sender<Vec<u8>>) -> Self {
        Self { full, empty, buffer: Vec::new(), position: 0 }
    }

    /// Reads and drops everything to the end of the stream, so that the other threads come to their end.
    pub(super) fn drain(mut self) {
        while let Ok(buffer) = self.full.recv() {
            self.recycle(buffer);
        }
    }

    fn recycle(&mut self, buffer: Vec<u8>) {
        // Fails only when the first thread has ended, which then needs no buffer.
        let _ = self.empty.send(buffer);
    }
}

impl BufRead for PoolReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.position == self.buffer.len() {
            match self.full.recv() {
                Ok(buffer) => {
                    let spent = std::mem::replace(&mut self.buffer, buffer);
                    self.position = 0;
                    // The reader's own first buffer is empty and not of the pool.
                    if spent.capacity() > 0 {
                        self.recycle(spent);
                    }
                }
                // All senders are gone: the end of the stream.
                Err(_) => return Ok(&[]),
            }
        }
        Ok(self.buffer.get(self.position..).unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        self.position = (self.position + count).min(self.buffer.len());
    }
}

impl Read for PoolReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(into.len());
        into[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}
