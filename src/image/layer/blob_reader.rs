//! The compressed blob as a stream: chunks as the source delivers them, counted and hashed.

use std::io::{self, BufRead, Read};

use bytes::Bytes;

use super::error::LayerFault;
use crate::oci::digest::{Digest, Hasher};
use crate::oci::manifest::LayerCompression;

/// A layer's blob, as its descriptor states it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blob {
    /// The digest of its bytes.
    pub digest: Digest,
    /// Their number, in bytes.
    pub size: u64,
    /// How they are compressed, from the media type.
    pub compression: LayerCompression,
}

/// Reads a blob from its chunks.
pub(super) struct BlobReader<'a, I> {
    chunks: I,
    chunk: Bytes,
    blob: &'a Blob,
    hasher: Hasher,
    /// Bytes received so far.
    got: u64,
    progress: &'a (dyn Fn(u64) + Sync),
}

impl<'a, I: Iterator<Item = Bytes>> BlobReader<'a, I> {
    pub(super) fn new(chunks: I, blob: &'a Blob, progress: &'a (dyn Fn(u64) + Sync)) -> Self {
        Self { chunks, chunk: Bytes::new(), blob, hasher: Hasher::default(), got: 0, progress }
    }

    /// The next `count` bytes or more, if the blob has them. Consumes nothing.
    pub(super) fn peek(&mut self, count: usize) -> io::Result<&[u8]> {
        while self.chunk.len() < count {
            // `fill_buf` fetches only when there is nothing left of the last chunk.
            let before = std::mem::take(&mut self.chunk);
            if self.fill_buf()?.is_empty() {
                self.chunk = before;
                break;
            }
            if !before.is_empty() {
                self.chunk = [&before[..], &self.chunk[..]].concat().into();
            }
        }
        Ok(&self.chunk)
    }

    /// Reads the rest of the blob and compares its size and digest with the descriptor.
    pub(super) fn verify(&mut self) -> Result<(), LayerFault> {
        loop {
            self.chunk = Bytes::new();
            match self.fill_buf() {
                Ok([]) => break,
                Ok(_) => {}
                // `fill_buf` fails only on a blob that is too long, which `got` shows below.
                Err(_) => break,
            }
        }
        let size = self.blob.size;
        if self.got > size {
            return Err(LayerFault::Long { size });
        }
        if self.got < size {
            return Err(LayerFault::Short { got: self.got, size });
        }
        match self.hasher.clone().finish() {
            found if found == self.blob.digest => Ok(()),
            found => Err(LayerFault::Digest { found }),
        }
    }
}

impl<I: Iterator<Item = Bytes>> BufRead for BlobReader<'_, I> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.chunk.is_empty() {
            let Some(chunk) = self.chunks.next() else { return Ok(&[]) };
            self.got += chunk.len() as u64;
            if self.got > self.blob.size {
                return Err(io::Error::other("more bytes than the descriptor says"));
            }
            self.hasher.update(&chunk);
            (self.progress)(chunk.len() as u64);
            self.chunk = chunk;
        }
        Ok(&self.chunk)
    }

    fn consume(&mut self, count: usize) {
        bytes::Buf::advance(&mut self.chunk, count);
    }
}

impl<I: Iterator<Item = Bytes>> Read for BlobReader<'_, I> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(into.len());
        into[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}
