//! Kubelets before Kubernetes 1.26 name the socket's path as the `:authority` of their requests. A path is no
//! authority, so the HTTP/2 library refuses each of their calls with PROTOCOL_ERROR
//! (`docs/adr/0014-authority-of-old-kubelets.md`).
//!
//! [`Lenient`] wraps a connection and puts a plain word in that header's place as it is read. The word has as many
//! characters as the path had: the compression of headers (HPACK, RFC 7541) counts them on both sides, and both
//! sides must come to the same count. Nothing here looks at the authority, so it may say anything. Whatever this
//! module does not understand passes as it is, for the library to judge.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

mod hpack;

/// Length of `PRI * HTTP/2.0...`, with which a client begins.
const PREFACE: usize = 24;
/// A frame's header: length, type, flags, stream.
const HEADER: usize = 9;
/// The longest frame that this server has agreed to (RFC 9113, SETTINGS_MAX_FRAME_SIZE by default).
const MAX_FRAME: usize = 16_384;
const HEADERS: u8 = 1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Bytes read from the connection at a time.
const CHUNK: usize = 4096;

/// A connection whose requests have an authority that HTTP/2 allows.
#[derive(Debug)]
pub struct Lenient<S> {
    stream: S,
    filter: Filter,
    /// Filtered, and not yet read from `given`.
    ready: Vec<u8>,
    given: usize,
}

impl<S> Lenient<S> {
    /// Wraps a connection from which nothing has been read.
    pub fn new(stream: S) -> Self {
        Self { stream, filter: Filter::default(), ready: Vec::new(), given: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lenient<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.given == this.ready.len() {
            this.ready.clear();
            this.given = 0;
            let mut chunk = [0; CHUNK];
            let mut buffer = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut this.stream).poll_read(context, &mut buffer))?;
            if buffer.filled().is_empty() {
                // The end; what a frame lacks will not come.
                this.filter.finish(&mut this.ready);
                if this.ready.is_empty() {
                    return Poll::Ready(Ok(()));
                }
            }
            this.filter.push(buffer.filled(), &mut this.ready);
        }
        let left = &this.ready[this.given..];
        let count = left.len().min(into.remaining());
        into.put_slice(&left[..count]);
        this.given += count;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Lenient<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

impl<S: Connected> Connected for Lenient<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

/// Bytes in, bytes out: the frames of a connection, with their header blocks changed.
#[derive(Debug)]
struct Filter {
    /// The beginning of a frame that is not complete.
    held: Vec<u8>,
    /// Bytes that pass before the next frame begins.
    passing: usize,
}

impl Default for Filter {
    fn default() -> Self {
        Self { held: Vec::new(), passing: PREFACE }
    }
}

impl Filter {
    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.held.extend_from_slice(bytes);
        let mut held = &self.held[..];
        loop {
            let (pass, rest) = held.split_at(self.passing.min(held.len()));
            out.extend_from_slice(pass);
            self.passing -= pass.len();
            held = rest;
            let Some(&[a, b, c, kind, ..]) = held.first_chunk::<HEADER>() else { break };
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            if kind != HEADERS || length > MAX_FRAME {
                self.passing = HEADER + length;
            } else if let Some((frame, rest)) = held.split_at_checked(HEADER + length) {
                match rewritten(frame) {
                    Some(frame) => out.extend_from_slice(&frame),
                    None => out.extend_from_slice(frame),
                }
                held = rest;
            } else {
                break;
            }
        }
        let left = held.len();
        self.held.drain(..self.held.len() - left);
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.held);
    }
}

/// A HEADERS frame with another authority; nothing if it has none, or is not understood.
fn rewritten(frame: &[u8]) -> Option<Vec<u8>> {
    let flags = frame[4];
    let padded = usize::from(flags & PADDED != 0);
    let block = HEADER + padded + if flags & PRIORITY != 0 { 5 } else { 0 };
    let value = hpack::authority(frame.get(block..)?)?;
    let (start, end) = (block + value.bytes.start, block + value.bytes.end);
    let word = hpack::plain_string(value.characters);
    let mut new = [&frame[..start], &word, frame.get(end..)?].concat();
    let length = new.len() - HEADER;
    if length > MAX_FRAME {
        return None;
    }
    new[..3].copy_from_slice(&u32::try_from(length).ok()?.to_be_bytes()[1..]);
    Some(new)
}

#[cfg(test)]
mod tests;
