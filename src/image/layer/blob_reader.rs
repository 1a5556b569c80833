//! The compressed side: chunks as the source delivers them, counted and hashed as they are read.

use std::io::{self, BufRead, Read};

use bytes::Bytes;

use super::Blob;
use super::error::LayerFault;
use crate::oci::digest::Hasher;

/// The blob as it comes in.
pub(super) struct BlobReader<'a, I> {
    chunks: I,
    chunk: Bytes,
    blob: &'a Blob,
    hasher: Hasher,
    got: u64,
    progress: &'a (dyn Fn(u64) + Sync),
}

impl<'a, I: Iterator<Item = Bytes>> BlobReader<'a, I> {
    pub(super) fn new(chunks: I, blob: &'a Blob, progress: &'a (dyn Fn(u64) + Sync)) -> Self {
        Self { chunks, chunk: Bytes::new(), blob, hasher: Hasher::default(), got: 0, progress }
    }

    /// Makes at least `count` bytes available at once, if the blob has them, without consuming any.
    pub(super) fn peek(&mut self, count: usize) -> io::Result<&[u8]> {
        while self.chunk.len() < count {
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

    /// Reads what is left, and says whether these are the bytes that the descriptor means.
    pub(super) fn verify(&mut self) -> Result<(), LayerFault> {
        loop {
            self.chunk = Bytes::new();
            match self.fill_buf() {
                Ok([]) => break,
                Ok(_) => {}
                // The one error that `fill_buf` makes; the size tells it apart below.
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
