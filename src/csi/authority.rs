//! Makes the server accept kubelets before Kubernetes 1.26 (`docs/adr/0014-authority-of-old-kubelets.md`), and clients of
//! gRPC's C core (Python, C++, Ruby, PHP), which sidecars and scripts for debugging are.
//!
//! These send the socket's path as the `:authority` of their requests: the kubelets as it is, the C core
//! percent-encoded (`tmp%2Fcsi.sock` in grpcio 1.85; `localhost` up to 1.51). Neither is a valid authority, so the HTTP/2
//! library refuses each of their calls with PROTOCOL_ERROR. The C core writes the name of the header as a literal, where
//! the kubelets' library refers to HPACK's static table. The module can go when neither is served any more.
//!
//! [`AuthorityRewriter`] wraps a connection and replaces the value of that header by a plain word as it is read. The
//! word has as many characters as the path: header compression (HPACK, RFC 7541) counts the characters on both sides,
//! and the counts must agree. No code uses the authority, so its value does not matter. Bytes that this module does not
//! understand pass unchanged, and the library decides about them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

mod hpack;

/// Length of the connection preface `PRI * HTTP/2.0...`.
const PREFACE: usize = 24;
/// Length of a frame's header: length, type, flags, stream.
const HEADER: usize = 9;
/// The longest frame that this server allows (RFC 9113, the default of SETTINGS_MAX_FRAME_SIZE).
const MAX_FRAME: usize = 16_384;
const HEADERS: u8 = 1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Bytes read from the connection at a time.
const CHUNK: usize = 4096;

/// A connection that rewrites the authority of requests to one that HTTP/2 allows.
#[derive(Debug)]
pub(crate) struct AuthorityRewriter<S> {
    stream: S,
    filter: FrameFilter,
    /// Filtered bytes; those before `given` have been read.
    ready: Vec<u8>,
    given: usize,
}

impl<S> AuthorityRewriter<S> {
    /// Wraps a connection from which nothing has been read.
    pub fn new(stream: S) -> Self {
        Self { stream, filter: FrameFilter::default(), ready: Vec::new(), given: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for AuthorityRewriter<S> {
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
                // The end of the connection: an incomplete frame passes as it is.
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

impl<S: AsyncWrite + Unpin> AsyncWrite for AuthorityRewriter<S> {
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

impl<S: Connected> Connected for AuthorityRewriter<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

/// Filters the bytes of a connection: passes frames, and rewrites header blocks.
#[derive(Debug)]
struct FrameFilter {
    /// The beginning of an incomplete frame.
    held: Vec<u8>,
    /// The number of bytes to pass before the next frame begins.
    passing: usize,
}

impl Default for FrameFilter {
    fn default() -> Self {
        Self { held: Vec::new(), passing: PREFACE }
    }
}

impl FrameFilter {
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
            // Only header frames are held back, so that data is not buffered here.
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

/// A HEADERS frame with the authority replaced; `None` if it has none or cannot be parsed.
fn rewritten(frame: &[u8]) -> Option<Vec<u8>> {
    let flags = frame[4];
    let padded = usize::from(flags & PADDED != 0);
    // RFC 9113, 6.2: an optional pad length, then an optional priority of five bytes, then the block.
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
