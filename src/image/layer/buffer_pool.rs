//! Buffers that travel between the threads of one layer: filled by the first, read by the others
//! in turn, and sent back by the last to be filled again. Their number bounds the layer's memory.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, Sender};

/// Bytes per buffer: large enough that handing over costs nothing, small enough to stay in cache.
pub(super) const BUFFER: usize = 128 << 10;
/// Buffers per layer: enough for each thread to have one in hand and one waiting.
pub(super) const BUFFERS: usize = 8;

/// Fills `buffer` as far as the source goes. Short only at the source's end.
pub(super) fn fill(buffer: &mut Vec<u8>, mut source: impl Read) -> io::Result<()> {
    buffer.resize(BUFFER, 0);
    let mut filled = 0;
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

/// The end of the pool, as a stream.
pub(super) struct BeltReader {
    full: Receiver<Vec<u8>>,
    empty: Sender<Vec<u8>>,
    buffer: Vec<u8>,
    position: usize,
}

impl BeltReader {
    pub(super) fn new(full: Receiver<Vec<u8>>, empty: Sender<Vec<u8>>) -> Self {
        Self { full, empty, buffer: Vec::new(), position: 0 }
    }

    /// Takes everything to the end of the stream.
    pub(super) fn drain(mut self) {
        while let Ok(buffer) = self.full.recv() {
            self.recycle(buffer);
        }
    }

    fn recycle(&mut self, buffer: Vec<u8>) {
        // Nobody fills buffers any more once the stream has ended.
        let _ = self.empty.send(buffer);
    }
}

impl BufRead for BeltReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.position == self.buffer.len() {
            match self.full.recv() {
                Ok(buffer) => {
                    let spent = std::mem::replace(&mut self.buffer, buffer);
                    self.position = 0;
                    if spent.capacity() > 0 {
                        self.recycle(spent);
                    }
                }
                Err(_) => return Ok(&[]),
            }
        }
        Ok(self.buffer.get(self.position..).unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        self.position = (self.position + count).min(self.buffer.len());
    }
}

impl Read for BeltReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(into.len());
        into[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}
